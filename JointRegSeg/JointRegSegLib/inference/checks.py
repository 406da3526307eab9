"""Checks of two visits before anything is computed: images, brains, given tumours, and what a network can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import SimpleITK as sitk

from NeuroCESTLib.core.progress import Progress

from ..images.brain_mask import estimate_brain_mask
from ..images.compartments import title_of
from ..images.coverage import Coverage, share_shown
from ..images.labels import to_classes
from ..images.modalities import TITLES
from ..images.preprocessing import study_coverage
from ..images.study import StudyImages, checked_study, same_grid
from ..network.weights import LoadedWeights
from ..registration.affine import Brain
from ..registration.transforms import warp_label_image
from .region_volumes import VISIBLE_IN, enumerated, regions_without_modality


@dataclass(frozen=True)
class CheckedStudy:
    """A visit that passed the checks.

    Attributes:
        study: The visit; its images are finite and in single precision.
        brain: Brain mask (uint8) on the grid of the first image.
        given_labels: Classes (uint8) of the segmentation that came with the visit, on the same grid; None without one.
        coverage: What each image shows of the brain, by modality.
    """

    study: StudyImages
    brain: sitk.Image
    given_labels: sitk.Image | None
    coverage: Mapping[str, Coverage]

    def share_shown(self, modality: str) -> float:
        """Return the share of the brain mask, 0 to 1 in hundredths, that an image shows."""
        return round(share_shown(self.study.images[modality], self.coverage[modality], self.brain), 2)

    def to_align(self, modality: str) -> Brain:
        """Return an image with the brain for the affine alignment; tumour and voxels not acquired are left out."""
        left_out, seen = self.study.tumor_labels, self.coverage[modality].seen
        if seen is not None:
            missing = seen == 0
            left_out = missing if left_out is None else missing | (_on_grid_of(left_out, missing) != 0)
        return Brain(self.study.images[modality], self.brain, left_out, self.study.name)


@dataclass(frozen=True)
class CheckedPair:
    """Two visits that can be registered.

    Attributes:
        fixed: The visit on whose grid the results lie.
        moving: The visit that is registered to it.
        driving: Modalities that drive the registration, in the order of ``MODALITIES``.
        guessed: Regions that the network can only guess in one of the visits, because a modality is missing.
        warnings: Sentences for the user.
    """

    fixed: CheckedStudy
    moving: CheckedStudy
    driving: tuple[str, ...]
    guessed: frozenset[str]
    warnings: tuple[str, ...]


def check_pair(
    fixed: StudyImages,
    moving: StudyImages,
    weights: LoadedWeights | None,
    registration_modalities: Sequence[str] | None,
    progress: Progress,
) -> CheckedPair:
    """Check two visits and find their brains.

    Args:
        fixed: The visit on whose grid the results will lie.
        moving: The visit to register to it.
        weights: Network that will process them; None for none.
        registration_modalities: Modalities that should drive the registration; None for all that both visits have.
        progress: May raise to cancel.

    Raises:
        ValueError: An image cannot be used, the visits share no modality, or the network does not fit; one sentence
            that names the study and the image.
    """
    progress(0.0, "checking the images")
    fixed, fixed_notes = checked_study(fixed)
    moving, moving_notes = checked_study(moving)
    driving = _driving_modalities(fixed, moving, registration_modalities)
    given = [None if study.tumor_labels is None else _given_classes(study) for study in (fixed, moving)]
    warnings = [*fixed_notes, *moving_notes]
    guessed: set[str] = set()
    if weights is not None:
        for study in (fixed, moving):
            warnings += _ignored_modalities(study, weights)
        if weights.network.segmentation is not None:
            for study in (fixed, moving):
                regions = regions_without_modality(study.present) if study.tumor_labels is None else ()
                guessed.update(regions)
                warnings += _guess_warnings(study, regions)
    progress(0.4, "finding the brains")
    fixed_brain, fixed_doubts = _brain(fixed)
    moving_brain, moving_doubts = _brain(moving)
    return CheckedPair(
        CheckedStudy(fixed, fixed_brain, given[0], study_coverage(fixed, fixed_brain)),
        CheckedStudy(moving, moving_brain, given[1], study_coverage(moving, moving_brain)),
        driving,
        frozenset(guessed),
        (*warnings, *fixed_doubts, *moving_doubts),
    )


def _driving_modalities(fixed: StudyImages, moving: StudyImages, wanted: Sequence[str] | None) -> tuple[str, ...]:
    common = tuple(m for m in fixed.present if m in moving.present)
    if not common:
        raise ValueError(
            f"the {fixed.name} study ({', '.join(fixed.present)}) and the {moving.name} study "
            f"({', '.join(moving.present)}) have no modality in common: give one that both have"
        )
    if missing := [m for m in wanted or () if m not in common]:
        raise ValueError(
            f"the registration cannot use {', '.join(missing)}, because not both studies have it; "
            f"use {', '.join(common)}"
        )
    return tuple(wanted or common)


def _given_classes(study: StudyImages) -> sitk.Image:
    """Classes of the given segmentation on the grid of the study's first image."""
    labels = study.tumor_labels
    assert labels is not None
    classes = sitk.GetImageFromArray(
        to_classes(sitk.GetArrayViewFromImage(labels), f"tumour segmentation of the {study.name} study")
    )
    classes.CopyInformation(labels)
    if same_grid(classes, study.reference):
        classes.CopyInformation(study.reference)
        return classes
    return warp_label_image(classes, study.reference, sitk.Transform(3, sitk.sitkIdentity))


def _ignored_modalities(study: StudyImages, weights: LoadedWeights) -> list[str]:
    """Check that the network can use the study; warn of modalities that it ignores."""
    known = weights.config.modalities
    weights.check_modalities([m for m in study.present if m in known])
    ignored = [m for m in study.present if m not in known]
    return [f"the network does not use {', '.join(ignored)} of the {study.name} study"] if ignored else []


def _guess_warnings(study: StudyImages, regions: Sequence[str]) -> list[str]:
    warnings = []
    for modalities in dict.fromkeys(VISIBLE_IN[region] for region in regions):
        names = [title_of(region).lower() for region in regions if VISIBLE_IN[region] == modalities]
        warnings.append(
            f"the {study.name} study has no {' or '.join(TITLES[m] for m in modalities)}, so the network can only "
            f"guess its {enumerated(names)}; their changes are left out"
        )
    return warnings


def _on_grid_of(labels: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Labels (uint8) at the voxels of an image."""
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(labels, image, identity, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def _brain(study: StudyImages) -> tuple[sitk.Image, tuple[str, ...]]:
    """Brain mask (uint8) on the grid of the study's first image, estimated if none is given, and warnings."""
    if study.brain_mask is None:
        estimate = estimate_brain_mask(study)
        return estimate.mask, estimate.warnings
    mask = sitk.Cast(sitk.Cast(study.brain_mask, sitk.sitkFloat32) != 0, sitk.sitkUInt8)
    if same_grid(mask, study.reference):
        mask.CopyInformation(study.reference)
        return mask, ()
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(mask, study.reference, identity, sitk.sitkNearestNeighbor), ()
