"""Uncertainties of numbers and classes are scaled to what held-out studies show, and do not choose the best step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from JointRegSegLib.tasks.classification import Classification
from JointRegSegLib.tasks.regression import Regression
from JointRegSegLib.tasks.study_task import StudyTask

STUDIES = 400


def numbers(sd_scale: float, seed: int = 0) -> tuple[Regression, list, list, list]:
    """Predictions with an error of 5 years whose standard deviations are off by a factor, with targets and losses."""
    rng = np.random.default_rng(seed)
    task = Regression(column="age", mean=50.0, sd=17.0)
    targets = rng.uniform(20, 80, STUDIES)
    means = (targets + rng.normal(0, 5, STUDIES) - 50) / 17
    outputs = [torch.tensor([[mean, 2 * np.log(5 * sd_scale / 17)]]) for mean in means]
    mask = torch.ones(1)
    losses = [float(task.loss(o, t, mask)) for o, t in zip(outputs, targets, strict=True)]
    return task, [task.decode(o) for o in outputs], list(targets), losses


def classes(scale: float) -> tuple[Classification, list, list, list]:
    """Probabilities of two classes whose scores are too large by a factor, with targets and losses."""
    rng = np.random.default_rng(1)
    task = Classification(column="sex", classes=("F", "M"), class_weights=(1.0, 1.0))
    scores = rng.normal(0, 2, STUDIES)
    targets = (rng.random(STUDIES) < 1 / (1 + np.exp(-scores))).astype(int)
    outputs = [torch.tensor([[0.0, scale * score]]) for score in scores]
    losses = [float(task.loss(o, t, torch.ones(1))) for o, t in zip(outputs, targets, strict=True)]
    return task, [task.decode(o) for o in outputs], list(targets), losses


@pytest.mark.parametrize("sd_scale", [0.2, 1.0, 5.0])
def test_standard_deviations_become_those_of_the_errors(sd_scale: float) -> None:
    task, predictions, targets, _ = numbers(sd_scale)
    scaled = task.calibrated(predictions, targets)
    assert scaled.sd_factor == pytest.approx(1 / sd_scale, rel=0.1)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_probabilities_become_frequencies(scale: float) -> None:
    task, predictions, targets, _ = classes(scale)
    scaled = task.calibrated(predictions, targets)
    assert scaled.temperature == pytest.approx(scale, rel=0.2)
    sure = torch.tensor([[0.0, 2.0 * scale]])
    assert scaled.decode(sure)[1] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=0.05)


def test_few_studies_calibrate_nothing() -> None:
    task, predictions, targets, losses = classes(3.0)
    assert task.calibrated(predictions[:5], targets[:5]) == task
    assert task.held_out_loss(losses[:5], predictions[:5], targets[:5]) == pytest.approx(np.mean(losses[:5]))


@pytest.mark.parametrize("made", [numbers, classes])
def test_the_best_step_does_not_depend_on_the_scale_of_the_uncertainties(made: object) -> None:
    held: list[float] = []
    plain: list[float] = []
    for scale in (0.3, 1.0, 3.0):
        task: StudyTask
        task, predictions, targets, losses = made(scale)  # type: ignore[operator]
        held.append(task.held_out_loss(losses, predictions, targets))
        plain.append(float(np.mean(losses)))
    assert np.ptp(held) < 0.01
    assert np.ptp(plain) > 0.1
    assert held[1] == pytest.approx(plain[1], abs=0.02)  # nothing to scale there
