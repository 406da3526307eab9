"""Reading of image files: truncated ones are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.reading import read_image, read_labels

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


def write_segments(path: Path, layers: list[np.ndarray], segments: list[tuple[str, int, int]]) -> Path:
    """Write a segmentation as Slicer does: segments by name, number and layer."""
    image = sitk.GetImageFromArray(np.stack(layers, axis=-1) if len(layers) > 1 else layers[0])
    image.SetSpacing((2.0, 2.0, 2.0))
    for number, (name, value, layer) in enumerate(segments):
        for key, text in (("Name", name), ("LabelValue", str(value)), ("Layer", str(layer))):
            image.SetMetaData(f"Segment{number}_{key}", text)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("layered", [False, True])
def test_segmentations_are_read_by_the_names_of_their_segments(tmp_path: Path, layered: bool) -> None:
    """In one layer, or in two where the enhancing tumour overlaps the core."""
    core, rim = np.zeros((24,) * 3, np.uint8), np.zeros((24,) * 3, np.uint8)
    core[8:16, 8:16, 8:16], rim[7:17, 7:17, 12:17] = 1, 2
    expected = np.where(rim == 2, 3, core)
    layers = [core, rim] if layered else [np.where(rim == 2, rim, core).astype(np.uint8)]
    names = [("Nonenhancing tumor core (NETC)", 1, 0), ("Enhancing tissue (ET)", 2, int(layered))]
    found = read_labels(write_segments(tmp_path / "a.seg.nrrd", layers, names))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.image), expected)
    assert found.image.GetSpacing() == (2.0, 2.0, 2.0)
    assert not found.plain
    assert found.reading.meaning["Enhancing tissue (ET)"] == "enhancing_tumor"


def test_t1ce_of_the_same_grid_helps_to_read_a_label_file(tmp_path: Path) -> None:
    labels, t1ce = np.zeros((24,) * 3, np.uint8), np.random.default_rng(0).normal(100, 10, (24,) * 3)
    labels[6:18, 6:18, 6:18] = 2
    labels[10:14, 10:14, 10:14] = 4
    t1ce[labels == 4] += 100
    for name, array in (("labels", labels), ("t1ce", t1ce.astype(np.float32))):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 2.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    with pytest.raises(ValueError, match=r"labels\.nii\.gz' has the values 2, 4, which do not tell its convention"):
        read_labels(tmp_path / "labels.nii.gz")
    assert read_labels(tmp_path / "labels.nii.gz", t1ce=tmp_path / "t1ce.nii.gz").reading.convention == "brats2021"
