"""A synthetic patient with a glioma: two visits, their labels, and the true deformation between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.modalities import MODALITIES
from ..registration.deformation import Deformation, compose, identity_displacement, invert_displacement
from .anatomy import mass_effect, random_head, visit_deformation, warp_fields
from .contrast import random_images
from .random_fields import Draw
from .regions import region_labels
from .templates import Template
from .tumor import (
    RESECTED_SHARE,
    Tumor,
    TumorFields,
    TumorNoise,
    changed_tumor,
    random_tumor,
    tumor_fields,
    without_tumor,
)

SHAPE_MM = (160, 192, 160)
"""Field of view along (D, H, W), which run to superior, anterior and right."""

_FARTHEST_PUSH_MM = 28.0
"""Largest distance over which the mass effect falls off; with more, a large tumour would blow up the skull."""
_WITHOUT_TUMOR = 2
"""Purpose of random numbers, see ``Draw.aside``."""


@dataclass(frozen=True)
class SyntheticVisit:
    """One visit of a synthetic patient.

    Attributes:
        images: Images (C, D, H, W) in arbitrary units, zero outside the brain.
        labels: Classes (D, H, W) uint8.
        mask: Brain (D, H, W) bool.
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter of the healthy anatomy.
        regions: What each voxel mostly holds, (D, H, W) uint8, see ``regions.REGIONS``.
        lesion: Tumour and resection cavity (D, H, W) bool, also where the cavity has no number in the labels.
    """

    images: Tensor
    labels: Tensor
    mask: Tensor
    tissues: Tensor
    regions: Tensor
    lesion: Tensor


@dataclass(frozen=True)
class SyntheticPatient:
    """Two visits on one grid.

    Attributes:
        fixed: First visit.
        moving: Second visit.
        deformation: True map from the first visit to the second, or None if it was not asked for.
        spacing_mm: Voxel size in mm.
    """

    fixed: SyntheticVisit
    moving: SyntheticVisit
    deformation: Deformation | None
    spacing_mm: float


def synthetic_patient(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float = 2.0,
    with_deformation: bool = False,
    modalities: Sequence[str] = MODALITIES,
    cavity: bool = False,
    resected_share: float = RESECTED_SHARE,
    tumor_free_share: float = 0.0,
) -> SyntheticPatient:
    """Make the patient of a seed, always the same one for the same templates.

    Args:
        templates: Anatomies with voxels of ``spacing_mm`` (see ``Template.at``).
        seed: Seed of the patient.
        spacing_mm: Voxel size in mm.
        with_deformation: Whether to compute the true deformation between the visits.
        modalities: Channels of the images, in this order.
        cavity: Whether a resection cavity has its own class; else it is background.
        resected_share: Probability that the tumour of one of the visits is resected. Other patients are the same for
            every probability.
        tumor_free_share: Probability that the patient has no tumour. Other patients are the same for every probability.
    """
    draw = Draw(seed)
    template = templates[int(draw.uniform(0, len(templates) - 1e-6))]
    d, h, w = (round(n / spacing_mm) for n in SHAPE_MM)
    shape = (d, h, w)
    healthy = random_head(template, shape, draw)
    noise = TumorNoise.of(shape, spacing_mm, draw)
    first = random_tumor(healthy, spacing_mm, draw)
    second = changed_tumor(first, draw, resected_share)
    if draw.aside(_WITHOUT_TUMOR).chance(tumor_free_share):
        first = second = without_tumor(first)
    pose, inverse_pose = visit_deformation(shape, spacing_mm, draw)
    pushes = [_push(tumor, shape, spacing_mm) for tumor in (first, second)]
    unmoved = identity_displacement(shape)
    before = _visit(healthy, first, noise, pushes[0], unmoved, spacing_mm, draw, modalities, cavity)
    after = _visit(healthy, second, noise, pushes[1], pose, spacing_mm, draw, modalities, cavity)
    deformation = swapped = None
    if with_deformation:
        forward = compose(compose(pushes[0], invert_displacement(pushes[1])), inverse_pose)
        inverse = compose(compose(pose, pushes[1]), invert_displacement(pushes[0]))
        deformation, swapped = Deformation(forward, inverse), Deformation(inverse, forward)
    if draw.chance(0.5):
        return SyntheticPatient(before, after, deformation, spacing_mm)
    return SyntheticPatient(after, before, swapped, spacing_mm)


def _push(tumor: Tumor, shape: tuple[int, int, int], spacing_mm: float) -> Tensor:
    """Mass effect (1, 3, D, H, W) of a tumour around its largest ellipsoid."""
    if not len(tumor.radii_mm):
        return identity_displacement(shape)
    largest = int(tumor.radii_mm.argmax())
    radius = min(float(tumor.radii_mm[largest]) * 1.4 + 4, _FARTHEST_PUSH_MM)
    return mass_effect(shape, tumor.centers[largest], radius / spacing_mm, tumor.mass)


def _visit(
    healthy: Tensor,
    tumor: Tumor,
    noise: TumorNoise,
    push: Tensor,
    pose: Tensor,
    spacing_mm: float,
    draw: Draw,
    modalities: Sequence[str],
    cavity: bool,
) -> SyntheticVisit:
    """One visit: the head with the mass effect and the tumour, moved to the pose of the visit, and its images."""
    tissues = warp_fields(healthy, push)
    fields = torch.cat([tissues, tumor_fields(tumor, tissues, noise, spacing_mm).stack()])
    if bool(pose.any()):
        fields = warp_fields(fields, pose)
    tissues, parts = fields[:3], TumorFields.of(fields[3:])
    brain = tissues.sum(0)
    mask = brain > draw.uniform(0.35, 0.65)
    labels = parts.labels(cavity) * mask
    images = random_images(tissues, parts, mask, spacing_mm, draw, modalities)
    lesion = (parts.labels(cavity=True) > 0) & mask
    return SyntheticVisit(images, labels, mask, tissues, region_labels(tissues, parts, labels, mask), lesion)
