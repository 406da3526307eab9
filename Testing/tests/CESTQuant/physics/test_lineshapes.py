"""Lineshapes of the semisolid pool: against independent formulas, in both engines, and how to add one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import expm_reference
import numpy as np
import pytest
import torch
from expm_reference import Sample, exact_super_lorentzian
from finite_differences import check_derivatives, leaf
from scipy.integrate import quad

from CESTQuantLib.formats.pools_yaml import read_pools
from CESTQuantLib.formats.scenario import read_scenario
from CESTQuantLib.physics.engines import ENGINES
from CESTQuantLib.physics.lineshapes import (
    LINESHAPES,
    Lineshape,
    gaussian,
    lineshape_named,
    lorentzian,
    plain_name,
    saturation_rate,
    super_lorentzian,
)
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import rad_per_s_per_ppm
from CESTQuantLib.tissue.model import tissue_model_from_dict

PPM_3T = rad_per_s_per_ppm(3.0)
BRIDGE = 0.05 * PPM_3T


def double(value: float | list[float] | np.ndarray) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def super_lorentz(
    offset_rad_per_s: float | list[float] | np.ndarray, T2_s: float, bridge: float = BRIDGE
) -> torch.Tensor:
    return super_lorentzian(double(offset_rad_per_s), double(T2_s), bridge)


# every lineshape


@pytest.mark.parametrize("name", LINESHAPES)
def test_lineshapes_are_normalised(name: str) -> None:
    # g integrates to 1 over all angular frequencies, so pi g to pi
    T2 = 1e-5
    far = {"lorentzian": 1e8}.get(name, 30) / T2

    def integrand(log_offset: float) -> float:
        offset = math.exp(log_offset)
        return float(saturation_rate(name, double(1.0), double(offset), double(T2), 1e-3)) * offset

    area = 2 * quad(integrand, math.log(1e-3), math.log(far), epsrel=1e-8, limit=200)[0]
    assert area == pytest.approx(math.pi, rel=1e-5)


@pytest.mark.parametrize("name", LINESHAPES)
def test_lineshapes_are_even(name: str) -> None:
    offsets = torch.linspace(-3, 3, 61, dtype=torch.float64) * PPM_3T
    right, left = (saturation_rate(name, double(1.0), sign * offsets, double(1e-5), BRIDGE) for sign in (1, -1))
    torch.testing.assert_close(right, left, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", LINESHAPES)
def test_saturation_rate_is_proportional_to_power(name: str) -> None:
    offsets, T2 = double([2.0, 5.0]) * PPM_3T, double(1e-5)
    one, two = (saturation_rate(name, double(w1), offsets, T2, BRIDGE) for w1 in (500.0, 1000.0))
    torch.testing.assert_close(two, 4 * one)


@pytest.mark.parametrize("name", LINESHAPES)
def test_derivatives_with_respect_to_offset_and_T2_are_exact(name: str) -> None:
    def rate(offset: torch.Tensor, T2: torch.Tensor) -> torch.Tensor:
        return saturation_rate(name, double(800.0), offset, T2, BRIDGE)

    check_derivatives(rate, [leaf(-9e4, 2e3, 3e4, 2e5), leaf(9e-6)])


# the single lineshapes


def test_the_gaussian_is_a_normal_distribution_of_the_offset_with_standard_deviation_1_over_T2() -> None:
    offsets = np.linspace(-300, 300, 61) * PPM_3T
    expected = [expm_reference.gaussian(offset, 9e-6) for offset in offsets]
    np.testing.assert_allclose(gaussian(double(offsets), double(9e-6)).numpy(), expected, rtol=1e-13)


def test_the_gaussian_agrees_with_the_published_formula_in_hertz() -> None:
    """Henkelman 1993: g(Delta) = T2 / sqrt(2 pi) exp(-(2 pi Delta T2)^2 / 2), Delta in Hz; RRF = w1^2 pi g(Delta)."""
    delta_Hz, T2, w1 = 5000.0, 13e-6, 267.5 * 3
    published = w1**2 * math.pi * T2 / math.sqrt(2 * math.pi) * math.exp(-((2 * math.pi * delta_Hz * T2) ** 2) / 2)
    found = saturation_rate("gaussian", double(w1), double(2 * math.pi * delta_Hz), double(T2), BRIDGE)
    assert float(found) == pytest.approx(published, rel=1e-14)


def test_the_gaussian_has_shorter_wings_than_the_lorentzian() -> None:
    offset, T2 = double(60 * PPM_3T), double(1e-4)
    assert float(gaussian(offset, T2)) < 1e-3 * float(lorentzian(offset, T2))


@pytest.mark.parametrize("T2_us", [5, 9, 12, 20])
@pytest.mark.parametrize("field_T", [3.0, 11.7])
def test_super_lorentzian_is_exact_from_the_bridge_to_200_ppm(T2_us: float, field_T: float) -> None:
    ppm = rad_per_s_per_ppm(field_T)
    offsets = np.array([0.06, 0.1, 0.3, 0.7, 1.0, 2.0, 3.5, 8.0, 20.0, 60.0, 200.0]) * ppm
    mine = super_lorentz(offsets, T2_us * 1e-6, 0.05 * ppm).numpy()
    exact = np.array([exact_super_lorentzian(offset, T2_us * 1e-6) for offset in offsets])
    np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9 * exact.max())


def test_repeated_offsets_have_the_values_that_they_have_alone() -> None:
    T2_s, shift = double([8e-6, 1e-5, 1.2e-5]), double([0.0, 30.0, -45.0])
    offsets = double([3.5, 0.0, 3.5, -20.0, 0.0])[:, None] * PPM_3T + shift
    together = super_lorentzian(offsets, T2_s, BRIDGE)
    alone = torch.cat([super_lorentzian(row[None], T2_s, BRIDGE) for row in offsets])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("bridge_ppm", [0.05, 1.0])
def test_the_bridge_meets_the_super_lorentzian_with_equal_value_and_slope(bridge_ppm: float) -> None:
    edge = bridge_ppm * PPM_3T
    h = 1e-4 * edge
    inside, at, outside = super_lorentz([edge - h, edge, edge + h], 1e-5, edge)
    exact_below, exact_at, exact_above = (exact_super_lorentzian(edge + d, 1e-5) for d in (-h, 0.0, h))
    assert float(at) == pytest.approx(exact_at, rel=1e-9)
    exact_slope = (exact_above - exact_below) / (2 * h)
    assert float(at - inside) / h == pytest.approx(exact_slope, rel=1e-3)
    assert float(outside - at) / h == pytest.approx(exact_slope, rel=1e-3)


def test_the_bridge_is_finite_smooth_and_highest_at_the_centre() -> None:
    offsets = np.linspace(-0.05, 0.05, 101) * PPM_3T
    value = super_lorentz(offsets, 1e-5)
    assert bool(torch.isfinite(value).all())
    assert int(value.argmax()) == 50
    assert bool((value.diff()[:50] > 0).all())
    assert float(value.diff().diff().abs().max()) < 1e-3 * float(value.max())


# through files and engines

OFFSETS = [-60.0, -8.0, -3.0, 2.0, 3.5, 20.0]
WATER = {"f": 1.0, "k": 0.0, "T1": 1.3, "T2": 0.08, "dw": 0.0}
AMIDE = {"f": 1.1e-3, "k": 40.0, "T1": 1.0, "T2": 0.1, "dw": 3.5}
BROAD = {"f": 0.12, "k": 25.0, "T1": 1.0, "T2": 1.2e-5, "dw": -2.5}
POOLS = """
water_pool: {f: 1.0, t1: 1.3, t2: 0.08}
cest_pool:
  amide: {f: 0.0011, t1: 1.0, t2: 0.1, k: 40, dw: 3.5}
