"""The task of predicting a number for each study, such as the age, with or without its uncertainty."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..metrics.prediction import regression_scores
from ..network.configuration import NetworkConfig
from .image_target import ImageTarget
from .pooling import POOLINGS, PoolingHead
from .study_task import NUMBER, StudyTask, present, require_number, row

LOSSES = ("gaussian", "l2", "l1")
TWO_SIDED = 1.959964
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""
_FEWEST_FOR_CALIBRATION = 4
"""Fewest held-out studies that calibrate standard deviations."""

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
"""Numbers whose comma may separate decimals or thousands."""


@dataclass(frozen=True, kw_only=True)
class Regression(StudyTask):
    """Prediction of a number.

    Attributes:
        column: Column of the manifest with the numbers.
        loss_name: ``gaussian`` (negative logarithm of the likelihood; the network also predicts a standard deviation
            for each study), ``l2`` or ``l1``. In a configuration the key is ``loss``.
        pooling: How codes are pooled: ``average``, ``max`` or ``both``.
        dropout: Probability of dropping each pooled feature in training.
        mean: Mean of the training targets; learned.
        sd: Their standard deviation; learned.
        sd_factor: Factor of the predicted standard deviations, so that those of the validation studies agree with their
            errors; learned.
    """

    kind: ClassVar[str] = "regression"
    title: ClassVar[str] = "Regression"
    higher_is_better: ClassVar[bool] = False
    quality_name: ClassVar[str] = "absolute error"
    pools_codes: ClassVar[bool] = True

    column: str
    loss_name: str = "gaussian"
    pooling: str = "both"
    dropout: float = 0.0
    mean: float = 0.0
    sd: float = 1.0
    sd_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.column, str) or not self.column:
            raise ValueError("a regression needs 'column', the column of the manifest with the numbers")
        if self.loss_name not in LOSSES:
            raise ValueError(f"loss is {self.loss_name!r} but must be one of {', '.join(LOSSES)}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r} but must be one of {', '.join(POOLINGS)}")
        require_number(self, "dropout", 0, 0.95)
        require_number(self, "sd", 0, strictly=True)
        require_number(self, "sd_factor", 0, strictly=True)

    @property
    def name(self) -> str:
        """Name of the column."""
        return self.column

    @property
    def columns(self) -> Mapping[str, str]:
        """The column with the numbers."""
        return {self.column: NUMBER}

    @property
    def offer(self) -> str:
        """The number."""
        return f"{self.column} with its 95 % interval"

    @property
    def main_score(self) -> tuple[str, str]:
        """Mean absolute error."""
        return "mae", f"Mean absolute error of {self.column}"

    def value_target(self, text: str, where: str) -> float | None:
        """Read a number; an empty field, '-', 'NaN', 'NA' or 'n/a' is a missing one."""
        if text.strip().lower() in ("", "-", "nan", "na", "n/a", "none"):
            return None
        if _THOUSANDS.fullmatch(text.strip()):
            raise ValueError(
                f"{where}: '{text}' in the column '{self.column}' can be read with a decimal comma or with thousands "
                "separated by it; write it with a decimal point or without the comma"
            )
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"{where}: '{text}' in the column '{self.column}' is not a number; leave it empty if unknown"
            )
        return value

    def fitted(self, targets: Sequence[Any], source: str) -> Regression:
        """Take mean and standard deviation of the targets."""
        values = np.array(present(targets, f"number in the column '{self.column}'", source), float)
        if len(values) < 2 or np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
            raise ValueError(
                f"all studies of the split 'train' of '{source}' have the {self.column} {values[0]:g}: a regression "
                "needs targets that differ"
            )
        mean, sd = (float(f"{number:.6g}") for number in (values.mean(), values.std()))
        return replace(self, share=len(values) / len(targets), mean=mean, sd=sd)

    def head(self, network: NetworkConfig) -> nn.Module:
        """Build a pooling head with a mean and, for the Gaussian likelihood, the logarithm of a variance."""
        return PoolingHead(network, 2 if self.loss_name == "gaussian" else 1, self.pooling, self.dropout)

    def encode(self, target: Any, where: str = "") -> float:
        """Return the number itself."""
        return float(target)

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute the loss of the scaled number."""
        difference = output[0, 0] - (float(target) - self.mean) / self.sd
        if self.loss_name == "l1":
            return difference.abs()
        if self.loss_name == "l2":
            return difference.square()
        logarithm = output[0, 1].clamp(-8, 8)
        return 0.5 * (difference.square() * torch.exp(-logarithm) + logarithm)

    def decode(self, output: Any) -> Any:
        """Return the predicted number, and its standard deviation."""
        values = output[0].float().cpu().double().tolist()
        sd = math.exp(0.5 * min(max(values[1], -8), 8)) if len(values) > 1 else 1.0
        return {"value": self.mean + self.sd * values[0], "sd": self.sd * self.sd_factor * sd}

    def rows(self, prediction: Any, target: ImageTarget) -> list[dict[str, Any]]:
        """Return the number with its interval."""
        value, reach = prediction["value"], TWO_SIDED * prediction["sd"]
        return [row(self.column, value, value - reach, value + reach)]

    def constant_predictions(self, targets: Sequence[Any]) -> dict[str, Any]:
        """Return the mean of the training targets, with their standard deviation."""
        return {"mean": {"value": float(np.mean(targets)), "sd": float(np.std(targets)) or 1.0}}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Return the absolute error."""
        return abs(prediction["value"] - target)

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Compute errors, the coefficient of determination and the calibration of the standard deviations."""
        return regression_scores(
            np.array([p["value"] for p in predictions]), np.array(targets), np.array([p["sd"] for p in predictions])
        )

    def calibrated(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Regression:
        """Scale the standard deviations so that the mean square of error / SD is one on held-out studies."""
        if len(predictions) < _FEWEST_FOR_CALIBRATION:
            return self
        factor = self.sd_factor * _rms_ratio(predictions, targets)
        return replace(self, sd_factor=float(f"{max(factor, 1e-6):.6g}"))

    def held_out_loss(self, losses: Sequence[float], predictions: Sequence[Any], targets: Sequence[Any]) -> float:
        """Return the mean loss, for the Gaussian likelihood that of predictions whose SDs fit the errors."""
        mean = super().held_out_loss(losses, predictions, targets)
        if self.loss_name != "gaussian" or len(predictions) < _FEWEST_FOR_CALIBRATION:
            return mean
        ratio = max(_rms_ratio(predictions, targets), 1e-6)
        return mean + math.log(ratio) + 0.5 - 0.5 * ratio**2


def _rms_ratio(predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """Root mean square of error / SD."""
    return math.sqrt(
        float(np.mean([((p["value"] - t) / p["sd"]) ** 2 for p, t in zip(predictions, targets, strict=True)]))
    )
