"""What a deformation between two visits says: compartments that turn into others, Jacobian, maps of the change.

The deformation maps points of the first visit's anatomy to the second visit's. Everything is looked up at points of the
first visit, so that each map of the second visit is interpolated once, through the composed transform.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.messages.input_errors import InputError

from .anatomy.alignment import local_correlation
from .anatomy.cut_off import shown_at
from .anatomy.regions import RegionMasks
from .anatomy.structure import depth_mm, head_of
from .grid import Grid
from .inputs import Image, VisitInput
from .response import numbered_lesions
from .results.growth import JacobianOfRegion, Transition
from .sampling import coarse, linear, nearest

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COARSE_MM = 4.0
_MARGIN_MM = 8.0
BACKGROUND = "background"
LEAST_CORRELATION = 0.12
"""Local correlation of the anatomies below which the transform does not bring them together."""
_STEPS_BACK = 10
"""Steps in which a point is followed back through what a transform deforms."""
_LINK_MM = 2.0
"""Distance that the registration may misplace a lesion."""
_LINKED_SHARE = 0.25
"""Share of a lesion that must lie at one of the other visit for the two to be the same."""
_LEAST_SHARED = 0.1
"""Share of the smaller of two heads that both images have to show for a transform to be judged."""
_SWAPPED = 1.1
"""How much better the transform has to fit in the other direction for it to be taken as the inverse."""
TISSUES = ("necrotic_core", "edema", "enhancing_tumor", "resection_cavity", "tumor_core", "whole_tumor")


def moved_points(grid: Grid, transform: sitk.Transform) -> np.ndarray:
    """Return where a transform takes the voxels of a grid.

    Args:
        grid: Grid with perpendicular axes in the space that the transform maps from.
        transform: Map of points, LPS mm.

    Returns:
        Points (K * J * I, 3), RAS in mm.
    """
    return grid.points() + _field(grid, transform).reshape(-1, 3) * [-1, -1, 1]


def grid_before(grid: Grid, transform: sitk.Transform) -> Grid:
    """Return a grid whose voxels a transform takes to all of another grid, as far as it is smooth there.

    The transform need not have an inverse: the corners are followed back in steps by its linear part.

    Args:
        grid: Grid in the space that the transform maps to.
        transform: Map of points, LPS mm.

    Returns:
        Grid along the axes of the patient with voxels of the same smallest size.
    """
    ends = np.array(grid.shape[::-1]) - 0.5
    corners = np.array([[i, j, k, 1] for i in (-0.5, ends[0]) for j in (-0.5, ends[1]) for k in (-0.5, ends[2])])
    goals = (corners @ (_RAS_TO_LPS @ grid.ijk_to_ras).T)[:, :3]
    moved = np.array([transform.TransformPoint(goal) for goal in goals.tolist()])
    back = np.linalg.inv(np.linalg.lstsq(goals - goals.mean(0), moved - moved.mean(0), rcond=None)[0])
    points = goals + (goals - moved) @ back
    for _ in range(_STEPS_BACK):
        moved = np.array([transform.TransformPoint(point) for point in points.tolist()])
        points = points + (goals - moved) @ back
    points = points * [-1, -1, 1]
    step = float(grid.spacing_mm.min())
    ijk_to_ras = np.diag([step, step, step, 1.0])
    ijk_to_ras[:3, 3] = points.min(0) - _MARGIN_MM
    i, j, k = (int(n) for n in np.ceil((np.ptp(points, axis=0) + 2 * _MARGIN_MM) / step) + 1)
    return Grid((k, j, i), ijk_to_ras)


def _field(grid: Grid, transform: sitk.Transform) -> np.ndarray:
    """Displacement (K, J, I, 3), LPS in mm, of a transform at the voxels of a grid."""
    lps = _RAS_TO_LPS @ grid.ijk_to_ras
    filter_ = sitk.TransformToDisplacementFieldFilter()
    filter_.SetOutputPixelType(sitk.sitkVectorFloat64)
    filter_.SetSize([int(n) for n in grid.shape[::-1]])
    filter_.SetOutputSpacing(grid.spacing_mm.tolist())
    filter_.SetOutputOrigin(lps[:3, 3].tolist())
    filter_.SetOutputDirection((lps[:3, :3] / grid.spacing_mm).ravel().tolist())
    return sitk.GetArrayFromImage(filter_.Execute(transform))


def registration_quality(first: VisitInput, second: VisitInput, transform: sitk.Transform) -> dict[str, float]:
    """Judge a transform between two visits by the local correlation of their first anatomical images.

    Args:
        first: The first visit.
        second: The second visit.
        transform: Map of points of the first visit's anatomy to the second's, LPS mm.

    Returns:
        Local correlation ``with`` the transform, ``without`` it, and of the transform taken ``backwards``, as one that
        maps points of the second visit to the first; empty without anatomies.

    Raises:
        ValueError: The transform maps the other way, or does not bring the anatomies together.
    """
    if not first.anatomy or not second.anatomy:
        return {}
    one, two = (coarse(visit.anatomy[0], _COARSE_MM) for visit in (first, second))
    found = {
        "with": _correlation(one, two, transform),
        "without": _correlation(one, two, sitk.Transform(3, sitk.sitkIdentity)),
        "backwards": _correlation(two, one, transform),
    }
    if found["backwards"] > _SWAPPED * found["with"]:
        raise InputError(
            "between",
            f"the transform between the visits maps {second.name} to {first.name}, not {first.name} to {second.name} "
            f"(local correlation {found['backwards']:.2f} against {found['with']:.2f}): exchange the visits, or give "
            "the inverse transform, fixed_to_moving.h5",
        )
    if found["with"] < LEAST_CORRELATION:
        raise InputError(
            "between",
            f"the transform does not bring the anatomies of {first.name} and {second.name} together (local correlation "
            f"{found['with']:.2f}): check that it belongs to these visits and that both are of one patient",
        )
    return found


def _correlation(one: Image, two: Image, transform: sitk.Transform) -> float:
    """Local correlation where both images show something; 0 where they share too little to judge."""
    head, other_head = head_of(one.array), head_of(two.array)
    where = np.flatnonzero(head)
    other = linear(two.array, two.grid.indices(moved_points(one.grid, transform)[where]), float("nan"))
    shared = np.isfinite(other)
    smaller_ml = min(each.sum() * image.grid.voxel_ml for each, image in ((head, one), (other_head, two)))
    if shared.sum() * one.grid.voxel_ml < _LEAST_SHARED * smaller_ml:
        return 0.0
    where, other = where[shared], other[shared]
    return local_correlation(one.array.ravel()[where], other, where, one.array.shape, one.grid.spacing_mm)


def transitions_of(
    first: RegionMasks, second: RegionMasks, transform: sitk.Transform
) -> tuple[tuple[Transition, ...], np.ndarray, np.ndarray, Grid, tuple[JacobianOfRegion, ...], float] | None:
    """Find which tissue changed its compartment, and how tissue grew.

    Tumour of one visit where the other one shows nothing is left out, because nothing tells what it is there.

    Args:
        first: Compartments of the first visit.
        second: Compartments of the second visit.
        transform: Map of points of the first visit's anatomy to the second's, LPS mm.

    Returns:
        Volumes by both compartments, the largest first; labels (K, J, I), uint8, index + 1 into them and 0 where the
        compartment is the same or there is none; the voxels (K, J, I), bool, that kept their compartment; the grid of
        both; the Jacobian in the compartments of the first visit; and the volume in ml that is left out.
        None where a visit has no compartments.
    """
    if first.grid is None or second.grid is None or not first.compartments or not second.compartments:
        return None
    grid = _box_of_both(first, second, transform)
    if grid is None:
        return None
    points, moved = grid.points(), moved_points(grid, transform)
    before, names_before = _codes(first, points)
    after, names_after = _codes(second, moved)
    jacobian = _jacobian(grid, transform, before, names_before)
    # What was drawn where an image shows nothing is known all the same.
    unseen = ((before == 0) & ~shown_at(points, first)) | ((after == 0) & ~shown_at(moved, second))
    left_out_ml = float((unseen & ((before > 0) | (after > 0))).sum()) * grid.voxel_ml
    before[unseen] = after[unseen] = 0
    pairs, counts = np.unique(np.stack([before, after], axis=1), axis=0, return_counts=True)
    listed = sorted(
        (
            (Transition(names_before[a], names_after[b], float(n) * grid.voxel_ml), a, b)
            for (a, b), n in zip(pairs.tolist(), counts.tolist(), strict=True)
            if a or b
        ),
        key=lambda entry: -entry[0].volume_ml,
    )
    labels, kept = np.zeros(len(points), np.uint8), np.zeros(len(points), bool)
    for number, (transition, a, b) in enumerate(listed, start=1):
        if transition.first != transition.second:
            labels[(before == a) & (after == b)] = number
        else:
            kept |= (before == a) & (after == b)
    transitions = tuple(entry[0] for entry in listed)
    return transitions, labels.reshape(grid.shape), kept.reshape(grid.shape), grid, jacobian, left_out_ml


def followed_lesions(
    first: RegionMasks, second: RegionMasks, transform: sitk.Transform
) -> tuple[set[tuple[int, int]], set[int], set[int]]:
    """Follow the enhancing lesions of the second visit back to the first.

    A lesion was there before if a quarter of it lies within 2 mm of a lesion of the first visit, or a quarter of such
    a lesion within 2 mm of it. One that was not is new only if the first visit shows more than three quarters of its
    place.

    Args:
        first: Compartments of the first visit, with an enhancing tumour, which may be empty.
        second: Those of the second visit.
        transform: Map of points of the first visit's anatomy to the second's, LPS mm.

    Returns:
        Pairs of the numbers of a lesion of the first visit and of what it is at the second, and the numbers of the
        lesions that are new, and of those that lie beyond the first visit's segmentation or where its images show
        nothing; they count from 1 in the order of :func:`lesions_of`.
    """
    assert first.grid is not None
    assert second.grid is not None
    before, after = (
        numbered_lesions(masks.compartments["enhancing_tumor"], grid)
        for masks, grid in ((first, first.grid), (second, second.grid))
    )
    numbers = set(range(1, int(after.max(initial=0)) + 1))
    box = _box_of_both(first, second, transform)
    if box is None:
        return set(), set(), numbers
    grid = _finer(box, _LINK_MM)
    points = grid.points()
    before = nearest(before, first.grid.indices(points)).reshape(grid.shape)
    after = nearest(after, second.grid.indices(moved_points(grid, transform))).reshape(grid.shape)
    shown = (before > 0) | shown_at(points, first).reshape(grid.shape)
    beside_any = depth_mm(before > 0, grid) >= -_LINK_MM
    around = {int(n): depth_mm(before == n, grid) >= -_LINK_MM for n in np.unique(before[before > 0])}
    pairs, new = set(), set()
    for number in np.unique(after[after > 0]).tolist():
        lesion = after == number
        beside = depth_mm(lesion, grid) >= -_LINK_MM
        shares = {n: max(float(near[lesion].mean()), float(beside[before == n].mean())) for n, near in around.items()}
        linked = {n for n, share in shares.items() if share >= _LINKED_SHARE}
        if not linked and beside_any[lesion].mean() >= _LINKED_SHARE:
            linked = {max(shares, key=lambda n: shares[n])}
        pairs |= {(n, number) for n in linked}
        if not linked and shown[lesion].mean() > 1 - _LINKED_SHARE:
            new.add(number)
    return pairs, new, numbers - new - {number for _, number in pairs}


def _finer(grid: Grid, spacing_mm: float) -> Grid:
    """Divide the voxels of a grid so that none is larger than ``spacing_mm`` along any axis."""
    parts = np.ceil(grid.spacing_mm / spacing_mm - 1e-6).astype(int)
    step = np.diag([*(1 / parts), 1.0])
    step[:3, 3] = (1 / parts - 1) / 2
    k, j, i = (int(n * p) for n, p in zip(grid.shape, parts[::-1], strict=True))
    return Grid((k, j, i), grid.ijk_to_ras @ step)


def _codes(masks: RegionMasks, points: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Number of the compartment at each point, 0 for none, and the names by number."""
    assert masks.grid is not None
    names = [BACKGROUND, *(name for name in TISSUES if name in masks.compartments)]
    indices = masks.grid.indices(points)
    codes = np.zeros(len(points), np.int64)
    for number in range(len(names) - 1, 0, -1):  # unions come last in the list and give way to their parts
        codes[nearest(masks.compartments[names[number]], indices)] = number
    return codes, names


