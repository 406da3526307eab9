"""Tasks on single studies, from the manifest to weights: a number, a class and a map are learned together."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cohorts import AGE, NETWORK, SEX, TISSUE, run_training, write_cohort, write_config, write_with_t2_only

from JointRegSegLib.cohort.sample import StudySample
from JointRegSegLib.multitask.config import multitask_from_dict
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.multitask.objective import StudyObjective
from JointRegSegLib.multitask.studies import StudyBatch, TargetStudy
from JointRegSegLib.multitask.weights import load_study_weights
from JointRegSegLib.network.precision import FLOAT32
from JointRegSegLib.tasks.regression import Regression


def test_three_heads_over_one_encoder_learn_although_some_studies_lack_targets(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path, missing=4)
    config = write_config(tmp_path, [TISSUE, AGE, SEX], pictures=1, steps=40, validate_every_batches=40)
    assert run_training(cohort, config, tmp_path / "run") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    found = report["summary"]
    assert found["studies_with_target"] == {"tissue": 12, "age": 12, "sex": 12}
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    with open(cohort, newline="") as file:
        ages = [float(row["age"]) for row in csv.DictReader(file) if row["split"] == "val"]
    assert float(last["val_tissue_dice"]) > 0.8
    assert float(last["val_age_mae"]) < 0.7 * np.abs(np.array(ages) - np.mean(ages)).mean()
    weights = load_study_weights(tmp_path / "run" / "weights.pt")
    assert [task.name for task in weights.tasks] == ["tissue", "age", "sex"]
    assert weights.tasks[2].to_dict()["classes"] == ["F", "M"]
    assert (tmp_path / "run" / "validation.png").is_file()


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path, 14)

    def config(steps: int) -> Path:
        return write_config(tmp_path, [AGE], steps=steps, validate_every_batches=2, schedule="constant")

    assert run_training(cohort, config(4), tmp_path / "whole") == 0
    assert run_training(cohort, config(2), tmp_path / "parts") == 0
    assert run_training(cohort, config(4), tmp_path / "parts", "--resume") == 0
    first, second = (load_study_weights(tmp_path / run / "weights.pt").network for run in ("whole", "parts"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_training_is_not_resumed_with_other_targets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cohort = write_cohort(tmp_path, 14)
    assert run_training(cohort, write_config(tmp_path, [AGE], steps=1), tmp_path / "run") == 0
    with open(cohort, newline="") as file:
        ages = [row["age"] for row in csv.DictReader(file)]
    change(cohort, "age", ages[1], slice(0, 1))
    change(cohort, "age", ages[0], slice(1, 2))  # mean and standard deviation stay the same
    assert run_training(cohort, write_config(tmp_path, [AGE], steps=2), tmp_path / "run", "--resume") == 2
    assert "belongs to another training: the targets of the study 's0' have changed" in capsys.readouterr().err


def test_the_loss_of_a_task_is_reported_as_the_mean_over_the_studies_with_a_target() -> None:
    age = Regression(column="age", loss_name="l2", share=0.25)
    config = multitask_from_dict({"network": NETWORK, "tasks": [AGE], "data": {"augmentation": None}})
    objective = StudyObjective(config.with_tasks((age,)))
    network = MultiTaskNetwork(config.network, (age,)).eval()
    images, mask = torch.randn(1, 4, 16, 16, 16), torch.ones(16, 16, 16, dtype=torch.bool)
    samples = [StudySample(images[0], None, mask, str(number)) for number in range(4)]
    studies = [TargetStudy(sample, {"age": 3.0} if sample.name == "0" else {}) for sample in samples]
    alone, one_of_four, none = (
        objective.loss(network, objective.combine(some, 2), 0, FLOAT32) for some in (studies[:1], studies, studies[1:])
    )
    assert objective.terms == ("loss", "age", "brain_share")
    torch.testing.assert_close(one_of_four[1]["age"], alone[1]["age"], rtol=1e-5, atol=1e-5)
    assert alone[1]["age"][1] == 1
    torch.testing.assert_close(
        one_of_four[0], alone[0] / 4, rtol=1e-5, atol=1e-5
    )  # what is minimised has the weight of the share
    assert "age" not in none[1]


def change(cohort: Path, column: str, value: str, rows: slice = slice(None)) -> None:
    with open(cohort, newline="") as file:
        found = list(csv.DictReader(file))
    for row in found[rows]:
        row[column] = value
    with open(cohort, "w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)


@pytest.mark.parametrize(
    ("task", "column", "value", "rows", "message"),
    [
        (AGE, "age", "", slice(None), "has a number in the column 'age'"),
        (AGE, "age", "50", slice(None), "have the age 50: a regression needs targets that differ"),
        (AGE, "age", "old", slice(1), "'old' in the column 'age' is not a number"),
        (AGE, "age", "inf", slice(1), "'inf' in the column 'age' is not a number"),
        (SEX, "sex", "F", slice(None), "have the sex 'F': a classification needs two classes"),
        (SEX, "sex", "X", slice(1), "only one study of the split 'train'"),
        ({**AGE, "column": "weight"}, "age", "", slice(0), "has no column 'weight', which the tasks need"),
        ({"task": "tissue", "classes": {"rim": 1}}, "age", "", slice(0), "has the numbers 2, which no class"),
        ({"task": "tissue", "classes": {"rim": 1, "core": 2, "x": 3}}, "age", "", slice(0), "holds x: leave"),
        ({"task": "regresion", "column": "age"}, "age", "", slice(0), "task 'regresion' is unknown; use one of"),
        ({"task": "regression"}, "age", "", slice(0), "needs 'column'"),
        ({**AGE, "loss": "l3"}, "age", "", slice(0), "loss is 'l3' but must be one of gaussian, l2, l1"),
    ],
)
def test_targets_that_cannot_be_learned_get_one_sentence(
    task: dict[str, Any],
    column: str,
    value: str,
    rows: slice,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    cohort = write_cohort(tmp_path, 10)
    change(cohort, column, value, rows)
    assert run_training(cohort, write_config(tmp_path, [task]), tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", [AGE, {"task": "super_resolution", "factor": [2, 2, 2]}])
def test_studies_without_a_modality_of_the_network_are_named_before_the_training(
    task: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cohort, config = write_cohort(tmp_path, 10), write_config(tmp_path, [task], steps=1)
    for subjects, named in ((["s0", "s9"], "'s0' (t2); add such images"), (["s2", "s4"], "'s2' (t2), 's4' (t2); add")):
        manifest = write_with_t2_only(cohort, subjects, "t2.csv")
        assert run_training(manifest, config, tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert f"'{manifest}' lists studies without any modality that the network knows (t1): {named}" in error
        assert not (tmp_path / "run").exists()


def test_dropped_modalities_never_leave_the_network_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_cohort(tmp_path, 10)
    rows = cohort.read_text().splitlines()
    for number in range(10):
        shutil.copy(tmp_path / f"{number}_t1.nii.gz", tmp_path / f"{number}_t2.nii.gz")
    t2 = ["t2", *(f"{number}_t2.nii.gz" for number in range(10))]
    cohort.write_text("".join(f"{row},{field}\n" for row, field in zip(rows, t2, strict=True)))
    config = write_config(tmp_path, [AGE], steps=5)
    values = json.loads(config.read_text())
    values["data"]["augmentation"] = {"dropout_probability": 0.7}
    config.write_text(json.dumps(values))
    empty: list[bool] = []
    to = StudyBatch.to

    def watched(batch: StudyBatch, device: torch.device) -> StudyBatch:
        empty.extend(bool((image == image.flatten()[0]).all()) for image in batch.images)
        return to(batch, device)

    monkeypatch.setattr(StudyBatch, "to", watched)
    assert run_training(cohort, config, tmp_path / "run") == 0
    assert len(empty) >= 20
    assert not any(empty)


def test_a_missing_age_may_be_written_as_nan(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path, 12)
    change(cohort, "age", "NaN", slice(2))
    assert run_training(cohort, write_config(tmp_path, [AGE], steps=1), tmp_path / "run") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["summary"]["studies_with_target"] == {"age": 2}


def test_a_training_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cohort = write_cohort(tmp_path, 12)
    config = write_config(tmp_path, [{**AGE, "loss": "l2"}], steps=60, learning_rate=1e18, optimiser="sgd")
    assert run_training(cohort, config, tmp_path / "run") == 2
    assert "the training diverged at step" in capsys.readouterr().err
