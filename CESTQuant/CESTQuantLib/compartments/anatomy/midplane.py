"""The mid-sagittal plane of the brain, by the registration of the brain with its own mirror image.

The plane is the one in which the mirrored brain is most similar to the brain (Prima, Ourselin, Ayache, IEEE Trans Med
Imaging 2002;21:122). What is compared is insensitive to a bias field: the depth under the outline of the head, and
intensities relative to those around them. The tumour and its mirror image are left out of both. The search starts from
the scanner's sagittal plane through the centre of the head and stays near it, and a plane that is not clearly better
than that one is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..grid import Grid
from ..inputs import Image
from ..results.anatomy import Midplane
from ..sampling import coarse, linear, nearest
from .structure import depth_mm, head_of

_COARSE_MM = 4.0
_SEARCH_POINTS, _FINAL_POINTS = 3000, 15_000
_ANGLES_DEG = (-20.0, -10.0, 0.0, 10.0, 20.0)
_SHIFTS_MM = (-8.0, 0.0, 8.0)
_LARGEST = np.array([25.0, 25.0, 20.0])
"""Largest yaw and roll in degrees and shift in mm."""
_THICK_MM = 40.0
"""Thickness of a slab from which the roll of the head is searched for widely."""
_AROUND_MM = 12.0
"""Standard deviation of the neighbourhood to which intensities are related."""
_DEEPEST_MM = 24.0
"""Depth under the outline of the head from which it no longer counts how deep a place lies."""
_LEAST_GAIN = 0.01
"""How much more symmetric a plane has to be than the starting one to be taken."""
_USUAL_DEG = 18.0
_LARGEST_LOSS = 0.02
LEAST_SYMMETRY = 0.3
"""Mean correlation with its mirror image below which a brain shows no plane."""
_GOOD_SYMMETRY = 0.5


def find_midplane(
    image: Image,
    head: np.ndarray,
    tumor: np.ndarray | None = None,
    tumor_grid: Grid | None = None,
    further: Sequence[Image] = (),
) -> Midplane | None:
    """Find the plane in which the brain is most similar to its mirror image.

    Args:
        image: Image of the head.
        head: Boolean mask (K, J, I) of the head on the grid of the image.
        tumor: Mask of the tumour, which is left out together with its mirror image.
        tumor_grid: Grid of that mask.
        further: Images of other contrasts in the same space.

    Returns:
        The plane; None where the head is too small or nowhere symmetric.
    """
    small = _coarse_in_head(image, head)
    if np.count_nonzero(small.head) < 200:
        return None
    points = small.image.grid.points()[small.head.ravel()]
    center = points.mean(0)
    thick = bool((small.image.grid.spacing_mm * np.array(small.head.shape[::-1])).min() >= _THICK_MM)
    others = [_coarse_in_head(each, head_of(each.array)) for each in (coarse(one, _COARSE_MM) for one in further)]
    features = [
        Image("outline", np.clip(depth_mm(small.head, small.image.grid), 0, _DEEPEST_MM), small.image.grid),
        *(_relative(each, tumor, tumor_grid) for each in (small, *others)),
    ]
    order = np.random.default_rng(1).permutation(len(points))
    search = _Symmetry(features, points[order[:_SEARCH_POINTS]], center, tumor, tumor_grid)
    best = max(
        (search.value(np.array([yaw, roll, shift])), yaw, roll, shift)
        for yaw in _ANGLES_DEG
        for roll in (_ANGLES_DEG if thick else (0.0,))
        for shift in _SHIFTS_MM
    )
    steps = np.array([4.0, 4.0 if thick else 1.0, 3.0])
    _, near = _refined(search, np.array(best[1:]), steps, 0.5)
    problem = _Symmetry(features, points[order[:_FINAL_POINTS]], center, tumor, tumor_grid)
    _, parameters = _refined(problem, near, steps / 4, 0.1)
    return _judged(problem, parameters)


def _judged(problem: _Symmetry, found: np.ndarray) -> Midplane | None:
    """Return the plane found, or the starting one where it is not clearly worse, with what makes it doubtful."""
    start = np.zeros(3)
    before, after = problem.correlations(start), problem.correlations(found)
    reasons = []
    if not after.mean() >= before.mean() + _LEAST_GAIN:
        found, after = start, before
    if not after.mean() >= LEAST_SYMMETRY:
        return None
    if after.mean() < _GOOD_SYMMETRY:
        reasons.append(f"the brain is only moderately similar to its mirror image (correlation {after.mean():.2f})")
    normal, point = problem.plane(found)
    tilt = float(np.degrees(np.arccos(np.clip(normal[0], -1, 1))))
    if tilt > _USUAL_DEG:
        reasons.append(f"it is tilted by {tilt:.0f}° from the scanner's sagittal plane")
    if after[0] < before[0] - _LARGEST_LOSS:
        reasons.append("the outline of the head is less symmetric about it than about the scanner's sagittal plane")
    if after[1:].mean() < before[1:].mean() - _LARGEST_LOSS:
        reasons.append("the intensities are less symmetric about it than about the scanner's sagittal plane")
    return Midplane(point, normal, float(after.mean()), float(before.mean()), tuple(reasons))


@dataclass(frozen=True)
class _Small:
    """An image on voxels of about 4 mm with its head, bool."""

    image: Image
    head: np.ndarray


def _coarse_in_head(image: Image, head: np.ndarray) -> _Small:
    """Average an image within the head over voxels of about 4 mm."""
    inside = coarse(replace(image, array=np.where(head, image.array, 0).astype(np.float32)), _COARSE_MM)
    share = coarse(replace(image, array=head.astype(np.float32)), _COARSE_MM).array
    return _Small(replace(inside, array=inside.array / np.maximum(share, 0.25)), share >= 0.5)


def _relative(small: _Small, tumor: np.ndarray | None, tumor_grid: Grid | None) -> Image:
    """Return intensities relative to the mean and spread of those around them, without tumour and background."""
    grid = small.image.grid
    used = small.head & ~_in_tumor(grid.points(), tumor, tumor_grid).reshape(small.head.shape)

    def around(values: np.ndarray) -> np.ndarray:
        picture = sitk.GetImageFromArray(np.where(used, values, 0).astype(np.float32))
        picture.SetSpacing(grid.spacing_mm.tolist())
        return sitk.GetArrayFromImage(sitk.DiscreteGaussian(picture, _AROUND_MM**2, 64, 0.01, True))

    weight = np.maximum(around(np.ones(used.shape)), 1e-3)
    logarithm = np.log(np.maximum(small.image.array, 1e-3 * max(float(small.image.array.max()), 1e-6)))
    difference = logarithm - around(logarithm) / weight
    spread = np.sqrt(np.maximum(around(difference**2) / weight, 0)) + 0.02
    relative = np.clip(difference / spread, -3, 3)
    return replace(small.image, array=np.where(used, relative, 0).astype(np.float32), grid=grid)


def _in_tumor(points: np.ndarray, tumor: np.ndarray | None, tumor_grid: Grid | None) -> np.ndarray:
    if tumor is None or tumor_grid is None:
        return np.zeros(len(points), bool)
    return nearest(tumor, tumor_grid.indices(points)).astype(bool)


def mirrored(points: np.ndarray, plane: Midplane) -> np.ndarray:
    """Return points (n, 3), RAS in mm, mirrored in a plane."""
    distance = (points - plane.point) @ plane.normal
    return points - 2 * distance[:, None] * plane.normal


class _Symmetry:
    """Similarity of a brain with its mirror image, by the plane."""

    def __init__(
        self,
        features: Sequence[Image],
        points: np.ndarray,
        center: np.ndarray,
        tumor: np.ndarray | None,
        tumor_grid: Grid | None,
    ) -> None:
        self.features, self.center = features, center
        self.tumor, self.tumor_grid = tumor, tumor_grid
        self.points = points[~_in_tumor(points, tumor, tumor_grid)]
        self.values = [linear(each.array, each.grid.indices(self.points)) for each in features]

    def plane(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal and point of the plane of yaw and roll in degrees and a shift in mm."""
        yaw, roll = np.radians(parameters[:2])
        normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)])
        return normal, self.center + parameters[2] * normal

    def value(self, parameters: np.ndarray) -> float:
        """Mean of the correlations of outline and intensities; -1 for a plane too far from the starting one."""
        if (np.abs(parameters) > _LARGEST).any():
            return -1.0
        return float(self.correlations(parameters).mean())

    def correlations(self, parameters: np.ndarray) -> np.ndarray:
        """Correlation of the outline, and the mean one of the intensities, with their mirror images, (2,)."""
        normal, point = self.plane(parameters)
        other = self.points - 2 * ((self.points - point) @ normal)[:, None] * normal
        healthy = ~_in_tumor(other, self.tumor, self.tumor_grid)
        found = [
            self._correlation(values, linear(each.array, each.grid.indices(other), float("nan")), healthy)
            for each, values in zip(self.features, self.values, strict=True)
        ]
        return np.array([found[0], np.mean(found[1:])])

    def _correlation(self, first: np.ndarray, second: np.ndarray, healthy: np.ndarray) -> float:
        used = healthy & np.isfinite(second)
        if np.count_nonzero(used) < 0.5 * len(self.points):
            return -1.0
        first, second = first[used], second[used]
        first, second = first - first.mean(), second - second.mean()
        scale = float(np.sqrt(np.square(first).sum() * np.square(second).sum()))
        return float((first * second).sum()) / scale if scale > 0 else -1.0


def _refined(problem: _Symmetry, start: np.ndarray, steps: np.ndarray, smallest: float) -> tuple[float, np.ndarray]:
    """Pattern search: try each parameter in both directions, and halve the steps where nothing is better."""
    best, place, steps = problem.value(start), start, steps.copy()
    while steps.max() > smallest:
        improved = False
        for axis in range(3):
            for sign in (1, -1):
                trial = place.copy()
                trial[axis] += sign * steps[axis]
                value = problem.value(trial)
                if value > best:
                    best, place, improved = value, trial, True
                    break
        if not improved:
            steps /= 2
    return best, place
