"""Sequences of single events through the R1rho engine: spin locks in their own right."""

from __future__ import annotations

import math

import pytest
import torch
from expm_reference import GAMMA

from CESTQuantLib.physics.events import Event, EventPulse, Events, Play, Sample, Spoil, Wait
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate

HZ_PER_PPM = GAMMA * 3.0 / (2 * math.pi)
LOCK_UT = 4.0
TISSUES = {
    "water and amide": Tissue(Water(1.5, 0.08), (Pool("amide", 0.002, 100.0, 1.0, 0.1, 3.5),)),
    "glucose": Tissue(Water(1.5, 0.1), (Pool("hydroxyl", 0.003, 2000.0, 1.0, 0.02, 1.2),)),
    "white matter": Tissue(
        Water(1.0, 0.04),
        (Pool("amide", 9e-4, 50.0, 1.0, 0.1, 3.5), Pool("amine", 2e-4, 5500.0, 1.3, 0.2, 3.0)),
        Semisolid(0.13, 30.0, 1.0, 1e-5, -2.6, "superlorentzian", bridge_ppm=1.0),
    ),
}


def block(b1_uT: float, duration_s: float) -> EventPulse:
    return EventPulse((b1_uT,), (0.0,), (duration_s,))


def spin_locks(offsets_ppm: list[float], *, units: int = 1, duration_s: float = 0.1) -> Protocol:
    """Locks at some offsets between tip pulses to the effective field and back, repeated with gaps."""
    pulses, measurements = [block(LOCK_UT, duration_s)], []
    for offset in offsets_ppm:
        angle = math.atan2(LOCK_UT, abs(offset) * 3.0)
        pulses.append(block(angle / (2e-4 * GAMMA), 2e-4))
        tip, frequency = len(pulses) - 1, offset * HZ_PER_PPM
        sign = 0.0 if offset >= 0 else math.pi
        events: list[Event] = []
        for unit in range(units):
            if unit:
                events.append(Wait(0.02))
            events.append(Play(tip, 0.0, 1.5 * math.pi + sign))
            events.append(Play(0, frequency, 0.0))
            events.append(Play(tip, 0.0, 0.5 * math.pi + sign + 2 * math.pi * frequency * duration_s))
        measurements.append((*events, Wait(0.005), Spoil(), Sample()))
    count = len(offsets_ppm)
    return Protocol(3.0, offsets_ppm, [LOCK_UT] * count, duration_s, events=Events(tuple(pulses), tuple(measurements)))


@pytest.mark.parametrize("tissue", TISSUES)
@pytest.mark.parametrize("units", [1, 3])
def test_spin_locks_agree_with_the_bloch_mcconnell_equations(tissue: str, units: int) -> None:
    protocol = spin_locks([-3.5, -1.0, 0.0, 0.5, 1.2, 3.5], units=units)
    exact = simulate(TISSUES[tissue], protocol)
    analytic = simulate(TISSUES[tissue], protocol, engine="r1rho")
    torch.testing.assert_close(analytic, exact, rtol=0, atol=6e-3)


def test_the_error_of_spin_locks_adds_up_over_pools_and_stays_below_their_fractions() -> None:
    """The analytic solution leaves out the pools' own magnetisation, so it errs by a part of their fractions."""
    protocol, water = spin_locks([-3.5, -1.0, 0.0, 0.5, 1.2, 3.5]), Water(1.0, 0.04)
    pools = (
        Pool("amide", 9e-4, 50.0, 1.0, 0.1, 3.5),
        Pool("amine", 2e-4, 5500.0, 1.3, 0.2, 3.0),
        Pool("guanidinium", 6e-4, 500.0, 1.0, 0.1, 2.0),
        Pool("noe", 5e-3, 16.0, 1.3, 0.005, -3.5),
    )
    semisolid = Semisolid(0.13, 30.0, 1.0, 1e-5, -2.6, "superlorentzian", bridge_ppm=1.0)

    def error(*some: Pool, bound: Semisolid | None = None) -> torch.Tensor:
        tissue = Tissue(water, some, bound)
        return simulate(tissue, protocol, engine="r1rho") - simulate(tissue, protocol)

    alone = error()
    assert alone.abs().max() < 3e-4
    own = [error(pool) - alone for pool in pools]
    for pool, part in zip(pools, own, strict=True):
        assert part.abs().max() < 0.85 * pool.fraction
    together = error(*pools)
    torch.testing.assert_close(together, alone + torch.stack(own).sum(0), rtol=0, atol=3e-5)
    assert error(*pools, bound=semisolid).abs().max() < 1.3e-3


