"""Values of a model fit that the acquisition does not determine.

The standard error of an unbiased estimate is at least the Cramer-Rao bound, here with all fitted values free and their
priors as information. Where it reaches a quarter of the range between the bounds of a value, an interval of two
standard errors on either side covers the whole range: the data say nothing that the bounds do not say already. The fit
of such a value ends anywhere, often at a bound, and its own standard error then tells nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..fit import ModelFit
from .limits import SignalJacobians, residual_variance

UNDETERMINED = 0.25
"""Cramer-Rao bound, in units of the range between the bounds, from which a value is not determined."""
VOXELS = 64
"""Voxels that are looked at, spread over all."""
MOST_VOXELS = 0.5
"""Share of these voxels from which a value is reported."""
STRONG_CORRELATION = 0.9
"""Correlation from which another value is named as the reason."""
SMALLEST_EIGENVALUE = 1e-12
"""Information about a direction, relative to that about single values, which counts as none."""


@torch.no_grad()
def identifiability_warnings(fit: ModelFit, noise_sd: float | Tensor | None = None) -> tuple[str, ...]:
    """Return a sentence for each fitted value that the data of most voxels do not determine.

    Args:
        fit: Result of a model fit.
        noise_sd: Standard deviation of a measurement, one value or (voxel,); None to take it from the residual.
    """
    result, parameters = fit.result, fit.signal_model.tissue.parameters
    fitted = torch.nonzero(result.fitted & torch.isfinite(result.parameters).all(1)).flatten()
    if len(fitted) == 0:
        return ()
    voxels = fitted[torch.linspace(0, len(fitted) - 1, min(VOXELS, len(fitted))).long()]
    jacobian, _ = SignalJacobians(fit.signal_model)(
        result.parameters[voxels], tuple(values[voxels] for values in fit.maps)
    )
    variance = residual_variance(fit)
    if noise_sd is not None:
        variance = torch.ones_like(variance) * noise_sd**2
    bound, correlation = _cramer_rao(jacobian, variance[voxels].to(jacobian), [p.prior for p in parameters])
    sentences = []
    for i, parameter in enumerate(parameters):
        share = float((bound[:, i] > UNDETERMINED * (parameter.upper - parameter.lower)).double().mean())
        if share > MOST_VOXELS:
            others = correlation[:, i].abs().median(0).values
            others[i] = 0
            partner, size = parameters[int(others.argmax())].path, float(others.max())
            reason = f", for it is hardly told apart from {partner} (correlation {size:.2f})"
            sentences.append(
                f"this acquisition does not determine {parameter.path}: in {100 * share:.0f} % of the voxels its "
                f"smallest possible standard error spans the range of its bounds"
                f"{reason if size > STRONG_CORRELATION else ''}; fix it, or give it a prior"
            )
    return tuple(sentences)


def _cramer_rao(jacobian: Tensor, variance: Tensor, priors: list[tuple[float, float] | None]) -> tuple[Tensor, Tensor]:
    """Return the bounds of the standard errors (voxel, p), infinite without information, and correlations."""
    information = jacobian.mT @ jacobian
    sds = torch.tensor([torch.inf if prior is None else prior[1] for prior in priors]).to(jacobian)
    information = information + torch.diag_embed(variance.unsqueeze(1) / sds.square())
    size = information.diagonal(dim1=1, dim2=2).sqrt()
    known = size > 0
    scale = torch.where(known, 1 / size, 1.0)
    scaled = information * scale.unsqueeze(1) * scale.unsqueeze(2)
    eye = torch.eye(scaled.shape[1]).to(scaled)
    inverse = torch.linalg.inv(scaled + SMALLEST_EIGENVALUE * eye + torch.diag_embed(~known * 1.0))
    deviation = inverse.diagonal(dim1=1, dim2=2).sqrt()
    bound = torch.where(known, deviation * scale * variance.sqrt().unsqueeze(1), torch.inf)
    return bound, inverse / (deviation.unsqueeze(1) * deviation.unsqueeze(2))
