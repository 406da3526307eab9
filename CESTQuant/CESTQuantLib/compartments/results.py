"""What an analysis of compartments returns: numbers, images and quality of each visit, and what changed between them.

Arrays are (K, J, I) on the voxel grid of the CEST maps of their visit unless noted; matrices are in the order
(i, j, k), world coordinates are RAS in mm. A number that is not known is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .grid import Grid

NAN = float("nan")

CONTRALATERAL = "contralateral"
"""Name of the reference region: the mirror image of the whole tumour."""
WHITE_MATTER = "white_matter"
"""Name of the normal-appearing white matter."""


def title_of(name: str) -> str:
    """Return the name of a region as shown to readers, in British spelling."""
    return name.replace("_", " ").replace("tumor", "tumour").replace("edema", "oedema").capitalize()


@dataclass(frozen=True)
class Region:
    """A part of the brain at one visit.

    Attributes:
        name: ``necrotic_core``, ``edema``, ``enhancing_tumor``, ``resection_cavity``, ``tumor_core``, ``whole_tumor``,
            ``rim_<mm>mm``, ``contralateral``, ``white_matter``, or the name of a user's segment.
        kind: ``tumor``, ``rim``, ``reference`` or ``segment``.
        weights: Share of each CEST voxel that lies in the region, 0 to 1, float32 (K, J, I): its partial volume. The
            contour at 0.5 is the outline. Empty, (0, 0, 0), for a visit without CEST.
        mask: The region on ``Visit.mask_grid``, bool, in the space of the anatomy.
        volume_ml: Volume on the grid of the segmentation, in ml.
        covered_ml: Volume that lies in the voxels of the CEST slab, in ml.
        color: Red, green and blue from 0 to 1.
    """

    name: str
    kind: str
    weights: np.ndarray
    mask: np.ndarray
    volume_ml: float
    covered_ml: float
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def coverage(self) -> float:
        """Share of the region, 0 to 1, that lies in the CEST slab; NaN for an empty region."""
        return min(self.covered_ml / self.volume_ml, 1.0) if self.volume_ml > 0 else NAN

    @property
    def title(self) -> str:
        """Name as shown to readers, in British spelling."""
        return title_of(self.name)


@dataclass(frozen=True)
class Statistics:
    """One map over one region at one visit: a row of ``compartments.csv``.

    All moments and quantiles weight each voxel by its partial volume. ``mean_se`` is from a block bootstrap and so
    allows for neighbouring voxels that are not independent.

    Attributes:
        visit: Name of the visit.
        region: Name of the region.
        quantity: Name of the map.
        unit: Unit of the map; empty for dimensionless quantities.
        n: Number of voxels with a value of which at least half lies in the region; these count.
        coverage: Share of the region, 0 to 1, that lies in voxels of the slab with a value of this map.
        mean: Mean.
        sd: Standard deviation.
        median: Median.
        q1: Lower quartile.
        q3: Upper quartile.
        fit: Quantity from the fit of the region's mean spectrum; NaN without one.
        fit_se: Its standard error.
        n_effective: Number of independent voxels that the mean is as certain as: ``(sd / mean_se)²``, at most n.
        p10: 10th percentile.
        p90: 90th percentile.
        mean_se: Standard error of the mean.
        variance_weighted_mean: Mean weighted by partial volume over the squared standard error of each voxel's fit; NaN
            without a map of standard errors.
        reliability_weighted_mean: Mean weighted by partial volume times reliability (the map ``reliable`` of a network;
            else ``1 / (1 + (rmse / median rmse)²)`` of a fit); NaN without either.
        ratio: Mean over the mean of the contralateral region; NaN without one.
        difference: Mean minus the mean of the contralateral region.
        difference_se: Standard error of the difference.
        mean_se_fit: Standard error of the mean that the errors of the fits alone would cause.
        mean_se_alignment: Standard deviation of the mean when the alignment of CEST and anatomy is disturbed.
        blocks: Number of blocks of the bootstrap, from which ``mean_se`` comes.
        pure: Value of a voxel that is full of the compartment, freed from its neighbours in mixed voxels; NaN for other
            regions and where the voxels do not determine it.
        pure_se: Its standard error, with those of the alignment and of the fit's solution.
        engine_error: How far the quantity is off in this region, at most, because the fit solves the Bloch-McConnell
            equations approximately; NaN where the fit of the mean spectrum does not tell.
    """

    visit: str
    region: str
    quantity: str
    unit: str
    n: int
    coverage: float
    mean: float = NAN
    sd: float = NAN
    median: float = NAN
    q1: float = NAN
    q3: float = NAN
    fit: float = NAN
    fit_se: float = NAN
    n_effective: float = NAN
    p10: float = NAN
    p90: float = NAN
    mean_se: float = NAN
    variance_weighted_mean: float = NAN
    reliability_weighted_mean: float = NAN
    ratio: float = NAN
    difference: float = NAN
    difference_se: float = NAN
    mean_se_fit: float = NAN
    mean_se_alignment: float = NAN
    blocks: int = 0
    pure: float = NAN
    pure_se: float = NAN
    engine_error: float = NAN

    @property
    def pure_random_se(self) -> float:
        """Standard error of ``pure`` without the error of the fit's solution, which the visits share."""
        known = float(np.nan_to_num(self.engine_error))
        return float(np.sqrt(max(self.pure_se**2 - known**2, 0.0))) if np.isfinite(self.pure_se) else NAN


