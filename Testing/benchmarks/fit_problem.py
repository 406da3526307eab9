"""The fit for which there are speed targets: fraction and exchange rate of one solute from 30 measurements."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from benchmarking import Table, seconds
from scipy.linalg import expm
from scipy.optimize import least_squares

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT
from CESTQuantLib.tissue.fit import ModelFit, fit_tissue_model
from CESTQuantLib.tissue.model import TissueModel, tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

FIELD_T, T1_S, T2_S, SOLUTE_T1_S, SOLUTE_T2_S, DW_PPM, SATURATION_S = 9.4, 2.5, 0.6, 2.8, 0.04, 3.0, 3.0
LOWER, UPPER, START = np.array([1e-5, 5.0]), np.array([1e-2, 1500.0]), np.array([1e-3, 300.0])
NOISE_SD = 0.005
PPM = GAMMA_RAD_PER_S_PER_UT * FIELD_T


def protocol() -> Protocol:
    """Ten B1 amplitudes at three offsets."""
    b1 = torch.linspace(0.5, 6.0, 10, dtype=torch.float64).repeat(3)
    offsets = torch.tensor([2.5, 3.0, 3.5], dtype=torch.float64).repeat_interleave(10)
    return Protocol(FIELD_T, offsets, b1, SATURATION_S)


def model() -> TissueModel:
    fraction, k = (
        {"fit": True, "start": float(s), "bounds": [float(low), float(high)]}
        for s, low, high in zip(START, LOWER, UPPER, strict=True)
    )
    solute = {"name": "amine", "fraction": fraction, "k_Hz": k, "T1_s": SOLUTE_T1_S, "T2_s": SOLUTE_T2_S}
    return tissue_model_from_dict({"water": {"T1_s": T1_S, "T2_s": T2_S}, "solutes": [solute | {"dw_ppm": DW_PPM}]})


def simulated(voxels: int, engine: str, noise_sd: float = NOISE_SD) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy signals (voxel, 30) and the true fraction and exchange rate (voxel, 2)."""
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(voxels, 2, generator=generator, dtype=torch.float64)
    truth = torch.stack([5e-4 + 2.5e-3 * uniform[:, 0], 100 + 600 * uniform[:, 1]], 1)
    parts = []
    for chunk in truth.split(5000):
        values = model().values({"amine.fraction": chunk[:, 0], "amine.k_Hz": chunk[:, 1]}, {})
        parts.append(simulate(model().tissue(values), protocol(), engine=engine))
    clean = torch.cat(parts)
    return clean + noise_sd * torch.randn(clean.shape, generator=generator, dtype=torch.float64), truth


def analytic_spectrum(parameters: np.ndarray, offsets_ppm: np.ndarray, b1_uT: np.ndarray) -> np.ndarray:
    """R1rho model as a user of numpy would write it (Trott and Palmer 2002; Zaiss and Bachert 2013)."""
    f, k = parameters
    R1, R2, R2b = 1 / T1_S, 1 / T2_S, 1 / SOLUTE_T2_S
    w1, offset, dw = GAMMA_RAD_PER_S_PER_UT * b1_uT, -offsets_ppm * PPM, DW_PPM * PPM
    weff2 = w1**2 + offset**2
    sin2, cos2 = w1**2 / weff2, offset**2 / weff2
    width2 = (R2b + k) / k * w1**2 + (R2b + k) ** 2
    rex = f * k * sin2 * (dw**2 + R2b / k * weff2 + R2b * (k + R2b)) / (width2 + (offset + dw) ** 2)
    rate = R1 * cos2 + R2 * sin2 + rex
    steady = cos2 * R1 / rate
    return (cos2 - steady) * np.exp(-rate * SATURATION_S) + steady


