"""The part of the brain that an image shows: its field of view, without padding, missing slices and cut-off parts.

What an image does not show is unknown. It must not be taken for background: neither by the similarity of two images,
nor by the normalisation, the network or the volumes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .study import StudyImages, same_grid

_CUT_CM2 = 12.0
_CUT_CM2_PER_MM = 9.0
"""A brain that ends with a cross-section larger than ``_CUT_CM2 + _CUT_CM2_PER_MM * thickness`` is cut off: that of an
ellipsoid with the axes of a large brain grows by 6 cm² per mm of depth, so that no complete brain ends so abruptly."""
_EMPTY_SHARE = 0.05
"""Largest share of its brain that a missing slice may show, for noise."""
_SMALLEST_HOLE_ML = 10.0
_HOLE_RADIUS_MM = 5.0
"""Holes (parts of the brain with the value of the background) count as not acquired if a ball of this radius fits."""
_BEYOND_MM = 4.0
"""Depth to which a brain that is cut off is continued."""


@dataclass(frozen=True)
class Coverage:
    """What one image shows of the brain.

    Attributes:
        seen: Voxels that were acquired (uint8) on the grid of the image; None for all of them.
        beyond: Voxels (uint8) just behind the planes at which the image cuts the brain off, on a larger grid; None if
            it cuts nothing off.
    """

    seen: sitk.Image | None = None
    beyond: sitk.Image | None = None


def coverage_of(image: sitk.Image, brain: sitk.Image) -> Coverage:
    """Find the part of the brain that an image shows.

    Voxels beyond the grid of the image were not acquired. On the grid these were not acquired either: slices without
    signal, as in a slab that was padded or resampled to the grid of a whole brain; everything behind a plane at which
    the brain ends abruptly; and larger parts without signal that reach the surface of the brain.

    Args:
        image: Image of a brain or head.
        brain: Brain mask on any grid.
    """
    inside = _on(brain, image)
    if not inside.any():
        return Coverage()
    values = sitk.GetArrayViewFromImage(image)
    dark = values == most_common_on_faces(values)[0]
    thickness_mm = np.array(image.GetSpacing())[::-1]
    seen = np.ones(values.shape, bool)
    missing = _missing_planes(inside, dark, thickness_mm)
    for axis, planes in enumerate(missing):
        np.moveaxis(seen, axis, 0)[planes] = False
    seen &= ~_hole(inside & dark & seen, inside, thickness_mm)
    inside = inside & seen
    cuts = _cuts(inside, thickness_mm)
    for axis, side, plane in cuts:
        planes = np.moveaxis(seen, axis, 0)
        planes[: plane if side < 0 else 0] = False
        planes[plane + 1 if side > 0 else len(planes) :] = False
    return Coverage(None if seen.all() else _like(seen, image), _beyond(inside, cuts, image))


def study_coverage(study: StudyImages, mask: sitk.Image) -> dict[str, Coverage]:
    """Find out what each image of a study shows of its brain; see ``coverage_of``."""
    return {m: coverage_of(study.images[m], mask) for m in study.present}


def most_common_on_faces(values: np.ndarray) -> tuple[float, float]:
    """Return the most common value on the faces of a volume (D, H, W), and the share of the faces that have it."""
    faces = np.concatenate([v.ravel() for axis in range(3) for v in (values.take(0, axis), values.take(-1, axis))])
    candidates, counts = np.unique(faces, return_counts=True)
    return float(candidates[counts.argmax()]), float(counts.max() / faces.size)


def cut_area_mm2(thickness_mm: float) -> float:
    """Return the cross-section with which a complete brain never ends, for planes of a thickness."""
    return 100 * (_CUT_CM2 + _CUT_CM2_PER_MM * thickness_mm)


def share_shown(image: sitk.Image, coverage: Coverage, brain: sitk.Image) -> float:
    """Return the share of a brain mask, 0 to 1, that an image shows.

    Args:
        image: The image.
        coverage: What it shows.
        brain: Brain mask on any grid.
    """
    seen = coverage.seen
    if seen is None:
        seen = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
        seen.CopyInformation(image)
    inside = sitk.GetArrayViewFromImage(brain) != 0
    shown = _on(seen, brain)
    total = int(np.count_nonzero(inside))
    return int(np.count_nonzero(inside & shown)) / total if total else 1.0


def _on(mask: sitk.Image, image: sitk.Image) -> np.ndarray:
    """Mask (D, H, W) at the voxels of an image."""
    if same_grid(image, mask):
        return sitk.GetArrayViewFromImage(mask) != 0
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return sitk.GetArrayFromImage(sitk.Resample(mask, image, identity, sitk.sitkNearestNeighbor, 0)) != 0


def _areas(mask: np.ndarray, axis: int, thickness_mm: np.ndarray) -> np.ndarray:
    """Cross-sections (n,) in mm² of a mask along an axis."""
    others = tuple(a for a in range(3) if a != axis)
    return np.count_nonzero(mask, axis=others) * float(np.prod(thickness_mm[list(others)]))


def _missing_planes(inside: np.ndarray, dark: np.ndarray, thickness_mm: np.ndarray) -> list[np.ndarray]:
    """For each axis the planes that cross the brain and show nothing of it."""
    signal = inside & ~dark
    found = []
    for axis in range(3):
        brain, shown = _areas(inside, axis, thickness_mm), _areas(signal, axis, thickness_mm)
        # Small cross-sections, as those at the vertex, are missing if the plane next to them is.
        empty = (brain > 0) & (shown <= _EMPTY_SHARE * brain)
        large = brain > cut_area_mm2(0.0)
        planes = np.zeros(len(brain), bool)
        for first, last in _runs(empty):
            planes[first:last] = bool(large[first:last].any())
        found.append(planes)
    return found


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and one-past-last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _hole(dark: np.ndarray, inside: np.ndarray, thickness_mm: np.ndarray) -> np.ndarray:
    """Large parts of the brain without signal that reach its surface."""
    nothing = np.zeros(1, bool)
    voxel_ml = float(np.prod(thickness_mm)) / 1000
    if np.count_nonzero(dark) * voxel_ml < _SMALLEST_HOLE_ML:
        return nothing
    steps = np.maximum(1, np.round(2.0 / thickness_mm).astype(int))
    every = tuple(slice(None, None, int(step)) for step in steps)
    coarse_mm = thickness_mm * steps
    radius = [max(1, round(_HOLE_RADIUS_MM / mm)) for mm in coarse_mm[::-1]]
    small = np.pad(dark[every], [(r, r) for r in radius[::-1]], mode="edge")  # the border of the image is no surface
    opened = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(small.astype(np.uint8)), radius)
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(opened))
    parts = parts[tuple(slice(r, n - r) for r, n in zip(radius[::-1], parts.shape, strict=True))]
    outside = sitk.GetArrayFromImage(
        sitk.BinaryDilate(sitk.GetImageFromArray(np.pad((~inside)[every], 1, constant_values=True).astype(np.uint8)))
    )[1:-1, 1:-1, 1:-1]
    sizes = np.bincount(parts.ravel()) * float(np.prod(coarse_mm)) / 1000
    reaching = np.bincount(parts.ravel(), outside.ravel()) > 0
    kept = (sizes >= _SMALLEST_HOLE_ML) & reaching
    kept[0] = False
    if not kept.any():
        return nothing
    whole = kept[parts]
    for axis, step in enumerate(steps):
        whole = np.repeat(whole, int(step), axis)
    return whole[tuple(slice(n) for n in dark.shape)]


def _cuts(inside: np.ndarray, thickness_mm: np.ndarray) -> list[tuple[int, int, int]]:
    """Planes at which the brain ends abruptly: axis, side (-1 or 1) and the outermost plane of the brain."""
    cuts = []
    for axis in range(3):
        area = _areas(inside, axis, thickness_mm)
        filled = np.flatnonzero(area)
        for side, plane in ((-1, filled[0]), (1, filled[-1])) if len(filled) else ():
            if area[plane] > cut_area_mm2(float(thickness_mm[axis])):
                cuts.append((axis, side, int(plane)))
    return cuts


def _beyond(inside: np.ndarray, cuts: list[tuple[int, int, int]], image: sitk.Image) -> sitk.Image | None:
    """The brain's cross-sections at the cuts, continued outwards."""
    if not cuts:
        return None
    depth = [max(1, round(_BEYOND_MM / mm)) for mm in image.GetSpacing()[::-1]]
    beyond = np.zeros([n + 2 * d for n, d in zip(inside.shape, depth, strict=True)], np.uint8)
    for axis, side, plane in cuts:
        place: list[slice] = [slice(d, n - d) for d, n in zip(depth, beyond.shape, strict=True)]
        first = plane + depth[axis] + (1 if side > 0 else -depth[axis])
        place[axis] = slice(first, first + depth[axis])
        beyond[tuple(place)] |= np.expand_dims(inside.take(plane, axis), axis)
    result = sitk.GetImageFromArray(beyond)
    result.SetSpacing(image.GetSpacing())
    result.SetDirection(image.GetDirection())
    result.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([-float(d) for d in depth[::-1]]))
    return result


def _like(mask: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(mask.astype(np.uint8))
    result.CopyInformation(image)
    return result
