"""A small cohort with targets for tasks on single studies, made of formulas, and a configuration that trains on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from JointRegSegLib.batch import main

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


def write_with_t2_only(cohort: Path, subjects: Sequence[str], name: str) -> Path:
    """Write the manifest of a cohort beside it, in which the images of some subjects are T2 instead of T1."""
    with open(cohort, newline="") as file:
        rows: list[dict[str, str]] = [row | {"t2": ""} for row in csv.DictReader(file)]
    for row in rows:
        if row["subject"] in subjects:
            row["t1"], row["t2"] = "", row["t1"]
    path = cohort.with_name(name)
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
