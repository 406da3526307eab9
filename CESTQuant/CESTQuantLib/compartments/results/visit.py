"""Everything that is known of one visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..grid import Grid
from .anatomy import Alignment, Midplane
from .regions import Region
from .response import Lesion
from .spectrum import RegionSpectrum
from .statistics import Distribution, Statistics


@dataclass(frozen=True)
class Visit:
    """One visit.

    Attributes:
        name: Name of the visit.
        grid: Voxel grid of the maps; None for a visit without CEST.
        maps: Maps with their standard errors (``<quantity>_sd``), float32 (K, J, I), by name; NaN where there is none.
        units: Unit of each map, by name.
        regions: Parts of the brain, in the order of the tables.
        mask_grid: Grid of the masks of the regions, in the space of the anatomy; None without a segmentation.
        statistics: Rows of ``compartments.csv``.
        distributions: Histograms and box plots.
        spectra: Mean spectra of the regions.
        anatomy: First anatomical image, interpolated once to the CEST grid, or None.
        unsaturated: M0 image, or the mean of the maps' own images, on the CEST grid; None if there is none.
        alignment: How the CEST images lie on the anatomy; None for a visit without CEST.
        midplane: Mid-sagittal plane, or None where it was not found.
        lesions: Enhancing lesions, largest first; None without a segmentation of an enhancing tumour.
        warnings: Sentences for the user.
    """

    name: str
    grid: Grid | None
    maps: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    regions: tuple[Region, ...]
    mask_grid: Grid | None = None
    statistics: tuple[Statistics, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    spectra: tuple[RegionSpectrum, ...] = ()
    anatomy: np.ndarray | None = None
    unsaturated: np.ndarray | None = None
    alignment: Alignment | None = None
    midplane: Midplane | None = None
    lesions: tuple[Lesion, ...] | None = None
    warnings: tuple[str, ...] = ()

    def region(self, name: str) -> Region | None:
        """Return a region by its name, or None."""
        return next((region for region in self.regions if region.name == name), None)

    def row(self, region: str, quantity: str) -> Statistics | None:
        """Return the statistics of a map over a region, or None."""
        return next((row for row in self.statistics if (row.region, row.quantity) == (region, quantity)), None)
