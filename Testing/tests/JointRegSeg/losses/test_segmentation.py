"""Losses of the segmentation: closed forms, ignored voxels, deep supervision, gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from loss_cases import certain, labels
from torch.nn import functional as F

from JointRegSegLib.images.labels import UNLABELED
from JointRegSegLib.losses.config import LossConfig
from JointRegSegLib.losses.segmentation import cross_entropy, majority_labels, segmentation_loss, soft_dice_loss

DOUBLE = torch.float64


def test_cross_entropy_of_no_opinion_is_the_logarithm_of_the_classes() -> None:
    assert float(cross_entropy(torch.zeros(2, 4, 4, 4, 4), labels())) == pytest.approx(math.log(4))
    assert float(cross_entropy(torch.zeros(2, 4, 4, 4, 4), labels(), (1, 2, 3, 4))) == pytest.approx(math.log(4))


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 3.0)])
def test_cross_entropy_is_that_of_torch(weights: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    logits, true = torch.randn(2, 4, 4, 4, 4), labels()
    expected = F.cross_entropy(logits, true.long(), torch.tensor(weights) if weights else None)
    assert torch.allclose(cross_entropy(logits, true, weights), expected)
    assert torch.allclose(cross_entropy(logits, true.unsqueeze(1), weights), expected)


def test_focal_factor_fades_what_is_right_already() -> None:
    torch.manual_seed(0)
    logits, true = torch.randn(2, 4, 4, 4, 4), labels()
    p = logits.softmax(1).gather(1, true.long().unsqueeze(1)).squeeze(1)
    assert torch.allclose(cross_entropy(logits, true, (), 2.0), (-((1 - p) ** 2) * p.log()).mean())
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    w = weights[true.long()]
    expected = (-w * (1 - p) ** 2 * p.log()).sum() / w.sum()
    assert torch.allclose(cross_entropy(logits, true, weights.tolist(), 2.0), expected)
    # almost no factor is almost the plain one
    assert torch.allclose(
        cross_entropy(logits, true, weights.tolist(), 1e-6), cross_entropy(logits, true, (1, 2, 3, 4))
    )


def test_soft_dice_is_zero_for_the_truth_and_nearly_one_for_the_opposite() -> None:
    true = labels(size=8)
    for over in ("regions", "classes"):
        assert soft_dice_loss(certain(true), true, over) < 1e-6
        assert soft_dice_loss(certain((true + 1) % 4), true, "classes") > 0.98


def test_soft_dice_over_regions_is_that_of_their_summed_probabilities() -> None:
    torch.manual_seed(2)
    logits, true = torch.randn(2, 4, 4, 4, 4), labels(3)
    p = logits.softmax(1)
    expected = []
    for members in ((1, 2, 3), (1, 3), (3,)):
        predicted, actual = p[:, members].sum(1), torch.isin(true, torch.tensor(members)).float()
        overlap = (predicted * actual).sum((1, 2, 3))
        expected.append(1 - (2 * overlap + 1) / (predicted.sum((1, 2, 3)) + actual.sum((1, 2, 3)) + 1))
    assert torch.allclose(soft_dice_loss(logits, true), torch.stack(expected).mean(), atol=1e-5)


def test_ignored_voxels_count_nowhere() -> None:
    torch.manual_seed(0)
    logits, true = torch.randn(1, 4, 4, 4, 4), labels(batch=1)
    part = true.clone()
    part[:, 2:] = UNLABELED
    other = logits.clone()
    other[:, :, 2:] = torch.randn(1, 4, 2, 4, 4)
    for config in (LossConfig(), LossConfig("cross_entropy", (1, 2, 3, 4), 2.0)):
        assert torch.equal(segmentation_loss(logits, part, config), segmentation_loss(other, part, config))
        assert torch.allclose(
            segmentation_loss(logits, part, config), segmentation_loss(logits[:, :, :2], true[:, :2], config), atol=1e-6
        )
    nothing = torch.full_like(true, UNLABELED)
    assert cross_entropy(logits, nothing) == 0
    assert soft_dice_loss(logits, nothing) == 0


def test_deep_supervision_is_a_weighted_mean_of_the_levels() -> None:
    torch.manual_seed(0)
    true = labels(size=8)
    logits, half, quarter = (torch.randn(2, 4, n, n, n) for n in (8, 4, 2))
    config = LossConfig(auxiliary_weight=0.5)
    one = [segmentation_loss(x, majority_labels(true, x.shape[2:], 4), config) for x in (logits, half, quarter)]
    expected = (one[0] + 0.5 * one[1] + 0.25 * one[2]) / 1.75
    assert torch.allclose(segmentation_loss(logits, true, config, (half, quarter)), expected)
    plain = replace(config, auxiliary_weight=0.0)
    assert torch.equal(segmentation_loss(logits, true, plain, (half, quarter)), one[0])


def test_lower_levels_learn_the_most_frequent_label() -> None:
    true = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    true[:, :2, :2, :2] = 3
    true[:, 0, 0, 0] = 1
    true[:, 2:, 2:, 2:] = UNLABELED
    expected = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    expected[:, 0, 0, 0], expected[:, 1, 1, 1] = 3, UNLABELED
    assert torch.equal(majority_labels(true, (2, 2, 2), 4), expected)


def test_class_weights_that_were_not_computed_yet_are_refused() -> None:
    config = LossConfig(class_weights="median_frequency")
    assert LossConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="class weights 'median_frequency' have not been computed yet"):
        segmentation_loss(torch.zeros(2, 4, 4, 4, 4), labels(), config)
    with pytest.raises(ValueError, match=r"class_weights is 'median' but must be numbers .* or 'median_frequency'"):
        LossConfig(class_weights="median")


@pytest.mark.parametrize("segmentation", ["cross_entropy", "dice", "dice_cross_entropy"])
def test_gradients_of_the_segmentation_are_right(segmentation: str) -> None:
    config = LossConfig(segmentation, (1, 2, 3, 4), focal_gamma=1.5)
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 2, 2, 2, dtype=DOUBLE, requires_grad=True)
    true = labels(batch=1, size=2)
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, true, config), logits)


def test_a_fifth_class_is_a_region_of_its_own() -> None:
    cavity = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    cavity[:, 1:3] = 4
    right = 20.0 * torch.nn.functional.one_hot(cavity, 5).movedim(-1, 1).float()
    assert float(soft_dice_loss(right, cavity)) < 1e-3
    missed = 20.0 * torch.nn.functional.one_hot(torch.zeros_like(cavity), 5).movedim(-1, 1).float()
    assert float(soft_dice_loss(missed, cavity)) == pytest.approx((1 - 1 / 33) / 4, abs=1e-3)


def test_labels_and_weights_that_do_not_fit_say_why() -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(2, 4, 4, 4\) do not fit logits"):
        cross_entropy(torch.zeros(1, 4, 4, 4, 4), labels())
    with pytest.raises(ValueError, match="3 class weights for 4 classes"):
        cross_entropy(torch.zeros(2, 4, 4, 4, 4), labels(), (1, 2, 3))
    with pytest.raises(ValueError, match="regions are made of 4 classes, or 5 with the resection cavity, not 3"):
        soft_dice_loss(torch.zeros(2, 3, 4, 4, 4), labels())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
def test_the_focal_loss_of_a_certain_voxel_has_a_gradient(gamma: float) -> None:
    logits = torch.zeros(1, 4, 1, 1, 2)
    logits[0, 0] = 200.0
    logits.requires_grad_()
    labels = torch.zeros(1, 1, 1, 2, dtype=torch.long)
    loss = segmentation_loss(logits, labels, LossConfig("cross_entropy", focal_gamma=gamma))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())
