"""The task of tissue segmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from JointRegSegLib.metrics.surface_distance import HD95_ONE_EMPTY_MM
from JointRegSegLib.tasks.tissue import Tissue


def test_lesions_smaller_than_the_smallest_one_take_the_next_most_probable_class() -> None:
    task = Tissue(classes={"wm": 1, "lesion": 2}, smallest_voxels={"lesion": 4})
    logits = torch.zeros(1, 3, 6, 6, 6)
    logits[:, 1] = 1.0
    logits[0, 2, :2, :2, :2] = 3.0  # 8 voxels
    logits[0, 2, 5, 5, 3:] = 3.0  # 3 voxels
    probabilities = task.decode((logits,))
    labels = task.labels_of(probabilities)
    assert (labels == 2).sum() == 8
    assert (labels[:2, :2, :2] == 2).all()
    assert (labels[5, 5, 3:] == 1).all()
    assert np.allclose(probabilities.sum(0), 1, atol=1e-6)


def test_studies_without_a_class_count_neither_for_its_dice_nor_for_its_distance() -> None:
    task = Tissue(classes={"wm": 1, "lesion": 2})
    healthy = np.ones((6, 6, 6), np.uint8)
    true, predicted = healthy.copy(), healthy.copy()
    true[3, 3, 3] = predicted[3, 3, 5] = 2
    alone = task.scores([predicted], [true], 1.0)
    assert alone["hd95_lesion_mm"] == 2
    assert task.scores([predicted, healthy], [true, healthy], 1.0)["hd95_lesion_mm"] == 2
    missed = task.scores([predicted, healthy], [true, true], 1.0)
    assert missed["hd95_lesion_mm"] == pytest.approx((2 + HD95_ONE_EMPTY_MM) / 2)
    assert np.isnan(task.scores([healthy], [healthy], 1.0)["hd95_lesion_mm"])


@pytest.mark.parametrize(
    ("smallest", "message"),
    [({"lesion": 0}, "whole numbers above 0 by class"), ({"tumor": 3}, "names 'tumor', which is none of the classes")],
)
def test_a_smallest_size_that_cannot_be_used_is_refused(smallest: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tissue(smallest_voxels=smallest)
