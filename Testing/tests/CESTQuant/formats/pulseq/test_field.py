"""The field of a pulseq file, in the ways in which it is written, and what contradicts it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from expm_reference import GAMMA
from sequence_files import SequenceText

from CESTQuantLib.formats.protocol_json import protocol_from_dict
from CESTQuantLib.formats.pulseq.field import field_of_definitions
from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.formats.pulseq.text import Definitions


def field_of(*lines: str) -> tuple[float | None, str]:
    """The field of some definitions, and what is told about it."""
    notes: list[str] = []
    words = [line.split(maxsplit=1) for line in lines]
    definitions = Definitions(tuple((name, text) for name, text in words))
    return field_of_definitions(definitions, GAMMA, notes), " ".join(notes)


@pytest.mark.parametrize(
    ("lines", "field", "told"),
    [
        (["B0 3"], 3.0, ""),
        (["b0 7"], 7.0, ""),
        (["B0 B0 3"], 3.0, ""),
        (["B0 3T"], 3.0, ""),
        (["B0 3 tesla"], 3.0, ""),
        (["B0 [3]"], 3.0, ""),
        (["B0 3000 mT"], 3.0, "taken for 3 T"),
        (["B0 127.73"], 3.0, "taken for 3 T"),
        (["B0 298.03 MHz"], 7.0, "taken for 7 T"),
        (["FREQ 127.73"], 3.0, ""),
        (["FREQ 127730000"], 3.0, "in Hz"),
        (["B0 -1"], None, ""),
        (["B0 -1", "FREQ 127.73"], 3.0, ""),
        (["B0 B0"], None, "not a field in T"),
        (["B0 5000"], None, "not a field in T"),
        (["B0 3", "B0 7"], 7.0, "'3' and '7'; '7' counts"),
        (["B0 3", "b0 7"], 3.0, "'3' and '7'; '3' counts"),
        (["B0 3", "B0 3"], 3.0, ""),
        (["B0 3", "FREQ 298.03"], 3.0, "FREQ is that of 7 T"),
        (["B0 3", "FREQ 127.7292"], 3.0, ""),
        (["FREQ fast"], None, "not a frequency"),
    ],
)
def test_fields_as_they_are_written(lines: list[str], field: float | None, told: str) -> None:
    found, notes = field_of(*lines)
    assert found == (None if field is None else pytest.approx(field, rel=1e-3))
    assert told in notes
    assert told or not notes


def told_by(file: SequenceText, folder: Path) -> tuple[list[float], str]:
    """The offsets of a file, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        protocol = read_seq(file.write(folder))
    return protocol.offsets_ppm.tolist(), " ".join(str(warning.message) for warning in caught)


def test_the_offset_is_not_that_of_a_preparation_that_takes_longer(tmp_path: Path) -> None:
    """WASABITI: three adiabatic pulses at the frequency of water, a recovery, and a shorter pulse at the offset."""
    file = SequenceText(B0=3, offsets_ppm="-300 -1.5 0 1.5")
    for offset in (-300, -1.5, 0, 1.5):
        for _ in range(3):
            file.pulse(20.0, 8e-3)
            file.gradient(0.0055)
        file.wait(1.5)
        file.pulse(3.7, 5e-3, offset)
        file.gradient(0.0055)
        file.sample()
    offsets, told = told_by(file, tmp_path)
    assert offsets == pytest.approx([-300, -1.5, 0, 1.5])
    assert "offsets_ppm" not in told


@pytest.mark.parametrize(("stated", "m0"), [({}, -300.0), ({"M0_offset": -100}, -100.0)])
def test_an_m0_image_without_rf_that_is_not_listed_is_taken_with_a_warning(
    stated: dict[str, float], m0: float, tmp_path: Path
) -> None:
    file = SequenceText(B0=3, offsets_ppm="-3.5 3.5", **stated)
    file.wait(10)
    file.sample()
    for offset in (-3.5, 3.5):
        file.wait(10)
        file.pulse(3.0, 0.1, offset)
        file.gradient(0.0055)
        file.sample()
    offsets, told = told_by(file, tmp_path)
    assert offsets == pytest.approx([m0, -3.5, 3.5])
    assert "taken for the M0 image" in told