def numerical_spectrum(parameters: np.ndarray, offsets_ppm: np.ndarray, b1_uT: np.ndarray) -> np.ndarray:
    """Solution of the Bloch-McConnell equations by matrix exponentials, all measurements in one call."""
    f, k = parameters
    R1, R2, R1b, R2b = 1 / T1_S, 1 / T2_S, 1 / SOLUTE_T1_S, 1 / SOLUTE_T2_S
    A = np.zeros((len(offsets_ppm), 7, 7))
    A[:, [0, 1], [0, 1]] = -R2 - f * k
    A[:, [3, 4], [3, 4]] = -R2b - k
    A[:, [0, 1, 2], [3, 4, 5]] = k
    A[:, [3, 4, 5], [0, 1, 2]] = f * k
    A[:, 2, 2], A[:, 5, 5] = -R1 - f * k, -R1b - k
    A[:, 2, 6], A[:, 5, 6] = R1, f * R1b
    for x, dw_ppm in ((0, 0.0), (3, DW_PPM)):
        A[:, x + 1, x] = (dw_ppm - offsets_ppm) * PPM
        A[:, x, x + 1] = -A[:, x + 1, x]
        A[:, x + 1, x + 2] = GAMMA_RAD_PER_S_PER_UT * b1_uT
        A[:, x + 2, x + 1] = -A[:, x + 1, x + 2]
    return expm(A * SATURATION_S)[:, 2] @ np.array([0, 0, 1, 0, 0, f, 1.0])


@dataclass(frozen=True)
class Case:
    """Comparison of our batched fit with scipy's, voxel by voxel, on the same data.

    Attributes:
        title: Headline of the table.
        peer: What scipy fits with.
        engine: Engine of our fit, by which the data are simulated too.
        spectrum: Function of (fraction, rate), offsets in ppm and B1 in uT with which scipy fits.
        voxels: Number of voxels of our fit.
        peer_voxels: Number of voxels of scipy's fit.
        warm_up_voxels: Number of voxels of an unmeasured fit before ours.
        repeats: Number of runs of our fit, the fastest of which counts.
        target: Ratio of the times that should be reached.
    """

    title: str
    peer: str
    engine: str
    spectrum: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    voxels: int
    peer_voxels: int
    warm_up_voxels: int
    repeats: int
    target: float


def main(case: Case, description: str) -> None:
    """Run a case with the numbers of voxels from the command line, and print the table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--voxels", type=int, default=case.voxels, help="voxels of our fit")
    parser.add_argument("--peer-voxels", type=int, default=case.peer_voxels, help="voxels of scipy's fit")
    arguments = parser.parse_args()
    data, truth = simulated(arguments.voxels, case.engine)
    schedule, tissue = protocol(), model()
    settings = schedule.offsets_ppm.numpy(), schedule.b1_uT.numpy()
    compared = slice(arguments.peer_voxels)

    def peer() -> list:
        return [
            least_squares(
                lambda p, row=row: case.spectrum(p, *settings) - row, START, bounds=(LOWER, UPPER), x_scale=START
            )
            for row in data[compared].numpy()
        ]

    def ours(signal: torch.Tensor) -> ModelFit:
        return fit_tissue_model(ZSpectra(signal, schedule), tissue, engine=case.engine)

    table = Table(case.title, "voxel")
    peer_time, fits = seconds(peer)
    ours(data[: case.warm_up_voxels])
    our_time, fit = seconds(lambda: ours(data), case.repeats)
    accuracy = comparison(
        fit.result.parameters[compared].double().numpy(),
        np.array([f.x for f in fits]),
        truth[compared].numpy(),
        30 * fit.result.rmse[compared].double().numpy() ** 2,
        np.array([2 * f.cost for f in fits]),
    )
    table.row(case.peer, peer_time / arguments.peer_voxels, our_time / arguments.voxels, case.target, accuracy)


def comparison(ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, our_cost: np.ndarray, cost: np.ndarray) -> str:
    """Describe how far two fits of the same voxels lie apart, relative to their scatter around the truth."""
    scatter = np.sqrt(np.mean((theirs - truth) ** 2, 0))
    apart = np.median(np.abs(ours - theirs), 0) / scatter
    worst = np.max((our_cost - cost) / cost)
    our_scatter = np.sqrt(np.mean((ours - truth) ** 2, 0))
    return (
        f"median difference {apart[0]:.0e} and {apart[1]:.0e} of the noise scatter; scatter ours/peer "
        f"{math.prod(our_scatter / scatter) ** 0.5:.3f}; worst excess of the residual {worst:+.0e}"
    )
