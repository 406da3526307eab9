"""Offsets in the private elements of Siemens."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import OFFSETS, SIGNAL, write_classic, write_offsets

from CESTQuantLib.formats.scanner.sources import read_source


def write_wip(folder: Path, sampling: int) -> None:
    """Write a series of the sequences CEST_Rev… of the DKFZ, which note kind and range of their offsets."""
    protocol = (
        'tSequenceFileName = "%CustomerSeq%\\CEST_Rev1522"\n'
        f"sWipMemBlock.alFree[7] = {sampling}\nsWipMemBlock.alFree[9] = 4\nsWipMemBlock.adFree[1] = 4.0\n"
    )
    text = f"binary\0### ASCCONV BEGIN ###\n{protocol}### ASCCONV END ###\0"
    write_classic(folder, SIGNAL, {(0x0029, 0x1020): ("OB", text.encode())})


@pytest.mark.parametrize(
    ("sampling", "offsets"),
    [(1, [-300, -4, 0, 4]), (2, [-300, 4, -4, 0]), (3, OFFSETS), (4, [-300, 4, 4, 4])],
)
def test_offsets_of_a_private_element(tmp_path: Path, sampling: int, offsets: list[float]) -> None:
    write_wip(tmp_path / "dicom", sampling)
    if sampling == 3:
        write_offsets(tmp_path / "dicom", "LIST.txt")
    found = read_source(tmp_path / "dicom")[0]
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == offsets
    assert "private elements" in found.notes[-1]


def test_a_list_beside_the_images_that_the_private_elements_contradict_is_told(tmp_path: Path) -> None:
    write_wip(tmp_path / "dicom", 1)
    write_offsets(tmp_path / "dicom", "offsets.txt")
    found = read_source(tmp_path / "dicom")[0]
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [-300, -4, 0, 4] != OFFSETS
    assert "offsets.txt is not used: give it with --offsets" in found.notes[-1]
