"""What an analysis of compartments starts from: maps, segmentation and anatomy of a visit as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.messages.input_errors import InputError

from .grid import Grid

if TYPE_CHECKING:
    from ..methods.base import Settings as MethodSettings
    from ..tissue.spectra import ZSpectra


@dataclass(frozen=True)
class Image:
    """An image of one visit.

    Attributes:
        name: Name of its file or node.
        array: Values (K, J, I), float32.
        grid: Its voxel grid.
        title: What messages call it; the name in quotation marks where it is empty.
    """

    name: str
    array: np.ndarray
    grid: Grid
    title: str = ""

    @property
    def called(self) -> str:
        """What messages call the image."""
        return self.title or f"'{self.name}'"


@dataclass(frozen=True)
class Masks:
    """Segments on one voxel grid.

    Attributes:
        name: Name of their file or node.
        grid: Their voxel grid.
        masks: Boolean masks (K, J, I) by the name of the segment.
        title: What messages call them; the name in quotation marks where it is empty.
    """

    name: str
    grid: Grid
    masks: Mapping[str, np.ndarray]
    title: str = ""

    @property
    def called(self) -> str:
        """What messages call the segmentation."""
        return self.title or f"'{self.name}'"

    @property
    def is_filled(self) -> bool:
        """Whether any voxel is set."""
        return any(mask.any() for mask in self.masks.values())


@dataclass(frozen=True)
class Acquisition:
    """The spectra that the maps come from, and how they were fitted.

    Attributes:
        spectra: Normalised spectra of the voxels, with their maps.
        voxels: Flat index of each voxel in a raveled map, shape (voxel,).
        method: Method that made the maps.
        settings: Its settings.
    """

    spectra: ZSpectra
    voxels: np.ndarray
    method: str
    settings: MethodSettings


@dataclass(frozen=True)
class CestMaps:
    """Maps of one acquisition.

    Attributes:
        name: Name of their folder.
        grid: Their voxel grid.
        maps: Maps (K, J, I), float32, by name, with standard errors ``<name>_sd``; NaN where there is no value.
        units: Unit of each map by name.
        unsaturated: M0 image or mean of the images (K, J, I), for the alignment; None where it is unknown.
        acquisition: Spectra for the fits of mean spectra; None where they are unknown.
    """

    name: str
    grid: Grid
    maps: Mapping[str, np.ndarray]
    units: Mapping[str, str] = field(default_factory=dict)
    unsaturated: np.ndarray | None = None
    acquisition: Acquisition | None = None


@dataclass(frozen=True)
class VisitInput:
    """Everything that is known about one visit.

    Attributes:
        name: Name of the visit.
        cest: Maps; None for a visit without CEST.
        segmentation: Segments in the space of the anatomy; None without a segmentation.
        anatomy: Anatomical images, the first of which shows the regions.
        cest_to_anatomy: Matrix (4, 4) that maps points of the CEST space to the anatomy, RAS in mm; None for the
            scanner's coordinates, or to register.
        register: Whether to find the matrix by registration.
        notes: Sentences for the user about what was read.
    """

    name: str
    cest: CestMaps | None
    segmentation: Masks | None = None
    anatomy: tuple[Image, ...] = ()
    cest_to_anatomy: np.ndarray | None = None
    register: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Settings of an analysis.

    Attributes:
        rim_mm: Width of the rim around the enhancing tumour in mm; 0 for none.
        level: Level of the confidence intervals.
        draws: Number of bootstrap samples.
        perturbations: Number of disturbed alignments from which the error of the registration comes; 0 for none.
        alignment_error_mm: Standard deviation of the disturbance in mm along each axis.
        segmentation_error_mm: Standard deviation in mm by which the outline of a region at a visit may lie too far
            outside or inside as a whole, from which the intervals of the volume changes come.
        seed: Seed of all random draws.
        fit_spectra: Whether to fit the mean spectra of the regions.
    """

    rim_mm: float = 5.0
    level: float = 0.95
    draws: int = 500
    perturbations: int = 12
    alignment_error_mm: float = 0.5
    segmentation_error_mm: float = 0.5
    seed: int = 1
    fit_spectra: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rim_mm <= 50:
            raise InputError("rim", f"the rim is {self.rim_mm:g} mm wide, but must be between 0 and 50 mm")
        if not 0.5 <= self.level < 1:
            raise InputError(
                "level", f"the level of the intervals is {self.level:g}, but must be between 0.5 and 1, such as 0.95"
            )
        if self.draws < 50:
            raise InputError("draws", f"{self.draws} bootstrap samples are too few; draw at least 50")
        if self.perturbations < 0:
            raise InputError("perturbations", "the number of the perturbations must not be negative")
        if not 0 <= self.alignment_error_mm <= 50:
            raise InputError(
                "alignment-error",
                f"the error of the alignment is {self.alignment_error_mm:g} mm, but must be between 0 and 50 mm",
            )
        if self.seed < 0:
            raise InputError("seed", f"the seed of the random draws must not be negative, as {self.seed} is")
        if not 0 < self.segmentation_error_mm <= 5:
            raise InputError(
                "segmentation-error",
                f"the error of the segmentation is {self.segmentation_error_mm:g} mm, but must be more than 0 and "
                "at most 5 mm",
            )
