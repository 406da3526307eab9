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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent
from NeuroCESTLib.core.threads import in_threads

from ..physics.pools import Scalar
from ..tissue.r1rho_jacobian import has_slopes, signal_slopes
from .architecture import normalize_input
from .dataset import effort_of, signals_of, simulate_dataset
from .files import Calibration, NetworkFile
from .reconstruction import Reconstruction, reconstruct
from .training import TrainingDiverged

STEPS = 2
"""Gauss-Newton steps."""
VOXELS_A_CHUNK = 8192
SLOPES_BLOCK = 512
"""Voxels whose derivatives are computed at a time."""
_DIFFERENCE = 1e-2
"""Step of the finite differences, in units of half a training range."""
_UNIT_STEP = 1e-3
"""Step of the differences that convert normalised outputs to their own units."""
_LEAST_SD = 0.02
"""Smallest standard deviation of the network that is believed, in units of half a training range."""
_LEAST_SPREAD = 0.01
"""Smallest variance of a direction of the residuals, relative to the largest, that is scaled to unit variance."""
_SEED_OF_SCANS = 2_000_000
"""Seed of the tissues of a calibration for a scan."""
_SIMULATED = 0.2
"""Share of a calibration that the simulation of its tissues takes."""
_CALIBRATIONS: dict[tuple[str, tuple[str, ...], float], Calibration] = {}
"""Calibrations for a scan, by checksum of the network file, paths of the known values and noise of M0."""


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
        values = self.values(outputs, voxels)
        clean = signals_of(self.distribution, values, self.file.protocol, engine=self.file.engine, threads=self.threads)
        return normalize_input(clean, self.file.protocol.signal_normalisation)

    def values(self, outputs: Tensor, voxels: slice) -> dict[str, Tensor]:
        """Return every entry of the tissue and the fields (voxel,) by path for normalised outputs (voxel, output)."""
        physical = self.file.network.to_physical(outputs)
        values = {path: self._possible(path, physical[:, i]) for i, path in enumerate(self.file.outputs)}
        values |= {path: torch.full_like(physical[:, 0], number) for path, number in self.fixed.items()}
        return values | {path: value[voxels].to(physical.dtype) for path, value in self.known.items()}

    def _possible(self, path: str, values: Tensor) -> Tensor:
        """Keep values a little outside the range of the training, where it starts near 0, from becoming negative."""
        low = self.distribution.entries[path].range[0]
        return values.clamp_min(low / 2) if low >= 0 else values

    def linearized(self, outputs: Tensor, predicted: Tensor | None, voxels: slice) -> tuple[Tensor, Tensor]:
        """Return signals (voxel, measurement) and their derivatives (voxel, measurement, free output).

        The derivatives are analytic for the R1rho engine, and else one-sided differences that stay inside the ranges.

        Args:
            outputs: Normalised outputs (voxel, output).
            predicted: Their signals where they are known.
            voxels: Voxels to which the outputs belong.
        """
        free = [self.file.outputs[i] for i in self.free]
        ranges = self.distribution.ranges()
        ranges |= {path: (ranges[path][0] / 2, ranges[path][1]) for path in self.file.outputs}  # see _possible
        if has_slopes(self.distribution.structure, self.file.protocol, free, self.file.engine, ranges):
            return self._analytic(outputs, voxels, free)
        if predicted is None:
            predicted = self.signal(outputs, voxels)
        columns = []
        for i in self.free:
            moved = outputs.clone()
            step = torch.where(outputs[:, i] > 0, -_DIFFERENCE, _DIFFERENCE)
            moved[:, i] += step
            columns.append((self.signal(moved, voxels) - predicted) / step[:, None])
        return predicted, torch.stack(columns, 2)

    def _analytic(self, outputs: Tensor, voxels: slice, free: list[str]) -> tuple[Tensor, Tensor]:
        """Return what ``linearized`` does, with derivatives with respect to the free outputs of these paths."""
        values = self.values(outputs, voxels)
        entries: dict[str, Scalar] = {path: self.fixed.get(path, value) for path, value in values.items()}
        entries |= {path: values[path] for path in self.known}
        physical = self.file.network.to_physical
        units = (physical(outputs + _UNIT_STEP) - physical(outputs - _UNIT_STEP)) / (2 * _UNIT_STEP)
        normalization, count = self.file.protocol.signal_normalisation, len(outputs)
        signals = torch.empty(count, self.file.protocol.measurement_count)
        result = torch.empty(*signals.shape, len(free))

        @torch.no_grad()
        def derive(first: int) -> None:
            part = slice(first, min(first + SLOPES_BLOCK, count))
            some = {path: v[part] if isinstance(v, Tensor) else v for path, v in entries.items()}
            found, slopes = signal_slopes(
                self.distribution.structure, self.file.protocol, some, free, torch.empty(0, dtype=outputs.dtype)
            )
            signal, slopes = found.T, slopes.movedim(2, 0) * units[part][:, self.free, None]
            signals[part] = unit = normalize_input(signal, normalization)
            if normalization == "l2":
                norm = torch.linalg.vector_norm(signal, dim=1).clamp_min(1e-12)[:, None, None]
                slopes = (slopes - unit[:, None] * (slopes @ unit[:, :, None])) / norm
            result[part] = slopes.mT

        in_threads(derive, range(0, count, SLOPES_BLOCK), self.threads)
        return signals, result


