"""The command ``cestquant``: simulation, fits and field maps without a panel.

Runs as a console script and, in the application, with ``Slicer --no-splash --no-main-window --python-script``; the
headless host is started only where no application runs.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: make the packages importable
    _module_folder = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_module_folder), str(_module_folder.parent)]

from CESTQuantLib.training_commands import add_dataset, add_train
from NeuroCESTLib.commands import CommandParser, OutputFolder, run
from NeuroCESTLib.progress import terminal_progress
from NeuroCESTLib.report import Report

METHODS = (
    "mtrasym", "lorentzian", "mtr-rex", "quesp", "omega-plot", "qucesop", "r1rho", "bloch-mcconnell", "network",
    "dictionary",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (0 success, 2 unusable arguments or input, 1 failure)."""
    return run(_main, arguments)


def _main(arguments: Sequence[str]) -> int | None:
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> CommandParser:
    parser = CommandParser(prog="cestquant", description="Quantitative CEST-MRI: maps in physical units.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_fit(commands)
    for method, what in (("wasabi", "B0 shift (ppm) and relative B1"), ("wassr", "B0 shift (ppm)")):
        _add_fields(commands, method, what)
    _add_phantom(commands)
    add_dataset(commands)
    add_train(commands)
    _add_optimize_schedule(commands)
    return parser


def _add_simulate(commands) -> None:
    parser = commands.add_parser("simulate", help="Z-spectrum of a scenario, as CSV with index, offset_ppm, z")
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO.json", help="tissue, offsets (ppm) and preparation")
    parser.add_argument("--pools", metavar="POOLS.yaml", help="pulseq-cest pool file, with --sequence")
    parser.add_argument("--sequence", metavar="PREP.seq", help="pulseq file of the preparation")
    parser.add_argument("--output", required=True, metavar="OUT.csv", help="file to write")
    parser.add_argument("--engine", choices=("bloch-mcconnell", "r1rho"), default="bloch-mcconnell")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="floating-point precision")
    parser.set_defaults(command=simulate_command)


def _add_acquisition(parser) -> None:
    parser.add_argument("--signal", nargs="+", required=True, metavar="MZ", help="4-D NIfTI, .seq.nrrd or 3-D files")
    parser.add_argument("--protocol", required=True, metavar="P", help="protocol.json, offsets in ppm (text) or .seq")
    parser.add_argument("--reference", nargs="+", metavar="M0", help="M0 image (3-D) or images (4-D)")
    parser.add_argument("--mask", metavar="M", help="mask on the grid of the signal")
    parser.add_argument("--normalisation", choices=("m0", "l2", "none"), help="instead of the protocol's")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for maps and report")
    parser.add_argument("--scene", action="store_true", help="also write the scene, DIR/scene.mrb")


def _add_fit(commands) -> None:
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
    parser.add_argument("--config", metavar="CONFIG.json", help="for dictionary: what to simulate, as for train")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if there is one")
    parser.set_defaults(command=fit_command)


def _add_fields(commands, method: str, what: str) -> None:
    parser = commands.add_parser(method, help=f"{what} from a {method.upper()} acquisition")
    _add_acquisition(parser)
    parser.set_defaults(command=fields_command, method=method)


def _add_phantom(commands) -> None:
    parser = commands.add_parser(
        "phantom", help="simulated brain with glioma: signal, M0, fields, T1, regions, protocol, model"
    )
    parser.add_argument("--noise", type=float, default=0.002, help="noise SD relative to M0 of white matter")
    parser.add_argument("--seed", type=int, default=1, help="of the noise and the biological spread")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(command=phantom_command)


def _add_optimize_schedule(commands) -> None:
    parser = commands.add_parser(
        "optimize-schedule", help="acquisition protocol and network optimised as one; also under torchrun"
    )
    parser.add_argument("config", metavar="CONFIG.json", help="protocol, tissue, targets, noise_sd, trainable, limits")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder; a killed run continues when repeated")
    parser.set_defaults(command=optimize_schedule_command)


def simulate_command(options: Namespace) -> None:
    """``cestquant simulate``."""
    from dataclasses import replace

    import torch

    from CESTQuantLib.protocol import read_json
    from CESTQuantLib.pulseq import read_seq
    from CESTQuantLib.pulseq_pools import read_pools
    from CESTQuantLib.scenario import read_scenario
    from CESTQuantLib.simulation import simulate
    from NeuroCESTLib.writing import write_text

    if (options.scenario is None) == (options.pools is None) or (options.pools is None) != (options.sequence is None):
        raise ValueError("give either SCENARIO.json, or --pools POOLS.yaml with --sequence PREP.seq")
    if options.scenario is not None:
        tissue, protocol, b0, b1 = read_scenario(read_json(options.scenario), options.scenario)
    else:
        pools = read_pools(options.pools)
        protocol = read_seq(options.sequence, pools.gamma_rad_per_s_per_uT)
        protocol = replace(
            protocol,
            magnetisation_carried_over=protocol.magnetisation_carried_over or pools.magnetisation_carried_over,
            initial_magnetisation=pools.initial_magnetisation,
            field_strength_T=pools.field_strength_T,
        )
        tissue, b0, b1 = pools.tissue, pools.b0_shift_ppm, pools.b1_relative
    dtype = {"float64": torch.float64, "float32": torch.float32}[options.dtype]
    z = simulate(tissue, protocol, engine=options.engine, b0_shift_ppm=b0, b1_relative=b1, dtype=dtype)[0]
    rows = [
        f"{i},{offset!r},{value!r}"
        for i, (offset, value) in enumerate(zip(protocol.offsets_ppm.tolist(), z.tolist(), strict=True))
    ]
    write_text("\n".join(["index,offset_ppm,z", *rows]) + "\n", options.output)


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

    _quantify_to_folder(options, compute)


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

    _quantify_to_folder(options, compute)


