"""Damped saturation against the matrix exponential: they are equal wherever the former says that it holds.

That goes for both ways to compute it: the slow mode alone, and the contour where more than that is left.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.physics.bloch_mcconnell import propagators
from CESTQuantLib.physics.bloch_mcconnell.damped_saturation import DampedSaturation
from CESTQuantLib.physics.bloch_mcconnell.equations import Field, equilibrium, rf_generator
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate

PPM = 267.5154109126009 * 3.0
OFFSETS = torch.linspace(-6, 6, 49, dtype=torch.float64)[:, None]


def tissue(T2_s: float, semisolid: Semisolid | None = None, rate: float = 5000.0) -> Tissue:
    fraction = torch.tensor([1e-4, 1e-3, 5e-3], dtype=torch.float64)
    amide = Pool("amide", fraction, 30.0, 1.3, 0.1, 3.5)
    amine = Pool("amine", 2e-4, rate, 1.3, torch.tensor([0.2, 0.02, 0.005], dtype=torch.float64), 3.0)
    return Tissue(Water(1.1, T2_s), (amide, amine), semisolid)


TISSUES = {
    "solutes": tissue(0.05),
    "semisolid z-only": tissue(0.05, Semisolid(0.13, 30.0, 1.0, 4e-5, -3.0)),
    "semisolid super-Lorentzian": tissue(0.05, Semisolid(0.13, 30.0, 1.0, 1e-5, -3.0, "superlorentzian")),
    "semisolid xyz": tissue(0.05, Semisolid(0.13, 30.0, 1.0, 4e-5, -3.0, coupling="xyz")),
    "water alone": Tissue(Water(1.1, 0.05)),
}


def both(t: Tissue, b1_uT: float, duration_s: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whether contour integration holds (measurement,), its magnetisation, and that of the matrix exponential."""
    like = torch.empty(0, dtype=torch.float64)
    field = Field(PPM, 0.1)
    w1 = torch.full_like(OFFSETS, 267.5154109126009 * b1_uT)
    duration = torch.full_like(OFFSETS, duration_s)
    start = equilibrium(t, like, torch.Size((1, 3)), 0.7)
    generator = rf_generator(t, field, OFFSETS, w1, like=like, batch=torch.Size((len(OFFSETS), 3)))
    exact = propagators.apply(propagators.propagator(generator, duration), start)
    damped = DampedSaturation.of(t, field, OFFSETS, w1, duration)
    return damped.holds(), damped.after(start)[0], exact


@pytest.mark.parametrize("name", TISSUES)
@pytest.mark.parametrize("b1_uT", [0.0, 0.5, 4.0])
def test_every_component_equals_that_of_the_matrix_exponential(name: str, b1_uT: float) -> None:
    holds, contour, exact = both(TISSUES[name], b1_uT, 3.0)
    assert holds.all()
    torch.testing.assert_close(contour.expand_as(exact), exact, atol=1e-10, rtol=0)


