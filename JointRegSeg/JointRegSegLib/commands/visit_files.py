"""What the commands on visits share: their files by modality, options, and the results of a pair."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.headers.dicom import CONVERT, is_dicom
from NeuroCESTLib.core.headers.nrrd import is_segmentation
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.whole_files import written_as

from ..images.modalities import MODALITIES, TITLES

if TYPE_CHECKING:
    from NeuroCESTLib.report.record import Report

    from ..scene.results import JointRegSegResult

STUDIES = ("fixed", "moving")
MOVING_SEGMENTATION = "moving_segmentation"
"""Name of the file of the segmentation of the moving study, without ending."""
ABSENT = "-"
"""Stands for a modality that was not acquired."""
ORDER = " ".join(TITLES[m].upper() for m in MODALITIES)
"""Order of the images of a study on the command line."""


def add_visit(parser: ArgumentParser) -> None:
    """Add the options of the images of one visit and their brain mask."""
    parser.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="IMAGE",
        help=f"images of the visit in the order {ORDER}, '{ABSENT}' for a missing one; 1 to 4 files",
    )
    parser.add_argument("--mask", metavar="M", help="brain (default: estimated)")


def read_visit(
    paths: Mapping[str, str], mask: str | None, report: Report
) -> tuple[dict[str, Any], Any, list[tuple[Any, str]]]:
    """Read the images of one visit and their brain mask, and name them in the report.

    Args:
        paths: Files of the images by modality.
        mask: File of the brain mask; None for none.
        report: Report of the command.

    Returns:
        Volume nodes by modality, the node of the mask or None, and every node with its file.
    """
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.volumes import read_volume

    study = {}
    for modality, path in paths.items():
        report.add_input(modality, path)
        study[modality] = read_volume(path, TITLES[modality])
    files = [(study[modality], path) for modality, path in paths.items()]
    if mask is None:
        return study, None, files
    report.add_input("mask", mask)
    node = read_segmentation(mask, "mask")
    return study, node, [*files, (node, mask)]


def files_by_modality(paths: Sequence[str], option: str) -> dict[str, str]:
    """Assign the files of a study to modalities by their order on the command line.

    Args:
        paths: Files in the order of ``MODALITIES``, '-' for a missing one.
        option: Option that they were given with, for messages.

    Raises:
        ValueError: There are more than four files or none at all, a file is given twice, or one is a DICOM slice.
    """
    from NeuroCESTLib.scene.image_files import read_header

    if len(paths) > len(MODALITIES):
        raise ValueError(f"{option} has {len(paths)} files; give at most {len(MODALITIES)}, in the order {ORDER}")
    files = {m: path for m, path in zip(MODALITIES, paths, strict=False) if path != ABSENT}
    if not files:
        raise ValueError(f"{option} has no file; at least one image is needed")
    for modality, path in files.items():
        if is_dicom(Path(path)) and read_header(path).sizes[2:] == (1,):
            raise ValueError(f"'{path}' is a single DICOM slice, not a whole image: {CONVERT}")
        for other, same in files.items():
            if other != modality and same == path:
                raise ValueError(
                    f"{option} has '{path}' for {TITLES[modality]} and for {TITLES[other]}; give it for one of them"
                )
    return files


def positions(roles: Sequence[str] = ("",), folders: Sequence[str] = ("",)) -> Callable[[str], bool]:
    """Return whether a file is the position of an image within its visit, which a later run may not find.

    Args:
        roles: Roles of the visits of the run; empty for a single one.
        folders: Folders that the run writes, relative to that of its results.
    """
    from ..scene.files import position_file

    return {
        (Path(folder) / position_file(modality, role)).as_posix()
        for folder in folders
        for role in roles
        for modality in MODALITIES
    }.__contains__


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


@contextmanager
def told(report: Report) -> Iterator[None]:
    """Put the warnings that are meant for the user into the report, which also shows them at the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    report.warnings += [str(each.message) for each in caught if each.category is UserWarning]


def computing_options(options: Namespace) -> dict[str, Any]:
    """Return the options of the command that say how visits are processed, as arguments of the Logic."""
    return {
        "weights": options.weights,
        "affine": options.affine,
        "refine": options.refine,
        "timeLimit_s": options.time_limit,
        "similarity": options.similarity,
        "regulariser": options.regulariser,
        "regularisation": options.regularisation,
        "flips": not options.no_flips,
        "coregister": not options.no_coregistration,
        "device": options.device,
    }


def write_pair(
    options: Namespace,
    paths: Mapping[str, Mapping[str, str]],
    folder: Path,
    result: JointRegSegResult,
    progress: Progress,
) -> None:
    """Write the results of a pair but the report; each file in the voxel order of the reference of its study.

    Args:
        options: Options of the command.
        paths: Files of 'fixed' and 'moving' by modality.
        folder: Folder to write to.
        result: Results.
        progress: May raise to cancel.
    """
    from NeuroCESTLib.core.packages import left_out_without_its_package
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_volume

    from ..scene.files import write_positions, write_segmentation, write_transform
    from ..scene.report import draw_report

    fixed, moving = (paths[which][result.studies[which].reference_modality] for which in STUDIES)
    progress(0.0, "writing files")
    segmentations = [
        ("fixed_segmentation", result.fixedSegmentation, fixed),
        (MOVING_SEGMENTATION, result.movingSegmentation, moving),
        (f"{MOVING_SEGMENTATION}_on_fixed", result.warpedSegmentation, fixed),
    ]
    volumes = [(f"warped_{modality}", node, fixed) for modality, node in result.warped.items()]
    volumes.append(("jacobian", result.jacobian, fixed))
    volumes += [
        (f"{which}_uncertainty", node, moving if which == "moving" else fixed)
        for which, node in result.uncertainty.items()
    ]
    for node, path in zip(result.carried, options.carry, strict=True):
        name = f"{written_as.get()(node.GetName().removesuffix(' on fixed'))}_on_fixed"
        (segmentations if is_segmentation(path) else volumes).append((name, node, fixed))
    for name, node, like in segmentations:
        if node is not None:
            write_segmentation(node, folder / f"{name}.seg.nrrd", like)
    progress(0.1, "writing transforms")
    write_transform(result.joint.moving_to_fixed, folder / "moving_to_fixed.h5")
    write_transform(result.joint.fixed_to_moving, folder / "fixed_to_moving.h5")
    for which in STUDIES:
        write_positions(result.joint.positions[which], folder, which)
    for count, (name, node, like) in enumerate(volumes):
        progress(0.2 + 0.5 * count / len(volumes), "writing images")
        write_volume(node, folder / f"{name}.nii.gz", like=like)
    for name, table in (("volumes", result.volumes), ("changes", result.changes), ("lesions", result.lesions)):
        if table is not None:
            write_table(table, folder / f"{name}.csv", digits=6)
    progress(0.7, "drawing the report")
    with left_out_without_its_package("report.png", result.warnings.append):
        draw_report(result, folder / "report.png", title=f"{Path(options.output).resolve().name}: jointregseg apply")
