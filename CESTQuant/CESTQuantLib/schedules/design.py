"""A schedule from a configuration: optimised, rounded to what a scanner plays, and compared with where it started.

The phases of ``objective`` follow one another on the same schedule: those named 'crlb-…' minimise the Cramer-Rao
bound, 'network' trains schedule and network as one chain. Then a network is trained anew, equally, for the start and
for the result, and both are tried on the same held-out voxels. Where the last phase is joint training, the schedule
before it gets a network too, and the better of the two is the result.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.core.whole_files import whole_file

from ..formats.protocol_json import protocol_to_dict
from ..networks.architecture import ReconstructionNetwork, normalise_input
from ..networks.training import TrainingResult, TrainingSettings, lasting, train_network
from ..physics.protocol import Protocol
from ..physics.units import concentration_mM
from .bound import BoundSettings, minimise_bound
from .chain import Chain, ChainBatches, Problem
from .cramer_rao import OBJECTIVES as BOUNDS
from .limits import Limits, playable
from .trainable import TrainableSchedule

OBJECTIVES = ("network", *BOUNDS)
NUISANCE_WEIGHT = 0.1
"""Of the outputs that are no targets, in the loss of the final networks."""
_EXAMPLES = 4000


@dataclass(frozen=True)
class Design:
    """What to optimise and how; see :func:`schedule_config.read_design`. samples: voxels an epoch."""

    protocol: Protocol
    problem: Problem
    trainable: Mapping
    limits: Limits
    objective: tuple[str, ...] = ("crlb-a", "network")
    samples: int = 100_000
    network: Mapping = field(default_factory=dict)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    bound: BoundSettings = field(default_factory=BoundSettings)
    held_out: int = 20_000

    def schedule(self) -> TrainableSchedule:
        """The schedule at its start; ValueError for limits that no schedule can keep."""
        return TrainableSchedule(self.protocol, self.trainable, self.limits)

    def fingerprint(self) -> str:
        """Same designs have the same, whatever their learning rates and number of epochs; for checkpoints."""
        tissue = {path: asdict(entry) for path, entry in self.problem.tissue.entries.items()}
        content = [
            protocol_to_dict(self.protocol),
            tissue,
            self.problem.targets,
            self.problem.weights,
            self.problem.noise_sd,
            self.problem.engine,
            asdict(self.limits),
            dict(self.trainable),
            self.objective,
            self.samples,
            dict(self.network),
            asdict(self.bound),
            lasting(self.training),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class HeldOut:
    """Estimates (voxel, target) of voxels that no training saw, and the truth, in the targets' own units."""

    targets: tuple[str, ...]
    truth: Tensor
    estimate: Tensor

    def quantities(self, protons: Mapping[str, float]) -> dict[str, tuple[Tensor, Tensor]]:
        """(truth, estimate) by quantity; fractions of pools whose ``protons`` are known as concentrations in mM."""
        result = {}
        for t, path in enumerate(self.targets):
            pool, both = path.rsplit(".", 1)[0], (self.truth[:, t].double(), self.estimate[:, t].double())
            if path.endswith(".fraction") and pool in protons:
                result[f"{pool}_concentration_mM"] = tuple(concentration_mM(v, protons[pool]) for v in both)
            else:
                result[path] = both
        return result

    def errors(self, protons: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Mean absolute error, root mean square error and correlation by quantity."""
        return {
            name: {
                "mae": float((estimate - truth).abs().mean()),
                "rmse": float((estimate - truth).square().mean().sqrt()),
                "correlation": float(torch.corrcoef(torch.stack([truth, estimate]))[0, 1]),
            }
            for name, (truth, estimate) in self.quantities(protons).items()
        }


@dataclass(frozen=True)
class Reconstruction:
    """A protocol, the network trained for it, and how it does."""

    protocol: Protocol
    network: ReconstructionNetwork
    training: TrainingResult
    held_out: HeldOut


@dataclass(frozen=True)
class DesignResult:
    """evolution: ``phase``, ``loss`` and ``schedule`` (values by quantity) of the recorded moments, in order. kept: the
    phase whose schedule is the result, 'start' where joint training alone made it worse."""

    start: Reconstruction
    optimised: Reconstruction
    evolution: list[dict]
    seconds: dict[str, float]
    kept: str


def optimise(
    design: Design,
    *,
    checkpoints: Path | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> DesignResult:
    """Run a design. checkpoints: a folder from which a killed run continues, for the same design.

    Raises ValueError for impossible limits and where the training diverged (the last good checkpoint stays).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors of a batch are small: more threads wait for each other
    try:
        return _optimise(design, checkpoints, processes or Processes(), progress or (lambda fraction, message: None))
    finally:
        torch.set_num_threads(threads)


def _optimise(design: Design, checkpoints: Path | None, processes: Processes, report: Progress) -> DesignResult:
    schedule = design.schedule()
    start = playable(schedule.start, schedule.limits)
    evolution, seconds = [{"phase": "start", "schedule": _values(schedule)}], {}
    for number, objective in enumerate(design.objective):
        begin = time.perf_counter()
        share = _part(report, 0.4 * number / len(design.objective), 0.4 * (number + 1) / len(design.objective))
        path = None if checkpoints is None else checkpoints / f"{number}-schedule.pt"
        with torch.no_grad():
            before = playable(schedule.protocol(), schedule.limits)
        if objective == "network":
            moments = _train_together(schedule, design, path, processes, share)
        else:
            moments = minimise_bound(
                schedule,
                design.problem,
                objective,
                design.bound,
                seed=design.training.seed,
                progress=share,
                checkpoint=path,
                writes_checkpoint=processes.writes,
            )
        evolution += [{"phase": objective, **moment} for moment in moments]
        seconds[objective] = time.perf_counter() - begin
    wanted = {"start": start}
    last = design.objective[-1]
    if last == "network" and len(design.objective) > 1:
        wanted[design.objective[-2]] = before
    wanted[last] = playable(schedule.protocol(), schedule.limits)
    results: dict[str, Reconstruction] = {}
    for number, (name, protocol) in enumerate(wanted.items()):
        begin = time.perf_counter()
        path = None if checkpoints is None else checkpoints / f"network-{name}.pt"
        share = _part(report, 0.4 + 0.6 * number / len(wanted), 0.4 + 0.6 * (number + 1) / len(wanted), f"{name}: ")
        results[name] = reconstruct(protocol, design, checkpoint=path, processes=processes, progress=share)
        seconds[f"network for the schedule after {name}"] = time.perf_counter() - begin
    kept = last
    if last == "network":
        kept = min(list(wanted)[-2:], key=lambda name: min(results[name].training.validation_loss))
    return DesignResult(results["start"], results[kept], evolution, seconds, kept)


def reconstruct(
    protocol: Protocol,
    design: Design,
    *,
    checkpoint: Path | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Train a new network for a protocol that stays as it is, and try it on the design's held-out voxels."""
    processes = processes or Processes()
    outputs = design.problem.outputs
    chain = Chain(protocol, new_network(protocol, design, outputs), design.problem, outputs)
    chain.network.share_batches(processes.rank, processes.count)
    weights = tuple(1.0 if path in design.problem.targets else NUISANCE_WEIGHT for path in outputs)
    training = train_network(
        chain.network,
        _batches(chain, design, processes),
        replace(design.training, weights=weights),
        progress,
        checkpoint,
        reduce=processes.average if processes.count > 1 else None,
        writes_checkpoint=processes.writes,
    )
    return Reconstruction(protocol, chain.network.eval(), training, _held_out(chain, design))


def new_network(protocol: Protocol, design: Design, outputs: tuple[str, ...]) -> ReconstructionNetwork:
    """A network with random weights whose inputs and outputs are scaled to the problem."""
    problem, seed = design.problem, design.training.seed
    torch.manual_seed(seed)
    network = ReconstructionNetwork(protocol.measurement_count, len(outputs), **design.network)
    network.set_targets(
        {path: problem.tissue.ranges()[path] for path in outputs},
        [path for path in outputs if problem.tissue.is_logarithmic(path)],
    )
    generator = torch.Generator().manual_seed(seed + 104_729)
    with torch.no_grad():
        signal = problem.signal(problem.draw(_EXAMPLES, generator), protocol)
        scale = float(torch.linalg.vector_norm(signal, dim=1).mean()) if protocol.signal_normalisation == "l2" else 1.0
        network.set_inputs(normalise_input(signal, protocol.signal_normalisation), problem.mean_noise_sd / scale)
    return network


def _train_together(
    schedule: TrainableSchedule, design: Design, checkpoint: Path | None, processes: Processes, progress: Progress
) -> list[dict]:
    targets = design.problem.targets
    with torch.no_grad():
        protocol = schedule.protocol()
    chain = Chain(schedule, new_network(protocol, design, targets), design.problem, targets)
    chain.network.share_batches(processes.rank, processes.count)
    record = None if checkpoint is None else checkpoint.with_suffix(".json")
    moments = json.loads(record.read_text()) if record is not None and record.exists() else []

    def after_epoch(epoch: int, result: TrainingResult) -> None:
        moments[epoch - 1 :] = [{"step": epoch, "loss": result.validation_loss[-1], "schedule": _values(schedule)}]
        if record is not None and processes.writes:
            with whole_file(record) as temporary:
                temporary.write_text(json.dumps(moments))

    train_network(
        chain.network,
        _batches(chain, design, processes),
        replace(design.training, weights=design.problem.weights),
        progress,
        checkpoint,
        schedule_parameters=list(schedule.parameters()),
        after_epoch=after_epoch,
        writes_checkpoint=processes.writes,
        reduce=processes.average if processes.count > 1 else None,
    )
    return moments


def _batches(chain: Chain, design: Design, processes: Processes) -> ChainBatches:
    training = design.training
    return ChainBatches(
        chain,
        design.samples,
        training.batch_size,
        min(design.held_out, 4000),
        training.seed,
        rank=processes.rank,
        processes=processes.count,
    )


@torch.no_grad()
def _held_out(chain: Chain, design: Design) -> HeldOut:
    generator = torch.Generator().manual_seed(design.training.seed + 15_485_863)
    problem = design.problem
    values = problem.draw(design.held_out, generator)
    noise = problem.noise(design.held_out, chain.protocol().measurement_count, generator)
    estimate = chain.network.to_physical(chain(values, noise))[:, : len(problem.targets)]
    return HeldOut(problem.targets, torch.stack([values[path] for path in problem.targets], 1), estimate)


def _values(schedule: TrainableSchedule) -> dict[str, list[float]]:
    return {name: value.detach().tolist() for name, value in schedule.values().items()}


def _part(report: Progress, low: float, high: float, prefix: str = "") -> Progress:
    return lambda fraction, message: report(low + (high - low) * fraction, prefix + message)
