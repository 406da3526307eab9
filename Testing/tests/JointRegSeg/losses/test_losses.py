"""Losses of the joint network: closed forms, masks, gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from JointRegSegLib.losses.config import LossConfig
from JointRegSegLib.losses.registration import (
    diffusion,
    folding,
    gradient_deviation,
    healthy_in_both,
    registration_loss,
    tumor_of_labels,
    tumor_of_logits,
)
from JointRegSegLib.losses.segmentation import (
    IGNORED,
    cross_entropy,
    majority_labels,
    segmentation_loss,
    soft_dice_loss,
)
from JointRegSegLib.network.configuration import load_network_config
from JointRegSegLib.network.joint import JointOutput, build_network
from JointRegSegLib.registration.deformation import Deformation, warp
from JointRegSegLib.registration.squared_difference import relaxed_mse
from JointRegSegLib.tasks.joint import joint_loss

DOUBLE = torch.float64


def labels(seed: int = 0, batch: int = 2, size: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return torch.randint(0, 4, (batch, size, size, size), dtype=torch.uint8)


def certain(classes: Tensor, score: float = 30.0) -> Tensor:
    """Logits that are sure of the classes (B, D, H, W)."""
    return score * F.one_hot(classes.long(), 4).movedim(-1, 1).float()


def shifted(voxels: float, axis: int = 2, size: int = 8) -> Tensor:
    displacement = torch.zeros(1, 3, size, size, size)
    displacement[:, axis] = voxels
    return displacement


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
    part[:, 2:] = IGNORED
    other = logits.clone()
    other[:, :, 2:] = torch.randn(1, 4, 2, 4, 4)
    for config in (LossConfig(), LossConfig("cross_entropy", (1, 2, 3, 4), 2.0)):
        assert torch.equal(segmentation_loss(logits, part, config), segmentation_loss(other, part, config))
        assert torch.allclose(
            segmentation_loss(logits, part, config), segmentation_loss(logits[:, :, :2], true[:, :2], config), atol=1e-6
        )
    nothing = torch.full_like(true, IGNORED)
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
    true[:, 2:, 2:, 2:] = IGNORED
    expected = torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    expected[:, 0, 0, 0], expected[:, 1, 1, 1] = 3, IGNORED
    assert torch.equal(majority_labels(true, (2, 2, 2), 4), expected)


def test_class_weights_that_were_not_computed_yet_are_refused() -> None:
    config = LossConfig(class_weights="median_frequency")
    assert LossConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="class weights 'median_frequency' are not computed yet"):
        segmentation_loss(torch.zeros(2, 4, 4, 4, 4), labels(), config)
    with pytest.raises(ValueError, match=r"class_weights is 'median' but must be numbers .* or 'median_frequency'"):
        LossConfig(class_weights="median")


def test_published_similarity_warps_the_moving_studys_mask() -> None:
    """The second trap: with the mask left where it was, the warped tumour would count and its old place would not."""
    moving_tumour = torch.zeros(1, 1, 8, 8, 8)
    moving_tumour[..., 5] = 1
    healthy = healthy_in_both(torch.zeros_like(moving_tumour), moving_tumour, shifted(2))
    expected = torch.ones(8)
    expected[3] = 0  # fixed 3 is moving 5
    assert torch.equal(healthy, expected.expand(1, 1, 8, 8, 8))

    torch.manual_seed(0)
    fixed = torch.randn(1, 2, 8, 8, 8)
    moving = torch.zeros_like(fixed)
    moving[..., 2:] = fixed[..., :-2]
    moving[..., 5] = 100.0  # a tumour that only the moving study has
    warped = warp(moving, shifted(2))
    inside = (..., slice(0, 6))
    assert relaxed_mse(fixed[inside], warped[inside], healthy[inside]) < 1e-9
    assert relaxed_mse(fixed[inside], warped[inside], 1 - moving_tumour[inside]) > 100  # as the published code has it


def test_relaxed_similarity_leaves_the_fixed_tumour_out_and_has_no_gradient_there() -> None:
    torch.manual_seed(0)
    fixed, warped = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    healthy = torch.ones(1, 1, 4, 4, 4)
    healthy[..., 2:] = 0
    loss = relaxed_mse(fixed, warped, healthy)
    assert torch.allclose(loss, ((fixed - warped)[..., :2] ** 2).sum() / fixed.numel())
    loss.backward()
    assert warped.grad[..., 2:].abs().max() == 0
    assert warped.grad[..., :2].abs().min() > 0


def test_masks_pass_no_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    displacement = (0.3 * torch.randn(1, 3, 4, 4, 4)).requires_grad_()
    mask = healthy_in_both(tumor_of_logits(logits), tumor_of_logits(logits), displacement)
    assert not mask.requires_grad
    assert torch.equal(tumor_of_logits(certain(labels())), tumor_of_labels(labels()))


def test_absent_modalities_do_not_count() -> None:
    torch.manual_seed(0)
    fixed, warped = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4)
    absent = fixed.clone()
    absent[:, 1] = -3.0
    assert torch.allclose(relaxed_mse(absent, warped), relaxed_mse(fixed[:, :1], warped[:, :1]))
    assert relaxed_mse(torch.zeros_like(fixed), warped) == 0


def test_regularisers_have_their_closed_forms() -> None:
    gradients = torch.full((2, 3, 4, 4, 4), 0.5)
    assert gradient_deviation(gradients) == 0
    assert float(gradient_deviation(gradients + 0.1)) == pytest.approx(0.1 * 3 * 64, rel=1e-5)
    ramp = 0.2 * torch.arange(6.0).expand(1, 3, 6, 6, 6)  # all components grow along W
    assert diffusion(shifted(3.0)) == 0
    assert float(diffusion(ramp)) == pytest.approx(0.2**2 / 3, rel=1e-5)
    assert folding(shifted(2.0)) == 0
    folded = torch.zeros(1, 3, 6, 6, 6)
    folded[:, 2] = -3 * torch.arange(6.0)
    assert float(folding(folded)) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_symmetric_similarity_does_not_change_with_the_order_of_the_studies(similarity: str) -> None:
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 1, 2, 8, 8, 8)
    forward, backward = (0.4 * torch.randn(1, 3, 8, 8, 8) for _ in range(2))
    config = LossConfig(similarity=similarity, window=3, smoothness_weight=0.0)
    tumours = [tumor_of_labels((torch.rand(1, 8, 8, 8) > 0.8).to(torch.uint8)) for _ in range(2)]
    there = registration_loss(fixed, moving, Deformation(forward, backward), config, *tumours)
    back = registration_loss(moving, fixed, Deformation(backward, forward), config, *tumours[::-1])
    assert there.keys() == back.keys() == {"similarity"}
    assert torch.allclose(there["similarity"], back["similarity"])
    one_way = registration_loss(fixed, moving, Deformation(forward), replace(config, symmetric=False), *tumours)
    assert not torch.allclose(there["similarity"], one_way["similarity"])


@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_right_map_has_a_lower_loss_than_none(similarity: str) -> None:
    torch.manual_seed(0)
    fixed = F.interpolate(torch.randn(1, 1, 6, 6, 6), size=(16, 16, 16), mode="trilinear")
    moving = torch.roll(fixed, 2, dims=4)
    config = LossConfig(similarity=similarity, window=5, symmetric=False, smoothness_weight=0.0)
    losses = [
        float(registration_loss(fixed, moving, Deformation(shifted(s, size=16)), config)["similarity"]) for s in (0, 2)
    ]
    assert losses[1] < 0.3 * losses[0]


def test_joint_loss_is_segmentation_plus_beta_times_registration() -> None:
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 1, 4, 8, 8, 8)
    logits = [torch.randn(1, 4, 8, 8, 8) for _ in range(2)]
    true = [labels(s, batch=1, size=8) for s in (1, 2)]
    deformation = Deformation(0.3 * torch.randn(1, 3, 8, 8, 8), gradients=torch.rand(1, 3, 8, 8, 8))
    config = LossConfig(
        "cross_entropy",
        registration_weight=0.7,
        similarity="mse",
        mask_labels=False,
        symmetric=False,
        phi_weight=1e-3,
        smoothness_weight=0.0,
    )
    total, terms = joint_loss(JointOutput(*logits, deformation), fixed, moving, *true, config)
    warped = warp(moving, deformation.displacement)
    r, d = (tumor_of_logits(x) for x in logits)
    weight = (1 - r) * (1 - warp(d, deformation.displacement))
    similarity = ((fixed - warped) * weight).square().mean()
    regularity = 1e-3 * (deformation.gradients - 0.5).abs().sum()
    segmentation = (cross_entropy(logits[0], true[0]) + cross_entropy(logits[1], true[1])) / 2
    assert torch.allclose(terms["similarity"], similarity)
    assert torch.allclose(terms["gradients"], regularity)
    assert torch.allclose(total, segmentation + 0.7 * (similarity + regularity))
    assert not any(term.requires_grad for term in terms.values())


def test_mask_is_of_labels_where_they_are_known() -> None:
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 1, 4, 8, 8, 8)
    true = [labels(s, batch=1, size=8) // 3 for s in (1, 2)]
    deformation = Deformation(torch.zeros(1, 3, 8, 8, 8))
    config = LossConfig(similarity="mse", symmetric=False)
    healthy = ((true[0] == 0) & (true[1] == 0)).unsqueeze(1).float()
    expected = ((fixed - moving) * healthy).square().mean()
    guess = [torch.randn(1, 4, 8, 8, 8) for _ in range(2)]

    def similarity(*arguments: object, **changes: object) -> Tensor:
        return joint_loss(*arguments, replace(config, **changes))[1]["similarity"]

    assert torch.allclose(similarity(JointOutput(*guess, deformation), fixed, moving, *true), expected)
    assert torch.allclose(similarity(JointOutput(None, None, deformation), fixed, moving, *true), expected)
    everywhere = (fixed - moving).square().mean()
    assert torch.allclose(similarity(JointOutput(None, None, deformation), fixed, moving, None, None), everywhere)
    assert torch.allclose(similarity(JointOutput(*guess, deformation), fixed, moving, *true, relaxed=False), everywhere)
    assert not torch.allclose(
        similarity(JointOutput(*guess, deformation), fixed, moving, *true, mask_labels=False), expected
    )


def test_unlabelled_studies_still_register() -> None:
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 1, 4, 8, 8, 8)
    output = JointOutput(
        torch.randn(1, 4, 8, 8, 8), torch.randn(1, 4, 8, 8, 8), Deformation(torch.zeros(1, 3, 8, 8, 8))
    )
    config = LossConfig(symmetric=False)
    assert "segmentation" not in joint_loss(output, fixed, moving, None, None, config)[1]
    one = joint_loss(output, fixed, moving, labels(batch=1, size=8), None, config)[1]
    assert torch.allclose(one["segmentation"], segmentation_loss(output.fixed_logits, labels(batch=1, size=8), config))


def test_losses_that_cannot_be_computed_say_why() -> None:
    fixed = moving = torch.randn(1, 4, 8, 8, 8)
    plain = JointOutput(deformation=Deformation(torch.zeros(1, 3, 8, 8, 8)))
    with pytest.raises(ValueError, match="there is nothing to train"):
        joint_loss(JointOutput(), fixed, moving, None, None, LossConfig())
    with pytest.raises(ValueError, match="needs a deformation with its inverse; set symmetric to false"):
        joint_loss(plain, fixed, moving, None, None, LossConfig())
    with pytest.raises(ValueError, match="phi_weight is for the deformation 'cumulative'"):
        joint_loss(plain, fixed, moving, None, None, LossConfig(symmetric=False, phi_weight=1.0))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 4, 4, 4\) do not fit logits"):
        cross_entropy(torch.zeros(1, 4, 4, 4, 4), labels())
    with pytest.raises(ValueError, match="3 class weights for 4 classes"):
        cross_entropy(torch.zeros(2, 4, 4, 4, 4), labels(), (1, 2, 3))
    with pytest.raises(ValueError, match="regions are made of 4 classes, not 3"):
        soft_dice_loss(torch.zeros(2, 3, 4, 4, 4), labels())


@pytest.mark.parametrize("segmentation", ["cross_entropy", "dice", "dice_cross_entropy"])
def test_gradients_of_the_segmentation_are_right(segmentation: str) -> None:
    config = LossConfig(segmentation, (1, 2, 3, 4), focal_gamma=1.5)
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 2, 2, 2, dtype=DOUBLE, requires_grad=True)
    true = labels(batch=1, size=2)
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, true, config), logits)


@pytest.mark.parametrize("similarity", ["mse", "lncc"])
def test_gradients_of_the_registration_are_right(similarity: str) -> None:
    config = LossConfig(
        similarity=similarity, window=3, phi_weight=0.1, smoothness_weight=0.3, jacobian_weight=1.0, symmetric=True
    )
    torch.manual_seed(0)
    fixed, moving = (torch.randn(1, 1, 4, 4, 4, dtype=DOUBLE) for _ in range(2))
    tumours = [(torch.rand(1, 1, 4, 4, 4, dtype=DOUBLE) > 0.7).double() for _ in range(2)]
    fields = [(0.2 + 0.2 * torch.rand(1, 3, 4, 4, 4, dtype=DOUBLE)).requires_grad_() for _ in range(3)]

    def similar(displacement: Tensor, inverse: Tensor, gradients: Tensor) -> Tensor:
        # masks follow the map in steps without gradient: here they stay where they are
        still = Deformation(displacement, inverse, gradients=gradients)
        return sum(registration_loss(fixed, moving, still, config, *masks).values())

    masks: list[Tensor] = []
    assert torch.autograd.gradcheck(similar, fields, atol=1e-4)
    masks = tumours
    assert torch.isfinite(torch.stack(torch.autograd.grad(similar(*fields), fields))).all()


def test_a_few_steps_lower_the_joint_loss_of_both_configurations() -> None:
    torch.manual_seed(0)
    true = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    true[:, 4:10, 4:10, 4:10] = 2
    true[:, 6:8, 6:8, 6:8] = 3
    fixed = F.interpolate(torch.randn(1, 4, 5, 5, 5), size=(16, 16, 16), mode="trilinear") + true.unsqueeze(1)
    moving, moved = torch.roll(fixed, 1, dims=4), torch.roll(true, 1, dims=3)
    small = {"channels": (8, 8, 8), "encoder_convolutions": (1, 1, 1), "decoder_convolutions": (1, 1), "stride": 1}
    for name in ("neurocest", "estienne2020"):
        config = replace(load_network_config(name), auxiliary=min(1, load_network_config(name).auxiliary), **small)
        torch.manual_seed(0)
        net = build_network(config).train()
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        losses = []
        for _ in range(12):
            total, _ = joint_loss(net(fixed, moving), fixed, moving, true, moved, None, config)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            losses.append(float(total.detach()))
        assert losses[-1] < 0.75 * losses[0], name