def phantom_command(options: Namespace) -> None:
    """``cestquant phantom``: the sample data as files, for trying the other commands."""
    import json

    from CESTQuantLib.logic import CESTQuantLogic
    from CESTQuantLib.phantom import phantom_model, phantom_protocol
    from CESTQuantLib.protocol import protocol_to_dict
    from NeuroCESTLib import host
    from NeuroCESTLib.writing import write_node, write_text

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant phantom", _settings(options))
        host.start()
        nodes = CESTQuantLogic().addPhantom(seed=options.seed, noise_sd=options.noise, progress=progress)
        endings = {"signal": ".seq.nrrd", "segmentation": ".seg.nrrd"}
        for name, node in nodes.items():
            write_node(node, folder / f"{name}{endings.get(name, '.nii.gz')}")
        write_text(json.dumps(protocol_to_dict(phantom_protocol()), indent=1), folder / "protocol.json")
        write_text(json.dumps(phantom_model(), indent=1), folder / "model.json")
        report.write(folder)


def optimize_schedule_command(options: Namespace) -> None:
    """``cestquant optimize-schedule``."""
    import shutil

    from CESTQuantLib.distributed import processes
    from CESTQuantLib.protocol import read_json
    from CESTQuantLib.schedule_config import read_design
    from CESTQuantLib.schedule_design import optimise
    from CESTQuantLib.schedule_files import summarise, write_design

    design = read_design(options.config)
    output = Path(options.output)
    kept = output.absolute().parent / f".{output.name}.training"
    with processes() as these:
        if not these.writes:
            these.wait()
            optimise(design, checkpoints=kept / design.fingerprint(), processes=these)
            return
        with terminal_progress() as progress, OutputFolder(output) as folder:
            report = Report("cestquant optimize-schedule", _settings(options))
            report.add_input("config", options.config)
            (kept / design.fingerprint()).mkdir(parents=True, exist_ok=True)
            these.wait()
            result = optimise(design, checkpoints=kept / design.fingerprint(), processes=these, progress=progress)
            write_design(design, result, read_json(options.config)["tissue"], folder, Path(options.config).stem)
            moved = design.limits.violations(design.protocol)
            if moved:
                report.warnings.append(f"the start was moved inside the limits: {'; '.join(moved)}")
            report.summary |= summarise(design, result)
            report.write(folder)
        shutil.rmtree(kept, ignore_errors=True)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _quantify_to_folder(options: Namespace, compute) -> None:
    """Read nodes, compute with the logic, write maps, table, report and scene; all of it or nothing."""
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        from NeuroCESTLib.device import choose_device

        device = str(choose_device(getattr(options, "device", "cpu")))
        report = Report(f"cestquant {options.method}", _settings(options), device)
        for role in ("protocol", "model", "network", "config"):
            if getattr(options, role, None):
                report.add_input(role, getattr(options, role))
        from NeuroCESTLib import host

        host.start()
        from CESTQuantLib.logic import CESTQuantLogic

        with report.timed("reading"):
            nodes = _read(options, report)
        with report.timed("computing"):
            result = compute(CESTQuantLogic(), nodes, progress)
        with report.timed("writing"):
            _write(options, folder, result, report)
        report.write(folder)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)


def _read(options: Namespace, report: Report) -> dict:
    """Input nodes by role."""
    from NeuroCESTLib.segmentations import read_segmentation
    from NeuroCESTLib.sequences import read_sequence
    from NeuroCESTLib.volumes import read_volume

    nodes = {}
    for path in options.signal:
        report.add_input("signal", path)
    nodes["signal"] = read_sequence(options.signal if len(options.signal) > 1 else options.signal[0])
    if options.reference:
        for path in options.reference:
            report.add_input("reference", path)
        nodes["reference"] = _read_reference(options.reference)
    for role, read in (("mask", read_segmentation), ("b0", read_volume), ("b1", read_volume), ("t1", read_volume),
                       ("segmentation", read_segmentation)):  # fmt: skip
        if getattr(options, role, None):
            report.add_input(role, getattr(options, role))
            nodes[role] = read(getattr(options, role))
    return nodes


def _read_reference(paths: Sequence[str]):
    from NeuroCESTLib.image_files import existing_file, read_header
    from NeuroCESTLib.sequences import read_sequence
    from NeuroCESTLib.volumes import read_volume

    if len(paths) > 1:
        return read_sequence(paths)
    path = existing_file(paths[0])
    many = path.name.endswith(".seq.nrrd") or read_header(path).measurements > 1
    return read_sequence(path) if many else read_volume(path)


def _write(options: Namespace, folder: Path, result, report: Report) -> None:
    from CESTQuantLib.report import draw_report
    from NeuroCESTLib.writing import write_scene, write_text, write_volume

    like = options.signal[0] if not options.signal[0].endswith(".seq.nrrd") else None
    for name, node in result.nodes.items():
        write_volume(node, folder / f"{name}.nii.gz", like=like)
    if result.table is not None:
        write_text(_csv(result.table), folder / "roi.csv")
    draw_report(result, folder / "report.png", title=f"{Path(options.signal[0]).name}: {options.method}")
    if options.scene:
        write_scene(folder / "scene.mrb")
    report.warnings += result.report.pop("warnings")
    report.summary |= result.report


def _csv(table) -> str:
    from NeuroCESTLib.tables import table_columns

    columns = table_columns(table)
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join(f"{value:.8g}" if isinstance(value, float) else str(value) for value in row))
    return "\n".join(lines) + "\n"


def _settings(options: Namespace) -> dict:
    return {name: value for name, value in vars(options).items() if name != "command"}


if __name__ == "__main__":
    sys.exit(main())
