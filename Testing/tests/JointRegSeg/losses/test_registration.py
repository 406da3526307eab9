"""Losses of the registration: masks, regularizers, symmetry, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loss_cases import certain, labels, shifted
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
from JointRegSegLib.registration.deformation import Deformation, warp
from JointRegSegLib.registration.similarity import SIMILARITIES
from JointRegSegLib.registration.squared_difference import relaxed_mse

DOUBLE = torch.float64


def test_relaxed_similarity_warps_the_mask_of_the_moving_study() -> None:
    """With the mask left where it was, the warped tumour would count and its former place would not."""
    moving_tumor = torch.zeros(1, 1, 8, 8, 8)
    moving_tumor[..., 5] = 1
    healthy = healthy_in_both(torch.zeros_like(moving_tumor), moving_tumor, shifted(2))
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
    assert relaxed_mse(fixed[inside], warped[inside], 1 - moving_tumor[inside]) > 100  # as in the published code


def test_masks_pass_no_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    displacement = (0.3 * torch.randn(1, 3, 4, 4, 4)).requires_grad_()
    mask = healthy_in_both(tumor_of_logits(logits), tumor_of_logits(logits), displacement)
    assert not mask.requires_grad
    assert torch.equal(tumor_of_logits(certain(labels())), tumor_of_labels(labels()))


def test_regularizers_have_their_closed_forms() -> None:
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


@pytest.mark.parametrize("similarity", SIMILARITIES)
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


@pytest.mark.parametrize(("similarity", "share"), [("mse", 0.3), ("lncc", 0.3), ("nmi", 0.7), ("mind", 0.3)])
def test_right_map_has_a_lower_loss_than_none(similarity: str, share: float) -> None:
    torch.manual_seed(0)
    fixed = F.interpolate(torch.randn(1, 1, 6, 6, 6), size=(16, 16, 16), mode="trilinear")
    moving = torch.roll(fixed, 2, dims=4)
    config = LossConfig(similarity=similarity, window=5, symmetric=False, smoothness_weight=0.0)
    losses = [
        float(registration_loss(fixed, moving, Deformation(shifted(s, size=16)), config)["similarity"]) for s in (0, 2)
    ]
    assert losses[1] < share * losses[0]


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
