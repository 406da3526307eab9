"""The differentiable chain: saturation and spin dynamics -> noise -> normalisation -> network -> tissue parameters.

The gradient of the final loss reaches the weights of the network and, through the physics, every acquisition
parameter of a trainable schedule (the scheme of AutoCEST: Perlman et al., MRM 2022;87:2792).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..networks.architecture import ReconstructionNetwork, normalise_input
from ..networks.training import Batch
from ..physics.protocol import Protocol
from ..physics.simulation import simulate
from ..tissue.distributions import Distribution, TissueDistribution
from .trainable import TrainableSchedule

FIELDS = ("b0_shift_ppm", "b1_relative")


@dataclass(frozen=True)
class Problem:
    """What is to be quantified: a tissue distribution, the paths of its targets, and the noise.

    noise_sd: lowest and highest standard deviation of white noise, drawn uniformly by voxel, in units of the
    equilibrium signal; it is added before an L2 normalisation. engine: 'r1rho' or 'bloch-mcconnell'. weights: how much
    each target counts in the optimisation of a schedule; equally where they are not given.
    Raises ValueError for targets that do not vary.
    """

    tissue: TissueDistribution
    targets: tuple[str, ...]
    noise_sd: tuple[float, float] = (0.002, 0.002)
    engine: str = "r1rho"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        varied = self.tissue.varied
        missing = [path for path in self.targets if path not in varied]
        if missing or not self.targets:
            raise ValueError(
                f"targets: {', '.join(missing) or 'none given'}; choose among what varies in the tissue: "
                f"{', '.join(varied)}"
            )
        low, high = self.noise_sd
        if not 0 <= low <= high < 1:
            raise ValueError(f"noise_sd runs from {low:g} to {high:g} but must lie between 0 and 1, lower first")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Everything that varies, targets first."""
        return (*self.targets, *(path for path in self.tissue.varied if path not in self.targets))

    @property
    def mean_noise_sd(self) -> float:
        return sum(self.noise_sd) / 2

    def prior_sd(self) -> dict[str, float]:
        """Standard deviation of everything that varies, targets first."""
        return {path: _standard_deviation(self.tissue.entries[path]) for path in self.outputs}

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Values by path (count,)."""
        return self.tissue.sample(count, generator)

    def noise(self, count: int, measurements: int, generator: torch.Generator) -> Tensor:
        """White noise (count, measurement)."""
        low, high = self.noise_sd
        sd = low + (high - low) * torch.rand(count, 1, generator=generator)
        return sd * torch.randn(count, measurements, generator=generator)

    def signal(self, values: Mapping[str, Tensor], protocol: Protocol, dtype: torch.dtype = torch.float32) -> Tensor:
        """Noise-free signals (voxel, measurement), not yet L2 normalised."""
        if protocol.signal_normalisation == "l2":
            protocol = replace(protocol, signal_normalisation="none")
        varied = {path: value.to(dtype) for path, value in values.items() if path in self.tissue.varied}
        now = self.tissue.fixed_or(varied)
        fields = {name: now.pop(name) for name in FIELDS}
        return simulate(self.tissue.tissue(now), protocol, engine=self.engine, dtype=dtype, **fields)


def _standard_deviation(entry: Distribution) -> float:
    a, b = entry.first, entry.second
    if entry.kind == "normal":
        return b
    if entry.kind == "uniform":
        return (b - a) / math.sqrt(12)
    logarithm = math.log(b / a)
    return math.sqrt((b * b - a * a) / (2 * logarithm) - ((b - a) / logarithm) ** 2)


class Chain(nn.Module):
    """Acquisition and reconstruction as one function of tissue values.

    acquisition: a trainable schedule, or a protocol that stays as it is. network: its outputs are ``outputs``.
    """

    def __init__(
        self,
        acquisition: TrainableSchedule | Protocol,
        network: ReconstructionNetwork,
        problem: Problem,
        outputs: tuple[str, ...],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.schedule = acquisition if isinstance(acquisition, TrainableSchedule) else None
        self._protocol = acquisition if self.schedule is None else None
        self.network, self.problem, self.outputs, self.dtype = network, problem, outputs, dtype

    def protocol(self) -> Protocol:
        """The protocol as it is now, with gradients where it is trained; FloatingPointError where it diverged."""
        if self.schedule is None:
            return self._protocol
        if not self.schedule.is_finite:
            raise FloatingPointError("the schedule is not a number")
        return self.schedule.protocol()

    def signal(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Network inputs (voxel, measurement) of tissue values (voxel,) by path; noise is added before normalising."""
        protocol = self.protocol()
        signal = self.problem.signal(values, protocol, self.dtype)
        noise = noise.to(self.dtype) if isinstance(noise, Tensor) else noise
        return normalise_input(signal + noise, protocol.signal_normalisation)

    def truth(self, values: Mapping[str, Tensor]) -> Tensor:
        """Normalised true outputs (voxel, output)."""
        return self.network.to_normalised(torch.stack([values[path].to(self.dtype) for path in self.outputs], 1))

    def forward(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Normalised outputs (voxel, output)."""
        return self.network(self.signal(values, noise))

    def loss(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Mean squared error on the normalised outputs."""
        return nn.functional.mse_loss(self(values, noise), self.truth(values))


class ChainBatches:
    """Fresh tissue and noise for every step of a training (a ``training.BatchSource``): nothing can be memorised.

    With several processes each draws the whole batch and takes its share, so that the batches are those of one
    process. Signals carry the gradient to the schedule.
    """

    def __init__(
        self,
        chain: Chain,
        samples: int,
        batch_size: int,
        validation: int,
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % processes:
            raise ValueError(f"the batch of {batch_size} cannot be shared equally by {processes} processes")
        self.chain, self.steps, self.batch_size = chain, max(1, samples // batch_size), batch_size
        share = batch_size // processes
        self.mine = slice(rank * share, (rank + 1) * share)
        self.held_out = self._draw(validation, torch.Generator().manual_seed(seed + 7_919))

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of one epoch; FloatingPointError where the schedule diverged."""
        for _ in range(self.steps):
            values, noise = self._draw(self.batch_size, generator)
            yield self._batch({path: value[self.mine] for path, value in values.items()}, noise[self.mine])

    def validation(self) -> Batch:
        """Always the same voxels and noise, under the schedule as it is."""
        with torch.no_grad():
            return self._batch(*self.held_out)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        values = self.chain.problem.draw(count, generator)
        return values, self.chain.problem.noise(count, self.chain.protocol().measurement_count, generator)

    def _batch(self, values: dict[str, Tensor], noise: Tensor) -> Batch:
        chain, protocol = self.chain, self.chain.protocol()
        clean = chain.problem.signal(values, protocol, chain.dtype)
        signal = normalise_input(clean + noise.to(chain.dtype), protocol.signal_normalisation)
        with torch.no_grad():
            difference = signal - normalise_input(clean, protocol.signal_normalisation)
            log_rmse = difference.square().mean(1).clamp_min(1e-20).log() / 2
        return signal, chain.truth(values), log_rmse
