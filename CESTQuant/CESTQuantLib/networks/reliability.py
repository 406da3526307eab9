"""The reliability map: can any tissue of the model near the reconstruction explain the measured signal?

The reconstructed parameters are pushed back through the physics and compared with the signal (gQUCESOP's idea; Wang
et al., NMR Biomed 2024;37:e5098). A network gives each parameter its expected value, and expected values of badly
determined background parameters do not fit together to the precision of the noise. Before the comparison they are
therefore moved by Gauss-Newton steps towards the signal, no further than the network's own uncertainty suggests.
What is left is noise, or something that the model does not hold. Its misfit, the Mahalanobis distance from what is left
of simulated voxels, tells the two apart better than its RMSE, which depends on how noisy a voxel is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from .architecture import normalise_input
from .dataset import SimulatedBatches, signals_of, simulate_dataset
from .files import Calibration, NetworkFile
from .reconstruction import Reconstruction, reconstruct
from .training import TrainingDiverged

STEPS = 2
VOXELS_A_CHUNK = 8192
CALIBRATION_VOXELS = {"r1rho": 10_000, "bloch-mcconnell": 2_000}
_DIFFERENCE = 1e-2  # of half a training range
_LEAST_SD = 0.02
_LEAST_SPREAD = 0.01


@dataclass(frozen=True)
class BackProjection:
    """signal: (voxel, measurement) of the refined parameters; rmse: (voxel,) its distance from the measured one."""

    signal: Tensor
    rmse: Tensor


class Physics:
    """Signals of a network's outputs in normalised units; ``known`` maps (voxel,) by path replace outputs."""

    def __init__(self, file: NetworkFile, known: Mapping[str, Tensor] | None, threads: int | None) -> None:
        self.file, self.known, self.threads = file, dict(known or {}), threads
        self.distribution = file.distribution
        self.fixed = {p: e.first for p, e in self.distribution.entries.items() if not e.varies}

    def signal(self, outputs: Tensor, voxels: slice) -> Tensor:
        """Normalised signals (voxel, measurement) of outputs (voxel, output), -1 … 1 over the training range."""
        physical = self.file.network.to_physical(outputs)
        values = {path: physical[:, i] for i, path in enumerate(self.file.outputs)}
        values |= {path: torch.full_like(physical[:, 0], number) for path, number in self.fixed.items()}
        values |= {path: value[voxels].to(physical.dtype) for path, value in self.known.items()}
        clean = signals_of(self.distribution, values, self.file.protocol, engine=self.file.engine, threads=self.threads)
        return normalise_input(clean, self.file.protocol.signal_normalisation)


