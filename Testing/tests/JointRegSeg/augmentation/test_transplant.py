"""Transplanted, healed and recoloured tumours: where they land, what stays as it was, and who decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from augmentation_cases import ball, study

from JointRegSegLib.augmentation.transplant import (
    TransplantConfig,
    Transplanter,
    healed,
    recolored,
    transplanted,
)
from JointRegSegLib.cohort.sample import OUTSIDE, StudySample


def healthy(seed: int = 5) -> StudySample:
    sample = study(seed, "healthy")
    return replace(sample, labels=torch.zeros_like(sample.labels))


def bright(sample: StudySample, level: float = 5.0) -> StudySample:
    """The study with a tumour that is bright on all modalities."""
    return replace(sample, images=torch.where(sample.labels > 0, level, sample.images))


def test_transplanted_tumor_has_the_labels_and_the_brightness_of_its_donor():
    recipient, donor = healthy(), bright(study(1, "donor"))
    result = transplanted(recipient, donor)
    assert torch.equal(result.labels, donor.labels)
    inside = donor.labels > 0
    for channel in range(4):
        normal = result.images[channel][result.mask & ~inside]
        assert result.images[channel][inside].min() > normal.quantile(0.95)


def test_transplant_leaves_brain_far_from_the_tumor_and_the_background_unchanged():
    recipient, donor = healthy(), study(1)
    donor = bright(replace(donor, labels=ball((12, 16, 7), 3.0).to(torch.uint8)))
    result = transplanted(recipient, donor)
    far = ~ball((12, 16, 7), 10.0)
    assert bool((far & recipient.mask).any())
    torch.testing.assert_close(result.images[:, far], recipient.images[:, far], atol=1e-3, rtol=0)
    assert bool((result.images[:, ~recipient.mask] == OUTSIDE).all())


def test_transplant_does_not_reach_beyond_the_brain_of_the_recipient():
    recipient = healthy()
    smaller = recipient.mask & (torch.arange(28)[None, :, None] < 15)
    recipient = replace(recipient, mask=smaller, images=torch.where(smaller, recipient.images, OUTSIDE))
    result = transplanted(recipient, study(1))
    assert not bool((result.labels > 0)[~smaller].any())
    assert bool((result.labels > 0).any())


def test_modality_that_the_recipient_lacks_stays_absent():
    recipient = healthy()
    images = recipient.images.clone()
    images[2] = OUTSIDE
    result = transplanted(replace(recipient, images=images), bright(study(1)))
    assert result.present.tolist() == [True, True, False, True]


def test_a_donor_without_a_modality_of_the_recipient_gives_nothing():
    recipient, donor = healthy(), bright(study(1))
    images = donor.images.clone()
    images[1] = OUTSIDE
    assert transplanted(recipient, replace(donor, images=images)) is recipient


def test_brain_of_the_donor_that_covers_a_tumor_has_no_label():
    recipient = healthy()
    labels = torch.where(ball((12, 16, 7), 8.0) & recipient.mask, 2, 0).to(torch.uint8)
    recipient = bright(replace(recipient, labels=labels))
    donor = bright(replace(study(1), labels=ball((12, 16, 7), 3.0).to(torch.uint8)))
    result = transplanted(recipient, donor)
    rim = ball((12, 16, 7), 4.0) & ~ball((12, 16, 7), 3.0)
    assert not bool(result.labels[rim & result.mask].any())
    assert result.images[0][result.labels == 2].min() > 2.0  # labelled where it is still bright


def test_contrast_changes_in_standard_deviations_of_the_brain():
    wide = study()
    narrow = replace(wide, images=0.1 * wide.images, background=0.1 * OUTSIDE)
    results = [recolored(s, 0.5, 0.3, torch.Generator().manual_seed(0)) for s in (wide, narrow)]
    torch.testing.assert_close(results[1].images, 0.1 * results[0].images)


def test_healed_study_shows_the_other_hemisphere_where_the_tumor_was():
    width = 20
    sample = study()
    mask = sample.mask | sample.mask.flip(2)
    images = torch.linspace(-1, 1, 24)[None, :, None, None].expand(4, 24, 28, width).clone()  # symmetric
    labels = torch.zeros_like(sample.labels)
    labels[ball((12, 14, 4), 2.5)] = 1
    sample = replace(sample, images=torch.where(mask, images, OUTSIDE), mask=mask, labels=labels)
    result = healed(bright(sample))
    assert int(result.labels.sum()) == 0
    torch.testing.assert_close(result.images, sample.images, atol=1e-4, rtol=0)


def test_tumor_on_both_sides_is_not_healed():
    sample = study()
    labels = torch.zeros_like(sample.labels)
    labels[ball((12, 14, 9), 4.0)] = 1  # across the midline
    sample = replace(sample, labels=labels)
    assert healed(sample) is sample


def test_recolouring_changes_compartments_but_not_labels_nor_distant_brain():
    sample = study()
    result = recolored(sample, 0.5, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(result.labels, sample.labels)
    far = ~ball((12, 16, 7), 8.5)
    torch.testing.assert_close(result.images[:, far], sample.images[:, far], atol=1e-3, rtol=0)
    changes = [
        float((result.images - sample.images)[channel][sample.labels == value].mean())
        for channel in range(4)
        for value in (1, 2, 3)
    ]
    assert len({round(change, 3) for change in changes}) == 12


def test_generator_alone_decides_what_happens():
    studies = [study(0, "a"), bright(study(1, "b"))]
    transplanter = Transplanter(TransplantConfig(probability=1.0), [0, 1])
    first, again, other = (transplanter(studies[0], studies, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)


def test_study_without_labels_is_returned_as_it_is():
    sample = replace(study(), labels=None)
    transplanter = Transplanter(TransplantConfig(1.0, 1.0, 1.0), [0])
    assert transplanter(sample, [study(1)], torch.Generator().manual_seed(0)) is sample


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probability": 1.5}, "probability is 1.5 but must be a number from 0 to 1"),
        ({"geometry": {"flip": [2, 0, 0]}}, "transplants: geometry"),
        ({"odds": 1}, "odds"),
    ],
)
def test_unusable_settings_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        TransplantConfig.from_dict(values)