@dataclass(frozen=True)
class Distribution:
    """Histogram and box plot of one map over one region, both weighted by partial volume.

    Attributes:
        region: Name of the region.
        quantity: Name of the map.
        edges: Edges of the bins, shape (bin + 1,); the same for all regions and visits of a quantity.
        share: Share of the region's volume in each bin, shape (bin,), sum 1.
        whiskers: 5th percentile, lower quartile, median, upper quartile and 95th percentile.
    """

    region: str
    quantity: str
    edges: np.ndarray
    share: np.ndarray
    whiskers: tuple[float, float, float, float, float]


@dataclass(frozen=True)
class RegionSpectrum:
    """Mean spectrum of a region, weighted by partial volume, and its fit.

    Attributes:
        region: Name of the region.
        offsets_ppm: Offsets in ppm, shape (measurement,).
        power_uT: B1 in uT of each measurement, shape (measurement,).
        signal: Normalised mean signal, shape (measurement,).
        sd: Weighted standard deviation over the voxels, shape (measurement,).
        fit: Fitted signal, shape (measurement,), NaN where the method uses no measurement; None without a fit.
        pools: Line of each Lorentzian pool as ``1 - line``, shape (measurement,), by name.
        values: Value and standard error of each fitted quantity, by name.
        engine_errors: How far each fitted quantity is off, at most, because the method solves the Bloch-McConnell
            equations approximately, by name; empty for methods that do not.
        note: Sentence that says why there is no fit; empty where there is one.
    """

    region: str
    offsets_ppm: np.ndarray
    power_uT: np.ndarray
    signal: np.ndarray
    sd: np.ndarray
    fit: np.ndarray | None = None
    pools: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    engine_errors: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


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
    overlap: float = NAN
    information_before: float = NAN
    information_after: float = NAN
    correlation_before: float = NAN
    correlation_after: float = NAN
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
    symmetry_before: float = NAN
    reasons: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Change:
    """Change of a region's mean between the visits: a row of ``changes.csv``.

    The interval of a volume comes from the error of the outlines alone, see ``Settings.segmentation_error_mm``; the
    parts of its standard error are NaN.

    Attributes:
        region: Name of the region.
        quantity: Name of the map, or ``volume``.
        unit: Unit.
        first: Value at the first visit.
        second: Value at the second visit.
        change: Second minus first.
        percent: Change in percent of the first value; NaN where that is not positive.
        lower: Lower limit of the confidence interval of the change.
        upper: Upper limit.
        level: Level of the interval, such as 0.95.
        se: Standard error of the change.
        se_fit: Part of it from the errors of the fits.
        se_spatial: Part of it from the voxels drawn, with their spatial correlation (block bootstrap); it contains what
            the errors of the fits contribute voxel by voxel.
        se_registration: Part of it from the errors of the alignment (perturbation).
        enough: Whether both visits show enough of the region for the interval to hold.
        pure_change: Change of the value of pure tissue, second minus first; NaN where one is not known.
        pure_lower: Lower limit of its confidence interval.
        pure_upper: Upper limit.
    """

    region: str
    quantity: str
    unit: str
    first: float
    second: float
    change: float
    percent: float
    lower: float
    upper: float
    level: float
    se: float
    se_fit: float
    se_spatial: float
    se_registration: float
    enough: bool
    pure_change: float = NAN
    pure_lower: float = NAN
    pure_upper: float = NAN


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


