"""The reliability map: can a tissue of the model, close to the reconstruction, explain the measured signal?

The physics computes the signal of the reconstructed parameters, which is compared with the measured one (the idea of
gQUCESOP; Wang et al., NMR Biomed 2024;37:e5098). A network gives the expected value of each parameter, and the expected
values of badly determined background parameters do not fit together to the precision of the noise. Before the
comparison Gauss-Newton steps therefore move the parameters towards the signal, no further than the network's own
uncertainty suggests. What is left is noise, or something that the tissue model does not contain. The misfit, a
Mahalanobis distance relative to the residuals of simulated voxels, tells the two apart better than the RMSE, which
depends on how noisy a voxel is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from .architecture import normalize_input
from .dataset import effort_of, signals_of, simulate_dataset
from .files import Calibration, NetworkFile
from .reconstruction import Reconstruction, reconstruct
from .training import TrainingDiverged

STEPS = 2
"""Gauss-Newton steps."""
VOXELS_A_CHUNK = 8192
_DIFFERENCE = 1e-2
"""Step of the finite differences, in units of half a training range."""
_LEAST_SD = 0.02
"""Smallest standard deviation of the network that is believed, in units of half a training range."""
_LEAST_SPREAD = 0.01
"""Smallest variance of a direction of the residuals, relative to the largest, that is scaled to unit variance."""


@dataclass(frozen=True)
class BackProjection:
    """Back-projected parameters in the space of the signals; NaN where the signal or a known value is NaN.

    Attributes:
        signal: Signal of the refined parameters, (voxel, measurement), normalised.
        rmse: Root-mean-square difference between it and the measured signal, (voxel,).
    """

    signal: Tensor
    rmse: Tensor


@torch.no_grad()
def back_project(
    file: NetworkFile,
    signal: Tensor,
    found: Reconstruction,
    *,
    known: Mapping[str, Tensor] | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> BackProjection:
    """Compute the signals that belong to a reconstruction.

    Args:
        file: Network that made the reconstruction.
        signal: Normalised measured signals, (voxel, measurement).
        found: Reconstruction of them.
        known: Values (voxel,) by path (``water.T1_s``, ``b0_shift_ppm``, …) that replace those of the network, because
            they are known better than the network can tell.
        threads: Threads of the simulations; by default as many as torch uses.
        progress: Called after every chunk of voxels; may raise to cancel.
    """
    physics = _Physics(file, known or {}, threads)
    result = torch.full(signal.shape, torch.nan)
    usable = torch.isfinite(signal).all(1)
    for value in physics.known.values():
        usable &= torch.isfinite(value)
    for start in range(0, len(signal), VOXELS_A_CHUNK):
        voxels = slice(start, min(start + VOXELS_A_CHUNK, len(signal)))
        result[voxels] = _refined_signal(physics, signal[voxels].float(), found, voxels)
        progress(voxels.stop / len(signal), f"back-projected {voxels.stop} of {len(signal)} voxels")
    result[~usable] = torch.nan
    return BackProjection(result, (signal - result).square().mean(1).sqrt())


class _Physics:
    """Signals as a function of a network's outputs, of which known values replace some."""

    def __init__(self, file: NetworkFile, known: Mapping[str, Tensor], threads: int | None) -> None:
        self.file, self.known, self.threads = file, dict(known), threads
        self.free = [i for i, path in enumerate(file.outputs) if path not in self.known]
        self.distribution = file.distribution
        self.fixed = {path: entry.first for path, entry in self.distribution.entries.items() if not entry.varies}

    def signal(self, outputs: Tensor, voxels: slice) -> Tensor:
        """Return normalised signals (voxel, measurement) of normalised outputs (voxel, output) of some voxels."""
        physical = self.file.network.to_physical(outputs)
        values = {path: self._possible(path, physical[:, i]) for i, path in enumerate(self.file.outputs)}
        values |= {path: torch.full_like(physical[:, 0], number) for path, number in self.fixed.items()}
        values |= {path: value[voxels].to(physical.dtype) for path, value in self.known.items()}
        clean = signals_of(self.distribution, values, self.file.protocol, engine=self.file.engine, threads=self.threads)
        return normalize_input(clean, self.file.protocol.signal_normalisation)

    def _possible(self, path: str, values: Tensor) -> Tensor:
        """Keep values a little outside the range of the training, where it starts near 0, from becoming negative."""
        low = self.distribution.entries[path].range[0]
        return values.clamp_min(low / 2) if low >= 0 else values

    def jacobian(self, outputs: Tensor, predicted: Tensor, voxels: slice) -> Tensor:
        """Return derivatives (voxel, measurement, free output) by one-sided differences that stay inside the ranges."""
        columns = []
        for i in self.free:
            moved = outputs.clone()
            step = torch.where(outputs[:, i] > 0, -_DIFFERENCE, _DIFFERENCE)
            moved[:, i] += step
            columns.append((self.signal(moved, voxels) - predicted) / step[:, None])
        return torch.stack(columns, 2)


