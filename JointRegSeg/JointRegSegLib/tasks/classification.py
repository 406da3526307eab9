"""The task of predicting a class for each study, such as the sex or the grade."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..metrics.prediction import classification_scores
from ..network.configuration import NetworkConfig
from .image_target import ImageTarget
from .pooling import POOLINGS, PoolingHead
from .study_task import TEXT, StudyTask, present, require_number, row

_FEWEST_FOR_CALIBRATION = 20
"""Fewest held-out studies that calibrate probabilities."""
_FACTORS = tuple(float(factor) for factor in np.geomspace(0.2, 5, 65))
"""Factors of the temperature that are tried."""


@dataclass(frozen=True, kw_only=True)
class Classification(StudyTask):
    """Prediction of a class.

    Attributes:
        column: Column of the manifest with the classes.
        classes: Names of the classes; empty for those of the training studies, in alphabetical order.
        class_weights: ``balanced`` (inverse frequency), ``none``, or a weight for each class.
        label_smoothing: Probability that is spread over all classes in the targets of the training.
        pooling: How codes are pooled: ``average``, ``max`` or ``both``.
        dropout: Probability of dropping each pooled feature in training.
        temperature: Divisor of the scores, so that the probabilities of the validation studies agree with their classes
            (Guo et al. 2017, On calibration of modern neural networks); learned.
    """

    kind: ClassVar[str] = "classification"
    title: ClassVar[str] = "Classification"
    quality_name: ClassVar[str] = "share of right classes"
    pools_codes: ClassVar[bool] = True

    column: str
    classes: tuple[str, ...] = ()
    class_weights: str | tuple[float, ...] = "balanced"
    label_smoothing: float = 0.0
    pooling: str = "both"
    dropout: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.column, str) or not self.column:
            raise ValueError("a classification needs 'column', the column of the manifest with the classes")
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if self.classes and (len(set(self.classes)) < len(self.classes) or len(self.classes) < 2):
            raise ValueError(f"classes are {list(self.classes)} but must be two or more different names")
        weights = self.class_weights
        if isinstance(weights, str):
            if weights not in ("balanced", "none"):
                raise ValueError(f"class_weights is '{weights}' but must be balanced, none, or a weight for each class")
        elif not isinstance(weights, list | tuple) or not all(
            isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in weights
        ):
            raise ValueError(
                f"class_weights is {weights!r} but must be balanced, none, or a number of at least 0 for each class"
            )
        else:
            object.__setattr__(self, "class_weights", tuple(float(w) for w in weights))
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r} but must be one of {', '.join(POOLINGS)}")
        require_number(self, "label_smoothing", 0, 0.5)
        require_number(self, "dropout", 0, 0.95)
        require_number(self, "temperature", 0, strictly=True)

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.column

    @property
    def columns(self) -> Mapping[str, str]:
        """The column with the classes."""
        return {self.column: TEXT}

    @property
    def offer(self) -> str:
        """The classes."""
        return f"{self.column} ({', '.join(self.classes)})"

    @property
    def main_score(self) -> tuple[str, str]:
        """Accuracy."""
        return "accuracy", f"Accuracy of {self.column}"

    def value_target(self, text: str, where: str) -> str | None:
        """Read a class; an empty field, '-', 'NaN', 'NA' or 'n/a' is a missing one."""
        return None if text.strip().lower() in ("", "-", "nan", "na", "n/a") else text.strip()

    def fitted(self, targets: Sequence[Any], source: str) -> Classification:
        """Take classes and weights from the targets."""
        found = Counter(present(targets, f"class in the column '{self.column}'", source))
        if len(found) < 2:
            raise ValueError(
                f"all studies of the split 'train' of '{source}' have the {self.column} '{next(iter(found))}': a "
                "classification needs two classes"
            )
        for name, count in found.items():
            if count == 1:
                raise ValueError(
                    f"only one study of the split 'train' of '{source}' has the {self.column} '{name}': give each "
                    "class two studies or more, or leave the field of that study empty"
                )
        classes = self.classes or tuple(sorted(found))
        if unknown := sorted(set(found) - set(classes)):
            raise ValueError(
                f"'{source}' has the {self.column} {', '.join(unknown)}, but classes are {', '.join(classes)}"
            )
        if absent := [name for name in classes if name not in found]:
            raise ValueError(f"no study of the split 'train' of '{source}' has the {self.column} {', '.join(absent)}")
        total = sum(found.values())
        weights: tuple[float, ...]
        if self.class_weights == "balanced":
            weights = tuple(float(f"{total / len(classes) / found[name]:.6g}") for name in classes)
        elif self.class_weights == "none":
            weights = (1.0,) * len(classes)
        else:
            weights = tuple(float(w) for w in self.class_weights)
        if len(weights) != len(classes):
            raise ValueError(f"there are {len(weights)} class_weights for {len(classes)} classes")
        return replace(self, share=total / len(targets), classes=classes, class_weights=weights)

    def head(self, network: NetworkConfig) -> nn.Module:
        """Build a pooling head with a score for each class."""
        return PoolingHead(network, len(self.classes), self.pooling, self.dropout)

    def encode(self, target: Any, where: str = "") -> int:
        """Return the number of the class."""
        if target not in self.classes:
            raise ValueError(
                f"{where}: the {self.column} '{target}' is unknown to the network, which was trained with "
                f"{', '.join(self.classes)}"
            )
        return self.classes.index(target)

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute the weighted cross-entropy with smoothed labels."""
        truth = torch.tensor([target], device=output.device)
        entropy = F.cross_entropy(output.float(), truth, label_smoothing=self.label_smoothing)
        return entropy * float(self.class_weights[target])

    def decode(self, output: Any) -> Any:
        """Return the probabilities of the classes."""
        return (output[0].float() / self.temperature).softmax(0).cpu().double().numpy()

    def rows(self, prediction: Any, target: ImageTarget) -> list[dict[str, Any]]:
        """Return the most probable class, and the probability of each class."""
        probabilities = zip(self.classes, prediction, strict=True)
        return [
            row(self.column, self.classes[int(np.argmax(prediction))]),
            *(row(f"probability of {name}", float(probability)) for name, probability in probabilities),
        ]

    def constant_predictions(self, targets: Sequence[Any]) -> dict[str, Any]:
        """Return the frequencies of the classes in the training."""
        return {"majority": np.bincount(targets, minlength=len(self.classes)) / len(targets)}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Return 1 where the most probable class is the true one, else 0."""
        return float(int(np.argmax(prediction)) == target)

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Compute accuracy, balanced accuracy, ROC AUC and calibration."""
        return classification_scores(np.array(predictions), np.array(targets))

    def calibrated(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Classification:
        """Choose the temperature, among 0.2 to 5 times the present one, with the lowest cross-entropy."""
        if len(predictions) < _FEWEST_FOR_CALIBRATION:
            return self
        factor = min(_FACTORS, key=lambda factor: _cross_entropy(predictions, targets, factor))
        return replace(self, temperature=float(f"{self.temperature * factor:.6g}"))

    def held_out_loss(self, losses: Sequence[float], predictions: Sequence[Any], targets: Sequence[Any]) -> float:
        """Return the cross-entropy with the best temperature."""
        if len(predictions) < _FEWEST_FOR_CALIBRATION:
            return super().held_out_loss(losses, predictions, targets)
        return min(_cross_entropy(predictions, targets, factor) for factor in _FACTORS)


def _cross_entropy(predictions: Sequence[Any], targets: Sequence[Any], factor: float) -> float:
    """Mean cross-entropy of probabilities (study, class) whose scores are divided by a factor."""
    scores = np.log(np.maximum(np.array(predictions, float), 1e-12)) / factor
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return float(-scores[np.arange(len(targets)), np.array(targets, int)].mean())
