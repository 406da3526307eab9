"""The multi-power Lorentzian fit, on its own lines and on spectra of the Bloch-McConnell equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.line_fits.multi_power import MultiPowerModel
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.core.messages.input_errors import InputError

POWERS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
OFFSETS = torch.linspace(-6, 6, 61, dtype=torch.float64)
WATER = {"name": "water", "amplitude": [0.4, 0.9, 1], "width_ppm": [0.05, 0.5, 4], "position_ppm": [-1, 0, 1]}
AMIDE = {"name": "amide", "amplitude": [0, 0.05, 0.6], "width_ppm": [0.1, 0.5, 4], "position_ppm": [3.2, 3.5, 3.8]}
MODEL = LorentzianModel.from_dict({"baseline": [0.5, 1.0, 1.0], "pools": [WATER, AMIDE]})


def protocol(powers: torch.Tensor = POWERS) -> Protocol:
    """All powers at all offsets, the powers in turn: the measurements of one do not stand together."""
    return Protocol(7.0, OFFSETS.repeat_interleave(len(powers)), powers.repeat(len(OFFSETS)), 8.0)


def two_pools(fraction: float = 0.001, k_Hz: float = 200.0, T2_s: float = 0.1, **fields: torch.Tensor) -> ZSpectra:
    tissue = Tissue(Water(2.0, 1.0), (Pool("amide", fraction, k_Hz, 1.0, T2_s, 3.5),))
    z = simulate(tissue, protocol(), **fields)
    return ZSpectra(z, protocol(), t1_s=torch.full((len(z),), 2.0).double(), **fields)


def known_lines() -> tuple[ZSpectra, torch.Tensor]:
    """Spectra of three voxels that consist of lines; the parameters follow the order of the model."""
    parameters = torch.tensor([0.98, 0.8, 0.02, 0.3, 0.6, 0.85, 0.06, 0.6, 0.7, 0.9, 0.1, 1.2, 1.0, 0.1, 3.55])
    parameters = parameters.double().repeat(3, 1)
    parameters[1, -1], parameters[2, 11] = 3.4, 1.5
    members = tuple(torch.arange(i, 183, 3) for i in range(3))
    z, _ = MultiPowerModel(MODEL, members).predict(parameters.T, protocol().offsets_ppm.unsqueeze(1))
    return ZSpectra(z.T, protocol()), parameters


def test_lines_of_all_powers_are_recovered_and_predicted() -> None:
    study, parameters = known_lines()
    found = quantify(study, "mplf", Settings(lorentzian=MODEL))
    assert found.status.tolist() == [Status.CONVERGED] * 3
    maps = found.quantities
    for name, column in {"amide_position_ppm": 14, "amide_amplitude_1uT": 6, "water_width_ppm_2uT": 11}.items():
        torch.testing.assert_close(maps[name].double(), parameters[:, column], atol=2e-4, rtol=1e-3)
        assert bool(maps[f"{name}_sd"].isfinite().all())
    assert found.predict is not None
    torch.testing.assert_close(found.predict(torch.tensor([2]))[0].double(), study.signal[2], atol=1e-4, rtol=0)
    assert found.warnings == ("fraction and exchange rate are not given: they need a T1 map (--t1)",)


def test_standard_errors_contain_the_noise_of_m0() -> None:
    """A free baseline lets all amplitudes follow M0; with B0 shifts, whose offsets differ between voxels, too."""
    study, _ = known_lines()
    noise, count = 0.01, 400
    random = torch.Generator().manual_seed(3)
    wide = {"baseline": [0.5, 1.0, 1.5], "pools": [{**WATER, "amplitude": [0.4, 0.9, 1.4]}, AMIDE]}
    z = study.signal[:1] + noise * torch.randn(count, study.signal.shape[1], generator=random).double()
    z = z / (1 + noise * torch.randn(count, 1, generator=random).double())
    for shift in (None, torch.zeros(count).double()):
        noisy = ZSpectra(z, study.protocol, b0_shift_ppm=shift, reference_noise=1.0)
        found = quantify(noisy, "mplf", Settings(lorentzian=LorentzianModel.from_dict(wide))).quantities
        name = "water_amplitude_2uT"
        assert float(found[name].std()) == pytest.approx(float(found[f"{name}_sd"].median()), rel=0.15)


def test_the_jacobian_is_the_derivative() -> None:
    study, parameters = known_lines()
    model = MultiPowerModel(MODEL, tuple(torch.arange(i, 183, 3) for i in range(3)))
    column = study.protocol.offsets_ppm.unsqueeze(1)
    at, step = parameters[0], 1e-6
    _, jacobian = model.predict(at.unsqueeze(1), column)
    aside = step * torch.eye(len(at), dtype=at.dtype)
    ahead, behind = (model.predict((at + sign * aside).T, column)[0] for sign in (1, -1))
    torch.testing.assert_close(jacobian[:, :, 0].T, (ahead - behind) / (2 * step), atol=1e-7, rtol=0)


@pytest.mark.parametrize("k_Hz", [200.0, 400.0, 600.0])
def test_two_pools_of_bloch_mcconnell_give_fraction_and_rate(k_Hz: float) -> None:
    fields = {"b0_shift_ppm": torch.tensor([0.0, 0.15]).double(), "b1_relative": torch.tensor([1.0, 0.85]).double()}
    maps = quantify(two_pools(k_Hz=k_Hz, **fields), "mplf", Settings(lorentzian=MODEL)).quantities
    # without R2b (10 1/s) in the fit, the rate stands for the root of k (k + R2b)
    effective = (k_Hz * (k_Hz + 10)) ** 0.5
    assert maps["amide_exchange_rate_Hz"].numpy() == pytest.approx(effective, rel=0.15)
    assert maps["amide_fraction"].numpy() == pytest.approx(0.001, rel=0.15)
    assert maps["amide_position_ppm"].numpy() == pytest.approx(3.5, abs=0.14)


def test_the_exchange_is_that_of_the_nucleus_of_the_protocol() -> None:
    """A nucleus of lower frequency in fields as much stronger gives the same signals, hence the same exchange."""
    proton = two_pools()
    fluorine = 251.8
    ratio = proton.protocol.gamma_rad_per_s_per_uT / fluorine
    scaled = replace(
        proton.protocol,
        field_strength_T=proton.protocol.field_strength_T * ratio,
        b1_uT=proton.protocol.b1_uT * ratio,
        gamma_rad_per_s_per_uT=fluorine,
    )
    expected, found = (
        quantify(replace(proton, protocol=protocol), "mplf", Settings(lorentzian=MODEL)).quantities
        for protocol in (proton.protocol, scaled)
    )
    for name in ("amide_fraction", "amide_exchange_rate_Hz"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=0)


def test_slow_exchange_that_the_offsets_do_not_resolve_is_not_given() -> None:
    """At 0.5 uT the line is 0.17 ppm wide, less than the 0.2 ppm between offsets, and fitted too shallow."""
    found = quantify(two_pools(k_Hz=50.0), "mplf", Settings(lorentzian=MODEL))
    assert found.warnings[0].startswith("fraction and exchange rate of amide are not given in 100 % of the voxels")
    assert "acquire denser offsets" in found.warnings[0]
    for name in ("amide_exchange_rate_Hz", "amide_exchange_rate_Hz_sd", "amide_fraction"):
        assert bool(found.quantities[name].isnan().all())
    assert float(found.quantities["amide_amplitude_2uT"]) == pytest.approx(0.086, rel=0.02)


def test_maps_at_bounds_of_the_description_are_named() -> None:
    """The water is wider at 2 uT than the description allows."""
    study, _ = known_lines()
    narrow = {"baseline": [0.5, 1.0, 1.0], "pools": [{**WATER, "width_ppm": [0.05, 0.5, 1.1]}, AMIDE]}
    found = quantify(study, "mplf", Settings(lorentzian=LorentzianModel.from_dict(narrow)))
    assert "and are no estimates: water_width_ppm_2uT in 100 % of the voxels; the bounds hold" in found.warnings[0]


def test_an_absent_line_is_at_no_bound_of_the_description() -> None:
    study, _ = known_lines()
    water = 1 - 0.8 / (1 + (protocol().offsets_ppm / 0.5) ** 2)
    found = quantify(replace(study, signal=water.expand(3, -1)), "mplf", Settings(lorentzian=MODEL))
    assert set(found.status.tolist()) <= {Status.CONVERGED, Status.AT_NATURAL_LIMIT}
    assert not any("at a bound" in warning for warning in found.warnings)


def test_exchange_at_a_limit_of_its_search_is_not_given() -> None:
    """A line that grows faster than the square of B1 looks like exchange without end."""
    study, parameters = known_lines()
    parameters[1, [2, 6, 10]] = torch.tensor([0.003, 0.015, 0.1]).double()  # amplitudes of the amide
    parameters[1, [1, 5, 9]] = 0.8  # of the water
    members = tuple(torch.arange(i, 183, 3) for i in range(3))
    z, _ = MultiPowerModel(MODEL, members).predict(parameters.T, protocol().offsets_ppm.unsqueeze(1))
    found = quantify(
        replace(study, signal=z.T, t1_s=torch.full((3,), 2.0).double()), "mplf", Settings(lorentzian=MODEL)
    )
    assert found.warnings[0].startswith("fraction and exchange rate of amide are not given in 33.3 % of the voxels")
    assert "a limit of their search (fraction 1e-06 to 0.1, rate 1 to 20000 Hz)" in found.warnings[0]
    for name in ("amide_exchange_rate_Hz", "amide_exchange_rate_Hz_sd", "amide_fraction"):
        assert found.quantities[name].isnan().tolist() == [False, True, False]
    assert float(found.quantities["amide_amplitude_2uT"][1]) == pytest.approx(0.1, rel=0.02)


def test_dense_offsets_give_slow_exchange() -> None:
    dense = Protocol(7.0, torch.linspace(-6, 6, 241).double().repeat(3), POWERS.repeat_interleave(241), 8.0)
    z = simulate(Tissue(Water(2.0, 1.0), (Pool("amide", 0.001, 50.0, 1.0, 0.1, 3.5),)), dense)
    found = quantify(ZSpectra(z, dense, t1_s=torch.tensor([2.0]).double()), "mplf", Settings(lorentzian=MODEL))
    assert not found.warnings
    assert float(found.quantities["amide_exchange_rate_Hz"]) == pytest.approx((50 * 60) ** 0.5, rel=0.05)
    assert float(found.quantities["amide_fraction"]) == pytest.approx(0.001, rel=0.15)


def test_standard_errors_are_the_spread_of_noisy_fits() -> None:
    """The data are lines, because the misfit of real spectra widens the standard errors."""
    clean = two_pools()
    predict = quantify(clean, "mplf", Settings(lorentzian=MODEL)).predict
    assert predict is not None
    noise = 0.004 * torch.randn(150, clean.signal.shape[1], generator=torch.Generator().manual_seed(3)).double()
    z = predict(torch.tensor([0])).double() + noise
    study = ZSpectra(z, clean.protocol, t1_s=torch.full((150,), 2.0).double())
    maps = quantify(study, "mplf", Settings(lorentzian=MODEL)).quantities
    for name in ("amide_exchange_rate_Hz", "amide_fraction", "amide_amplitude_1uT", "amide_width_ppm_2uT"):
        assert float(maps[f"{name}_sd"].nanmedian()) == pytest.approx(float(maps[name].std()), rel=0.3)


def test_one_power_and_too_few_offsets_are_refused_with_the_remedy() -> None:
    study, _ = known_lines()
    one = study.select(study.protocol.b1_uT == 1)
    with pytest.raises(ValueError, match=r"two or more powers, but b1_uT of the protocol has 1: use the method lor"):
        quantify(one, "mplf", Settings(lorentzian=MODEL))
    few = study.select(torch.cat((torch.arange(0, 183, 3), torch.tensor([1, 31, 61, 91]))))
    with pytest.raises(ValueError, match=r"4 different offsets at 1 uT are too few for 2 lines"):
        quantify(few, "mplf", Settings(lorentzian=MODEL))
    repeated = study.select(torch.cat((torch.arange(0, 183, 3), torch.tensor([1, 31, 61, 91]).repeat(3))))
    with pytest.raises(ValueError, match=r"4 different offsets at 1 uT are too few for 2 lines"):
        quantify(repeated, "mplf", Settings(lorentzian=MODEL))


@pytest.mark.parametrize("name", ["saturation_time_s", "post_delay_s"])
def test_several_times_at_one_power_are_refused_instead_of_fitted_as_one_spectrum(name: str) -> None:
    """The fit gave amplitudes between those of both times."""
    study, _ = known_lines()
    times = torch.tensor([0.5, 4.0]).double().repeat_interleave(183)
    twice = study.select(torch.arange(183).repeat(2))
    mixed = replace(twice, protocol=replace(twice.protocol, **{name: times}))
    with pytest.raises(InputError, match=rf"not one spectrum, because {name} .* varies from 0.5 to 4 s: .*--quass"):
        quantify(mixed, "mplf", Settings(lorentzian=MODEL))


def test_every_power_may_have_its_own_saturation_time() -> None:
    study, _ = known_lines()
    times = torch.tensor([8.0, 4.0, 2.0]).double().repeat(len(OFFSETS))
    found, expected = (
        quantify(replace(study, protocol=each), "mplf", Settings(lorentzian=MODEL)).quantities
        for each in (replace(study.protocol, saturation_time_s=times), study.protocol)
    )
    torch.testing.assert_close(found["amide_amplitude_1uT"], expected["amide_amplitude_1uT"])


def test_measurements_whose_saturation_lasts_no_time_take_no_part() -> None:
    """Such an M0 at each power cost fraction and exchange rate, as if the powers had several saturation times."""
    study = two_pools()
    saturated = study.protocol
    with_m0 = Protocol(
        7.0,
        torch.cat((torch.full((3,), -300.0), saturated.offsets_ppm)),
        torch.cat((POWERS, saturated.b1_uT)),
        torch.cat((torch.zeros(3), saturated.saturation_time_s)).double(),
    )
    signal = torch.cat((torch.ones(1, 3), study.signal), 1)
    found, expected = (
        quantify(each, "mplf", Settings(lorentzian=MODEL))
        for each in (replace(study, signal=signal, protocol=with_m0), study)
    )
    assert not found.warnings
    torch.testing.assert_close(found.quantities["amide_fraction"], expected.quantities["amide_fraction"])
