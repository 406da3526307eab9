"""Where the CEST images lie on the anatomy of their visit: rigid registration, and checks of any alignment.

The unsaturated CEST image, mostly a slab of 1 to 15 thick slices, is the fixed image of a registration by mutual
information (Mattes et al., IEEE Trans Med Imaging 2003;22:120), so that only the anatomy is interpolated. An alignment
is judged by the overlap of both heads, by mutual information, and by the local correlation: the squared correlation of
both images in blocks of about 15 mm, which images of two different brains do not reach.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import SimpleITK as sitk

from ..grid import Grid
from ..inputs import Image, VisitInput
from ..results.anatomy import Alignment, Midplane
from ..sampling import coarse, linear
from .midplane import mirrored
from .structure import head_of, weighting_of

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FIXED_MM, _MOVING_MM = 2.5, 2.0
_BINS = 32
_BLOCK_MM = 15.0
_FEWEST_IN_BLOCK = 12
_FEWEST_VOXELS = 60
_FEWEST_FOR_RECURSION = 4
"""Voxels along each axis that ITK's recursive Gaussian filters need."""
LEAST_OVERLAP = 0.5
"""Share of the CEST head that the anatomy has to show."""
LEAST_CORRELATION = {"header": 0.12, "given": 0.12, "registered": 0.18}
"""Local correlation below which an alignment is refused, by its source; registration of two brains finds up to 0.15."""
GOOD_CORRELATION = 0.35
"""Local correlation below which an alignment should be checked."""
LARGEST_SHIFT_MM, LARGEST_ANGLE_DEG = 60.0, 35.0
"""Motion between CEST and anatomy of one visit that is not plausible."""
_USUAL_SHIFT_MM = 15.0
_LEAST_GAIN = 1.0005
_OTHER_WAY = 1.3
"""How much better the inverse of a given transform has to fit for the transform to be taken as the inverse."""
_MIRROR_ADVANTAGE, _LEAST_MIRROR = 1.2, 0.25
"""How much better, and how well, the mirror image has to fit for left and right of a header to be taken as swapped.

On two real and two synthetic patients the mirror image reached at most 0.5 of the image's own local correlation with
right headers, and at least 1.3 of it with swapped ones.
"""


def align(visit: VisitInput) -> Alignment | None:
    """Find or take the alignment of a visit, and judge it.

    Args:
        visit: The visit.

    Returns:
        The alignment; None for a visit without CEST.

    Raises:
        ValueError: The images do not overlap, do not show the same brain, or the motion is not plausible.
    """
    cest = visit.cest
    if cest is None:
        return None
    given = visit.cest_to_anatomy
    start = Alignment("header", np.eye(4)) if given is None else Alignment("given", given)
    if cest.unsaturated is None or not visit.anatomy:
        return _unjudged(visit, _with_motion(start, cest.grid.points()))
    image = Image("CEST", cest.unsaturated, cest.grid)
    anatomies = sorted(visit.anatomy, key=_worth)
    pair = _Pair(image, anatomies[0])
    found = pair.registered(start) if visit.register else start
    # The unsaturated image may resemble one weighting more than another: the most similar one judges.
    pairs = [pair, *(_Pair(image, anatomy) for anatomy in anatomies[1:])]
    similar = [np.nan_to_num(each.measures(found.cest_to_anatomy).correlation, nan=-1.0) for each in pairs]
    best = int(np.argmax(similar))
    pair, found = pairs[best], replace(found, anatomy=anatomies[best].name)
    _require_right_direction(visit, found, pair)
    before = pair.measures(np.eye(4) if found.source != "given" else found.cest_to_anatomy)
    after = pair.measures(found.cest_to_anatomy)
    found = replace(
        _with_motion(found, pair.points),
        overlap=after.overlap,
        information_before=before.information,
        information_after=after.information,
        correlation_before=before.correlation,
        correlation_after=after.correlation,
    )
    return _judged(visit, found)


def _require_right_direction(visit: VisitInput, found: Alignment, pair: _Pair) -> None:
    """Refuse a given transform whose inverse fits clearly better."""
    if found.source != "given":
        return
    own = np.nan_to_num(pair.measures(found.cest_to_anatomy).correlation)
    inverse = np.nan_to_num(pair.measures(np.linalg.inv(found.cest_to_anatomy)).correlation)
    if inverse > _OTHER_WAY * own and inverse >= LEAST_CORRELATION["registered"]:
        anatomy = _judge(visit, found).called
        raise ValueError(
            f"{visit.name}: the transform to the anatomy maps the other way (local correlation {own:.2f}, and "
            f"{inverse:.2f} with its inverse): give the one that moves the CEST images onto {anatomy}"
        )


