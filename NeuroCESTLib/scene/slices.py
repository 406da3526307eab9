"""A slice of a volume as a radiologist looks at it: patient's right on the left, anterior or head up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry

# Towards which side columns and rows of a picture run, RAS, for the anatomical axis along the slice normal.
_COLUMNS = {0: np.array([0, -1, 0]), 1: np.array([-1, 0, 0]), 2: np.array([-1, 0, 0])}
_ROWS = {0: np.array([0, 0, -1]), 1: np.array([0, 0, -1]), 2: np.array([0, -1, 0])}
_LETTERS = {0: ("A", "P", "S", "I"), 1: ("R", "L", "S", "I"), 2: ("R", "L", "A", "P")}


@dataclass(frozen=True)
class SliceView:
    """How to cut and turn arrays ``(K, J, I)`` of one geometry into pictures.

    Attributes:
        axis: array axis along the slice normal.
        index: which slice.
        transposed, flip_rows, flip_columns: what turns the cut into the picture, in this order.
        aspect: height over width of a pixel.
        letters: patient's side at the left, right, top and bottom of the picture.
    """

    axis: int
    index: int
    transposed: bool
    flip_rows: bool
    flip_columns: bool
    aspect: float
    letters: tuple[str, str, str, str]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Picture (row, column) of an array ``(K, J, I)``."""
        picture = np.take(array, self.index, axis=self.axis)
        if self.transposed:
            picture = picture.T
        if self.flip_rows:
            picture = picture[::-1]
        return picture[:, ::-1] if self.flip_columns else picture


def slice_view(geometry: Geometry, mask: np.ndarray | None = None) -> SliceView:
    """View of the acquired slice, or of the axial one of a volume without thick slices.

    The slice is the one with most voxels of ``mask`` (bool ``(K, J, I)``), the middle one without a mask.
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
    wanted_column, wanted_row = _COLUMNS[normal], _ROWS[normal]
    along = np.abs(np.stack([wanted_row, wanted_column]) @ direction[:, [row_axis, column_axis]])
    transposed = bool(along[0, 1] + along[1, 0] > along[0, 0] + along[1, 1])
    if transposed:
        row_axis, column_axis = column_axis, row_axis
    flip_rows = bool(direction[:, row_axis] @ wanted_row < 0)
    flip_columns = bool(direction[:, column_axis] @ wanted_column < 0)
    spacing = geometry.spacing[::-1]
    aspect = float(spacing[row_axis] / spacing[column_axis])
    return SliceView(axis, index, transposed, flip_rows, flip_columns, aspect, _LETTERS[normal])


def bounding_box(picture: np.ndarray, margin: float = 0.05) -> tuple[slice, slice]:
    """Rows and columns that hold the True pixels of a picture, with a margin; everything without any."""
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