@dataclass(frozen=True)
class Response:
    """Automatic measures in the manner of the RANO criteria; no substitute for a radiologist's reading.

    Attributes:
        products_mm2: Sum of the bidimensional products of the measurable lesions at each visit, in mm².
        counts: Number of enhancing lesions at each visit.
        product_percent: Change of the sum in percent; NaN where there was none at the first visit.
        volume_percent: Change of the enhancing volume in percent.
        category: ``complete response``, ``partial response``, ``stable disease``, ``progressive disease`` or
            ``not assessable``, from the products.
        volume_category: The same from the enhancing volumes.
        caveat: Sentence that must be shown beside the categories.
    """

    products_mm2: tuple[float, float]
    counts: tuple[int, int]
    product_percent: float
    volume_percent: float
    category: str
    volume_category: str
    caveat: str


@dataclass(frozen=True)
class Between:
    """What happened between two visits. Images are in the space of the first visit.

    Attributes:
        changes: Rows of ``changes.csv``: means of the maps, and volumes with the quantity ``volume`` in ml.
        response: Measures in the manner of RANO; None without an enhancing compartment.
        transitions: Volumes of tissue by compartments at both visits; empty without a transform between the visits.
        transition_labels: For each voxel of ``transition_grid`` an index + 1 into ``transitions``, or 0, uint8; None
            without a transform.
        transition_grid: Grid of the first visit's segmentation, cut to the tumours.
        jacobian: Statistics of the Jacobian in the compartments of the first visit.
        change_maps: Second minus first visit on the CEST grid of the first one, by quantity; empty without a transform.
        second_maps: Maps of the second visit on the CEST grid of the first one, interpolated once, by quantity.
        registration: Correlation of the anatomies of both visits with the transform, without it and with its inverse;
            empty without a transform or an anatomy.
        warnings: Sentences for the user.
        kept: Voxels of ``transition_grid``, bool, that kept their compartment; None without a transform.
    """

    changes: tuple[Change, ...]
    response: Response | None = None
    transitions: tuple[Transition, ...] = ()
    transition_labels: np.ndarray | None = None
    transition_grid: Grid | None = None
    jacobian: tuple[JacobianOfRegion, ...] = ()
    change_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    second_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    registration: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    kept: np.ndarray | None = None


@dataclass(frozen=True)
class Analysis:
    """The whole result.

    Attributes:
        visits: One or two visits, in the order of time.
        between: What happened between them; None for a single visit.
        settings: Settings that the numbers depend on, such as ``rim_mm``, ``level`` and ``seed``, for the report.
    """

    visits: tuple[Visit, ...]
    between: Between | None = None
    settings: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about all visits and the change."""
        named = [f"{visit.name}: {text}" for visit in self.visits for text in visit.warnings]
        return (*named, *(self.between.warnings if self.between else ()))
