"""``jointregseg apply``: two visits from files to segmentations, transforms and a report."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.headers.nrrd import is_segmentation
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.progress import Progress, part, terminal_progress
from NeuroCESTLib.report.record import Report

from ..images.label_conventions import declared_convention
from ..images.modalities import TITLES
from ..inference.settings import AFFINE_KINDS, NO_NETWORK
from ..registration.refinement_settings import REGULARIZERS, RefinementSettings
from .options import (
    add_coregistration,
    add_device,
    add_labels,
    add_refinement,
    add_weights,
    check_refinement,
    check_weights,
    record_weights,
    unused_refinement,
)
from .visit_files import (
    ABSENT,
    MOVING_SEGMENTATION,
    ORDER,
    STUDIES,
    computing_options,
    files_by_modality,
    named_by_files,
    positions,
    told,
    write_pair,
)

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser

    from ..scene.results import JointRegSegResult


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("apply", help="segment and register two or more visits")
    for which in STUDIES:
        parser.add_argument(
            f"--{which}",
            nargs="+",
            metavar="IMAGE",
            help=f"images of the {which} study in the order {ORDER}, '{ABSENT}' for a missing one; 1 to 4 files",
        )
    parser.add_argument(
        "--visit",
        nargs="+",
        action="append",
        metavar="IMAGE",
        help="images of a visit, in the same order; once for each of two or more visits, in the order of time, instead "
        "of --fixed and --moving",
    )
    parser.add_argument(
        "--reference",
        type=int,
        metavar="N",
        help="number of the --visit, from 1, to which the others are registered and compared (default: 1)",
    )
    for which in STUDIES:
        parser.add_argument(f"--{which}-mask", metavar="M", help=f"brain of the {which} study (default: estimated)")
    for which in STUDIES:
        parser.add_argument(
            f"--{which}-tumor",
            metavar="SEG",
            help=f"tumour of the {which} study, instead of the network's: .seg.nrrd with named segments, or a label "
            "file, see --labels; a plain mask is only left out of the registration",
        )
    add_labels(parser, "of the tumours")
    add_weights(parser, without=True)
    parser.add_argument(
        "--affine",
        choices=AFFINE_KINDS,
        default="affine",
        help="linear alignment before the deformation",
    )
    add_refinement(parser)
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="S",
        help="time in seconds after which the refinement ends with what it has found, and a warning (default: none)",
    )
    parser.add_argument(
        "--regulariser",
        choices=REGULARIZERS,
        help="penalty that keeps the velocity field of the refinement smooth (default: "
        f"{RefinementSettings().regulariser})",
    )
    parser.add_argument(
        "--regularisation",
        type=float,
        metavar="W",
        help=f"weight of that penalty (default: {RefinementSettings().regularisation:g})",
    )
    add_coregistration(parser)
    parser.add_argument(
        "--carry",
        nargs="+",
        default=[],
        metavar="FILE",
        help="further images (CEST maps) or .seg.nrrd files of the moving visit to bring onto the fixed study",
    )
    add_device(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")
    parser.set_defaults(command=run, check=check)


def check(options: Namespace) -> None:
    """Check what can be checked before any image is read.

    Raises:
        ValueError: Visits are missing or mixed up, or a value cannot be used.
    """
    if options.visit is not None:
        from .visits import visits_of

        visits_of(options)
    else:
        check_pair_options(options)
        _paths(options)
    check_refinement(options)
    if options.labels is not None:
        declared_convention(options.labels)
    check_weights(options)


def _paths(options: Namespace) -> dict[str, dict[str, str]]:
    """Files of both studies by modality."""
    return {which: files_by_modality(getattr(options, which), f"--{which}") for which in STUDIES}


def run(options: Namespace) -> None:
    """Run ``jointregseg apply``; it writes all results or none."""
    if options.visit is not None:
        from .visits import run_visits

        return run_visits(options)
    paths = _paths(options)
    unused = options.labels is not None and not (options.fixed_tumor or options.moving_tumor)
    with terminal_progress() as progress, OutputFolder(options.output, replaced=positions(STUDIES)) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.scene import host
        from NeuroCESTLib.scene.image_files import node_name
        from NeuroCESTLib.scene.writing import write_scene

        report = Report("jointregseg apply", settings_of(options), str(choose_device(options.device)))
        report.warnings += unused_refinement(options)
        host.attach()
        with report.timed("reading"), told(report):
            if unused:
                warnings.warn("--labels changes nothing without --fixed-tumor or --moving-tumor", stacklevel=1)
            inputs = _read(options, paths, report)
            require_inputs_kept(options.output, lambda place: str(place) in _sure_results(options, paths))
        with report.timed("computing"), named_by_files(inputs.files), told(report):
            result = _process(options, inputs, part(progress, 0.0, 0.95))
        for node, path in zip(result.carried, options.carry, strict=True):
            node.SetName(f"{node_name(path)} on fixed")
        with report.timed("writing"):
            write_pair(options, paths, folder, result, part(progress, 0.95, 1.0))
            if options.scene:
                progress(0.99, "writing the scene")
                write_scene(folder / "scene.mrb")
        report.warnings += result.warnings
        report.add_times(result.report.pop("seconds"))
        report.summary |= result.report
        report.verdict = {name: result.report[name] for name in ("verdict", "reasons")}
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"verdict: {report.verdict['verdict']}", file=sys.stderr)


def _sure_results(options: Namespace, paths: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Names of files that the command is sure to write, which are known before anything is computed."""
    names = {f"warped_{modality}.nii.gz" for modality in paths["moving"]}
    names |= {"moving_to_fixed.h5", "fixed_to_moving.h5", "jacobian.nii.gz"}
    if options.weights != NO_NETWORK:
        names |= {f"{which}_segmentation.seg.nrrd" for which in STUDIES}
    return names


