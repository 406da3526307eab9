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
    _library, _module_folder, _root = Path(__file__).resolve().parents[:3]
    # without the folder of the file, whose signal.py would stand for Python's own
    sys.path[:] = [str(_module_folder), str(_root), *(p for p in sys.path if Path(p).resolve() != _library)]

from NeuroCESTLib.batch.frame import CommandParser, OutputFolder, run, settings_of
from NeuroCESTLib.core.progress import terminal_progress
from NeuroCESTLib.report.record import Report

from .commands.quantify import add_fields, add_fit
from .commands.training import add_dataset, add_train


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
    add_fit(commands)
    for method, what in (("wasabi", "B0 shift (ppm) and relative B1"), ("wassr", "B0 shift (ppm)")):
        add_fields(commands, method, what)
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
    parser.add_argument("config", metavar="CONFIG.json", help="a file, or the name of a configuration that comes along")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder; a killed run continues when repeated")
    parser.set_defaults(command=optimize_schedule_command)


def simulate_command(options: Namespace) -> None:
    """``cestquant simulate``."""
    from dataclasses import replace

    import torch

    from NeuroCESTLib.core.checked_json import read_json
    from NeuroCESTLib.core.whole_files import write_csv

    from .formats.pools_yaml import read_pools
    from .formats.pulseq import read_seq
    from .formats.scenario import read_scenario
    from .physics.simulation import simulate

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
    rows = zip(range(len(z)), protocol.offsets_ppm.tolist(), z.tolist(), strict=True)
    write_csv(("index", "offset_ppm", "z"), rows, options.output)


def phantom_command(options: Namespace) -> None:
    """``cestquant phantom``: the sample data as files, for trying the other commands."""
    import json

    from NeuroCESTLib.core.whole_files import write_text
    from NeuroCESTLib.scene import host
    from NeuroCESTLib.scene.writing import write_node

    from .formats.protocol_json import protocol_to_dict
    from .logic import CESTQuantLogic
    from .tissue.phantom import phantom_model, phantom_protocol

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant phantom", settings_of(options))
        host.attach()
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

    from NeuroCESTLib.core.checked_json import read_json
    from NeuroCESTLib.core.processes import processes

    from .networks.config import config_file
    from .schedules.config import read_design
    from .schedules.design import optimise
    from .schedules.files import summarise, write_design

    config = config_file(options.config)
    design = read_design(config)
    output = Path(options.output)
    kept = output.absolute().parent / f".{output.name}.training"
    with processes() as these:
        if not these.writes:
            these.wait()
            optimise(design, checkpoints=kept / design.fingerprint(), processes=these)
            return
        with terminal_progress() as progress, OutputFolder(output) as folder:
            report = Report("cestquant optimize-schedule", settings_of(options))
            report.add_input("config", config)
            (kept / design.fingerprint()).mkdir(parents=True, exist_ok=True)
            these.wait()
            result = optimise(design, checkpoints=kept / design.fingerprint(), processes=these, progress=progress)
            write_design(design, result, read_json(config)["tissue"], folder, config.stem)
            moved = design.limits.violations(design.protocol)
            if moved:
                report.warnings.append(f"the start was moved inside the limits: {'; '.join(moved)}")
            report.summary |= summarise(design, result)
            report.write(folder)
        shutil.rmtree(kept, ignore_errors=True)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
