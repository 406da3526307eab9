"""Frames of DICOM files: their values as the scanner measured them, and files that do not say what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import SIGNAL, elements, place, series, write_compressed, write_dicom, write_enhanced

from CESTQuantLib.formats.scanner.sources import read_source


def test_multi_frame_files_with_a_slope_for_each_frame(tmp_path: Path) -> None:
    slopes = [1.0, 0.5, 2.0, 0.25]
    write_enhanced(tmp_path / "enhanced.dcm", SIGNAL, slopes=slopes)
    found, _ = read_source(tmp_path / "enhanced.dcm")
    np.testing.assert_array_equal(found.images.array, SIGNAL * np.reshape(slopes, (4, 1, 1, 1)))
    np.testing.assert_allclose(found.images.ijk_to_lps[:3, 2], [-3, 0, 0])
    assert "in the order of the temporal position" in found.notes[0]


def test_a_multi_frame_file_for_each_measurement(tmp_path: Path) -> None:
    for m, volume in enumerate(SIGNAL):
        more = {(0x0020, 0x0013): ("IS", m + 1), (0x0020, 0x0012): ("IS", m + 1)}
        write_enhanced(tmp_path / "dicom" / f"{9 - m}.dcm", volume[None], slopes=[1.0], more=more)
    np.testing.assert_array_equal(read_source(tmp_path / "dicom")[0].images.array, SIGNAL)


def test_philips_display_scaling_is_undone(tmp_path: Path) -> None:
    """Measured value = (stored * slope + intercept) / (slope * private slope); display slopes differ between images."""
    for m, volume in enumerate(SIGNAL):
        more = {
            (0x0028, 0x1053): ("DS", 2.0 + m),
            (0x0028, 0x1052): ("DS", 0),
            (0x2005, 0x100E): ("FL", 0.5),
            (0x0020, 0x0100): ("IS", m + 1),
        }
        for k, image in enumerate(volume):
            write_dicom(
                tmp_path / "dicom" / f"{m}-{k}", {**series(manufacturer="Philips"), **place(k), **more}, image[None]
            )
    np.testing.assert_allclose(read_source(tmp_path / "dicom")[0].images.array, SIGNAL / 0.5)


@pytest.mark.parametrize("slope", [None, 4.0])
def test_philips_display_scaling_of_compressed_images_is_undone(tmp_path: Path, slope: float | None) -> None:
    pixels = np.random.default_rng(1).integers(0, 1000, (2, 64, 64)).astype(np.uint16)
    for m, private in enumerate([0.5, 0.25]):
        path = write_compressed(tmp_path / f"{m}.dcm", pixels[m], {"0020|0012": str(m + 1), "0008|0070": "Philips"})
        shown = {} if slope is None else {(0x0028, 0x1052): ("DS", "0"), (0x0028, 0x1053): ("DS", f"{slope:g}")}
        added = elements({**shown, (0x2005, 0x100E): ("FL", private)})
        content = path.read_bytes()
        place_of_pixels = content.rindex(bytes([0xE0, 0x7F, 0x10, 0x00]))
        path.write_bytes(content[:place_of_pixels] + added + content[place_of_pixels:])
    found = read_source(tmp_path)[0].images.array[:, 0]
    np.testing.assert_allclose(found, pixels / np.reshape([0.5, 0.25], (2, 1, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({(0x0008, 0x0008): ("CS", "ORIGINAL\\PRIMARY\\M\\MOSAIC")}, "is a mosaic"),
        ({(0x0028, 0x0002): ("US", 3)}, "is a coloured picture"),
        ({(0x0020, 0x0032): ("DS", "a\\b\\c")}, "has no numbers"),
        ({(0x0020, 0x0032): ("DS", "inf\\0\\0")}, "has no numbers"),
        ({(0x0020, 0x0032): ("DS", "")}, "does not say where its images lie"),
        ({(0x0028, 0x0010): ("US", 600)}, "is cut off: its pixels have"),
        ({(0x0028, 0x0100): ("US", 12)}, "has 12 bits a voxel"),
        ({(0x0028, 0x0008): ("IS", 3)}, "has 3 frames without their places"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, more: dict, message: str) -> None:
    write_dicom(tmp_path / "a.dcm", {**series(), **place(0), **more}, SIGNAL[0, :1])
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path)