def check_pair_options(options: Namespace) -> None:
    """Check that two visits are given, and no option of several visits.

    Raises:
        ValueError: They are not; the message names the options.
    """
    if missing := [f"--{which}" for which in STUDIES if getattr(options, which) is None]:
        raise ValueError(f"{' and '.join(missing)} missing: give --fixed and --moving, or --visit for each visit")
    if options.reference is not None:
        raise ValueError(
            "--reference is for several --visit; with --fixed and --moving, the fixed study is the reference"
        )


@dataclass
class _Inputs:
    """Nodes of the input files.

    Attributes:
        studies: Volume nodes by study and modality.
        masks: Brain masks by study.
        tumors: Tumour segmentations by study.
        carried: Nodes to bring onto the fixed study.
        files: Every node with its file.
    """

    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)
    tumors: dict[str, Any] = field(default_factory=dict)
    carried: list[Any] = field(default_factory=list)
    files: list[tuple[Any, str]] = field(default_factory=list)


def _read(options: Namespace, paths: Mapping[str, Mapping[str, str]], report: Report) -> _Inputs:
    """Read the input files and record them in the report."""
    from NeuroCESTLib.scene.geometry import Geometry
    from NeuroCESTLib.scene.image_files import node_name
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.volumes import read_volume

    from ..images.study import check_axes

    inputs = _Inputs()
    record_weights(options, report)

    def read(reader: Callable[[str, str], Any], path: str, role: str, name: str) -> Any:
        report.add_input(role, path)
        node = reader(path, name)
        inputs.files.append((node, path))
        return node

    for which in STUDIES:
        inputs.studies[which] = {
            modality: read(read_volume, path, f"{which} {modality}", f"{which} {TITLES[modality]}")
            for modality, path in paths[which].items()
        }
        for what, nodes in (("mask", inputs.masks), ("tumor", inputs.tumors)):
            if path := getattr(options, f"{which}_{what}"):
                nodes[which] = read(read_segmentation, path, f"{which} {what}", f"{which} {what}")
    for path in options.carry:
        if is_segmentation(path):
            node = read(read_segmentation, path, "carry", node_name(path))
        else:
            node = read(read_volume, path, "carry", node_name(path))
            geometry = Geometry.of(node)
            check_axes(geometry.direction, f"'{path}'")
            across = geometry.ijk_to_ras[:3, 2]
            if geometry.shape[0] == 1 and float(across @ geometry.ijk_to_ras[:3, 3]) == 0:
                warnings.warn(
                    f"'{path}' is one slice at exactly 0 mm across it, which is where 2-D images without a position "
                    "are put: if that is wrong, save it as a 3-D image of one slice",
                    stacklevel=1,
                )
        inputs.carried.append(node)
    names = [node.GetName() for node in inputs.carried]
    for node, path in zip(inputs.carried, options.carry, strict=True):
        if is_segmentation(path) and node.GetName() == MOVING_SEGMENTATION:
            raise ValueError(f"'{path}' would be written over a result of the same name: rename it, or give it a copy")
    if len(set(names)) < len(names):
        raise ValueError("--carry has two files of the same name; rename one of them")
    return inputs


def _process(options: Namespace, inputs: _Inputs, progress: Progress) -> JointRegSegResult:
    from ..logic import JointRegSegLogic

    return JointRegSegLogic().process(
        inputs.studies["fixed"],
        inputs.studies["moving"],
        fixedMask=inputs.masks.get("fixed"),
        movingMask=inputs.masks.get("moving"),
        fixedTumor=inputs.tumors.get("fixed"),
        movingTumor=inputs.tumors.get("moving"),
        labels=options.labels,
        **computing_options(options),
        carry=inputs.carried,
        folderName=Path(options.output).resolve().name,
        progress=progress,
    )
