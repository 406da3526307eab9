"""The keys of ``protocol.json``: what they mean, what is refused, and writing and reading the same protocol."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from arbitrary_values import SEEDED, json_values, one_line, reads_or_explains
from hypothesis import given
from hypothesis import strategies as st

from CESTQuantLib.formats.protocol_json import protocol_from_dict, protocol_to_dict
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape

CW = {"field_strength_T": 3.0, "offsets_ppm": [-3.5, 0.0, 3.5], "b1_uT": 2.0, "saturation_time_s": 2.0}
TRAIN = {
    "field_strength_T": 7.0,
    "offsets_ppm": [1.0, 2.0],
    "b1_uT": [0.6, 0.9],
    "saturation_type": "pulse_train",
    "n_pulses": 20,
    "pulse_duration_s": 0.05,
    "duty_cycle": 0.5,
    "pulse_shape": "gaussian",
}


# values


def test_one_value_serves_all_measurements() -> None:
    protocol = protocol_from_dict(CW)
    assert protocol.b1_uT.tolist() == [2.0, 2.0, 2.0]
    assert protocol.measurement_count == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b1_uT": -1.0}, "b1_uT contains the negative value -1"),
        ({"b1_uT": [1.0, 2.0]}, "b1_uT has 2 values but offsets_ppm has 3"),
        ({"b1_uT": "two"}, "b1_uT must be a number"),
        ({"offsets_ppm": None}, "offsets_ppm is null: fill it in"),
        ({"field_strength_T": None}, "field_strength_T is null: fill it in"),
        ({"offsets_ppm": []}, "offsets_ppm is empty"),
        ({"offsets_ppm": [1.0, float("nan"), 2.0]}, "offsets_ppm contains a value that is not finite"),
        ({"offsets_ppm": [1.0, None, 2.0]}, "offsets_ppm must be a number"),
        ({"saturation_time_s": -2}, "saturation_time_s contains the negative value"),
        ({"saturation_time_s": [1, 2, float("inf")]}, "saturation_time_s contains a value that is not finite"),
        ({"field_strength_T": 0}, "field_strength_T is 0 but must be positive"),
        ({"field_strength_T": float("inf")}, "field_strength_T"),
        ({"field_strength_T": [3.0]}, "field_strength_T is [3.0]"),
        ({"recovery_time_s": -0.1}, "recovery_time_s contains the negative value"),
        ({"saturation_type": "spin-lock"}, "saturation_type 'spin-lock' is unknown"),
        ({"saturation_type": "pulse_train"}, "n_pulses"),
        ({"signal_normalisation": "max"}, "signal_normalisation 'max' is unknown"),
        ({"larmor_frequency_MHz": "400 MHz"}, "larmor_frequency_MHz"),
        ({"larmor_frequency_MHz": -400.0}, "larmor_frequency_MHz"),
        ({"gamma_rad_per_s_per_uT": float("nan")}, "gamma_rad_per_s_per_uT"),
        ({"initial_magnetisation": float("nan")}, "initial_magnetisation"),
        ({"initial_magnetisation": 30}, "initial_magnetisation is 30 but must lie between -1 and 1"),
        ({"gamma_rad_per_s_per_uT": 42.5764}, "42.5764, which is that of 1H in MHz/T: give 267.52 rad/(s uT)"),
        ({"gamma_rad_per_s_per_uT": 2.675e8}, "2.675e+08, which is that of 1H in rad/(s T): give 267.5 rad/(s uT)"),
        ({"gamma_rad_per_s_per_uT": 100}, "100, which no nucleus of MR has: give it in rad/(s uT)"),
        ({"readout": [1, 2]}, "readout"),
        ({"magnetisation_carried_over": "false"}, "magnetisation_carried_over is 'false' but must be true or false"),
        ({"magnetisation_carried_over": 1}, "magnetisation_carried_over is 1 but must be true or false"),
        ({"readout": {"pulse_duration_s": -0.001}}, "readout_pulse_s is -0.001"),
        ({"readout": {"echo_time_s": -0.02}}, "echo_time_s"),
        (
            {"saturation_time_s": [1.0, 1.0, 2000.0]},
            "saturation_time_s is 2000, which no acquisition has: give it in s",
        ),
        ({"post_delay_s": 65}, "post_delay_s is 65, which no acquisition has: give it in s, not in ms"),
        ({"recovery_time_s": 3000}, "recovery_time_s is 3000"),
        ({"initial_recovery_s": 3000}, "initial_recovery_s is 3000"),
        ({"readout": {"echo_time_s": 20}}, "echo_time_s is 20"),
        (
            {"magnetisation_carried_over": True, "recovery_time_s": 0.01, "readout": {"echo_time_s": 0.02}},
            "must not be shorter than echo_time_s",
        ),
    ],
)
def test_unusable_values_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"p\.json: ") as caught:
        protocol_from_dict(CW | change, "p.json")
    one_line(caught.value, "p.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_pulses": 0}, "n_pulses is 0"),
        ({"n_pulses": float("inf")}, "n_pulses"),
        ({"n_pulses": 2.5}, "n_pulses"),
        ({"pulse_duration_s": 0}, "pulse_duration_s is 0"),
        ({"pulse_delay_s": -1e-3}, "pulse_delay_s is -0.001"),
        (
            {"pulse_duration_s": 50, "pulse_delay_s": 5},
            "pulse_duration_s is 50, which no pulse lasts: give it in s, not in",
        ),
        ({"pulse_delay_s": 5}, "the pulse train lasts 96 s, which no acquisition has: give pulse_duration_s and"),
        ({"duty_cycle": 1.5}, "duty_cycle is 1.5"),
        ({"duty_cycle": 0}, "duty_cycle is 0"),
        ({"pulse_shape": "fermi"}, "pulse_shape 'fermi' is unknown"),
        ({"pulse_shape": 7}, "pulse_shape"),
        ({"pulse_shape": {"samples_uT": [], "dwell_s": 1e-3}}, "at least one sample"),
        ({"pulse_shape": {"samples_uT": [0.0, 0.0]}}, "only zero samples"),
        ({"pulse_shape": {"samples_uT": [1.0, 2.0], "dwell_s": 1e-3}}, "samples of 0.001 s last 0.002 s"),
        ({"pulse_shape": {"samples_uT": [1.0, float("nan")]}}, "not finite"),
        ({"pulse_shape": {"samples_uT": [1.0, 2.0], "phase_rad": [0.0]}}, "phase"),
    ],
)
def test_unusable_pulse_trains_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"p\.json: ") as caught:
        protocol_from_dict(TRAIN | change, "p.json")
    one_line(caught.value, "p.json")
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["field_strength_T", "offsets_ppm", "b1_uT", "saturation_time_s"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"p.json: the key '{key}' is missing"):
        protocol_from_dict({k: v for k, v in CW.items() if k != key}, "p.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"te": 1, "b1_ut": 2}, "p.json: unknown keys are ignored: b1_ut, te"),
        ({"readout": {"echo_time_ms": 20}}, "p.json: readout: unknown keys are ignored: echo_time_ms"),
        ({"pulse_shape": {"samples_uT": [1.0], "dwell": 1}}, "p.json: pulse_shape: unknown keys are ignored: dwell"),
    ],
)
def test_unknown_keys_are_named_in_a_warning(change: dict[str, Any], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        protocol_from_dict(CW | change, "p.json")


@pytest.mark.parametrize("b1_uT", [85.0, 2e-6, [0.0, 1.0, 106.0]])
def test_a_power_that_may_be_in_another_unit_is_told(b1_uT: Any) -> None:
    unusual = max(b1_uT) if isinstance(b1_uT, list) else b1_uT
    with pytest.warns(
        UserWarning, match=f"p.json: b1_uT is {unusual:g}, which is unusual for a saturation: check that"
    ):
        protocol_from_dict(CW | {"b1_uT": b1_uT}, "p.json")


@pytest.mark.parametrize("change", [{"b1_uT": [0.0, 0.05, 47.0]}, {"saturation_time_s": 15.0, "recovery_time_s": 60.0}])
def test_spin_locks_no_power_and_long_phantom_measurements_are_not_told(change: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        protocol_from_dict(CW | change, "p.json")


def test_b1_of_a_train_is_the_root_mean_square_over_pulses_and_gaps() -> None:
    samples = [1.0, 3.0, 2.0, 0.5]
    values = {k: v for k, v in TRAIN.items() if k != "b1_uT"}
    protocol = protocol_from_dict(values | {"pulse_shape": {"samples_uT": samples}})
    assert protocol.b1_uT[0].item() == pytest.approx(np.sqrt(np.mean(np.square(samples)) * 0.5))
    assert protocol.saturation_time_s[0].item() == pytest.approx(20 * 0.05 + 19 * 0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pulse_delay_s": 0.0}, "p.json: duty_cycle is 0.5 but pulse_delay_s is that of 1; pulse_delay_s counts"),
        (
            {"saturation_time_s": 5.0},
            "p.json: saturation_time_s is 5 but the pulse train lasts 1.95 s; the pulses count",
        ),
    ],
)
def test_values_that_contradict_the_pulses_are_told(change: dict[str, Any], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        protocol_from_dict(TRAIN | change, "p.json")


@pytest.mark.parametrize(
    "change",
    [{"pulse_delay_s": 0.0502}, {"saturation_time_s": 1.95}, {"saturation_time_s": 2.0}, {"saturation_time_s": 0.0}],
)
def test_rounded_values_of_the_pulses_are_not_told(change: dict[str, Any]) -> None:
    """The time of a train may hold the gap after its last pulse, and is 0 where only the pulses are given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        protocol_from_dict(TRAIN | change, "p.json")