def _refined_signal(physics: _Physics, signal: Tensor, found: Reconstruction, voxels: slice) -> Tensor:
    """Signals of the parameters after Gauss-Newton steps from the reconstruction towards the measured signals.

    The reconstruction and its standard deviations are a Gaussian prior; steps that do not improve a voxel are undone.
    """
    network, free = physics.file.network, physics.free
    start = network.to_normalized(found.mean[voxels]).nan_to_num(0.0).clamp(-1, 1)
    if not free:
        return physics.signal(start, voxels)
    sd = network.normalized_sd(found.mean[voxels], found.sd[voxels])[:, free].nan_to_num(1.0).clamp(_LEAST_SD, 1.0)
    precision = 1 / sd.square()
    signal = signal.nan_to_num(0.0)
    noise_sd = max(_noise_in_signal(physics.file, signal), 1e-4)
    outputs = start.clone()
    predicted, jacobian = physics.linearized(outputs, None, voxels)
    for step in range(STEPS):
        scaled = jacobian / noise_sd
        residual = (signal - predicted) / noise_sd
        normal = scaled.mT @ scaled + torch.diag_embed(precision)
        pull = precision * (start - outputs)[:, free]
        move = torch.linalg.solve(normal, (scaled.mT @ residual[:, :, None])[:, :, 0] + pull)
        proposed = outputs.clone()
        proposed[:, free] = (proposed[:, free] + move).clamp(-1.05, 1.05)
        if step + 1 < STEPS:  # the derivatives come with the signal, and are needed again
            trial, slopes = physics.linearized(proposed, None, voxels)
        else:
            trial, slopes = physics.signal(proposed, voxels), jacobian
        better = (signal - trial).square().sum(1) < (signal - predicted).square().sum(1)
        outputs = torch.where(better[:, None], proposed, outputs)
        predicted = torch.where(better[:, None], trial, predicted)
        if step + 1 < STEPS:
            jacobian = torch.where(better[:, None, None], slopes, jacobian)
    return predicted


def _noise_in_signal(file: NetworkFile, signal: Tensor) -> float:
    """Typical standard deviation of the noise in normalised signals.

    An L2 normalisation divides it by the norm, which for n measurements of about 1 is the root of n.
    """
    mean = sum(file.noise_sd) / 2
    if file.protocol.signal_normalisation != "l2":
        return mean
    return mean / float(file.training.get("mean_norm", signal.shape[1] ** 0.5))


