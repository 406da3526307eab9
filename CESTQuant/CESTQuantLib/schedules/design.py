"""What to optimise in a schedule, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..formats.protocol_json import protocol_to_dict
from ..networks.architecture import NetworkOptions
from ..networks.config import FALSE_ALARM_RATE
from ..networks.settings import TrainingSettings
from ..physics.protocol import Protocol
from .bound import BoundSettings
from .cramer_rao import OBJECTIVES as BOUNDS
from .limits import Limits
from .problem import EstimationProblem
from .trainable import TrainableSchedule

JOINT_TRAINING = "network"
OBJECTIVES = (JOINT_TRAINING, *BOUNDS)
"""Objectives of a phase: joint training of schedule and network, or a Cramér-Rao bound."""


@dataclass(frozen=True)
class Design:
    """A schedule to optimise; see :func:`config.read_design` for the keys of a configuration.

    Attributes:
        protocol: Where to start.
        problem: What is to be estimated.
        trainable: What to train, by quantity; see :class:`trainable.TrainableSchedule`.
        limits: What the schedule must keep.
        objective: Objectives of the phases, one after the other.
        samples: Voxels of an epoch.
        network: Options of the networks.
        training: How to train networks, and in joint training the schedule.
        bound: How to minimise a Cramér-Rao bound.
        held_out: Voxels on which the final networks are compared.
        false_alarm_rate: Share of the voxels that the tissue model does explain and that the reliability map of the
            final network may reject nevertheless.
    """

    protocol: Protocol
    problem: EstimationProblem
    trainable: Mapping[str, Any]
    limits: Limits
    objective: tuple[str, ...] = ("crlb-a", JOINT_TRAINING)
    samples: int = 100_000
    network: NetworkOptions = field(default_factory=NetworkOptions)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    bound: BoundSettings = field(default_factory=BoundSettings)
    held_out: int = 20_000
    false_alarm_rate: float = FALSE_ALARM_RATE

    def schedule(self) -> TrainableSchedule:
        """Return the schedule at its start.

        Raises:
            ValueError: No schedule can keep the limits.
        """
        return TrainableSchedule(self.protocol, self.trainable, self.limits)

    def fingerprint(self) -> str:
        """Return a text that is the same for designs that can continue from each other's checkpoints.

        Learning rates and numbers of epochs may differ.
        """
        content = [
            protocol_to_dict(self.protocol),
            {path: asdict(entry) for path, entry in self.problem.tissue.entries.items()},
            self.problem.tissue.structure.solute_names,
            self.problem.tissue.structure.fixed_properties,
            self.problem.targets,
            self.problem.weights,
            self.problem.noise_sd,
            self.problem.engine,
            asdict(self.limits),
            dict(self.trainable),
            self.objective,
            self.samples,
            self.held_out,
            dict(self.network),
            asdict(self.bound),
            self.training.lasting(),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
