"""Pictures of the predictions of tasks are in radiological view, as all others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from JointRegSegLib.pictures import predictions
from JointRegSegLib.pictures.predictions import Shown, draw_predictions
from JointRegSegLib.tasks.autoencoder import Autoencoder
from JointRegSegLib.tasks.image_target import ImageTarget
from JointRegSegLib.tasks.study_task import StudyTask
from JointRegSegLib.tasks.tissue import Tissue

CORNER = (slice(9, 12), slice(5, 8), slice(9, 12))  # high, in the middle, and on the patient's right


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures that are drawn in a test, kept instead of written."""
    from matplotlib import pyplot

    drawn: list[Any] = []
    monkeypatch.setattr(predictions, "save_figure", lambda figure, path: drawn.append(figure))
    yield drawn
    pyplot.close("all")


def brightest(picture: np.ndarray) -> tuple[float, float]:
    """Mean row and column of the brightest pixels, relative to the size of the picture."""
    bright = picture if picture.ndim == 2 else picture.sum(-1)
    rows, columns = np.nonzero(bright == bright.max())
    return rows.mean() / bright.shape[0], columns.mean() / bright.shape[1]


def drawn(task: StudyTask, image: np.ndarray, prediction: Any, target: Any, figures: list[Any]) -> list[Any]:
    shown = {task.name: [Shown("s1", image, prediction, target)]}
    draw_predictions([task], {task.name: [(prediction, target)]}, shown, Path("predictions.png"))
    return figures.pop().axes


def letters(axis: Any) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.get_position() for text in axis.texts}


def test_the_right_of_a_tissue_map_is_on_the_left(figures: list[Any]) -> None:
    labels = np.zeros((16, 12, 14), np.uint8)
    labels[9:12, 8:11, 9:12] = 1  # anterior, on the patient's right
    image = labels.astype(np.float32)
    for axis in drawn(Tissue(classes={"core": 1}), image, labels, torch.from_numpy(labels), figures):
        row, column = brightest(axis.images[0].get_array())
        assert row < 0.4
        assert column < 0.4
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top
        found = letters(axis)
        assert set(found) == {"R", "L", "A", "P"}
        assert found["R"][0] < found["L"][0]
        assert found["P"][1] < found["A"][1]


def test_the_right_of_a_coronal_slice_is_on_the_left_and_the_head_at_the_top(figures: list[Any]) -> None:
    image = torch.zeros(1, 16, 12, 14)
    image[(0, *CORNER)] = 1
    task, target = Autoencoder(), ImageTarget(image, torch.ones(16, 12, 14, dtype=torch.bool))
    for axis in drawn(task, image[0].numpy(), task.compact(0.5 * image.numpy(), target), None, figures):
        row, column = brightest(axis.images[0].get_array())
        assert row < 0.45
        assert column < 0.4
        assert axis.get_ylim()[0] > axis.get_ylim()[1]
        assert set(letters(axis)) == {"R", "L", "S", "I"}
        assert letters(axis)["R"][0] < letters(axis)["L"][0]
