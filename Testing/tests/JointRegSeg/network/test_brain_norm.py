"""Normalisation by the brain: statistics, gradients, and independence of the background."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from JointRegSegLib.network.brain_norm import Brains, normalize_in_brain
from JointRegSegLib.network.configuration import load_network_config
from JointRegSegLib.network.joint import build_network

BACKGROUND = -3.0
SMALL = replace(
    load_network_config("neurocest"),
    normalisation="brain",
    channels=(4, 6, 8),
    encoder_convolutions=(1, 1, 1),
    decoder_convolutions=(1, 1),
    auxiliary=1,
    stride=1,
)


def study(seed: int = 0, margin: int = 4) -> torch.Tensor:
    """A brain (1, 4, 16, 12, 12) with a margin of background."""
    inside = torch.randn(1, 4, 16, 12, 12, generator=torch.Generator().manual_seed(seed)).clamp(-2.9, 3)
    return F.pad(inside, [margin] * 6, value=BACKGROUND)


def test_features_have_mean_0_and_variance_1_in_the_brain():
    generator = torch.Generator().manual_seed(0)
    x = 5 + 3 * torch.randn(1, 3, 6, 5, 4, generator=generator, dtype=torch.float64)
    brain = (torch.rand(1, 1, 6, 5, 4, generator=generator) > 0.5).double()
    result = normalize_in_brain(x, brain, torch.ones(3).double(), torch.zeros(3).double(), 0.0)
    inside = result[0][:, brain[0, 0] > 0]
    torch.testing.assert_close(inside.mean(1), torch.zeros(3).double())
    torch.testing.assert_close(inside.var(1, correction=0), torch.ones(3).double())


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_gradients_agree_with_finite_differences(order):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, 4, 3, 5, generator=generator, dtype=torch.float64).contiguous(memory_format=order)
    weight, bias = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    brain = (torch.rand(1, 1, 4, 3, 5, generator=generator) > 0.5).double()
    arguments = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda x, w, b: normalize_in_brain(x, brain, w, b, 1e-5), arguments)


def test_brain_is_where_any_modality_is_above_the_background():
    images = torch.full((1, 2, 4, 4, 4), BACKGROUND)
    images[0, 0, 0, 0, 0] = 1.0
    images[0, 1, 3, 3, 3] = -2.0
    brains = Brains.of_studies(images, 2)
    assert brains.at(torch.zeros(1, 1, 4, 4, 4)).sum() == 2
    coarse = brains.at(torch.zeros(1, 1, 2, 2, 2))
    assert coarse[0, 0].nonzero().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_segmentation_does_not_depend_on_how_much_background_surrounds_the_brain():
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    narrow, wide = study(margin=16), study(margin=32)  # beyond the reach of the border of the grid
    with torch.no_grad():
        expected, found = network.segment(narrow), network.segment(wide)
    inner, brain = (slice(16, -16),) * 3, (slice(32, -32),) * 3
    torch.testing.assert_close(found[(..., *brain)], expected[(..., *inner)], atol=1e-4, rtol=1e-4)


def test_exchanged_studies_give_the_opposite_deformation():
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    torch.nn.init.normal_(network.registration.output.weight, std=0.5)
    with torch.no_grad():
        forward = network(study(0), study(1)).deformation
        backward = network(study(1), study(0)).deformation
    torch.testing.assert_close(forward.inverse, backward.displacement)


def test_empty_study_is_normalised_over_the_whole_grid():
    network = build_network(SMALL).eval()
    with torch.no_grad():
        assert bool(network.segment(torch.full((1, 4, 16, 16, 16), BACKGROUND)).isfinite().all())
