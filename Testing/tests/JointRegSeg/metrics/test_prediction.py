"""Scores of predicted numbers and classes against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.metrics.prediction import (
    calibration_error,
    classification_scores,
    confusion_matrix,
    paired_interval,
    regression_scores,
    roc_auc,
    roc_curve,
)


def test_the_area_under_the_curve_is_the_probability_of_the_right_order() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    scores = np.round(rng.normal(positive, 1.0), 1)  # with ties
    pairs = scores[positive][:, None] - scores[~positive][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert roc_auc(scores, positive) == pytest.approx(expected)
    false_rate, true_rate = roc_curve(scores, positive)
    trapezes = np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2
    assert trapezes.sum() == pytest.approx(expected)
    assert np.isnan(roc_auc(scores, np.ones(60, bool)))


def test_right_standard_deviations_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    true, sd = rng.uniform(20, 80, 20_000), rng.uniform(1, 5, 20_000)
    found = regression_scores(true + sd * rng.standard_normal(20_000), true, sd)
    assert found["within_sd"] == pytest.approx(0.683, abs=0.01)
    assert found["within_2_sd"] == pytest.approx(0.954, abs=0.01)
    assert found["sd_ratio"] == pytest.approx(1, abs=0.02)
    assert regression_scores(np.full(5, 2.0), np.arange(5.0))["r2"] == 0


def test_classes_are_counted_and_probabilities_calibrated() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    true = np.array([0, 0, 1, 1])
    assert confusion_matrix(probabilities, true).tolist() == [[2, 0], [1, 1]]
    found = classification_scores(probabilities, true)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["auc"] == 1
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 50_000)
    assert calibration_error(confidence, rng.random(50_000) < confidence) < 0.01
    assert calibration_error(confidence, np.zeros(50_000, bool)) == pytest.approx(0.75, abs=0.01)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, 400)
    mean, low, high = paired_interval(values)
    error = values.std() / np.sqrt(400)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.02)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.02)
