"""Contrasts at chosen offsets, on spectra whose lines are known."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify, quantity_named
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.tissue.spectra import ZSpectra

SHIFT = torch.tensor([0.0, 0.25, -0.3], dtype=torch.float64)
SIX_OFFSETS = [-4.0, -3.5, -3.0, 3.0, 3.5, 4.0]
"""The offsets of clinical APTw protocols."""


def spectra(offsets, *, b0=None, noise=0.0, b1_uT=2.0, shift=SHIFT) -> ZSpectra:
    """Water at the shift, an amide line of 4 % and a wide line of 2 % on the other side."""
    offsets = torch.as_tensor(offsets, dtype=torch.float64)
    distance = offsets - shift[:, None]
    z = 1 - 0.85 / (1 + (distance / 1.1) ** 2) - 0.04 / (1 + ((distance - 3.5) / 1.0) ** 2)
    z = z - 0.02 / (1 + ((distance + 3.5) / 2.0) ** 2)
    z = z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).double()
    return ZSpectra(z, Protocol(3.0, offsets, b1_uT, 2.0), b0_shift_ppm=b0)


def amide_asymmetry() -> float:
    """Asymmetry at 3.5 ppm of the lines above."""
    return float(torch.tensor(0.04 - 0.04 / 50 - 0.02 + 0.02 / (1 + 3.5**2)))


def test_aptw_is_in_percent_and_shown_in_the_consensus_window() -> None:
    found = quantify(spectra(SIX_OFFSETS, b0=SHIFT), "aptw")
    # three offsets 0.5 ppm apart do not follow a line 2 ppm wide any better
    assert found.quantities["aptw"].numpy() == pytest.approx(100 * amide_asymmetry(), abs=0.15)
    assert found.warnings == ()
    shown = quantity_named("aptw")
    assert (shown.unit, shown.window, shown.color_map) == ("%", (-5.0, 5.0), "rainbow")


def test_aptw_estimates_b0_from_the_water_line() -> None:
    found = quantify(spectra(torch.linspace(-6, 6, 49)), "aptw")
    assert found.quantities["b0_shift_ppm"].numpy() == pytest.approx(SHIFT.numpy(), abs=0.03)
    assert found.quantities["aptw"].numpy() == pytest.approx(100 * amide_asymmetry(), abs=0.2)


def test_without_b0_map_and_water_line_aptw_says_that_it_is_not_corrected() -> None:
    found = quantify(spectra(SIX_OFFSETS), "aptw")
    (warning,) = found.warnings
    assert "not corrected for B0" in warning
    assert float(found.quantities["aptw"][0]) == pytest.approx(100 * amide_asymmetry(), abs=0.1)


def test_a_shift_beyond_the_acquired_offsets_fails_in_that_voxel_alone() -> None:
    found = quantify(spectra(SIX_OFFSETS, b0=torch.tensor([0.0, 0.25, 0.6])), "aptw")
    assert found.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.FAILED]
    assert found.quantities["aptw"].isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("method", ["mtrasym", "mtrasym-spline"])
def test_a_shift_into_the_water_line_that_was_not_acquired_gives_no_asymmetry(method: str) -> None:
    found = quantify(spectra(SIX_OFFSETS, b0=SHIFT), method, Settings(asymmetry_offsets_ppm=(3.0,)))
    assert found.quantities["mtr_asym_3ppm"].isnan().tolist() == [False, True, True]
    assert found.status.tolist() == [Status.CONVERGED, Status.FAILED, Status.FAILED]
    (warning,) = found.warnings
    assert warning.startswith("MTRasym at 3 ppm is not given in 2 of 3 voxels")
    assert warning.endswith("-3 or 3 ppm from water lies between -3 and 3 ppm, where there are no offsets")


def test_a_shift_that_leaves_no_pair_of_offsets_is_refused_with_its_reason() -> None:
    """Offsets farther from water were recommended, which the shift moves beyond the acquired ones."""
    reason = r"with the shift of B0 of 0\.60 to 0\.70 ppm, -3\.5 ppm from water lies between -3 and 3 ppm"
    remedy = (
        r"the shift is too large for these offsets, so check the unit and the sign of the B0 map \(--b0\), or leave"
    )
    with pytest.raises(ValueError, match=f"{reason}, where there are no offsets: {remedy}"):
        quantify(spectra(SIX_OFFSETS, b0=torch.tensor([0.6, 0.65, 0.7])), "mtrasym")


def test_a_shift_that_leaves_pairs_farther_from_water_recommends_them() -> None:
    offsets = torch.tensor([-5.0, *SIX_OFFSETS, 5.0])
    with pytest.raises(ValueError, match=r"-3\.5 ppm from water lies .*: choose one farther from water"):
        quantify(spectra(offsets, b0=torch.tensor([0.6, 0.65, 0.7])), "mtrasym")
    with pytest.raises(ValueError, match=r"because -2 and 2 ppm from water lie between .*: choose one farther"):
        quantify(spectra(offsets), "mtrasym", Settings(asymmetry_offsets_ppm=(2.0,)))


def test_mtr_within_a_water_line_that_was_not_acquired_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"between -3 and 3 ppm, where there are no offsets: .*--asymmetry-offset"):
        quantify(spectra(SIX_OFFSETS), "mtr", Settings(asymmetry_offsets_ppm=(0.5,)))


def test_a_single_pair_of_offsets_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"at least two different offsets beyond 1\.5 ppm on each side"):
        quantify(spectra([-3.5, 3.5]), "aptw")


def test_another_power_than_that_of_the_consensus_is_told() -> None:
    (warning,) = quantify(spectra(SIX_OFFSETS, b0=SHIFT, b1_uT=1.0), "aptw").warnings
    assert warning.startswith("APTw was acquired with 1 uT at 3 T")


def test_an_unsaturated_measurement_among_the_others_needs_no_choice_of_a_power() -> None:
    offsets = torch.cat((torch.tensor([-300.0]), torch.linspace(-6, 6, 49)))
    b1_uT = torch.tensor([0.0] + [2.0] * 49)
    found = quantify(spectra(offsets, b1_uT=b1_uT), "mtrasym")
    expected = quantify(spectra(offsets[1:]), "mtrasym")
    torch.testing.assert_close(found.quantities["mtr_asym_3.5ppm"], expected.quantities["mtr_asym_3.5ppm"])


def test_smoothing_lowers_the_error_of_noisy_asymmetries() -> None:
    shift = torch.zeros(400, dtype=torch.float64)
    noisy = spectra(torch.linspace(-6, 6, 61), noise=0.01, shift=shift, b0=shift)
    errors = {}
    for method in ("mtrasym", "mtrasym-spline"):
        error = quantify(noisy, method).quantities["mtr_asym_3.5ppm"] - amide_asymmetry()
        errors[method] = float(error.square().mean().sqrt())
    assert errors["mtrasym-spline"] < 0.85 * errors["mtrasym"]


def test_smoothed_asymmetry_leaves_out_the_reference_measurement_far_from_water() -> None:
    offsets = torch.cat((torch.tensor([300.0]), torch.linspace(-6, 6, 49)))
    found = quantify(spectra(offsets, b0=SHIFT), "mtrasym-spline")
    assert found.quantities["mtr_asym_3.5ppm"].numpy() == pytest.approx(amide_asymmetry(), abs=2e-3)


def test_mtr_is_the_loss_in_percent_at_signed_offsets() -> None:
    known = spectra(torch.linspace(-20, 20, 161), b0=SHIFT)
    found = quantify(known, "mtr", Settings(asymmetry_offsets_ppm=(-10.0, 15.0)))
    expected = 100 * (0.85 / (1 + (15 / 1.1) ** 2) + 0.04 / (1 + 11.5**2) + 0.02 / (1 + (18.5 / 2) ** 2))
    assert found.quantities["mtr_15ppm"].numpy() == pytest.approx(expected, abs=1e-3)
    assert quantity_named("mtr_-10ppm").unit == "%"
    assert quantity_named("mtr_asym_3.5ppm").unit == ""


def test_mtr_needs_no_spectrum_but_the_offset() -> None:
    single = spectra([15.0])
    assert not quantify(single, "mtr", Settings(asymmetry_offsets_ppm=(15.0,))).quantities["mtr_15ppm"].isnan().any()
    with pytest.raises(ValueError, match="MTR at 10 ppm needs a measurement there"):
        quantify(single, "mtr", Settings(asymmetry_offsets_ppm=(10.0,)))


@pytest.mark.parametrize("method", ["mtrasym", "aptw", "mtr"])
def test_standard_errors_contain_the_noise_of_m0(method: str) -> None:
    noise, count = 0.01, 3000
    random = torch.Generator().manual_seed(3)
    one = spectra(torch.linspace(-6, 6, 49), shift=torch.zeros(1).double())
    z = one.signal + noise * torch.randn(count, 49, generator=random).double()
    z = z / (1 + noise * torch.randn(count, 1, generator=random).double())
    study = ZSpectra(z, one.protocol, b0_shift_ppm=torch.zeros(count).double(), reference_noise=1.0)
    found = quantify(study, method, Settings(noise_sd=noise))
    (name,) = (name for name in found.quantities if name.endswith("_sd"))
    expected, scatter = float(found.quantities[name].median()), float(found.quantities[name[:-3]].std())
    assert scatter == pytest.approx(expected, rel=0.05)
    assert quantity_named(name).quality
    # MTR loses a fifth without it; of an asymmetry of some percent nothing is lost
    alone = quantify(ZSpectra(z, one.protocol, b0_shift_ppm=study.b0_shift_ppm), method, Settings(noise_sd=noise))
    assert float(alone.quantities[name].median()) / expected == pytest.approx(1.0, abs=0.01 if method != "mtr" else 0.4)


def test_contrasts_have_no_standard_errors_where_the_noise_is_unknown() -> None:
    assert not any(name.endswith("_sd") for name in quantify(spectra(torch.linspace(-6, 6, 49)), "mtrasym").quantities)
