"""Series of DICOM files: which there are, and which of them is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import SIGNAL, place, series, write_classic, write_dicom

from CESTQuantLib.formats.scanner.sources import describe_scans, read_source


def test_several_series_are_listed(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    for number, name in ((2, "t1_mprage"), (3, "t2_flair")):
        write_dicom(tmp_path / "dicom" / name, {**series(name, number), **place(0)}, SIGNAL[0, :1])
    (tmp_path / "dicom" / "notes.txt").write_text("no image")
    assert describe_scans(tmp_path / "dicom") == [
        "2: t1_mprage (SIEMENS, 1 images)",
        "3: t2_flair (SIEMENS, 1 images)",
        "5: cest (SIEMENS, 12 images)",
    ]
    found, chosen = read_source(tmp_path / "dicom")
    assert found.name == "5"
    assert "only one that is called after CEST" in chosen[0]
    assert read_source(tmp_path / "dicom", "t2_flair")[0].protocol is None
    with pytest.raises(ValueError, match="has no series 8; its series are 2: t1_mprage"):
        read_source(tmp_path / "dicom", "8")


def test_a_series_for_each_measurement_is_joined(tmp_path: Path) -> None:
    for m, volume in enumerate(SIGNAL):
        write_classic(tmp_path / "dicom" / str(m), volume[None], series("pulseq", 9 + m))
    with pytest.raises(ValueError, match="has 4 series; choose one with --scan: 9: pulseq"):
        read_source(tmp_path / "dicom")
    found, chosen = read_source(tmp_path / "dicom", "9-12")
    np.testing.assert_array_equal(found.images.array, SIGNAL)
    assert chosen == ("4 series are joined in the order of their numbers: 9-12",)


def test_series_of_two_examinations_with_one_number_are_chosen_by_their_folders(tmp_path: Path) -> None:
    for m, examination in enumerate(("before", "after")):
        write_classic(tmp_path / examination, SIGNAL[m:], {(0x0020, 0x000E): ("UI", f"1.2.{m}")})
    with pytest.raises(ValueError, match=r"2 series 5, .*: give a folder with only one .*/after' and '.*/before'$"):
        read_source(tmp_path, "5")
    np.testing.assert_array_equal(read_source(tmp_path / "after", "5")[0].images.array, SIGNAL[1:])
