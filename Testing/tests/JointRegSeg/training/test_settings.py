"""Learning rates, length and defaults of a training."""

from __future__ import annotations

import pytest

from JointRegSegLib.training.config_files import config_from_dict
from JointRegSegLib.training.settings import TrainingSettings


def test_learning_rates_follow_their_schedules() -> None:
    base = {"learning_rate": 1.0, "final_rate": 0.1, "epochs": 1, "steps": 100}
    cosine = TrainingSettings(schedule="cosine", **base)
    assert [cosine.rate(0, share) for share in (0, 0.5, 1)] == pytest.approx([1.0, 0.55, 0.1])
    cycle = TrainingSettings(schedule="one_cycle", **base)
    assert [cycle.rate(0, share) for share in (0, 0.15, 0.3, 1)] == pytest.approx([0.04, 0.52, 1.0, 0.1])
    constant = TrainingSettings(schedule="constant", warmup_steps=4, **base)
    assert [constant.rate(step, 0) for step in (0, 1, 3, 9)] == pytest.approx([0.25, 0.5, 1, 1])
    plateau = TrainingSettings(schedule="plateau", **base)
    assert [plateau.rate(0, 0, n) for n in (0, 1, 2)] == pytest.approx([1, 0.2, 0.04])
    timed = TrainingSettings(steps=100, time_limit_minutes=1)
    assert timed.share_done(20, 30) == 0.5
    assert timed.share_done(80, 30) == 0.8


@pytest.mark.parametrize(
    ("step", "seconds", "stale", "reason"),
    [
        (99, 59.9, 4, ""),
        (100, 0, 0, "all steps"),
        (0, 60, 0, "1 minutes"),
        (0, 0, 5, "no improvement for 5 epochs"),
    ],
)
def test_a_training_ends_for_the_first_reason_that_applies(step: int, seconds: float, stale: int, reason: str) -> None:
    settings = TrainingSettings(steps=100, time_limit_minutes=1, patience=5)
    assert settings.end_reason(step, seconds, stale) == reason


def test_published_settings_are_the_defaults_of_the_published_network() -> None:
    config = config_from_dict({"network": "estienne2020"})
    settings = config.training
    assert (settings.optimiser, settings.learning_rate, settings.batch_size) == ("adam", 2e-3, 2)
    assert (settings.learning_rate_factor, settings.learning_rate_patience, settings.patience) == (0.2, 30, 50)
    assert settings.validate_every_batches == 100
    assert (config.loss.phi_weight, config.loss.registration_weight, config.loss.similarity) == (1e-10, 1, "mse")
