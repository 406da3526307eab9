"""What a task on single studies consists of: target, head, loss and scores, and the columns of its targets.

A task is a frozen dataclass whose fields are its settings in a configuration. What it learns from the training targets
(means, classes, weights) are fields too, so that a weights file stores the task with the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
from torch import Tensor, nn

from ..network.configuration import NetworkConfig
from .image_target import ImageTarget

FILE, NUMBER, TEXT = "file", "number", "text"
"""Kinds of manifest columns."""


@dataclass(frozen=True, kw_only=True)
class StudyTask(ABC):
    """A task on single studies.

    Attributes:
        kind: Name of the kind of task in configurations.
        title: Name in texts.
        higher_is_better: Whether the quality of a study (see ``quality``) is the better the higher it is.
        quality_name: What the quality of a study is, in words.
        from_image: Whether the target is the image itself, as an ``image_target.ImageTarget``.
        pools_codes: Whether the head pools codes, whose mean and standard deviation run along with the training.
        weight: Weight of the loss among those of other tasks.
        share: Share of the training studies that have a target; learned.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    quality_name: ClassVar[str] = ""
    from_image: ClassVar[bool] = False
    pools_codes: ClassVar[bool] = False

    weight: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("weight", "share"):
            require_number(self, name, 0, strictly=True)

    @property
    def name(self) -> str:
        """Name of the task among others of one network."""
        return self.kind

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of the manifest with the targets, and their kinds."""
        return {}

    @property
    def offer(self) -> str:
        """What the task finds in a study, in words that continue a list."""
        return self.title.lower()

    @property
    @abstractmethod
    def main_score(self) -> tuple[str, str]:
        """Name of the score that is drawn by step, and its title."""

    def map_target(self, labels: sitk.Image, source: str) -> sitk.Image | None:
        """Convert the label map of a study to the classes of the task; None for tasks without a map.

        Args:
            labels: Label map.
            source: File, for messages.
        """
        return None

    @property
    def map_classes(self) -> int:
        """Number of classes of the map, including the background; 0 for tasks without a map."""
        return 0

    def value_target(self, text: str, where: str) -> float | str | None:
        """Read the target of a study from a field of the manifest; None where it is missing.

        Args:
            text: Field of the manifest.
            where: Study and file, for messages.

        Raises:
            ValueError: The field cannot be used.
        """
        return None

    def grid_problem(self, shape: tuple[int, int, int], network: NetworkConfig) -> str:
        """Say why the head of a network cannot work on a grid (D, H, W), and what to change; empty if it can."""
        return ""

    def view(self, images: Tensor) -> Tensor | None:
        """Return what the encoder sees of images (B, C, D, H, W) for this task; None for the images themselves."""
        return None

    @abstractmethod
    def fitted(self, targets: Sequence[Any], source: str) -> StudyTask:
        """Return the task with what it learns from the targets of the training studies.

        Args:
            targets: Targets of all training studies, None for missing ones.
            source: Manifest, for messages.

        Raises:
            ValueError: The targets cannot train the task: all missing, all the same, or a class with one study.
        """

    @abstractmethod
    def head(self, network: NetworkConfig) -> nn.Module:
        """Build the head: a module that is called with codes (finest first) and brains, and returns its output."""

    @abstractmethod
    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute the loss of one study.

        Args:
            output: Output of the head for the study (B = 1).
            target: Encoded target: a label map (D, H, W) uint8, a number, or the number of a class.
            mask: Brain (D, H, W) bool.
        """

    def encode(self, target: Any, where: str = "") -> Any:
        """Turn a target into what the loss takes.

        Raises:
            ValueError: The target is unknown to the task, such as a class that the training did not have.
        """
        return target

    @abstractmethod
    def decode(self, output: Any) -> Any:
        """Turn the output of the head for one study (B = 1) into a prediction of numpy arrays and numbers."""

    def compact(self, prediction: Any, target: Any) -> Any:
        """Reduce a prediction to what scores and pictures need, so that those of a whole cohort fit into the memory.

        Args:
            prediction: Decoded output.
            target: Encoded target; None where it is missing.
        """
        return prediction

    def rows(self, prediction: Any, target: ImageTarget) -> list[dict[str, Any]]:
        """Return what a prediction says of one study in numbers and words, as rows made by ``row``.

        By default that are the prediction itself, or what it holds by name, where these are numbers or texts.

        Args:
            prediction: Decoded output.
            target: Images of the study as the network sees them.
        """
        named = prediction if isinstance(prediction, Mapping) else {self.name: prediction}
        return [
            row(str(name), value if isinstance(value, str) else float(value))
            for name, value in named.items()
            if isinstance(value, str | Real)
        ]

    def maps(self, prediction: Any, target: ImageTarget, modalities: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the images (D, H, W) of a prediction by the names of their files, on the grid of the network.

        Args:
            prediction: Decoded output.
            target: Images of the study as the network sees them.
            modalities: Modalities of the network.
        """
        return {}

    def constant_predictions(self, targets: Sequence[Any]) -> dict[str, Any]:
        """Return predictions that are the same for every study, made of the training targets alone, by their names.

        An evaluation compares the network with them.

        Args:
            targets: Encoded targets of the training studies.
        """
        return {}

    @abstractmethod
    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Score one study: the number by which methods are compared study by study."""

    @abstractmethod
    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Score the predictions of several studies that all have targets, by name.

        Args:
            predictions: Decoded outputs, which may be compact.
            targets: Encoded targets; not used by tasks whose target is the image, whose predictions hold the scores.
            spacing_mm: Voxel size of maps.
        """

    def calibrated(self, predictions: Sequence[Any], targets: Sequence[Any]) -> StudyTask:
        """Return the task with its uncertainties scaled to what held-out studies show; unchanged where it has none."""
        return self

    def held_out_loss(self, losses: Sequence[float], predictions: Sequence[Any], targets: Sequence[Any]) -> float:
        """Return the loss of held-out studies by which the best step is chosen.

        It is that of calibrated predictions, because they are calibrated after the training (see ``calibrated``).

        Args:
            losses: Loss of every study.
            predictions: Decoded outputs.
            targets: Encoded targets.
        """
        return float(np.mean(losses))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, from which ``registry.study_task_from_dict`` builds the task again."""
        values = {"loss" if name == "loss_name" else name: _plain(value) for name, value in asdict(self).items()}
        return {"task": self.kind, **values}


def require_number(
    settings: object, name: str, least: float, most: float = float("inf"), strictly: bool = False
) -> None:
    """Raise ValueError unless a field is a finite number between limits.

    Args:
        settings: Object with the field.
        name: Name of the field.
        least: Smallest number.
        most: Largest number.
        strictly: Whether the smallest number itself is excluded.
    """
    value = getattr(settings, name)
    good = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    if not good or not least <= value <= most or (strictly and value == least):
        limits = f"above {least:g}" if strictly else f"of at least {least:g}"
        raise ValueError(
            f"{name} is {value!r} but must be a number {limits}"
            + (f" and at most {most:g}" if np.isfinite(most) else "")
        )


def row(
    quantity: str, value: float | str, low: float = float("nan"), high: float = float("nan"), unit: str = ""
) -> dict[str, Any]:
    """Make a row of what is predicted for a study.

    Args:
        quantity: What the value is, in words.
        value: Number or text.
        low: Lower limit of the 95 % interval; NaN without one.
        high: Upper limit.
        unit: Unit of the numbers.
    """
    return {"quantity": quantity, "value": value, "low": low, "high": high, "unit": unit}


def present(targets: Sequence[Any], what: str, source: str) -> list[Any]:
    """Return the targets that are not missing.

    Raises:
        ValueError: All of them are missing.
    """
    found = [target for target in targets if target is not None]
    if not found:
        raise ValueError(
            f"no study of the split 'train' of '{source}' has a {what}: fill that column for some studies or leave the "
            "task out"
        )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
