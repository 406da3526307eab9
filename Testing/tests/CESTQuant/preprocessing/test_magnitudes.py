"""Values in another unit or scale are converted where that is certain, and refused where it is not."""

from __future__ import annotations

import pytest
import torch
from studies import amine_model, fit

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing import magnitudes
from CESTQuantLib.preprocessing.magnitudes import Larmor
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

MHZ = 127.73
SPECTRUM = torch.linspace(-5, 5, 41, dtype=torch.float64)
SHIFTS = torch.linspace(-0.8, 0.8, 30, dtype=torch.float64)


def protocol(offsets: torch.Tensor | list[float], normalisation: str = "m0") -> Protocol:
    return Protocol(3.0, offsets, 1.0, 1.0, signal_normalisation=normalisation)


def spectra(normalisation: str = "m0", factor: float = 1.0) -> ZSpectra:
    """Spectra of a water line at ``SHIFTS``."""
    z = 1 - 0.9 * 0.25 / (0.25 + (SPECTRUM - SHIFTS[:, None]).square())
    return ZSpectra(factor * z, protocol(SPECTRUM, normalisation))


# offsets


@pytest.mark.parametrize("offsets", [SPECTRUM * MHZ, torch.cat((torch.tensor([-38319.0]), SPECTRUM * MHZ))])
def test_a_spectrum_in_hz_is_converted_where_the_field_is_known(offsets: torch.Tensor) -> None:
    converted, (warning,) = magnitudes.offsets_in_ppm(protocol(offsets), True, "'p.json'")
    torch.testing.assert_close(converted.offsets_ppm, offsets.double() / MHZ, rtol=1e-4, atol=0)
    assert "are taken to be in Hz and divided by 127.73 MHz" in warning
    with pytest.raises(ValueError, match=r"'o.txt': the offsets \(.*\) look like Hz, not ppm: give the field strength"):
        magnitudes.offsets_in_ppm(protocol(offsets), False, "'o.txt'")


@pytest.mark.parametrize(
    "offsets",
    [
        SPECTRUM,
        torch.cat((torch.tensor([-300.0, -20, -15, -10, 10, 15, 20]), SPECTRUM)),
        [8.0, 20.0, 50.0, 100.0, 200.0, 800.0],  # semisolid pool, one side
        [-100.0, -50, -20, -10, -5, 5, 10, 20, 50, 100],
        [-300.0, 3.5, -3.5],
        [300.0],
    ],
)
def test_offsets_in_ppm_are_left_alone(offsets: torch.Tensor | list[float]) -> None:
    given = protocol(offsets)
    kept, warnings = magnitudes.offsets_in_ppm(given, True, "p")
    assert kept is given
    assert warnings == []


# maps


def test_a_b0_map_in_hz_is_converted_where_the_field_is_known() -> None:
    values, (warning,) = magnitudes.b0_in_ppm(SHIFTS * MHZ, spectra(), Larmor(MHZ, True), "'b0'")
    torch.testing.assert_close(values, SHIFTS)
    assert "is taken to be in Hz and divided by 127.73 MHz" in warning
    with pytest.raises(ValueError, match=r"the B0 map 'b0' .* looks like Hz, not ppm: give the field strength"):
        magnitudes.b0_in_ppm(SHIFTS * MHZ, spectra(), Larmor(MHZ, False), "'b0'")
    with pytest.raises(ValueError, match="is neither in ppm nor in Hz"):
        magnitudes.b0_in_ppm(SHIFTS * 1e4, spectra(), Larmor(MHZ, True), "'b0'")


def test_a_b0_map_of_the_opposite_sign_or_of_other_spectra_is_told() -> None:
    larmor = Larmor(MHZ, True)
    assert magnitudes.b0_in_ppm(SHIFTS, spectra(), larmor, "'b0'")[1] == []
    assert "opposite sign" in magnitudes.b0_in_ppm(-SHIFTS, spectra(), larmor, "'b0'")[1][0]
    corrected = ZSpectra(spectra().signal[15:16].expand(30, -1), protocol(SPECTRUM))
    assert "not corrected already" in magnitudes.b0_in_ppm(SHIFTS, corrected, larmor, "'b0'")[1][0]


def coarse(shifts: torch.Tensor, noise: float = 0.05) -> ZSpectra:
    """Spectra with offsets farther apart than the shifts, and noise, as those of a brain at 7 T."""
    offsets = torch.tensor([-5.0, -3.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3.5, 5], dtype=torch.float64)
    z = 1 - 0.9 * 0.25 / (0.25 + (offsets - shifts[:, None]).square())
    random = torch.Generator().manual_seed(1)
    return ZSpectra(z + noise * torch.randn(z.shape, generator=random).double(), protocol(offsets))


@pytest.mark.parametrize("unit", [1.0, MHZ])
def test_the_sign_of_shifts_below_the_distance_of_the_offsets_is_told(unit: float) -> None:
    shifts = torch.linspace(-0.3, 0.3, 300).double() if unit == 1 else torch.linspace(-0.45, 0.45, 300).double()
    larmor = Larmor(MHZ, True)
    told = [f for f in magnitudes.b0_in_ppm(-unit * shifts, coarse(shifts), larmor, "'b0'")[1] if "opposite" in f]
    assert len(told) == 1
    right = magnitudes.b0_in_ppm(unit * shifts, coarse(shifts), larmor, "'b0'")[1]
    assert not [sentence for sentence in right if "opposite" in sentence]


