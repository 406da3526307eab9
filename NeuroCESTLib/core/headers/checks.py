"""The check that every file passes before Slicer's storage nodes or ITK read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.bundle import check_bundle, check_scene
from NeuroCESTLib.core.headers.dicom import is_dicom
from NeuroCESTLib.core.headers.dicom_frames import check_dicom
from NeuroCESTLib.core.headers.limits import check_grid
from NeuroCESTLib.core.headers.metaimage import check_metaimage, is_metaimage
from NeuroCESTLib.core.headers.nifti import check_nifti, is_nifti, is_pair
from NeuroCESTLib.core.headers.nifti_orientation import check_orientation
from NeuroCESTLib.core.headers.nrrd import is_nrrd
from NeuroCESTLib.core.headers.nrrd_checks import check_nrrd


def check_file(path: str | os.PathLike, trust_size: bool = False) -> None:
    """Check the header of a file, and that its data are complete.

    NRRD files (also segmentations and sequences), NIfTI files in one part or two, MetaImages, DICOM files and scenes
    are checked; files of other kinds pass, and so do files of these kinds whose names say otherwise.

    Args:
        path: An existing file.
        trust_size: Whether the unpacked size that a compressed NIfTI file states is enough if it is the announced one.

    Raises:
        ValueError: The file would not be read rightly; the message names it and says why.
    """
    path = Path(path)
    state = path.stat()
    _check(path, trust_size, (state.st_size, state.st_mtime_ns, state.st_ino))


@lru_cache(maxsize=256)
def _check(path: Path, trust_size: bool, stamp: tuple[int, ...]) -> None:
    """Check a file; one that has passed and has kept its stamp is not unpacked again."""
    name = path.name.lower()
    if is_nrrd(path):
        check_nrrd(path)
    elif is_nifti(path) or is_pair(path):
        check_nifti(path, trust_size)
        check_orientation(path)
    elif is_metaimage(path):
        check_metaimage(path)
    elif is_dicom(path):
        check_dicom(path)
    elif name.endswith(".mrb"):
        check_bundle(path, check_file)
    elif name.endswith(".mrml"):
        check_scene(path)


def check_read_grid(
    path: str | os.PathLike,
    sizes: Sequence[int],
    spacing: Sequence[float],
    origin: Sequence[float],
    direction: Sequence[float],
) -> None:
    """Check the place of an image of any format, as ITK understood its header.

    Args:
        path: File, which the message names.
        sizes: Number of voxels (n,) along each axis.
        spacing: Voxel size (n,).
        origin: Position (n,) of the first voxel.
        direction: Direction cosines (n * n,), by rows.

    Raises:
        ValueError: A number is not finite or beyond the limits; the message names the file.
    """
    count, used = len(sizes), min(len(sizes), 3)
    matrix = np.array(direction, dtype=float).reshape(count, count)[:used, :used]
    with np.errstate(invalid="ignore"):
        check_grid(path, origin[:used], matrix * np.array(spacing[:used], dtype=float), sizes[:used])
