"""Checkpoints of a training."""

from __future__ import annotations

import pytest

from JointRegSegLib.training.checkpoints import check_same, of_this_version


def test_a_checkpoint_of_an_earlier_version_lacks_only_settings_that_had_their_defaults() -> None:
    wanted = {
        "task": "joint",
        "network": {"name": "a", "convolution": "full", "dropout": 0.5},
        "training": {"encoder_rate": 1.0, "seed": 3},
    }
    found = of_this_version({"network": {"name": "a"}, "training": {"seed": 3}}, wanted)
    assert found == {
        "task": "joint",
        "network": {"name": "a", "convolution": "full", "dropout": 0.0},
        "training": {"encoder_rate": 1.0, "seed": 3},
    }


def test_the_first_entry_of_a_list_that_differs_is_named() -> None:
    found = {"tasks": [{"task": "regression", "column": "the age of the patient", "mean": 41.0}, {"task": "tissue"}]}
    wanted = {"tasks": [{"task": "regression", "column": "the age of the patient", "mean": 59.0}, {"task": "tissue"}]}
    with pytest.raises(ValueError, match=r"training: tasks\[0\]\.mean was 41\.0 and is now 59\.0; use another"):
        check_same(found, wanted, "last.pt")
    fewer = {"tasks": [*found["tasks"], {"task": "autoencoder"}]}
    with pytest.raises(ValueError, match=r"training: tasks was .*'tissue'\}\] and is now .*'autoencoder'\}\]"):
        check_same(found, fewer, "last.pt")
