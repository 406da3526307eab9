"""Tissue that changed its compartment between two visits, or has grown or shrunk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Transition:
    """Tissue of one compartment at the first visit and of another one at the second.

    Attributes:
        first: Compartment at the first visit, ``background`` for none.
        second: Compartment at the second visit.
        volume_ml: Volume in ml, in the space of the first visit.
    """

    first: str
    second: str
    volume_ml: float


@dataclass(frozen=True)
class JacobianOfRegion:
    """How the tissue of a region has grown or shrunk: the determinant of the deformation's Jacobian.

    Attributes:
        region: Compartment of the first visit.
        mean: Mean determinant; 1.1 means that the tissue occupies 10 % more volume at the second visit.
        p5: 5th percentile.
        p95: 95th percentile.
        folded: Share of the region, 0 to 1, where the determinant is not positive.
    """

    region: str
    mean: float
    p5: float
    p95: float
    folded: float
