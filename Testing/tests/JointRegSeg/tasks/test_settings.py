"""What the tasks on single studies read from manifests and configurations, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from JointRegSegLib.tasks.autoencoder import Autoencoder
from JointRegSegLib.tasks.classification import Classification
from JointRegSegLib.tasks.image_target import ImageTarget
from JointRegSegLib.tasks.regression import Regression


@pytest.mark.parametrize(("text", "number"), [("12,5", 12.5), ("0,125", 0.125), ("1.024", 1.024), ("1024", 1024)])
def test_a_decimal_comma_is_read(text: str, number: float) -> None:
    assert Regression(column="age").value_target(text, "s") == number


@pytest.mark.parametrize("text", ["1,024", "-12,345", "1,234,567"])
def test_a_comma_that_may_separate_thousands_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^s1: '{text}' in the column 'age'.*decimal point or without the comma"):
        Regression(column="age").value_target(text, "s1")


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0), ("a", "b"), 5])
def test_class_weights_that_are_no_weights_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"class_weights is .* a number of at least 0 for each class"):
        Classification(column="grade", class_weights=weights)
    assert Classification(column="grade", class_weights=[0, 2]).class_weights == (0.0, 2.0)


@pytest.mark.parametrize("loss", ["l2", "l1", "ssim"])
def test_a_study_without_normal_brain_adds_nothing_to_the_loss_of_an_autoencoder(loss: str) -> None:
    images, brain = torch.randn(1, 8, 8, 8), torch.ones(8, 8, 8, dtype=torch.bool)
    output = images[None] + 1, torch.zeros(1, 4), torch.zeros(1, 4)
    task = Autoencoder(loss_name=loss, lesions="lesions")
    assert float(task.loss(output, ImageTarget(images, brain, brain), brain)) == 0
    assert float(task.loss(output, ImageTarget(images, brain, ~brain), brain)) > 0
