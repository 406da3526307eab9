"""``cestquant compartments``: CEST numbers of each compartment of a tumour, and their change between two visits."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.labels.conventions import CONVENTIONS

from .acquisition import read_reference
from .patient_report import add_report, require_report, write_report

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.report.record import Report

    from ..scene.compartments.inputs import CompartmentVisit
    from ..scene.compartments.nodes import CompartmentsResult

_VISITS = (("", "the visit"), ("2", "the second, later visit"))
"""Ending of the options of each visit, and what the help calls it."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compartments",
        help="CEST numbers per tumour compartment at one or two visits, and their change",
        epilog="Options that end in 2 are those of a second, later visit. A visit without --maps still gives volumes, "
        "and so do two visits that both have none.",
    )
    for end, visit in _VISITS:
        group = parser.add_argument_group(f"files of {visit}")
        group.add_argument(f"--maps{end}", metavar="DIR", help="output folder of 'cestquant fit'")
        group.add_argument(
            f"--segmentation{end}",
            metavar="SEG",
            help="compartments and further segments, in the space of the anatomy: .seg.nrrd or label volume",
        )
        group.add_argument(
            f"--anatomy{end}", nargs="+", metavar="T1", help="images that were segmented, the T1-weighted one first"
        )
        group.add_argument(
            f"--to-anatomy{end}",
            metavar="TRANSFORM",
            help="linear transform that moves the CEST images onto the anatomy (default: the scanner's coordinates)",
        )
        group.add_argument(
            f"--signal{end}",
            nargs="+",
            metavar="MZ",
            help="acquisition of the maps, where it is no longer at the place that their report.json names",
        )
        group.add_argument(f"--reference{end}", nargs="+", metavar="M0", help="M0 of that acquisition")
        group.add_argument(f"--protocol{end}", metavar="P", help="protocol of that acquisition")
        group.add_argument(
            f"--files{end}",
            nargs="+",
            metavar="FILE",
            help="files that made the maps, recognised by their checksums where the report.json of the maps does not "
            "say where they are, as after --anonymous",
        )
    parser.add_argument("--register", action="store_true", help="register CEST and anatomy of each visit (rigid)")
    parser.add_argument("--method", metavar="METHOD", help="method of the fits of mean spectra (default: the maps')")
    parser.add_argument("--model", metavar="MODEL.json", help="tissue model of these fits (default: the maps')")
    parser.add_argument(
        "--between",
        metavar="TRANSFORM",
        help="moving_to_fixed.h5 of 'jointregseg apply --fixed FIRST --moving SECOND': change maps, growth, Jacobian",
    )
    parser.add_argument(
        "--visits",
        nargs="+",
        default=["visit 1", "visit 2"],
        metavar="NAME",
        help="names of the visits (default: 'visit 1' 'visit 2')",
    )
    parser.add_argument(
        "--labels",
        metavar="LABELS",
        help="meaning of a label volume: numbers and names, as in 1=core,2=oedema,3=enhancing, or a convention: "
        f"{', '.join(name for name, convention in CONVENTIONS.items() if convention.classes is not None)}",
    )
    parser.add_argument(
        "--rim", type=float, default=5.0, metavar="MM", help="width of the rim around the enhancing part"
    )
    parser.add_argument("--level", type=float, default=0.95, help="level of the confidence intervals")
    parser.add_argument("--draws", type=int, default=500, metavar="N", help="bootstrap samples")
    parser.add_argument(
        "--perturbations", type=int, default=12, metavar="N", help="disturbed alignments, for the registration error"
    )
    parser.add_argument(
        "--alignment-error", type=float, default=0.5, metavar="MM", help="standard deviation of the alignment"
    )
    parser.add_argument(
        "--segmentation-error",
        type=float,
        default=0.5,
        metavar="MM",
        help="standard deviation by which outlines may lie too far outside or inside, for intervals of volume changes",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the random draws")
    parser.add_argument("--no-spectra", action="store_true", help="do not fit the mean spectra of the regions")
    add_report(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for tables, images and report")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")
    parser.set_defaults(command=run, check=check)


def run(options: Namespace) -> None:
    """Run ``cestquant compartments``."""
    from NeuroCESTLib.batch.frame import OutputFolder, settings_of
    from NeuroCESTLib.core.progress import terminal_progress
    from NeuroCESTLib.core.whole_files import keep_words
    from NeuroCESTLib.report.record import Report

    from ..methods.registry import METHODS

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant compartments", settings_of(options))
        keep_words(*METHODS)
        report.require_folder(options.output)
        from NeuroCESTLib.scene import host

        host.attach()
        from ..logic import CESTQuantLogic

        with report.timed("reading"):
            visits = [_visit(options, end, report) for end, _ in _VISITS if _is_given(options, end)]
            if options.maps and options.maps2:
                visits[1] = replace(visits[1], notes=(*visits[1].notes, *_differences(options)))
            if options.between:
                report.add_input("between", options.between)
        with report.timed("computing"):
            result = CESTQuantLogic().compartments(
                visits[0],
                visits[1] if len(visits) > 1 else None,
                between=options.between,
                rim_mm=options.rim,
                level=options.level,
                draws=options.draws,
                perturbations=options.perturbations,
                alignmentError_mm=options.alignment_error,
                segmentationError_mm=options.segmentation_error,
                seed=options.seed,
                fitSpectra=not options.no_spectra,
                progress=progress,
            )
        with report.timed("writing"):
            _write(options, folder, result, report)
        report.write(folder)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def _is_given(options: Namespace, end: str) -> bool:
    return any(getattr(options, f"{name}{end}") for name in ("maps", "segmentation", "anatomy"))


def check(options: Namespace) -> None:
    """Check what can be checked before anything is read.

    Raises:
        ValueError: Options do not go together, or the meaning of a label volume or a name is unusable.
    """
    from ..scene.compartments.nodes import file_name

    if not (options.maps or options.maps2 or (options.segmentation and options.segmentation2)):
        raise ValueError(
            "no CEST maps are given: give --maps with the output folder of 'cestquant fit', or for the volumes of two "
            "visits alone --segmentation and --segmentation2"
        )
    if not _is_given(options, ""):
        raise ValueError(
            "--maps2 is given without a first visit: give its files with --maps, --segmentation, --anatomy"
        )
    two = _is_given(options, "2")
    if options.between and not two:
        raise ValueError("--between needs a second visit: give its files with --maps2, --segmentation2, --anatomy2")
    if len(options.visits) not in (1, 2) or (two and len(set(options.visits)) != 2):
        raise ValueError("--visits needs one name for each visit, and they must differ")
    if two and len({file_name(visit).casefold() for visit in options.visits}) != 2:
        raise ValueError(
            f"--visits: the names {' and '.join(map(repr, options.visits))} are the same as names of files, in which "
            "letters, digits and hyphens count: choose names that differ in these"
        )
    _labels(options.labels)
    require_report(options, options.visits if two else options.visits[:1])


def _visit(options: Namespace, end: str, report: Report) -> CompartmentVisit:
    """Read the files of a visit into the scene."""
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.volumes import read_volume

    from ..scene.compartments.inputs import CompartmentVisit
    from .fit_folder import read_fit_folder

    def given(name: str) -> Any:
        return getattr(options, f"{name}{end}")

    def recorded(role: str, path: str) -> str:
        report.add_input(f"{role}{end}", path)
        return path

    overrides = {
        "signal": given("signal"),
        "reference": given("reference"),
        "protocol": given("protocol"),
        "method": options.method,
        "model": options.model,
        "files": given("files"),
    }
    maps = (
        read_fit_folder(
            given("maps"),
            overrides,
            report,
            end,
            spectra=not options.no_spectra,
            reference=options.register or bool(given("anatomy")),
            register=options.register,
        )
        if given("maps")
        else None
    )
    segmentation = given("segmentation")
    reference = (given("reference") or maps.reference) if maps is not None and maps.fit is None else None
    return CompartmentVisit(
        name=options.visits[1 if end else 0],
        maps=maps.nodes if maps else {},
        segmentation=read_segmentation(recorded("segmentation", segmentation)) if segmentation else None,
        anatomy=[read_volume(recorded("anatomy", path)) for path in given("anatomy") or ()],
        toAnatomy=recorded("to_anatomy", given("to_anatomy")) if given("to_anatomy") else None,
        register=options.register,
        unsaturated=read_reference([recorded("reference", str(path)) for path in reference]) if reference else None,
        fit=maps.fit if maps else None,
        labels=_labels(options.labels),
        notes=maps.notes if maps else (),
    )


def _labels(text: str | None) -> Mapping[int, str] | str:
    """What the numbers of a label volume mean: names by number, or the name of a convention."""
    from ..compartments.anatomy.segment_names import named_labels

    names = named_labels(text) if text else {}
    return text if text and "=" not in text else names


def _differences(options: Namespace) -> list[str]:
    """Return a sentence for the user where the maps of the visits were made in different ways, otherwise nothing."""
    from .fit_differences import differences

    found = differences(options.maps, options.maps2)
    if not found:
        return []
    return [
        f"its maps were not made in the same way as those of {options.visits[0]}, so that a change may come from that: "
        f"{', '.join(found)}"
    ]


def _write(options: Namespace, folder: Path, result: CompartmentsResult, report: Report) -> None:
    """Write tables, segmentations, maps and scene."""
    from NeuroCESTLib.core.checksum import sha256
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_node, write_scene, write_volume

    from ..scene.compartments.nodes import file_name, summary_of

    tables = {"compartments.csv": result.table, "changes.csv": result.changes}
    tables = {name: table for name, table in tables.items() if table is not None}
    for name, table in tables.items():
        write_table(table, folder / name)
    for visit, node in result.segmentations.items():
        write_node(node, folder / f"{file_name(visit)}_regions.seg.nrrd")
    for name, node in result.changeMaps.items():
        write_volume(node, folder / f"change_{name}.nii.gz")
    if result.transitions is not None:
        write_volume(result.transitions, folder / "transitions.nii.gz")
    if options.scene:
        write_scene(folder / "scene.mrb")
    report.summary |= summary_of(result.analysis)
    report.summary["checksums"] = {name: sha256(folder / name) for name in tables}
    report.warnings += result.analysis.warnings
    write_report(options, folder, result, report)
