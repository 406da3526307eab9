"""Tasks on single studies, from the manifest to weights: a number, a class and a map are learned together."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.batch import main
from JointRegSegLib.multitask.weights import load_study_weights

SIZE, SPACING_MM = 16, 4.0
NETWORK = {
    "name": "tiny",
    "modalities": ["t1"],
    "channels": [6, 12],
    "encoder_convolutions": [1, 1],
    "decoder_convolutions": [1],
    "normalisation": "none",
    "activation": "relu",
    "auxiliary": 0,
}


def write_cohort(folder: Path, count: int = 24, missing: int = 0) -> Path:
    """Balls with a bright core: 'age' is the radius of the core, 'sex' its side of 3.5 voxels, 'tissue' core and rim.

    The first ``missing`` training studies have no targets.
    """
    rng = np.random.default_rng(3)
    place = np.indices((SIZE,) * 3) - (SIZE - 1) / 2
    radius = np.sqrt((place**2).sum(0))
    rows = []
    for number in range(count):
        core = 2 + 3 * rng.random()
        inside = radius < 6.5
        tissue = np.where(radius < core, 2, 1) * inside
        image = np.where(inside, 100 + 100 * (tissue == 2) + rng.normal(0, 8, inside.shape), 0)
        files = {}
        for name, values in (("t1", image.astype(np.float32)), ("tissue", tissue), ("mask", inside)):
            one = sitk.GetImageFromArray(values.astype(np.float32 if name == "t1" else np.uint8))
            one.SetSpacing([SPACING_MM] * 3)
            files[name] = f"{number}_{name}.nii.gz"
            sitk.WriteImage(one, str(folder / files[name]))
        known = number >= missing
        rows.append(
            {
                "subject": f"s{number}",
                **files,
                "tissue": files["tissue"] if known else "",
                "age": f"{10 * core:.1f}" if known else "",
                "sex": ("M" if core > 3.5 else "F") if known else "-",
                "split": "train" if number < count - 8 else "val" if number < count - 4 else "test",
            }
        )
    path = folder / "cohort.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_config(folder: Path, tasks: list[Any], **training: Any) -> Path:
    values = {
        "network": NETWORK,
        "tasks": tasks,
        "data": {
            "preprocessing": {"spacing_mm": SPACING_MM, "extent_mm": [SIZE * SPACING_MM] * 3},
            "augmentation": None,
        },
        "training": {
            "steps": 40,
            "validate_every_batches": 20,
            "learning_rate": 0.01,
            "precision": "float32",
            "pictures": 0,
            **training,
        },
    }
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


AGE = {"task": "regression", "column": "age"}
SEX = {"task": "classification", "column": "sex"}
TISSUE = {"task": "tissue", "classes": {"rim": 1, "core": 2}}


def run_training(cohort: Path, config: Path, output: Path, *more: str) -> int:
    return main(["train", "--manifest", str(cohort), "--config", str(config), "--output", str(output), *more])


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
