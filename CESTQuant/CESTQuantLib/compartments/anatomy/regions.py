"""The regions of a visit as masks on one grid: compartments, rim, contralateral reference, white matter, segments."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..grid import Grid
from ..inputs import Image, Masks, Settings, VisitInput
from ..results.anatomy import Midplane
from ..results.regions import CONTRALATERAL, WHITE_MATTER, title_of
from ..sampling import mask_on_grid, nearest
from .midplane import find_midplane, mirrored
from .segment_names import CAVITY, COLORS, compartments_and_segments
from .structure import Structure, depth_mm, structure_of, weighting_of

_USER_COLORS = ((0.55, 0.35, 0.65), (0.45, 0.70, 0.30), (0.85, 0.55, 0.35), (0.35, 0.60, 0.60))
_WORTH = {"t1": 0, "t2": 1, "flair": 2, None: 3}
"""Which weighting shows tissue best, the best first."""
_LEAST_WHITE_ML = 10.0
"""Volume of the inner white matter from which its border is left out."""
_RIM_COLOR = (0.60, 0.40, 0.12)


@dataclass(frozen=True)
class RegionMask:
    """A region before it is brought to the CEST grid.

    Attributes:
        name: Name of the region, see ``results.Region``.
        kind: ``tumor``, ``rim``, ``reference`` or ``segment``.
        mask: Boolean mask (K, J, I).
        color: Red, green and blue from 0 to 1.
    """

    name: str
    kind: str
    mask: np.ndarray
    color: tuple[float, float, float]


@dataclass(frozen=True)
class RegionMasks:
    """All regions of a visit.

    Attributes:
        grid: Grid of the masks, in the space of the anatomy; None without a segmentation.
        regions: The regions, in the order of the tables.
        compartments: Masks of the tumour's compartments alone, which do not overlap, by name.
        midplane: Mid-sagittal plane, or None.
        notes: Sentences for the user.
        anatomy: Anatomical images, in the space of the masks; they tell what the visit shows.
    """

    grid: Grid | None = None
    regions: tuple[RegionMask, ...] = ()
    compartments: Mapping[str, np.ndarray] = field(default_factory=dict)
    midplane: Midplane | None = None
    notes: tuple[str, ...] = ()
    anatomy: tuple[Image, ...] = ()


def regions_of(visit: VisitInput, settings: Settings, cest_to_anatomy: np.ndarray) -> RegionMasks:
    """Return the regions of a visit.

    Args:
        visit: The visit.
        settings: Width of the rim.
        cest_to_anatomy: Matrix (4, 4) from points of the CEST space to those of the anatomy, RAS in mm.
    """
    image = _structural_image(visit, cest_to_anatomy)
    given = visit.segmentation
    if given is None and image is None:
        return RegionMasks(notes=("there is neither a segmentation nor an anatomical image: no region is known",))
    if given is None and image is not None:
        given = Masks("", image.grid, {})
    assert given is not None
    compartments, segments = compartments_and_segments(given.masks)
    found = _tumor_regions(compartments)
    notes: list[str] = []
    tumor = next((region.mask for region in found if region.name == "whole_tumor" and region.mask.any()), None)
    altered = _either(tumor, compartments.get(CAVITY))
    own_anatomy = bool(visit.anatomy)
    structure = None if image is None else structure_of(image, altered, given.grid)
    if settings.rim_mm > 0 and found:
        found += _rim(compartments, found, given.grid, settings.rim_mm, structure if own_anatomy else None)
    plane = None
    if structure is not None:
        notes += structure.notes if own_anatomy else ()
        further = [each for each in visit.anatomy if each is not image]
        plane = find_midplane(structure.image, structure.head, altered, given.grid, further)
        if plane is not None and plane.reasons:
            notes.append(
                f"the mid-sagittal plane is doubtful, look at the contralateral region: {'; '.join(plane.reasons)}"
            )
        if own_anatomy and plane is not None:
            found += _white_matter(structure, plane, altered, given.grid, notes)
        if plane is None:
            notes.append(f"{structure.image.called} shows no plane of symmetry: there is no contralateral region")
        elif tumor is not None and altered is not None:
            fluid = structure if own_anatomy else None
            found += _contralateral(tumor, altered, given.grid, plane, fluid, notes)
        elif found:
            notes.append("no tumour is segmented: there is no contralateral region")
    elif tumor is not None:
        notes.append("no image shows the brain: there is no contralateral region")
    for number, (name, mask) in enumerate(segments.items()):
        color = _USER_COLORS[number % len(_USER_COLORS)]
        own_name = _free_name(name, found)
        if own_name != name:
            notes.append(
                f"another region is called like the segment '{name}', which is named '{own_name}' in the results"
            )
        found.append(RegionMask(own_name, "segment", mask, color))
    return RegionMasks(given.grid, tuple(found), compartments, plane, tuple(notes), tuple(visit.anatomy))


def _free_name(name: str, found: Sequence[RegionMask]) -> str:
    """Name for a user's segment by which it, and its title, differ from all regions that there are."""
    titles = {title_of(region.name) for region in found}
    candidates = (f"{name} (segment{'' if number == 1 else f' {number}'})" for number in itertools.count(1))
    return next(each for each in itertools.chain([name], candidates) if title_of(each) not in titles)


