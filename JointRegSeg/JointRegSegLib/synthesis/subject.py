"""A synthetic subject with one visit, whose tissues, age and sex are known; see ``traits`` for the laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.modalities import MODALITIES
from ..images.tissues import TISSUES
from .anatomy import mass_effect, moved_template, warp_fields, with_sulci
from .contrast import random_images
from .patient import SHAPE_MM
from .random_fields import Draw, grid_of
from .templates import CSF, GM, WM, Template
from .traits import Traits, random_traits
from .tumor import TumorFields, TumorNoise, random_tumor, tumor_fields

NUMBERS = {name: number for number, name in enumerate(TISSUES, 1)}
"""Numbers of the tissues in label maps."""
_VENTRICLE_REACH_MM = 26.0


@dataclass(frozen=True)
class SyntheticSubject:
    """One visit of a synthetic subject.

    Attributes:
        images: Images (C, D, H, W) in arbitrary units, zero outside the brain.
        tissue: Tissues (D, H, W) uint8 by ``NUMBERS``.
        labels: Tumour classes (D, H, W) uint8.
        mask: Brain (D, H, W) bool.
        traits: Age and sex, and what the brain shows of them.
        spacing_mm: Voxel size in mm.
    """

    images: Tensor
    tissue: Tensor
    labels: Tensor
    mask: Tensor
    traits: Traits
    spacing_mm: float


def synthetic_subject(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float = 2.0,
    tumors: float = 0.0,
    modalities: Sequence[str] = MODALITIES,
) -> SyntheticSubject:
    """Make the subject of a seed, always the same one for the same templates.

    Args:
        templates: Anatomies with voxels of ``spacing_mm`` (see ``Template.at``).
        seed: Seed of the subject.
        spacing_mm: Voxel size in mm.
        tumors: Share of subjects with a glioma.
        modalities: Channels of the images, in this order.
    """
    draw = Draw(seed)
    traits = random_traits(draw)
    template = templates[int(draw.uniform(0, len(templates) - 1e-6))]
    d, h, w = (round(n / spacing_mm) for n in SHAPE_MM)
    shape = (d, h, w)
    fields = _aged(template, traits)
    moved = moved_template(fields, spacing_mm, shape, draw, traits.scales(draw))
    healthy = with_sulci(moved[:3], traits.sulcal_exponent)
    parts, tissues, parcels = TumorFields.of(torch.zeros(_channels_of_tumor(), *shape)), healthy, moved[3:]
    if draw.chance(tumors):
        tumor = random_tumor(healthy, spacing_mm, draw)
        largest = int(tumor.radii_mm.argmax())
        reach = (float(tumor.radii_mm[largest]) * 1.4 + 4) / spacing_mm
        pushed = warp_fields(
            torch.cat([healthy, parcels]), mass_effect(shape, tumor.centers[largest], reach, tumor.mass)
        )
        tissues, parcels = pushed[:3], pushed[3:]
        parts = tumor_fields(tumor, tissues, TumorNoise.of(shape, spacing_mm, draw), spacing_mm)
    mask = tissues.sum(0) > draw.uniform(0.35, 0.65)
    labels = parts.labels() * mask
    images = random_images(tissues, parts, mask, spacing_mm, draw, modalities)
    lesion = (labels > 0) | (parts.cavity > 0.5)
    return SyntheticSubject(images, tissue_labels(tissues, parcels, lesion, mask), labels, mask, traits, spacing_mm)


def tissue_labels(tissues: Tensor, parcels: Tensor, lesion: Tensor, mask: Tensor) -> Tensor:
    """Combine tissues and parts of the brain to one label map.

    Args:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        parcels: Cerebellum, brain stem and surroundings of the ventricles (3, D, H, W), see ``template_parcels``.
        lesion: Lesion (D, H, W) bool.
        mask: Brain (D, H, W) bool.

    Returns:
        Label map (D, H, W) uint8 with the values of ``NUMBERS``.
    """
    order = torch.tensor([NUMBERS["csf"], NUMBERS["gm"], NUMBERS["wm"]], dtype=torch.uint8)
    found = order[tissues[[CSF, GM, WM]].argmax(0)]
    solid = found != NUMBERS["csf"]
    cerebellum, stem, around = parcels
    found[solid & (cerebellum > 0.5)] = NUMBERS["cerebellum"]
    found[solid & (stem > 0.5)] = NUMBERS["brain_stem"]
    found[~solid & (around > 0.5)] = NUMBERS["ventricles"]
    found[lesion] = NUMBERS["lesion"]
    return found * mask


def template_parcels(tissues: Tensor) -> Tensor:
    """Divide a template by planes and ellipsoids in the frame of its bounding box.

    The borders are those of formulas (the tentorium as a tilted plane, the brain stem as an oblique cylinder, the
    ventricles as CSF in an ellipsoid around the middle), which suits training data and is no atlas.

    Args:
        tissues: Probabilities (3, D, H, W); the axes run to superior, anterior and right.

    Returns:
        Cerebellum, brain stem, and the surroundings of the ventricles (3, D, H, W), 0 or 1.
    """
    z, y, x = _box_positions(tissues)
    axis_y = 0.385 + 0.33 * (z - 0.2)
    stem = ((x - 0.5) / 0.105) ** 2 + ((y - axis_y) / 0.095) ** 2 < 1
    stem = stem & (z < 0.40)
    tentorium = 0.40 - 0.16 * (0.36 - y).clamp_min(0) - 0.34 * (x - 0.5).abs()
    cerebellum = (z < tentorium) & (y < 0.43) & (y > 0.05) & ~stem
    around = ((x - 0.5) / 0.21) ** 2 + ((y - 0.52) / 0.30) ** 2 + ((z - 0.555) / 0.165) ** 2 < 1
    return torch.stack([cerebellum, stem, around]).float()


def _box_positions(tissues: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the voxels from 0 to 1 in the bounding box of the brain, towards superior, anterior and right."""
    brain = tissues.sum(0) > 0.5
    found = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        inside = brain.any(others[1]).any(others[0]).nonzero().flatten()
        low, high = int(inside[0]), int(inside[-1])
        shape = [1, 1, 1]
        shape[axis] = -1
        found.append(((torch.arange(brain.shape[axis]) - low) / max(high - low, 1)).view(shape))
    z, y, x = torch.broadcast_tensors(*found)
    return z, y, x


def _aged(template: Template, traits: Traits) -> Tensor:
    """Tissues and parcels (6, D, H, W) of the template with the ventricles of the brain age."""
    parcels = template_parcels(template.tissues)
    fields = torch.cat([template.tissues, parcels])
    ventricles = (template.tissues[CSF] > 0.5) & (parcels[2] > 0.5)
    if not bool(ventricles.any()):
        return fields
    middle = torch.stack([w.float().mean() for w in ventricles.nonzero().unbind(1)])
    reach = _VENTRICLE_REACH_MM / template.spacing_mm
    return warp_fields(fields, mass_effect(grid_of(fields), middle, reach, traits.ventricle_strength))


def _channels_of_tumor() -> int:
    return len(TumorFields.__dataclass_fields__)
