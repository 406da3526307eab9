"""The joint task: its loss, with and without labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loss_cases import labels
from torch import Tensor
from torch.nn import functional as F

from JointRegSegLib.losses.config import LossConfig
from JointRegSegLib.losses.registration import tumor_of_logits
from JointRegSegLib.losses.segmentation import cross_entropy, segmentation_loss
from JointRegSegLib.network.configuration import load_network_config
from JointRegSegLib.network.joint import JointOutput, build_network
from JointRegSegLib.registration.deformation import Deformation, warp
from JointRegSegLib.tasks.joint import joint_loss
from JointRegSegLib.tasks.protocol import StudyPair


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
    total, terms = joint_loss(JointOutput(*logits, deformation), StudyPair(fixed, moving, *true), config)
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

    def similarity(output: JointOutput, pair: StudyPair, **changes: bool) -> Tensor:
        return joint_loss(output, pair, replace(config, **changes))[1]["similarity"]

    labelled, unlabelled = StudyPair(fixed, moving, *true), StudyPair(fixed, moving)

    assert torch.allclose(similarity(JointOutput(*guess, deformation), labelled), expected)
    assert torch.allclose(similarity(JointOutput(None, None, deformation), labelled), expected)
    everywhere = (fixed - moving).square().mean()
    assert torch.allclose(similarity(JointOutput(None, None, deformation), unlabelled), everywhere)
    assert torch.allclose(similarity(JointOutput(*guess, deformation), labelled, relaxed=False), everywhere)
    assert not torch.allclose(similarity(JointOutput(*guess, deformation), labelled, mask_labels=False), expected)


def test_unlabelled_studies_still_register() -> None:
    torch.manual_seed(0)
    fixed, moving = torch.randn(2, 1, 4, 8, 8, 8)
    output = JointOutput(
        torch.randn(1, 4, 8, 8, 8), torch.randn(1, 4, 8, 8, 8), Deformation(torch.zeros(1, 3, 8, 8, 8))
    )
    config = LossConfig(symmetric=False)
    assert "segmentation" not in joint_loss(output, StudyPair(fixed, moving), config)[1]
    one = joint_loss(output, StudyPair(fixed, moving, labels(batch=1, size=8)), config)[1]
    assert torch.allclose(one["segmentation"], segmentation_loss(output.fixed_logits, labels(batch=1, size=8), config))


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
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        losses = []
        for _ in range(12):
            total, _ = joint_loss(net(fixed, moving), StudyPair(fixed, moving, true, moved), config.loss)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(float(total.detach()))
        assert losses[-1] < 0.75 * losses[0], name


def test_losses_that_cannot_be_computed_say_why() -> None:
    pair = StudyPair(*torch.randn(2, 1, 4, 8, 8, 8))
    plain = JointOutput(deformation=Deformation(torch.zeros(1, 3, 8, 8, 8)))
    with pytest.raises(ValueError, match="there is nothing to train"):
        joint_loss(JointOutput(), pair)
    with pytest.raises(ValueError, match="needs a deformation with its inverse; set symmetric to false"):
        joint_loss(plain, pair)
    with pytest.raises(ValueError, match="phi_weight is for the deformation 'cumulative'"):
        joint_loss(plain, pair, LossConfig(symmetric=False, phi_weight=1.0))
