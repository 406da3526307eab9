"""Size of enhancing lesions and its change, in the manner of the RANO criteria.

Bidimensional products: Wen et al., J Clin Oncol 2010;28:1963. Volumes and thresholds of volumes: RANO 2.0, Wen et al.,
J Clin Oncol 2023;41:5187.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import nan

import numpy as np
import SimpleITK as sitk

from .grid import Grid
from .results.response import Lesion, Response

MEASURABLE_MM = 10.0
"""Both diameters of a measurable lesion are at least this long."""
NOT_ASSESSABLE = "not assessable"
PROGRESSIVE = "progressive disease"
SMALLEST_ML = 0.05
"""Smaller components are taken for noise of the segmentation."""
CAVEAT = (
    "These measures were made automatically from the segmentations of two visits. They know nothing of steroids, "
    "clinical state, non-measurable disease, nadir or pseudoprogression, and do not replace a radiologist's reading."
)
NOT_FOLLOWED = "Without a transform between the visits, new lesions are not told from old ones."
"""What the caveat adds where lesions could not be followed from visit to visit."""
OPERATED = (
    "Tumour was resected between the visits, so that a category would describe the operation. Take the first visit "
    "after it as the reference."
)
LEAST_NEW_CAVITY_ML = 1.0
"""A resection cavity that is larger by this than at the first visit tells of an operation between the visits."""
_PRODUCT_LIMITS = (-50.0, 25.0)
_VOLUME_LIMITS = (-65.0, 40.0)
_DIRECTIONS = 180


def lesions_of(mask: np.ndarray, grid: Grid, cavity: np.ndarray | None = None) -> tuple[Lesion, ...]:
    """Measure the connected lesions of a mask, the largest first.

    A resection cavity is not measured: of a lesion at its wall only the nodules count, in which a ball of 10 mm has
    room; without one, the thickness of the wall stands for both diameters.

    Args:
        mask: Enhancing tumour, bool (K, J, I).
        grid: Its voxel grid. The slices are those of the grid's axis that is nearest to the patient's long axis.
        cavity: Resection cavity, bool (K, J, I); None if there is none.
    """
    numbers = numbered_lesions(mask, grid)
    return tuple(
        _lesion(numbers == number, grid, float(count) * grid.voxel_ml, cavity)
        for number, count in enumerate(np.bincount(numbers.ravel())[1:], start=1)
    )


def numbered_lesions(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Number the voxels (K, J, I) of the lesions that :func:`lesions_of` lists, from 1 in its order; 0 elsewhere.

    Args:
        mask: Enhancing tumour, bool (K, J, I).
        grid: Its voxel grid.
    """
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    smallest = int(np.ceil(SMALLEST_ML / grid.voxel_ml - 1e-6))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(parts, smallest, sortByObjectSize=True))


def _lesion(mask: np.ndarray, grid: Grid, volume_ml: float, cavity: np.ndarray | None) -> Lesion:
    index = np.argwhere(mask)[:, ::-1]
    center = grid.at(index.mean(0)[None].astype(np.float64))[0]
    if cavity is not None and (_grown_by_one(mask) & cavity).any():
        nodules, thickness_mm = _nodules(mask, grid)
        if not nodules.any():
            return Lesion(volume_ml, thickness_mm, thickness_mm, center, False)
        index = np.argwhere(nodules)[:, ::-1]
    axis = int(np.abs(grid.ijk_to_ras[2, :3] / grid.spacing_mm).argmax())
    others = [n for n in range(3) if n != axis]
    spacing = grid.spacing_mm[others]
    best = (0.0, 0.0)
    for plane in np.unique(index[:, axis]):
        inside = index[index[:, axis] == plane][:, others].astype(np.float64)
        best = max(best, diameters(inside, spacing), key=lambda pair: pair[0] * pair[1])
    return Lesion(volume_ml, *best, center, min(best) >= MEASURABLE_MM)


def _grown_by_one(mask: np.ndarray) -> np.ndarray:
    image = sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), [1, 1, 1])
    return sitk.GetArrayFromImage(image) > 0


