"""The Cramér-Rao bound of tissue parameters under a protocol: how precise any unbiased estimator can be.

With white noise of standard deviation s and the Jacobian J of the signal, the Fisher information of one voxel is
`J^T J / s^2`. Prior knowledge with standard deviation p adds `1 / p^2` (the Bayesian, or van Trees, form with the
information taken at the parameters of the voxel). All parameters are in units of the standard deviation of their prior,
so that a bound of 1 means that the measurement tells nothing. The bounds are differentiable with respect to the
protocol, which makes them objectives for the design of schedules (A- and D-optimal design).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..fitting.jacobians import finite_difference_model
from ..networks.dataset import without_l2
from ..physics.engines import engine_named
from ..physics.pools import Tissue
from ..physics.protocol import Protocol

OBJECTIVES = ("crlb-a", "crlb-d", "crlb-sd")
"""Summaries of the bound that a schedule can be designed by, see :func:`design_loss`."""
_SCALE_INFORMATION = 1e-6
"""Prior information on the unknown scale of an L2-normalised signal: practically none."""

TissueOf = Callable[[Mapping[str, Tensor | float]], Tissue]
"""Makes a tissue of its entries by path."""


def signal_and_jacobian(
    tissue_of: TissueOf,
    values: Mapping[str, Tensor | float],
    prior_sd: Mapping[str, float],
    protocol: Protocol,
    engine: str = "r1rho",
) -> tuple[Tensor, Tensor]:
    """Simulate signals with their derivatives with respect to tissue parameters.

    The derivatives are central differences in float64, computed for all parameters in one call. They are exact to about
    1e-9, and can be differentiated once more with respect to the protocol.

    Args:
        tissue_of: Makes a tissue of its entries by path.
        values: Entries by path (``amine.k_Hz``, …), numbers or (voxel,); also the fields ``b0_shift_ppm`` and
            ``b1_relative`` where they are not 0 and 1.
        prior_sd: Standard deviations of the priors of the estimated parameters by path, in their own units. The
            derivatives are with respect to the parameters in units of them.
        protocol: Acquisition protocol.
        engine: ``r1rho`` or ``bloch-mcconnell``.

    Returns:
        Signal (measurement, voxel) before any L2 normalisation, and its Jacobian (parameter, measurement, voxel).

    Raises:
        ValueError: The engine is unknown.
    """
    signal_of = engine_named(engine)
    names = list(prior_sd)
    unit = torch.tensor([float(prior_sd[name]) for name in names], dtype=torch.float64)
    voxels = max(value.numel() if isinstance(value, Tensor) else 1 for value in values.values())
    point = torch.stack([torch.as_tensor(values[name], dtype=torch.float64).expand(voxels) for name in names])
    others = {
        name: torch.as_tensor(value, dtype=torch.float64).expand(voxels)
        for name, value in values.items()
        if name not in names
    }
    before_l2 = without_l2(protocol)
    like = torch.empty(0, dtype=torch.float64, device=protocol.offsets_ppm.device)

    def predict(parameters: Tensor, *rest: Tensor) -> Tensor:
        entries: dict[str, Tensor | float] = {
            **dict(zip(others, rest, strict=True)),
            **dict(zip(names, parameters, strict=True)),
        }
        b0, b1 = entries.pop("b0_shift_ppm", 0.0), entries.pop("b1_relative", 1.0)
        return signal_of(tissue_of(entries), before_l2, b0_shift_ppm=b0, b1_relative=b1, like=like)

    model = finite_difference_model(predict, scale=unit, central=True)
    signal, jacobian = model(point, *others.values())
    return signal, jacobian * unit[:, None, None]


def covariance_bound(signal: Tensor, jacobian: Tensor, noise_sd: Tensor | float, normalization: str) -> Tensor:
    """Compute the lowest covariance that the estimates of the parameters can have.

    Args:
        signal: Signal (measurement, voxel) as :func:`signal_and_jacobian` returns it.
        jacobian: Jacobian (parameter, measurement, voxel) as :func:`signal_and_jacobian` returns it.
        noise_sd: Standard deviation of the noise of this signal, a number or (voxel,).
        normalization: Normalisation of the protocol; with ``l2`` the scale of the signal is unknown too.

    Returns:
        Covariance (voxel, parameter, parameter) in units of the standard deviations of the priors.
    """
    count = len(jacobian)
    columns = torch.cat([jacobian, signal[None]]) if normalization == "l2" else jacobian
    columns = columns.permute(2, 1, 0) / torch.as_tensor(noise_sd, dtype=signal.dtype).reshape(-1, 1, 1)
    information = columns.transpose(1, 2) @ columns
    prior = torch.ones(columns.shape[2], dtype=signal.dtype)
    prior[count:] = _SCALE_INFORMATION
    factor = torch.linalg.cholesky(information + torch.diag(prior))
    return torch.cholesky_inverse(factor)[:, :count, :count]


def parameter_sd_bound(
    tissue_of: TissueOf,
    values: Mapping[str, Tensor | float],
    prior_sd: Mapping[str, float],
    protocol: Protocol,
    noise_sd: Tensor | float,
    engine: str = "r1rho",
) -> dict[str, Tensor]:
    """Compute the lowest standard deviations that the estimates of the parameters can have.

    Args:
        tissue_of: As for :func:`signal_and_jacobian`, and so are the arguments that follow.
        values: Entries of the tissues by path.
        prior_sd: Standard deviations of the priors of the estimated parameters by path, in their own units.
        protocol: Acquisition protocol.
        noise_sd: Standard deviation of the noise before any L2 normalisation, a number or (voxel,). Where signals are
            relative to M0, it is too.
        engine: ``r1rho`` or ``bloch-mcconnell``.

    Returns:
        Standard deviations (voxel,) by path, in the parameters' own units.
    """
    signal, jacobian = signal_and_jacobian(tissue_of, values, prior_sd, protocol, engine)
    covariance = covariance_bound(signal, jacobian, noise_sd, protocol.signal_normalisation)
    variances = torch.diagonal(covariance, dim1=1, dim2=2)
    return {name: sd * variances[:, p].sqrt() for p, (name, sd) in enumerate(prior_sd.items())}


def design_loss(
    covariance: Tensor, targets: Sequence[int], objective: str, weights: Sequence[float] | None = None
) -> Tensor:
    """Summarise how imprecisely the targets can be estimated; all other parameters are nuisances.

    - ``crlb-a``: mean over voxels and targets of the variance bound relative to the variance of the prior, 0 to 1. In
      the linear approximation it is the lowest mean squared error of normalised targets.
    - ``crlb-sd``: the same for standard deviations, the mean absolute error; a few badly determined voxels do not
      dominate it.
    - ``crlb-d``: mean logarithm of the determinant of the targets' covariance, per target; it does not depend on the
      scale of the targets nor on their ``weights``.

    Args:
        covariance: Covariance (voxel, parameter, parameter) as :func:`covariance_bound` returns it.
        targets: Indices of the targets among the parameters.
        objective: One of ``OBJECTIVES``.
        weights: Weight of every target; None weighs them equally.

    Returns:
        Loss, a scalar.

    Raises:
        ValueError: The objective is unknown.
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