def _structural_image(visit: VisitInput, cest_to_anatomy: np.ndarray) -> Image | None:
    """The image that shows tissue best; without an anatomy the unsaturated CEST image in the space of the anatomy."""
    if visit.anatomy:
        return min(visit.anatomy, key=lambda image: _WORTH[weighting_of(image.name)])
    cest = visit.cest
    if cest is None or cest.unsaturated is None:
        return None
    grid = Grid(cest.grid.shape, cest_to_anatomy @ cest.grid.ijk_to_ras)
    return Image("unsaturated image", cest.unsaturated, grid)


def _tumor_regions(compartments: Mapping[str, np.ndarray]) -> list[RegionMask]:
    """Compartments, core and whole tumour; the last one is the largest."""
    found = [RegionMask(name, "tumor", mask, COLORS[name]) for name, mask in compartments.items()]
    core = [compartments[name] for name in ("necrotic_core", "enhancing_tumor") if name in compartments]
    if len(core) > 1 and "tumor_core" not in compartments:
        found.append(RegionMask("tumor_core", "tumor", np.any(core, axis=0), COLORS["tumor_core"]))
    parts = [mask for name, mask in compartments.items() if name != CAVITY]
    if parts and "whole_tumor" not in compartments:
        found.append(RegionMask("whole_tumor", "tumor", np.any(parts, axis=0), COLORS["whole_tumor"]))
    return sorted(found, key=lambda region: region.name == "whole_tumor")


def _rim(
    compartments: Mapping[str, np.ndarray],
    tumor: list[RegionMask],
    grid: Grid,
    rim_mm: float,
    structure: Structure | None,
) -> list[RegionMask]:
    """The tissue within ``rim_mm`` outside of the enhancing tumour, else of the core, else of the whole tumour."""
    by_name = {region.name: region.mask for region in tumor}
    around = ("enhancing_tumor", "tumor_core", "whole_tumor")
    inner = next((by_name[name] for name in around if name in by_name and by_name[name].any()), None)
    if inner is None:
        return []
    box = _box(inner, np.ceil(rim_mm / grid.spacing_mm).astype(int) + 2)
    near = np.zeros(inner.shape, bool)
    near[box] = depth_mm(inner[box], grid) >= -rim_mm
    excluded = inner | np.any(
        [compartments[n] for n in compartments if n not in ("edema", "whole_tumor")] or [inner], 0
    )
    rim = near & ~excluded
    if structure is not None:
        rim &= _at_voxels(structure.head & ~structure.fluid, structure.image.grid, grid, rim)
    return [RegionMask(f"rim_{rim_mm:g}mm", "rim", rim, _RIM_COLOR)]


