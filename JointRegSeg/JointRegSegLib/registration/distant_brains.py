"""Visits whose headers place them far apart: their brains are brought together before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from ..images.grid import mask_corners
from .affine import AffineResult, Brain


def brought_together(alignment: AffineResult, fixed: Brain, moving: Brain) -> AffineResult:
    """Return an alignment under which the boxes of two brains overlap.

    A grid around two brains that lie metres apart would need terabytes. That happens where no linear alignment is
    computed and the headers share no frame of reference.

    Args:
        alignment: Alignment that was found, or the identity.
        fixed: Brain that defines the fixed space.
        moving: The other brain.

    Returns:
        The alignment itself where the brains overlap. Otherwise the one that also brings the centres of mass of the
        brains together, which its notes tell.
    """
    corners = np.array([alignment.transform.TransformPoint(c) for c in mask_corners(fixed.mask).tolist()])
    others = mask_corners(moving.mask)
    common = np.minimum(corners.max(0), others.max(0)) - np.maximum(corners.min(0), others.min(0))
    if (common > 0).all():
        return alignment
    here = np.array(alignment.transform.TransformPoint(_center(fixed.mask)))
    shift = np.array(_center(moving.mask)) - here
    transform = sitk.AffineTransform(alignment.transform)
    transform.SetTranslation((np.array(transform.GetTranslation()) + shift).tolist())
    note = (
        f"the headers place the brain of the {moving.name} study {np.linalg.norm(shift) / 10:.0f} cm away from that of "
        f"the {fixed.name} study: their centres were brought together; choose a rigid or affine alignment to do better"
    )
    return replace(alignment, transform=transform, notes=(*alignment.notes, note))


def _center(mask: sitk.Image) -> tuple[float, ...]:
    """Centre of mass of the non-zero voxels, LPS mm."""
    voxels = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0).mean(axis=0)[::-1]
    return tuple(mask.TransformContinuousIndexToPhysicalPoint([float(v) for v in voxels]))