def require_same_side(visit: VisitInput, alignment: Alignment, plane: Midplane | None) -> float:
    """Check that left and right of the CEST header are not swapped.

    Args:
        visit: The visit.
        alignment: Its alignment.
        plane: Mid-sagittal plane of the anatomy, or None.

    Returns:
        Local correlation with the mirror image of the anatomy over that with the anatomy; NaN where it is unknown.

    Raises:
        ValueError: The mirror image of the anatomy fits clearly better.
    """
    cest = visit.cest
    if cest is None or cest.unsaturated is None or not visit.anatomy or plane is None:
        return nan
    judge = _judge(visit, alignment)
    pair = _Pair(Image("CEST", cest.unsaturated, cest.grid), judge)
    own = pair.measures(alignment.cest_to_anatomy).correlation
    mirror = pair.measures(alignment.cest_to_anatomy, plane).correlation
    if mirror > _MIRROR_ADVANTAGE * own and mirror >= _LEAST_MIRROR:
        raise ValueError(
            f"{visit.name}: the CEST images fit the mirror image of {judge.called} better than the image itself "
            f"({mirror:.2f} against {own:.2f}): left and right are swapped in one of the headers, correct it"
        )
    return mirror / own if own > 0 else nan


def _judge(visit: VisitInput, alignment: Alignment) -> Image:
    """Return the anatomical image with which an alignment was judged."""
    return next(image for image in visit.anatomy if image.name == alignment.anatomy)


def anatomy_on_maps(visit: VisitInput, alignment: Alignment) -> np.ndarray | None:
    """Return the first anatomical image interpolated once to the grid of the maps, or None."""
    from ..sampling import on_grid

    if visit.cest is None or not visit.anatomy:
        return None
    first = visit.anatomy[0]
    sampled = coarse(first, float(np.sort(visit.cest.grid.spacing_mm)[0]))
    return on_grid(sampled.array, sampled.grid, visit.cest.grid, alignment.cest_to_anatomy, 0.0)


def _worth(image: Image) -> int:
    return {"t1": 0, "t2": 1, "flair": 2}.get(weighting_of(image.name) or "", 3)


def _unjudged(visit: VisitInput, alignment: Alignment) -> Alignment:
    if visit.register:
        missing = (
            "an anatomical image (--anatomy)"
            if not visit.anatomy
            else "the M0 image or the acquisition (--reference, --signal)"
        )
        raise ValueError(f"{visit.name}: the registration needs {missing}")
    return alignment


