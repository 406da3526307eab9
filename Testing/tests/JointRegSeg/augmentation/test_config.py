"""Settings of the augmentation: plain JSON, checked, with messages that name the place and the key."""

from __future__ import annotations

import dataclasses
import json

import pytest
from augmentation_cases import STRONG

from JointRegSegLib.augmentation.config import AugmentationConfig


def test_the_settings_survive_json() -> None:
    config = dataclasses.replace(STRONG, patch=(8, 8, 8))
    assert AugmentationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert AugmentationConfig.from_dict({"shared": {"rotation_deg": 3}}).shared.rotation_deg == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nois_sd": 0.1}, "unknown keys nois_sd; use shared, independent, patch"),
        ({"shared": {"twist": 1}}, "shared: unknown keys twist; use flip, probability"),
        ({"noise_probability": 1.5}, "noise_probability must be a probability"),
        ({"blur_voxels": -1}, "blur_voxels must be a number of 0 or more"),
        ({"noise_sd": "loud"}, "noise_sd must be a number"),
        ({"patch": [8, 8]}, "patch needs three positive whole numbers"),
        ({"patch_proportions": {"tumour": 1}}, "unknown class 'tumour'"),
        ({"patch_margin_voxels": 0.5}, "patch_margin_voxels must be a whole number"),
        ({"patch_margin_voxels": -1}, "patch_margin_voxels must be a number of 0 or more"),
        ({"shared": {"flip": [0, 0, 2]}}, "shared: flip needs a probability"),
        ({"shared": 3}, "shared: must be an object with the keys flip"),
        ({"dropout_shared": 1}, "dropout_shared must be true or false"),
        ({"anisotropy_factor": 0.5}, "anisotropy_factor must be at least 1"),
        ([1], "must be an object with the keys shared"),
    ],
)
def test_unusable_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=r"^train\.json: ") as error:
        AugmentationConfig.from_dict(values, "train.json")
    assert message in str(error.value)
