"""Start values that are predicted from the data, by regression on a few voxels that were fitted before.

The parameters of some hundred voxels are regressed on polynomials of the leading principal components of the data. From
such a start an iteration or two are enough, instead of four or five from one start for all voxels. A start decides
which minimum is found, so the prediction is used only after voxels that took no part in the regression have ended in
the same minima from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .statistics import FitResult

FEWEST_VOXELS = 8192
"""With fewer voxels, the fits of the pilot cost more than they save."""
PILOT_VOXELS = 512
HELD_OUT_EVERY = 4
"""Every how many voxels of the pilot one is kept to judge the prediction."""
MOST_COMPONENTS = 4
DEGREE = 3
WORSE = 1.0005
"""Ratio of the residuals from which a held-out voxel has ended in a worse minimum."""
VOXELS_A_CHUNK = 4096
"""Voxels that are predicted at a time: their features stay in the cache."""
_RIDGE = 1e-6


def predicted_starts(
    data: Tensor,
    arguments: Sequence[Tensor],
    usable: Tensor,
    lower: Tensor,
    upper: Tensor,
    fit: Callable[[Tensor, Tensor | None], FitResult],
) -> Tensor | None:
    """Predict where the fit of every voxel should start.

    Args:
        data: (voxel, m) measurements.
        arguments: Tensors (voxel,) on which the signal depends besides the parameters, such as field maps.
        usable: (voxel,) bool, the voxels whose data and arguments are complete.
        lower: (p,) lower bounds.
        upper: (p,) upper bounds.
        fit: Fits the voxels of the given indices (n,) from the given starts (n, p), None for those of the model.

    Returns:
        Starts (voxel, p) in the dtype of the data, NaN for voxels that are not usable; None where there are too few
        voxels, or where the prediction leads held-out voxels to worse minima.
    """
    index = torch.nonzero(usable).flatten()
    if len(index) < FEWEST_VOXELS:
        return None
    pilot = index[torch.linspace(0, len(index) - 1, PILOT_VOXELS, device=index.device).long()]
    found = fit(pilot, None)
    held_out = torch.arange(len(pilot), device=pilot.device) % HELD_OUT_EVERY == 0
    known = found.fitted & found.parameters.isfinite().all(1)
    features = _Features(data, arguments, pilot, len(lower))
    taught = known & ~held_out
    if int(taught.sum()) < 2 * features.count:
        return None
    scale = _Scale(lower, upper)
    design, target = features.of(pilot[taught]).double(), scale.forward(found.parameters[taught].double())
    normal = design @ design.T
    normal += _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    weights = torch.linalg.solve(normal, design @ target).T.to(data)

    def predict(voxels: Tensor) -> Tensor:
        return scale.backward((weights @ features.of(voxels)).T)

    judged = torch.nonzero(held_out & known).flatten()
    again = fit(pilot[judged], predict(pilot[judged]))
    same = again.fitted & (again.cost <= WORSE * found.cost[judged])
    if not len(judged) or not bool(same.all()):
        return None
    starts = data.new_full((len(data), len(lower)), torch.nan)

    @torch.no_grad()
    def enter(voxels: Tensor) -> None:
        starts[voxels] = predict(voxels)

    in_threads(enter, index.split(VOXELS_A_CHUNK))
    return starts


class _Scale:
    """Logarithms of the parameters that stay above zero, between the bounds."""

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        self.lower, self.upper = lower, upper
        self.logarithmic = (lower > 0) & upper.isfinite()

    def forward(self, parameters: Tensor) -> Tensor:
        return torch.where(self.logarithmic, parameters.clamp_min(1e-30).log(), parameters)

    def backward(self, values: Tensor) -> Tensor:
        return torch.where(self.logarithmic, values.exp(), values).clamp(self.lower, self.upper)


class _Features:
    """Cubic polynomials of the leading principal components of the data and of the arguments, all scaled to unity."""

    def __init__(self, data: Tensor, arguments: Sequence[Tensor], pilot: Tensor, parameters: int) -> None:
        self.data, self.arguments = data, [argument.to(data) for argument in arguments]
        sample = data[pilot].double()
        self.mean = sample.mean(0)
        _, values, directions = torch.linalg.svd(sample - self.mean, full_matrices=False)
        kept = int((values > 1e-6 * values[0]).sum().clamp_max(min(parameters + 1, MOST_COMPONENTS)))
        self.axes = (directions[:kept] / (values[:kept] / len(pilot) ** 0.5).unsqueeze(1)).T
        self.scaling = [(a[pilot].mean(), a[pilot].std().clamp_min(1e-30)) for a in self.arguments]
        inputs = torch.arange(1 + kept + len(self.arguments))  # the first is one
        self.terms = [(a, b, c) for a, b, c in torch.combinations(inputs, DEGREE, with_replacement=True).tolist()]
        self.count = len(self.terms)

    def of(self, index: Tensor) -> Tensor:
        """Return the features (feature, n) of voxels."""
        components = self.axes.to(self.data).T @ (self.data[index] - self.mean.to(self.data)).T
        scaled = [(a[index] - mean) / sd for a, (mean, sd) in zip(self.arguments, self.scaling, strict=True)]
        factors = torch.vstack([torch.ones_like(components[:1]), components, *scaled]).clamp_(-5, 5)
        features = torch.empty(self.count, len(index), dtype=factors.dtype, device=factors.device)
        squares: dict[tuple[int, int], Tensor] = {}
        for row, (a, b, c) in zip(features, self.terms, strict=True):
            if (a, b) not in squares:
                squares[a, b] = factors[a] * factors[b] if a else factors[b]
            torch.mul(squares[a, b], factors[c], out=row)
        return features
