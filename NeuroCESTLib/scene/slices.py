"""Slices in radiological orientation: the patient's right on the left, anterior or head at the top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry

# Direction (RAS) in which the columns and rows of a picture run, by the anatomical axis of the slice normal.
_COLUMNS = {0: np.array([0, -1, 0]), 1: np.array([-1, 0, 0]), 2: np.array([-1, 0, 0])}
_ROWS = {0: np.array([0, 0, -1]), 1: np.array([0, 0, -1]), 2: np.array([0, -1, 0])}
_LETTERS = {0: ("A", "P", "S", "I"), 1: ("R", "L", "S", "I"), 2: ("R", "L", "A", "P")}


@dataclass(frozen=True)
class SliceView:
    """How to turn arrays (K, J, I) of one geometry into pictures of one slice.

    Attributes:
        axis: Array axis along the slice normal.
        index: Number of the slice along this axis.
        transposed: Whether rows and columns of the cut are exchanged first.
        flip_rows: Whether the rows are reversed next.
        flip_columns: Whether the columns are reversed last.
        aspect: Height over width of a pixel.
        letters: Patient's side at the left, right, top and bottom of the picture.
    """

    axis: int
    index: int
    transposed: bool
    flip_rows: bool
    flip_columns: bool
    aspect: float
    letters: tuple[str, str, str, str]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Cut the picture (row, column) of the slice out of an array (K, J, I)."""
        picture = np.take(array, self.index, axis=self.axis)
        if self.transposed:
            picture = picture.T
        if self.flip_rows:
            picture = picture[::-1]
        return picture[:, ::-1] if self.flip_columns else picture


def slice_view(geometry: Geometry, mask: np.ndarray | None = None) -> SliceView:
    """Choose a slice and its orientation.

    Thick slices are shown as they were acquired; volumes without thick slices are shown in axial orientation.

    Args:
        geometry: Voxel grid of the arrays.
        mask: Voxels of interest, bool (K, J, I): the slice with the most of them is chosen. Without a mask, or with an
            empty one, it is the middle slice.
    """
    axis = _slice_axis(geometry)
    if mask is not None and mask.any():
        area = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        index = int(np.argmax(area))
    else:
        index = geometry.shape[axis] // 2
    row_axis, column_axis = (a for a in range(3) if a != axis)
    direction = geometry.direction[:, ::-1]  # columns in array order K, J, I
    normal = int(np.abs(direction[:, axis]).argmax())
    column_direction, row_direction = _COLUMNS[normal], _ROWS[normal]
    along = np.abs(np.stack([row_direction, column_direction]) @ direction[:, [row_axis, column_axis]])
    transposed = bool(along[0, 1] + along[1, 0] > along[0, 0] + along[1, 1])
    if transposed:
        row_axis, column_axis = column_axis, row_axis
    flip_rows = bool(direction[:, row_axis] @ row_direction < 0)
    flip_columns = bool(direction[:, column_axis] @ column_direction < 0)
    spacing = geometry.spacing[::-1]
    aspect = float(spacing[row_axis] / spacing[column_axis])
    return SliceView(axis, index, transposed, flip_rows, flip_columns, aspect, _LETTERS[normal])


def bounding_box(picture: np.ndarray, margin: float = 0.05) -> tuple[slice, slice]:
    """Return the rows and columns that contain the True pixels of a picture.

    Args:
        picture: Bool (row, column); without any True pixel the box is the whole picture.
        margin: Margin on each side as a fraction of the box; at least one pixel.
    """
    if not picture.any():
        return slice(None), slice(None)
    box = []
    for axis in (1, 0):
        inside = np.flatnonzero(picture.any(axis=axis))
        extra = int(np.ceil(margin * (inside[-1] - inside[0] + 1))) + 1
        box.append(slice(max(int(inside[0]) - extra, 0), int(inside[-1]) + extra + 1))
    return box[0], box[1]


def _slice_axis(geometry: Geometry) -> int:
    spacing, shape = geometry.spacing[::-1], np.array(geometry.shape)
    if shape.min() == 1 or spacing.max() > 1.5 * spacing.min():
        return int(np.argmin(shape) if shape.min() == 1 else np.argmax(spacing))
    return int(np.abs(geometry.direction[2, ::-1]).argmax())