@pytest.mark.parametrize(
    ("played_ppm", "stated_ppm", "told"),
    [((3.5,), 3.5, False), ((3.5,), 2.0, True), ((3.5, -3.5), 0.0, False), ((3.5, -3.5), 5.0, True)],
)
def test_offsets_that_the_events_do_not_play_are_told(
    played_ppm: tuple[float, ...], stated_ppm: float, told: bool
) -> None:
    plays = [["play", 0, offset * 3 * MHZ_PER_T, 0.0] for offset in played_ppm]
    events = {
        "pulses": [{"amplitude_uT": [2.0], "phase_rad": [0.0], "duration_s": [0.1]}],
        "measurements": [[*plays, ["sample", "longitudinal"]]],
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        protocol_from_dict(CW | {"offsets_ppm": [stated_ppm], "events": events}, "p.json")
    words = [str(warning.message) for warning in caught]
    expected = f"p.json: offsets_ppm of measurement 1 is {stated_ppm:g} but its events play 3.5 ppm"
    assert [text.startswith(expected) for text in words] == [True] * told


# round trip

MHZ_PER_T = 42.5764
positive = st.floats(1e-3, 20, allow_nan=False)


@st.composite
def protocols(draw: st.DrawFn) -> Protocol:
    count = draw(st.integers(1, 6))

    def per_measurement(values: st.SearchStrategy[float]) -> float | list[float]:
        return draw(st.one_of(values, st.lists(values, min_size=count, max_size=count)))

    offsets = draw(st.lists(st.floats(-300, 300), min_size=count, max_size=count))
    train = None
    if draw(st.booleans()):
        shapes = [PulseShape.named("block"), PulseShape.named("gaussian"), PulseShape.named("sinc_gaussian")]
        samples = torch.tensor(draw(st.lists(positive, min_size=1, max_size=5)), dtype=torch.float64)
        shapes.append(PulseShape("samples", samples, absolute=True))
        shapes.append(PulseShape("samples", samples, samples * 0.3, absolute=True))
        train = PulseTrain(
            draw(st.integers(1, 40)), draw(st.floats(1e-3, 0.5)), draw(st.floats(0, 1)), draw(st.sampled_from(shapes))
        )
    echo, field = draw(st.floats(0, 0.05)), draw(positive)
    return Protocol(
        field_strength_T=field,
        offsets_ppm=torch.tensor(offsets, dtype=torch.float64),
        b1_uT=per_measurement(st.just(0.0) | st.floats(0.01, 10)),
        saturation_time_s=train.total_time_s if train else per_measurement(st.floats(0, 10)),
        pulses=train,
        post_delay_s=per_measurement(st.floats(0, 1)),
        recovery_time_s=per_measurement(st.floats(0.05, 5)),
        readout_flip_angle_deg=draw(st.none()) or per_measurement(st.floats(1, 179)),
        readout_pulse_s=draw(st.floats(0, 0.01)),
        echo_time_s=echo,
        magnetisation_carried_over=draw(st.booleans()),
        initial_magnetisation=draw(st.floats(-1, 1)),
        signal_normalisation=draw(st.sampled_from(["m0", "l2", "none"])),
        larmor_frequency_MHz=draw(
            st.one_of(st.none(), st.floats(0.97, 1.03).map(lambda share: share * field * MHZ_PER_T))
        ),
    )


@given(protocols())
@SEEDED
def test_a_protocol_written_as_json_reads_back_the_same(protocol: Protocol) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = protocol_from_dict(json.loads(json.dumps(protocol_to_dict(protocol))))
    for name, value in vars(protocol).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(back, name), value, rtol=1e-12, atol=1e-12)
        elif name != "pulses":
            assert getattr(back, name) == value
    assert (back.pulses is None) == (protocol.pulses is None)
    if protocol.pulses:
        assert back.pulses.n_pulses == protocol.pulses.n_pulses
        assert back.pulses.shape.description() == protocol.pulses.shape.description()
        assert back.pulses.rms_of_unit_peak == pytest.approx(protocol.pulses.rms_of_unit_peak)


