"""The registry of similarity measures, and what registration does with each of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from registration_cases import QUICK, error, pair, texture
from torch import Tensor

from JointRegSegLib.losses.config import LossConfig
from JointRegSegLib.losses.registration import registration_loss
from JointRegSegLib.registration.deformation import Deformation, warp
from JointRegSegLib.registration.instance_optimization import refine
from JointRegSegLib.registration.local_correlation import lncc
from JointRegSegLib.registration.refinement_settings import RefinementSettings
from JointRegSegLib.registration.similarity import SIMILARITIES, Similarity, find_similarity
from JointRegSegLib.registration.squared_difference import relaxed_mse


def test_every_measure_is_found_by_its_name_and_says_what_it_is_for() -> None:
    assert set(SIMILARITIES) == {"lncc", "mse", "nmi", "mind"}
    for name, measure in SIMILARITIES.items():
        assert find_similarity(name) is measure
        assert measure.name == name
        assert measure.title
        assert measure.suits
        assert measure.cost > 0


def test_listing_the_measures_does_not_load_torch() -> None:
    code = "import sys; from JointRegSegLib.registration.similarity import SIMILARITIES; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones_wherever_it_is_given() -> None:
    message = "similarity 'ncc' is unknown; use one of lncc, mse, nmi, mind"
    with pytest.raises(ValueError, match=message):
        find_similarity("ncc")
    with pytest.raises(ValueError, match=f"loss: {message}"):
        LossConfig.from_dict({"similarity": "ncc"})
    with pytest.raises(ValueError, match=message):
        RefinementSettings(similarity="ncc")


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_loss_of_equal_images_is_the_lowest(name: str) -> None:
    image, other = texture(0, (12, 12, 12)), texture(1, (12, 12, 12))
    measure = SIMILARITIES[name]
    least = float(measure.loss(image, image, window=5))
    assert least >= -1e-6
    assert least < 0.8 * float(measure.loss(image, other, window=5))


@pytest.mark.parametrize("name", ["mse", "mind"])
def test_the_loss_of_equal_images_is_zero_for_measures_of_difference(name: str) -> None:
    image = texture(0, (12, 12, 12))
    assert SIMILARITIES[name].loss(image, image) == 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_images_that_are_constant_where_they_count_have_no_similarity_and_are_not_moved(name: str) -> None:
    fixed = torch.full((1, 2, 12, 12, 12), -3.0)
    fixed[..., 4:8, 4:8, 4:8] = texture(0, (4, 4, 4))
    moving = fixed.roll(1, -1).requires_grad_()
    background = torch.ones(1, 1, 12, 12, 12)
    background[..., 3:10, 3:10, 3:10] = 0
    measure = SIMILARITIES[name]
    loss = measure.loss(fixed, moving, background, 5)
    loss.backward()
    assert loss.item() == pytest.approx(measure.best, abs=1e-6)
    assert moving.grad is not None
    assert float(moving.grad.abs().max()) < 1e-6


def test_a_channel_that_is_constant_where_it_counts_does_not_change_the_mutual_information() -> None:
    fixed, moving = texture(0, (12, 12, 12)), texture(1, (12, 12, 12))
    mask = torch.ones(1, 1, 12, 12, 12)
    mask[..., :3] = 0
    flat = torch.where(mask > 0, -3.0, fixed)
    alone = SIMILARITIES["nmi"].loss(fixed, moving, mask)
    assert SIMILARITIES["nmi"].loss(torch.cat([fixed, flat], 1), torch.cat([moving, flat], 1), mask) == alone


def test_losses_are_those_of_the_measures() -> None:
    fixed, moving = texture(0, (12, 12, 12)), texture(1, (12, 12, 12))
    healthy = (torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.2).float()
    assert torch.equal(SIMILARITIES["lncc"].loss(fixed, moving, healthy, 5), 1 - lncc(fixed, moving, 5, healthy))
    assert torch.equal(SIMILARITIES["mse"].loss(fixed, moving, healthy, 5), relaxed_mse(fixed, moving, healthy))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_images_of_different_shapes_cannot_be_compared(name: str) -> None:
    image = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8, 8\) and \(1, 1, 8, 8, 7\) cannot be compared"):
        SIMILARITIES[name].loss(image, image[..., 1:])


@pytest.mark.parametrize("name", SIMILARITIES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    fixed, moving = (texture(seed, (12, 12, 12)).bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = SIMILARITIES[name].loss(fixed, moving)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(SIMILARITIES[name].loss(fixed.float(), moving.float()).item())


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_measure_finds_a_known_deformation(name: str) -> None:
    fixed, moving, true = pair()
    found = refine(fixed, moving, settings=replace(QUICK, similarity=name))
    assert error(found.displacement, true) < 0.45 * error(torch.zeros_like(true), true)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nmi", "mind"])
def test_images_of_inverted_contrast_are_registered_where_their_intensities_do_not_correlate(name: str) -> None:
    fixed, moving, true = pair()
    inverted = torch.where(moving > -2.5, -moving, moving)
    start = error(torch.zeros_like(true), true)
    assert error(refine(fixed, inverted, settings=replace(QUICK, similarity="mse")).displacement, true) > 0.8 * start
    assert error(refine(fixed, inverted, settings=replace(QUICK, similarity=name)).displacement, true) < 0.6 * start


@dataclass(frozen=True)
class AbsoluteDifference:
    """A measure that only this test knows."""

    fixed: Tensor
    structured_share: float = 1.0

    def similarity(self, moving: Tensor) -> Tensor:
        return -(self.fixed - moving).abs().mean()


@pytest.mark.slow
def test_a_new_measure_costs_one_entry_and_is_used_by_the_loss_and_the_refinement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure = Similarity(
        "mae",
        "Mean absolute difference",
        lambda fixed, mask, window, stride: AbsoluteDifference(fixed),
        "images of the same contrast",
    )
    monkeypatch.setitem(SIMILARITIES, measure.name, measure)
    fixed, moving, true = pair()
    found = refine(fixed, moving, settings=replace(QUICK, similarity="mae"))
    assert error(found.displacement, true) < 0.6 * error(torch.zeros_like(true), true)
    config = LossConfig(similarity="mae", symmetric=False, smoothness_weight=0.0)
    loss = registration_loss(fixed, moving, Deformation(true), config)["similarity"]
    assert float(loss) == pytest.approx(float((fixed - warp(moving, true)).abs().mean()), rel=1e-5)
