"""The least-squares problem that a fit solves: all voxels as the caller gives them, and the batch that is iterated.

Callers give and receive voxel-first tensors, such as data (voxel, m). The iterations and the models work on voxel-last
tensors, such as data (m, voxel), so that every operation runs along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Model = Callable[..., tuple[Tensor, Tensor]]
"""``(parameters (p, voxel), *arguments (.., voxel)) -> prediction (m, voxel), Jacobian (p, m, voxel)``."""


@dataclass(frozen=True)
class GaussianPrior:
    """Gaussian prior of every parameter, independent between parameters.

    Attributes:
        mean: (p,) or (voxel, p).
        sd: (p,) or (voxel, p) standard deviation; infinite where a parameter has no prior.
    """

    mean: Tensor
    sd: Tensor


@dataclass(frozen=True)
class LeastSquaresProblem:
    """One bounded least-squares problem per voxel, voxel-first and checked.

    Attributes:
        model: Prediction and Jacobian, voxel-last.
        data: (voxel, m) measurements.
        start: (p,) or (voxel, p) parameters at which the iterations start.
        lower: (p,) or (voxel, p) lower bounds, may be minus infinity.
        upper: (p,) or (voxel, p) upper bounds, may be infinity.
        arguments: Tensors (voxel, ..) that the model receives as (.., voxel).
        valid: (voxel, m) bool, false for measurements to leave out; None to use all.
        prior: Gaussian priors of the parameters, which need ``noise_sd``; None for none.
        noise_sd: (voxel,) standard deviation of a measurement; None to estimate it from the residual.
        different: (voxel,) number of valid measurements without the repeats among them, which determine no further
            parameter; None where none are repeated.

    Raises:
        ValueError: Shapes do not fit together, or a lower bound lies above its upper bound.
    """

    model: Model
    data: Tensor
    start: Tensor
    lower: Tensor
    upper: Tensor
    arguments: tuple[Tensor, ...] = ()
    valid: Tensor | None = None
    prior: GaussianPrior | None = None
    noise_sd: Tensor | None = None
    different: Tensor | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or not self.data.is_floating_point():
            raise ValueError(f"data must be a floating-point (voxel, m) tensor, not {tuple(self.data.shape)}")
        voxels, count = len(self.data), self.parameter_count
        limits = {"start": self.start, "lower": self.lower, "upper": self.upper}
        if self.prior is not None:
            limits |= {"prior_mean": self.prior.mean, "prior_sd": self.prior.sd}
        for name, value in limits.items():
            if value.shape not in ((count,), (voxels, count)):
                raise ValueError(f"{name} must be ({count},) or ({voxels}, {count}), not {tuple(value.shape)}")
        if bool((self.lower > self.upper).any()):
            raise ValueError("a lower bound lies above its upper bound")
        if self.valid is not None and self.valid.shape != self.data.shape:
            raise ValueError(f"valid is {tuple(self.valid.shape)} but data is {tuple(self.data.shape)}")
        for argument in self.arguments:
            if argument.shape[:1] != self.data.shape[:1]:
                raise ValueError(f"an argument is {tuple(argument.shape)} but the data have {voxels} voxels")
        if self.different is not None and self.different.shape != self.data.shape[:1]:
            raise ValueError(f"different is {tuple(self.different.shape)} but the data have {voxels} voxels")

    @property
    def parameter_count(self) -> int:
        """Number p of parameters of a voxel."""
        return self.start.shape[-1]

    def valid_counts(self, index: Tensor) -> Tensor:
        """Count the valid measurements of the voxels ``index`` (n,); returns (n,) in the dtype of the data."""
        if self.valid is None:
            return torch.full_like(self.data[index, 0], self.data.shape[1])
        return self.valid[index].sum(1).to(self.data)

    def determining_counts(self, index: Tensor) -> Tensor:
        """Count the valid measurements of the voxels ``index`` (n,) without repeats; returns (n,)."""
        return self.valid_counts(index) if self.different is None else self.different[index].to(self.data)

    def free_counts(self, index: Tensor) -> Tensor:
        """Count the parameters of the voxels ``index`` (n,) that equal bounds do not fix; returns (n,)."""
        return (self.lower < self.upper).sum(-1).expand(len(self.data))[index]

    def used_data(self, chunk: slice) -> Tensor:
        """Return the data (voxel, m) of a chunk of voxels with zeros where they are not valid."""
        if self.valid is None:
            return self.data[chunk]
        return torch.where(self.valid[chunk], self.data[chunk], 0.0)

    def batch(self, voxels: Tensor, data: Tensor) -> VoxelBatch:
        """Gather voxels into contiguous voxel-last tensors.

        Args:
            voxels: (n,) indices.
            data: (n, m) their data, finite, as ``used_data`` gives them.
        """
        return VoxelBatch(
            model=self.model,
            data=data.T.contiguous(),
            arguments=tuple(argument[voxels].movedim(0, -1).contiguous() for argument in self.arguments),
            lower=self.parameters_last(self.lower, voxels),
            upper=self.parameters_last(self.upper, voxels),
            weight=None if self.valid is None else self.valid[voxels].T.contiguous().to(self.data),
            prior=None if self.prior is None else self._prior_term(self.prior, voxels),
        )

    def parameters_last(self, values: Tensor, voxels: Tensor) -> Tensor:
        """Return values (p,) or (voxel, p) of some voxels as (p, n)."""
        picked = values[voxels] if values.ndim == 2 else values.expand(len(voxels), -1)
        return picked.T.contiguous()

    def _prior_term(self, prior: GaussianPrior, voxels: Tensor) -> PriorTerm:
        if self.noise_sd is None:
            raise ValueError("a fit with priors needs the noise_sd of the measurements")
        precision = (self.noise_sd[voxels] / self.parameters_last(prior.sd, voxels)).square()
        return PriorTerm(self.parameters_last(prior.mean, voxels), precision)


@dataclass(frozen=True)
class PriorTerm:
    """What Gaussian priors add to the sum of squares, in units of the noise variance; voxel-last.

    Attributes:
        mean: (p, voxel).
        precision: (p, voxel), (noise sd / prior sd)^2; zero where a parameter has no prior.
    """

    mean: Tensor
    precision: Tensor

    def cost(self, parameters: Tensor) -> Tensor:
        """Return the sum over parameters of precision (parameter - mean)^2; (voxel,)."""
        return (self.precision * (parameters - self.mean).square()).sum(0)

    def gradient(self, parameters: Tensor) -> Tensor:
        """Return half the gradient of the cost; (p, voxel)."""
        return self.precision * (parameters - self.mean)

    def at(self, index: Tensor) -> PriorTerm:
        return PriorTerm(self.mean.index_select(-1, index), self.precision.index_select(-1, index))

    def joined(self, other: PriorTerm) -> PriorTerm:
        return PriorTerm(_join(self.mean, other.mean), _join(self.precision, other.precision))


@dataclass(frozen=True)
class VoxelBatch:
    """Voxels that are iterated together: the data of a ``LeastSquaresProblem``, gathered voxel-last.

    Attributes:
        model: Prediction and Jacobian.
        data: (m, voxel), finite.
        arguments: Tensors (.., voxel) that the model receives.
        lower: (p, voxel) lower bounds.
        upper: (p, voxel) upper bounds.
        weight: (m, voxel), 0 for measurements to leave out and 1 for the others; None to use all.
        prior: Gaussian priors of the parameters; None for none.
    """

    model: Model
    data: Tensor
    arguments: tuple[Tensor, ...]
    lower: Tensor
    upper: Tensor
    weight: Tensor | None = None
    prior: PriorTerm | None = None

    def at(self, index: Tensor) -> VoxelBatch:
        """Return the batch of the voxels at the positions ``index`` (n,)."""
        return replace(
            self,
            data=self.data.index_select(-1, index),
            arguments=tuple(argument.index_select(-1, index) for argument in self.arguments),
            lower=self.lower.index_select(-1, index),
            upper=self.upper.index_select(-1, index),
            weight=None if self.weight is None else self.weight.index_select(-1, index),
            prior=None if self.prior is None else self.prior.at(index),
        )

    def joined(self, other: VoxelBatch) -> VoxelBatch:
        """Return the voxels of this batch followed by those of another batch of the same problem."""
        weight, prior = None, None
        if self.weight is not None and other.weight is not None:
            weight = _join(self.weight, other.weight)
        if self.prior is not None and other.prior is not None:
            prior = self.prior.joined(other.prior)
        return replace(
            self,
            data=_join(self.data, other.data),
            arguments=tuple(_join(*pair) for pair in zip(self.arguments, other.arguments, strict=True)),
            lower=_join(self.lower, other.lower),
            upper=_join(self.upper, other.upper),
            weight=weight,
            prior=prior,
        )


def _join(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat((first, second), -1)
