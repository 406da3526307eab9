"""The data of a training: which held-out studies are paired with which."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from joint_training_cases import PREPROCESSING, TINY, held_out, toy_config, write_shells

from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.network.precision import Precision
from JointRegSegLib.synthesis.templates import Template
from JointRegSegLib.training.batches import collate
from JointRegSegLib.training.config import TrainingConfig
from JointRegSegLib.training.data import open_data
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.validation import validate


def config_of_cohort(data: dict[str, Any] | None = None, **sections: Any) -> TrainingConfig:
    """A toy configuration for the studies of ``write_shells``."""
    return toy_config(data={"path": "memory", "preprocessing": PREPROCESSING, **(data or {})}, **sections)


def held_out_names(config: TrainingConfig, manifest: Path) -> list[tuple[str, str]]:
    """Names of the studies of the validation pairs."""
    return [(fixed.name, moving.name) for fixed, moving in open_data(config, manifest, manifest.parent).validation]


@pytest.mark.parametrize("pairing", ["same", {"kind": "same", "both_directions": False}])
def test_held_out_studies_are_not_registered_with_themselves(tmp_path: Path, pairing: Any) -> None:
    manifest = write_shells(tmp_path, ["train", "val", "val"], visits=1)
    config = config_of_cohort({"pairing": pairing})
    opened = open_data(config, manifest, tmp_path)
    assert [fixed.name == moving.name for fixed, moving in (opened.source[0], *opened.validation)] == [
        True,
        False,
        False,
    ]
    alone = config_of_cohort({"pairing": pairing}, tasks="segmentation")
    assert sorted(held_out_names(alone, manifest)) == [("s1 1", "s1 1"), ("s2 1", "s2 1")]


def test_studies_without_a_modality_of_the_network_are_refused(tmp_path: Path) -> None:
    manifest = write_shells(tmp_path, ["train", "val"])
    config = config_of_cohort(network={**TINY, "modalities": ["t1ce", "t2"]})
    with pytest.raises(ValueError, match=r"knows \(t1ce, t2\): 's0 1' \(t1, flair\), 's0 2' \(t1, flair\); add such"):
        open_data(config, manifest, tmp_path)


def test_the_augmentation_knows_the_modalities_of_the_network(tmp_path: Path) -> None:
    manifest = write_shells(tmp_path, ["train", "val"])
    data = {"augmentation": {"dropout_probability": 0.7}}
    opened = open_data(config_of_cohort(data, network={**TINY, "modalities": ["flair"]}), manifest, tmp_path)
    assert opened.augmentation is not None
    for seed in range(20):
        for study in opened.augmentation(opened.source[0], torch.Generator().manual_seed(seed)):
            assert study.present.tolist()[MODALITIES.index("flair")]


def test_visits_of_a_held_out_subject_are_registered_with_each_other(tmp_path: Path) -> None:
    manifest = write_shells(tmp_path, ["train", "val"])
    assert [set(pair) for pair in held_out_names(config_of_cohort({"pairing": "same"}), manifest)] == [{"s1 1", "s1 2"}]


@pytest.mark.parametrize("said", [{}, {"spacing_mm": 4}])
def test_held_out_studies_have_the_voxel_size_of_the_synthetic_patients_that_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict
) -> None:
    template = Template(torch.full((3, 16, 16, 16), 1 / 3), 4.0, "cube")
    monkeypatch.setattr("JointRegSegLib.synthesis.source.load_templates", lambda folder: [template])
    manifest = write_shells(tmp_path, ["train", "val"])
    others = {key: value for key, value in PREPROCESSING.items() if key != "spacing_mm"}
    synthetic = {"path": "synthetic", "synthetic": {"spacing_mm": 4}, "preprocessing": others | said}
    opened = open_data(config_of_cohort(synthetic), manifest, tmp_path)
    assert [study.name[:2] for study in opened.validation[0]] == ["s1", "s1"]
    assert {study.shape for study in opened.validation[0]} == {(16, 16, 16)}  # 64 mm at 4 mm
    assert opened.preprocessing["spacing_mm"] == 4


def test_a_single_held_out_study_is_scored_for_its_segmentation_only(tmp_path: Path) -> None:
    manifest = write_shells(tmp_path, ["train", "val"], visits=1)
    config = config_of_cohort({"pairing": "same"})
    assert held_out_names(config, manifest) == [("s1 1", "s1 1")]
    study = held_out(1)[0][0]
    row = validate(new_network(config), [collate([(study, study)], 2)], config, Precision()).row
    assert row["val_loss"] == row["val_segmentation"]
    assert "val_dice" in row
    assert not row.keys() & {"val_registration", "val_similarity", "val_warped_dice", "val_sd_log_jacobian"}
    with pytest.raises(ValueError, match=r"cohort\.csv' has a single study in the split 'val'.*validation_pairs to 0"):
        open_data(config_of_cohort({"pairing": "same"}, tasks="registration"), manifest, tmp_path)


ALONE = {"tasks": "segmentation"}, {"network": {**TINY, "registration": False}}
"""Sections of configurations that train the segmentation alone."""


@pytest.mark.parametrize("sections", ALONE)
@pytest.mark.parametrize("pairing", ["visits", "subjects", "same"])
def test_pairs_without_labels_neither_train_nor_validate_the_segmentation_alone(
    tmp_path: Path, sections: dict[str, Any], pairing: str
) -> None:
    manifest = write_shells(tmp_path, ["train", "train", "train", "val", "val", "val"], unlabelled=(1, 3))
    config = config_of_cohort({"pairing": pairing}, **sections)
    with pytest.warns(UserWarning, match="are left out") as told:
        opened = open_data(config, manifest, tmp_path)
    for split in ("train", "val"):
        words = f"{'1 of 3' if pairing == 'visits' else '2 of 6'} pairs of the split '{split}' are left out, because"
        assert any(words in str(warning.message) for warning in told)
    pairs = [opened.source[index] for index in range(len(opened.source))] + opened.validation
    assert len(pairs) == (4 if pairing == "visits" else 8)
    assert all(study.labels is not None for pair in pairs for study in pair)


@pytest.mark.parametrize("sections", ALONE)
@pytest.mark.parametrize(("unlabelled", "split"), [((0, 1), "train"), ((2,), "val")])
def test_a_split_without_labels_for_the_segmentation_alone_is_refused_before_a_study_is_prepared(
    tmp_path: Path, sections: dict[str, Any], unlabelled: tuple[int, ...], split: str
) -> None:
    manifest = write_shells(tmp_path, ["train", "train", "val"], unlabelled=unlabelled)
    prepared: list[str] = []
    subjects = ", ".join(f"s{number}" for number in unlabelled)
    with pytest.raises(ValueError, match=rf"split '{split}': no pair of .*cohort.csv' has labels, .*{subjects}\)"):
        open_data(config_of_cohort(**sections), manifest, tmp_path, lambda _, message="": prepared.append(message))
    assert prepared == []


def test_a_single_held_out_study_without_labels_has_nothing_to_be_judged_by(tmp_path: Path) -> None:
    manifest = write_shells(tmp_path, ["train", "val"], visits=1, unlabelled=(1,))
    with pytest.raises(ValueError, match="has a single study in the split 'val'"):
        open_data(config_of_cohort({"pairing": "same"}), manifest, tmp_path)


@pytest.mark.parametrize(
    ("path", "instead"), [("memory", "the loss of the training itself"), ("synthetic", "synthetic")]
)
def test_a_training_that_no_study_validates_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, instead: str
) -> None:
    template = Template(torch.full((3, 8, 8, 8), 1 / 3), 8.0, "cube")
    monkeypatch.setattr("JointRegSegLib.synthesis.source.load_templates", lambda folder: [template])
    manifest = write_shells(tmp_path, ["train", "test"])
    data = {"path": path, "synthetic": {"spacing_mm": 8}} if path == "synthetic" else {"path": path}
    others = {key: value for key, value in PREPROCESSING.items() if path == "memory" or key != "spacing_mm"}
    with pytest.warns(UserWarning, match=rf"cohort.csv' has no study in the split 'val', so that {instead}"):
        open_data(config_of_cohort({**data, "preprocessing": others, "validation_pairs": 1}), manifest, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*no study in the split 'val'")
        open_data(config_of_cohort({**data, "preprocessing": others, "validation_pairs": 0}), manifest, tmp_path)
