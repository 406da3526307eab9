"""Slices of volumes as pictures: which slice to show, how to turn it, two studies in a checkerboard."""

from __future__ import annotations

import numpy as np

from ..images.compartments import COMPARTMENTS

SQUARES = 8
"""Squares of a checkerboard along the longer side of the picture."""


def axial(volume: np.ndarray, index: int) -> np.ndarray:
    """Cut an axial slice in radiological view: anterior at the top, the patient's right on the left.

    Args:
        volume: Volume (D, H, W) whose axes run to superior, anterior and right.
        index: Slice number along D.

    Returns:
        Picture (row, column).
    """
    return radiological(volume[index])


def radiological(cut: np.ndarray) -> np.ndarray:
    """Turn an axial or coronal cut to radiological view: anterior or head at the top, the patient's right on the left.

    Args:
        cut: Cut (row, column, …) of a volume whose axes run to superior, anterior and right.

    Returns:
        Picture (row, column, …).
    """
    return cut[::-1, ::-1]


def fullest_slice(labels: np.ndarray | None, brain: np.ndarray, axis: int = 0) -> int:
    """Choose the slice that shows most of the tumour, or most of the brain where there is no tumour.

    The areas of the compartments are added, each relative to its own largest area, so that a small core counts as much
    as a large oedema.

    Args:
        labels: Classes (D, H, W), or None.
        brain: Brain mask (D, H, W) bool.
        axis: Axis perpendicular to the slices.

    Returns:
        Slice number along ``axis``.
    """
    across = tuple(a for a in range(3) if a != axis)
    areas = [] if labels is None else [(labels == number).sum(across) for number in COMPARTMENTS]
    shares = [area / area.max() for area in areas if area.any()]
    return int(np.argmax(np.sum(shares, axis=0) if shares else brain.sum(across)))


def checkerboard(first: np.ndarray, second: np.ndarray, aspect: float = 1.0) -> np.ndarray:
    """Show two pictures in alternating squares, ``SQUARES`` of them along the longer side.

    Args:
        first: Picture (row, column); it fills the square at the top left.
        second: Picture of the same shape.
        aspect: Height of a pixel divided by its width.

    Returns:
        Picture of the same shape.
    """
    rows, columns = first.shape
    side = max(rows * aspect, columns) / SQUARES
    row = (np.arange(rows) * aspect // side).astype(int)
    column = (np.arange(columns) // side).astype(int)
    return np.where((row[:, None] + column[None, :]) % 2 == 0, first, second)


def as_bright_as(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Scale a picture so that its quartiles become those of another one, for a checkerboard of both.

    Visits differ in gain and contrast, which would hide whether edges meet.

    Args:
        picture: Picture (row, column). Values that are 0, as in the background, or not finite do not count.
        other: Picture of any shape, treated in the same way.

    Returns:
        Picture of the same shape, with 0 where ``picture`` is 0; ``picture`` itself where either has no contrast.
    """
    quartiles = []
    for values in (picture, other):
        counted = values[np.isfinite(values) & (values != 0)]
        quartiles.append(np.percentile(counted, (25, 50, 75)) if counted.size else np.zeros(3))
    (low, middle, high), (other_low, other_middle, other_high) = quartiles
    if high <= low or other_high <= other_low:
        return picture
    scaled = (picture - middle) * ((other_high - other_low) / (high - low)) + other_middle
    return np.where(picture == 0, 0, scaled)