@torch.no_grad()
def back_project(
    file: NetworkFile,
    signal: Tensor,
    found: Reconstruction,
    *,
    known: Mapping[str, Tensor] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> BackProjection:
    """Back-projection of a reconstruction of normalised signals (voxel, measurement); NaN where a signal is.

    known: (voxel,) maps by path ('water.T1_s', 'b0_shift_ppm', ...) that are better known than the network can tell.
    """
    physics = Physics(file, known, threads)
    free = [i for i, path in enumerate(file.outputs) if path not in physics.known]
    result = torch.full(signal.shape, torch.nan)
    usable = torch.isfinite(signal).all(1)
    for value in physics.known.values():
        usable &= torch.isfinite(value)
    for start in range(0, len(signal), VOXELS_A_CHUNK):
        voxels = slice(start, min(start + VOXELS_A_CHUNK, len(signal)))
        result[voxels] = _refined(file, physics, signal[voxels].float(), found, voxels, free)
        if progress is not None:
            progress(voxels.stop / len(signal), f"back-projected {voxels.stop} of {len(signal)} voxels")
    result[~usable] = torch.nan
    return BackProjection(result, (signal - result).square().mean(1).sqrt())


def _refined(
    file: NetworkFile, physics: Physics, signal: Tensor, found: Reconstruction, voxels: slice, free: list[int]
) -> Tensor:
    network = file.network
    start = network.to_normalised(found.mean[voxels]).nan_to_num(0.0).clamp(-1, 1)
    precision = (
        1
        / network.normalised_sd(found.mean[voxels], found.sd[voxels])[:, free]
        .nan_to_num(1.0)
        .clamp(_LEAST_SD, 1.0)
        .square()
    )
    signal = signal.nan_to_num(0.0)
    noise = max(_noise_in_signal(file, signal), 1e-4)
    outputs = start.clone()
    predicted = physics.signal(outputs, voxels)
    for _ in range(STEPS):
        columns = []
        for i in free:
            moved = outputs.clone()
            step = torch.where(outputs[:, i] > 0, -_DIFFERENCE, _DIFFERENCE)
            moved[:, i] += step
            columns.append((physics.signal(moved, voxels) - predicted) / step[:, None])
        jacobian = torch.stack(columns, 2) / noise
        residual = (signal - predicted) / noise
        normal = jacobian.mT @ jacobian + torch.diag_embed(precision)
        pull = precision * (start - outputs)[:, free]
        move = torch.linalg.solve(normal, (jacobian.mT @ residual[:, :, None])[:, :, 0] + pull)
        proposed = outputs.clone()
        proposed[:, free] = (proposed[:, free] + move).clamp(-1.05, 1.05)
        trial = physics.signal(proposed, voxels)
        better = (signal - trial).square().sum(1) < (signal - predicted).square().sum(1)
        outputs = torch.where(better[:, None], proposed, outputs)
        predicted = torch.where(better[:, None], trial, predicted)
    return predicted


def _noise_in_signal(file: NetworkFile, signal: Tensor) -> float:
    """Typical noise of the normalised signal; an L2 normalisation of n measurements leaves about 1 / sqrt(n) each."""
    mean = sum(file.noise_sd) / 2
    if file.protocol.signal_normalisation != "l2":
        return mean
    return mean / float(file.training.get("mean_norm", signal.shape[1] ** 0.5))


def calibrate(
    file: NetworkFile, false_alarm_rate: float, *, seed: int, threads: int | None = None
) -> tuple[Calibration, dict[str, float]]:
    """Distribution of the residuals, and the misfit that the given share of modelled voxels exceeds.

    On tissues of the training distribution: the covariance from one half of them, the threshold from the other. Also
    returns the errors of the network on these voxels, by '<path> …'. Raises TrainingDiverged where the network gives
    no finite numbers for them.
    """
    count = CALIBRATION_VOXELS[file.engine]
    data = simulate_dataset(
        file.distribution, file.protocol, count, noise_sd=file.noise_sd, seed=seed, engine=file.engine, threads=threads
    )
    source = SimulatedBatches(file.network, data, file.protocol, file.outputs, 1, seed, held_out=count - 1)
    signal = source.validation()[0]
    found = reconstruct(file.network, signal)
    residual = signal - back_project(file, signal, found, threads=threads).signal
    _require_finite(residual, found.expected_rmse)
    half = len(signal) // 2
    expected = (float(found.expected_rmse.min()), float(found.expected_rmse.max()))
    whitening = _whitening(residual[:half] / found.expected_rmse[:half, None])
    calibration = Calibration(torch.nan, false_alarm_rate, len(signal), whitening, expected)
    misfit = calibration.misfit(residual[half:], found.expected_rmse[half:])
    calibration = replace(calibration, threshold=float(torch.quantile(misfit.double(), 1 - false_alarm_rate)))
    _require_finite(whitening, torch.tensor(calibration.threshold))
    errors: dict[str, float] = {}
    for i, path in enumerate(file.targets):
        truth = data.values[path][1:].float()
        error = found.mean[:, i] - truth
        errors[f"{path} mean absolute error"] = float(error.abs().mean())
        errors[f"{path} correlation"] = float(torch.corrcoef(torch.stack([found.mean[:, i], truth]))[0, 1])
        errors[f"{path} share within 2 sd"] = float((error.abs() <= 2 * found.sd[:, i]).float().mean())
    return calibration, errors


def _require_finite(*values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise TrainingDiverged(
            "the training diverged: what the network says of simulated tissues is not finite, so its reliability map "
            "cannot be calibrated; lower the learning rate"
        )


def _whitening(residual: Tensor) -> Tensor:
    """(measurement, measurement) that makes residuals (voxel, measurement) white, but for directions without spread."""
    spread, directions = torch.linalg.eigh(residual.double().mT @ residual.double() / len(residual))
    return (directions / spread.clamp_min(_LEAST_SPREAD * float(spread.max())).sqrt()).float()
