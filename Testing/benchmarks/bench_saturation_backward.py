"""Forward and backward pass of the saturation block: the hand-derived Function against autograd of its formula.

Measures the time on one core and the peak memory beyond the inputs, for derivatives with respect to all inputs. Each
case runs in a process of its own, so that the peak memory is that of the case alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch
from benchmarking import Table, Time, seconds

from CESTQuantLib.physics.r1rho.block import Block
from CESTQuantLib.physics.r1rho.inputs import BlockInputs
from CESTQuantLib.physics.r1rho.saturation import saturate

MEASUREMENTS = 30


def inputs(voxels: int, semisolid: bool, solutes: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        values = low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    measured = [between(100, 900, MEASUREMENTS, 1), between(-5000, 5000, MEASUREMENTS, 1)]
    result = [*measured, between(1, 3, MEASUREMENTS, 1), between(0.9, 1, voxels), between(0.05, 0.1, voxels)]
    result += [between(0.4, 1, voxels), between(5, 20, voxels)]
    for _ in range(solutes):
        result += [between(1e-4, 1e-2, voxels), between(20, 900, voxels), between(8, 50, voxels)]
        result += [between(1500, 6000, voxels)]
    if semisolid:
        result += [between(0.05, 0.15, voxels), between(20, 60, voxels), between(0.8, 1.2, voxels)]
        result += [between(1, 50, MEASUREMENTS, voxels)]
    return result


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(by_hand: bool, semisolid: bool, voxels: int, repeats: int) -> dict:
    torch.set_num_threads(1)
    values = inputs(voxels, semisolid)
    weight = torch.linspace(-1, 1, MEASUREMENTS, dtype=torch.float64)[:, None]

    def pass_through() -> list[torch.Tensor]:
        if by_hand:
            z, _ = saturate(BlockInputs.from_flat(values, 2))
        else:
            z = Block.solve(BlockInputs.from_flat(values, 2)).z
        return torch.autograd.grad((weight * z).sum(), values, allow_unused=True)

    before = peak_bytes()
    time, gradients = seconds(pass_through, repeats)
    checks = [0.0 if g is None else float(g.abs().sum()) for g in gradients]
    return {"wall": time.wall, "processor": time.processor, "bytes": peak_bytes() - before, "checks": checks}


def in_own_process(*arguments: object) -> dict:
    command = [sys.executable, __file__, "--case", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        by_hand, semisolid = (word == "True" for word in arguments.case)
        print(json.dumps(measure(by_hand, semisolid, arguments.voxels, arguments.repeats)))
        return
    table = Table(
        "Derivatives of the saturation block with respect to all inputs, 30 measurements", f"{arguments.voxels} voxels"
    )
    for semisolid in (False, True):
        plain, by_hand = (in_own_process(hand, semisolid) for hand in (False, True))
        worst = max(abs(a - b) / (abs(b) + 1e-30) for a, b in zip(by_hand["checks"], plain["checks"], strict=True) if b)
        memory = f"{plain['bytes'] / 2**20:.0f} -> {by_hand['bytes'] / 2**20:.0f} MiB"
        accuracy = f"memory {memory} ({plain['bytes'] / by_hand['bytes']:.1f}x less); derivatives differ by {worst:.0e}"
        name = "2 solutes and semisolid" if semisolid else "2 solutes"
        times = (Time(found["wall"], found["processor"]) for found in (plain, by_hand))
        table.row(f"{name}: plain autograd", *times, 1, accuracy)


if __name__ == "__main__":
    main()
