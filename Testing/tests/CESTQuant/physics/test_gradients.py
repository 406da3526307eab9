"""Derivatives of both engines, in float64, against finite differences: tissue, fields and acquisition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.r1rho.saturation import FIXED_INPUTS, SOLUTE_INPUTS, Block, saturate
from CESTQuantLib.physics.simulation import simulate

ENGINES = ("bloch-mcconnell", "r1rho")


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def tissue_of(water_and_solutes, semisolid=None, **kind) -> Tissue:
    T1, T2, f, k, T1s, T2s, dw, f2, k2, T1s2, T2s2, dw2 = water_and_solutes
    solutes = (Pool("amide", f, k, T1s, T2s, dw), Pool("amine", f2, k2, T1s2, T2s2, dw2))
    return Tissue(Water(T1, T2), solutes, Semisolid(*semisolid, **kind) if semisolid is not None else None)


def tissue_leaves() -> list[torch.Tensor]:
    """T1, T2 of water; fraction, k, T1, T2, dw of two solutes; each (voxel,)."""
    return [
        leaf(1.3, 1.6),
        leaf(0.08, 0.12),
        leaf(8e-3, 1.2e-2),
        leaf(60.0, 90.0),
        leaf(1.0, 1.2),
        leaf(0.1, 0.05),
        leaf(3.5, 3.4),
        leaf(5e-3, 1e-2),
        leaf(700.0, 400.0),
        leaf(1.1, 1.0),
        leaf(0.05, 0.08),
        leaf(2.0, 2.1),
    ]


def semisolid_leaves() -> list[torch.Tensor]:
    """Fraction, k, T1, T2, dw."""
    return [leaf(0.1, 0.06), leaf(30.0, 40.0), leaf(1.0, 1.2), leaf(1e-5, 1.4e-5), leaf(-2.4, -2.0)]


def rescaled(leaves: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Leaves divided by their own size, so that one finite-difference step suits fractions, rates and times."""
    sizes = [value.detach().abs().max() for value in leaves]
    return [(value.detach() / size).requires_grad_() for value, size in zip(leaves, sizes, strict=True)], sizes


def check(function, leaves: list[torch.Tensor]) -> None:
    units, sizes = rescaled(leaves)

    def of_units(*values: torch.Tensor) -> torch.Tensor:
        return function(*(value * size for value, size in zip(values, sizes, strict=True)))

    assert gradcheck(of_units, units, eps=1e-6, atol=1e-7, rtol=1e-5)
    for gradient in torch.autograd.grad(of_units(*units).exp().sum(), units):
        assert float(gradient.abs().max()) > 0  # the value does act on the signal


OFFSETS = torch.tensor([-3.5, 1.2, 3.5], dtype=torch.float64)
CW = Protocol(3.0, OFFSETS, torch.tensor([1.5, 0.8, 2.5], dtype=torch.float64), 0.6, post_delay_s=0.02)
CARRIED_OVER = replace(
    CW, recovery_time_s=0.5, readout_flip_angle_deg=50.0, magnetisation_carried_over=True, signal_normalisation="none"
)
TRAIN = PulseTrain(4, 0.03, 0.006, PulseShape.named("gaussian", 8))
PULSED = replace(CW, pulses=TRAIN, saturation_time_s=TRAIN.total_time_s)


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_water_and_solutes(engine, protocol):
    leaves = tissue_leaves()
    if engine == "bloch-mcconnell":
        check(lambda *values: simulate(tissue_of(values), protocol, engine=engine), leaves)
        return
    T1s = [leaves.pop(9).detach(), leaves.pop(4).detach()]  # no part of the analytic solution

    def signal(*values):
        return simulate(tissue_of([*values[:4], T1s[1], *values[4:8], T1s[0], *values[8:]]), protocol, engine=engine)

    check(signal, leaves)


KINDS = {
    "lorentzian": {},
    "superlorentzian": {"lineshape": "superlorentzian"},
    "xyz": {"coupling": "xyz"},
}


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_the_semisolid_pool(engine, kind, protocol):
    others = [value.detach() for value in tissue_leaves()]

    def signal(*semisolid):
        return simulate(tissue_of(others, semisolid, **KINDS[kind]), protocol, engine=engine)

    check(signal, semisolid_leaves())


def test_gradient_of_the_super_lorentzian_inside_its_bridge():
    others = [value.detach() for value in tissue_leaves()]
    protocol = Protocol(3.0, torch.tensor([-2.42, -2.0, -1.0], dtype=torch.float64), 1.5, 0.6)

    def signal(*semisolid):
        return simulate(tissue_of(others, semisolid, **KINDS["superlorentzian"]), protocol, engine="r1rho")

    check(signal, semisolid_leaves())


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_the_local_fields(engine, kind, protocol):
    others = [value.detach() for value in tissue_leaves()]
    semisolid = [value.detach() for value in semisolid_leaves()] if kind else None
    tissue = tissue_of(others, semisolid, **KINDS[kind] if kind else {})

    def signal(b0, b1):
        return simulate(tissue, protocol, engine=engine, b0_shift_ppm=b0, b1_relative=b1)

    check(signal, [leaf(0.1, -0.2), leaf(0.9, 1.1)])