def _with_motion(alignment: Alignment, points: np.ndarray) -> Alignment:
    matrix = alignment.cest_to_anatomy
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    cosine = (np.trace(_rotation(matrix)) - 1) / 2
    return replace(
        alignment,
        translation_mm=float(np.linalg.norm(moved - points, axis=1).mean()),
        rotation_deg=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _rotation(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix[:3, :3])
    return left @ right


def _judged(visit: VisitInput, found: Alignment) -> Alignment:
    anatomy = _judge(visit, found).called
    where = f"{visit.name}: the CEST images and {anatomy}"
    remedy = "register them (--register)" if found.source == "header" else "check that both are of the same visit"
    if found.overlap < LEAST_OVERLAP:
        raise ValueError(
            f"{where} overlap by {100 * found.overlap:.0f} % only: give their alignment (--to-anatomy) or {remedy}"
        )
    if found.source == "registered" and (
        found.translation_mm > LARGEST_SHIFT_MM or found.rotation_deg > LARGEST_ANGLE_DEG
    ):
        motion = f"{found.translation_mm:.0f} mm and {found.rotation_deg:.0f}°"
        raise ValueError(
            f"{where} would have to be moved by {motion}, which is not plausible: check that both are of one patient"
        )
    least = LEAST_CORRELATION[found.source]
    if found.correlation_after < least:
        raise ValueError(
            f"{where} do not show the same brain (local correlation {found.correlation_after:.2f}, at least "
            f"{least:g} is needed): check that both are of one patient and that no header swaps left and right, or "
            f"{remedy}"
        )
    reasons = []
    if found.correlation_after < GOOD_CORRELATION:
        reasons.append(f"the CEST images and {anatomy} are only moderately similar: look at the alignment")
    if found.source == "registered" and found.translation_mm > _USUAL_SHIFT_MM:
        reasons.append(f"the CEST images were moved by {found.translation_mm:.0f} mm: look at the alignment")
    if not np.isfinite(found.correlation_after):
        reasons.append("too little of the brain is shown to judge the alignment: look at it")
    return replace(found, verdict="check" if reasons else "good", reasons=tuple(reasons))


@dataclass(frozen=True)
class _Measures:
    overlap: float
    information: float
    correlation: float


class _Pair:
    """The unsaturated CEST image and an anatomical image at working resolution."""

    def __init__(self, cest: Image, anatomy: Image) -> None:
        self.fixed = _in_plane(cest)
        self.moving = coarse(anatomy, _MOVING_MM)
        self.fixed_head = head_of(self.fixed.array)
        self.moving_head = head_of(self.moving.array)
        self.where = np.flatnonzero(self.fixed_head)
        self.points = self.fixed.grid.points()[self.where]
        self.values = self.fixed.array.ravel()[self.where]

    def measures(self, cest_to_anatomy: np.ndarray, plane: Midplane | None = None) -> _Measures:
        """Judge an alignment; with a plane that of the mirror image of the anatomy."""
        points = self.points @ cest_to_anatomy[:3, :3].T + cest_to_anatomy[:3, 3]
        indices = self.moving.grid.indices(points if plane is None else mirrored(points, plane))
        inside = linear(self.moving_head.astype(np.float32), indices) > 0.5
        if np.count_nonzero(inside) < _FEWEST_VOXELS:
            return _Measures(float(inside.mean()) if len(inside) else 0.0, 1.0, nan if inside.any() else 0.0)
        other = linear(self.moving.array, indices)
        information = _normalized_information(self.values[inside], other[inside])
        correlation = local_correlation(
            self.values[inside], other[inside], self.where[inside], self.fixed.array.shape, self.fixed.grid.spacing_mm
        )
        return _Measures(float(inside.mean()), information, correlation)

    def registered(self, start: Alignment) -> Alignment:
        """Find the rigid alignment with the largest mutual information near the given one and near common centres."""
        starts = [start.cest_to_anatomy]
        if self.measures(starts[0]).overlap < 0.8:
            centered = np.eye(4)
            moving_points = self.moving.grid.points()[self.moving_head.ravel()]
            centered[:3, 3] = moving_points.mean(0) - self.points.mean(0)
            starts.append(centered)
        candidates = [found for matrix in starts if (found := self._optimized(matrix)) is not None]
        if not candidates:
            warnings.warn(
                "CEST and anatomy could not be registered: they stay where their headers put them; check the overlay",
                stacklevel=2,
            )
            return start
        best = max(candidates, key=lambda matrix: self.measures(matrix).information)
        if self.measures(best).information < _LEAST_GAIN * self.measures(starts[0]).information:
            best = starts[0]
        return replace(start, source="registered", cest_to_anatomy=best)

    def _optimized(self, start: np.ndarray) -> np.ndarray | None:
        """Return the map found from a start; None where the images do not let ITK optimise it."""
        moving = Grid(self.moving.grid.shape, np.linalg.inv(start) @ self.moving.grid.ijk_to_ras)
        fixed_image = _to_sitk(_scaled(self.fixed.array, self.fixed_head), self.fixed.grid)
        moving_image = _to_sitk(_scaled(self.moving.array, self.moving_head), moving)
        transform = sitk.Euler3DTransform()
        transform.SetCenter((self.points.mean(0) * [-1, -1, 1]).tolist())
        mask = _to_sitk(_with_border(self.fixed_head, self.fixed.grid).astype(np.uint8), self.fixed.grid)
        for step_mm, smoothing_mm, iterations in ((3.0, 4.0, 60), (1.0, 2.0, 60), (0.4, 0.0, 40)):
            method = sitk.ImageRegistrationMethod()
            method.SetMetricAsMattesMutualInformation(_BINS)
            method.SetMetricFixedMask(mask)
            method.SetMetricSamplingStrategy(method.NONE)
            method.SetInterpolator(sitk.sitkLinear)
            if min(moving_image.GetSize()) < _FEWEST_FOR_RECURSION:
                method.MetricUseMovingImageGradientFilterOff()
            method.SetNumberOfWorkUnits(1)  # several would add in varying order
            method.SetOptimizerAsRegularStepGradientDescent(step_mm, 0.02, iterations, 0.6, 1e-6)
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetInitialTransform(transform, inPlace=True)
            smoothed = _smoothed(moving_image, smoothing_mm) if smoothing_mm else moving_image
            try:
                method.Execute(fixed_image, smoothed)
            except RuntimeError:
                return None
        return start @ _matrix(transform)


def _smoothed(image: sitk.Image, sd_mm: float) -> sitk.Image:
    """An image smoothed with a Gaussian, also where it is too thin for the fast recursive filter."""
    if min(image.GetSize()) >= _FEWEST_FOR_RECURSION:
        return sitk.SmoothingRecursiveGaussian(image, sd_mm)
    return sitk.DiscreteGaussian(image, sd_mm**2, 64, 0.01, True)


def _in_plane(image: Image) -> Image:
    """The CEST image with in-plane voxels of about 2.5 mm; its slices stay as they are."""
    thick = int(image.grid.spacing_mm.argmax())
    factors = np.maximum(1, np.floor(_FIXED_MM / image.grid.spacing_mm + 0.01)).astype(int)
    factors[thick] = 1
    return coarse(image, _FIXED_MM) if factors.max() > 1 else image


def _with_border(head: np.ndarray, grid: Grid) -> np.ndarray:
    """The head with about 5 mm around it within the slices, so that its outline counts."""
    radius = [max(1, round(5.0 / mm)) for mm in grid.spacing_mm[:2]] + [0]
    return sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(head.astype(np.uint8)), radius)) != 0


