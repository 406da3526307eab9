"""How the CEST images lie on the anatomy, and where the middle of the brain is."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np


@dataclass(frozen=True)
class Alignment:
    """How the CEST images lie on the anatomy of their visit.

    Attributes:
        source: ``header`` (the scanner's coordinates), ``given`` (a transform) or ``registered``.
        anatomy: Name of the image that it was judged by; empty without one.
        cest_to_anatomy: Matrix (4, 4) that maps points of the CEST space to points of the anatomy, RAS in mm.
        translation_mm: Mean motion of the points of the brain in the slab, in mm.
        rotation_deg: Angle of the rotation in degrees.
        overlap: Share of the CEST brain, 0 to 1, that the anatomy shows.
        information_before: Normalised mutual information with the scanner's coordinates, 1 (none) to 2.
        information_after: The same with the alignment.
        correlation_before: Local correlation, 0 to 1, with the scanner's coordinates.
        correlation_after: The same with the alignment.
        verdict: ``good``, ``check`` or ``unknown`` (without an anatomy); a failed one is refused.
        reasons: Sentences that explain the verdict.
    """

    source: str
    cest_to_anatomy: np.ndarray
    anatomy: str = ""
    translation_mm: float = 0.0
    rotation_deg: float = 0.0
    overlap: float = nan
    information_before: float = nan
    information_after: float = nan
    correlation_before: float = nan
    correlation_after: float = nan
    verdict: str = "unknown"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Midplane:
    """The mid-sagittal plane of the brain.

    Attributes:
        point: Point of the plane nearest to the centre of the brain, RAS in mm, shape (3,).
        normal: Unit vector towards the patient's right in the anatomy's space, shape (3,).
        symmetry: Correlation, -1 to 1, of the brain with its mirror image; mean of outline and intensities.
        symmetry_before: The same for the scanner's sagittal plane through the centre of the head.
        reasons: Phrases that say why the plane is doubtful; none if it is not.
    """

    point: np.ndarray
    normal: np.ndarray
    symmetry: float
    symmetry_before: float = nan
    reasons: tuple[str, ...] = ()
