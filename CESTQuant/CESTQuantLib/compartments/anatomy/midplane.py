"""The mid-sagittal plane of the brain, by the registration of the brain with its own mirror image.

The plane is the one in which the mirrored brain is most similar to the brain (Prima, Ourselin, Ayache, IEEE Trans Med
Imaging 2002;21:122). It starts from the scanner's sagittal plane through the centre of the head.
"""

from __future__ import annotations

import numpy as np

from ..grid import Grid
from ..inputs import Image
from ..results import Midplane
from ..sampling import coarse, linear, nearest

_COARSE_MM = 4.0
_SEARCH_POINTS, _FINAL_POINTS = 3000, 15_000
_ANGLES_DEG = (-20.0, -10.0, 0.0, 10.0, 20.0)
_SHIFTS_MM = (-8.0, 0.0, 8.0)
_THICK_MM = 40.0
"""Thickness of a slab from which the roll of the head is searched for widely."""
LEAST_SYMMETRY = 0.5
"""Correlation with its mirror image below which a brain shows no plane."""


def find_midplane(
    image: Image, head: np.ndarray, tumor: np.ndarray | None = None, tumor_grid: Grid | None = None
) -> Midplane | None:
    """Find the plane in which the brain is most similar to its mirror image.

    Args:
        image: Image of the head.
        head: Boolean mask (K, J, I) of the head on the grid of the image.
        tumor: Mask of the tumour, which is left out together with its mirror image.
        tumor_grid: Grid of that mask.

    Returns:
        The plane; None where the head is too small or nowhere symmetric.
    """
    small = coarse(Image(image.name, np.where(head, image.array, 0).astype(np.float32), image.grid), _COARSE_MM)
    points = small.grid.points()[(small.array > 0).ravel()]
    if len(points) < 200:
        return None
    center = points.mean(0)
    thick = bool((small.grid.spacing_mm * np.array(small.array.shape[::-1])).min() >= _THICK_MM)
    rolls = _ANGLES_DEG if thick else (0.0,)
    order = np.random.default_rng(1).permutation(len(points))
    search = _Symmetry(small, points[order[:_SEARCH_POINTS]], center, tumor, tumor_grid)
    best = max(
        (search.value(np.array([yaw, roll, shift])), yaw, roll, shift)
        for yaw in _ANGLES_DEG
        for roll in rolls
        for shift in _SHIFTS_MM
    )
    steps = np.array([4.0, 4.0 if thick else 1.0, 3.0])
    _, near = _refined(search, np.array(best[1:]), steps, 0.5)
    problem = _Symmetry(small, points[order[:_FINAL_POINTS]], center, tumor, tumor_grid)
    value, parameters = _refined(problem, near, steps / 4, 0.1)
    if not value >= LEAST_SYMMETRY:
        return None
    normal, point = problem.plane(parameters)
    return Midplane(point, normal, value)


def mirrored(points: np.ndarray, plane: Midplane) -> np.ndarray:
    """Return points (n, 3), RAS in mm, mirrored in a plane."""
    distance = (points - plane.point) @ plane.normal
    return points - 2 * distance[:, None] * plane.normal


class _Symmetry:
    """Similarity of a brain with its mirror image, by the plane."""

    def __init__(
        self, image: Image, points: np.ndarray, center: np.ndarray, tumor: np.ndarray | None, tumor_grid: Grid | None
    ) -> None:
        self.image, self.center = image, center
        self.tumor, self.tumor_grid = tumor, tumor_grid
        self.points = points[~self._in_tumor(points)]
        self.values = linear(image.array, image.grid.indices(self.points))

    def _in_tumor(self, points: np.ndarray) -> np.ndarray:
        if self.tumor is None or self.tumor_grid is None:
            return np.zeros(len(points), bool)
        return nearest(self.tumor, self.tumor_grid.indices(points)).astype(bool)

    def plane(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal and point of the plane of yaw and roll in degrees and a shift in mm."""
        yaw, roll = np.radians(parameters[:2])
        normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw) * np.cos(roll), np.sin(roll)])
        return normal, self.center + parameters[2] * normal

    def value(self, parameters: np.ndarray) -> float:
        normal, point = self.plane(parameters)
        other = self.points - 2 * ((self.points - point) @ normal)[:, None] * normal
        used = ~self._in_tumor(other)
        mirrored_values = linear(self.image.array, self.image.grid.indices(other), float("nan"))
        used &= np.isfinite(mirrored_values)
        if np.count_nonzero(used) < 0.5 * len(self.points):
            return -1.0
        first, second = self.values[used], mirrored_values[used]
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
