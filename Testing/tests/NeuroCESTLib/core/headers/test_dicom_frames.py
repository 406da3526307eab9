"""Multi-frame DICOM files given as images: those of one volume are read, and others are refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from dicom_files import SIGNAL, place, write_enhanced

from JointRegSegLib.images.reading import read_image
from NeuroCESTLib.core.headers.checks import check_file
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.volumes import read_volume, volume_array

ENHANCED_MR = {(0x0008, 0x0016): ("UI", "1.2.840.10008.5.1.4.1.1.4.1")}
FRAMES = SIGNAL[:, :1]
TURNED = {(0x0020, 0x9116): ("SQ", [{(0x0020, 0x0037): ("DS", "0\\1\\0\\0\\0\\1")}])}


def write_frames(
    path: Path, slices: Sequence[int], *, slopes: Sequence[float] = (1,) * 4, last: dict | None = None
) -> Path:
    """Write four frames at the places of slices that are 3 mm apart, the last one with more elements."""
    where = [{(0x0020, 0x9113): ("SQ", [{(0x0020, 0x0032): place(k)[0x0020, 0x0032]}])} for k in slices]
    where[-1] |= last or {}
    return write_enhanced(path, FRAMES, slopes=slopes, of_frame=where, more=ENHANCED_MR)


@pytest.mark.parametrize("slices", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_a_file_of_one_volume_is_read(slices: tuple[int, ...], tmp_path: Path, slicer: ModuleType) -> None:
    node = read_volume(write_frames(tmp_path / "t1.dcm", slices))
    np.testing.assert_allclose(np.linalg.norm(Geometry.of(node).ijk_to_ras[:3, :3], axis=0), [1.5, 2, 3])
    np.testing.assert_array_equal(np.sort(volume_array(node), None), np.sort(FRAMES, None))


@pytest.mark.parametrize(
    ("slices", "more", "why"),
    [
        ((0, 0, 1, 1), {}, "on one grid, as with several images of a slice or a gap"),
        ((0, 1, 0, 1), {}, "on one grid"),
        ((0, 0, 0, 0), {}, "on one grid"),
        ((0, 1, 2, 4), {}, "on one grid"),
        ((0, 2, 1, 3), {}, "on one grid"),
        ((0, 1, 2, 3), {"last": TURNED}, "on one grid"),
        ((0, 1, 2, 3), {"slopes": [1.0, 1.0, 1.0, 2.0]}, "have scalings of their own"),
    ],
)
def test_a_file_of_anything_else_is_refused(slices: tuple[int, ...], more: dict, why: str, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "t1.dcm", slices, **more)
    for read in (check_file, read_image, read_volume):
        with pytest.raises(ValueError, match=why) as caught:
            read(path)
        assert str(caught.value).startswith(f"'{path}' is not one volume of equal voxels, because its 4 DICOM frames")
        assert "convert the DICOM series to NIfTI first" in str(caught.value)
