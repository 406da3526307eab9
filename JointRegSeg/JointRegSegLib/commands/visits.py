"""``jointregseg apply --visit … --visit …``: several visits, each registered to and compared with one of them."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import part, terminal_progress
from NeuroCESTLib.report.record import Report

from ..images.modalities import TITLES
from .options import record_weights, unused_refinement
from .visit_files import STUDIES, computing_options, files_by_modality, named_by_files, positions, told, write_pair

_OF_PAIRS = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_tumor", "moving_tumor", "labels", "carry")
"""Options that belong to --fixed and --moving."""


def run_visits(options: Namespace) -> None:
    """Run ``jointregseg apply`` with several visits; it writes all results or none."""
    paths, reference = visits_of(options)
    others = [number for number in range(1, len(paths) + 1) if number != reference]
    earlier = positions(STUDIES, [_folder_of(number, reference) for number in others])
    with terminal_progress() as progress, OutputFolder(options.output, replaced=earlier) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.core.packages import left_out_without_its_package
        from NeuroCESTLib.scene import host
        from NeuroCESTLib.scene.tables import write_table
        from NeuroCESTLib.scene.writing import write_scene

        from ..logic import JointRegSegLogic
        from ..pictures.follow_up import draw_follow_up
        from ..quality.verdict import combined_pairs

        name = Path(options.output).resolve().name
        report = Report("jointregseg apply", settings_of(options), str(choose_device(options.device)))
        report.warnings += unused_refinement(options)
        host.attach()
        with report.timed("reading"), told(report):
            visits, files = _read(options, paths, report)
        with report.timed("computing"), named_by_files(files), told(report):
            result = JointRegSegLogic().follow(
                visits,
                reference=reference,
                folderName=name,
                progress=part(progress, 0.0, 0.9),
                **computing_options(options),
            )
        with report.timed("writing"):
            for number, pair in result.pairs.items():
                place = folder / _folder_of(number, reference)
                place.mkdir()
                of_pair = {"fixed": paths[reference - 1], "moving": paths[number - 1]}
                write_pair(options, of_pair, place, pair, part(progress, 0.9, 0.98))
                times_s = pair.report.pop("seconds")
                report.add_times({f"visit{number}: {step}": seconds for step, seconds in times_s.items()})
                report.summary[f"visit{number}"] = pair.report
            if result.changes is not None:
                write_table(result.changes, folder / "changes.csv", digits=6)
                with left_out_without_its_package("report.png", result.warnings.append):
                    draw_follow_up(result.rows, folder / "report.png", f"{name}: changes since visit {reference}")
            if options.scene:
                write_scene(folder / "scene.mrb")
        report.summary["reference"] = reference
        report.verdict = combined_pairs({n: pair.report for n, pair in result.pairs.items()}, reference)
        report.warnings += result.warnings
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"verdict: {report.verdict['verdict']}", file=sys.stderr)


def _folder_of(number: int, reference: int) -> str:
    return f"visit{number}_to_visit{reference}"


def visits_of(options: Namespace) -> tuple[list[dict[str, str]], int]:
    """Return the files of every visit by modality, and the number of the reference visit.

    Raises:
        ValueError: There is one visit alone, no such reference, or an option of two visits is given.
    """
    if mixed := [f"--{name.replace('_', '-')}" for name in _OF_PAIRS if getattr(options, name)]:
        raise ValueError(f"{', '.join(mixed)} cannot be used with --visit; use --fixed and --moving for two visits")
    if len(options.visit) < 2:
        raise ValueError("--visit is given once: give it for each of at least two visits, or use `jointregseg segment`")
    reference = 1 if options.reference is None else options.reference
    if not 1 <= reference <= len(options.visit):
        raise ValueError(f"--reference is {reference}, but there are the visits 1 to {len(options.visit)}")
    return [files_by_modality(files, f"--visit (visit {n})") for n, files in enumerate(options.visit, 1)], reference


def _read(
    options: Namespace, paths: list[dict[str, str]], report: Report
) -> tuple[list[dict[str, Any]], list[tuple[Any, str]]]:
    """Read the images: volume nodes of each visit by modality, and every node with its file."""
    from NeuroCESTLib.scene.volumes import read_volume

    record_weights(options, report)
    visits: list[dict[str, Any]] = []
    files = []
    for number, images in enumerate(paths, 1):
        visits.append({})
        for modality, path in images.items():
            report.add_input(f"visit{number} {modality}", path)
            visits[-1][modality] = read_volume(path, f"visit {number} {TITLES[modality]}")
            files.append((visits[-1][modality], path))
    return visits, files