# arbitrary input

protocol_keys = st.sampled_from(
    [
        *CW,
        *TRAIN,
        "post_delay_s",
        "recovery_time_s",
        "readout_flip_angle_deg",
        "readout",
        "signal_normalisation",
        "magnetisation_carried_over",
        "larmor_frequency_MHz",
        "gamma_rad_per_s_per_uT",
        "initial_magnetisation",
    ]
)


@given(st.sampled_from([CW, TRAIN]), st.dictionaries(protocol_keys, json_values, max_size=4))
@SEEDED
def test_arbitrary_values_never_crash_the_protocol(base: dict[str, Any], changes: dict[str, Any]) -> None:
    reads_or_explains(lambda: protocol_from_dict(base | changes, "p.json"), "p.json")


@given(json_values)
@SEEDED
def test_arbitrary_json_is_refused_in_one_line(value: Any) -> None:
    reads_or_explains(lambda: protocol_from_dict(value, "p.json"), "p.json")


def test_what_is_null_is_open_until_a_physical_method_needs_it() -> None:
    """Files from scanners do not say everything; contrasts do without power and duration."""
    values = {"field_strength_T": 3.0, "offsets_ppm": [1.0, 2.0], "b1_uT": 2.0, "saturation_time_s": 1.0}
    protocol_from_dict(values | {"post_delay_s": None, "note": None}).require_known("the fit")
    protocol = protocol_from_dict(values | {"b1_uT": None, "saturation_type": None})
    assert protocol.unknown == ("b1_uT", "saturation_type")
    with pytest.raises(
        ValueError, match="b1_uT and saturation_type are null in the protocol: fill in the values that r1"
    ):
        protocol.select(slice(1)).require_known("r1rho")
    written = protocol_to_dict(protocol)
    assert (written["b1_uT"], written["saturation_type"]) == (None, None)
    assert protocol_from_dict(written).unknown == protocol.unknown


def test_null_keys_that_another_key_replaces_are_not_open() -> None:
    train = {"n_pulses": 2, "pulse_duration_s": 0.1, "pulse_delay_s": 0.1, "pulse_shape": "block"}
    values = {
        "field_strength_T": 3.0,
        "offsets_ppm": [1.0],
        "b1_uT": 2.0,
        "saturation_time_s": None,
        "duty_cycle": None,
    }
    assert protocol_from_dict(values | train).unknown == ()
    assert protocol_from_dict(values | train | {"pulse_duration_s": None}).unknown == ("pulse_duration_s",)
    block = {"saturation_type": "cw", "saturation_time_s": 1.0, "n_pulses": None, "pulse_shape": None}
    assert protocol_from_dict(values | block).unknown == ()