def _scaled(array: np.ndarray, head: np.ndarray) -> np.ndarray:
    inside = array[head] if head.any() else array.ravel()
    low, high = np.percentile(inside, (0.5, 99.5))
    return np.clip(array / max(float(high), 1e-6), min(0.0, float(low)), 1).astype(np.float32)


def _normalized_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return ``(H(a) + H(b)) / H(a, b)``, 1 for independent values to 2 (Studholme, Pattern Recognit 1999;32:71)."""
    ranges = [np.percentile(values, (0.5, 99.5)) for values in (first, second)]
    clipped = [np.clip(values, *limits) for values, limits in zip((first, second), ranges, strict=True)]
    joint, _, _ = np.histogram2d(clipped[0], clipped[1], bins=_BINS)
    joint = joint / joint.sum()

    def entropy(shares: np.ndarray) -> float:
        positive = shares[shares > 0]
        return float(-(positive * np.log(positive)).sum())

    together = entropy(joint)
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / together if together > 0 else 1.0


def _to_sitk(array: np.ndarray, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    lps = _RAS_TO_LPS @ grid.ijk_to_ras
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / grid.spacing_mm).ravel().tolist())
    return image


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    """Matrix (4, 4) of a rigid transform, RAS in mm."""
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    center, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = rotation, shift + center - rotation @ center
    return _RAS_TO_LPS @ lps @ _RAS_TO_LPS


def local_correlation(
    first: np.ndarray, second: np.ndarray, where: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray
) -> float:
    """Return the mean squared correlation of two images in blocks of about 15 mm, 0 to 1.

    What unrelated values reach by chance is subtracted. Blocks count by the standard deviation of the first image in
    them, so that even tissue says little.

    Args:
        first: Values of the first image, shape (n,).
        second: Values of the second image at the same places, shape (n,).
        where: Flat index of each place on the grid of the first image, shape (n,).
        shape: Shape (K, J, I) of that grid.
        spacing_mm: Its voxel size along (i, j, k) in mm.
    """
    k, j, i = np.unravel_index(where, shape)
    sizes = np.maximum(1, np.round(_BLOCK_MM / spacing_mm)).astype(int)
    block = np.stack([k // sizes[2], j // sizes[1], i // sizes[0]], axis=1)
    label = np.unique(block, axis=0, return_inverse=True)[1].reshape(-1)
    count = np.bincount(label)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(label, values) / count

    a, b = (values.astype(np.float64) - mean(values.astype(np.float64))[label] for values in (first, second))
    cross, va, vb = mean(a * b), mean(a * a), mean(b * b)
    squared = np.where((va > 0) & (vb > 0), cross**2 / np.maximum(va * vb, 1e-30), 0.0)
    chance = 1 / np.maximum(count - 1, 2)
    squared = np.maximum((squared - chance) / (1 - chance), 0)
    weights = np.sqrt(va) * count * (count >= _FEWEST_IN_BLOCK)
    return float((squared * weights).sum() / weights.sum()) if weights.sum() > 0 else nan
