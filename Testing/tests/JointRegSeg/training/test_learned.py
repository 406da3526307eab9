"""What a training learns from its data before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from joint_training_cases import PREPROCESSING, TINY, toy_config, write_shells

from JointRegSegLib.cohort.sampling import class_counts, median_frequency_weights
from JointRegSegLib.training.data import open_data


def test_class_weights_of_synthetic_patients_are_those_of_the_first_ones(tmp_path: Path) -> None:
    data = {"path": "synthetic", "synthetic": {"spacing_mm": 8}, "length": 40, "validation_pairs": 0}
    config = toy_config(data=data, loss={"window": 3, "class_weights": "median_frequency"})
    opened = open_data(config, None, tmp_path)
    studies = [study for index in range(16) for study in opened.source[index]]
    counts = torch.stack([class_counts(study.labels, study.mask)[:4] for study in studies])
    assert opened.config.loss.class_weights == pytest.approx(median_frequency_weights(counts).tolist(), rel=1e-5)
    assert opened.config.loss.class_weights[0] < 0.1


@pytest.mark.parametrize("more", [{"transplants": {}}, {"synthetic_share": 0.5}])
def test_class_weights_count_all_studies_of_a_cohort_whatever_is_mixed_into_its_pairs(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    subjects = 20
    manifest = write_shells(tmp_path, ["train"] * subjects, visits=1, unlabelled=range(3, subjects))
    plain = {"path": "on_the_fly", "preprocessing": PREPROCESSING, "pairing": "same", "validation_pairs": 0}
    weights = []
    for data in (plain, plain | more):
        config = toy_config(data=data, loss={"window": 3, "class_weights": "median_frequency"})
        weights.append(open_data(config, manifest, tmp_path / "run").config.loss.class_weights)
    assert weights[0] == weights[1]


def test_class_weights_of_a_cohort_without_labels_are_those_of_the_synthetic_patients_mixed_into_it(
    tmp_path: Path,
) -> None:
    manifest = write_shells(tmp_path, ["train", "train"], visits=1, unlabelled=[0, 1])
    data = {"path": "on_the_fly", "preprocessing": PREPROCESSING, "validation_pairs": 0, "length": 2}
    data |= {"synthetic_share": 0.1}
    config = toy_config(data=data, loss={"window": 3, "class_weights": "median_frequency"})
    opened = open_data(config, manifest, tmp_path / "run")
    studies = [study for index in range(2) for study in opened.source.synthetic[index]]
    counts = torch.stack([class_counts(study.labels, study.mask)[:4] for study in studies])
    assert opened.config.loss.class_weights == pytest.approx(median_frequency_weights(counts).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "brought"),
    [
        ({"transplants": {"resection_probability": 0.05}}, True),
        ({"synthetic_share": 0.5, "synthetic": {"resected": 1.0}, "length": 1}, True),
        ({"transplants": {}}, False),
    ],
)
def test_a_cavity_that_no_study_has_is_weighted_where_resections_bring_it(
    tmp_path: Path, more: dict[str, Any], brought: bool
) -> None:
    manifest = write_shells(tmp_path, ["train"] * 3, visits=1)
    plain = {"path": "memory", "preprocessing": PREPROCESSING, "pairing": "same", "validation_pairs": 0}
    loss = {"window": 3, "class_weights": "median_frequency"}
    config = toy_config(data=plain | more, loss=loss, network={**TINY, "classes": 5})
    if brought:
        weights = open_data(config, manifest, tmp_path / "run").config.loss.class_weights
        assert 0.1 < weights[4] < 10
    else:
        with pytest.warns(UserWarning, match="no training study has the class resection cavity: its class weight is 0"):
            weights = open_data(config, manifest, tmp_path / "run").config.loss.class_weights
        assert weights[4] == 0
    without = open_data(toy_config(data=plain, loss=loss), manifest, tmp_path / "run").config.loss.class_weights
    ratios = [weight / other for weight, other in zip(weights, without, strict=False)]
    assert ratios == pytest.approx([ratios[0]] * 4, rel=1e-4)  # frequencies of the others are those of the cohort


def test_a_cavity_that_cannot_be_counted_needs_a_weight_in_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "JointRegSegLib.augmentation.transplant.resected", lambda sample, generator: sample
    )  # too small
    manifest = write_shells(tmp_path, ["train"] * 2, visits=1)
    data = {"path": "memory", "preprocessing": PREPROCESSING, "transplants": {"resection_probability": 0.5}}
    loss = {"window": 3, "class_weights": "median_frequency"}
    config = toy_config(data=data, loss=loss, network={**TINY, "classes": 5})
    with pytest.raises(ValueError, match=r"cannot weight the resection cavity, .* give class_weights as numbers"):
        open_data(config, manifest, tmp_path)
