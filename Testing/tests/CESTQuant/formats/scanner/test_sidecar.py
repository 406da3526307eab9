"""JSON files beside NIfTI images: offsets in ppm and in Hz, and values that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from studies import write_json

from CESTQuantLib.formats.scanner.sidecar import protocol_of_sidecar


@pytest.mark.parametrize(
    ("sidecar", "larmor_MHz"),
    [
        ({"larmor_frequency_MHz": 298.0}, 298.0),
        ({"field_strength_T": 7}, 7 * 42.5764),
        ({"MagneticFieldStrength": 3, "larmor_frequency_MHz": 123.2}, 123.2),
        ({"MagneticFieldStrength": 3, "offsets_ppm": None}, 3 * 42.5764),
    ],
)
def test_hertz_of_a_sidecar_are_converted_with_what_the_protocol_will_have(
    sidecar: dict[str, float], larmor_MHz: float, tmp_path: Path
) -> None:
    path = write_json({**sidecar, "SaturationOffset_Hz": [447, -447]}, tmp_path / "s.json")
    protocol = protocol_of_sidecar(path)
    assert protocol["offsets_ppm"] == pytest.approx([447 / larmor_MHz, -447 / larmor_MHz], rel=1e-5)
    assert protocol["field_strength_T"] == pytest.approx(larmor_MHz / 42.5764, rel=1e-5)


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"MagneticFieldStrength": 3, "field_strength_T": 7}, "MagneticFieldStrength is 3, .* but field_strength_T"),
        ({"MagneticFieldStrength": 7, "ImagingFrequency": 127.7}, "ImagingFrequency is 127.7, which is 2.999 T, but"),
        ({"MagneticFieldStrength": 30000}, "MagneticFieldStrength is 30000, which no magnet has"),
        ({"ImagingFrequency": 127728000}, "ImagingFrequency is .* which no magnet has"),
    ],
)
def test_fields_of_a_sidecar_that_cannot_be_are_refused(sidecar: dict[str, float], words: str, tmp_path: Path) -> None:
    path = write_json({**sidecar, "SaturationOffset_Hz": [447, -447]}, tmp_path / "s.json")
    with pytest.raises(ValueError, match=rf"s\.json: {words}"):
        protocol_of_sidecar(path)


@pytest.mark.parametrize(
    ("hertz", "agree"),
    [([-447, 0, 447], True), ([-425, 0, 425], True), ([-350, 0, 350], False), ([-447, 0, 447, 900], False)],
)
def test_offsets_of_a_sidecar_in_ppm_and_hertz_have_to_agree(hertz: list[float], agree: bool, tmp_path: Path) -> None:
    """A magnet of "3 T" may have a Larmor frequency of 123 MHz, so that the list in Hz is smaller by 5 %."""
    offsets = {"SaturationOffsets": [-3.5, 0, 3.5], "SaturationOffset_Hz": hertz}
    path = write_json({"MagneticFieldStrength": 3, **offsets}, tmp_path / "s.json")
    if agree:
        assert protocol_of_sidecar(path)["offsets_ppm"] == [-3.5, 0, 3.5]
        return
    with pytest.raises(ValueError, match=r"s\.json: SaturationOffset_Hz and SaturationOffsets give different offsets"):
        protocol_of_sidecar(path)


@pytest.mark.parametrize("unit", [1, 0.1277], ids=["ppm", "kHz"])
def test_offsets_of_a_sidecar_that_cannot_be_hertz_are_refused(unit: float, tmp_path: Path) -> None:
    offsets = (np.array([-300, *range(-5, 6)]) * unit).tolist()
    path = write_json({"MagneticFieldStrength": 3, "SaturationOffset_Hz": offsets}, tmp_path / "s.json")
    with pytest.raises(ValueError, match=r"SaturationOffset_Hz reaches from .* looks like ppm or kHz: name the list"):
        protocol_of_sidecar(path)


def test_narrow_spectra_in_hertz_are_read(tmp_path: Path) -> None:
    """A WASSR acquisition of 0.3 ppm on either side of water."""
    offsets = np.linspace(-38.4, 38.4, 13).tolist()
    path = write_json({"MagneticFieldStrength": 3, "SaturationOffset_Hz": offsets}, tmp_path / "s.json")
    assert protocol_of_sidecar(path)["offsets_ppm"][0] == pytest.approx(-0.3, abs=1e-3)


def test_hertz_that_nothing_converts_are_not_compared(tmp_path: Path) -> None:
    path = write_json({"SaturationOffsets": [-3.5, 0, 3.5], "SaturationOffset_Hz": [1, 2, 3]}, tmp_path / "s.json")
    assert protocol_of_sidecar(path)["offsets_ppm"] == [-3.5, 0, 3.5]


@pytest.mark.parametrize("key", ["SaturationOffset_ppm", "offsets_ppm", "SaturationOffset_Hz", "b1_uT"])
@pytest.mark.parametrize("value", ["1e400", "[300, 1e400]", "[-Infinity, 300]", "NaN"])
def test_numbers_of_a_sidecar_that_are_not_finite_are_named(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "s.json").write_text(f'{{"MagneticFieldStrength": 3, "{key}": {value}}}')
    with pytest.raises(ValueError, match=rf"s\.json: {key} has a number that is not finite; correct it"):
        protocol_of_sidecar(tmp_path / "s.json")
