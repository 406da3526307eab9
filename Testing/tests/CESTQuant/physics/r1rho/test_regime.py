"""Where the analytic solution cannot be trusted, and how far off it is there."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.r1rho.regime import missing_term, regime_warnings
from CESTQuantLib.physics.simulation import simulate

AMINE = Pool("amine", 0.002, 300.0, 2.5, 0.04, 3.0)


def error(protocol: Protocol, T2_s: float, *pools: Pool) -> torch.Tensor:
    """Return the error of Z for every measurement, with a T1 of water of 2.5 s."""
    tissue = Tissue(Water(2.5, T2_s), pools)
    return (simulate(tissue, protocol, engine="r1rho") - simulate(tissue, protocol))[0].abs()


@pytest.mark.parametrize(("T2_s", "b1_uT", "time_s"), [(2.0, 2.0, 2.0), (1.2, 4.0, 1.0), (0.08, 4.0, 0.1)])
@pytest.mark.parametrize("pools", [(), (AMINE,)])
def test_the_missing_term_is_nearly_all_of_the_error(
    T2_s: float, b1_uT: float, time_s: float, pools: tuple[Pool, ...]
) -> None:
    protocol = Protocol(3.0, torch.linspace(0, 4, 801), b1_uT, time_s)
    excess = error(protocol, T2_s, *pools) - missing_term(protocol, T2_s)
    assert float(excess.max()) < 1e-3


def test_saturation_that_is_short_against_T2_is_told_also_far_from_water() -> None:
    protocol = Protocol(3.0, [1.5, 2.0, 3.0, 3.5], 4.0, 1.0)
    assert float(error(protocol, 1.2, AMINE).max()) > 0.08
    (warning,) = regime_warnings(protocol, 1.2)
    assert warning.startswith("in 4 of 4 measurements, up to 3.5 ppm from water, the saturation is short against T2")
    assert "a transverse term of up to 0.23 in Z: prefer bloch-mcconnell" in warning


def test_saturation_that_is_long_against_T2_is_not_warned_about() -> None:
    protocol = Protocol(3.0, [0.0, 0.2, 1.0, 3.5], 2.0, 2.0)
    assert float(error(protocol, 0.08, AMINE).max()) < 1e-3
    assert regime_warnings(protocol, 0.08) == ()
    assert regime_warnings(protocol, 0.2) == ()
    assert regime_warnings(protocol, 0.22) != ()


def test_measurements_without_saturation_lack_no_transverse_term() -> None:
    protocol = Protocol(3.0, [0.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0])
    assert missing_term(protocol, 1.0).tolist() == [0.0, 0.0, 0.0]
    assert regime_warnings(protocol, 1.0) == ()


def test_water_with_a_long_T2_is_off_by_what_the_pages_say() -> None:
    protocol = Protocol(3.0, torch.linspace(0, 4, 1601), 2.0, 2.0)
    found = error(protocol, 2.0)
    assert float(found.max()) == pytest.approx(0.41, abs=0.005)
    assert float(found[protocol.offsets_ppm >= 1].max()) == pytest.approx(0.12, abs=0.005)
