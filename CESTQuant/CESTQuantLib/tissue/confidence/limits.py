"""What limits a model fit: the noise, a model that does not explain the signal, or constants that are not known well.

With the Jacobians J of the signal with respect to the fitted values and C with respect to the constants, and the normal
matrix N = J^T J (priors included), a fit deviates by ``N^-1 J^T (noise + misfit - C d)`` where the constants deviate by
d. With independent constants of standard deviation s, the variance of the fitted value p is::

    sigma^2 (N^-1)_pp  +  sigma^2 max(chi2 - 1, 0) (N^-1)_pp  +  sum_c ((N^-1 J^T C)_pc s_c)^2
         noise                       misfit                               constants

which is the marginal variance of a joint fit with Gaussian priors of the constants, to first order. ``sigma`` is the
noise of a measurement and ``chi2`` the reduced chi-square. Where the noise is not known it is estimated from the
residual, so that noise and misfit are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from ..fit import ModelFit
from ..model import Entry, FitParameter, TissueModel
from ..model_fits.signal_model import SignalModel
from ..quantities import map_name, named_quantities

VALUES_PER_CHUNK = 2**21
"""Measurements x voxels x perturbed copies that are simulated at a time."""


class Limit(IntEnum):
    """What contributes most to the uncertainty of a value."""

    NOISE = 1
    """Noise; with an unknown noise, everything that the residual shows."""
    MODEL = 2
    """Misfit: the residual is larger than the noise."""
    CONSTANTS = 3
    """Constants of the model that are not known well enough."""


@dataclass(frozen=True)
class Confidence:
    """Uncertainty of the fitted values of every voxel; NaN where a value has none.

    Attributes:
        paths: Entries of the model that are fitted.
        noise_variance: (voxel, p) from the noise, that of M0 too; from the residual where the noise is not known.
        model_variance: (voxel, p) from the misfit; zero where the noise is not known.
        constant_variance: (voxel, p) from the constants.
        chi_square: (voxel,) reduced chi-square; None where the noise is not known.
    """

    paths: tuple[str, ...]
    noise_variance: Tensor
    model_variance: Tensor
    constant_variance: Tensor
    chi_square: Tensor | None

    @property
    def standard_errors(self) -> Tensor:
        """Standard errors (voxel, p) that contain all contributions."""
        return (self.noise_variance + self.model_variance + self.constant_variance).sqrt()

    @property
    def limits(self) -> Tensor:
        """Largest contribution (voxel, p) as a number of ``Limit``; NaN where there is no standard error."""
        shares = torch.stack((self.noise_variance, self.model_variance, self.constant_variance))
        largest = shares.nan_to_num(0.0).argmax(0) + int(Limit.NOISE)
        return torch.where(self.noise_variance.isfinite(), largest.to(shares.dtype), torch.nan)

    def quantities(self, fit: ModelFit, *, with_limits: bool = True) -> dict[str, Tensor]:
        """Return the maps of a fit with these standard errors, ``<map>_limit``, and ``chi2_reduced`` where it is known.

        Args:
            fit: The fit that this is the confidence of.
            with_limits: Whether to give ``<map>_limit``.
        """
        values = {path: fit.result.parameters[:, i].double() for i, path in enumerate(self.paths)}
        errors = {path: self.standard_errors[:, i] for i, path in enumerate(self.paths)}
        maps = named_quantities(values, errors, fit.signal_model.tissue.protons)
        if with_limits:
            maps |= {f"{map_name(path)}_limit": self.limits[:, i] for i, path in enumerate(self.paths)}
        if self.chi_square is not None:
            maps["chi2_reduced"] = self.chi_square
        return {**fit.quantities, **maps}

    def summary(self) -> dict[str, float]:
        """Return the share of the voxels in which noise, model and constants limit each value."""
        found = {}
        for i, path in enumerate(self.paths):
            limits = self.limits[:, i]
            known = limits[limits.isfinite()]
            for limit in Limit if len(known) else ():
                found[f"limited_by_{limit.name.lower()} {path}"] = float((known == limit).double().mean())
        return found


@torch.no_grad()
def confidence_of(
    fit: ModelFit, noise_sd: float | Tensor | None = None, valid: Tensor | None = None, reference_noise: float = 0.0
) -> Confidence:
    """Split the uncertainty of a model fit into what noise, misfit and constants contribute.

    Args:
        fit: Fit of a model whose constants may have standard deviations (``TissueModel.deviations``).
        noise_sd: Standard deviation of a measurement, one value or (voxel,); None to take the residual for noise.
        valid: (voxel, measurement) bool, measurements that the fit used; None for all.
        reference_noise: Variance of M0 relative to that of a measurement, see ``ZSpectra``. Its noise changes all
            signals Z of a voxel in proportion, like a constant with the derivative Z.
    """
    result = fit.result
    voxels, count = result.parameters.shape
    jacobian_of = SignalJacobians(fit.signal_model)
    points = fit.signal_model.protocol.measurement_count
    copies = count + len(jacobian_of.constants) + 1
    chunk = max(1, VALUES_PER_CHUNK // (points * copies))
    noise, constants, of_m0 = (result.parameters.new_full((voxels, count), torch.nan).double() for _ in range(3))
    free = result.standard_errors.isfinite()
    of_residual = residual_variance(fit, valid)
    variance = of_residual if noise_sd is None else torch.ones_like(of_residual) * noise_sd**2
    index = torch.nonzero(result.fitted & free.any(1)).flatten()
    for some in index.split(chunk) if len(index) else ():
        jacobian, slopes = jacobian_of(result.parameters[some], tuple(values[some] for values in fit.maps))
        slopes = torch.cat((slopes, fit.predict(some).to(slopes).unsqueeze(2)), 2)
        if valid is not None:
            jacobian, slopes = (each * valid[some].unsqueeze(2) for each in (jacobian, slopes))
        unit, through = _propagated(fit.signal_model.tissue, jacobian, slopes, free[some], variance[some])
        noise[some] = unit * variance[some].unsqueeze(1)
        constants[some] = (through[..., :-1] * jacobian_of.deviations).square().sum(2)
        of_m0[some] = through[..., -1].square() * variance[some].unsqueeze(1) * reference_noise
    if fit.spatial is not None:  # what the neighbours tell is in the standard deviations of their posterior
        of_posterior = result.standard_errors.double().square()
        noise, of_m0 = of_posterior, of_posterior * (of_m0 / noise)
    hidden = torch.where(free, 0.0, torch.nan)
    chi_square = None if noise_sd is None else of_residual / noise_sd**2
    excess = torch.zeros_like(variance) if chi_square is None else (chi_square - 1).clamp_min(0).nan_to_num(0.0)
    return Confidence(
        tuple(parameter.path for parameter in fit.signal_model.tissue.parameters),
        noise + of_m0 + hidden,
        noise * excess.unsqueeze(1) + hidden,
        constants + hidden,
        chi_square,
    )


def residual_variance(fit: ModelFit, valid: Tensor | None = None) -> Tensor:
    """Return the sum of squared residuals over the degrees of freedom, (voxel,); NaN where there are none.

    Args:
        fit: Result of a model fit.
        valid: (voxel, measurement) bool, measurements that the fit used; None for all.
    """
    result = fit.result
    points = fit.signal_model.protocol.measurement_count
    used = torch.full_like(result.rmse, points).double() if valid is None else valid.sum(1).double()
    degrees = used - result.standard_errors.isfinite().sum(1)
    return torch.where(degrees > 0, result.rmse.double().square() * used / degrees.clamp_min(1), torch.nan)


def _propagated(
    tissue: TissueModel, jacobian: Tensor, slopes: Tensor, free: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the diagonal of N^-1 (voxel, p) and N^-1 J^T C (voxel, p, constant), zero for values that are not free."""
    jacobian = (jacobian * free.unsqueeze(1)).nan_to_num(0.0)
    size = torch.linalg.vector_norm(jacobian, dim=1)
    scale = torch.where(size > 0, 1 / size, 1.0)  # a fraction of 1e-3 and a rate of 1e3 share one matrix
    scaled = jacobian * scale.unsqueeze(1)
    normal = scaled.mT @ scaled
    priors = [torch.inf if p.prior is None else p.prior[1] for p in tissue.parameters]
    precision = variance.nan_to_num(0.0).unsqueeze(1) / torch.tensor(priors).to(normal).square() * scale.square()
    normal = normal + torch.diag_embed(precision * free + ~free * 1.0)
    inverse = torch.linalg.pinv(normal, hermitian=True)
    through = scale.unsqueeze(2) * (inverse @ (scaled.mT @ slopes.nan_to_num(0.0)))
    return inverse.diagonal(dim1=1, dim2=2) * scale.square(), through


