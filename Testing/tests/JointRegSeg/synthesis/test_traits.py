"""Age and sex of synthetic subjects: the laws and the best predictions that they allow."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.synthesis.random_fields import Draw
from JointRegSegLib.synthesis.traits import BEST_ACCURACY, random_traits

SUBJECTS = [random_traits(Draw(seed)) for seed in range(4000)]


def test_the_best_age_is_the_mean_of_the_age_given_the_brain_age() -> None:
    age, brain, best = (np.array([getattr(s, name) for s in SUBJECTS]) for name in ("age", "brain_age", "best_age"))
    for low in range(15, 85, 10):
        near = (brain >= low) & (brain < low + 10)
        assert best[near].mean() == pytest.approx(age[near].mean(), abs=0.8)
    assert np.abs(age - best).mean() == pytest.approx(3.66, abs=0.1)
    assert np.abs(age - best).mean() < np.abs(age - brain).mean()


def test_no_rule_for_the_sex_is_better_than_the_stated_accuracy() -> None:
    male = np.array([s.sex == "M" for s in SUBJECTS])
    probability = np.array([s.best_probability_male for s in SUBJECTS])
    assert ((probability > 0.5) == male).mean() == pytest.approx(BEST_ACCURACY, abs=0.015)
    for low in np.arange(0, 1, 0.2):  # the probabilities are right, so that nothing is left to be learned
        near = (probability >= low) & (probability < low + 0.2)
        mean = probability[near].mean()
        assert male[near].mean() == pytest.approx(mean, abs=3.5 * np.sqrt(mean * (1 - mean) / near.sum()))


def test_the_brain_tells_of_the_age_by_its_ventricles_and_sulci() -> None:
    young, old = (min(SUBJECTS, key=lambda s, age=age: abs(s.brain_age - age)) for age in (25, 75))
    assert old.ventricle_strength > young.ventricle_strength + 0.3
    assert old.sulcal_exponent < 0.8 < 1.2 < young.sulcal_exponent
