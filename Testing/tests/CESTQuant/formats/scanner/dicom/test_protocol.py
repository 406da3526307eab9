"""Protocols of DICOM series: the field of their elements, and offsets that are given or found beside the images."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import OFFSETS, SIGNAL, series, write_classic, write_dicom, write_offsets

from CESTQuantLib.formats.scanner.sources import read_source


@pytest.mark.parametrize(
    ("frequency", "field", "expected", "told"),
    [
        ("123200000", "3", (2.8936, 123.2), "ImagingFrequency is 123200000, .*: it is taken to be in Hz, 123.2 MHz"),
        ("", "30000", (3.0, None), "MagneticFieldStrength is 30000, .*: it is taken to be in gauss, 3 T"),
        ("123200", "3", (3.0, None), "ImagingFrequency is 123200, which no magnet has in MHz, and is not used"),
        ("51.7", "3", (1.2143, 51.7), "ImagingFrequency is that of 1.214 T but MagneticFieldStrength is 3 T"),
        ("0", "0", (None, None), "no file says the offsets"),
    ],
)
def test_fields_that_no_magnet_has_are_told(
    tmp_path: Path, frequency: str, field: str, expected: tuple[float | None, float | None], told: str
) -> None:
    write_classic(tmp_path, SIGNAL, {(0x0018, 0x0084): ("DS", frequency), (0x0018, 0x0087): ("DS", field)})
    found, _ = read_source(tmp_path)
    assert found.protocol is not None
    protocol = found.protocol
    for value, of_file in zip((protocol["field_strength_T"], protocol["larmor_frequency_MHz"]), expected, strict=True):
        assert value == (of_file if of_file is None else pytest.approx(of_file, rel=1e-4))
    assert [note for note in found.notes if re.search(told, note)]


def test_offsets_beside_the_images(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    write_offsets(tmp_path / "dicom")
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS
    assert "offsets.txt" in found.notes[-1]


@pytest.fixture
def two_series(tmp_path: Path) -> Path:
    """A study with series 5 in the folder ``aptw`` and series 6 in ``wassr``."""
    for number, folder in ((5, "aptw"), (6, "wassr")):
        write_classic(tmp_path / "study" / folder, SIGNAL, series(f"cest_{folder}", number))
    return tmp_path / "study"


def test_the_list_beside_the_images_of_a_series_is_that_of_this_series(two_series: Path) -> None:
    lists = {"5": OFFSETS, "6": [-300.0, -1.0, 0.0, 1.0]}
    for folder, offsets in zip(("aptw", "wassr"), lists.values(), strict=True):
        (two_series / folder / "offsets.txt").write_text(" ".join(map(str, offsets)))
    for number, offsets in lists.items():
        found, _ = read_source(two_series, number)
        assert found.protocol is not None
        assert found.protocol["offsets_ppm"] == offsets


@pytest.mark.parametrize("folder", ["aptw", "."])
def test_a_list_beside_the_images_of_another_series_is_told_and_not_used(two_series: Path, folder: str) -> None:
    for path in list((two_series / "aptw").iterdir()):
        path.rename(two_series / folder / path.name)
    name = write_offsets(two_series / folder).relative_to(two_series)
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] is None
    assert found.notes[-1].endswith(f"; beside images of other series, and not used: {name}")


@pytest.mark.parametrize("folder", [".", "lists"])
def test_a_list_that_is_not_beside_other_images_is_used(two_series: Path, folder: str) -> None:
    """It may lie above the folders of the images, as a DICOMDIR does, or in a folder of its own."""
    write_dicom(two_series / "DICOMDIR", {}, SIGNAL[0, :1])
    write_offsets(two_series / folder)
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS


@pytest.mark.parametrize("folder", ["wassr", "lists"])
def test_several_lists_of_a_series_are_named(two_series: Path, folder: str) -> None:
    for name, offsets in (("offsets.txt", "1 2"), ("LIST.txt", "3 4")):
        (two_series / folder).mkdir(exist_ok=True)
        (two_series / folder / name).write_text(offsets)
    with pytest.raises(
        ValueError, match=rf"several lists of offsets \({folder}/LIST.txt, {folder}/offsets.txt\): give"
    ):
        read_source(two_series, "6")


def test_a_list_in_a_copy_of_the_folder_is_the_same_list(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    write_offsets(tmp_path / "dicom")
    shutil.copytree(tmp_path / "dicom", tmp_path / "dicom - copy")
    found, _ = read_source(tmp_path)
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == OFFSETS


def test_a_pulseq_file_is_looked_for_beside_the_images_of_its_series(two_series: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    for folder, b1_uT in (("aptw", 2.0), ("wassr", 0.5)):
        played = Protocol(3.0, OFFSETS, b1_uT=b1_uT, saturation_time_s=1.0, recovery_time_s=1.0)
        write_seq(played, two_series / folder / f"{folder}.seq")
    found, _ = read_source(two_series, "6")
    assert found.protocol is not None
    assert found.protocol["b1_uT"] == pytest.approx(0.5, rel=1e-3)


def test_given_offsets_count(tmp_path: Path) -> None:
    write_classic(tmp_path / "dicom", SIGNAL)
    found, _ = read_source(tmp_path / "dicom", offsets=[-1.0, 1.0])
    assert found.protocol is not None
    assert found.protocol["offsets_ppm"] == [-1.0, 1.0, -1.0, 1.0]
    assert "the 2 offsets of the given list are taken as measured 2 times, one list after the other" in found.notes
    for wrong in ([-1.0, 0.0, 1.0], []):
        with pytest.raises(ValueError, match=rf"the given list has {len(wrong)} offsets but the series has 4 volumes"):
            read_source(tmp_path / "dicom", offsets=wrong)


def test_a_pulseq_file_beside_the_images_is_the_protocol(tmp_path: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    played = Protocol(3.0, OFFSETS, b1_uT=2.0, saturation_time_s=1.0, recovery_time_s=1.0, readout_flip_angle_deg=90.0)
    write_classic(tmp_path / "dicom", SIGNAL)
    write_seq(played, tmp_path / "dicom" / "apt.seq")
    found, _ = read_source(tmp_path / "dicom")
    assert found.protocol is not None
    np.testing.assert_allclose(found.protocol["offsets_ppm"], OFFSETS, atol=1e-3)
    assert found.protocol["b1_uT"] == pytest.approx(2.0, rel=1e-3)
    assert "the protocol is that of" in found.notes[1]
    write_seq(replace(played, b1_uT=played.b1_uT / 2), tmp_path / "dicom" / "other.seq")
    with pytest.raises(ValueError, match=r"several pulseq files \(apt.seq, other.seq\)"):
        read_source(tmp_path / "dicom")


def test_a_scanner_of_another_field_than_the_pulseq_file_is_told(tmp_path: Path) -> None:
    from CESTQuantLib.formats.pulseq.write import write_seq
    from CESTQuantLib.physics.protocol import Protocol

    played = Protocol(3.0, OFFSETS, b1_uT=2.0, saturation_time_s=1.0, recovery_time_s=1.0, readout_flip_angle_deg=90.0)
    for field, larmor_MHz in ((3, 127.73), (2.9, 123.25), (7, 297.2)):
        folder = tmp_path / str(field)
        magnet = {(0x0018, 0x0084): ("DS", f"{larmor_MHz}"), (0x0018, 0x0087): ("DS", f"{field}")}
        write_classic(folder, SIGNAL, magnet)
        write_seq(played, folder / "apt.seq")
    notes = {field: [n for n in read_source(tmp_path / str(field))[0].notes if "T but" in n] for field in (3, 2.9, 7)}
    assert notes[3] == []
    assert "was written for 3 T but the images are from a scanner of 2.895 T" in notes[2.9][0]
    assert "the offsets in ppm are 3.6 % larger" in notes[2.9][0]
    assert "57.0 % smaller" in notes[7][0]


@pytest.mark.parametrize("given", [True, False])
def test_offsets_in_hz_of_an_unknown_field_are_refused_with_a_remedy_that_an_import_has(
    given: bool, tmp_path: Path
) -> None:
    write_classic(tmp_path / "dicom", SIGNAL, {(0x0018, 0x0084): ("DS", ""), (0x0018, 0x0087): ("DS", "")})
    path = tmp_path / ("given.txt" if given else "dicom/offsets.txt")
    path.write_text("# offsets in Hz\n-38000\n-447\n0\n447\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"where the command has this option\), or write them in ppm, divided by the"):
        read_source(tmp_path / "dicom", offsets=path if given else None)
