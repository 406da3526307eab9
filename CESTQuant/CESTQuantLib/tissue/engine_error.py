"""The error of an approximate engine at the fitted values, and what it does to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fitting.statistics import estimator_gain
from ..physics.protocol import Protocol
from .confidence.limits import residual_variance
from .fit import ModelFit

EXACT_ENGINE = "bloch-mcconnell"
VOXELS = 6
"""Voxels at which the error is estimated."""
USUAL_ERROR = 6e-3
"""Largest error in Z of the R1rho engine within its regime (95 % of its errors are below 3.1e-3)."""
NEGLIGIBLE_ERROR = 6e-3
"""Errors in Z below which there is no warning, whatever they do to the fitted values: the report has both."""
NOTICEABLE_BIAS = 3.0
"""Bias of a fitted value in standard errors from which a warning is given."""


def simulation_error(signal: Tensor, exact: Tensor, protocol: Protocol, engine: str) -> str | None:
    """Return how far simulated signals are off, in words, where that is more than usual, otherwise None.

    Args:
        signal: Signals (voxel, measurement) of an engine; values that are not finite are left out.
        exact: Those of the Bloch-McConnell equations.
        protocol: Acquisition.
        engine: Name of the engine.
    """
    error = (signal.double() - exact.double()).abs().nan_to_num(0.0, 0.0).amax(0)
    if float(error.max()) <= USUAL_ERROR:
        return None
    offset = float(protocol.offsets_ppm[error.argmax()])
    return f"{engine} is off by up to {float(error.max()):.2g} in Z (at {offset:g} ppm)"


@dataclass(frozen=True)
class EngineError:
    """Error of an engine at the fitted values of some voxels.

    Attributes:
        largest: Largest absolute difference in signal from the Bloch-McConnell equations.
        bias: Largest shift of a fitted value that the difference causes in these voxels, in standard errors, by the
            path of its entry; without those at a bound.
    """

    largest: float
    bias: Mapping[str, float]

    def warning(self, engine: str) -> str | None:
        """Return a sentence for the user where the error matters, otherwise None."""
        path, worst = max(self.bias.items(), key=lambda item: item[1], default=("", 0.0))
        biased = worst > NOTICEABLE_BIAS and self.largest > NEGLIGIBLE_ERROR
        if self.largest <= USUAL_ERROR and not biased:
            return None
        effect = f", which moves {path} by up to {worst:.2g} standard errors" if biased else ""
        return (
            f"at the fitted values {engine} is off by up to {self.largest:.2g} in the signal{effect}: "
            f"prefer {EXACT_ENGINE}"
        )


def estimate_engine_error(fit: ModelFit) -> EngineError | None:
    """Compare the fitted signals of a few voxels with the Bloch-McConnell equations.

    The voxels are spread over the fitted values. The bias of the values is that of the linearised fit: the change of
    the values whose signal is closest to the difference, held back by priors. Values at a bound stay there.

    Args:
        fit: Fit with any engine.

    Returns:
        The error; None where no voxel is fitted.
    """
    result, model = fit.result, fit.signal_model
    index = torch.nonzero(result.fitted & torch.isfinite(result.parameters).all(1)).flatten()
    if len(index) == 0:
        return None
    order = index[result.parameters[index, 0].argsort()]
    voxels = order[torch.linspace(0, len(order) - 1, min(VOXELS, len(order))).long()]
    parameters = result.parameters[voxels].T.double()
    maps = tuple(values[voxels].double() for values in fit.maps)
    predicted, jacobian = model.with_finite_differences()(parameters, *maps)
    difference = replace(model, engine=EXACT_ENGINE).predict(parameters, *maps) - predicted  # (measurement, voxel)
    used = torch.ones_like(difference) if fit.valid is None else fit.valid[voxels].T.to(difference)
    difference = difference * used
    errors = result.standard_errors[voxels].double()
    free = errors.isfinite().unsqueeze(1)
    rows = torch.cat(((jacobian * used).permute(2, 1, 0), _prior_rows(fit, voxels)), 1)
    gain = estimator_gain(rows * free)[:, :, : len(difference)]
    in_errors = ((gain @ difference.T.unsqueeze(2)).squeeze(2) / errors).abs()
    return EngineError(float(difference.abs().max()), _worst(in_errors, [p.path for p in model.tissue.parameters]))


def _prior_rows(fit: ModelFit, voxels: Tensor) -> Tensor:
    """Return what the priors add to the Jacobian of voxels (n,): the noise over their deviations, (n, p, p)."""
    model = fit.signal_model
    variance = residual_variance(fit, fit.valid)
    variance = torch.where(variance.isfinite(), variance, variance.nanmedian())[voxels].nan_to_num(0.0)
    noise = variance.sqrt() if model.noise_sd is None else torch.full_like(variance, model.noise_sd)
    deviations = [torch.inf if p.prior is None else p.prior[1] for p in model.tissue.parameters]
    return torch.diag_embed(noise.unsqueeze(1) / noise.new_tensor(deviations))


def _worst(in_errors: Tensor, paths: list[str]) -> dict[str, float]:
    """Return the largest finite value (voxel, p) of every parameter."""
    found = {}
    for i, path in enumerate(paths):
        finite = in_errors[:, i][torch.isfinite(in_errors[:, i])]
        if len(finite):
            found[path] = float(finite.max())
    return found
