"""Five-pool Lorentzian fit of 50 offsets: the batched fitter against scipy least_squares with analytic Jacobian.

Both fit the same noisy spectra with the same model, bounds and starting values in the same run. Prints the time per
voxel, its ratio, and how the residual sums of squares compare.
"""

from __future__ import annotations

import argparse
import time

import libraries  # noqa: F401  (puts the libraries on the path)
import numpy as np
import torch
from scipy.optimize import least_squares

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.tissue.lorentzian import fit_lorentzian
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel

OFFSETS = np.linspace(-8, 8, 50)
NOISE_SD = 0.005
# Lowest and highest Zi, amplitudes, widths and positions of water, amide, NOE, MT and amine
TISSUE = np.array(
    [
        [0.93, 0.60, 0.03, 0.05, 0.05, 0.02, 1.0, 0.8, 2.0, 15, 1.2, -0.2, 3.3, -3.8, -3.0, 1.8],
        [0.99, 0.85, 0.10, 0.15, 0.20, 0.06, 2.0, 2.0, 4.0, 40, 2.5, 0.20, 3.7, -3.2, -1.5, 2.3],
    ]
)


def spectra(voxels: int) -> torch.Tensor:
    """Return noisy five-pool spectra (voxel, 50), float64."""
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.uniform(TISSUE[0], TISSUE[1], (voxels, 16)).T.copy())
    model = LorentzianModel.preset("lorentzian_7T")
    clean = model.predict(truth, torch.from_numpy(OFFSETS).unsqueeze(1))[0].T
    return clean + torch.from_numpy(random.normal(0, NOISE_SD, clean.shape))


def peer_residual(p: np.ndarray, data: np.ndarray) -> np.ndarray:
    amplitude, width, position = p[1:].reshape(3, 5)
    quarter = width[:, None] ** 2 / 4
    lines = amplitude[:, None] * quarter / (quarter + (OFFSETS - position[:, None]) ** 2)
    return p[0] - lines.sum(0) - data


def peer_jacobian(p: np.ndarray, data: np.ndarray) -> np.ndarray:
    amplitude, width, position = p[1:].reshape(3, 5, 1)
    distance = OFFSETS - position
    inverse = 1 / (width**2 / 4 + distance**2)
    shape = width**2 / 4 * inverse
    width_derivative = amplitude * width / 2 * inverse * (1 - shape)
    position_derivative = 2 * amplitude * shape * inverse * distance
    return np.concatenate((np.ones((1, 50)), -shape, -width_derivative, -position_derivative)).T


def peer(data: np.ndarray, x_scale: float | str) -> tuple[float, np.ndarray]:
    """Return scipy's time per voxel in s and residual sums of squares (voxel,)."""
    start, lower, upper = (limit.numpy() for limit in LorentzianModel.preset("lorentzian_7T").limits())
    start = np.clip(start, lower + 1e-6, upper - 1e-6)
    begin = time.perf_counter()
    fits = [
        least_squares(peer_residual, start, peer_jacobian, (lower, upper), x_scale=x_scale, args=(row,)) for row in data
    ]
    return (time.perf_counter() - begin) / len(data), np.array([2 * fit.cost for fit in fits])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000, help="voxels of our fit")
    parser.add_argument("--peer-voxels", type=int, default=100, help="voxels of scipy's fit")
    arguments = parser.parse_args()

    data = spectra(arguments.voxels)
    peer_data = data[: arguments.peer_voxels].numpy()
    default_seconds, _ = peer(peer_data, 1.0)
    peer_seconds, peer_cost = peer(peer_data, "jac")
    print(f"scipy least_squares, analytic Jacobian, default settings: {default_seconds * 1e6:8.1f} us per voxel")
    print(f"scipy least_squares, analytic Jacobian, x_scale='jac':    {peer_seconds * 1e6:8.1f} us per voxel")
    for dtype in (torch.float64, torch.float32):
        z, offsets = data.to(dtype), torch.from_numpy(OFFSETS).to(dtype)
        model = LorentzianModel.preset("lorentzian_7T")
        fit_lorentzian(z[:4000], offsets, model)  # warm-up
        begin = time.perf_counter()
        fit = fit_lorentzian(z, offsets, model)
        seconds = (time.perf_counter() - begin) / arguments.voxels
        found = fit.spectrum(torch.from_numpy(OFFSETS))[: arguments.peer_voxels].double().numpy()
        excess = ((found - peer_data) ** 2).sum(1) / peer_cost - 1
        unfinished = (fit.status == Status.ITERATION_LIMIT).sum().item()
        print(
            f"batched fit, {str(dtype)[6:]}: {seconds * 1e6:8.1f} us per voxel, {default_seconds / seconds:.0f}x and "
            f"{peer_seconds / seconds:.0f}x; residual sum of squares against scipy's: median {np.median(excess):+.1e}, "
            f"90 % within {np.quantile(abs(excess), 0.9):.1e}, mean {excess.mean():+.1e}; "
            f"{fit.fit.iterations.double().mean():.1f} iterations; not converged: {unfinished}"
        )


if __name__ == "__main__":
    main()
