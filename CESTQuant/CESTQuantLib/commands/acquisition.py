"""The files of an acquisition, as arguments of the commands that read one and as nodes of the scene."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from NeuroCESTLib.report.record import Report


def add_images(parser: ArgumentParser, *, required: bool = True) -> None:
    """Add the arguments of signal, reference and mask."""
    parser.add_argument(
        "--signal",
        nargs="+",
        required=required,
        metavar="MZ",
        help="4-D NIfTI (also .hdr/.img) or MetaImage, .seq.nrrd or 3-D files",
    )
    parser.add_argument("--reference", nargs="+", metavar="M0", help="M0 image (3-D) or images (4-D)")
    parser.add_argument("--mask", metavar="M", help="mask on the grid of the signal")


def read_images(options: Namespace, report: Report, maps: Sequence[str] = (), end: str = "") -> dict[str, Any]:
    """Read the files that are given into the scene.

    Args:
        options: Arguments of the command.
        report: Report to record the files in.
        maps: Names of further arguments that give one image each.
        end: Ending of the roles of the files in the report.

    Returns:
        Nodes by the name of their argument.

    Raises:
        ValueError: A file is missing or unusable; the message names it.
    """
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.sequences import read_sequence
    from NeuroCESTLib.scene.volumes import read_volume

    for path in options.signal:
        report.add_input(f"signal{end}", path)
    nodes = {"signal": read_sequence(options.signal if len(options.signal) > 1 else options.signal[0])}
    if options.reference:
        for path in options.reference:
            report.add_input(f"reference{end}", path)
        nodes["reference"] = read_reference(options.reference)
    for role in ("mask", *maps):
        if path := getattr(options, role):
            report.add_input(f"{role}{end}", path)
            nodes[role] = read_segmentation(path) if role in ("mask", "segmentation") else read_volume(path)
    return nodes


def read_reference(paths: Sequence[str]) -> Any:
    """Read M0 files as a volume node, or as a sequence node where they hold several images."""
    from NeuroCESTLib.scene.image_files import existing_file, read_header
    from NeuroCESTLib.scene.sequences import read_sequence
    from NeuroCESTLib.scene.volumes import read_volume

    if len(paths) > 1:
        return read_sequence(paths)
    path = existing_file(paths[0])
    many = path.name.lower().endswith(".seq.nrrd") or read_header(path).measurements > 1
    return read_sequence(path) if many else read_volume(path)
