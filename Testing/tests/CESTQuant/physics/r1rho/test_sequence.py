"""The R1rho engine decides for every voxel by itself whether a solute is so broad that it acts as a semisolid pool."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate

OFFSETS = torch.linspace(-6, 6, 25, dtype=torch.float64)
BROAD_AND_NARROW = torch.tensor([5e-4, 2e-3, 3e-4, 5e-2], dtype=torch.float64)
RELATIVE_B1 = torch.tensor([1.0, 0.9, 1.1, 0.8], dtype=torch.float64)


def tissue(T2_s: torch.Tensor, other_T2_s: float | torch.Tensor = 0.1) -> Tissue:
    return Tissue(
        Water(1.3, 0.08), (Pool("mt", 0.1, 30.0, 1.0, T2_s, 0.0), Pool("amide", 1e-3, 50.0, 1.0, other_T2_s, 3.5))
    )


@pytest.mark.parametrize("carried_over", [False, True])
@pytest.mark.parametrize("other_T2_s", [0.1, BROAD_AND_NARROW.flip(0)], ids=["amide", "broad amide"])
def test_the_signal_of_a_voxel_does_not_depend_on_the_others(other_T2_s, carried_over: bool) -> None:
    protocol = Protocol(3.0, OFFSETS, 2.0, 2.0, recovery_time_s=1.0, magnetisation_carried_over=carried_over)
    everything = tissue(BROAD_AND_NARROW, other_T2_s)
    together = simulate(everything, protocol, engine="r1rho", b1_relative=RELATIVE_B1)
    for voxel in range(4):
        alone = everything.voxels(torch.tensor([voxel]))
        expected = simulate(alone, protocol, engine="r1rho", b1_relative=float(RELATIVE_B1[voxel]))
        torch.testing.assert_close(together[voxel], expected[0], rtol=0, atol=1e-13)


def test_voxels_with_and_without_a_broad_solute_keep_their_gradients() -> None:
    T2_s = BROAD_AND_NARROW.clone().requires_grad_()
    simulate(tissue(T2_s), Protocol(3.0, OFFSETS, 2.0, 2.0), engine="r1rho").sum().backward()
    assert bool((T2_s.grad != 0).all())


def test_values_of_each_measurement_belong_to_all_voxels() -> None:
    fraction = torch.linspace(0.05, 0.15, 25, dtype=torch.float64)[:, None]
    protocol = Protocol(3.0, OFFSETS, 2.0, 2.0)
    mt = Pool("mt", fraction, 30.0, 1.0, BROAD_AND_NARROW, 0.0)
    together = simulate(Tissue(Water(1.3, 0.08), (mt,)), protocol, engine="r1rho")
    narrow = Pool("mt", fraction, 30.0, 1.0, float(BROAD_AND_NARROW[1]), 0.0)
    alone = simulate(Tissue(Water(1.3, 0.08), (narrow,)), protocol, engine="r1rho")
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-13)
