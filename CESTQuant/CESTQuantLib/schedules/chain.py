"""The differentiable chain: saturation and spin dynamics -> noise -> normalisation -> network -> tissue parameters.

The gradient of the final loss reaches the weights of the network and, through the physics, every acquisition
parameter of a trainable schedule (the scheme of AutoCEST: Perlman et al., MRM 2022;87:2792).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.processes import Processes

from ..networks.architecture import ReconstructionNetwork, normalize_input
from ..networks.dataset import require_equal_shares
from ..networks.objective import Batch
from ..physics.protocol import Protocol
from ..preprocessing.normalization import spectrum_protocol
from .problem import EstimationProblem
from .trainable import TrainableSchedule


class Chain(nn.Module):
    """Acquisition and reconstruction as one function of the tissue.

    Args:
        acquisition: A schedule that is trained, or a protocol that stays as it is.
        network: Reconstruction network.
        problem: Tissues and noise.
        outputs: Paths of the network's outputs.
        dtype: Precision of simulation and network.
    """

    def __init__(
        self,
        acquisition: TrainableSchedule | Protocol,
        network: ReconstructionNetwork,
        problem: EstimationProblem,
        outputs: tuple[str, ...],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.acquisition: TrainableSchedule | Protocol = acquisition
        self.network, self.problem, self.outputs, self.dtype = network, problem, outputs, dtype

    def protocol(self) -> Protocol:
        """Return the protocol of the network's inputs as it is now, with gradients where it is trained.

        M0 measurements that the signals are divided by are no inputs.

        Raises:
            FloatingPointError: The schedule has diverged.
        """
        if isinstance(self.acquisition, Protocol):
            return spectrum_protocol(self.acquisition)
        if not self.acquisition.is_finite:
            raise FloatingPointError("the schedule is not a number")
        return spectrum_protocol(self.acquisition.protocol())

    def signal(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Compute the inputs of the network.

        Args:
            values: Entries of the tissues by path, (voxel,).
            noise: Noise that is added before the normalisation, (voxel, measurement), relative to the equilibrium
                signal.

        Returns:
            Normalised signals of shape (voxel, measurement).
        """
        protocol = self.protocol()
        signal = self.problem.signal(values, protocol, self.dtype)
        noise = noise.to(self.dtype) if isinstance(noise, Tensor) else noise
        return normalize_input(signal + noise, protocol.signal_normalisation)

    def truth(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the true normalised outputs (voxel, output) for entries of the tissues by path, (voxel,)."""
        return self.network.to_normalized(torch.stack([values[path].to(self.dtype) for path in self.outputs], 1))

    def forward(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Return the estimated normalised outputs (voxel, output); arguments as for :meth:`signal`."""
        return self.network(self.signal(values, noise))

    def loss(self, values: Mapping[str, Tensor], noise: Tensor | float = 0.0) -> Tensor:
        """Return the mean squared error of the normalised outputs, a scalar; arguments as for :meth:`signal`."""
        return nn.functional.mse_loss(self(values, noise), self.truth(values))


class _Draw(NamedTuple):
    """Entries of tissues by path, (voxel,), and noise (voxel, measurement) relative to the equilibrium signal."""

    values: dict[str, Tensor]
    noise: Tensor


class ChainBatches:
    """Batches with new tissues and noise for every step, so that nothing can be memorised.

    The signals carry gradients to the schedule. Several processes share the batches of one process: each draws the
    whole batch and takes its share.

    Args:
        chain: Acquisition, tissues and noise.
        samples: Voxels of an epoch.
        batch_size: Voxels of a batch over all processes.
        validation: Number of held-out voxels.
        seed: Seed of the held-out voxels.
        processes: This process among those that share the batches; by default it is the only one.

    Raises:
        ValueError: The batch cannot be shared equally.
    """

    def __init__(
        self,
        chain: Chain,
        samples: int,
        batch_size: int,
        validation: int,
        seed: int,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes()
        require_equal_shares(batch_size, processes)
        self.chain, self.steps, self.batch_size = chain, max(1, samples // batch_size), batch_size
        share = batch_size // processes.count
        self.mine = slice(processes.rank * share, (processes.rank + 1) * share)
        self.held_out = self._draw(validation, torch.Generator().manual_seed(seed + 7_919))

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Return the batches of one epoch.

        Raises:
            FloatingPointError: The schedule has diverged.
        """
        for _ in range(self.steps):
            values, noise = self._draw(self.batch_size, generator)
            mine = {path: value[self.mine] for path, value in values.items()}
            yield self._batch(_Draw(mine, noise[self.mine]))

    def validation(self) -> Batch:
        """Return the held-out voxels, always the same with the same noise, under the schedule as it is now."""
        with torch.no_grad():
            return self._batch(self.held_out)

    def _draw(self, count: int, generator: torch.Generator) -> _Draw:
        values = self.chain.problem.draw(count, generator)
        return _Draw(values, self.chain.problem.noise(count, self.chain.protocol().measurement_count, generator))

    def _batch(self, drawn: _Draw) -> Batch:
        chain, protocol = self.chain, self.chain.protocol()
        clean = chain.problem.signal(drawn.values, protocol, chain.dtype)
        signal = normalize_input(clean + drawn.noise.to(chain.dtype), protocol.signal_normalisation)
        with torch.no_grad():
            difference = signal - normalize_input(clean, protocol.signal_normalisation)
            log_rmse = difference.square().mean(1).clamp_min(1e-20).log() / 2
        return Batch(signal, chain.truth(drawn.values), log_rmse)
