"""What a task consists of, and the data that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..losses.config import LossConfig
from ..network.joint import JointOutput


@dataclass(frozen=True)
class StudyPair:
    """Two studies on one grid with what is known about them, as a batch of B pairs.

    Attributes:
        fixed: Images (B, C, D, H, W).
        moving: Images of the same shape.
        fixed_labels: Classes (B, D, H, W) of an integer dtype, `labels.UNLABELED` where a voxel has no label; None for
            studies without labels.
        moving_labels: The same for the moving studies.
        fixed_mask: Brains (B, D, H, W), boolean; None where they are not known.
    """

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    fixed_mask: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """What a network is trained for; one file of this room per task, and one line of `registry.TASKS`.

    Attributes:
        name: Name in configurations.
        title: Name in texts.
        columns: Columns of the manifest with the targets, beside those of the images.
        reported: Parts of the loss and scores that a validation reports, in this order.
        loss: Computes the loss of the network's output for one pair of studies (B = 1): the total, and its parts by
            name without gradient.
        scores: Computes the scores of the network's output for one pair (B = 1) by name; those without a target are
            left out.
        terms: Names of all parts that ``loss`` may return.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    reported: tuple[str, ...]
    loss: Callable[[JointOutput, StudyPair, LossConfig], tuple[Tensor, dict[str, Tensor]]]
    scores: Callable[[JointOutput, StudyPair], dict[str, float]]
    terms: tuple[str, ...] = ()
