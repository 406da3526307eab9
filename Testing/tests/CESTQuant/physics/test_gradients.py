"""Derivatives of both engines, in float64, against finite differences: tissue, fields and acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from finite_differences import check_acting, leaf

from CESTQuantLib.physics.engines import ENGINES
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import simulate

BY_ENGINE = [pytest.param(e, marks=pytest.mark.slow) if e == "bloch-mcconnell" else e for e in ENGINES]


def tissue_of(
    water_and_solutes: Sequence[torch.Tensor], semisolid: Sequence[torch.Tensor] | None = None, **kind: str
) -> Tissue:
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


OFFSETS = torch.tensor([-3.5, 1.2, 3.5], dtype=torch.float64)
CW = Protocol(3.0, OFFSETS, torch.tensor([1.5, 0.8, 2.5], dtype=torch.float64), 0.6, post_delay_s=0.02)
CARRIED_OVER = replace(
    CW, recovery_time_s=0.5, readout_flip_angle_deg=50.0, magnetisation_carried_over=True, signal_normalisation="none"
)
TRAIN = PulseTrain(4, 0.03, 0.006, PulseShape.named("gaussian", 8))
PULSED = replace(CW, pulses=TRAIN, saturation_time_s=TRAIN.total_time_s)


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_water_and_solutes(engine: str, protocol: Protocol) -> None:
    leaves = tissue_leaves()
    if engine == "bloch-mcconnell":
        check_acting(lambda *values: simulate(tissue_of(values), protocol, engine=engine), leaves)
        return
    T1s = [leaves.pop(9).detach(), leaves.pop(4).detach()]  # T1 of solutes is not part of the analytic solution

    def signal(*values: torch.Tensor) -> torch.Tensor:
        return simulate(tissue_of([*values[:4], T1s[1], *values[4:8], T1s[0], *values[8:]]), protocol, engine=engine)

    check_acting(signal, leaves)


KINDS = {
    "lorentzian": {},
    "superlorentzian": {"lineshape": "superlorentzian"},
    "xyz": {"coupling": "xyz"},
}


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_the_semisolid_pool(engine: str, kind: str, protocol: Protocol) -> None:
    others = [value.detach() for value in tissue_leaves()]

    def signal(*semisolid: torch.Tensor) -> torch.Tensor:
        return simulate(tissue_of(others, semisolid, **KINDS[kind]), protocol, engine=engine)

    check_acting(signal, semisolid_leaves())


def test_gradient_of_the_super_lorentzian_inside_its_bridge() -> None:
    others = [value.detach() for value in tissue_leaves()]
    protocol = Protocol(3.0, torch.tensor([-2.42, -2.0, -1.0], dtype=torch.float64), 1.5, 0.6)

    def signal(*semisolid: torch.Tensor) -> torch.Tensor:
        return simulate(tissue_of(others, semisolid, **KINDS["superlorentzian"]), protocol, engine="r1rho")

    check_acting(signal, semisolid_leaves())


@pytest.mark.parametrize("protocol", [CW, CARRIED_OVER, PULSED], ids=["cw", "carried-over", "train"])
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_the_local_fields(engine: str, kind: str | None, protocol: Protocol) -> None:
    others = [value.detach() for value in tissue_leaves()]
    semisolid = [value.detach() for value in semisolid_leaves()] if kind else None
    tissue = tissue_of(others, semisolid, **KINDS[kind] if kind else {})

    def signal(b0: torch.Tensor, b1: torch.Tensor) -> torch.Tensor:
        return simulate(tissue, protocol, engine=engine, b0_shift_ppm=b0, b1_relative=b1)

    check_acting(signal, [leaf(0.1, -0.2), leaf(0.9, 1.1)])


ACQUISITION = {
    "offsets_ppm": leaf(-3.5, 1.2, 3.5),
    "b1_uT": leaf(1.5, 0.8, 2.5),
    "saturation_time_s": leaf(0.6, 0.5, 0.7),
    "post_delay_s": leaf(0.02, 0.03, 0.01),
    "recovery_time_s": leaf(0.5, 0.4, 0.3),
    "readout_flip_angle_deg": leaf(50.0, 30.0, 70.0),
}


def check_acquisition(
    base: Protocol, names: tuple[str, ...], engine: str, with_semisolid: bool, **readout: float
) -> None:
    others = [value.detach() for value in tissue_leaves()]
    semisolid = [value.detach() for value in semisolid_leaves()] if with_semisolid else None
    tissue = tissue_of(others, semisolid, **KINDS["superlorentzian"] if semisolid else {})
    names_and_values = {name: ACQUISITION[name] for name in names}

    def signal(*values: torch.Tensor) -> torch.Tensor:
        protocol = replace(base, **dict(zip(names, values, strict=True)), **readout)
        return simulate(tissue, protocol, engine=engine)

    check_acting(signal, list(names_and_values.values()))


@pytest.mark.parametrize("with_semisolid", [False, True], ids=["solutes", "semisolid"])
@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_a_continuous_wave_acquisition(engine: str, with_semisolid: bool) -> None:
    check_acquisition(CW, ("offsets_ppm", "b1_uT", "saturation_time_s", "post_delay_s"), engine, with_semisolid)


@pytest.mark.parametrize("normalisation", ["none", "l2"])
@pytest.mark.parametrize("with_semisolid", [False, True], ids=["solutes", "semisolid"])
@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_a_carried_over_schedule(engine: str, with_semisolid: bool, normalisation: str) -> None:
    base = replace(CARRIED_OVER, signal_normalisation=normalisation)
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "post_delay_s", "recovery_time_s", "readout_flip_angle_deg")
    check_acquisition(base, names, engine, with_semisolid)


@pytest.mark.slow
def test_gradients_through_a_real_readout_pulse() -> None:
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "recovery_time_s", "readout_flip_angle_deg")
    readout = {"readout_pulse_s": 0.002, "echo_time_s": 0.01}
    check_acquisition(CARRIED_OVER, names, "bloch-mcconnell", False, **readout)


@pytest.mark.parametrize("engine", BY_ENGINE)
def test_gradients_of_a_pulse_train(engine: str) -> None:
    check_acquisition(PULSED, ("offsets_ppm", "b1_uT", "post_delay_s"), engine, True)


def test_gradients_stay_finite_without_rf_and_on_resonance() -> None:
    tissue_values = tissue_leaves()
    b1 = leaf(0.0, 0.0, 1.0)
    offsets = leaf(0.0, 3.5, 0.0)
    for engine in ENGINES:
        z = simulate(tissue_of(tissue_values), replace(CW, offsets_ppm=offsets, b1_uT=b1), engine=engine)
        gradients = torch.autograd.grad(z.sum(), [*tissue_values, b1, offsets], allow_unused=True)
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)