class SignalJacobians:
    """Derivatives of the signal with respect to fitted values and uncertain constants, by finite differences."""

    def __init__(self, model: SignalModel) -> None:
        self.model = model
        deviations = model.tissue.deviations
        self.constants = tuple(deviations)
        self.deviations = torch.tensor(list(deviations.values()), dtype=torch.float64)
        self.fitted = [parameter.path for parameter in model.tissue.parameters]
        entries: dict[str, Entry] = {**model.tissue.entries}
        for path, sd in deviations.items():
            entry = entries[path]
            reach = max(abs(entry) if isinstance(entry, float) else 0.0, 100 * sd)
            entries[path] = FitParameter(path, 0.0, -reach, reach)
        self.extended = replace(model, tissue=replace(model.tissue, entries=entries, deviations={}))
        self.order = [parameter.path for parameter in self.extended.tissue.parameters]

    def __call__(self, parameters: Tensor, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the Jacobians (voxel, measurement, p) and (voxel, measurement, constant) at values (voxel, p)."""
        parameters = parameters.double().T
        maps = tuple(values.double() for values in maps)
        values = self.model.values(parameters, *maps)
        rows = [torch.as_tensor(values[path], dtype=torch.float64).expand(parameters.shape[1]) for path in self.order]
        _, jacobian = self.extended.with_finite_differences()(torch.stack(rows), *maps)
        by_path: Mapping[str, Tensor] = dict(zip(self.order, jacobian, strict=True))

        def columns(paths: list[str] | tuple[str, ...]) -> Tensor:
            chosen = [by_path[path].T for path in paths]
            return torch.stack(chosen, 2) if chosen else jacobian.new_zeros(*jacobian.shape[:0:-1], 0)

        return columns(self.fitted), columns(self.constants)
