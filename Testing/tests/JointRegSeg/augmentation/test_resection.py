"""Resected tumours of real patients: where the cavity lies, how it looks, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import torch
from augmentation_cases import ball, study

from JointRegSegLib.augmentation.resection import resected
from JointRegSegLib.augmentation.transplant import TransplantConfig, Transplanter
from JointRegSegLib.cohort.sample import StudySample
from JointRegSegLib.images.labels import CAVITY


def operable() -> StudySample:
    """A study whose core is large enough for an operation."""
    sample = study()
    labels = torch.zeros_like(sample.labels)
    for value, radius in ((2, 6.0), (3, 5.0), (1, 3.0)):
        labels[ball((12, 16, 8), radius)] = value
    return replace(sample, labels=labels)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_cavity_takes_the_place_of_core_and_leaves_the_rest_of_the_labels():
    sample = operable()
    core = (sample.labels == 1) | (sample.labels == 3)
    for seed in range(5):
        result = resected(sample, generator(seed))
        cavity = result.labels == CAVITY
        assert int(cavity.sum()) > 0.1 * int(core.sum())
        assert bool(sample.mask[cavity].all())
        assert torch.equal(result.labels[~cavity], sample.labels[~cavity])


def test_a_cavity_of_clear_fluid_is_dark_on_t1_and_flair_and_bright_on_t2():
    sample = operable()
    found = []
    for seed in range(12):
        result = resected(sample, generator(seed))
        middle = (result.labels == CAVITY) & ball((12, 16, 8), 3.0)
        if bool(middle.any()):
            brain = [image[sample.mask & (sample.labels == 0)].median() for image in sample.images]
            means = [image[middle].mean() for image in result.images]
            found.append([float(m - b) for m, b in zip(means, brain, strict=True)])
    t1, t1ce, t2, flair = zip(*found, strict=True)
    assert sum(value < 0 for value in t1) > len(found) / 2
    assert sum(value < 0 for value in flair) > len(found) / 2
    assert sum(value > 0 for value in t2) > len(found) / 2
    assert all(abs(a - b) < 2.5 for a, b in zip(t1, t1ce, strict=True))  # blood shows on both alike


def test_contents_of_a_cavity_are_in_standard_deviations_of_the_brain():
    wide = operable()
    narrow = replace(wide, images=0.1 * wide.images)
    for seed in range(8):
        results = [resected(sample, generator(seed)).images for sample in (wide, narrow)]
        torch.testing.assert_close(results[1], 0.1 * results[0])


def test_images_far_from_the_core_absent_modalities_and_the_input_stay_as_they_were():
    sample = operable()
    absent = sample.images.clone()
    absent[1] = -3.0
    sample = replace(sample, images=absent)
    before = sample.images.clone()
    result = resected(sample, generator())
    far = sample.mask & ~ball((12, 16, 8), 9.0)
    assert bool(far.any())
    torch.testing.assert_close(result.images[:, far], before[:, far], atol=1e-3, rtol=0)
    assert not bool(result.present[1])
    assert torch.equal(sample.images, before)


def test_a_study_without_labels_or_with_a_small_core_is_returned_as_it_is():
    small = replace(study(), labels=ball((12, 16, 7), 2.0).to(torch.uint8))
    unlabeled = replace(study(), labels=None)
    assert resected(small, generator()) is small
    assert resected(unlabeled, generator()) is unlabeled


def test_transplants_resect_with_their_probability():
    sample = operable()
    for probability, expected in ((0.0, False), (1.0, True)):
        config = TransplantConfig(0.0, 0.0, 0.0, resection_probability=probability)
        result = Transplanter(config, [])(sample, [], generator())
        assert bool((result.labels == CAVITY).any()) is expected
