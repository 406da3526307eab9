"""Verdicts: what is wrong is flagged with a reason, what is right is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.prepared_study import PreparedStudy
from JointRegSegLib.quality.label_signs import label_signs, uncertainty_signs
from JointRegSegLib.quality.registration_signs import PairQuality, local_correlations, pair_quality
from JointRegSegLib.quality.verdict import CHECK, FAILED, GOOD, Verdict, combined, judge_registration
from JointRegSegLib.registration.affine import AffineResult
from JointRegSegLib.registration.deformation import Deformation, identity_displacement
from JointRegSegLib.registration.separable import smooth

SHAPE = (24, 32, 28)
RIGHT = PairQuality(0.98, 0.99, (1.01, 1.0, 0.99), 0.6, 0.7, None, 0.3, 0.4, 0.1, 0.8, None)


def brain(seed: int = 0, name: str = "fixed") -> PreparedStudy:
    """Return a study with a random texture in an ellipsoid on voxels of 4 mm, different in every modality."""
    generator = torch.Generator().manual_seed(seed)
    images = smooth(torch.randn((1, len(MODALITIES), *SHAPE), generator=generator), 1.2)[0]
    axes = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    mask = sum(a.square() for a in axes) < 1
    images = torch.where(mask, images / images.std(), -3.0)
    return PreparedStudy(images, mask, WorkingGrid(SHAPE, 4.0, (0.0, 0.0, 0.0)), MODALITIES, None, name)


def quality(fixed: PreparedStudy, moving: PreparedStudy, driving: tuple[str, ...] = MODALITIES) -> PairQuality:
    """Measure a pair that is taken as aligned."""
    deformation = Deformation(identity_displacement(SHAPE))
    alignment = AffineResult(sitk.AffineTransform(3), 1.0, 1.0)
    return pair_quality(fixed, moving, deformation, alignment, driving, (None, None))


def noisy(study: PreparedStudy, share: float = 0.5) -> PreparedStudy:
    generator = torch.Generator().manual_seed(9)
    noise = share * torch.randn(study.images.shape, generator=generator) * study.mask
    return replace(study, images=study.images + noise)


def flipped(study: PreparedStudy) -> PreparedStudy:
    return replace(study, images=study.images.flip(-1), mask=study.mask.flip(-1))


def verdict(fixed: PreparedStudy, moving: PreparedStudy) -> Verdict:
    return judge_registration(quality(fixed, moving), 0.05, 0.0)


def test_two_scans_of_one_brain_are_good() -> None:
    found = verdict(brain(), noisy(brain()))
    assert (found.level, found.reasons) == (GOOD, ())
    assert found.warning("registration") == ()


def test_another_brain_is_flagged() -> None:
    assert verdict(brain(), brain(1)).level != GOOD


def test_a_mirrored_visit_is_recognised() -> None:
    found = verdict(brain(), flipped(noisy(brain())))
    assert found.level == FAILED
    assert any("is mirrored left to right" in reason for reason in found.reasons)


def test_exchanged_contrasts_are_named() -> None:
    study = noisy(brain())
    order = [MODALITIES.index(m) for m in ("t1", "t1ce", "flair", "t2")]
    found = verdict(brain(), replace(study, images=study.images[order]))
    assert any("T2 and FLAIR of one study seem to be exchanged" in reason for reason in found.reasons)


def test_half_a_brain_is_flagged() -> None:
    study = noisy(brain())
    kept = torch.arange(SHAPE[2]) < SHAPE[2] // 2
    half = replace(study, mask=study.mask & kept, images=torch.where(kept, study.images, -3.0))
    assert any("overlap" in reason for reason in verdict(brain(), half).reasons)


def test_a_brain_half_of_which_lies_outside_the_images_is_flagged_with_its_share() -> None:
    study = noisy(brain())
    kept = torch.arange(SHAPE[2]) < SHAPE[2] // 2
    seen = kept.expand(len(MODALITIES), *SHAPE)
    half = replace(study, mask=study.mask & kept, images=torch.where(kept, study.images, -3.0), seen=seen)
    found = verdict(brain(), half)
    assert found.level == CHECK
    assert found.reasons == ("both visits show 50 % of the brain only, and elsewhere the map is a guess",)


def slab(study: PreparedStudy, modality: str, share: float) -> PreparedStudy:
    """Return a study one image of which shows only the lower part of the grid."""
    channel, shown = MODALITIES.index(modality), torch.arange(SHAPE[0])[:, None, None] < share * SHAPE[0]
    seen = torch.ones(study.images.shape, dtype=torch.bool) if study.seen is None else study.seen.clone()
    seen[channel] &= shown
    return replace(study, images=torch.where(seen, study.images, -3.0), seen=seen)


@pytest.mark.parametrize("driving", [("t1",), ("t1", "flair")])
def test_what_an_image_does_not_show_does_not_speak_against_the_pair(driving: tuple[str, ...]) -> None:
    whole, part = (quality(brain(), moving, driving) for moving in (noisy(brain()), slab(noisy(brain()), "t1", 0.4)))
    assert part.similarity_after == pytest.approx(whole.similarity_after, abs=0.03)
    assert part.advantage == pytest.approx(whole.advantage, abs=0.1)
    reasons = judge_registration(part, 0.05, 0.0).reasons
    assert all(reason.startswith("both visits show") for reason in reasons)
    assert len(reasons) == (1 if driving == ("t1",) else 0)


def test_a_mirrored_slab_is_recognised() -> None:
    moving = slab(flipped(noisy(brain())), "t1", 0.4)
    reasons = judge_registration(quality(brain(), moving, ("t1",)), 0.05, 0.0).reasons
    assert any("is mirrored left to right" in reason for reason in reasons)


@pytest.mark.parametrize(("gain", "level"), [(0.11, GOOD), (0.67, CHECK)])
def test_contrasts_that_fit_each_other_by_chance_are_not_called_exchanged(gain: float, level: str) -> None:
    """Right pairs gained up to 0.11, those whose contrasts were exchanged on purpose at least 0.67."""
    assert judge_registration(replace(RIGHT, exchanged=("t1ce", "flair", gain)), 0.0, 0.0).level == level


def test_contrasts_are_exchanged_only_where_both_are_shown() -> None:
    study = noisy(brain())
    order = [MODALITIES.index(m) for m in ("t1", "t1ce", "flair", "t2")]
    swapped = replace(study, images=study.images[order])
    assert quality(brain(), slab(swapped, "t2", 0.5)).exchanged[:2] == ("t2", "flair")
    assert quality(brain(), slab(swapped, "t2", 0.0)).exchanged is None


def test_images_that_show_no_common_place_have_no_similarity() -> None:
    found = quality(brain(), slab(noisy(brain()), "t1", 0.0), ("t1",))
    assert (found.similarity_before, found.similarity_after, found.advantage) == (None, None, None)
    assert found.to_dict()["advantage_over_mirrored"] is None
    assert judge_registration(found, 0.05, 0.0).level == FAILED  # the brains do not overlap where both are shown


@pytest.mark.parametrize(
    ("change", "level", "word"),
    [
        ({"brain_overlap": 0.85}, CHECK, "overlap"),
        ({"brain_overlap": 0.6}, FAILED, "overlap"),
        ({"brain_shared": 0.7}, CHECK, "show 70 %"),
        ({"stretch": (1.2, 1.0, 0.95)}, CHECK, "stretches"),
        ({"similarity_after": 0.3, "similarity_before": 0.3, "mirrored_similarity": 0.05}, CHECK, "little alike"),
        ({"similarity_after": 0.5}, CHECK, "less alike"),
        ({"mirrored_similarity": 0.6}, CHECK, "mirror image"),
        ({"log_jacobian_sd": 0.3}, CHECK, "uneven"),
        ({"tumor_overlap": 0.0}, CHECK, "different places"),
    ],
)
def test_every_sign_has_a_limit_and_a_reason(change: dict, level: str, word: str) -> None:
    assert judge_registration(RIGHT, 0.05, 0.0).level == GOOD
    found = judge_registration(replace(RIGHT, **change), 0.05, 0.0)
    assert found.level == level
    assert word in found.reasons[0]


def test_a_symmetric_image_is_not_suspected_of_being_mirrored() -> None:
    assert judge_registration(replace(RIGHT, mirrored_similarity=0.6, symmetry=0.95), 0.05, 0.0).level == GOOD


def test_the_report_has_the_worse_verdict_and_all_reasons() -> None:
    entries = combined(Verdict(CHECK, ("a",)), Verdict(FAILED, ("b",)))
    assert entries["verdict"] == FAILED
    assert entries["reasons"] == ["registration: a", "segmentation: b"]
    assert entries["registration_verdict"] == {"verdict": CHECK, "reasons": ["a"]}
    assert combined(Verdict(GOOD), None)["verdict"] == GOOD


def tumor_study(classes: torch.Tensor) -> PreparedStudy:
    """Return a brain whose core (1) is dark on T1ce, oedema (2) bright on FLAIR and rim (3) bright on T1ce."""
    study = brain()
    images = study.images.clone()
    images[MODALITIES.index("t1ce")] += 4 * (classes == 3) - 2 * (classes == 1)
    images[MODALITIES.index("flair")] += 4 * (classes == 2) + (classes == 1)
    return replace(study, images=images)


def tumor() -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    distance = sum(a.square() for a in axes).sqrt()
    classes = torch.zeros(SHAPE, dtype=torch.uint8)
    for number, radius in ((2, 8), (3, 5), (1, 3.5)):
        classes[distance < radius] = number
    return classes


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ((0, 1, 2, 3), None),
        ((0, 2, 1, 3), "oedema"),  # MSD
        ((0, 1, 1, 2), "enhances"),  # HD-GLIO
        ((0, 3, 2, 1), "enhancing tumour"),
    ],
)
def test_labels_of_another_convention_contradict_the_images(table: tuple, word: str | None) -> None:
    truth = tumor()
    signs = label_signs(tumor_study(truth), torch.tensor(table, dtype=torch.uint8)[truth.long()])
    if word is None:
        assert signs == []
    else:
        assert any(word in reason for _, reason in signs)


def test_oedema_that_an_image_does_not_show_is_not_called_dark() -> None:
    classes = tumor()
    first = int((classes == 2).nonzero()[:, 0].min())
    assert label_signs(slab(tumor_study(classes), "flair", (first + 3) / SHAPE[0]), classes) == []
    assert label_signs(slab(tumor_study(classes), "flair", 0.0), classes) == []


def test_healthy_brain_that_an_image_does_not_show_does_not_make_the_oedema_bright() -> None:
    classes = tumor().flip(0).roll(-4, 0)  # in the lower part
    study = slab(brain(), "flair", 0.5)  # the oedema is not bright
    assert any("no brighter than healthy brain" in reason for _, reason in label_signs(study, classes))


def test_an_uncertain_network_is_told() -> None:
    mask = tumor() > 0
    counts = torch.tensor([[1000, 10, 10, 10], [980, 40, 10, 10]])
    sure = uncertainty_signs("fixed", torch.zeros(SHAPE), mask, counts[:1], 0.064)
    assert sure == []
    doubts = uncertainty_signs("fixed", torch.full(SHAPE, 0.6), mask, counts, 0.064)
    assert [level for level, _ in doubts] == [CHECK, CHECK]


def test_a_cavity_is_no_part_of_the_tumour_that_is_judged() -> None:
    mask = tumor() == 2
    counts = torch.tensor([[1000, 10, 10, 0, 400], [980, 40, 10, 0, 380]])  # 20 and 50 voxels of tumour
    signs = uncertainty_signs("fixed", torch.zeros(SHAPE), mask, counts, 0.064)
    assert ["1.3 to 3.2 ml" in reason for _, reason in signs] == [True]


def test_the_wall_of_a_cavity_is_not_the_border_of_the_tumour() -> None:
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    distance = sum(a.square() for a in axes).sqrt()
    classes = torch.zeros(SHAPE, dtype=torch.uint8)
    for number, radius in ((2, 8), (1, 5), (4, 4)):
        classes[distance < radius] = number
    assert label_signs(tumor_study(classes), classes) == []


def test_local_correlation_tells_a_contrast_from_its_negative() -> None:
    study = brain()
    found = local_correlations(study.images, -study.images, study.mask)
    assert (found.diagonal() < -0.9).all()