@pytest.mark.parametrize(("stated", "m0"), [({}, -300.0), ({"M0_offset": -100}, -100.0)])
def test_the_offset_of_an_m0_image_is_not_that_of_water_where_no_offsets_are_listed(
    stated: dict[str, float], m0: float, tmp_path: Path
) -> None:
    file = SequenceText(B0=3, **stated)
    file.wait(10)
    file.sample()
    for offset in (-3.5, 3.5):
        file.pulse(3.0, 0.1, offset)
        file.gradient(0.0055)
        file.sample()
    offsets, told = told_by(file, tmp_path)
    assert offsets == pytest.approx([m0, -3.5, 3.5])
    assert f"without RF (1), which are taken for M0 images at {m0:g} ppm" in told


def test_unlisted_m0_images_of_a_sequence_with_several_slices_are_taken(tmp_path: Path) -> None:
    """Every offset, and M0 before them, is read from three slices, each with its own saturation."""
    file = SequenceText(B0=3, offsets_ppm="-3.5 3.5")
    for offset in (None, -3.5, 3.5):
        for _ in range(3):
            file.wait(0.3) if offset is None else file.pulse(3.0, 0.1, offset)
            file.gradient(0.0065)
            file.sample()
    offsets, told = told_by(file, tmp_path)
    assert offsets == pytest.approx([-300, -3.5, 3.5])
    assert "3 samples belong to every measurement" in told


@pytest.mark.parametrize("stated", [{"numB1scans": 2, "numB1Maps": 1}, {"num_meas": 5}])
def test_measurements_of_b1_after_the_last_offset_are_played(stated: dict[str, float], tmp_path: Path) -> None:
    """Sequences for 7 T end with an image without RF and one after a pulse of 70 degrees."""
    file = SequenceText(B0=3, offsets_ppm="-3.5 0.5 3.5", **stated)
    for offset in (-3.5, 0.5, 3.5):
        file.pulse(3.0, 0.1, offset)
        file.gradient(0.0065)
        file.sample()
    file.wait(4)
    file.sample()
    file.pulse(2.28, 2e-3)
    file.gradient(0.0065)
    file.sample()
    offsets, told = told_by(file, tmp_path)
    assert offsets == pytest.approx([-3.5, 0.5, 3.5, -300, 0])
    assert "ends with 2 measurements that have no value in offsets_ppm" in told


def test_a_list_of_offsets_that_is_played_at_several_powers_is_not_read_as_several_samples(tmp_path: Path) -> None:
    """Spectra of four powers whose offsets the file lists once, as in the library for 9.4 T."""
    file = SequenceText(B0=3, offsets_ppm="-300 -3.5 0 3.5")
    for b1_uT in (0.6, 0.9, 1.1, 1.4):
        for offset in (-300, -3.5, 0, 3.5):
            file.pulse(b1_uT, 0.1, offset)
            file.gradient(0.0065)
            file.sample()
    with pytest.warns(UserWarning, match="the list of offsets_ppm is played 4 times"):
        protocol = read_seq(file.write(tmp_path))
    assert protocol.offsets_ppm.tolist() == pytest.approx(4 * [-300, -3.5, 0, 3.5])
    assert protocol.b1_uT.tolist() == pytest.approx([b1 for b1 in (0.6, 0.9, 1.1, 1.4) for _ in range(4)])


def test_one_measurement_too_many_is_refused_where_all_play_rf(tmp_path: Path) -> None:
    file = SequenceText(B0=3, offsets_ppm="-3.5 3.5")
    for offset in (-300, -3.5, 3.5):
        file.pulse(3.0, 0.1, offset)
        file.gradient(0.0055)
        file.sample()
    with pytest.raises(ValueError, match="offsets_ppm has 2 values but the sequence has 3"):
        read_seq(file.write(tmp_path))


def test_a_protocol_whose_field_and_frequency_differ_is_told() -> None:
    values = {"offsets_ppm": [-3.5, 3.5], "b1_uT": 1.0, "saturation_time_s": 2.0}
    with pytest.warns(UserWarning, match="larmor_frequency_MHz is that of 7 T"):
        protocol_from_dict(values | {"field_strength_T": 3.0, "larmor_frequency_MHz": 298.03})
    with pytest.raises(ValueError, match="no magnet has"):
        protocol_from_dict(values | {"field_strength_T": 127.7})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        protocol_from_dict(values | {"field_strength_T": 3.0, "larmor_frequency_MHz": 123.26})
