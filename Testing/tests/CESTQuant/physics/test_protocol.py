"""Protocols: values per measurement, units, and what belongs to a measurement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from CESTQuantLib.physics.engines import ENGINES
from CESTQuantLib.physics.events import Event, EventPulse, Events, Play, Sample, Spoil, Wait
from CESTQuantLib.physics.pools import Tissue, Water
from CESTQuantLib.physics.protocol import PER_MEASUREMENT, Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT, concentration_mM

OFFSETS = [-3.5, 0.0, 3.5]


def test_numbers_and_lists_become_one_float64_value_per_measurement() -> None:
    protocol = Protocol(3.0, OFFSETS, 2, [1, 2, 3])
    for name in PER_MEASUREMENT:
        value = getattr(protocol, name)
        assert value is None or (value.shape, value.dtype) == ((3,), torch.float64), name
    assert protocol.b1_uT.tolist() == [2.0, 2.0, 2.0]
    assert protocol.saturation_time_s.tolist() == [1.0, 2.0, 3.0]
    assert protocol.recovery_time_s.tolist() == [0.0, 0.0, 0.0]
    assert protocol.readout_flip_angle_deg is None


@pytest.mark.parametrize("given", [2, np.int64(2), [2], np.array([2]), (2,)])
def test_the_m0_measurements_become_a_tuple_of_integers(given: object) -> None:
    found = Protocol(3.0, [1.0, 100.0], 2.0, 1.0, m0_measurements=given).m0_measurements
    assert found == (2,)
    assert type(found[0]) is int


def test_a_protocol_is_equal_to_itself_only() -> None:
    one, other = (Protocol(3.0, [1.0, 2.0], 2.0, 1.0) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_tensors_keep_their_gradients() -> None:
    b1 = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert Protocol(3.0, OFFSETS, b1, 2.0).b1_uT.requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b1_uT": [1.0, 2.0]}, "b1_uT has 2 values but offsets_ppm has 3; give one value or 3"),
        ({"saturation_time_s": -1.0}, "saturation_time_s contains the negative value -1"),
        ({"post_delay_s": math.nan}, "post_delay_s contains a value that is not finite"),
        ({"offsets_ppm": []}, "offsets_ppm is empty"),
        ({"field_strength_T": -3.0}, "field_strength_T is -3 but must be positive"),
        ({"echo_time_s": -0.01}, "echo_time_s is -0.01 but must be 0 or more"),
        ({"signal_normalisation": "max"}, "signal_normalisation 'max' is unknown; use one of m0, l2, none"),
        ({"magnetisation_carried_over": True, "echo_time_s": 0.02}, "must not be shorter than echo_time_s"),
    ],
)
def test_unusable_values_are_refused_by_name(change: dict, words: str) -> None:
    values = {"field_strength_T": 3.0, "offsets_ppm": OFFSETS, "b1_uT": 2.0, "saturation_time_s": 2.0}
    with pytest.raises(ValueError, match=words):
        Protocol(**values | change)


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        ({"readout_flip_angle_deg": 0.0}, "0"),
        ({"readout_flip_angle_deg": 180.0, "readout_pulse_s": 0.001}, "180"),
        ({"readout_flip_angle_deg": torch.tensor(180.0)}, "180"),
        ({"readout_flip_angle_deg": [90.0, 0.0, 90.0]}, "0"),
        ({"readout_flip_angle_deg": 0.0, "signal_normalisation": "l2"}, "0"),
    ],
)
def test_an_excitation_that_excites_nothing_is_refused(change: dict, stated: str) -> None:
    words = f"readout_flip_angle_deg is {stated}, which excites nothing: leave it out where z is sampled"
    with pytest.raises(ValueError, match=words):
        Protocol(3.0, OFFSETS, 2.0, 2.0, **change)


@pytest.mark.parametrize("normalisation", ["l2", "none"])
def test_single_measurements_may_go_without_excitation_where_nothing_is_divided_by_their_readout(
    normalisation: str,
) -> None:
    flips = [90.0, 0.0, 90.0]
    protocol = Protocol(3.0, OFFSETS, 2.0, 2.0, readout_flip_angle_deg=flips, signal_normalisation=normalisation)
    for engine in ENGINES:
        assert bool((simulate(Tissue(Water(1.3, 0.08)), protocol, engine=engine)[0, [0, 2]] > 0).all())


def test_a_larmor_frequency_replaces_the_nominal_field() -> None:
    assert Protocol(3.0, OFFSETS, 2.0, 2.0).rad_per_s_per_ppm == pytest.approx(3.0 * GAMMA_RAD_PER_S_PER_UT)
    measured = Protocol(3.0, OFFSETS, 2.0, 2.0, larmor_frequency_MHz=127.74)
    assert measured.rad_per_s_per_ppm == pytest.approx(2 * math.pi * 127.74)


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(1, None)])
def test_a_selection_keeps_what_belongs_to_a_measurement(index: torch.Tensor | slice) -> None:
    protocol = Protocol(3.0, OFFSETS, [1, 2, 3], [4, 5, 6], recovery_time_s=7.0, readout_flip_angle_deg=[10, 20, 30])
    part = protocol.select(index)
    for name in PER_MEASUREMENT:
        torch.testing.assert_close(getattr(part, name), getattr(protocol, name)[index])
    assert part.measurement_count == 2
    assert len(part.tensors()) == len(PER_MEASUREMENT)


def test_a_train_has_gaps_between_its_pulses_only() -> None:
    train = PulseTrain(4, 0.05, 0.05, PulseShape.named("block"))
    assert train.total_time_s == pytest.approx(0.35)
    assert train.duty_cycle == 0.5
    assert train.rms_of_unit_peak == pytest.approx(math.sqrt(0.5))
    assert Protocol(3.0, OFFSETS, 1.0, train.total_time_s, train).duty_cycle == 0.5
    assert Protocol(3.0, OFFSETS, 1.0, 2.0).duty_cycle == 1.0


@pytest.mark.parametrize("time_s", [2.0, 0.0, 0.4, [0.35, 0.35, 2.0]])
def test_a_duration_that_is_not_that_of_the_pulses_is_refused(time_s: float | list[float]) -> None:
    train = PulseTrain(4, 0.05, 0.05, PulseShape.named("block"))
    with pytest.raises(ValueError, match=r"saturation_time_s is .* but the pulse train lasts 0.35 s, without a gap"):
        Protocol(3.0, OFFSETS, 1.0, time_s, train)


def test_a_rounded_duration_of_a_train_is_accepted() -> None:
    train = PulseTrain(7, 0.0333333, 0.0111111, PulseShape.named("block"))
    assert Protocol(3.0, OFFSETS, 1.0, 0.3, train).saturation_time_s.tolist() == [0.3] * 3


def test_named_shapes_are_symmetric_and_highest_in_the_middle() -> None:
    for name in ("gaussian", "sinc_gaussian"):
        amplitude = PulseShape.named(name, 101).amplitude
        torch.testing.assert_close(amplitude, amplitude.flip(0))
        assert int(amplitude.argmax()) == 50
    assert float(PulseShape.named("sinc_gaussian").amplitude.min()) < 0


def test_a_fraction_of_water_protons_is_a_concentration() -> None:
    assert concentration_mM(0.003, 3) == pytest.approx(110.0)
    assert concentration_mM(torch.tensor([0.001, 0.002]), 2).tolist() == pytest.approx([55.0, 110.0])


def test_the_duty_cycle_of_single_events_is_that_of_their_pulses_and_gaps() -> None:
    pulse = EventPulse((2.0,), (0.0,), (0.04,))
    silent = EventPulse((0.0,), (0.0,), (0.01,))

    def duty_cycle(*events: Event) -> float:
        played = Events((pulse, silent), ((*events, Sample()), (Wait(3.0), Sample())))
        return Protocol(3.0, [3.5, -300.0], 1.0, 0.2, events=played).duty_cycle

    play, nothing = Play(0, 400.0, 0.0), Play(1, 0.0, 0.0)
    assert duty_cycle(Wait(1.0), play, Spoil(), Wait(0.1)) == 1.0
    assert duty_cycle(play, Wait(0.02), play, Wait(0.1)) == pytest.approx(2 / 3)
    assert duty_cycle(play, nothing, Wait(0.01), play) == pytest.approx(2 / 3)
    assert duty_cycle(play, play, Wait(0.04), play, play) == pytest.approx(2 / 3)
    assert duty_cycle(Wait(1.0)) == 1.0