def _nodules(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, float]:
    """Voxels of a lesion that a ball of 10 mm within it can reach, and the diameter in mm of the largest ball in it."""
    index = np.argwhere(mask)
    box = tuple(slice(int(low), int(high) + 1) for low, high in zip(index.min(0), index.max(0), strict=True))
    half = float(grid.spacing_mm.min()) / 2  # from the centre of an outermost voxel to the border of the lesion
    depth = _depth_mm(mask[box], grid) + half
    centers = mask[box] & (depth >= MEASURABLE_MM / 2)
    reached = np.zeros_like(mask)
    if centers.any():
        reached[box] = mask[box] & (-_depth_mm(centers, grid) <= MEASURABLE_MM / 2)
    return reached, 2 * float(depth[mask[box]].max())


def _depth_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Distance (K, J, I) of every voxel from the outermost voxels of a mask, in mm, negative outside of it."""
    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(grid.spacing_mm.tolist())
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(distance)[1:-1, 1:-1, 1:-1]


def diameters(pixels: np.ndarray, spacing_mm: np.ndarray) -> tuple[float, float]:
    """Return the longest diameter of an area and the longest one perpendicular to it, in mm.

    Args:
        pixels: Indices (n, 2) of the pixels of the area.
        spacing_mm: Size of a pixel, shape (2,).
    """
    corners = (pixels[:, None] + np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])).reshape(-1, 2)
    corners = np.unique(corners, axis=0) * spacing_mm
    angles = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)])
    along = corners @ directions
    extents = np.ptp(along, axis=0)
    longest = int(extents.argmax())
    long_axis = directions[:, longest]
    across = np.array([-long_axis[1], long_axis[0]])
    # Chords perpendicular to the long axis, in strips as wide as a pixel.
    strips = np.floor(pixels * spacing_mm @ long_axis / spacing_mm.max()).astype(int)
    strips -= strips.min()
    position = pixels * spacing_mm @ across
    high, low = np.full(strips.max() + 1, -np.inf), np.full(strips.max() + 1, np.inf)
    np.maximum.at(high, strips, position)
    np.minimum.at(low, strips, position)
    widths = (high - low)[np.isfinite(high - low)] + float(np.abs(across) @ spacing_mm)
    return float(extents[longest]), float(min(widths.max(), extents[longest]))


def response(
    first: Sequence[Lesion],
    second: Sequence[Lesion],
    cavities_ml: tuple[float, float] = (0.0, 0.0),
    new_measurable: int | None = None,
    same: Collection[tuple[int, int]] | None = None,
    cut_off: tuple[bool, bool] = (False, False),
) -> Response:
    """Compare the enhancing lesions of two visits.

    The sums of the products are of the same lesions: one that is measurable at one of the visits keeps its product at
    the other. A new measurable lesion is progressive disease, however much the others shrank. There is a category only
    where a lesion is measurable at one of the visits. Where the images of a visit do not show all of the lesions, their
    size is only the least one, and there is a category only if it holds for any larger size as well.

    Args:
        first: Lesions at the first visit.
        second: Lesions at the second visit.
        cavities_ml: Volume of the resection cavity at both visits in ml.
        new_measurable: Number of measurable lesions that are new at the second visit; None if it is unknown.
        same: Pairs of the numbers, from 1, of a lesion at the first visit and of what it is at the second; None if they
            are unknown. Then a single lesion at each visit is taken for the same.
        cut_off: Whether the images or the segmentations of the first and of the second visit do not show all of the
            lesions.
    """
    operated = cavities_ml[1] - cavities_ml[0] >= LEAST_NEW_CAVITY_ML
    measurable = [sum(lesion.measurable for lesion in lesions) for lesions in (first, second)]
    if same is None and len(first) == len(second) == 1:
        same = [(1, 1)]
    mixed = same is None and len(first) == len(second) and measurable[0] != measurable[1]
    products = [
        sum(lesions[number - 1].product_mm2 for number in numbers)
        for lesions, numbers in zip((first, second), _measured(first, second, same or ()), strict=True)
    ]
    volumes = [sum(lesion.volume_ml for lesion in lesions) for lesions in (first, second)]
    if operated or not any(measurable):
        categories = [NOT_ASSESSABLE, NOT_ASSESSABLE]
    elif new_measurable:
        categories = [PROGRESSIVE, PROGRESSIVE]
    else:
        categories = [
            NOT_ASSESSABLE if mixed else _category(products[0], products[1], _PRODUCT_LIMITS, bool(second)),
            _category(volumes[0], volumes[1], _VOLUME_LIMITS, bool(second)),
        ]
        categories = [each if _holds(each, cut_off) else NOT_ASSESSABLE for each in categories]
    return Response(
        (products[0], products[1]),
        (len(first), len(second)),
        nan if mixed else _percent(products[0], products[1]),
        _percent(volumes[0], volumes[1]),
        categories[0],
        categories[1],
        _cut_off_text(cut_off) + _caveat(operated, (measurable[0], measurable[1]), new_measurable, mixed),
        (volumes[0], volumes[1]),
        new_measurable,
    )


def _measured(
    first: Sequence[Lesion], second: Sequence[Lesion], same: Collection[tuple[int, int]]
) -> tuple[set[int], set[int]]:
    """Numbers of the lesions of both visits that are measurable, or the same as one that is."""
    ours, theirs = ({n for n, lesion in enumerate(each, 1) if lesion.measurable} for each in (first, second))
    for _ in same:  # a lesion that fell apart, or grew together with others, belongs to all of its parts
        for one, other in same:
            if one in ours or other in theirs:
                ours.add(one)
                theirs.add(other)
    return ours, theirs


def _caveat(operated: bool, measurable: tuple[int, int], new_measurable: int | None, mixed: bool) -> str:
    if operated:
        return f"{OPERATED} {CAVEAT}"
    if mixed:
        return (
            f"{measurable[1]} instead of {measurable[0]} of the lesions are measurable, so that the sums of the "
            "products may be of different lesions: give the transform between the visits, by which lesions are "
            f"followed. {CAVEAT} {NOT_FOLLOWED}"
        )
    if new_measurable is None:
        more = (
            f"There are {measurable[1]} measurable lesions instead of {measurable[0]}, and a new one is progressive "
            "disease whatever the sums say: give the transform between the visits, by which lesions are followed. "
        )
        return f"{more if measurable[1] > measurable[0] else ''}{CAVEAT} {NOT_FOLLOWED}"
    if new_measurable:
        subject = "1 measurable lesion is" if new_measurable == 1 else f"{new_measurable} measurable lesions are"
        return f"{subject} new at the second visit, which is progressive disease whatever the sums say. {CAVEAT}"
    return CAVEAT


def _holds(category: str, cut_off: tuple[bool, bool]) -> bool:
    """Whether a category holds although the sizes of the visits that are cut off are only the least ones."""
    grew, shrank = category == PROGRESSIVE, category in ("complete response", "partial response")
    return not any(cut_off) or (cut_off == (False, True) and grew) or (cut_off == (True, False) and shrank)


def _cut_off_text(cut_off: tuple[bool, bool]) -> str:
    if not any(cut_off):
        return ""
    where = "at both visits" if all(cut_off) else f"at the {'first' if cut_off[0] else 'second'} visit"
    return (
        f"The anatomical images or the segmentation may not show all of the enhancing tumour {where}, so that its size "
        "there is only the least one and a category is given only if it holds for any larger size. "
    )


def _percent(first: float, second: float) -> float:
    return 100 * (second - first) / first if first > 0 else nan


def _category(first: float, second: float, limits: tuple[float, float], any_left: bool) -> str:
    if first <= 0:
        return PROGRESSIVE if second > 0 else NOT_ASSESSABLE
    change = _percent(first, second)
    if second <= 0 and not any_left:
        return "complete response"
    if change <= limits[0]:
        return "partial response"
    return PROGRESSIVE if change >= limits[1] else "stable disease"
