"""Offsets in the private elements of Siemens."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import OFFSETS, SIGNAL, write_classic, write_offsets

from CESTQuantLib.formats.scanner.sources import read_source


@pytest.mark.parametrize(
    ("sampling", "offsets"),
    [(1, [-300, -4, 0, 4]), (2, [-300, 4, -4, 0]), (3, OFFSETS), (4, [-300, 4, 4, 4])],
)
def test_offsets_of_a_private_element(tmp_path: Path, sampling: int, offsets: list[float]) -> None:
    """Sequences CEST_Rev… of the DKFZ write kind and range of their offsets into Siemens' measurement protocol."""
    protocol = (
        'tSequenceFileName = "%CustomerSeq%\\CEST_Rev1522"\n'
        f"sWipMemBlock.alFree[7] = {sampling}\nsWipMemBlock.alFree[9] = 4\nsWipMemBlock.adFree[1] = 4.0\n"
    )
    text = f"binary\0### ASCCONV BEGIN ###\n{protocol}### ASCCONV END ###\0"
    write_classic(tmp_path / "dicom", SIGNAL, {(0x0029, 0x1020): ("OB", text.encode())})
    if sampling == 3:
        write_offsets(tmp_path / "dicom", "LIST.txt")
    found = read_source(tmp_path / "dicom")[0]
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == offsets
    assert "private elements" in found.notes[-1]