def replaced_outputs(file: NetworkFile, known: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of a network that known values replace, which call for a calibration of their own."""
    return tuple(path for path in file.outputs if path in known)


def calibration_of_scan(
    file: NetworkFile,
    known: Collection[str],
    reference_noise: float,
    threads: int | None = None,
    *,
    checksum: str = "",
    progress: Progress = silent,
) -> Calibration | None:
    """Return the calibration of a network's reliability map for a scan with known values or a noisy M0.

    Where known values replace estimates of the network, the others do not move along with them, and the residuals
    differ from those of the calibration in the file; the noise of M0, which all measurements share, adds to them. They
    are simulated again, always from the same tissues, so that the calibration depends on nothing but the network, which
    values are known, and how noisy M0 is.

    Args:
        file: Network with its calibration.
        known: Paths of the known values.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``.
        threads: Threads of the simulations; by default as many as torch uses.
        checksum: Checksum of the network file, under which the calibration is kept for the next call; empty keeps none.
        progress: Called with the fraction done (0 … 1) and a message; may raise to cancel.

    Returns:
        The calibration; that of the file where no known value is an output of the network and M0 has no noise.
    """
    replaced = replaced_outputs(file, known)
    if file.calibration is None or not (replaced or reference_noise):
        return file.calibration
    key = (checksum, replaced, round(reference_noise, 6))
    kept = _CALIBRATIONS.get(key)
    if kept is None:
        kept, _ = calibrate(
            file,
            file.calibration.false_alarm_rate,
            seed=_SEED_OF_SCANS,
            known=replaced,
            reference_noise=reference_noise,
            threads=threads,
            progress=progress,
        )
        if checksum:
            _CALIBRATIONS[key] = kept
    return kept


def calibrate(
    file: NetworkFile,
    false_alarm_rate: float,
    *,
    seed: int,
    known: Collection[str] = (),
    reference_noise: float = 0.0,
    threads: int | None = None,
    progress: Progress = silent,
) -> tuple[Calibration, dict[str, float]]:
    """Calibrate the reliability map of a network on simulated tissues of its training distribution.

    The covariance of the residuals comes from one half of the tissues and the threshold from the other.

    Args:
        file: Network to calibrate.
        false_alarm_rate: Share of the voxels that the model explains whose misfit exceeds the threshold.
        seed: Seed of the tissues and their noise.
        known: Paths of the entries of the tissue whose true values are given to the back-projection.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``.
        threads: Threads of the simulations; by default as many as torch uses.
        progress: Called with the fraction done (0 … 1) and a message; may raise to cancel.

    Returns:
        The calibration, and the errors of the network on these tissues by ``<path> mean absolute error``,
        ``<path> correlation`` and ``<path> share within 2 sd``.

    Raises:
        TrainingDiverged: The network does not give finite numbers for them.
    """
    count = effort_of(file.engine).calibration_voxels
    data = simulate_dataset(
        file.distribution,
        file.protocol,
        count,
        noise_sd=file.noise_sd,
        seed=seed,
        engine=file.engine,
        threads=threads,
        progress=part(progress, 0.0, _SIMULATED),
    )
    # All tissues but the first: so the thresholds stay those of networks that were calibrated earlier.
    samples = data.rows(torch.arange(1, count), file.targets)
    noise = torch.randn(samples.clean.shape, generator=torch.Generator().manual_seed(seed + 77_777))
    noisy = samples.clean + noise * samples.noise_sd[:, None]
    if reference_noise:
        of_m0 = torch.randn(len(noisy), 1, generator=torch.Generator().manual_seed(seed + 99_991))
        noisy = noisy / (1 + reference_noise**0.5 * of_m0 * samples.noise_sd[:, None])
    signal = normalize_input(noisy, file.protocol.signal_normalisation)
    found = reconstruct(file.network, signal, reference_noise=reference_noise)
    given = {path: data.values[path][1:] for path in known}
    judging = part(progress, _SIMULATED, 1.0)
    residual = signal - back_project(file, signal, found, known=given, threads=threads, progress=judging).signal
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
