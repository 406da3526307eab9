"""Checkpoints of a training."""

from __future__ import annotations

from JointRegSegLib.training.checkpoints import of_this_version


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
