"""A user's own tasks, registered as CONTRIBUTING.md says: they train, are scored, and predict like the others."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import SimpleITK as sitk
from task_cohorts import run_training, write_cohort, write_config
from torch import Tensor, nn

from JointRegSegLib.batch import main
from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.tasks.image_target import ImageTarget, masked_mean
from JointRegSegLib.tasks.pooling import PoolingHead
from JointRegSegLib.tasks.registry import STUDY_TASKS
from JointRegSegLib.tasks.study_task import NUMBER, StudyTask


@dataclass(frozen=True, kw_only=True)
class Grade(StudyTask):
    """A number without any extra: what the protocol leaves open has its default."""

    kind: ClassVar[str] = "grade"
    title: ClassVar[str] = "Grade"
    higher_is_better: ClassVar[bool] = False
    quality_name: ClassVar[str] = "absolute error"

    @property
    def columns(self) -> Mapping[str, str]:
        return {"age": NUMBER}

    @property
    def main_score(self) -> tuple[str, str]:
        return "mae", "Mean absolute error"

    def value_target(self, text: str, where: str) -> float | None:
        return float(text) if text else None

    def fitted(self, targets: Sequence[Any], source: str) -> Grade:
        return self

    def head(self, network: NetworkConfig) -> nn.Module:
        return PoolingHead(network, 1)

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        return (output[0, 0] - target / 50).abs()

    def decode(self, output: Any) -> dict[str, float]:
        return {"grade": 50 * float(output[0, 0])}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        return abs(prediction["grade"] - target)

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        return {"mae": float(np.mean([self.quality(p, t, 1) for p, t in zip(predictions, targets, strict=True)]))}


@dataclass(frozen=True, kw_only=True)
class Whole(Grade):
    """The same with a prediction to be compared with."""

    kind: ClassVar[str] = "whole"

    def constant_predictions(self, targets: Sequence[Any]) -> dict[str, Any]:
        return {"median": {"grade": float(np.median(targets))}}


class _Convolution(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv3d(channels, 1, 1)

    def forward(self, codes: list[Tensor], brains: Any = None) -> Tensor:
        return self.layer(codes[0])


@dataclass(frozen=True, kw_only=True)
class Echo(StudyTask):
    """An image, which predicts a map and nothing else."""

    kind: ClassVar[str] = "echo"
    title: ClassVar[str] = "Echo"
    from_image: ClassVar[bool] = True

    @property
    def main_score(self) -> tuple[str, str]:
        return "error", "Error"

    def fitted(self, targets: Sequence[Any], source: str) -> Echo:
        return self

    def head(self, network: NetworkConfig) -> nn.Module:
        return _Convolution(network.channels[0])

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        return masked_mean((output[0, 0] - target.images[0]).abs(), mask)

    def decode(self, output: Any) -> np.ndarray:
        return output[0, 0].float().cpu().numpy()

    def compact(self, prediction: Any, target: Any) -> float:
        return float(np.abs(prediction - target.images[0].cpu().numpy()).mean())

    def maps(self, prediction: Any, target: ImageTarget, modalities: Sequence[str]) -> dict[str, np.ndarray]:
        return {f"echo_{modalities[0]}": prediction}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        return float(prediction)

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        return {"error": float(np.mean(predictions))}


@dataclass(frozen=True, kw_only=True)
class Silent(Echo):
    """An image of which the task tells nothing in a single study."""

    kind: ClassVar[str] = "silent"

    def maps(self, prediction: Any, target: ImageTarget, modalities: Sequence[str]) -> dict[str, np.ndarray]:
        return {}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_newly_registered_tasks_train_are_scored_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    kinds = (Grade, Whole, Echo, Silent)
    for kind in kinds:
        monkeypatch.setitem(STUDY_TASKS, kind.kind, kind)
    cohort, weights, scores = write_cohort(tmp_path, 10), tmp_path / "run" / "weights.pt", tmp_path / "scores"
    config = write_config(tmp_path, [kind.kind for kind in kinds], steps=2, validate_every_batches=2, pictures=1)
    assert run_training(cohort, config, tmp_path / "run") == 0
    assert (tmp_path / "run" / "validation.png").is_file()

    assert main(["evaluate", "--manifest", str(cohort), "--weights", str(weights), "--output", str(scores)]) == 0
    told = capfd.readouterr().err
    found = {(row["task"], row["method"]) for row in rows_of(scores / "summary.csv")}
    assert found == {("whole", "median"), *((kind.kind, "network") for kind in kinds)}
    for kind in kinds:
        assert (f"the task '{kind.kind}' ({kind.title}) has no baseline" in told) == (kind is not Whole)
    assert (scores / "predictions.png").is_file()

    image, output = tmp_path / "9_t1.nii.gz", tmp_path / "found"
    visit = ["--images", str(image), "--mask", str(tmp_path / "9_mask.nii.gz"), "--output", str(output)]
    assert main(["predict", "--weights", str(weights), *visit]) == 0
    told = capfd.readouterr().err
    for kind in kinds:
        lacks = f"the result lacks the task '{kind.kind}' ({kind.title}), which gives neither rows nor maps of a study"
        assert (lacks in told) == (kind is Silent)
    rows = rows_of(output / "predictions.csv")
    assert [(row["task"], row["quantity"], row["low"]) for row in rows] == [
        ("grade", "grade", ""),
        ("whole", "grade", ""),
    ]
    assert all(np.isfinite(float(row["value"])) for row in rows)
    assert sitk.ReadImage(str(output / "echo_t1.nii.gz")).GetSize() == sitk.ReadImage(str(image)).GetSize()
