"""Time and memory to fit fraction and exchange rate in a whole brain, from 30 measurements.

Every size runs in a process of its own; the peak memory is that of the fit alone, without program and data.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import fit_problem
import torch
from benchmarking import seconds

from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.spectra import ZSpectra

LIMIT_S, LIMIT_GB = 15.0, 2.0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(voxels: int) -> dict:
    protocol, model = fit_problem.protocol(), fit_problem.model()
    some, truth = fit_problem.simulated(20_000, "r1rho")
    copies = -(-voxels // len(some))
    data = some.float().repeat(copies, 1)[:voxels]
    truth = truth.repeat(copies, 1)[:voxels]
    fit_tissue_model(ZSpectra(data[:2000], protocol), model, engine="r1rho")
    before = resident_bytes()
    time, fit = seconds(lambda: fit_tissue_model(ZSpectra(data, protocol), model, engine="r1rho"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    error = ((fit.result.parameters - truth) / truth).abs().median(0).values
    return {
        "wall": time.wall,
        "processor": time.processor,
        "bytes": peak - before,
        "data": data.nbytes,
        "results": sum(q.nbytes for q in fit.quantities.values()) + fit.result.correlation.nbytes,
        "error": error.tolist(),
        "fitted": float(fit.result.fitted.double().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, nargs="+", default=[100_000, 300_000, 600_000])
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    if arguments.case:
        print(json.dumps(measure(arguments.case)))
        return
    print("## Whole brain, R1rho fit of fraction and exchange rate, 30 measurements\n")
    print("| voxels | time | processor time | data | memory above the data | results in it | error | target |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for voxels in arguments.voxels:
        command = [sys.executable, __file__, "--case", str(voxels)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        within = found["wall"] <= LIMIT_S * max(1, voxels / 3e5) and found["bytes"] <= LIMIT_GB * 1e9
        errors = " and ".join(f"{100 * e:.1f} %" for e in found["error"])
        print(
            f"| {voxels} | {found['wall']:.2f} s | {found['processor']:.2f} s | {found['data'] / 2**20:.0f} MiB "
            f"| {found['bytes'] / 2**20:.0f} MiB | {found['results'] / 2**20:.0f} MiB | median {errors} "
            f"| {LIMIT_S:g} s per 300,000, {LIMIT_GB:g} GB: {'met' if within else 'MISSED'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
