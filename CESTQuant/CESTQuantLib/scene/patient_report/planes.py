"""Slices of CEST grids as pictures, with anatomy and outlines in a finer resolution than the maps have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import SliceView, bounding_box, slice_view

from ...compartments.anatomy.segment_names import CAVITY
from ...compartments.inputs import Image
from .material import Material, VisitMaterial

if TYPE_CHECKING:
    import SimpleITK as sitk

_FINE_MM = 0.9
"""Pixels of the anatomy are about as large as this, in mm."""
_MOST_FINE = 4


@dataclass(frozen=True)
class Plane:
    """One slice of the CEST grid of a visit, cropped to the head.

    Attributes:
        material: The visit.
        geometry: Voxel grid of the maps.
        view: Slice and orientation.
        box: Rows and columns that are shown.
        fine: How many pixels of the anatomy there are along each side of a voxel.
    """

    material: VisitMaterial
    geometry: Geometry
    view: SliceView
    box: tuple[slice, slice]
    fine: int

    @classmethod
    def of(cls, material: VisitMaterial, through: np.ndarray | None = None) -> Plane | None:
        """Choose the slice with the largest part of the tumour, or the one nearest to a point.

        Args:
            material: The visit.
            through: Point that the slice contains, RAS in mm in the space of the CEST images, or None.

        Returns:
            The slice; None for a visit without CEST.
        """
        geometry = material.geometry
        if geometry is None:
            return None
        shown = _tumor(material)
        view = slice_view(geometry, shown if shown.any() else _head(material))
        if through is not None:
            index = np.linalg.inv(geometry.ijk_to_ras) @ np.append(through, 1)
            number = round(float(index[2 - view.axis]))
            view = _at(view, min(max(number, 0), geometry.shape[view.axis] - 1))
        return cls(material, geometry, view, bounding_box(view.cut(_head(material))), _fineness(geometry, view))

    def at(self, number: int) -> Plane:
        """Return another slice with the same crop."""
        return Plane(self.material, self.geometry, _at(self.view, number), self.box, self.fine)

    def slices_with_tumor(self, most: int) -> list[Plane]:
        """Return up to ``most`` slices that are spread evenly over those with a part of the tumour."""
        axes = tuple(axis for axis in range(3) if axis != self.view.axis)
        filled = np.flatnonzero(_tumor(self.material).any(axis=axes))
        if not len(filled):
            return []
        chosen = np.unique(np.linspace(0, len(filled) - 1, most).round().astype(int))
        return [self.at(int(number)) for number in filled[chosen]]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Return the picture (row, column) of an array (K, J, I) on the grid."""
        return self.view.cut(array)[self.box]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of the picture in pixels of the maps, as ``imshow`` takes them."""
        rows, columns = self.cut(np.empty(self.geometry.shape, np.bool_)).shape
        return -0.5, columns - 0.5, rows - 0.5, -0.5

    def pixel_centers(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places (column,) and (row,) of the pixels of a picture that fills the extent."""
        left, right, bottom, top = self.extent
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        return x, top + (np.arange(rows) + 0.5) * (bottom - top) / rows

    @property
    def height_over_width(self) -> float:
        """Shape of the picture as it is displayed."""
        left, right, bottom, top = self.extent
        return (bottom - top) * self.view.aspect / (right - left)

    @property
    def center(self) -> np.ndarray:
        """Centre of the tumour, or else of the head, in this slice; RAS in mm in the space of the CEST images."""
        shown = _tumor(self.material)
        inside = np.zeros_like(shown)
        here = [slice(None)] * 3
        here[self.view.axis] = slice(self.view.index, self.view.index + 1)
        inside[tuple(here)] = (shown if shown[tuple(here)].any() else _head(self.material))[tuple(here)]
        index = np.argwhere(inside).mean(0)[::-1] if inside.any() else (np.array(self.geometry.shape[::-1]) - 1) / 2
        return (self.geometry.ijk_to_ras @ np.append(index, 1))[:3]

    def anatomy_points(self) -> np.ndarray:
        """Points (row, column, 3) of the fine pixels in the space of the anatomy, RAS in mm."""
        k, j, i = np.meshgrid(*(np.arange(n) for n in self.geometry.shape), indexing="ij")
        index = np.stack([self.cut(axis) for axis in (i, j, k)], axis=-1).astype(np.float64)
        rows, columns = index.shape[:2]
        down = index[1, 0] - index[0, 0] if rows > 1 else np.zeros(3)
        right = index[0, 1] - index[0, 0] if columns > 1 else np.zeros(3)
        along_rows = (np.arange(rows * self.fine) + 0.5) / self.fine - 0.5
        along_columns = (np.arange(columns * self.fine) + 0.5) / self.fine - 0.5
        fine = index[0, 0] + along_rows[:, None, None] * down + along_columns[None, :, None] * right
        matrix = self.material.cest_to_anatomy @ self.geometry.ijk_to_ras
        return fine @ matrix[:3, :3].T + matrix[:3, 3]

    def anatomy(self) -> np.ndarray | None:
        """Picture of the first anatomical image in fine pixels, else of the CEST images; None without both."""
        source = self.material.source
        if source is not None and source.anatomy:
            return sampled(source.anatomy[0], self.anatomy_points())
        unsaturated = self.material.visit.unsaturated
        if unsaturated is None:
            unsaturated = self.material.visit.anatomy
        return None if unsaturated is None else self.cut(unsaturated)

    def outline(self, name: str) -> np.ndarray | None:
        """Share of each fine pixel that lies in a region; None where the slice does not show it."""
        region = self.material.visit.region(name)
        grid = self.material.visit.mask_grid
        if region is None:
            return None
        if region.mask.size and grid is not None:
            image = Image(name, region.mask.astype(np.float32), grid)
            picture = sampled(image, self.anatomy_points())
        else:
            picture = self.cut(region.weights)
        return picture if (picture > 0.5).any() and not (picture > 0.5).all() else None