@pytest.mark.parametrize("seed", range(20))
def test_no_map_is_accused_where_the_spectra_do_not_show_its_shifts(seed: int) -> None:
    """Spectra that are corrected already, noise, and a map that is the same almost everywhere."""
    random = torch.Generator().manual_seed(seed)
    shifts = 0.2 * torch.randn(60, generator=random).double()
    noise = ZSpectra(torch.rand(60, 41, generator=random).double(), protocol(SPECTRUM))
    constant = 0.3 + 0.01 * torch.randn(60, generator=random).double()
    for values, of in ((shifts, coarse(0 * shifts)), (shifts, noise), (constant, coarse(0 * constant + 0.3))):
        assert magnitudes.b0_in_ppm(values, of, Larmor(MHZ, True), "'b0'")[1] == []


@pytest.mark.parametrize("factor", [1, 100])
def test_relative_b1_in_percent_is_converted(factor: float) -> None:
    map_ = torch.tensor([0.8, 0.9, 1.1, 0.0])
    values, warnings = magnitudes.b1_relative(factor * map_, "'b1'")
    torch.testing.assert_close(values, map_)
    assert len(warnings) == (factor == 100)


@pytest.mark.parametrize("median", [0.01, 5.0, 20.0, 45.0, 900.0])
def test_flip_angles_and_microtesla_are_no_relative_b1(median: float) -> None:
    with pytest.raises(ValueError, match="divide flip angles by the nominal one"):
        magnitudes.b1_relative(torch.full((4,), median), "'b1'")


@pytest.mark.parametrize("factor", [1, 1000])
def test_t1_in_ms_is_converted(factor: float) -> None:
    map_ = torch.tensor([1.1, 1.4, 3.0, 0.0])
    values, warnings = magnitudes.t1_in_s(factor * map_, "'t1'")
    torch.testing.assert_close(values, map_)
    assert len(warnings) == (factor == 1000)


@pytest.mark.parametrize("median", [1e-3, 30.0, 1e6])
def test_other_units_of_t1_are_refused(median: float) -> None:
    with pytest.raises(ValueError, match="neither s nor ms"):
        magnitudes.t1_in_s(torch.full((4,), median), "'t1'")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"water": {"T1_s": 1300.0, "T2_s": 0.08}}, r"water.T1_s is 1300, .* give it in s, not in ms"),
        ({"water": {"T1_s": 1.3, "T2_s": fit(80, 10, 200)}}, r"water.T2_s is 80, .* not in ms"),
        ({"semisolid": {"fraction": 0.1, "k_Hz": 40, "T1_s": 1, "T2_s": 9.0, "dw_ppm": 0}}, "semisolid.T2_s .* us"),
    ],
)
def test_models_in_milliseconds_are_refused(changes: dict, words: str) -> None:
    magnitudes.require_seconds(tissue_model_from_dict(amine_model()))
    with pytest.raises(ValueError, match=words):
        magnitudes.require_seconds(tissue_model_from_dict(amine_model() | changes))


# signals

BRIGHT = torch.ones(len(SHIFTS), dtype=torch.float64)


@pytest.mark.parametrize("normalisation", ["m0", "none"])
def test_z_in_percent_is_converted(normalisation: str) -> None:
    kept, warnings = magnitudes.plausible_z(spectra(normalisation), BRIGHT, False, "'z'")
    assert warnings == []
    converted, (warning,) = magnitudes.plausible_z(spectra(normalisation, 100), BRIGHT, False, "'z'")
    torch.testing.assert_close(converted.signal, kept.signal)
    assert "is taken to be in % of M0" in warning


@pytest.mark.parametrize("factor", [4096.0, 10.0, 1 / 4096])
def test_a_reference_of_another_scale_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="of its M0 image, which has another scale"):
        magnitudes.plausible_z(spectra("m0", factor), BRIGHT, False, "'z'")


def test_a_signal_that_is_not_normalised_is_refused() -> None:
    with pytest.raises(ValueError, match="set signal_normalisation to 'm0' and give an M0 image"):
        magnitudes.plausible_z(spectra("none", 812), BRIGHT, False, "'z'")


def test_a_doubtful_reference_is_told() -> None:
    assert "check that this is the reference" in magnitudes.plausible_z(spectra("m0", 1.5), BRIGHT, False, "z")[1][0]
    assert "check that this is the reference" in magnitudes.plausible_z(spectra("m0", 5.0), BRIGHT, True, "z")[1][0]


def test_the_noise_of_the_background_does_not_count() -> None:
    noisy = spectra()
    background = ZSpectra(torch.rand(300, 41, generator=torch.Generator().manual_seed(1)) * 9, noisy.protocol)
    both = ZSpectra(torch.cat((noisy.signal, background.signal)), noisy.protocol)
    brightness = torch.cat((800 * BRIGHT, 9 * torch.ones(300)))
    assert magnitudes.plausible_z(both, brightness, False, "z")[1] == []
