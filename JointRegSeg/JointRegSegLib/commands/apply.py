"""``jointregseg apply``: two visits from files to segmentations, transforms and a report."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import Progress, part, terminal_progress
from NeuroCESTLib.report.record import Report

from ..images.label_conventions import declared_convention
from ..images.modalities import MODALITIES, TITLES
from ..inference.settings import AFFINE_KINDS, NO_NETWORK
from ..registration.refinement_settings import REGULARIZERS, RefinementSettings
from .options import add_coregistration, add_device, add_labels, add_refinement, check_refinement

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser

    from ..scene.results import JointRegSegResult

STUDIES = ("fixed", "moving")
ABSENT = "-"
"""Stands for a modality that was not acquired."""
ORDER = " ".join(TITLES[m].upper() for m in MODALITIES)
"""Order of the images of a study on the command line."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("apply", help="segment and register two visits")
    for which in STUDIES:
        parser.add_argument(
            f"--{which}",
            nargs="+",
            required=True,
            metavar="IMAGE",
            help=f"images of the {which} study in the order {ORDER}, '{ABSENT}' for a missing one; 1 to 4 files",
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
    parser.add_argument(
        "--weights",
        metavar="W",
        help=f"weights file (.pt), or '{NO_NETWORK}' to register without segmenting (default: the bundled weights)",
    )
    parser.add_argument(
        "--affine",
        choices=AFFINE_KINDS,
        default="affine",
        help="linear alignment before the deformation",
    )
    add_refinement(parser)
    parser.add_argument("--time-limit", type=float, metavar="S", help="time in seconds after which the refinement ends")
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
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg apply``; it writes all results or none."""
    paths = {which: files_by_modality(getattr(options, which), f"--{which}") for which in STUDIES}
    check_refinement(options)
    if options.labels is not None:
        declared_convention(options.labels)
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.scene import host
        from NeuroCESTLib.scene.image_files import node_name

        report = Report("jointregseg apply", settings_of(options), str(choose_device(options.device)))
        host.attach()
        with report.timed("reading"), _told(report):
            inputs = _read(options, paths, report)
        with report.timed("computing"), named_by_files(inputs.files), _told(report):
            result = _process(options, inputs, part(progress, 0.0, 0.95))
        for node, path in zip(result.carried, options.carry, strict=True):
            node.SetName(f"{node_name(path)} on fixed")
        with report.timed("writing"):
            _write(options, paths, folder, result, part(progress, 0.95, 1.0))
        report.warnings += result.warnings
        report.summary |= result.report
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@contextmanager
def _told(report: Report) -> Iterator[None]:
    """Put the warnings that are meant for the user into the report, which also shows them at the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    report.warnings += [str(each.message) for each in caught if each.category is UserWarning]


def files_by_modality(paths: Sequence[str], option: str) -> dict[str, str]:
    """Assign the files of a study to modalities by their order on the command line.

    Args:
        paths: Files in the order of ``MODALITIES``, '-' for a missing one.
        option: Option that they were given with, for messages.

    Raises:
        ValueError: There are more than four files or none at all, or a file is given twice.
    """
    if len(paths) > len(MODALITIES):
        raise ValueError(f"{option} has {len(paths)} files; give at most {len(MODALITIES)}, in the order {ORDER}")
    files = {m: path for m, path in zip(MODALITIES, paths, strict=False) if path != ABSENT}
    if not files:
        raise ValueError(f"{option} has no file; at least one image is needed")
    for modality, path in files.items():
        for other, same in files.items():
            if other != modality and same == path:
                raise ValueError(
                    f"{option} has '{path}' for {TITLES[modality]} and for {TITLES[other]}; give it for one of them"
                )
    return files


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
    if options.weights not in (None, NO_NETWORK):
        report.add_input("weights", options.weights)

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
        if _is_segmentation(path):
            node = read(read_segmentation, path, "carry", node_name(path))
        else:
            node = read(read_volume, path, "carry", node_name(path))
            check_axes(Geometry.of(node).direction, f"'{path}'")
        inputs.carried.append(node)
    names = [node.GetName() for node in inputs.carried]
    if len(set(names)) < len(names):
        raise ValueError("--carry has two files of the same name; rename one of them")
    return inputs


def _is_segmentation(path: str) -> bool:
    return path.lower().endswith(".seg.nrrd")


@contextmanager
def named_by_files(files: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Give nodes the names of their files for a while, so that messages name the files.

    Args:
        files: Every node with its file.
    """
    names = [node.GetName() for node, _ in files]
    try:
        for node, path in files:
            node.SetName(str(path))
        yield
    finally:
        for (node, _), name in zip(files, names, strict=True):
            node.SetName(name)


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
        weights=options.weights,
        affine=options.affine,
        refine=options.refine,
        timeLimit_s=options.time_limit,
        similarity=options.similarity,
        regulariser=options.regulariser,
        regularisation=options.regularisation,
        flips=not options.no_flips,
        coregister=not options.no_coregistration,
        carry=inputs.carried,
        folderName=Path(options.output).resolve().name,
        device=options.device,
        progress=progress,
    )


def _write(
    options: Namespace,
    paths: Mapping[str, Mapping[str, str]],
    folder: Path,
    result: JointRegSegResult,
    progress: Progress,
) -> None:
    """Write all results but the report; each file in the voxel order of the first image of its study."""
    from NeuroCESTLib.core.packages import left_out_without_its_package
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_scene, write_volume

    from ..scene.files import write_segmentation, write_transform
    from ..scene.report import draw_report

    fixed, moving = (next(iter(paths[which].values())) for which in STUDIES)
    progress(0.0, "writing files")
    segmentations = [
        ("fixed_segmentation", result.fixedSegmentation, fixed),
        ("moving_segmentation", result.movingSegmentation, moving),
        ("moving_segmentation_on_fixed", result.warpedSegmentation, fixed),
    ]
    volumes = [(f"warped_{modality}", node, fixed) for modality, node in result.warped.items()]
    volumes.append(("jacobian", result.jacobian, fixed))
    volumes += [
        (f"{which}_uncertainty", node, moving if which == "moving" else fixed)
        for which, node in result.uncertainty.items()
    ]
    for node, path in zip(result.carried, options.carry, strict=True):
        name = f"{node.GetName().removesuffix(' on fixed')}_on_fixed"
        (segmentations if _is_segmentation(path) else volumes).append((name, node, fixed))
    for name, node, like in segmentations:
        if node is not None:
            write_segmentation(node, folder / f"{name}.seg.nrrd", like)
    progress(0.1, "writing transforms")
    write_transform(result.joint.moving_to_fixed, folder / "moving_to_fixed.h5")
    write_transform(result.joint.fixed_to_moving, folder / "fixed_to_moving.h5")
    for count, (name, node, like) in enumerate(volumes):
        progress(0.2 + 0.5 * count / len(volumes), "writing images")
        write_volume(node, folder / f"{name}.nii.gz", like=like)
    for name, table in (("volumes", result.volumes), ("changes", result.changes)):
        if table is not None:
            write_table(table, folder / f"{name}.csv", digits=6)
    progress(0.7, "drawing the report")
    with left_out_without_its_package("report.png", result.warnings.append):
        draw_report(result, folder / "report.png", title=f"{Path(options.output).resolve().name}: jointregseg apply")
    if options.scene:
        progress(0.8, "writing the scene")
        write_scene(folder / "scene.mrb")
