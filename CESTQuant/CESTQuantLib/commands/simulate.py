"""``cestquant simulate``: the Z-spectrum of a tissue as a table."""

from __future__ import annotations

import warnings
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.core.output.inputs import add_input_of_run, require_inputs_kept
from NeuroCESTLib.core.output.lock import only_run

from ..formats.pulseq.rules import RULES
from ..physics.engines import ENGINES

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("simulate", help="Z-spectrum of a scenario, as CSV with index, offset_ppm, z")
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO.json", help="tissue, offsets (ppm) and preparation")
    parser.add_argument("--pools", metavar="POOLS.yaml", help="pulseq-cest pool file, with --sequence")
    parser.add_argument("--sequence", metavar="PREP.seq", help="pulseq file of the preparation")
    parser.add_argument(
        "--rules",
        choices=RULES,
        default=RULES[0],
        metavar="RULES",
        help="how the sequence is played: pulseq-cest (as the simulators of that community do: gradients along z "
        "spoil, dead times are left out, phase shapes count against phase offsets) or pulseq (as the format says: "
        "blocks take their whole duration, and gradients of any net area spoil)",
    )
    parser.add_argument("--output", required=True, metavar="OUT.csv", help="file to write")
    titles = ", ".join(f"{name} ({engine.title})" for name, engine in ENGINES.items())
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), default="bloch-mcconnell", metavar="ENGINE", help=f"one of {titles}"
    )
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="floating-point precision")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant simulate``, unless another run writes the same table."""
    with only_run(options.output):
        _simulate(options)


def _simulate(options: Namespace) -> None:
    import torch

    from NeuroCESTLib.core.checked_json import read_json
    from NeuroCESTLib.core.whole_files import write_csv

    from ..formats.pools_yaml import read_pools
    from ..formats.pulseq.read import read_seq
    from ..formats.scenario import read_scenario
    from ..physics.r1rho.regime import regime_warnings
    from ..physics.simulation import simulate
    from ..tissue.engine_error import simulation_error

    if (options.scenario is None) == (options.pools is None) or (options.pools is None) != (options.sequence is None):
        raise ValueError("give either SCENARIO.json, or --pools POOLS.yaml with --sequence PREP.seq")
    for path in (options.scenario, options.pools, options.sequence):
        if path is not None:
            add_input_of_run(path)
    output = Path(options.output)
    require_inputs_kept(output.parent, lambda place: place == Path(output.name))
    if options.scenario is not None:
        scenario = read_scenario(read_json(options.scenario), options.scenario)
        tissue, protocol, b1 = scenario.tissue, scenario.protocol, scenario.b1_relative
        shifts_ppm: tuple[float, ...] = (scenario.b0_shift_ppm,)
    else:
        pools = read_pools(options.pools)
        protocol = read_seq(
            options.sequence,
            pools.gamma_rad_per_s_per_uT,
            pools.field_strength_T,
            rules=options.rules,
            carried_over=True if pools.magnetisation_carried_over else None,
        )
        protocol = replace(protocol, initial_magnetisation=pools.initial_magnetisation)
        tissue, b1 = pools.tissue, pools.b1_relative
        shifts_ppm = tuple(pools.b0_shift_ppm + shift for shift in pools.isochromat_shifts_ppm)
        if len(shifts_ppm) > 1 and protocol.readout_flip_angle_deg is not None:
            raise ValueError(
                f"{options.pools}: isochromats are not supported for sequences with an excitation; remove isochromats"
            )
    if options.engine == "r1rho":
        for warning in regime_warnings(protocol, float(torch.as_tensor(tissue.water.T2_s).max())):
            warnings.warn(f"{options.scenario or options.sequence}: {warning}", stacklevel=2)
    dtype = {"float64": torch.float64, "float32": torch.float32}[options.dtype]
    b0 = torch.tensor(shifts_ppm, dtype=torch.float64)
    z = simulate(tissue, protocol, engine=options.engine, b0_shift_ppm=b0, b1_relative=b1, dtype=dtype).mean(0)
    if options.engine == "r1rho":
        exact = simulate(tissue, protocol, b0_shift_ppm=b0, b1_relative=b1).mean(0)
        if (error := simulation_error(z.unsqueeze(0), exact.unsqueeze(0), protocol, "r1rho")) is not None:
            warnings.warn(
                f"{options.scenario or options.sequence}: {error}: use --engine bloch-mcconnell", stacklevel=2
            )
    rows = zip(range(len(z)), protocol.offsets_ppm.tolist(), z.tolist(), strict=True)
    write_csv(("index", "offset_ppm", "z"), rows, options.output)
