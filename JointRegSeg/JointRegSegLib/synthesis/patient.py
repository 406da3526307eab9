"""A synthetic patient with a glioma: two visits, their labels, and the true deformation between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.modalities import MODALITIES
from ..registration.deformation import Deformation, compose, identity_displacement, invert_displacement
from .anatomy import carried, mass_effect, random_head, visit_deformation
from .contrast import random_images
from .random_fields import Draw
from .templates import Template
from .tumor import Compartments, Tumor, TumorNoise, compartments, grown, random_tumor

SHAPE_MM = (160, 192, 160)
"""Field of view along (D, H, W): superior, anterior, right."""


@dataclass(frozen=True)
class Visit:
    """images: (C, D, H, W), arbitrary units, zero outside of the brain; labels: (D, H, W) uint8 classes; mask: bool;
    tissues: (3, D, H, W) CSF, grey and white matter of the healthy anatomy."""

    images: Tensor
    labels: Tensor
    mask: Tensor
    tissues: Tensor


@dataclass(frozen=True)
class SyntheticPatient:
    """Two visits on one grid and, where asked for, the true map from the first to the second."""

    fixed: Visit
    moving: Visit
    deformation: Deformation | None
    spacing_mm: float


def synthetic_patient(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float = 2.0,
    with_deformation: bool = False,
    modalities: Sequence[str] = MODALITIES,
) -> SyntheticPatient:
    """The patient of a seed: always the same one for the same templates.

    templates: at ``spacing_mm`` (see :meth:`Template.at`).
    """
    draw = Draw(seed)
    template = templates[int(draw.uniform(0, len(templates) - 1e-6))]
    shape = tuple(round(n / spacing_mm) for n in SHAPE_MM)
    healthy = random_head(template, shape, draw)
    noise = TumorNoise.of(shape, spacing_mm, draw)
    first = random_tumor(healthy, spacing_mm, draw)
    tumors = (first, grown(first, draw))
    there, back = visit_deformation(shape, spacing_mm, draw)
    still = identity_displacement(shape)
    visits, pushes = [], []
    for tumor, pose in zip(tumors, (still, there), strict=True):
        push = _push(tumor, shape, spacing_mm)
        visits.append(_visit(healthy, tumor, noise, push, pose, spacing_mm, draw, modalities))
        pushes.append(push)
    forward = inverse = None
    if with_deformation:
        forward = compose(compose(pushes[0], invert_displacement(pushes[1])), back)
        inverse = compose(compose(there, pushes[1]), invert_displacement(pushes[0]))
    deformation = Deformation(forward, inverse) if forward is not None else None
    if draw.chance(0.5):
        return SyntheticPatient(*visits, deformation, spacing_mm)
    swapped = Deformation(inverse, forward) if forward is not None else None
    return SyntheticPatient(visits[1], visits[0], swapped, spacing_mm)


def _push(tumor: Tumor, shape: tuple[int, int, int], spacing_mm: float) -> Tensor:
    largest = int(tumor.radii_mm.argmax())
    radius = float(tumor.radii_mm[largest]) * 1.4 + 4
    return mass_effect(shape, tumor.centres[largest], radius / spacing_mm, tumor.mass)


def _visit(
    healthy: Tensor,
    tumor: Tumor,
    noise: TumorNoise,
    push: Tensor,
    pose: Tensor,
    spacing_mm: float,
    draw: Draw,
    modalities: Sequence[str],
) -> Visit:
    tissues = carried(healthy, push)
    fields = torch.cat([tissues, compartments(tumor, tissues, noise, spacing_mm).stack()])
    if bool(pose.any()):
        fields = carried(fields, pose)
    tissues, parts = fields[:3], Compartments.of(fields[3:])
    brain = tissues.sum(0)
    mask = brain > draw.uniform(0.35, 0.65)
    labels = parts.labels() * mask
    images = random_images(tissues, parts, mask, spacing_mm, draw, modalities)
    return Visit(images, labels, mask, tissues)
