"""How well tissue parameters can be estimated under a schedule: a network trained for it, and its held-out errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress, silent

from ..networks.architecture import ReconstructionNetwork, normalize_input
from ..networks.objective import Batch
from ..networks.settings import output_weights
from ..networks.targets import new_network
from ..networks.training import TrainingResult, train_network
from ..physics.protocol import Protocol
from ..physics.units import concentration_mM
from ..preprocessing.normalization import spectrum_protocol
from .chain import Chain, ChainBatches
from .design import Design
from .problem import EstimationProblem
from .trainable import TrainableSchedule

_EXAMPLES = 4000
"""Voxels from which the inputs of a network are scaled."""
_MOST_VALIDATION = 4000
"""Largest number of held-out voxels that decide on the best epoch."""


class Estimates(NamedTuple):
    """True and estimated values of one quantity, both (voxel,) float64 in its own unit."""

    truth: Tensor
    estimate: Tensor


@dataclass(frozen=True)
class HeldOut:
    """Estimates for voxels that no training has seen.

    Attributes:
        targets: Paths of the targets.
        truth: True values, (voxel, target), in the targets' own units.
        estimate: Estimated values, (voxel, target), in the same units.
    """

    targets: tuple[str, ...]
    truth: Tensor
    estimate: Tensor

    def quantities(self, protons: Mapping[str, float]) -> dict[str, Estimates]:
        """Return the estimates by quantity.

        Args:
            protons: Exchanging protons per molecule by pool. The fractions of these pools are given as
                ``<pool>_concentration_mM``.
        """
        result = {}
        for t, path in enumerate(self.targets):
            pool, both = path.rsplit(".", 1)[0], Estimates(self.truth[:, t].double(), self.estimate[:, t].double())
            if path.endswith(".fraction") and pool in protons:
                count = protons[pool]
                result[f"{pool}_concentration_mM"] = Estimates(
                    concentration_mM(both.truth, count), concentration_mM(both.estimate, count)
                )
            else:
                result[path] = both
        return result

    def errors(self, protons: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Return mean absolute error, root-mean-square error and correlation by quantity, as for a report."""
        return {
            name: {
                "mae": float((estimate - truth).abs().mean()),
                "rmse": float((estimate - truth).square().mean().sqrt()),
                "correlation": float(torch.corrcoef(torch.stack([truth, estimate]))[0, 1]),
            }
            for name, (truth, estimate) in self.quantities(protons).items()
        }


@dataclass(frozen=True)
class EvaluatedSchedule:
    """A schedule with the network that was trained for it.

    Attributes:
        protocol: Schedule, with its M0 measurements.
        network: Trained network; its inputs are the measurements of :func:`.spectrum_protocol`, its outputs those of
            the design's problem.
        training: Course of its training.
        held_out: Its estimates for held-out voxels.
        target_error: Mean squared error of the normalised targets, weighted as in the design, for the voxels that
            decide on the best epoch.
        mean_norm: Mean norm of noise-free signals before an L2 normalisation, relative to the equilibrium signal.
    """

    protocol: Protocol
    network: ReconstructionNetwork
    training: TrainingResult
    held_out: HeldOut
    target_error: float
    mean_norm: float


def evaluate_schedule(
    protocol: Protocol,
    design: Design,
    *,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> EvaluatedSchedule:
    """Train a new network for a protocol that stays as it is, and try it on the design's held-out voxels.

    Args:
        protocol: Schedule to evaluate.
        design: Tissues, noise and settings.
        checkpoint: File to continue from, see :func:`training.train_network`.
        processes: This process among those that train together; by default it is the only one.
        progress: Called after every epoch; may raise to cancel.

    Raises:
        TrainingDiverged: The training diverged.
    """
    processes = processes or Processes()
    outputs = design.problem.outputs
    chain = new_chain(protocol, design, outputs, processes)
    batches = batches_of(chain, design, processes)
    training = train_network(
        chain.network,
        batches,
        replace(design.training, weights=output_weights(outputs, design.problem.targets)),
        progress,
        checkpoint,
        processes=processes,
    )
    network = chain.network.eval()
    target_error = _target_error(network, batches.validation(), design.problem)
    mean_norm = _mean_norm(_examples(chain.protocol(), design))
    return EvaluatedSchedule(protocol, network, training, _held_out(chain, design), target_error, mean_norm)


def new_chain(
    acquisition: TrainableSchedule | Protocol, design: Design, outputs: tuple[str, ...], processes: Processes
) -> Chain:
    """Return a chain with an untrained network whose inputs and outputs are scaled to a design's problem.

    Args:
        acquisition: Schedule or protocol.
        design: Tissues, noise and options of the network.
        outputs: Paths of the network's outputs.
        processes: This process among those that train together.
    """
    problem, seed = design.problem, design.training.seed
    with torch.no_grad():
        whole = acquisition.protocol() if isinstance(acquisition, TrainableSchedule) else acquisition
        protocol = spectrum_protocol(whole)
        network = new_network(protocol.measurement_count, outputs, problem.tissue, design.network, seed)
        signal = _examples(protocol, design)
        scale = _mean_norm(signal) if protocol.signal_normalisation == "l2" else 1.0
        network.set_inputs(normalize_input(signal, protocol.signal_normalisation), problem.mean_noise_sd / scale)
    network.share_batches(processes)
    return Chain(acquisition, network, problem, outputs)


def batches_of(chain: Chain, design: Design, processes: Processes) -> ChainBatches:
    """Return the batches of a training of a design's network."""
    training = design.training
    validation = min(design.held_out, _MOST_VALIDATION)
    return ChainBatches(chain, design.samples, training.batch_size, validation, training.seed, processes)


@torch.no_grad()
def _examples(protocol: Protocol, design: Design) -> Tensor:
    """Noise-free signals (voxel, measurement) before any L2 normalisation, always of the same tissues."""
    generator = torch.Generator().manual_seed(design.training.seed + 104_729)
    return design.problem.signal(design.problem.draw(_EXAMPLES, generator), protocol)


def _mean_norm(signal: Tensor) -> float:
    return float(torch.linalg.vector_norm(signal, dim=1).mean())


@torch.no_grad()
def _target_error(network: ReconstructionNetwork, validation: Batch, problem: EstimationProblem) -> float:
    """Weighted mean squared error of the normalised targets, the first outputs of the network."""
    count = len(problem.targets)
    squared = (network(validation.signal) - validation.targets)[:, :count].square().mean(0)
    weights = torch.ones(count) if problem.weights is None else torch.tensor(problem.weights)
    return float((squared * weights).sum() / weights.sum())


@torch.no_grad()
def _held_out(chain: Chain, design: Design) -> HeldOut:
    generator = torch.Generator().manual_seed(design.training.seed + 15_485_863)
    problem = design.problem
    values = problem.draw(design.held_out, generator)
    noise = problem.noise(design.held_out, chain.protocol().measurement_count, generator)
    estimate = chain.network.to_physical(chain(values, noise))[:, : len(problem.targets)]
    return HeldOut(problem.targets, torch.stack([values[path] for path in problem.targets], 1), estimate)
