"""``jointregseg apply``: two visits in files, through the scene, to segmentations, transforms and a report."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import part, terminal_progress
from NeuroCESTLib.report.record import Report

from ..images.modalities import MODALITIES, TITLES

STUDIES = ("fixed", "moving")
ABSENT = "-"
"""Stands for a modality that was not acquired."""


def add_apply(commands) -> None:
    """Arguments of ``jointregseg apply``."""
    parser = commands.add_parser(
        "apply", help="segment and register two visits", formatter_class=argparse.HelpFormatter
    )
    order = " ".join(TITLES[m].upper() for m in MODALITIES)
    for which in STUDIES:
        parser.add_argument(
            f"--{which}",
            nargs="+",
            required=True,
            metavar="IMAGE",
            help=f"images of the {which} study in the order {order}, '{ABSENT}' for a missing one; 1 to 4 files",
        )
    for which in STUDIES:
        parser.add_argument(f"--{which}-mask", metavar="M", help=f"brain of the {which} study (default: estimated)")
    for which in STUDIES:
        parser.add_argument(
            f"--{which}-tumor",
            metavar="SEG",
            help=f"tumour of the {which} study, instead of the network's: .seg.nrrd or labels 1 necrotic core, "
            "2 oedema, 3 or 4 enhancing tumour",
        )
    parser.add_argument(
        "--weights", metavar="W", help="weights file (.pt); 'none': register only (default: those of the module)"
    )
    parser.add_argument(
        "--affine",
        choices=("affine", "rigid", "none"),
        default="affine",
        help="linear alignment before the deformation (default: %(default)s)",
    )
    parser.add_argument(
        "--refine",
        type=int,
        metavar="N",
        help="iterations of the refinement on each level, 0 for none (default: that of the method)",
    )
    parser.add_argument("--time-limit", type=float, metavar="S", help="seconds after which the refinement ends")
    parser.add_argument(
        "--regulariser", choices=("curvature", "diffusion"), help="smoothness of the refinement (default: curvature)"
    )
    parser.add_argument("--regularisation", type=float, metavar="W", help="its weight (default: that of the method)")
    parser.add_argument("--no-flips", action="store_true", help="segment once, without mirrored images")
    parser.add_argument(
        "--carry",
        nargs="+",
        default=[],
        metavar="FILE",
        help="other images (CEST maps) or .seg.nrrd of the moving visit to bring onto the fixed study",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if there is one (default)"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")
    parser.set_defaults(command=apply_command)


def apply_command(options: Namespace) -> None:
    """``jointregseg apply``: all results or none."""
    paths = {which: files_by_modality(getattr(options, which), f"--{which}") for which in STUDIES}
    if options.refine is not None and options.refine < 0:
        raise ValueError(f"--refine is {options.refine}; give a number of iterations, 0 for none")
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.scene import host
        from NeuroCESTLib.scene.image_files import node_name

        report = Report("jointregseg apply", settings_of(options), str(choose_device(options.device)))
        host.attach()
        with report.timed("reading"):
            nodes = _read(options, paths, report)
        with report.timed("computing"), _called_by_files(options, paths, nodes):
            result = _process(options, nodes, progress)
        for node, path in zip(result.carried, options.carry, strict=True):
            node.SetName(f"{node_name(path)} on fixed")
        with report.timed("writing"):
            _write(options, paths, folder, result, report, part(progress, 0.95, 1.0))
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def files_by_modality(paths: Sequence[str], option: str) -> dict[str, str]:
    """Files of a study by modality, from the order on the command line.

    Raises:
        ValueError: more than four, or none at all.
    """
    if len(paths) > len(MODALITIES):
        order = " ".join(TITLES[m].upper() for m in MODALITIES)
        raise ValueError(f"{option} has {len(paths)} files; give at most {len(MODALITIES)}, in the order {order}")
    files = {m: path for m, path in zip(MODALITIES, paths, strict=False) if path != ABSENT}
    if not files:
        raise ValueError(f"{option} has no file; at least one image is needed")
    for modality, path in files.items():
        for other, same in files.items():
            if other != modality and same == path:
                raise ValueError(f"{option} has '{path}' for {TITLES[modality]} and for {TITLES[other]}")
    return files


def _process(options: Namespace, nodes: dict, progress):
    from ..logic import JointRegSegLogic

    return JointRegSegLogic().process(
        nodes["fixed"],
        nodes["moving"],
        **{f"{which}Mask": nodes.get(f"{which}_mask") for which in STUDIES},
        **{f"{which}Tumor": nodes.get(f"{which}_tumor") for which in STUDIES},
        weights=options.weights,
        affine=options.affine,
        refine=options.refine,
        timeLimit_s=options.time_limit,
        regulariser=options.regulariser,
        regularisation=options.regularisation,
        flips=not options.no_flips,
        carry=nodes["carry"],
        folderName=f"{Path(options.output).resolve().name}",
        device=options.device,
        progress=part(progress, 0.0, 0.95),
    )


def _read(options: Namespace, paths: dict[str, dict[str, str]], report: Report) -> dict:
    """Input nodes by role: the studies by modality, masks, segmentations, and what is carried along."""
    from NeuroCESTLib.scene.geometry import Geometry
    from NeuroCESTLib.scene.image_files import node_name
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.volumes import read_volume

    from ..images.study import check_axes

    nodes: dict = {}
    if options.weights not in (None, "none"):
        report.add_input("weights", options.weights)
    for which in STUDIES:
        nodes[which] = {}
        for modality, path in paths[which].items():
            report.add_input(f"{which} {modality}", path)
            nodes[which][modality] = read_volume(path, f"{which} {TITLES[modality]}")
        for what in ("mask", "tumor"):
            role = f"{which}_{what}"
            if getattr(options, role):
                report.add_input(role.replace("_", " "), getattr(options, role))
                nodes[role] = read_segmentation(getattr(options, role), role.replace("_", " "))
    nodes["carry"] = []
    for path in options.carry:
        report.add_input("carry", path)
        read = read_segmentation if path.lower().endswith(".seg.nrrd") else read_volume
        nodes["carry"].append(read(path, node_name(path)))
        if read is read_volume:
            check_axes(Geometry.of(nodes["carry"][-1]).direction, f"'{path}'")
    names = [node.GetName() for node in nodes["carry"]]
    if len(set(names)) < len(names):
        raise ValueError("--carry has two files of the same name; rename one of them")
    return nodes


@contextmanager
def _called_by_files(options: Namespace, paths: dict[str, dict[str, str]], nodes: dict) -> Iterator[None]:
    """The input nodes have the names of their files for a while, so that messages name these."""
    called: list[tuple[Any, str]] = list(zip(nodes["carry"], options.carry, strict=True))
    for which in STUDIES:
        called += [(nodes[which][modality], path) for modality, path in paths[which].items()]
        roles = (f"{which}_mask", f"{which}_tumor")
        called += [(nodes[role], getattr(options, role)) for role in roles if role in nodes]
    names = [node.GetName() for node, _ in called]
    try:
        for node, path in called:
            node.SetName(str(path))
        yield
    finally:
        for (node, _), name in zip(called, names, strict=True):
            node.SetName(name)


def _write(options: Namespace, paths: dict, folder: Path, result, report: Report, progress) -> None:
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_scene, write_volume

    from ..scene.report import draw_report
    from ..scene.results import write_transform

    reference = {which: next(iter(paths[which].values())) for which in STUDIES}
    progress(0.0, "writing files")
    for which, node in (("fixed", result.fixedSegmentation), ("moving", result.movingSegmentation)):
        if node is not None:
            write_segmentation(node, folder / f"{which}_segmentation.seg.nrrd", reference[which])
    if result.warpedSegmentation is not None:
        name = "moving_segmentation_on_fixed.seg.nrrd"
        write_segmentation(result.warpedSegmentation, folder / name, reference["fixed"])
    progress(0.1, "writing transforms")
    write_transform(result.joint.moving_to_fixed, folder / "moving_to_fixed.h5")
    write_transform(result.joint.fixed_to_moving, folder / "fixed_to_moving.h5")
    volumes = {f"warped_{modality}": node for modality, node in result.warped.items()}
    volumes |= {"jacobian": result.jacobian}
    volumes |= {f"{which}_uncertainty": node for which, node in result.uncertainty.items()}
    for node, source in zip(result.carried, options.carry, strict=True):
        name = node.GetName().removesuffix(" on fixed")
        if source.lower().endswith(".seg.nrrd"):
            write_segmentation(node, folder / f"{name}_on_fixed.seg.nrrd", reference["fixed"])
        else:
            volumes[f"{name}_on_fixed"] = node
    for count, (name, node) in enumerate(volumes.items()):
        progress(0.2 + 0.5 * count / len(volumes), "writing images")
        like = reference["moving" if name == "moving_uncertainty" else "fixed"]
        write_volume(node, folder / f"{name}.nii.gz", like=like)
    for name, table in (("volumes", result.volumes), ("changes", result.changes)):
        if table is not None:
            write_table(table, folder / f"{name}.csv", digits=6)
    progress(0.7, "drawing the report")
    draw_report(result, folder / "report.png", title=f"{Path(options.output).resolve().name}: jointregseg apply")
    if options.scene:
        progress(0.8, "writing the scene")
        write_scene(folder / "scene.mrb")
    report.warnings += result.warnings
    report.summary |= result.report


def write_segmentation(node, path: Path, like: str) -> None:
    """Write a segmentation node in the voxel order of the image file that it belongs to.

    Slicer reverses the slices of left-handed files as it reads them; the order of the file is kept here.
    """
    from NeuroCESTLib.scene.image_files import read_header
    from NeuroCESTLib.scene.segmentations import add_segmentation, copy_segment_styles, grid_of, masks_on
    from NeuroCESTLib.scene.volumes import remove
    from NeuroCESTLib.scene.writing import write_node

    wanted = read_header(like).geometry
    if grid_of(node).matches(wanted):
        write_node(node, path)
        return
    ordered = add_segmentation(masks_on(node, wanted), wanted, node.GetName())
    try:
        copy_segment_styles(node, ordered)
        write_node(ordered, path)
    finally:
        remove(ordered)
