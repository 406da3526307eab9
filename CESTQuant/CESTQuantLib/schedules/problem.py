"""What a schedule is designed for: the tissues, the parameters to estimate in them, and the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.config import noise_limits
from ..networks.dataset import without_l2
from ..networks.targets import outputs_of, require_targets
from ..physics.engines import engine_named
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from ..tissue.distributions import Distribution, TissueDistribution
from ..tissue.model import FIELD_KEYS


@dataclass(frozen=True)
class EstimationProblem:
    """Tissue parameters to estimate from noisy signals.

    Attributes:
        tissue: Distribution of the tissues.
        targets: Paths of the parameters to estimate.
        noise_sd: Lowest and highest standard deviation of the white noise, relative to the equilibrium signal. It is
            drawn uniformly for every voxel, and the noise is added before any L2 normalisation.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        weights: How much each target counts in the optimisation of a schedule; None weighs them equally.

    Raises:
        ValueError: A target does not vary, the noise has no usable limits, or the engine is unknown.
    """

    tissue: TissueDistribution
    targets: tuple[str, ...]
    noise_sd: tuple[float, float] = (0.002, 0.002)
    engine: str = "r1rho"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require_targets(self.targets, self.tissue)
        noise_limits(self.noise_sd)
        engine_named(self.engine)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Paths of everything that varies, the targets first."""
        return outputs_of(self.targets, self.tissue)

    @property
    def mean_noise_sd(self) -> float:
        """Mean standard deviation of the noise, relative to the equilibrium signal."""
        return sum(self.noise_sd) / 2

    def prior_sd(self) -> dict[str, float]:
        """Return the standard deviation of everything that varies by path, in its own unit, the targets first."""
        return {path: _standard_deviation(self.tissue.entries[path]) for path in self.outputs}

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw tissues; returns their entries by path, (count,) float64."""
        return self.tissue.sample(count, generator)

    def noise(self, count: int, measurements: int, generator: torch.Generator) -> Tensor:
        """Draw white noise, (count, measurements), relative to the equilibrium signal."""
        low, high = self.noise_sd
        sd = low + (high - low) * torch.rand(count, 1, generator=generator)
        return sd * torch.randn(count, measurements, generator=generator)

    def signal(self, values: Mapping[str, Tensor], protocol: Protocol, dtype: torch.dtype = torch.float32) -> Tensor:
        """Simulate noise-free signals.

        Args:
            values: Entries of the tissues by path, (voxel,).
            protocol: Acquisition protocol; an L2 normalisation is not applied.
            dtype: Precision of the simulation.

        Returns:
            Signals of shape (voxel, measurement), with gradients with respect to the protocol where it has them.
        """
        varied = {path: value.to(dtype) for path, value in values.items() if path in self.tissue.varied}
        entries = self.tissue.fixed_or(varied)
        fields = {name: entries.pop(name) for name in FIELD_KEYS}
        return simulate(self.tissue.tissue(entries), without_l2(protocol), engine=self.engine, dtype=dtype, **fields)


def _standard_deviation(entry: Distribution) -> float:
    """Standard deviation of an entry that varies, in its own unit."""
    a, b = entry.first, entry.second
    if entry.kind == "normal":
        return b
    if entry.kind == "uniform":
        return (b - a) / math.sqrt(12)
    if entry.kind == "log_uniform":
        logarithm = math.log(b / a)
        return math.sqrt((b * b - a * a) / (2 * logarithm) - ((b - a) / logarithm) ** 2)
    raise ValueError(f"a distribution of the kind '{entry.kind}' has no standard deviation here")
