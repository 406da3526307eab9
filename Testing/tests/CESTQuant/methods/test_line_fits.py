"""Lorentzian difference and PLOF, against SciPy and on spectra of the Bloch-McConnell equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify, quantity_named
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.pulse_shapes import PulseShape, PulseTrain
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT
from CESTQuantLib.tissue.line_fits.plof import decay
from CESTQuantLib.tissue.line_fits.plof_model import PlofModel
from CESTQuantLib.tissue.lorentzian_two_step import TwoStepModel
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.linspace(-8, 8, 81, dtype=torch.float64)
CW = Protocol(3.0, OFFSETS, 0.8, 3.0)
SEMISOLID = Semisolid(0.08, 40.0, 1.0, 1e-5, -2.0)
PEAK = {"name": "amide", "position_ppm": [3.2, 3.5, 3.8], "width_ppm": [0.3, 0.8, 3.0]}
PEAKS = {"peaks": [{**PEAK, "window_ppm": [1.9, 7.0], "peak_ppm": [2.7, 4.3]}], "polynomial_degree": 2}


def brain(amide: float = 0.0012, k_Hz: float = 40.0) -> Tissue:
    return Tissue(Water(1.3, 0.08), (Pool("amide", amide, k_Hz, 1.0, 0.05, 3.5),), SEMISOLID)


def spectra(noise: float = 0.0, voxels: int = 1, t1_s: float = 1.3, **fields: torch.Tensor) -> ZSpectra:
    z = simulate(brain(), CW, **fields)
    z = z.expand(max(voxels, len(z)), -1)
    z = z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).double()
    return ZSpectra(z, CW, t1_s=torch.full((len(z),), t1_s, dtype=torch.float64))


def test_lorentzian_difference_at_the_line_is_its_amplitude() -> None:
    model = TwoStepModel.preset()
    background = 0.98 - 0.8 / (1 + (2 * OFFSETS / 2.4) ** 2) - 0.1 / (1 + (2 * (OFFSETS + 1) / 45) ** 2)
    line = 0.03 / (1 + (2 * (OFFSETS - 3.5) / 1.0) ** 2)
    z = torch.stack((background - line, background))
    found = quantify(ZSpectra(z, CW), "ld", Settings(lorentzian=model, asymmetry_offsets_ppm=(3.5, -3.5)))
    # the wings of the line reach the offsets of the background, which takes a twelfth of it
    assert found.quantities["ld_3.5ppm"].numpy() == pytest.approx([0.03, 0.0], abs=2.5e-3)
    assert found.quantities["ld_-3.5ppm"].numpy() == pytest.approx([0.0, 0.0], abs=1e-3)
    assert found.predict is not None
    torch.testing.assert_close(found.predict(torch.tensor([1]))[0], background.float(), atol=1e-4, rtol=0)


def test_lorentzian_difference_beside_a_water_line_that_was_not_acquired_keeps_to_its_side() -> None:
    offsets = torch.cat((torch.linspace(-10, -0.8, 24), torch.linspace(0.8, 10, 24))).double()
    distance = offsets - torch.tensor([0.0, 0.15], dtype=torch.float64)[:, None]
    z = 0.98 - 0.8 / (1 + (2 * distance / 2.4) ** 2) - 0.1 / (1 + (2 * (distance + 1) / 45) ** 2)
    study = ZSpectra(z, Protocol(3.0, offsets, 0.8, 3.0), b0_shift_ppm=torch.tensor([0.0, 0.15]).double())
    found = quantify(study, "ld", Settings(lorentzian=TwoStepModel.preset(), asymmetry_offsets_ppm=(-0.9, 1.3)))
    assert found.quantities["ld_1.3ppm"].abs().max() < 0.01
    assert found.quantities["ld_-0.9ppm"].isnan().tolist() == [False, True]
    assert any(each.startswith("LD at -0.9 ppm is not given in 1 of 2 voxels") for each in found.warnings)


@pytest.mark.parametrize("method", ["ld", "lorentzian"])
def test_a_background_of_too_few_offsets_is_told(method: str) -> None:
    """It was called a missing measurement at 3 ppm, which there was."""
    sparse = Protocol(3.0, torch.linspace(-6, 6, 21, dtype=torch.float64), 0.8, 3.0)
    with pytest.raises(
        ValueError, match=r"6 different offsets lie outside .*-8 to -1.5 and 1.5 to 5.5 ppm.* for its 7 values"
    ):
        quantify(
            ZSpectra(simulate(brain(), sparse), sparse),
            method,
            Settings(lorentzian=TwoStepModel.preset(), asymmetry_offsets_ppm=(3.0,)),
        )


def test_repeats_do_not_add_offsets_to_a_background() -> None:
    few = Protocol(3.0, torch.tensor([-10.0, -1.0, 0.0, 1.0, 3.0, 3.5, 4.0]).double().repeat(3), 0.8, 3.0)
    with pytest.raises(ValueError, match="4 different offsets lie outside"):
        quantify(ZSpectra(simulate(brain(), few), few), "ld")


def test_a_description_of_one_step_is_refused_with_the_remedy() -> None:
    from CESTQuantLib.tissue.lorentzian_model import LorentzianModel

    with pytest.raises(ValueError, match=r"choose 3T_two_step or a file like it"):
        quantify(spectra(), "ld", Settings(lorentzian=LorentzianModel.preset("lorentzian_3T")))
    with pytest.raises(ValueError, match=r"choose plof_3T or a file like it"):
        quantify(spectra(), "plof", Settings(lorentzian=TwoStepModel.preset()))
    with pytest.raises(ValueError, match=r"choose 3T, 7T, preclinical, 3T_two_step or a file like them"):
        quantify(spectra(), "lorentzian", Settings(lorentzian=PlofModel.preset()))


def test_plof_is_the_two_step_fit_of_scipy() -> None:
    noisy = spectra(noise=0.001)
    found = quantify(
        ZSpectra(noisy.signal, CW, b0_shift_ppm=torch.zeros(1).double(), t1_s=noisy.t1_s),
        "plof",
        Settings(lorentzian=PlofModel.from_dict(PEAKS)),
    ).quantities
    x, z = OFFSETS.numpy(), noisy.signal[0].numpy()
    w1 = GAMMA_RAD_PER_S_PER_UT * 0.8
    offset = x * CW.rad_per_s_per_ppm
    cos2 = offset**2 / (offset**2 + w1**2)
    inside, peak = (x >= 1.9) & (x <= 7.0), (x >= 2.7) & (x <= 4.3)

    def decay(rate, where):
        return cos2[where] * ((1 - 1 / 1.3 / rate) * np.exp(-3.0 * rate) + 1 / 1.3 / rate)

    def background(x, a, b, c, water):
        u = (x - 4.45) / 2.55
        spill_over = w1**2 / (w1**2 + (x * CW.rad_per_s_per_ppm) ** 2)
        return a + b * u + c * u**2 + water * spill_over

    def with_peak(x, height, width, position):
        line = height / (1 + (2 * (x - position) / width) ** 2)
        return decay(background(x, *base) + line, inside)

    beside = inside & ~peak
    base, _ = curve_fit(lambda x, *p: decay(background(x, *p), beside), x[beside], z[beside], p0=[0.9, 0.0, 0.0, 10.0])
    expected, _ = curve_fit(with_peak, x[inside], z[inside], p0=[0.05, 0.8, 3.5])
    names = ("plof_amide", "amide_width_ppm", "amide_position_ppm")
    assert [float(found[name]) for name in names] == pytest.approx(expected, rel=1e-3)


def test_the_height_is_the_exchange_dependent_relaxation_of_the_pool() -> None:
    known = spectra(b0_shift_ppm=torch.tensor([0.0, 0.2, -0.15]).double())
    found = quantify(known, "plof", Settings(lorentzian=PlofModel.from_dict(PEAKS)))
    w1 = GAMMA_RAD_PER_S_PER_UT * 0.8
    rex = 0.0012 * 40 * w1**2 / (w1**2 + 40 * (40 + 1 / 0.05))
    # the wings of the line beyond its range count as background
    assert found.quantities["plof_amide"].numpy() == pytest.approx(0.84 * rex, rel=0.03)
    assert found.quantities["amide_position_ppm"].numpy() == pytest.approx(3.5, abs=0.03)
    without = simulate(brain(amide=1e-9), CW)
    difference = float(without[0, 57] - known.signal[0, 57])  # 3.4 ppm
    assert float(found.quantities["plof_dz_amide"][0]) == pytest.approx(difference, rel=0.2)
    assert set(found.status.tolist()) == {Status.CONVERGED}
    assert (quantity_named("plof_amide").unit, quantity_named("plof_dz_amide").unit) == ("Hz", "")


def test_plof_takes_every_measurement_with_its_saturation_time() -> None:
    times = torch.tensor([0.5, 3.0], dtype=torch.float64).repeat_interleave(len(OFFSETS))
    both = Protocol(3.0, OFFSETS.repeat(2), 0.8, times)
    study = ZSpectra(simulate(brain(), both), both, t1_s=torch.full((1,), 1.3, dtype=torch.float64))
    found, expected = (
        quantify(each, "plof", Settings(lorentzian=PlofModel.from_dict(PEAKS))).quantities["plof_amide"]
        for each in (study, spectra())
    )
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


def test_standard_errors_of_plof_contain_the_uncertainty_of_the_background() -> None:
    noise, count = 0.006, 400
    found = quantify(spectra(noise, count), "plof", Settings(lorentzian=PlofModel.from_dict(PEAKS))).quantities
    spread = float(found["plof_amide"].std())
    assert float(found["plof_amide_sd"].nanmedian()) == pytest.approx(spread, rel=0.2)


def test_the_background_absorbs_an_error_of_m0() -> None:
    noise, count = 0.003, 400
    clean = spectra(noise, count)
    m0 = 1 + noise * torch.randn(count, 1, generator=torch.Generator().manual_seed(5)).double()
    noisy = replace(clean, signal=clean.signal / m0, reference_noise=1.0)
    with_error, without = (
        quantify(study, "plof", Settings(lorentzian=PlofModel.from_dict(PEAKS))).quantities["plof_amide"]
        for study in (noisy, clean)
    )
    assert float((with_error - without).std()) < 0.1 * float(without.std())


def test_slowly_relaxing_water_without_the_pool_has_no_peak() -> None:
    """The fit of the background starts at the T1 of the other voxels, far from that of fluid."""
    fluid = simulate(Tissue(Water(4.0, 2.0)), CW).expand(20, -1)
    noise = 0.004 * torch.randn(20, 81, generator=torch.Generator().manual_seed(2)).double()
    z = torch.cat((fluid + noise, simulate(brain(), CW).expand(40, -1)))
    t1 = torch.cat((torch.full((20,), 4.0), torch.full((40,), 1.3))).double()
    study = ZSpectra(z, CW, b0_shift_ppm=torch.zeros(60).double(), t1_s=t1)
    found = quantify(study, "plof", Settings(lorentzian=PlofModel.from_dict(PEAKS))).quantities["plof_amide"]
    assert float(found[:20].median()) == pytest.approx(0.0, abs=5e-3)
    assert bool((found[20:] > 0.03).all())


def test_the_decay_is_smooth_where_a_background_passes_through_zero() -> None:
    """Without a slope there, a fit would stay where it has started: at 0.05 1/s in fluid."""
    rate = torch.tensor([-0.3, -1e-5, 0.0, 1e-6, 0.4, 20.0], dtype=torch.float64)
    block = [torch.tensor(value, dtype=torch.float64) for value in (0.95, 0.25, 3.0, 1.0)]
    step = 1e-6
    slope = (decay(rate + step, *block)[0] - decay(rate - step, *block)[0]) / (2 * step)
    torch.testing.assert_close(decay(rate, *block)[1], slope, atol=1e-6, rtol=1e-6)
    assert bool((slope < 0).all())


def test_plof_without_enough_offsets_and_for_pulse_trains_is_refused() -> None:
    few = spectra(b0_shift_ppm=torch.zeros(1).double()).select(torch.arange(0, 81, 4))
    with pytest.raises(ValueError, match="needs at least 5 different offsets beside the peak and 3 on it"):
        quantify(few, "plof")
    with pytest.raises(ValueError, match=r"needs at least 5 .* there are 4 and 2"):
        quantify(few.select(torch.arange(21).repeat(3)), "plof")
    train = Protocol(3.0, OFFSETS, 0.8, 0.95, pulses=PulseTrain(10, 0.05, 0.05, PulseShape.named("block")))
    with pytest.raises(ValueError, match="holds for continuous-wave saturation, but the protocol has pulse trains"):
        quantify(ZSpectra(spectra().signal, train, t1_s=torch.ones(1)), "plof")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peaks": []}, "peaks must be at least one"),
        ({"polynomial_degree": 1.5}, "polynomial_degree must be a whole number"),
        ({"peaks": [{**PEAK, "window_ppm": [3, 4], "peak_ppm": [2.7, 4.3]}]}, "peak_ppm must lie within window_ppm"),
        ({"peaks": [{**PEAK, "window_ppm": [-1, 5], "peak_ppm": [2.7, 4.3]}]}, "must lie on one side of water"),
        ({"peeks": []}, "peeks"),
    ],
)
def test_impossible_descriptions_of_peaks_are_refused_by_name(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=rf"my\.json.*{words}"):
        PlofModel.from_dict({**PEAKS, **change}, "my.json")


def test_the_preset_describes_the_amide_peak() -> None:
    (peak,) = PlofModel.preset().peaks
    assert (peak.name, peak.position_ppm.start) == ("amide", 3.5)


def test_voxels_without_t1_do_not_change_the_peaks_of_the_others() -> None:
    alone = spectra(noise=1e-3, voxels=4)
    among = spectra(noise=1e-3, voxels=10)
    t1_s = torch.tensor([1.3] * 4 + [0.0] * 6, dtype=torch.float64)
    among = replace(among, signal=torch.cat((alone.signal, among.signal[4:])), t1_s=t1_s)
    settings = Settings(lorentzian=PlofModel.from_dict(PEAKS))
    expected, found = (quantify(study, "plof", settings) for study in (alone, among))
    assert found.status.tolist() == expected.status.tolist() + [Status.INVALID_DATA] * 6
    torch.testing.assert_close(
        found.quantities["plof_amide"][:4], expected.quantities["plof_amide"], atol=0.0, rtol=1e-12
    )