def _box_of_both(first: RegionMasks, second: RegionMasks, transform: sitk.Transform) -> Grid | None:
    """The part of the first visit's grid that holds both tumours."""
    assert first.grid is not None
    assert second.grid is not None
    tumor = np.any(list(first.compartments.values()), axis=0)
    other = np.any(list(second.compartments.values()), axis=0)
    steps = np.maximum(1, np.floor(_COARSE_MM / first.grid.spacing_mm)).astype(int)
    shape = tuple(int(np.ceil(n / s)) for n, s in zip(first.grid.shape, steps[::-1], strict=True))
    rough = Grid((shape[0], shape[1], shape[2]), first.grid.ijk_to_ras @ np.diag([*steps.astype(float), 1.0]))
    there = nearest(other, second.grid.indices(moved_points(rough, transform))).reshape(rough.shape)
    places = [np.argwhere(tumor)[:, ::-1], np.argwhere(there)[:, ::-1] * steps]
    places = [each for each in places if len(each)]
    if not places:
        return None
    every = np.concatenate(places)
    margin = np.ceil(_MARGIN_MM / first.grid.spacing_mm).astype(int)
    low = np.maximum(every.min(0) - margin, 0)
    high = np.minimum(every.max(0) + margin + 1, first.grid.shape[::-1])
    start = np.eye(4)
    start[:3, 3] = low
    i, j, k = (int(n) for n in high - low)
    return Grid((k, j, i), first.grid.ijk_to_ras @ start)