@pytest.mark.parametrize("duration_s", [0.005, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("T2_s", [0.02, 0.08, 0.3, 2.0])
def test_it_holds_only_where_it_is_exact(duration_s: float, T2_s: float) -> None:
    holds, contour, exact = both(tissue(T2_s, rate=200.0), 2.0, duration_s)
    error = (contour - exact).abs().amax((0, 2))
    assert (error[holds] < 1e-9).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_slow_mode_of_random_tissues_is_exact(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(seed)
    voxels = 20

    def between(low: float, high: float) -> torch.Tensor:
        return low * (high / low) ** torch.rand(voxels, generator=generator, dtype=torch.float64)

    def pool(number: int) -> Pool:
        return Pool(f"{number}", between(1e-6, 0.3), between(8, 2e4), between(0.3, 3), between(1e-3, 0.3), 2.0 - number)

    semisolid = Semisolid(between(1e-3, 0.4), between(10, 200), between(0.3, 2), between(5e-6, 5e-5), -2.0)
    t = Tissue(
        Water(between(0.5, 4), between(0.005, 0.1)), tuple(map(pool, range(seed % 4))), semisolid if seed % 2 else None
    )
    field, duration = Field(PPM, 0.1), torch.full_like(OFFSETS, 6.0)
    w1 = 267.5 * float(between(0.05, 10)[0]) * torch.ones_like(OFFSETS)
    start = equilibrium(t, torch.empty(0, dtype=torch.float64), torch.Size((1, voxels)), 0.7)
    rf = rf_generator(t, field, OFFSETS, w1, like=start, batch=torch.Size((len(OFFSETS), voxels)))
    exact = propagators.apply(propagators.propagator(rf, duration), start)
    by_contour = []
    contour = DampedSaturation._by_contour
    monkeypatch.setattr(
        DampedSaturation, "_by_contour", lambda self, *a: by_contour.append(len(self.duration)) or contour(self, *a)
    )
    damped = DampedSaturation.of(t, field, OFFSETS, w1, duration)
    assert damped.holds().all()
    torch.testing.assert_close(damped.after(start)[0], exact, atol=1e-10, rtol=0)
    assert sum(by_contour) < len(OFFSETS) / 4


def test_an_absent_pool_changes_nothing() -> None:
    with_pool = Tissue(Water(1.1, 0.05), (Pool("absent", 0.0, 50.0, 1.0, 0.05, 3.5),))
    protocol = Protocol(3.0, OFFSETS[:, 0], 2.0, 3.0)
    torch.testing.assert_close(
        simulate(with_pool, protocol), simulate(TISSUES["water alone"], protocol), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("b1_uT", [0.2, 2.0])
def test_water_that_still_precesses_is_exact_where_the_pools_have_equilibrated(b1_uT: float) -> None:
    t = tissue(2.0)
    holds, found, exact = both(t, b1_uT, 2.0)
    assert not holds.any()
    torch.testing.assert_close(found, exact, atol=1e-11, rtol=0)


@pytest.mark.parametrize("duration_s", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_exact_is_said_and_left_to_the_matrix_exponential(seed: int, duration_s: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rate = 3 * 1e4 ** torch.rand(3, generator=generator, dtype=torch.float64)
    t = replace(tissue(1.0), semisolid=Semisolid(0.13, rate, 1.0, 4e-5, -3.0))
    like = torch.empty(0, dtype=torch.float64)
    start = equilibrium(t, like, torch.Size((1, 3)))
    duration = torch.full_like(OFFSETS, duration_s)
    w1 = torch.full_like(OFFSETS, 267.5154109126009 * 3.0)
    generator_of_rf = rf_generator(t, Field(PPM), OFFSETS, w1, like=like, batch=torch.Size((len(OFFSETS), 3)))
    exact = propagators.apply(propagators.propagator(generator_of_rf, duration), start)[2]
    found, said = DampedSaturation.of(t, Field(PPM), OFFSETS, w1, duration).after(start, slice(2, 3))
    torch.testing.assert_close(found[0][said], exact[said], atol=1e-10, rtol=0)
    signal = simulate(t, Protocol(3.0, OFFSETS[:, 0], 3.0, duration_s))
    torch.testing.assert_close(signal, exact.T, atol=1e-10, rtol=0)


def test_a_spectrum_that_needs_both_solutions_keeps_the_order_of_its_measurements() -> None:
    t = tissue(0.08, rate=200.0)
    holds, _, exact = both(t, 2.0, 2.0)
    assert holds.any()
    assert not holds.all()
    protocol = Protocol(3.0, OFFSETS[:, 0], 2.0, 2.0, initial_magnetisation=0.7)
    torch.testing.assert_close(simulate(t, protocol, b0_shift_ppm=0.1), exact[2].T, atol=1e-9, rtol=0)


def test_gradients_in_tissue_and_acquisition_are_exact() -> None:
    def signal(
        fraction: torch.Tensor,
        k: torch.Tensor,
        T2_s: torch.Tensor,
        offset: torch.Tensor,
        b1: torch.Tensor,
        duration: torch.Tensor,
    ) -> torch.Tensor:
        pools = (Pool("amide", fraction, k, 1.3, 0.1, 3.5), Pool("noe", 0.004, 20.0, 1.3, 0.005, -3.5))
        t = Tissue(Water(1.1, T2_s), pools, Semisolid(0.1, 30.0, 1.0, 4e-5, -3.0))
        protocol = Protocol(3.0, offset, b1, duration)
        return simulate(t, protocol)

    values = [[1e-3], [40.0], [0.05], [-3.5, 0.6, 3.4], [1.0, 2.0, 3.0], [2.5, 3.0, 3.5]]
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    assert torch.autograd.gradcheck(signal, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)
