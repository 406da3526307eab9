"""Settings of the preprocessing."""

from __future__ import annotations

import json

import pytest

from JointRegSegLib.images.preprocessing.config import PreprocessingConfig


@pytest.mark.parametrize(
    ("landmarks", "problem"),
    [
        ([0.0, 1.0], "histogram_landmarks: t1 has 2 landmarks but needs 11"),
        (["a"] * 11, "histogram_landmarks: t1: a landmark is 'a', which is not a number"),
        ([float("nan")] * 11, "histogram_landmarks: t1: a landmark is not finite"),
        ([3.0] * 11, "histogram_landmarks: t1: every landmark must be larger than the one before it"),
        ([1, 0, *range(2, 11)], "histogram_landmarks: t1: every landmark must be larger than the one before it"),
    ],
)
def test_landmarks_that_cannot_be_used_are_named(landmarks: list, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^preprocessing: {problem}$"):
        PreprocessingConfig.from_dict({"normalisation": "histogram", "histogram_landmarks": {"t1": landmarks}})


def test_settings_can_be_stored_as_json_and_unknown_ones_are_named() -> None:
    config = PreprocessingConfig(normalisation="histogram", histogram_landmarks={"t1": tuple(range(-5, 6))})
    again = PreprocessingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    with pytest.raises(ValueError, match="preprocessing: unknown keys colour; use spacing_mm, normalisation, n4"):
        PreprocessingConfig.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="histogram_landmarks: unknown modality 'pet'; use t1"):
        PreprocessingConfig(histogram_landmarks={"pet": (0.0, 1.0)})
    with pytest.raises(ValueError, match="normalisation 'rank' is unknown"):
        PreprocessingConfig(normalisation="rank")
