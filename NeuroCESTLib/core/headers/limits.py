"""Limits that the numbers in a header must keep, whatever the format."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

LARGEST_MM = 1e5
"""Largest distance in mm of the first voxel from the origin: 100 m."""
LARGEST_EXTENT_MM = 1e4
"""Largest extent of an image in mm: 10 m."""
SMALLEST_MM = 1e-6
"""Smallest voxel size in mm: 1 nm."""
MOST_VALUES = 1 << 40
"""Number of values from which a header is damaged."""
LARGEST_RATIO = 1032
"""Most bytes that one byte of a deflate stream (gzip, zip) can unpack to."""
SPARE_BYTES = 64 << 20
"""Bytes that a compressed file may hold beyond those that its header announces."""
_LEAST_VOLUME = 1e-4
"""Volume of the unit vectors along the axes from which they span space; 1 where they are perpendicular."""


def check_grid(
    path: str | os.PathLike, origin: Sequence[float] | np.ndarray, axes: np.ndarray, sizes: Sequence[int]
) -> None:
    """Check that an image has a usable place, extent and orientation.

    Args:
        path: File, which the message names.
        origin: Position (3,) of the first voxel in mm.
        axes: Steps (3, n) in mm from a voxel to the next along each of the n axes in space, one a column.
        sizes: Number of voxels (n,) along these axes.

    Raises:
        ValueError: A number is not finite or beyond the limits, or the axes do not span space.
    """
    if not np.isfinite(origin).all():
        raise ValueError(f"'{path}' has an origin that is not finite: export it again")
    if axes.size and not np.isfinite(axes).all():
        raise ValueError(f"'{path}' has a voxel size or direction that is not finite: export it again")
    if np.abs(origin).max(initial=0.0) > LARGEST_MM:
        raise ValueError(
            f"'{path}' lies {np.abs(origin).max() / 1000:.3g} m from the origin of its coordinates: "
            "its header is damaged or not in mm"
        )
    if not axes.size:
        return
    lengths = np.linalg.norm(axes, axis=0)
    extents = lengths * np.asarray(sizes, dtype=float)
    if lengths.min(initial=1.0) < SMALLEST_MM:
        raise ValueError(f"'{path}' has a voxel size of {lengths.min():.3g} mm: export it again with the true one")
    if extents.max(initial=0.0) > LARGEST_EXTENT_MM:
        raise ValueError(f"'{path}' would be {extents.max() / 1000:.3g} m long: its voxel size is damaged or not in mm")
    units = axes / lengths
    if math.sqrt(max(float(np.linalg.det(units.T @ units)), 0.0)) < _LEAST_VOLUME:
        raise ValueError(f"'{path}' has axes that do not span space, for two of them are parallel: export it again")


def check_sizes(path: str | os.PathLike, sizes: Sequence[int], bytes_a_value: float) -> int:
    """Check that an image fits into the memory.

    Args:
        path: File, which the message names.
        sizes: Number of entries along each axis.
        bytes_a_value: Bytes of one value.

    Returns:
        Bytes of all values.

    Raises:
        ValueError: A size is not positive, or the memory of this machine is too small.
    """
    if not sizes or min(sizes) < 1 or math.prod(sizes) > MOST_VALUES:
        raise ValueError(f"'{path}' has a damaged header: its sizes are impossible")
    needed = math.ceil(math.prod(sizes) * bytes_a_value)
    if needed > memory_bytes():
        raise ValueError(
            f"'{path}' needs {needed / 1e9:.1f} GB, more than the memory of this machine: its header is damaged, "
            "or the image must be cut into parts"
        )
    return needed


def memory_bytes() -> int:
    """Return the size of the machine's memory in bytes; 1 TiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def quoted(text: str, longest: int = 40) -> str:
    """Return a text of a file in quotation marks for a message: on one line, printable, and not too long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return f"'{shown}'" if len(shown) <= longest else f"'{shown[: longest - 3]}...'"