def _refined_signal(physics: _Physics, signal: Tensor, found: Reconstruction, voxels: slice) -> Tensor:
    """Signals of the parameters after Gauss-Newton steps from the reconstruction towards the measured signals.

    The reconstruction and its standard deviations are a Gaussian prior; steps that do not improve a voxel are undone.
    """
    network, free = physics.file.network, physics.free
    start = network.to_normalized(found.mean[voxels]).nan_to_num(0.0).clamp(-1, 1)
    sd = network.normalized_sd(found.mean[voxels], found.sd[voxels])[:, free].nan_to_num(1.0).clamp(_LEAST_SD, 1.0)
    precision = 1 / sd.square()
    signal = signal.nan_to_num(0.0)
    noise_sd = max(_noise_in_signal(physics.file, signal), 1e-4)
    outputs = start.clone()
    predicted = physics.signal(outputs, voxels)
    for _ in range(STEPS):
        jacobian = physics.jacobian(outputs, predicted, voxels) / noise_sd
        residual = (signal - predicted) / noise_sd
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
    """Typical standard deviation of the noise in normalised signals.

    An L2 normalisation divides it by the norm, which for n measurements of about 1 is the root of n.
    """
    mean = sum(file.noise_sd) / 2
    if file.protocol.signal_normalisation != "l2":
        return mean
    return mean / float(file.training.get("mean_norm", signal.shape[1] ** 0.5))


def calibrate(
    file: NetworkFile, false_alarm_rate: float, *, seed: int, threads: int | None = None
) -> tuple[Calibration, dict[str, float]]:
    """Calibrate the reliability map of a network on simulated tissues of its training distribution.

    The covariance of the residuals comes from one half of the tissues and the threshold from the other.

    Args:
        file: Network to calibrate.
        false_alarm_rate: Share of the voxels that the model explains whose misfit exceeds the threshold.
        seed: Seed of the tissues and their noise.
        threads: Threads of the simulations; by default as many as torch uses.

    Returns:
        The calibration, and the errors of the network on these tissues by ``<path> mean absolute error``,
        ``<path> correlation`` and ``<path> share within 2 sd``.

    Raises:
        TrainingDiverged: The network does not give finite numbers for them.
    """
    count = effort_of(file.engine).calibration_voxels
    data = simulate_dataset(
        file.distribution, file.protocol, count, noise_sd=file.noise_sd, seed=seed, engine=file.engine, threads=threads
    )
    # All tissues but the first: so the thresholds stay those of networks that were calibrated earlier.
    samples = data.rows(torch.arange(1, count), file.targets)
    noise = torch.randn(samples.clean.shape, generator=torch.Generator().manual_seed(seed + 77_777))
    noisy = samples.clean + noise * samples.noise_sd[:, None]
    signal = normalize_input(noisy, file.protocol.signal_normalisation)
    found = reconstruct(file.network, signal)
    residual = signal - back_project(file, signal, found, threads=threads).signal
    _require_finite(residual, found.expected_rmse)
    half = len(signal) // 2
    expected_rmse = (float(found.expected_rmse.min()), float(found.expected_rmse.max()))
    whitening = _whitening(residual[:half] / found.expected_rmse[:half, None])
    calibration = Calibration(torch.nan, false_alarm_rate, len(signal), whitening, expected_rmse)
    misfit = calibration.misfit(residual[half:], found.expected_rmse[half:])
    calibration = replace(calibration, threshold=float(torch.quantile(misfit.double(), 1 - false_alarm_rate)))
    _require_finite(whitening, torch.tensor(calibration.threshold))
    return calibration, _errors(file.targets, found, samples.parameters.float())


def _errors(targets: Sequence[str], found: Reconstruction, truth: Tensor) -> dict[str, float]:
    """Errors of the targets, the first outputs of the network, whose true values are (voxel, target)."""
    errors: dict[str, float] = {}
    for i, path in enumerate(targets):
        estimate, true = found.mean[:, i], truth[:, i]
        error = estimate - true
        errors[f"{path} mean absolute error"] = float(error.abs().mean())
        errors[f"{path} correlation"] = float(torch.corrcoef(torch.stack([estimate, true]))[0, 1])
        errors[f"{path} share within 2 sd"] = float((error.abs() <= 2 * found.sd[:, i]).float().mean())
    return errors


def _require_finite(*values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise TrainingDiverged(
            "the training diverged: for simulated tissues the network gives values that are not finite, so its "
            "reliability map cannot be calibrated; lower the learning rate"
        )


def _whitening(residual: Tensor) -> Tensor:
    """Matrix (measurement, measurement) that whitens residuals (voxel, measurement) where they have any spread."""
    spread, directions = torch.linalg.eigh(residual.double().mT @ residual.double() / len(residual))
    return (directions / spread.clamp_min(_LEAST_SPREAD * float(spread.max())).sqrt()).float()