ACQUISITION = {
    "offsets_ppm": leaf(-3.5, 1.2, 3.5),
    "b1_uT": leaf(1.5, 0.8, 2.5),
    "saturation_time_s": leaf(0.6, 0.5, 0.7),
    "post_delay_s": leaf(0.02, 0.03, 0.01),
    "recovery_time_s": leaf(0.5, 0.4, 0.3),
    "readout_flip_angle_deg": leaf(50.0, 30.0, 70.0),
}


def check_acquisition(base: Protocol, names: tuple[str, ...], engine: str, with_semisolid: bool, **readout) -> None:
    others = [value.detach() for value in tissue_leaves()]
    semisolid = [value.detach() for value in semisolid_leaves()] if with_semisolid else None
    tissue = tissue_of(others, semisolid, **KINDS["superlorentzian"] if semisolid else {})
    names_and_values = {name: ACQUISITION[name] for name in names}

    def signal(*values):
        protocol = replace(base, **dict(zip(names, values, strict=True)), **readout)
        return simulate(tissue, protocol, engine=engine)

    check(signal, list(names_and_values.values()))


@pytest.mark.parametrize("with_semisolid", [False, True], ids=["solutes", "semisolid"])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_a_continuous_wave_acquisition(engine, with_semisolid):
    check_acquisition(CW, ("offsets_ppm", "b1_uT", "saturation_time_s", "post_delay_s"), engine, with_semisolid)


@pytest.mark.parametrize("normalisation", ["none", "l2"])
@pytest.mark.parametrize("with_semisolid", [False, True], ids=["solutes", "semisolid"])
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_a_carried_over_schedule(engine, with_semisolid, normalisation):
    base = replace(CARRIED_OVER, signal_normalisation=normalisation)
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "post_delay_s", "recovery_time_s", "readout_flip_angle_deg")
    check_acquisition(base, names, engine, with_semisolid)


def test_gradients_through_a_real_readout_pulse():
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "recovery_time_s", "readout_flip_angle_deg")
    readout = {"readout_pulse_s": 0.002, "echo_time_s": 0.01}
    check_acquisition(CARRIED_OVER, names, "bloch-mcconnell", False, **readout)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_a_pulse_train(engine):
    check_acquisition(PULSED, ("offsets_ppm", "b1_uT", "post_delay_s"), engine, True)


def block_leaves(solutes: int, semisolid: bool) -> list[torch.Tensor]:
    """Inputs of a saturation block, (measurement, 1) or (voxel,)."""
    generator = torch.Generator().manual_seed(3)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        values = low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    inputs = [between(150, 600, 3, 1), between(-3000, 3000, 3, 1), between(0.3, 1.5, 3, 1)]
    inputs += [between(0.2, 1.0, 2), between(0.02, 0.1, 2), between(0.5, 1.0, 2), between(5, 15, 2)]
    for _ in range(solutes):
        inputs += [between(1e-3, 2e-2, 2), between(50, 800, 2), between(8, 30, 2), between(1500, 3000, 2)]
    if semisolid:
        inputs += [between(0.05, 0.15, 2), between(20, 60, 2), between(0.8, 1.2, 2), between(2, 40, 3, 2)]
    return inputs


@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("solutes", [0, 1, 3])
def test_hand_derived_backward_equals_plain_autograd(solutes, semisolid):
    inputs = block_leaves(solutes, semisolid)
    block = Block.solve(solutes, inputs)
    z, c = saturate(solutes, inputs)
    torch.testing.assert_close(z, block.z, rtol=0, atol=1e-15)
    weight_z, weight_c = torch.linspace(-1, 1, 6).reshape(3, 2).double(), torch.linspace(1, 2, 2).double()
    plain = torch.autograd.grad((weight_z * block.z).sum() + (weight_c * block.c).sum(), inputs)
    by_hand = torch.autograd.grad((weight_z * z).sum() + (weight_c * c).sum(), inputs)
    for mine, automatic in zip(by_hand, plain, strict=True):
        torch.testing.assert_close(mine, automatic, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("solutes", [0, 2])
def test_hand_derived_backward_passes_gradcheck(solutes, semisolid):
    inputs, sizes = rescaled(block_leaves(solutes, semisolid))

    def block(*values):
        return saturate(solutes, [value * size for value, size in zip(values, sizes, strict=True)])

    assert gradcheck(block, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def test_backward_computes_only_what_is_asked_for():
    inputs = [value.detach() for value in block_leaves(1, True)]
    inputs[FIXED_INPUTS + 1].requires_grad_()
    z, _ = saturate(1, inputs)
    z.sum().backward()
    assert len(inputs) == FIXED_INPUTS + 2 * SOLUTE_INPUTS
    assert [value.grad is not None for value in inputs].count(True) == 1


def test_gradients_stay_finite_without_rf_and_on_resonance():
    tissue_values = tissue_leaves()
    b1 = leaf(0.0, 0.0, 1.0)
    offsets = leaf(0.0, 3.5, 0.0)
    for engine in ENGINES:
        z = simulate(tissue_of(tissue_values), replace(CW, offsets_ppm=offsets, b1_uT=b1), engine=engine)
        gradients = torch.autograd.grad(z.sum(), [*tissue_values, b1, offsets], allow_unused=True)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)