def _either(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Voxels of either mask; None where there is neither."""
    if first is None or second is None:
        return second if first is None else first
    return first | second


def _contralateral(
    tumor: np.ndarray,
    altered: np.ndarray,
    grid: Grid,
    plane: Midplane,
    structure: Structure | None,
    notes: list[str],
) -> list[RegionMask]:
    """The mirror image of the tumour, without tumour, cavity, fluid and what lies outside of the head."""
    mirror = np.zeros(tumor.shape, bool)
    corners = grid.at(np.argwhere(tumor)[:, ::-1].astype(np.float64))
    indices = grid.indices(mirrored(corners, plane))
    low = np.maximum(np.floor(indices.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(indices.max(0)).astype(int) + 2, tumor.shape[::-1])
    if (high <= low).any():
        notes.append(
            "the mirror image of the tumour lies outside of the segmentation: there is no contralateral region"
        )
        return []
    box = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    inside = np.argwhere(np.ones(mirror[box].shape, bool))[:, ::-1] + low
    there = nearest(tumor, grid.indices(mirrored(grid.at(inside.astype(np.float64)), plane)))
    mirror[box] = there.reshape(mirror[box].shape)
    mirror &= ~altered
    if structure is not None:
        mirror &= _at_voxels(structure.head & ~structure.fluid, structure.image.grid, grid, mirror)
    else:
        notes.append("fluid is not left out of the contralateral region, because there is no anatomical image")
    if mirror.sum() < 0.25 * tumor.sum():
        notes.append(
            "less than a quarter of the tumour has a mirror image in the brain: do not rely on the contralateral region"
        )
    return [RegionMask(CONTRALATERAL, "reference", mirror, COLORS[CONTRALATERAL])] if mirror.any() else []


def _white_matter(
    structure: Structure, plane: Midplane, altered: np.ndarray | None, grid: Grid, notes: list[str]
) -> list[RegionMask]:
    """Deep white matter of the half of the brain that holds less of tumour and cavity."""
    white = structure.white.copy()
    if altered is not None and altered.any():
        centers = grid.at(np.argwhere(altered)[:, ::-1].astype(np.float64))
        side = np.sign(np.median((centers - plane.point) @ plane.normal)) or 1.0
        own = (structure.image.grid.points() - plane.point) @ plane.normal * side > -3.0
        white &= ~own.reshape(white.shape)
        white &= ~_grown(altered, grid, structure.image.grid)
    inside = depth_mm(white, structure.image.grid) >= 1.5 * float(structure.image.grid.spacing_mm.min())
    white = inside if inside.sum() * structure.image.grid.voxel_ml >= _LEAST_WHITE_ML else white
    mask = _at_voxels(white, structure.image.grid, grid, None)
    if not mask.any():
        notes.append(f"no white matter is found in {structure.image.called}")
        return []
    return [RegionMask(WHITE_MATTER, "reference", mask, COLORS[WHITE_MATTER])]


def _grown(tumor: np.ndarray, grid: Grid, onto: Grid, margin_mm: float = 5.0) -> np.ndarray:
    """The tumour with a margin, on another grid."""
    there = nearest(tumor, grid.indices(onto.points())).reshape(onto.shape)
    return depth_mm(there, onto) >= -margin_mm


def _at_voxels(mask: np.ndarray, source: Grid, onto: Grid, where: np.ndarray | None) -> np.ndarray:
    """A mask at the voxels of another grid, by the nearest voxel; only at those in ``where`` if given."""
    if where is None:
        return mask_on_grid(mask, source, onto)
    found = np.zeros(onto.shape, bool)
    places = np.argwhere(where)
    if len(places):
        found[tuple(places.T)] = nearest(mask, source.indices(onto.at(places[:, ::-1].astype(np.float64))))
    return found


def _box(mask: np.ndarray, margin_ijk: np.ndarray) -> tuple[slice, ...]:
    places = np.argwhere(mask)
    low = np.maximum(places.min(0) - margin_ijk[::-1], 0)
    high = np.minimum(places.max(0) + margin_ijk[::-1] + 1, mask.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
