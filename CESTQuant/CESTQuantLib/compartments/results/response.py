"""Enhancing lesions and the response of a tumour, measured in the manner of the RANO criteria."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np


@dataclass(frozen=True)
class Lesion:
    """A connected enhancing lesion, measured as in the RANO criteria.

    Attributes:
        volume_ml: Volume in ml.
        longest_mm: Longest diameter in an axial slice, in mm; of a lesion at the wall of a resection cavity that of its
            nodules, or the thickness of the wall.
        perpendicular_mm: Longest diameter perpendicular to it in the same slice, in mm.
        center: Centre, RAS in mm, shape (3,).
        measurable: Whether both diameters are at least 10 mm.
    """

    volume_ml: float
    longest_mm: float
    perpendicular_mm: float
    center: np.ndarray
    measurable: bool

    @property
    def product_mm2(self) -> float:
        """Bidimensional product in mm²."""
        return self.longest_mm * self.perpendicular_mm


@dataclass(frozen=True)
class Response:
    """Automatic measures in the manner of the RANO criteria; no substitute for a radiologist's reading.

    Attributes:
        products_mm2: Sum of the bidimensional products at each visit, in mm², of the lesions that are measurable at
            one of the visits; where lesions could not be followed, of those that are measurable at that visit.
        counts: Number of enhancing lesions at each visit.
        product_percent: Change of the sum in percent; NaN where there was none at the first visit, or where the sums
            may be of different lesions.
        volume_percent: Change of the volume of the lesions in percent.
        category: ``complete response``, ``partial response``, ``stable disease``, ``progressive disease`` or
            ``not assessable``, from the products.
        volume_category: The same from the volumes of the lesions.
        caveat: Sentences that must be shown beside the categories.
        volumes_ml: Volume of the lesions at each visit, in ml.
        new_measurable: Number of measurable lesions that are new at the second visit; None without a transform
            between the visits.
    """

    products_mm2: tuple[float, float]
    counts: tuple[int, int]
    product_percent: float
    volume_percent: float
    category: str
    volume_category: str
    caveat: str
    volumes_ml: tuple[float, float] = (nan, nan)
    new_measurable: int | None = None