def test_a_lock_without_tip_pulses_is_another_experiment() -> None:
    with_tips = spin_locks([1.0])
    assert with_tips.events is not None
    alone = tuple(e for e in with_tips.events.measurements[0] if not (isinstance(e, Play) and e.pulse == 1))
    without = Protocol(3.0, [1.0], LOCK_UT, 0.1, events=Events(with_tips.events.pulses, (alone,)))
    tissue = TISSUES["water and amide"]
    signals = [simulate(tissue, p, engine="r1rho") for p in (with_tips, without)]
    assert float((signals[0] - signals[1]).abs()) > 0.2
    torch.testing.assert_close(signals[1], simulate(tissue, without), rtol=0, atol=6e-3)


def test_fields_act_on_tip_pulses_and_locks() -> None:
    protocol, tissue = spin_locks([-1.0, 0.0, 1.0]), TISSUES["glucose"]
    fields = {"b0_shift_ppm": torch.tensor([0.0, 0.1], dtype=torch.float64), "b1_relative": 0.9}
    exact, analytic = simulate(tissue, protocol, **fields), simulate(tissue, protocol, engine="r1rho", **fields)
    assert exact.shape == analytic.shape == (2, 3)
    torch.testing.assert_close(analytic, exact, rtol=0, atol=1e-2)


def test_excitations_are_read_relative_to_equilibrium() -> None:
    pulses = (block(2.0, 0.5), block(math.radians(30) / (1e-3 * GAMMA), 1e-3))
    measurements = tuple(
        (Play(0, offset * HZ_PER_PPM, 0.0), Play(1, 0.0, 0.0), Wait(0.01), Sample(True), Wait(0.5))
        for offset in (3.5, 8.0, 2.0)
    )
    for carried_over, normalization in ((False, "m0"), (True, "m0"), (True, "l2")):
        protocol = Protocol(
            3.0,
            [3.5, 8.0, 2.0],
            2.0,
            0.5,
            recovery_time_s=0.51,
            readout_flip_angle_deg=30.0,
            readout_pulse_s=1e-3,
            echo_time_s=0.01,
            magnetisation_carried_over=carried_over,
            signal_normalisation=normalization,
            events=Events(pulses, measurements),
        )
        tissue = TISSUES["water and amide"]
        exact, analytic = simulate(tissue, protocol), simulate(tissue, protocol, engine="r1rho")
        torch.testing.assert_close(analytic, exact, rtol=0, atol=6e-3)


def test_long_shaped_pulses_are_refused_by_name() -> None:
    shaped = EventPulse((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (0.01, 0.01, 0.01))
    protocol = Protocol(3.0, [1.0], 1.0, 0.03, events=Events((shaped,), ((Play(0, 100.0, 0.0), Sample()),)))
    with pytest.raises(ValueError, match=r"measurement 1 plays a shaped pulse of 0.03 s.*use bloch-mcconnell"):
        simulate(TISSUES["glucose"], protocol, engine="r1rho")


def test_events_that_cannot_be_are_refused() -> None:
    pulse = block(1.0, 0.1)
    for measurements, message in (
        ((Play(0, 0.0, 0.0),), "measurement 1 must have one sample"),
        ((Play(1, 0.0, 0.0), Sample()), "plays pulse 1, but there are 1"),
        ((Wait(-1.0), Sample()), "waits for -1 s"),
        ((Play(0, math.inf, 0.0), Sample()), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            Events((pulse,), (measurements,))
    with pytest.raises(ValueError, match="events has 1 measurements but offsets_ppm has 2 values"):
        Protocol(3.0, [1.0, 2.0], 1.0, 0.1, events=Events((pulse,), ((Sample(),),)))
