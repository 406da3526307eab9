"""Brain extraction by a deformable surface that stops at the skull (Smith, Human Brain Mapping 17:143, 2002)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .grid import WorkingGrid, grid_around

_SPACING_MM = 2.0
_HEAD_MM = 175.0
"""Height of a head from the vertex to below the brain; everything lower (the neck) is left out."""
_STEPS = 450
_FRACTION = 0.7
"""Threshold between the darkest and the brightest tissue below the surface at which it stops; larger is tighter."""
_TISSUE_SHARE = 0.6
_CORE_VOXELS = 2
_INWARD_MM, _OUTWARD_MM = 20.0, 10.0
_SMALLEST_RADIUS_MM, _LARGEST_RADIUS_MM = 3.33, 10.0


def brain_in_head(image: sitk.Image) -> tuple[sitk.Image, bool]:
    """Estimate the brain of an image with skull.

    On the Colin27 head (original, rotated, cropped, with bias field and noise, in thick slices, and with inverted
    contrast) the Dice overlap with its brain mask was 0.89 to 0.93: the whole brain was kept, with an eighth to a fifth
    more volume (fluid, dura, skull base).

    Args:
        image: Image of a head.

    Returns:
        The brain mask (uint8, on the grid of the image), and whether it has a plausible shape.
    """
    grid, values = _head(image)
    surface = _Surface.around(values)
    for step in range(_STEPS):
        surface.move(values, smooth=step < _STEPS // 3)
    mask = grid.to_sitk(_without_thin_parts(surface.filled(values.shape), values, surface.median))
    native = sitk.Resample(
        sitk.Cast(mask, sitk.sitkFloat32), image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0
    )
    return sitk.Cast(native >= 0.5, sitk.sitkUInt8), surface.plausible()


def _head(image: sitk.Image) -> tuple[WorkingGrid, np.ndarray]:
    """Resample the upper part of the head to a 2 mm RAS grid (D, H, W)."""
    ends = [(-0.5, n - 0.5) for n in image.GetSize()]
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]
    ]
    grid = grid_around(np.array(corners), _SPACING_MM, 0.0, 1, image.GetOrigin())
    sigma = [_SPACING_MM / 2 if s < 0.8 * _SPACING_MM else 0.0 for s in image.GetSpacing()]
    if any(sigma):
        image = sitk.DiscreteGaussian(image, variance=[s**2 for s in sigma], useImageSpacing=True)
    air = float(sitk.GetArrayViewFromImage(image).min())  # in z-scored images 0 would be tissue
    values = sitk.GetArrayFromImage(grid.resample(image, None, sitk.sitkLinear, air))
    values -= min(0.0, float(values.min()))
    low, high = np.percentile(values[values > 0], (2, 98))
    tissue = values > low + 0.1 * (high - low)
    filled = tissue.mean(axis=(1, 2)) * tissue.shape[1] * tissue.shape[2] * _SPACING_MM**2
    slices = np.flatnonzero(filled > 1500)  # mm²: excludes noise above the vertex
    top = int(slices[-1]) + 1 if len(slices) else len(values)
    bottom = max(0, top - round(_HEAD_MM / _SPACING_MM))
    origin = np.array(grid.origin_lps_mm) + np.array([0, 0, bottom * _SPACING_MM])
    part = values[bottom : min(top + 3, len(values))]
    return WorkingGrid(part.shape, _SPACING_MM, tuple(origin.tolist())), part


def _without_thin_parts(inside: np.ndarray, values: np.ndarray, median: float) -> np.ndarray:
    """Return the tissue inside the surface that is thicker than a membrane or nerve, smoothed and solid (D, H, W)."""
    tissue = sitk.GetImageFromArray((inside & (values > _TISSUE_SHARE * median)).astype(np.uint8))
    core = sitk.BinaryErode(tissue, [_CORE_VOXELS] * 3, sitk.sitkBall, 0, 1, False)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(core), sortByObjectSize=True)
    grown = sitk.BinaryDilate(sitk.Cast(parts == 1, sitk.sitkUInt8), [_CORE_VOXELS + 1] * 3)
    solid = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(grown, [4] * 3), foregroundValue=1)
    return sitk.GetArrayFromImage(solid) * inside.astype(np.uint8)


@dataclass
class _Surface:
    """A closed triangle mesh in voxel coordinates (k, j, i), and the intensities that drive it.

    Attributes:
        points: Vertices (point, 3).
        triangles: Vertex numbers (triangle, 3).
        neighbors: Neighbours of each vertex (point, 6); -1 as the sixth of those that have five.
        low: Intensity of the background (2nd percentile).
        tissue: Threshold between background and tissue.
        median: Median intensity within the head.
        center: Centre of mass of the head.
    """

    points: np.ndarray
    triangles: np.ndarray
    neighbors: np.ndarray
    low: float
    tissue: float
    median: float
    center: np.ndarray

    @classmethod
    def around(cls, values: np.ndarray) -> _Surface:
        """Create a sphere of half the radius of the head at its centre of mass."""
        low, high = np.percentile(values[values > 0], (2, 98))
        tissue = low + 0.1 * (high - low)
        where = np.argwhere(values > tissue)
        weights = np.minimum(values[values > tissue], high)
        center = (where * weights[:, None]).sum(0) / weights.sum()
        radius = (len(where) * 3 / (4 * np.pi)) ** (1 / 3)
        near = np.linalg.norm(where - center, axis=1) < radius
        median = float(np.median(values[tuple(where[near].T)]))
        sphere, triangles = _icosphere(4)
        return cls(
            center + 0.5 * radius * sphere,
            triangles,
            _neighbors(triangles, len(sphere)),
            float(low),
            float(tissue),
            median,
            center,
        )

    def move(self, values: np.ndarray, smooth: bool) -> None:
        """Move every point by one step (Smith 2002, equations 2 to 14); ``smooth`` makes the surface stiffer."""
        normals = self._normals()
        known = self.neighbors >= 0
        around = np.where(known[..., None], self.points[self.neighbors], 0).sum(1) / known.sum(1)[:, None]
        toward = around - self.points
        along = (toward * normals).sum(1, keepdims=True)
        normal_part = along * normals
        edges = np.linalg.norm(self.points[self.neighbors] - self.points[:, None], axis=-1)
        edge = float(edges[known].mean())
        curvature = 2 * np.abs(along) / edge**2 / _SPACING_MM  # 1 / radius in 1 / mm
        steepness = 6 / (1 / _SMALLEST_RADIUS_MM - 1 / _LARGEST_RADIUS_MM)
        middle = (1 / _SMALLEST_RADIUS_MM + 1 / _LARGEST_RADIUS_MM) / 2
        straighten = (1 + np.tanh(steepness * (curvature - middle))) / 2
        if smooth:
            straighten = np.maximum(straighten, 0.2)
        step = 0.5 * (toward - normal_part) + straighten * normal_part
        step += 0.05 * self._pull(values, normals)[:, None] * edge * normals
        self.points += step

    def _pull(self, values: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the force on each point: outwards where the tissue below it is bright, inwards where it is dark."""
        deep = self._samples(values, normals, _INWARD_MM)
        near = deep[:, : round(_OUTWARD_MM / _SPACING_MM)]
        darkest = np.maximum(self.low, np.minimum(self.median, deep.min(1)))
        brightest = np.minimum(self.median, np.maximum(self.tissue, near.max(1)))
        threshold = (brightest - self.low) * _FRACTION + self.low
        return 2 * (darkest - threshold) / np.maximum(brightest - self.low, 1e-6)

    def _samples(self, values: np.ndarray, normals: np.ndarray, depth_mm: float) -> np.ndarray:
        depths = np.arange(1, round(depth_mm / _SPACING_MM) + 1)
        index = np.rint(self.points[:, None] - depths[None, :, None] * normals[:, None]).astype(np.intp)
        last = np.array(values.shape) - 1
        outside = ((index < 0) | (index > last)).any(-1)
        index = np.clip(index, 0, last)
        return np.where(outside, self.low, values[index[..., 0], index[..., 1], index[..., 2]])

    def _normals(self) -> np.ndarray:
        a, b, c = (self.points[self.triangles[:, n]] for n in range(3))
        faces = np.cross(b - a, c - a)
        normals = np.zeros_like(self.points)
        for corner in range(3):
            for axis in range(3):
                normals[:, axis] += np.bincount(self.triangles[:, corner], faces[:, axis], len(self.points))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return normals * np.sign((normals * (self.points - self.center)).sum())

    def filled(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the voxels inside the surface (D, H, W), boolean."""
        a, b, c = (self.points[self.triangles[:, n]] for n in range(3))
        marks = []
        for u in np.linspace(0, 1, 9):
            for v in np.linspace(0, 1 - u, 9):
                marks.append(a + u * (b - a) + v * (c - a))
        index = np.clip(np.rint(np.concatenate(marks)).astype(np.intp), 0, np.array(shape) - 1)
        shell = np.zeros(np.array(shape) + 2, np.uint8)
        shell[tuple((index + 1).T)] = 1
        outside = sitk.ConnectedThreshold(sitk.GetImageFromArray(shell), [(0, 0, 0)], 0, 0, 1)
        return sitk.GetArrayFromImage(outside)[1:-1, 1:-1, 1:-1] == 0

    def plausible(self) -> bool:
        """Return whether the extents are those of a brain: no axis is more than twice as long as another."""
        extent = np.ptp(self.points, axis=0)
        return bool(extent.max() < 2 * extent.min())


def _icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, 3) on the unit sphere and triangles (m, 3) of an icosahedron divided ``level`` times."""
    golden = (1 + 5**0.5) / 2
    points = [np.roll(p, n) for n in range(3) for p in ([0, s, t * golden] for s in (-1, 1) for t in (-1, 1))]
    points = np.array(points, dtype=float) / np.linalg.norm([1, golden])
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    edge = distance[distance > 0].min() * 1.01
    triangles = [
        (a, b, c)
        for a in range(12)
        for b in range(a + 1, 12)
        for c in range(b + 1, 12)
        if max(distance[a, b], distance[b, c], distance[a, c]) < edge
    ]
    triangles = [t if np.linalg.det(points[list(t)]) > 0 else (t[0], t[2], t[1]) for t in triangles]
    faces = np.array(triangles)
    for _ in range(level):
        pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        unique, index = np.unique(pairs, axis=0, return_inverse=True)
        middles = points[unique].mean(1)
        middles /= np.linalg.norm(middles, axis=1, keepdims=True)
        ab, bc, ca = index.reshape(3, -1) + len(points)
        a, b, c = faces.T
        faces = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        points = np.concatenate([points, middles])
    return points, faces


def _neighbors(triangles: np.ndarray, count: int) -> np.ndarray:
    """Return the neighbours of every point (point, 6), -1 where there are fewer."""
    pairs = np.unique(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=0)
    result = np.full((count, 6), -1)
    filled = np.zeros(count, dtype=int)
    for first, second in pairs:
        result[first, filled[first]] = second
        filled[first] += 1
    return result
