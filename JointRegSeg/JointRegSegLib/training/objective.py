"""What a training minimises and reports: the part of the training loop that depends on the kind of network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from NeuroCESTLib.core.processes import Processes

from ..network.precision import Precision
from ..pictures.cases import draw_cases
from ..tasks.registry import find_task
from .batches import Collate, collate
from .config import TrainingConfig
from .log import Row
from .settings import TrainingSettings
from .step import batch_loss, counted
from .updates.precision import for_gradients
from .validation import validate

Draw = Callable[[Path, str], None]
"""Draws a picture of validation cases into a file, with a title."""


class Objective(Protocol):
    """What a training minimises and reports.

    Attributes:
        name: Name of the network, for the pictures.
        settings: Settings of the training loop.
        initial_weights: File or name of the weights that the training starts from; None or empty for those of the seed.
        multiple: Number of which each size of the grid must be a multiple.
        combine: Makes a batch of items of the source.
        terms: Names of all parts of the loss, of which a batch may lack some.
        scores: Title of each score of a validation that is drawn by step; None for the scores of the joint task.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> TrainingSettings: ...

    @property
    def initial_weights(self) -> str | None: ...

    @property
    def multiple(self) -> int: ...

    @property
    def combine(self) -> Collate: ...

    @property
    def terms(self) -> tuple[str, ...]: ...

    @property
    def scores(self) -> Mapping[str, str] | None: ...

    def trajectory(self) -> dict[str, Any]:
        """Return everything that decides the weights, which a resumed training shares with the one it continues."""

    def loss(self, network: Any, batch: Any, step: int, precision: Precision) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch in a step, and its parts by name, among them ``loss``, the whole.

        A part is a sum and the number of its summands (2,), see ``step.counted``; a part without any may be left out.
        """

    def validate(
        self, network: Any, cases: Sequence[Any], precision: Precision, processes: Processes, drawn: int
    ) -> tuple[Row, Draw | None]:
        """Compute the columns ``val_...`` of the log, among them ``val_loss``, and what draws the first cases."""


class JointObjective:
    """The joint task: segmentation and registration of pairs of studies."""

    combine: Collate = staticmethod(collate)
    scores: Mapping[str, str] | None = None

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.name = config.network.name
        self.settings = config.training
        self.initial_weights = config.initial_weights
        self.multiple = config.network.multiple * config.training_stride
        self.terms = ("loss", *find_task(config.task).terms, "brain_share")

    def trajectory(self) -> dict[str, Any]:
        """Return the settings of the configuration that decide the weights."""
        return self.config.trajectory()

    def loss(self, network: Any, batch: Any, step: int, precision: Precision) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch of pairs, with the registration in every n-th step."""
        config, device = self.config, batch.fixed.device
        depth = batch.fixed.shape[2] // config.training_stride
        registers = config.registers and step % config.registration_every == 0
        exact = for_gradients(precision, depth, config.network, device)
        loss, parts = batch_loss(network, batch, config, registers, exact)
        brain_share = torch.stack([batch.fixed_mask.float().mean(), batch.moving_mask.float().mean()]).mean()
        return loss, {**parts, "brain_share": counted(brain_share * len(batch), len(batch))}

    def validate(
        self, network: Any, cases: Sequence[Any], precision: Precision, processes: Processes, drawn: int
    ) -> tuple[Row, Draw | None]:
        """Compute losses and scores of held-out pairs."""
        found = validate(network, cases, self.config, precision, processes, drawn)

        def draw(path: Path, title: str) -> None:
            draw_cases(found.cases, path, title)

        return found.row, draw if found.cases else None
