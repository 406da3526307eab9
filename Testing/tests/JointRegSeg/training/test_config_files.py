"""Configurations of a training: what cannot be used is named with its file, section and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joint_training_cases import TINY, toy_config

from JointRegSegLib.network.configuration import network_config_names
from JointRegSegLib.training.config_files import config_by_name, config_from_dict, read_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"netwrok": "neurocest"}, "unknown keys netwrok"),
        ({"training": {"learning_rat": 1}}, "training: unknown keys learning_rat"),
        ({"data": {"pat": "memory"}}, "data: unknown keys pat"),
        ({"loss": {"simil": "mse"}}, "loss: unknown keys simil"),
        ({"network": {"chanels": [1]}}, "unknown keys chanels"),
        ({"data": {"path": "tape"}}, "'tape' but must be one of memory"),
        ({"training": {"learning_rate": -1}}, "learning_rate is -1"),
        ({"training": {"batch_size": 3, "accumulation": 2}}, "not divisible"),
        ({"training": {"epochs": 0}}, "no end"),
        ({"training": {"seed": 2**45}}, f"seed is {2**45} but must be at most 1000000000000"),
        ({"data": {"seed": 2**45}}, f"seed is {2**45} but must be at most 1000000000000"),
        ({"network": "vnet_nowhere"}, "vnet_nowhere"),
        ({"tasks": "sleep"}, "'sleep'"),
        ({"tasks": "registration", "registration_every": 2}, "registration_every is 2, but the registration alone"),
        ({"network": {**TINY, "segmentation": False}, "registration_every": 2}, "the registration alone is trained"),
        ({"training": []}, None),
        ([], "object"),
    ],
)
def test_unusable_configurations_name_the_key(values: object, message: str | None) -> None:
    if message is None:
        config_from_dict(values)  # an empty section
        return
    with pytest.raises(ValueError, match=message) as error:
        config_from_dict(values, "config.json")
    assert str(error.value).startswith("config.json: ")
    assert "\n" not in str(error.value)


DISPLACEMENT = {**TINY, "deformation": "displacement", "antisymmetric": False}
CONTRADICTIONS = [
    ({"network": {**TINY, "classes": 3}}, "network: classes is 3, but a segmentation is trained with 4 classes"),
    ({"network": {**TINY, "classes": 2}, "loss": {"dice_over": "classes"}}, "network: classes is 2, but"),
    ({"network": {**TINY, "classes": 6}}, "network: classes is 6, but"),
    ({"loss": {"class_weights": [1, 2, 3]}}, "loss: class_weights has 3 numbers, but the network 'tiny' has 4 classes"),
    (
        {"network": DISPLACEMENT},
        "loss: symmetric needs a deformation with an inverse, .* 'displacement': set symmetric",
    ),
    ({"loss": {"phi_weight": 1.0}}, "loss: phi_weight is for the deformation 'cumulative', .* is 'velocity': set phi_"),
    (
        {"data": {"preprocessing": {"extent_mm": [64, 64, 48], "spacing_mm": 1}, "augmentation": {"patch": [64] * 3}}},
        r"data: augmentation: patch \[64, 64, 64\] is larger than the grid \[64, 64, 48\] of the studies, .* choose",
    ),
    (
        {"data": {"transplants": {"probabilty": 1}}},
        "data: transplants: unknown keys probabilty; use healing_probability",
    ),
    (
        {"data": {"transplants": {"resection_probability": 0.5}}},
        "data: transplants: resection_probability is 0.5, but the network 'tiny' has no class for the resection "
        "cavity; use one of 5 classes",
    ),
]
"""Settings that fit each other only in part, and the message about them."""


@pytest.mark.parametrize(("values", "message"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused_before_data_are_prepared(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^config.json: {message}"):
        config_from_dict({"network": TINY} | values, "config.json")


@pytest.mark.parametrize(
    "values",
    [
        {"network": {**TINY, "classes": 5}},
        {"network": {**TINY, "classes": 3}, "tasks": "registration"},
        {"network": DISPLACEMENT, "tasks": "segmentation"},
        {"network": DISPLACEMENT, "loss": {"symmetric": False}},
        {"data": {"preprocessing": {"extent_mm": [64, 64, 48], "spacing_mm": 1}, "augmentation": {"patch": [48] * 3}}},
        {
            "data": {
                "preprocessing": {"extent_mm": [64, 64, 48], "spacing_mm": 1},
                "augmentation": {"patch": [64] * 3, "patch_margin_voxels": 8},
            }
        },
    ],
)
def test_settings_of_parts_that_are_not_trained_or_that_fit_are_accepted(values: dict) -> None:
    config_from_dict({"network": TINY} | values)


def test_every_bundled_configuration_can_be_trained() -> None:
    for name in network_config_names():
        assert config_by_name(name).network.name


def test_a_configuration_survives_json() -> None:
    config = toy_config({"ema_decay": 0.9}, tasks="segmentation", note="x")
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


SECTIONS = {
    "network": ("chanels", "network: unknown keys chanels; use name, modalities, "),
    "network.loss": ("windo", "network: loss: unknown keys windo; use segmentation, class_weights, "),
    "loss": ("simil", "loss: unknown keys simil; use segmentation, class_weights, "),
    "training": ("epoch", "training: unknown keys epoch; use optimiser, learning_rate, "),
    "data": ("pat", "data: unknown keys pat; use path, length, "),
    "data.preprocessing": ("spacing", "data: preprocessing: unknown keys spacing; use spacing_mm, normalisation, n4, "),
    "data.synthetic": ("spacing", "data: synthetic: unknown keys spacing; use spacing_mm, templates, "),
    "data.augmentation": ("blurr", "data: augmentation: unknown keys blurr; use shared, independent, patch"),
    "data.augmentation.shared": ("flips", "data: augmentation: shared: unknown keys flips; use flip, probability, "),
    "data.pairing": ("sort", "data: pairing: unknown keys sort; use kind, both_directions"),
    "data.sampling": ("number", "data: sampling: unknown keys number; use proportions, pairs"),
}
"""A misspelt key of each section, and the message about it."""


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_is_named_with_its_file_section_and_the_known_keys(tmp_path: Path, section: str) -> None:
    key, message = SECTIONS[section]
    values: dict = {"network": dict(TINY), "data": {"path": "synthetic"}}
    inner = values
    for name in section.split("."):
        inner = inner.setdefault(name, {})
    inner[key] = 1
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="unknown keys") as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(("path", "normalisation"), [("memory", "zscore"), ("synthetic", "histogram")])
def test_landmarks_cannot_be_learned_without_their_normalisation_or_a_cohort(path: str, normalisation: str) -> None:
    settings = {"normalisation": normalisation, "histogram_landmarks": "learn"}
    with pytest.raises(ValueError, match="data: preprocessing: histogram_landmarks 'learn' needs the normalisation"):
        config_from_dict({"data": {"path": path, "preprocessing": settings}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"spacing_mm": "1"}, "data: preprocessing: spacing_mm is '1' but must be a number"),
        ({"multiple_of": 1.5}, "data: preprocessing: multiple_of is 1.5 but must be a whole number"),
        ({"n4": "yes"}, "data: preprocessing: n4 is 'yes' but must be true or false"),
        ({"histogram_landmarks": [1]}, "data: preprocessing: histogram_landmarks is "),
        ({"align": "so"}, "data: preprocessing: align is 'so'"),
        ({"extent_mm": 3}, "data: preprocessing: extent_mm needs three lengths"),
    ],
)
def test_unusable_preprocessing_names_the_section_and_the_key(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=f"config.json: {words}"):
        config_from_dict({"data": {"preprocessing": settings}}, "config.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            {"path": "synthetic", "preprocessing": {"normalisation": "percentile"}},
            "normalisation is 'percentile', but synthetic patients are z-scored",
        ),
        (
            {"synthetic_share": 0.5, "preprocessing": {"normalisation": "zscore_crop"}},
            "normalisation is 'zscore_crop', but synthetic patients are z-scored",
        ),
        (
            {"synthetic_share": 0.5, "preprocessing": {"spacing_mm": 1}, "synthetic": {"spacing_mm": 2}},
            "synthetic: spacing_mm is 2, but 1 in preprocessing: leave it out here",
        ),
        (
            {"path": "synthetic", "preprocessing": {"spacing_mm": 4}, "synthetic": {"spacing_mm": 8}},
            "synthetic: spacing_mm is 8, but 4 in preprocessing: leave it out there",
        ),
        (
            {"path": "synthetic", "preprocessing": {"spacing_mm": 4}},
            "synthetic: spacing_mm is 2, but 4 in preprocessing: leave it out there",
        ),
    ],
)
def test_preprocessing_that_synthetic_patients_would_not_follow_is_refused(data: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_from_dict({"data": data})


def test_synthetic_patients_among_others_have_the_voxel_size_of_the_cohort() -> None:
    mixed = config_from_dict({"data": {"synthetic_share": 0.5, "preprocessing": {"spacing_mm": 4}}}).data
    assert mixed.synthetic_settings(4.0) == {"spacing_mm": 4.0}
    alone = config_from_dict({"data": {"path": "synthetic"}}).data
    assert alone.synthetic_settings(4.0) == {}


@pytest.mark.parametrize(
    ("network", "synthetic"),
    [
        (["flair", "t1"], ["t1", "flair"]),
        (["flair", "t1"], ["flair", "t1ce", "t2", "t1"]),
        (["flair", "t1"], ["flair", "t2"]),
        (["flair", "t1ce", "t2", "t1"], ["flair", "t1ce", "t2", "t1"]),
    ],
)
def test_synthetic_modalities_that_the_network_would_take_for_others_are_refused(
    network: list[str], synthetic: list[str]
) -> None:
    data = {"path": "synthetic", "synthetic": {"modalities": synthetic}}
    words = f"modalities are {', '.join(synthetic)} but those of the network 'tiny' are {', '.join(network)}: leave"
    with pytest.raises(ValueError, match=words):
        toy_config(network={**TINY, "modalities": network}, data=data)


@pytest.mark.parametrize("synthetic", [["flair", "t1"], ["t1", "t1ce", "t2", "flair"]])
def test_synthetic_patients_may_have_all_modalities_or_those_of_the_network(synthetic: list[str]) -> None:
    data = {"path": "synthetic", "synthetic": {"modalities": synthetic}}
    config = toy_config(network={**TINY, "modalities": ["flair", "t1"]}, data=data)
    assert config.data.synthetic["modalities"] == synthetic
