"""Checks of two visits before anything is computed: images, brains, given tumours, and what a network can see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import SimpleITK as sitk

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part

from ..findings.region_volumes import VISIBLE_IN, enumerated, regions_without_modality
from ..images.compartments import title_of
from ..images.coverage import Coverage, share_shown, study_coverage
from ..images.labels import check_classes
from ..images.modalities import TITLES
from ..images.study import TUMOR, StudyImages, checked_study
from ..network.weights import LoadedWeights
from ..registration.affine import Brain
from .coregistration import Coregistration, positioned

_MOST_OF_BRAIN, _WHOLE_BRAIN = 0.5, 0.95
"""Shares of the brain above which a given tumour is doubted and refused."""


@dataclass(frozen=True)
class CheckedStudy:
    """A visit that passed the checks.

    Attributes:
        study: The visit; its images are finite and in single precision.
        brain: Brain mask (uint8) on the grid of the reference, continued where other images show more of the brain.
        given_labels: Classes (uint8) of the segmentation that came with the visit, on its own grid; None without one.
        coverage: What each image shows of the brain, by modality.
        positions: Where each image lay relative to the reference, by modality; empty if that was not looked for.
    """

    study: StudyImages
    brain: sitk.Image
    given_labels: sitk.Image | None
    coverage: Mapping[str, Coverage]
    positions: Mapping[str, Coregistration] = field(default_factory=dict)

    def share_shown(self, modality: str) -> float:
        """Return the share of the brain mask, 0 to 1 in hundredths, that an image shows."""
        return round(share_shown(self.study.images[modality], self.coverage[modality], self.brain), 2)

    def to_align(self, modality: str) -> Brain:
        """Return an image with the brain for the affine alignment; tumour and voxels not acquired are left out."""
        study, seen = self.study, self.coverage[modality].seen
        left_out = study.left_out if study.tumor_labels is None else study.tumor_labels
        if seen is not None:
            missing = seen == 0
            left_out = missing if left_out is None else missing | (_on_grid_of(left_out, missing) != 0)
        return Brain(study.images[modality], self.brain, left_out, study.name, study.mask_title)


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
    coregistered: bool = False,
) -> CheckedPair:
    """Check two visits, find their brains, and bring the images of each visit into one position.

    Args:
        fixed: The visit on whose grid the results will lie.
        moving: The visit to register to it.
        weights: Network that will process them; None for none.
        registration_modalities: Modalities that should drive the registration; None for all that both visits have.
        progress: May raise to cancel.
        coregistered: Whether the images of each visit are in one position already.

    Raises:
        ValueError: An image cannot be used, the visits share no modality, or the network does not fit; one sentence
            that names the study and the image.
    """
    progress(0.0, "checking the images")
    fixed, fixed_notes = checked_study(fixed)
    moving, moving_notes = checked_study(moving)
    driving = _driving_modalities(fixed, moving, registration_modalities)
    warnings = [*fixed_notes, *moving_notes]
    guessed: set[str] = set()
    for study in (fixed, moving):
        regions, notes = _limits_of_network(study, weights)
        guessed.update(regions)
        warnings += notes + _guess_warnings(study, regions, "; their changes are left out")
    sides = []
    for number, study in enumerate((fixed, moving)):
        side, notes = _checked_brain(study, coregistered, part(progress, 0.1 + 0.45 * number, 0.55 + 0.45 * number))
        sides.append(side)
        warnings += notes
    return CheckedPair(sides[0], sides[1], driving, frozenset(guessed), tuple(warnings))


def check_visit(
    study: StudyImages, weights: LoadedWeights, progress: Progress, coregistered: bool = False
) -> tuple[CheckedStudy, tuple[str, ...]]:
    """Check a visit that a network will segment; see `check_pair`.

    Args:
        study: The visit.
        weights: Network that will segment it.
        progress: May raise to cancel.
        coregistered: Whether its images are in one position already.

    Returns:
        The visit, and warnings.

    Raises:
        ValueError: An image cannot be used, or the network does not fit; one sentence that names the image.
    """
    progress(0.0, "checking the images")
    study, notes = checked_study(study)
    regions, limits = _limits_of_network(study, weights)
    limits += _guess_warnings(study, regions)
    checked, doubts = _checked_brain(study, coregistered, part(progress, 0.1, 1.0))
    return checked, (*notes, *limits, *doubts)


def _limits_of_network(study: StudyImages, weights: LoadedWeights | None) -> tuple[tuple[str, ...], list[str]]:
    """Return the regions that the network can only guess in a study, and warnings of modalities that it ignores."""
    if weights is None:
        return (), []
    warnings = _ignored_modalities(study, weights)
    if weights.network.segmentation is None or study.tumor_labels is not None:
        return (), warnings
    return regions_without_modality(study.present), warnings


def _checked_brain(study: StudyImages, coregistered: bool, progress: Progress) -> tuple[CheckedStudy, list[str]]:
    """Find the brain of a study, bring its images into one position, and find out what they show."""
    if study.tumor_labels is not None:
        check_classes(sitk.GetArrayViewFromImage(study.tumor_labels), f"tumour segmentation of the {study.name} study")
    study, brain, positions, notes = positioned(study, coregistered, progress)
    notes = [*notes, *_doubts_of_tumor(study, brain)]
    given = None if study.tumor_labels is None else sitk.Cast(study.tumor_labels, sitk.sitkUInt8)
    return CheckedStudy(study, brain, given, study_coverage(study, brain), positions), notes


def _doubts_of_tumor(study: StudyImages, brain: sitk.Image) -> list[str]:
    """Return a sentence where a given tumour fills most of the brain, which the registration would leave out.

    Raises:
        ValueError: It fills the whole brain; the message names it.
    """
    tumor = study.left_out if study.tumor_labels is None else study.tumor_labels
    if tumor is None:
        return []
    inside = sitk.GetArrayViewFromImage(brain) != 0
    filled = sitk.GetArrayViewFromImage(_on_grid_of(tumor, brain)) != 0
    share = float(filled[inside].mean())
    if share <= _MOST_OF_BRAIN:
        return []
    sentence = f"{study.title(TUMOR)} fills {100 * share:.0f} % of the brain, which the registration leaves out"
    if share > _WHOLE_BRAIN:
        raise ValueError(f"{sentence}: it is inverted or a brain mask; give the tumour alone")
    return [f"{sentence}: check that it is not inverted or a brain mask"]


def _driving_modalities(fixed: StudyImages, moving: StudyImages, wanted: Sequence[str] | None) -> tuple[str, ...]:
    common = tuple(m for m in fixed.present if m in moving.present)
    if not common:
        raise InputError(
            moving.name,
            f"the {fixed.name} study ({', '.join(fixed.present)}) and the {moving.name} study "
            f"({', '.join(moving.present)}) have no modality in common: give one that both have",
        )
    if missing := [m for m in wanted or () if m not in common]:
        raise ValueError(
            f"the registration cannot use {', '.join(missing)}, because not both studies have it; "
            f"use {', '.join(common)}"
        )
    return tuple(wanted or common)


def _ignored_modalities(study: StudyImages, weights: LoadedWeights) -> list[str]:
    """Check that the network can use the study; warn of modalities that it ignores."""
    known = weights.config.modalities
    weights.check_modalities([m for m in study.present if m in known])
    ignored = [m for m in study.present if m not in known]
    return [f"the network does not use {', '.join(ignored)} of the {study.name} study"] if ignored else []


def _guess_warnings(study: StudyImages, regions: Sequence[str], consequence: str = "") -> list[str]:
    warnings = []
    for modalities in dict.fromkeys(VISIBLE_IN[region] for region in regions):
        names = [title_of(region).lower() for region in regions if VISIBLE_IN[region] == modalities]
        warnings.append(
            f"the {study.name} study has no {' or '.join(TITLES[m] for m in modalities)}, so the network can only "
            f"guess its {enumerated(names)}{consequence}"
        )
    return warnings


def _on_grid_of(labels: sitk.Image, image: sitk.Image) -> sitk.Image:
    """Labels (uint8) at the voxels of an image."""
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.Resample(labels, image, identity, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
