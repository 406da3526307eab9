"""Orientation in the headers of NIfTI-1 files: qform and sform, voxel sizes, and sheared axes.

ITK, with which files are read, refuses an sform whose axes are not perpendicular, and says that the file is damaged.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.core.headers.limits import check_grid
from NeuroCESTLib.core.headers.nifti import is_nifti

LARGEST_SHIFT_MM = 0.1
"""Displacement of a corner up to which a sheared sform is straightened."""
_HEADER_BYTES = 348
_SPACING = 80  # position of the voxel sizes
_SFORM = 280  # position of its three rows
_ROUNDING = 1e-5
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metres and micrometres


@dataclass(frozen=True)
class NiftiOrientation:
    """Transforms of a NIfTI-1 header.

    Attributes:
        sizes: Number of voxels along i, j and k.
        qform: Map (4, 4) from voxels to RAS mm by rotation and spacing; None where the header gives none.
        sform: The same by a general matrix; None where the header gives none.
        order: Byte order, '<' or '>'.
        mm_per_unit: Length in mm of the unit in the file.
        spacing_mm: Voxel size (3,) along i, j and k, which the sform may contradict.
        rank: Number of axes in space, at most 3.
        negative_spacing: Whether a voxel size is negative in the file, which NIfTI does not allow.
    """

    sizes: tuple[int, int, int]
    qform: np.ndarray | None
    sform: np.ndarray | None
    order: str
    mm_per_unit: float
    spacing_mm: np.ndarray
    rank: int = 3
    negative_spacing: bool = False

    def distance_mm(self, first: np.ndarray, second: np.ndarray) -> float:
        """Return the largest distance in mm between the corners that two maps (4, 4) give the image."""
        corners = np.array([(*c, 1) for c in itertools.product(*[(0, n - 1) for n in self.sizes])]).T
        return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())

    @property
    def straight_sform(self) -> np.ndarray | None:
        """The nearest map (4, 4) to the sform with perpendicular axes and the same centre of the image."""
        if self.sform is None:
            return None
        matrix = self.sform[:3, :3]
        spacing = np.linalg.norm(matrix, axis=0)
        if not np.isfinite(matrix).all() or not (spacing > 0).all():
            return None
        u, _, vt = np.linalg.svd(matrix / spacing)
        axes = u @ vt
        straight = np.eye(4)
        straight[:3, :3] = axes * (axes * matrix).sum(0)
        center = (np.array(self.sizes) - 1) / 2
        straight[:3, 3] = self.sform[:3, 3] + (matrix - straight[:3, :3]) @ center
        return straight

    @property
    def shear_mm(self) -> float:
        """Distance in mm by which a corner moves when the sform is straightened; 0 without an sform."""
        straight = self.straight_sform
        return 0.0 if straight is None or self.sform is None else self.distance_mm(self.sform, straight)


def nifti_orientation(path: str | os.PathLike) -> NiftiOrientation | None:
    """Read the orientation of a NIfTI-1 file.

    Returns:
        The orientation; None for files of other formats and for damaged headers, which their readers refuse.
    """
    if not is_nifti(path):
        return None
    try:
        with _opened(Path(path)) as file:
            header = file.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    if len(header) < _HEADER_BYTES or header[344:348] not in (b"n+1\0", b"ni1\0"):
        return None
    order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
    rank, *sizes = struct.unpack(order + "4h", header[40:48])
    i, j, k = (max(size, 1) if axis < rank else 1 for axis, size in enumerate(sizes))
    qfac, *sides = struct.unpack(order + "4f", header[76:92])
    spacing = np.abs(sides)
    qform_code, sform_code = struct.unpack(order + "2h", header[252:256])
    b, c, d, *offset = struct.unpack(order + "6f", header[256:280])
    rows = np.array(struct.unpack(order + "12f", header[_SFORM : _SFORM + 48]), dtype=float).reshape(3, 4)
    scale = _MM_PER_UNIT.get(header[123] & 7, 1.0)
    qform = sform = None
    if qform_code > 0:
        qform = _from_quaternion((b, c, d), offset, spacing, -1.0 if qfac < 0 else 1.0)
        qform[:3] *= scale
    if sform_code > 0:
        sform = np.vstack([rows * scale, (0, 0, 0, 1)])
    negative = any(side < 0 for side in sides)
    return NiftiOrientation((i, j, k), qform, sform, order, scale, spacing * scale, min(max(rank, 1), 3), negative)


def check_orientation(path: str | os.PathLike) -> None:
    """Check that qform, sform and voxel size of a NIfTI-1 file are finite and within the limits.

    Raises:
        ValueError: They are not; the message names the file.
    """
    found = nifti_orientation(path)
    if found is None:
        return
    sizes = found.sizes[: found.rank]
    for matrix in (found.qform, found.sform):
        if matrix is not None:
            check_grid(path, matrix[:3, 3], matrix[:3, : found.rank], sizes)
    if found.qform is None and found.sform is None:
        check_grid(path, np.zeros(3), np.diag(found.spacing_mm)[:, : found.rank], sizes)


def straight_file(path: str | os.PathLike, folder: str | os.PathLike) -> tuple[Path, list[str]]:
    """Return a file that ITK reads rightly: the file itself, or a copy with a straight sform of the same voxel size.

    ITK refuses a sheared sform, takes the voxel size of the header where the sform contradicts it, and mirrors the
    image where that is negative.

    Args:
        path: File of any format.
        folder: Folder for the copy.

    Returns:
        The file to read, and what the user should know, with ``path`` as the name of the file.

    Raises:
        ValueError: Straightening would move a corner by more than ``LARGEST_SHIFT_MM``; the message names the file.
    """
    path = Path(path)
    found = nifti_orientation(path)
    if found is None:
        return path, []
    straight = None if found.qform is not None else found.straight_sform
    skew = straight is not None and _is_skew(found.sform)
    scales = found.spacing_mm if straight is None else np.linalg.norm(straight[:3, :3], axis=0)
    resized = not np.allclose(scales, found.spacing_mm, rtol=1e-3)
    if not (skew or resized or found.negative_spacing):
        return path, []
    if straight is not None and found.shear_mm > LARGEST_SHIFT_MM:
        raise ValueError(
            f"'{path}' has an sform whose axes are not perpendicular: straightening it would move a corner by "
            f"{found.shear_mm:.2g} mm, more than {LARGEST_SHIFT_MM:g} mm; resample it to a rectangular grid first"
        )
    copy = Path(folder) / f"straight_{path.name[:-3] if path.name.lower().endswith('.gz') else path.name}"
    with _opened(path) as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target)
    with open(copy, "r+b") as file:
        if straight is not None:
            file.seek(_SFORM)
            file.write(struct.pack(found.order + "12f", *(straight[:3] / found.mm_per_unit).ravel()))
        file.seek(_SPACING)
        file.write(struct.pack(found.order + "3f", *(scales / found.mm_per_unit)))
    notes = []
    if found.negative_spacing:
        notes.append(f"'{path}' has a negative voxel size (pixdim), which NIfTI does not allow: its sign is ignored")
    if skew:
        notes.append(
            f"the axes of '{path}' are not quite perpendicular: its sform was straightened, which moves its corners by "
            f"up to {found.shear_mm:.2g} mm"
        )
    elif resized:
        shown = [" x ".join(f"{size:.4g}" for size in sizes) for sizes in (found.spacing_mm, scales)]
        notes.append(
            f"'{path}' has voxels of {shown[0]} mm by its spacing and of {shown[1]} mm by its sform: the sform is used"
        )
    return copy, notes


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK and its format libraries from writing to standard error; what a user must know is told here."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with library_lines_caught():
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _is_skew(matrix: np.ndarray | None) -> bool:
    """Whether the axes are not perpendicular, beyond the rounding of single precision."""
    if matrix is None:
        return False
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max()) > _ROUNDING


def _from_quaternion(
    bcd: tuple[float, float, float], offset: list[float], spacing: np.ndarray, qfac: float
) -> np.ndarray:
    """Map (4, 4) of a quaternion, as in nifti1.h."""
    b, c, d = bcd
    rest = 1.0 - (b * b + c * c + d * d)
    a = np.sqrt(max(rest, 0.0))
    if rest < 1e-7:  # a rotation by half a turn, whose quaternion may be rounded
        b, c, d = np.array([b, c, d]) / np.sqrt(1.0 - rest)
        a = 0.0
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    result = np.eye(4)
    with np.errstate(invalid="ignore"):  # infinite voxels are refused where the size is checked
        result[:3, :3] = rotation * np.array([spacing[0], spacing[1], spacing[2] * qfac])
    result[:3, 3] = offset
    return result


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    """Uncompressed content of a file."""
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb")
