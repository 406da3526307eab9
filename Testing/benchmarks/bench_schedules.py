"""An optimised schedule against unoptimised ones of equal scan time, on a simulated L-arginine phantom at 9.4 T.

A network is trained for each schedule in the same way (same noise, samples, epochs and seed), and all are tested on
the same held-out voxels with B0 and B1 inhomogeneity. The three sampling strategies (TR 2 s) are thinned evenly to as
many measurements as fit into the scan time; the random schedule has the same number. Prints mean absolute errors,
correlations, the Cramér-Rao bound, and the ratio to the best unoptimised schedule.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import libraries  # noqa: F401  (puts the libraries on the path)
import torch

from CESTQuantLib.formats.presets import FOLDER
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.units import concentration_mM
from CESTQuantLib.schedules.config import read_design
from CESTQuantLib.schedules.cramer_rao import parameter_sd_bound
from CESTQuantLib.schedules.design import Design
from CESTQuantLib.schedules.evaluation import evaluate_schedule
from CESTQuantLib.schedules.limits import b1_rms_uT, scan_time_s
from CESTQuantLib.schedules.optimization import optimize

STRATEGIES = (1, 2, 3)
REPETITION_S, SATURATION_S = 2.0, 1.5


def fixed(design: Design, offsets: torch.Tensor, b1: torch.Tensor) -> Protocol:
    """Return a schedule with a TR of 2 s, 1.5 s of saturation and readouts of 90 degrees, as in the strategies."""
    return replace(
        design.protocol,
        offsets_ppm=offsets,
        b1_uT=b1,
        saturation_time_s=SATURATION_S,
        post_delay_s=0.0,
        recovery_time_s=REPETITION_S - SATURATION_S,
        readout_flip_angle_deg=90.0,
    )


def reference_schedules(design: Design, seconds: float) -> dict[str, Protocol]:
    """Return schedules of the same scan time that are not optimised."""
    count = int(seconds / REPETITION_S + 1e-9)
    schedules = {}
    for number in STRATEGIES:
        whole = read_protocol(FOLDER / f"strategy_{number}.json")
        every = torch.linspace(0, whole.measurement_count - 1, count).round().long()
        schedules[f"strategy {number}, thinned"] = fixed(design, whole.offsets_ppm[every], whole.b1_uT[every])
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(2, count, generator=generator, dtype=torch.float64)
    schedules["random"] = fixed(design, 1 + 4 * random[0], 0.25 + 5.75 * random[1])
    spread = torch.linspace(-5, 5, count, dtype=torch.float64)
    schedules["uniform Z-spectrum, 1 uT"] = fixed(design, spread, torch.ones_like(spread))
    return schedules


def row(name: str, protocol: Protocol, errors: dict, design: Design) -> str:
    concentration, rate = errors["amine_concentration_mM"], errors["amine.k_Hz"]
    values = design.problem.draw(2000, torch.Generator().manual_seed(1))
    bound = parameter_sd_bound(
        design.problem.tissue.tissue, values, design.problem.prior_sd(), protocol, design.problem.mean_noise_sd
    )
    concentration_bound = float(concentration_mM(bound["amine.fraction"].mean(), 3))
    return (
        f"{name:26s} {protocol.measurement_count:3d} in {float(scan_time_s(protocol)):5.1f} s, "
        f"{float(b1_rms_uT(protocol)):.2f} uT rms: "
        f"{concentration['mae']:6.2f} mM r {concentration['correlation']:.4f}, "
        f"{rate['mae']:6.1f} Hz r {rate['correlation']:.4f}   (bound "
        f"{concentration_bound:.2f} mM, {float(bound['amine.k_Hz'].mean()):.1f} Hz)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config",
        default=str(FOLDER / "autocest_larginine.json"),
        help="configuration of the schedule and of its optimisation",
    )
    parser.add_argument(
        "--epochs", type=int, help="epochs of every training; in the preset one epoch has 64,000 voxels"
    )
    parser.add_argument("--quick", action="store_true", help="a run of seconds that only shows that it runs")
    options = parser.parse_args()
    design = read_design(options.config)
    if options.epochs:
        design = replace(design, training=replace(design.training, epochs=options.epochs))
    if options.quick:
        design = replace(
            design,
            samples=1280,
            held_out=1000,
            training=replace(design.training, epochs=2),
            network={},
            bound=replace(design.bound, steps=40, starts=2, first_steps=20),
        )
    torch.set_num_threads(1)
    protons = design.problem.tissue.structure.protons

    begin = time.perf_counter()
    result = optimize(design)
    best = result.optimized.held_out.errors(protons)
    print(
        f"optimised in {time.perf_counter() - begin:.0f} s "
        f"({', '.join(f'{name} {seconds:.0f} s' for name, seconds in result.seconds.items())})"
    )
    with torch.no_grad():
        print(row("optimised", result.optimized.protocol, best, design))
        start, others = result.start.held_out.errors(protons), {}
        print(row("start of the optimisation", result.start.protocol, start, design))
    for name, protocol in reference_schedules(design, float(scan_time_s(result.optimized.protocol)) + 0.5).items():
        others[name] = evaluate_schedule(protocol, design).held_out.errors(protons)
        with torch.no_grad():
            print(row(name, protocol, others[name], design), flush=True)
    for quantity, target in (("amine_concentration_mM", 5.0), ("amine.k_Hz", 2.0)):
        name = min(others, key=lambda n: others[n][quantity]["mae"])
        ratio = others[name][quantity]["mae"] / best[quantity]["mae"]
        verdict = "reached" if ratio >= target else "not reached"
        print(
            f"{quantity}: {ratio:.2f} times below the best unoptimised schedule ({name}), "
            f"{start[quantity]['mae'] / best[quantity]['mae']:.2f} times below the start; "
            f"target {target:g}: {verdict}"
        )


if __name__ == "__main__":
    main()