def _jacobian(
    grid: Grid, transform: sitk.Transform, codes: np.ndarray, names: list[str]
) -> tuple[JacobianOfRegion, ...]:
    if min(grid.shape) < 3:
        return ()
    points = moved_points(grid, transform).reshape(*grid.shape, 3)
    # The derivatives of the points by i, j and k; the filter of ITK ignores the direction of the axes.
    derivatives = np.stack([np.gradient(points, axis=axis) for axis in (2, 1, 0)], axis=-1)
    determinant = (np.linalg.det(derivatives) / np.linalg.det(grid.ijk_to_ras[:3, :3])).ravel()
    found = []
    for number, name in enumerate(names):
        values = determinant[codes == number]
        if number and len(values):
            low, high = np.quantile(values, (0.05, 0.95))
            found.append(
                JacobianOfRegion(name, float(values.mean()), float(low), float(high), float((values <= 0).mean()))
            )
    return tuple(found)


def maps_on_first(
    maps: Mapping[str, np.ndarray],
    source: Grid,
    onto: Grid,
    to_first: np.ndarray,
    to_second: np.ndarray,
    transform: sitk.Transform,
) -> dict[str, np.ndarray]:
    """Interpolate maps of the second visit once at the voxels of the first visit's maps.

    Args:
        maps: Maps (K, J, I) of the second visit by name.
        source: Their grid.
        onto: Grid of the first visit's maps.
        to_first: Matrix (4, 4) from the first visit's CEST space to its anatomy, RAS in mm.
        to_second: The same of the second visit.
        transform: Map of points of the first visit's anatomy to the second's, LPS mm.

    Returns:
        Maps of the shape of ``onto``, float32; NaN beyond the second slab.
    """
    in_anatomy = Grid(onto.shape, to_first @ onto.ijk_to_ras)
    points = moved_points(in_anatomy, transform)
    back = np.linalg.inv(to_second)
    indices = source.indices(points @ back[:3, :3].T + back[:3, 3])
    return {
        name: linear(array, indices, float("nan")).reshape(onto.shape).astype(np.float32)
        for name, array in maps.items()
    }
