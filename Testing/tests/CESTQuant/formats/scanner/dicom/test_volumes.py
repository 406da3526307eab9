"""Volumes of DICOM series: their order, their place, and images that do not fill one voxel grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import SIGNAL, place, series, write_classic, write_dicom

from CESTQuantLib.formats.scanner.sources import read_source


@pytest.mark.parametrize("numbered", [True, False])
def test_one_volume_for_each_acquisition(tmp_path: Path, numbered: bool) -> None:
    write_classic(tmp_path / "dicom", SIGNAL, numbered=numbered)
    found, chosen = read_source(tmp_path / "dicom")
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    expected = "acquisition number" if numbered else "image numbers"
    assert f"4 volumes are in the order of the {expected}" in found.notes[0]
    assert chosen == ()
    assert found.protocol is not None
    assert found.protocol["larmor_frequency_MHz"] == 123.2
    assert found.protocol["field_strength_T"] == pytest.approx(123.2 / 42.5764, rel=1e-5)
    assert found.protocol["offsets_ppm"] is None
    assert "no file says the offsets" in found.notes[-1]


def write_ambiguous_numbers(folder: Path, number: str, *, timed: bool) -> None:
    """Write ``SIGNAL`` with image numbers that say nothing of the measurement, as ``{k}`` or empty."""
    for m, volume in enumerate(SIGNAL):
        for k, image in enumerate(volume):
            own = {(0x0020, 0x0013): ("IS", number.format(k=k + 1)), (0x0020, 0x0012): ("IS", 1)}
            if timed:  # from before to after midnight
                own[0x0008, 0x0022] = ("DA", "20240131" if m < 2 else "20240201")
                own[0x0008, 0x0032] = ("TM", f"{(235950, 235955, 0, 5)[m]:06d}.{k}")
            name = f"{(m * 3 + k) * 7919 % 10007:05d}.dcm"  # names say nothing about the order
            write_dicom(folder / name, {**series(), **place(k), **own}, image[None])


@pytest.mark.parametrize("number", ["", "{k}"], ids=["without", "restarting"])
def test_without_image_numbers_of_their_own_the_order_is_that_of_the_acquisition_times(
    tmp_path: Path, number: str
) -> None:
    """Anonymised exports leave image numbers empty; others count the slices of every volume from 1."""
    write_ambiguous_numbers(tmp_path, number, timed=True)
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert "4 volumes are in the order of the acquisition times" in found.notes[0]


@pytest.mark.parametrize("number", ["", "{k}"], ids=["without", "restarting"])
def test_images_whose_order_nothing_tells_are_refused(tmp_path: Path, number: str) -> None:
    write_ambiguous_numbers(tmp_path, number, timed=False)
    with pytest.raises(ValueError, match=r"4 images of every slice and nothing that tells their order.*InstanceNumber"):
        read_source(tmp_path)


def test_the_place_is_that_of_dicom(tmp_path: Path) -> None:
    """Slices are stacked along their normal, which for these sagittal rows and columns points to the right, -L."""
    write_classic(tmp_path / "dicom", SIGNAL)
    images = read_source(tmp_path / "dicom")[0].images
    np.testing.assert_allclose(images.ijk_to_lps, [[0, 0, -3, -10], [1.5, 0, 0, -20], [0, -2, 0, 30], [0, 0, 0, 1]])
    itk = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "dicom"))[0])
    np.testing.assert_allclose(np.array(itk.GetSpacing())[:2], np.linalg.norm(images.ijk_to_lps[:3, :2], axis=0))


def write_moving_slice(folder: Path, along_mm: float, across_mm: float) -> np.ndarray:
    """Write one slice six times that moves from image to image along its normal and in its plane; return the images."""
    images = np.arange(6 * 30).reshape(6, 1, 6, 5)
    for m, image in enumerate(images):
        position = {(0x0020, 0x0032): ("DS", f"{-10 - along_mm * m:g}\\{-20 - across_mm * m:g}\\30")}
        write_dicom(folder / f"{m}.dcm", {**series(), **place(0), **position, (0x0020, 0x0013): ("IS", m)}, image)
    return images


def test_a_slice_that_drifts_a_little_is_one_slice(tmp_path: Path) -> None:
    """A scanner that follows the motion of the patient moves the slices along."""
    images = write_moving_slice(tmp_path, along_mm=0.006, across_mm=0.0)
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array, images)
    assert any("lie up to 0.03 mm apart" in note for note in found.notes)


def test_a_slice_that_moves_far_is_refused(tmp_path: Path) -> None:
    write_moving_slice(tmp_path, along_mm=0.0, across_mm=1.0)
    with pytest.raises(ValueError, match="shifted against each other by up to 5 mm"):
        read_source(tmp_path)


def test_images_of_another_orientation_are_named(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    turned = {**series(), **place(0), (0x0020, 0x0037): ("DS", "1\\0\\0\\0\\1\\0")}
    write_dicom(tmp_path / "dicom" / "zz.dcm", turned, SIGNAL[0, :1])
    with pytest.raises(ValueError, match=r"zz\.dcm' have different orientations or voxel sizes: leave out the series"):
        read_source(tmp_path / "dicom")


def test_incomplete_series_are_refused(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    next((tmp_path / "dicom").iterdir()).unlink()
    with pytest.raises(ValueError, match="is incomplete: its 3 slices have 3 to 4 images"):
        read_source(tmp_path / "dicom")


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    for k in (0, 1, 3):
        write_dicom(tmp_path / f"{k}.dcm", {**series(), **place(k)}, SIGNAL[0, :1])
    with pytest.raises(ValueError, match="do not have equal distances"):
        read_source(tmp_path)


def test_sheared_slices_are_refused(tmp_path: Path) -> None:
    """Slices are sagittal at equal distances of 3 mm, each 1 mm anterior of the one before."""
    for k in range(3):
        where = {**place(k), (0x0020, 0x0032): ("DS", f"{-10 - 3 * k}\\{-20 - k}\\30")}
        write_dicom(tmp_path / f"{k}.dcm", {**series(), **where}, SIGNAL[0, :1])
    with pytest.raises(ValueError, match=r"the slices are sheared, .*: resample them to perpendicular axes"):
        read_source(tmp_path)