def sampled(image: Image, points: np.ndarray) -> np.ndarray:
    """Interpolate an image linearly at points (row, column, 3), RAS in mm; 0 beyond the image."""
    indices = image.grid.indices(points.reshape(-1, 3))
    sizes = np.array(image.array.shape[::-1])
    inside = ((indices > -0.5) & (indices < sizes - 0.5)).all(1)
    place = np.clip(indices, 0, sizes - 1)
    low = np.minimum(place.astype(np.int64), np.maximum(sizes - 2, 0))
    share = place - low
    values = np.zeros(len(place))
    for corner in range(8):
        step = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        i, j, k = np.minimum(low + step, sizes - 1).T
        values += np.where(step, share, 1 - share).prod(1) * image.array[k, j, i]
    return np.where(inside, values, 0).reshape(points.shape[:2])


def moved_points(points: np.ndarray, transform: sitk.Transform) -> np.ndarray:
    """Move points (…, 3), RAS in mm, by a transform of SimpleITK."""
    lps = points.reshape(-1, 3) * np.array([-1.0, -1.0, 1.0])
    moved = np.array([transform.TransformPoint(point) for point in lps.tolist()])
    return (moved * np.array([-1.0, -1.0, 1.0])).reshape(points.shape)


def second_plane(material: Material, first: Plane) -> Plane | None:
    """Return the slice of the second visit that shows the same place as a slice of the first one.

    Without a transform between the visits it is the slice with the largest part of the tumour.
    """
    second = material.visits[1]
    if material.between is None or second.geometry is None:
        return Plane.of(second)
    matrix = first.material.cest_to_anatomy
    anatomy = matrix[:3, :3] @ first.center + matrix[:3, 3]
    there = moved_points(anatomy[None], material.between)[0]
    back = np.linalg.inv(second.cest_to_anatomy)
    return Plane.of(second, back[:3, :3] @ there + back[:3, 3])


def _at(view: SliceView, number: int) -> SliceView:
    return replace(view, index=number)


def _tumor(material: VisitMaterial) -> np.ndarray:
    shape = material.visit.grid.shape if material.visit.grid is not None else (0, 0, 0)
    inside = np.zeros(shape, bool)
    regions = [r for r in material.visit.regions if r.kind == "tumor" and r.weights.shape == shape and r.weights.any()]
    for region in [r for r in regions if r.name != CAVITY] or regions:  # a cavity may be larger than what is left
        inside |= region.weights > 0.3
    return inside


def _head(material: VisitMaterial) -> np.ndarray:
    visit = material.visit
    shape = visit.grid.shape if visit.grid is not None else (0, 0, 0)
    inside = np.zeros(shape, bool)
    for array in visit.maps.values():
        inside |= np.isfinite(array) & (array != 0)
    return inside if inside.any() and not inside.all() else np.ones(shape, bool)


def _fineness(geometry: Geometry, view: SliceView) -> int:
    across = np.delete(geometry.spacing[::-1], view.axis)
    return int(np.clip(round(float(across.max()) / _FINE_MM), 1, _MOST_FINE))
