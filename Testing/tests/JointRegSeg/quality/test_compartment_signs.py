"""Single compartments are flagged by name where the network or the images speak against them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.prepared_study import PreparedStudy
from JointRegSegLib.quality.compartment_signs import CompartmentQuality, compartment_qualities

SHAPE = (32, 32, 32)
DISTANCE = torch.stack(torch.meshgrid(*(torch.arange(n) - 16.0 for n in SHAPE), indexing="ij")).square().sum(0).sqrt()
TRUTH = torch.where(DISTANCE < 4, 1, torch.where(DISTANCE < 6, 3, torch.where(DISTANCE < 9, 2, 0)))


def study(present: tuple[str, ...] = MODALITIES, rim: float = 1.5) -> PreparedStudy:
    """A noisy brain, whose rim (3) is bright on T1ce, on voxels of 2 mm."""
    images = 0.2 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    images[1] += 0.5 * images[0] + rim * (TRUTH == 3)
    return PreparedStudy(images, DISTANCE < 15, WorkingGrid(SHAPE, 2.0, (0.0, 0.0, 0.0)), present, None, "fixed")


def certain(classes: Tensor, probability: float = 0.97) -> Tensor:
    """Probabilities (class, D, H, W) with the same one for the class of every voxel."""
    chosen = torch.nn.functional.one_hot(classes, 4).movedim(-1, 0).float()
    return chosen * probability + (1 - chosen) * (1 - probability) / 3


def reasons(probabilities: Tensor, of: PreparedStudy | None = None) -> list[str]:
    found = compartment_qualities(of or study(), probabilities).values()
    return [reason for quality in found for _, reason in quality.signs("fixed")]


def test_a_right_and_certain_segmentation_has_no_signs() -> None:
    inside = (TRUTH > 0)[None].float()
    outside = certain(torch.zeros_like(TRUTH), 1.0)
    assert reasons(certain(TRUTH) * inside + outside * (1 - inside)) == []


def test_a_missed_rim_is_told_by_its_enhancement() -> None:
    missed = torch.where(TRUTH == 3, 2, TRUTH)
    (found,) = [reason for reason in reasons(certain(missed, 1.0)) if "enhancing" in reason]
    assert "are bright on T1ce and not called enhancing tumour (0.0 ml are)" in found


def test_an_invented_rim_is_told_by_its_lack_of_enhancement() -> None:
    found = reasons(certain(TRUTH, 1.0), study(rim=0.0))
    assert any("hardly brighter on T1ce than on T1" in reason for reason in found)


def test_exchanged_t1_and_t1ce_are_told() -> None:
    right, missed = study(), certain(torch.where(TRUTH == 3, 2, TRUTH), 1.0)
    exchanged = replace(right, images=right.images[[1, 0, 2, 3]])
    assert any("check whether the two images were exchanged" in reason for reason in reasons(missed, exchanged))
    assert not any("exchanged" in reason for reason in reasons(missed, right) + reasons(certain(TRUTH, 1.0), right))


def test_a_compartment_without_a_voxel_is_told_where_much_of_it_is_expected() -> None:
    assert list(CompartmentQuality(2, 0.0, 2.9, 0.0).signs("fixed")) == []
    (found,) = [reason for _, reason in CompartmentQuality(2, 0.0, 64.2, 0.0).signs("fixed")]
    assert found.startswith("the network found no oedema in the fixed study, but by its own probabilities 64.2 ml")


def test_a_compartment_of_which_the_network_is_unsure_is_named() -> None:
    chosen = torch.nn.functional.one_hot(TRUTH, 4).movedim(-1, 0).float()
    unsure = chosen.clone()
    rim = TRUTH == 3
    unsure[:, rim] = torch.tensor([0.0, 0.31, 0.33, 0.36])[:, None]  # nearly equally probable
    found = reasons(unsure)
    assert any(
        reason.startswith("the network is unsure of the enhancing tumour of the fixed study") for reason in found
    )
    assert not any("unsure of the necrotic core" in reason for reason in found)


def test_without_t1_only_the_probabilities_speak() -> None:
    missed = certain(torch.where(TRUTH == 3, 2, TRUTH), 1.0)
    assert reasons(missed, study(("t1ce", "flair"))) == []
    quality = compartment_qualities(study(("t1ce", "flair")), missed)["enhancing_tumor"]
    assert (quality.enhancement, quality.missed_ml, quality.bright_on_t1_ml) == (None, None, None)


def test_small_compartments_are_not_judged() -> None:
    assert list(CompartmentQuality(3, 0.4, 0.9, 0.2, 0.5, 0.9, 0.4, 0.9).signs("fixed")) == []
    assert CompartmentQuality(3, 2.0, 1.5, 0.70456, None, None).to_dict() == {
        "volume_ml": 2.0,
        "probable_ml": 1.5,
        "expected_overlap": pytest.approx(0.705),
        "enhancement": None,
        "enhances_ml": None,
        "missed_ml": None,
        "bright_on_t1_ml": None,
    }
