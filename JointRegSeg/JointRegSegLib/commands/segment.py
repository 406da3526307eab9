"""``jointregseg segment``: the tumour of one visit, from files to segmentation, volumes and a report."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.progress import part, terminal_progress
from NeuroCESTLib.report.record import Report

from .options import add_coregistration, add_device, add_flips, add_weights, check_weights, record_weights
from .visit_files import add_visit, files_by_modality, named_by_files, positions, read_visit, told

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser

    from ..scene.single_study import SegmentationResult

RESULTS = ("segmentation.seg.nrrd", "volumes.csv", "report.json")
"""Names of files that the command is sure to write."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("segment", help="segment one visit")
    add_visit(parser)
    add_weights(parser, without=False)
    add_flips(parser)
    add_coregistration(parser)
    add_device(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")
    parser.set_defaults(command=run, check=check)


def check(options: Namespace) -> None:
    """Check what can be checked before any image is read.

    Raises:
        ValueError: There are no images or too many, or there are no such weights.
    """
    files_by_modality(options.images, "--images")
    check_weights(options)


def run(options: Namespace) -> None:
    """Run ``jointregseg segment``; it writes all results or none."""
    paths = files_by_modality(options.images, "--images")
    with terminal_progress() as progress, OutputFolder(options.output, replaced=positions()) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.scene import host

        from ..logic import JointRegSegLogic

        report = Report("jointregseg segment", settings_of(options), str(choose_device(options.device)))
        host.attach()
        record_weights(options, report)
        with report.timed("reading"), told(report):
            study, mask, files = read_visit(paths, options.mask, report)
            require_inputs_kept(options.output, lambda place: str(place) in RESULTS)
        with report.timed("computing"), named_by_files(files), told(report):
            result = JointRegSegLogic().segment(
                study,
                mask=mask,
                weights=options.weights,
                flips=not options.no_flips,
                coregister=not options.no_coregistration,
                folderName=Path(options.output).resolve().name,
                device=options.device,
                progress=part(progress, 0.0, 0.95),
            )
        progress(0.95, "writing files")
        with report.timed("writing"):
            _write(options, paths[result.study.reference_modality], folder, result)
        report.warnings += result.warnings
        report.add_times({"segmentation": result.report.pop("seconds")})
        report.verdict = {name: result.report.pop(name) for name in ("verdict", "reasons")}
        report.summary |= result.report
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"verdict: {report.verdict['verdict']}", file=sys.stderr)


def _write(options: Namespace, like: str, folder: Path, result: SegmentationResult) -> None:
    """Write all results but the report, in the voxel order of the reference of the study."""
    from NeuroCESTLib.core.packages import left_out_without_its_package
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_scene, write_volume

    from ..scene.files import write_positions, write_segmentation
    from ..scene.report import draw_segmentation

    write_segmentation(result.segmentation, folder / "segmentation.seg.nrrd", like)
    write_positions(result.found.positions, folder)
    if result.uncertainty is not None:
        write_volume(result.uncertainty, folder / "uncertainty.nii.gz", like=like)
    write_table(result.volumes, folder / "volumes.csv", digits=6)
    with left_out_without_its_package("report.png", result.warnings.append):
        title = f"{Path(options.output).resolve().name}: jointregseg segment"
        draw_segmentation(result, folder / "report.png", title)
    if options.scene:
        write_scene(folder / "scene.mrb")
