"""``cestquant fit``, ``wasabi`` and ``wassr``: maps of an acquisition in files, through the scene."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import part, terminal_progress
from NeuroCESTLib.report.record import Report

METHODS = (
    "mtrasym",
    "lorentzian",
    "mtr-rex",
    "quesp",
    "omega-plot",
    "qucesop",
    "r1rho",
    "bloch-mcconnell",
    "network",
    "dictionary",
)


def _add_acquisition(parser) -> None:
    parser.add_argument("--signal", nargs="+", required=True, metavar="MZ", help="4-D NIfTI, .seq.nrrd or 3-D files")
    parser.add_argument("--protocol", required=True, metavar="P", help="protocol.json, offsets in ppm (text) or .seq")
    parser.add_argument("--reference", nargs="+", metavar="M0", help="M0 image (3-D) or images (4-D)")
    parser.add_argument("--mask", metavar="M", help="mask on the grid of the signal")
    parser.add_argument("--normalisation", choices=("m0", "l2", "none"), help="instead of the protocol's")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for maps and report")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")


def add_fit(commands) -> None:
    """Arguments of ``cestquant fit``."""
    parser = commands.add_parser("fit", help="maps of a CEST acquisition")
    _add_acquisition(parser)
    parser.add_argument("--b0", metavar="MAP", help="B0 shift in ppm")
    parser.add_argument("--b1", metavar="MAP", help="relative B1 (1 = nominal)")
    parser.add_argument("--t1", metavar="MAP", help="water T1 in s")
    parser.add_argument("--method", required=True, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument(
        "--model", metavar="MODEL.json", help="tissue model: T1 and T2 in s, rates in Hz, shifts in ppm"
    )
    parser.add_argument("--segmentation", metavar="SEG", help="regions for the table: .seg.nrrd or label volume")
    parser.add_argument("--asymmetry-offset", type=float, nargs="+", default=[3.5], metavar="PPM", help="for mtrasym")
    parser.add_argument(
        "--lorentzian",
        default="3T",
        metavar="POOLS",
        help="for lorentzian and mtr-rex: 3T, 7T or a pool description .json",
    )
    parser.add_argument("--power", type=float, metavar="UT", help="which of several powers (uT) a contrast uses")
    parser.add_argument("--network", metavar="NETWORK.pt", help="for network: made by train or optimize-schedule")
    parser.add_argument(
        "--config", metavar="CONFIG.json", help="for dictionary: what to simulate, a file or a name as for train"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if there is one")
    parser.set_defaults(command=fit_command)


def add_fields(commands, method: str, what: str) -> None:
    """Arguments of ``cestquant wasabi`` or ``wassr``."""
    parser = commands.add_parser(method, help=f"{what} from a {method.upper()} acquisition")
    _add_acquisition(parser)
    parser.set_defaults(command=fields_command, method=method)


def fit_command(options: Namespace) -> None:
    """``cestquant fit``."""
    if options.method not in METHODS:
        raise ValueError(f"method '{options.method}' is unknown; use one of {', '.join(METHODS)}")

    def compute(logic, nodes: dict, progress):
        return logic.fit(
            nodes["signal"],
            options.protocol,
            method=options.method,
            model=options.model,
            **{name: nodes.get(name) for name in ("reference", "mask", "b0", "b1", "t1", "segmentation")},
            folderName=f"{nodes['signal'].GetName()} {options.method}",
            asymmetryOffset_ppm=tuple(options.asymmetry_offset),
            lorentzianPreset=options.lorentzian,
            power_uT=options.power,
            network=options.network,
            config=options.config,
            signalNormalisation=options.normalisation,
            device=options.device,
            progress=progress,
        )

    _quantify_to_folder(options, "fit", compute)


def fields_command(options: Namespace) -> None:
    """``cestquant wasabi`` and ``cestquant wassr``."""

    def compute(logic, nodes: dict, progress):
        return logic.fieldMaps(
            nodes["signal"],
            options.protocol,
            method=options.method,
            reference=nodes.get("reference"),
            mask=nodes.get("mask"),
            signalNormalisation=options.normalisation,
            progress=progress,
        )

    _quantify_to_folder(options, options.method, compute)


def _quantify_to_folder(options: Namespace, command: str, compute) -> None:
    """Read nodes, compute with the logic, write maps, table, report and scene; all of it or nothing."""
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        from NeuroCESTLib.core.device import choose_device

        device = str(choose_device(getattr(options, "device", "cpu")))
        report = Report(f"cestquant {command}", settings_of(options), device)
        _add_settings_files(options, report)
        from NeuroCESTLib.scene import host

        host.attach()
        from ..logic import CESTQuantLogic

        with report.timed("reading"):
            nodes = _read(options, report)
        with report.timed("computing"):
            result = compute(CESTQuantLogic(), nodes, progress)
        with report.timed("writing"):
            _write(options, folder, result, report, part(progress, 0.95, 1.0))
        report.write(folder)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def _add_settings_files(options: Namespace, report: Report) -> None:
    """Record the files that say how to quantify, and the maps that the model names."""
    from ..logic import map_file
    from ..networks.config import config_file
    from ..tissue.model import read_tissue_model

    for role in ("protocol", "model", "network", "config"):
        if getattr(options, role, None):
            path = getattr(options, role)
            report.add_input(role, config_file(path) if role == "config" else path)
    if getattr(options, "lorentzian", "").endswith(".json"):
        report.add_input("lorentzian", options.lorentzian)
    if getattr(options, "model", None):
        for name in read_tissue_model(options.model).map_names:
            if name not in ("b0", "b1", "t1"):
                report.add_input("map", map_file(name, options.model))


def _read(options: Namespace, report: Report) -> dict:
    """Input nodes by role."""
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.sequences import read_sequence
    from NeuroCESTLib.scene.volumes import read_volume

    nodes = {}
    for path in options.signal:
        report.add_input("signal", path)
    nodes["signal"] = read_sequence(options.signal if len(options.signal) > 1 else options.signal[0])
    if options.reference:
        for path in options.reference:
            report.add_input("reference", path)
        nodes["reference"] = read_reference(options.reference)
    for role, read in (
        ("mask", read_segmentation),
        ("b0", read_volume),
        ("b1", read_volume),
        ("t1", read_volume),
        ("segmentation", read_segmentation),
    ):
        if getattr(options, role, None):
            report.add_input(role, getattr(options, role))
            nodes[role] = read(getattr(options, role))
    return nodes


def read_reference(paths: Sequence[str]):
    """M0 files as a volume node, or a sequence node where they hold several images."""
    from NeuroCESTLib.scene.image_files import existing_file, read_header
    from NeuroCESTLib.scene.sequences import read_sequence
    from NeuroCESTLib.scene.volumes import read_volume

    if len(paths) > 1:
        return read_sequence(paths)
    path = existing_file(paths[0])
    many = path.name.endswith(".seq.nrrd") or read_header(path).measurements > 1
    return read_sequence(path) if many else read_volume(path)


def _write(options: Namespace, folder: Path, result, report: Report, progress) -> None:
    from NeuroCESTLib.scene.tables import write_table
    from NeuroCESTLib.scene.writing import write_scene, write_volume

    from ..scene.report import draw_report

    like = options.signal[0] if not options.signal[0].endswith(".seq.nrrd") else None
    for count, (name, node) in enumerate(result.nodes.items()):
        progress(count / len(result.nodes), "writing files")
        write_volume(node, folder / f"{name}.nii.gz", like=like)
    if result.table is not None:
        write_table(result.table, folder / "roi.csv", digits=8)
    draw_report(result, folder / "report.png", title=f"{Path(options.signal[0]).name}: {options.method}")
    if options.scene:
        write_scene(folder / "scene.mrb")
    report.warnings += result.report.pop("warnings")
    report.summary |= result.report
