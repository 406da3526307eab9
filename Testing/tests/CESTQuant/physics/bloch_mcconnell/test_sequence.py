"""The Bloch-McConnell engine against an independent matrix exponential, through every part of a sequence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from expm_reference import Sample

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import simulate

WATER = {"f": 1.0, "k": 0.0, "T1": 1.3, "T2": 0.08, "dw": 0.0}
AMIDE = {"f": 1.1e-3, "k": 40.0, "T1": 1.0, "T2": 0.1, "dw": 3.5}
AMINE = {"f": 2.0e-3, "k": 900.0, "T1": 1.1, "T2": 0.03, "dw": 2.2}
BROAD = {"f": 0.12, "k": 25.0, "T1": 1.0, "T2": 1e-5, "dw": -2.5}
OFFSETS = [-6.0, -2.4, -0.4, 0.0, 0.7, 2.2, 3.5]


def tissue(*solutes: dict, mt: dict | None = None, **kind: str) -> Tissue:
    def values(pool: dict) -> dict:
        return dict(fraction=pool["f"], k_Hz=pool["k"], T1_s=pool["T1"], T2_s=pool["T2"], dw_ppm=pool["dw"])

    pools = tuple(Pool(f"pool{i}", **values(pool)) for i, pool in enumerate(solutes))
    return Tissue(Water(WATER["T1"], WATER["T2"]), pools, Semisolid(**values(mt), **kind) if mt else None)


def agree(ours: torch.Tensor, reference: list[float], tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(ours[0].numpy(), reference, rtol=0, atol=tolerance)


def cw(sample_arguments: dict, b1: float = 1.7, duration: float = 1.2, delay: float = 0.0) -> list[float]:
    result = []
    for offset in OFFSETS:
        sample = Sample(**sample_arguments)
        sample.step(duration, offset, b1)
        if delay:
            sample.step(delay)
        result.append(sample.z)
    return result


def test_continuous_wave_with_three_pools() -> None:
    ours = simulate(tissue(AMIDE, AMINE), Protocol(3.0, OFFSETS, 1.7, 1.2))
    agree(ours, cw({"pools": [WATER, AMIDE, AMINE], "B0": 3.0}))


def test_b0_shift_moves_all_pools_and_relative_b1_scales_the_field() -> None:
    ours = simulate(tissue(AMIDE), Protocol(7.0, OFFSETS, 1.7, 1.2), b0_shift_ppm=0.23, b1_relative=0.81)
    agree(ours, cw({"pools": [WATER, AMIDE], "B0": 7.0, "shift": 0.23, "relative_b1": 0.81}))


def test_initial_magnetisation_and_post_delay() -> None:
    protocol = Protocol(3.0, OFFSETS, 1.7, 1.2, post_delay_s=0.4, initial_magnetisation=0.35)
    agree(simulate(tissue(AMIDE), protocol), cw({"pools": [WATER, AMIDE], "B0": 3.0, "start": 0.35}, delay=0.4))


def test_z_only_lorentzian_semisolid() -> None:
    ours = simulate(tissue(AMIDE, mt=BROAD), Protocol(3.0, OFFSETS, 1.7, 1.2, post_delay_s=0.1))
    agree(ours, cw({"pools": [WATER, AMIDE], "mt": BROAD, "B0": 3.0}, delay=0.1))


def test_z_only_super_lorentzian_semisolid_agrees_with_exact_quadrature() -> None:
    ours = simulate(tissue(AMIDE, mt=BROAD, lineshape="superlorentzian"), Protocol(3.0, OFFSETS, 1.7, 1.2))
    agree(ours, cw({"pools": [WATER, AMIDE], "mt": BROAD | {"lineshape": "superlorentzian"}, "B0": 3.0}), 1e-6)


def test_xyz_semisolid_is_one_more_full_pool() -> None:
    ours = simulate(tissue(AMIDE, mt=BROAD, coupling="xyz"), Protocol(3.0, OFFSETS, 1.7, 1.2))
    agree(ours, cw({"pools": [WATER, AMIDE, BROAD], "B0": 3.0}))


def run_train(
    sample: Sample, offset: float, pulses: int, samples: np.ndarray, phases: np.ndarray, dwell: float, gap: float
) -> float:
    for n in range(pulses):
        for b1, phase in zip(samples, phases, strict=True):
            sample.step(dwell, offset, b1, phase)
        if n < pulses - 1:
            sample.step(gap)
    return sample.z


@pytest.mark.parametrize("phase_modulated", [False, True])
@pytest.mark.parametrize("pulses", [1, 2, 7])
def test_shaped_pulse_train_with_gaps(phase_modulated: bool, pulses: int) -> None:
    t = (np.arange(16) + 0.5) / 16 - 0.5
    samples = 3.1 * np.exp(-0.5 * (t / 0.2) ** 2)
    phases = 40 * t**2 if phase_modulated else np.zeros(16)
    train_phase = torch.from_numpy(phases) if phase_modulated else None
    shape = PulseShape("samples", torch.from_numpy(samples), train_phase, absolute=True)
    train = PulseTrain(pulses, 0.04, 0.011, shape)
    protocol = Protocol(3.0, OFFSETS, train.rms_of_unit_peak, train.total_time_s, train, post_delay_s=0.02)
    ours = simulate(tissue(AMIDE, AMINE, mt=BROAD), protocol, b0_shift_ppm=-0.1, b1_relative=1.1)
    reference = []
    for offset in OFFSETS:
        sample = Sample([WATER, AMIDE, AMINE], BROAD, B0=3.0, shift=-0.1, relative_b1=1.1)
        run_train(sample, offset, pulses, samples, phases, 0.04 / 16, 0.011)
        sample.step(0.02)
        reference.append(sample.z)
    agree(ours, reference)


def test_bipolar_pulse_keeps_the_sign_of_its_samples() -> None:
    samples = np.array([0.5, -1.0, 2.0, 3.0, 2.0, -1.0, 0.5])
    train = PulseTrain(3, 0.021, 0.004, PulseShape("samples", torch.from_numpy(samples), absolute=True))
    protocol = Protocol(3.0, OFFSETS, train.rms_of_unit_peak, train.total_time_s, train)
    reference = []
    for offset in OFFSETS:
        reference.append(run_train(Sample([WATER, AMIDE], B0=3.0), offset, 3, samples, np.zeros(7), 0.003, 0.004))
    agree(simulate(tissue(AMIDE), protocol), reference)


B1_SCHEDULE = [2.0, 0.0, 3.5, 1.0, 2.5, 0.5, 4.0]
FLIPS = [60.0, 20.0, 45.0, 90.0, 10.0, 30.0, 75.0]


def test_schedule_carries_the_magnetisation_over() -> None:
    times = np.linspace(0.2, 0.9, 7)
    waits = np.linspace(0.5, 0.1, 7)
    protocol = Protocol(
        9.4,
        OFFSETS,
        B1_SCHEDULE,
        torch.from_numpy(times),
        post_delay_s=0.03,
        recovery_time_s=torch.from_numpy(waits),
        magnetisation_carried_over=True,
    )
    sample, reference = Sample([WATER, AMIDE, AMINE], BROAD, B0=9.4), []
    for offset, b1, duration, wait in zip(OFFSETS, B1_SCHEDULE, times, waits, strict=True):
        sample.step(duration, offset, b1)
        sample.step(0.03)
        reference.append(sample.z)
        sample.step(wait)
    agree(simulate(tissue(AMIDE, AMINE, mt=BROAD), protocol), reference)


def test_schedule_with_ideal_spoiled_readout() -> None:
    protocol = Protocol(
        3.0,
        OFFSETS,
        B1_SCHEDULE,
        0.6,
        recovery_time_s=0.7,
        readout_flip_angle_deg=FLIPS,
        magnetisation_carried_over=True,
        signal_normalisation="none",
    )
    sample, reference = Sample([WATER, AMIDE], BROAD, B0=3.0, relative_b1=0.9), []
    for offset, b1, flip in zip(OFFSETS, B1_SCHEDULE, FLIPS, strict=True):
        sample.step(0.6, offset, b1)
        angle = 0.9 * math.radians(flip)
        reference.append(sample.z * math.sin(angle))
        sample.spoil(angle)
        sample.step(0.7)
    agree(simulate(tissue(AMIDE, mt=BROAD), protocol, b1_relative=0.9), reference)


def carried_over(**changes) -> Protocol:
    values = {"recovery_time_s": 0.3, "readout_flip_angle_deg": 90.0, "magnetisation_carried_over": True}
    return Protocol(3.0, [-10.0, -6.0, 6.0, 10.0], 1.0, 0.5, **{**values, **changes})


@pytest.mark.parametrize("coupling", ["z-only", "xyz"])
def test_an_ideal_readout_leaves_a_semisolid_pool_as_a_real_pulse_does(coupling: str) -> None:
    white_matter = tissue(mt=BROAD | {"f": 0.1, "dw": 0.0}, coupling=coupling)
    real = simulate(white_matter, carried_over(readout_pulse_s=1e-3))
    torch.testing.assert_close(simulate(white_matter, carried_over()), real, rtol=0, atol=3e-3)


def test_the_echo_time_of_an_ideal_readout_does_not_shorten_the_recovery() -> None:
    at_once = simulate(tissue(AMIDE), carried_over(readout_flip_angle_deg=60.0))
    late = simulate(tissue(AMIDE), carried_over(readout_flip_angle_deg=60.0, echo_time_s=0.1))
    torch.testing.assert_close(late, at_once, rtol=0, atol=1e-14)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize(("coupling", "further_r2_Hz"), [("z-only", 0.0), ("xyz", BROAD["f"] * BROAD["k"])])
def test_the_signal_of_an_ideal_readout_decays_until_the_echo(
    carried: bool, coupling: str, further_r2_Hz: float
) -> None:
    """Transverse water decays with its T2, and further where it exchanges into a pool that dephases at once."""
    choices = {"signal_normalisation": "none", "magnetisation_carried_over": carried}
    one = tissue(mt=BROAD, coupling=coupling)
    at_once, late = (simulate(one, carried_over(echo_time_s=echo, **choices)) for echo in (0.0, 0.1))
    torch.testing.assert_close(late, at_once * math.exp(-0.1 * (1 / WATER["T2"] + further_r2_Hz)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("carried", [True, False])
def test_the_signal_of_an_ideal_readout_at_the_echo_is_that_of_a_hard_pulse(carried: bool) -> None:
    choices = {"signal_normalisation": "none", "magnetisation_carried_over": carried}
    choices |= {"post_delay_s": 1.0, "recovery_time_s": 2.0}  # nothing transverse is left for the hard pulse to turn
    ideal, hard = (
        simulate(
            tissue(AMIDE, AMINE), carried_over(readout_pulse_s=pulse, echo_time_s=0.03, **choices), b0_shift_ppm=0.1
        )
        for pulse in (0.0, 1e-7)
    )
    torch.testing.assert_close(ideal, hard, rtol=0, atol=1e-4)


def test_the_signal_at_the_echo_keeps_the_sign_of_the_inverted_water() -> None:
    choices = {"initial_magnetisation": -1.0, "initial_recovery_s": 0.0, "signal_normalisation": "none"}
    signal = simulate(tissue(AMIDE), carried_over(echo_time_s=0.03, **choices), b0_shift_ppm=0.3)
    assert float(signal[0, 0]) < -0.1


@pytest.mark.parametrize("normalisation", ["none", "l2"])
def test_real_readout_pulse_with_echo_and_unspoiled_recovery(normalisation: str) -> None:
    protocol = Protocol(
        9.4,
        OFFSETS,
        B1_SCHEDULE,
        0.6,
        recovery_time_s=0.7,
        readout_flip_angle_deg=60.0,
        readout_pulse_s=0.0021,
        echo_time_s=0.02,
        magnetisation_carried_over=True,
        signal_normalisation=normalisation,
    )
    ours = simulate(tissue(AMIDE, AMINE), protocol, b0_shift_ppm=0.04, b1_relative=1.07)
    sample, reference = Sample([WATER, AMIDE, AMINE], B0=9.4, shift=0.04, relative_b1=1.07), []
    b1_readout = math.radians(60.0) / (267.5154109126009 * 0.0021)
    for offset, b1 in zip(OFFSETS, B1_SCHEDULE, strict=True):
        sample.step(0.6, offset, b1)
        sample.step(0.0021, 0.0, b1_readout)
        sample.step(0.02)
        reference.append(sample.transverse)
        sample.step(0.7 - 0.02)
    scale = np.linalg.norm(reference) if normalisation == "l2" else 1.0
    agree(ours, list(np.array(reference) / scale))


def test_real_readout_is_normalised_by_the_same_readout_at_equilibrium() -> None:
    protocol = Protocol(3.0, OFFSETS, 1.7, 1.2, readout_flip_angle_deg=40.0, readout_pulse_s=0.002, echo_time_s=0.01)
    b1_readout = math.radians(40.0) / (267.5154109126009 * 0.002)
    reference = []
    for offset in [*OFFSETS, None]:
        sample = Sample([WATER, AMIDE], B0=3.0)
        if offset is not None:
            sample.step(1.2, offset, 1.7)
        sample.step(0.002, 0.0, b1_readout)
        sample.step(0.01)
        reference.append(sample.transverse)
    agree(simulate(tissue(AMIDE), protocol), list(np.array(reference[:-1]) / reference[-1]))


def test_voxels_do_not_influence_each_other() -> None:
    fraction = torch.tensor([5e-4, 1e-3, 2e-3], dtype=torch.float64)
    k = torch.tensor([20.0, 400.0, 5000.0], dtype=torch.float64)
    protocol = Protocol(3.0, OFFSETS, 1.7, 1.2)
    together = simulate(Tissue(Water(1.3, 0.08), (Pool("a", fraction, k, 1.0, 0.1, 3.5),)), protocol)
    for voxel in range(3):
        alone = Tissue(Water(1.3, 0.08), (Pool("a", float(fraction[voxel]), float(k[voxel]), 1.0, 0.1, 3.5),))
        torch.testing.assert_close(together[voxel], simulate(alone, protocol)[0], rtol=0, atol=1e-13)