mt_pool: {f: 0.12, t1: 1.0, t2: 1.2e-05, k: 25, dw: -2.5, lineshape: NAME}
b0: 3
"""


def tissue(lineshape: str) -> Tissue:
    amide = Pool("amide", 1.1e-3, 40.0, 1.0, 0.1, 3.5)
    return Tissue(Water(1.3, 0.08), (amide,), Semisolid(0.12, 25.0, 1.0, 1.2e-5, -2.5, lineshape))


def from_model_file(lineshape: str) -> Tissue:
    amide = {"name": "amide", "fraction": 1.1e-3, "k_Hz": 40.0, "T1_s": 1.0, "T2_s": 0.1, "dw_ppm": 3.5}
    semisolid = {"fraction": 0.12, "k_Hz": 25.0, "T1_s": 1.0, "T2_s": 1.2e-5, "dw_ppm": -2.5, "lineshape": lineshape}
    values = {"water": {"T1_s": 1.3, "T2_s": 0.08}, "solutes": [amide], "semisolid": semisolid}
    model = tissue_model_from_dict(values)
    return model.tissue(model.values({}, {}))


def from_scenario(lineshape: str) -> Tissue:
    amide = {"name": "amide", "f": 1.1e-3, "k_Hz": 40.0, "T1_s": 1.0, "T2_s": 0.1, "dw_ppm": 3.5}
    semisolid = {"f": 0.12, "k_Hz": 25.0, "T1_s": 1.0, "T2_s": 1.2e-5, "dw_ppm": -2.5, "lineshape": lineshape.title()}
    scenario = {
        "B0_T": 3.0,
        "water": {"T1_s": 1.3, "T2_s": 0.08},
        "solute_pools_full_xyz": [amide],
        "mt_pool_z_only": semisolid,
        "offsets_ppm": OFFSETS,
        "preparation": {"type": "CW block", "B1_uT": 2.0, "tsat_s": 2.0},
    }
    return read_scenario(scenario, "scenario.json").tissue


def independent_spectrum(lineshape: str) -> np.ndarray:
    spectrum = []
    for offset in OFFSETS:
        sample = Sample([WATER, AMIDE], BROAD | {"lineshape": lineshape}, B0=3.0)
        sample.step(2.0, offset, 2.0)
        spectrum.append(sample.z)
    return np.array(spectrum)


@pytest.mark.parametrize("name", LINESHAPES)
@pytest.mark.parametrize(("engine", "tolerance"), [("bloch-mcconnell", 1e-9), ("r1rho", 2e-3)])
def test_both_engines_agree_with_an_independent_exponential(name: str, engine: str, tolerance: float) -> None:
    z = simulate(tissue(name), Protocol(3.0, OFFSETS, 2.0, 2.0), engine=engine)[0].numpy()
    np.testing.assert_allclose(z, independent_spectrum(name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_differentiate_through_the_gaussian(engine: str) -> None:
    protocol = Protocol(3.0, [-60.0, -8.0, 3.5], 2.0, 1.0)

    def signal(fraction: torch.Tensor, k: torch.Tensor, T2: torch.Tensor, dw: torch.Tensor) -> torch.Tensor:
        pool = Semisolid(fraction, k, 1.0, T2, dw, "gaussian")
        return simulate(Tissue(Water(1.3, 0.08), (), pool), protocol, engine=engine)

    check_derivatives(signal, [leaf(0.1, 0.06), leaf(30.0, 40.0), leaf(1e-5, 1.4e-5), leaf(-2.4, -2.0)])


def test_a_further_lineshape_is_a_function_and_an_entry_of_the_registry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def rectangular(offset_rad_per_s: torch.Tensor, T2_s: torch.Tensor) -> torch.Tensor:
        return torch.where((offset_rad_per_s * T2_s).abs() < 1, math.pi / 2 * T2_s, 0.0)

    monkeypatch.setitem(LINESHAPES, "rectangular", Lineshape("rectangular", rectangular))
    reference: dict[str, Callable[[float, float], float]] = expm_reference.LINESHAPES
    monkeypatch.setitem(reference, "rectangular", lambda offset, T2: math.pi / 2 * T2 if abs(offset * T2) < 1 else 0.0)
    pools = tmp_path / "pools.yaml"
    pools.write_text(POOLS.replace("NAME", "Rectangular"), encoding="utf-8")
    tissues = [from_model_file("rectangular"), from_scenario("rectangular"), read_pools(pools).tissue]
    for engine, tolerance in (("bloch-mcconnell", 1e-9), ("r1rho", 2e-3)):
        for found in tissues:
            z = simulate(found, Protocol(3.0, OFFSETS, 2.0, 2.0), engine=engine)[0].numpy()
            np.testing.assert_allclose(z, independent_spectrum("rectangular"), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", LINESHAPES)
def test_model_files_scenarios_and_pool_files_know_every_lineshape(name: str, tmp_path: Path) -> None:
    pools = tmp_path / "pools.yaml"
    pools.write_text(POOLS.replace("NAME", name.upper()), encoding="utf-8")
    for found in (from_model_file(name), from_scenario(name), read_pools(pools).tissue):
        assert found.semisolid is not None
        assert found.semisolid.lineshape == name


def test_unknown_lineshapes_are_refused_with_the_list_of_the_known_ones() -> None:
    known = "use one of lorentzian, superlorentzian, gaussian"
    with pytest.raises(ValueError, match=f"lineshape 'voigt' is unknown; {known}"):
        saturation_rate("voigt", double(1.0), double(1.0), double(1e-5), BRIDGE)
    with pytest.raises(ValueError, match=f"lineshape 'voigt' is unknown; {known}"):
        tissue("voigt")
    with pytest.raises(ValueError, match=f"lineshape 'Voigt' is unknown; {known}"):
        from_model_file("Voigt")
    with pytest.raises(ValueError, match=f"lineshape '3' is unknown; {known}"):
        lineshape_named(3)  # type: ignore[arg-type]


def test_names_of_other_simulators_lose_capitals_and_hyphens() -> None:
    assert {plain_name(n) for n in ("SuperLorentzian", "super-lorentzian", "Super_Lorentzian")} == {"superlorentzian"}


def test_only_a_lorentzian_pool_may_have_transverse_magnetisation() -> None:
    with pytest.raises(ValueError, match="xyz coupling is Lorentzian"):
        Semisolid(0.1, 30.0, 1.0, 1e-5, lineshape="gaussian", coupling="xyz")
