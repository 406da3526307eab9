"""Data elements of DICOM files: those of other writers, private sequences and files that are cut off."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SIGNAL, elements, series, write_compressed, write_enhanced

from CESTQuantLib.formats.scanner.sources import read_source
from NeuroCESTLib.core.headers.dicom_elements import read_elements


@pytest.mark.parametrize("implicit", [True, False])
def test_private_sequences_of_an_unknown_type_are_read(tmp_path: Path, implicit: bool) -> None:
    """Anonymisers write the private sequence of Philips as UN, with the elements in it implicit as a rule."""
    slopes = [0.5, 0.25, 2.0, 1.0]

    def item(slope: float) -> bytes:
        if not implicit:
            return elements({(0x2005, 0x100E): ("FL", slope)})
        return struct.pack("<HHIf", 0x2005, 0x100E, 4, slope)

    def private(slope: float) -> bytes:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(item(slope))) + item(slope)

    of_frame = [{(0x2005, 0x140F): ("UN", private(slope))} for slope in slopes]
    path = tmp_path / "a.dcm"
    write_enhanced(path, SIGNAL, slopes=[1.0] * 4, of_frame=of_frame, more=series(manufacturer="Philips"))
    np.testing.assert_allclose(read_source(path)[0].images.array, SIGNAL / np.reshape(slopes, (4, 1, 1, 1)))


def test_cut_off_files_are_named(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", SIGNAL, slopes=[1.0] * 4)
    content = path.read_bytes()
    for length in range(132, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a.dcm|no DICOM images"):
            read_source(tmp_path)


def test_elements_of_other_writers_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 1000, (1, 64, 64)).astype(np.uint16)
    write_compressed(tmp_path / "itk.dcm", pixels[0], {})
    assert read_elements(tmp_path / "itk.dcm").plain_byte_order is None
    found, _ = read_source(tmp_path)
    np.testing.assert_array_equal(found.images.array[0], pixels)
