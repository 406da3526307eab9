"""Cramer-Rao bound of tissue parameters under a protocol: how well any unbiased estimator can do.

With white noise of standard deviation s and the Jacobian J of the signal, the Fisher information of one voxel is
J^T J / s^2. What is known beforehand, a prior of standard deviation p, adds 1/p^2 (the Bayesian, or van Trees, form
with the information taken at the voxel's own parameters). All parameters are in units of their prior's standard
deviation, so a bound of 1 means that the measurement tells nothing. The bounds are differentiable with respect to the
protocol, which makes them objectives for schedules (A- and D-optimal design).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..fitting.jacobians import finite_difference_model
from ..physics.pools import Tissue
from ..physics.protocol import Protocol
from ..physics.simulation import ENGINES

OBJECTIVES = ("crlb-a", "crlb-d", "crlb-sd")
FIELDS = ("b0_shift_ppm", "b1_relative")

TissueOf = Callable[[Mapping[str, Tensor | float]], Tissue]


def signal_and_jacobian(
    tissue_of: TissueOf,
    values: Mapping[str, Tensor | float],
    prior_sd: Mapping[str, float],
    protocol: Protocol,
    engine: str = "r1rho",
) -> tuple[Tensor, Tensor]:
    """Signal (measurement, voxel) before normalisation, and its Jacobian (parameter, measurement, voxel).

    tissue_of: makes a tissue of values by path ('amine.k_Hz', ...). values: by path, numbers or (voxel,), with the
    fields 'b0_shift_ppm' and 'b1_relative' where they are not 0 and 1. prior_sd: the estimated parameters, in order;
    derivatives are with respect to the parameter in units of it. Central differences in float64, all parameters in
    one call: exact to about 1e-9, and differentiable once more with respect to the protocol.
    """
    names = list(prior_sd)
    unit = torch.tensor([float(prior_sd[name]) for name in names], dtype=torch.float64)
    voxels = max(value.numel() if isinstance(value, Tensor) else 1 for value in values.values())
    point = torch.stack([torch.as_tensor(values[name], dtype=torch.float64).expand(voxels) for name in names])
    others = {
        name: torch.as_tensor(value, dtype=torch.float64).expand(voxels)
        for name, value in values.items()
        if name not in names
    }
    plain = replace(protocol, signal_normalisation="none")
    like = torch.empty(0, dtype=torch.float64, device=protocol.offsets_ppm.device)

    def predict(parameters: Tensor, *rest: Tensor) -> Tensor:
        now = dict(zip(others, rest, strict=True)) | dict(zip(names, parameters, strict=True))
        b0, b1 = now.pop("b0_shift_ppm", 0.0), now.pop("b1_relative", 1.0)
        return ENGINES[engine](tissue_of(now), plain, b0_shift_ppm=b0, b1_relative=b1, like=like)

    model = finite_difference_model(predict, scale=unit, central=True)
    signal, jacobian = model(point, *others.values())
    return signal, jacobian * unit[:, None, None]


def covariance_bound(signal: Tensor, jacobian: Tensor, noise_sd: Tensor | float, normalisation: str) -> Tensor:
    """Lowest covariance (voxel, parameter, parameter) in units of the priors' standard deviations.

    signal (measurement, voxel), jacobian (parameter, measurement, voxel) as :func:`signal_and_jacobian` returns them;
    noise_sd: of the signal before normalisation, a number or (voxel,). With normalisation 'l2' the scale of the signal
    is unknown too.
    """
    known = len(jacobian)
    columns = torch.cat([jacobian, signal[None]]) if normalisation == "l2" else jacobian
    columns = columns.permute(2, 1, 0) / torch.as_tensor(noise_sd, dtype=signal.dtype).reshape(-1, 1, 1)
    information = columns.transpose(1, 2) @ columns
    prior = torch.ones(columns.shape[2], dtype=signal.dtype)
    prior[known:] = 1e-6  # nothing is known of the scale
    factor = torch.linalg.cholesky(information + torch.diag(prior))
    return torch.cholesky_inverse(factor)[:, :known, :known]


def parameter_sd_bound(
    tissue_of: TissueOf,
    values: Mapping[str, Tensor | float],
    prior_sd: Mapping[str, float],
    protocol: Protocol,
    noise_sd: Tensor | float,
    engine: str = "r1rho",
) -> dict[str, Tensor]:
    """Lowest standard deviation (voxel,) of every estimated parameter, in its own unit; arguments as above."""
    signal, jacobian = signal_and_jacobian(tissue_of, values, prior_sd, protocol, engine)
    covariance = covariance_bound(signal, jacobian, noise_sd, protocol.signal_normalisation)
    variances = torch.diagonal(covariance, dim1=1, dim2=2)
    return {name: sd * variances[:, p].sqrt() for p, (name, sd) in enumerate(prior_sd.items())}


def design_loss(
    covariance: Tensor, targets: Sequence[int], objective: str, weights: Sequence[float] | None = None
) -> Tensor:
    """How badly a design estimates the targets (their places among the parameters); the others are nuisances.

    'crlb-a': mean over voxels and targets of the variance bound relative to the prior variance, 0 to 1, the least
    mean squared error on normalised targets in the linear approximation. 'crlb-sd': the same of standard deviations:
    the mean absolute error, which a few badly determined voxels do not dominate. 'crlb-d': mean log determinant of
    the targets' covariance, per target; indifferent to how the targets are scaled and to their ``weights``.
    """
    index = torch.as_tensor(list(targets))
    block = covariance[:, index][:, :, index]
    if objective in ("crlb-a", "crlb-sd"):
        variance = torch.diagonal(block, dim1=1, dim2=2)
        by_target = (variance if objective == "crlb-a" else variance.sqrt()).mean(0)
        importance = torch.as_tensor(weights or [1.0] * len(index), dtype=by_target.dtype)
        return (by_target * importance).sum() / importance.sum()
    if objective == "crlb-d":
        factor = torch.linalg.cholesky(block)
        return 2 * torch.diagonal(factor, dim1=1, dim2=2).log().mean()
    raise ValueError(f"objective '{objective}' is unknown; use one of {', '.join(OBJECTIVES)}")
