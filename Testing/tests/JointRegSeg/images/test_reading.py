"""Reading of image files: truncated ones are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.reading import read_image

SIZE = 20


def test_truncated_volumes_are_refused_whether_compressed_or_not(tmp_path: Path) -> None:
    """SimpleITK alone would fill the missing part with zeros."""
    volume = sitk.GetImageFromArray(np.random.default_rng(0).random((SIZE,) * 3).astype(np.float32))
    for name in ("a.nii", "a.nii.gz"):
        path = tmp_path / name
        sitk.WriteImage(volume, str(path))
        read_image(path)
        content = path.read_bytes()
        for length in (len(content) // 2, len(content) - 9):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=rf"{name}' is truncated"):
                read_image(path)
    packed = tmp_path / "parts.nii.gz"  # compressed in several parts, as parallel programs write it
    sitk.WriteImage(volume, str(tmp_path / "b.nii"))
    whole = (tmp_path / "b.nii").read_bytes()
    packed.write_bytes(gzip.compress(whole[:5000]) + gzip.compress(whole[5000:]))
    assert read_image(packed).GetSize() == (SIZE,) * 3
