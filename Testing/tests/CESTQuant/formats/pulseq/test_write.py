"""Protocols written as pulseq files read back as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from CESTQuantLib.formats.protocol_difference import protocol_difference
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.formats.protocol_json import protocol_from_dict, protocol_to_dict
from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.formats.pulseq.write import IDEAL_PULSE_S, SAMPLE_S, write_seq
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import PER_MEASUREMENT, Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.schedules.limits import scan_time_s

TISSUE = Tissue(Water(2.5, 0.8), (Pool("amine", 1.5e-3, 400.0, 2.5, 0.04, 3.0),))


def schedule(**changes: Any) -> Protocol:
    values = {
        "offsets_ppm": [3.123, -4.0, 2.777, 3.5, 0.0],
        "b1_uT": [2.345, 5.999, 0.0, 0.25, 1.0],
        "saturation_time_s": [1.0, 0.0503, 2.5, 3.7711, 0.6],
        "recovery_time_s": [0.5, 0.0312, 0.75, 0.02, 1.1],
        "readout_flip_angle_deg": [60.0, 12.34, 90.0, 45.0, 30.0],
        "magnetisation_carried_over": True,
        "signal_normalisation": "l2",
    }
    return Protocol(9.4, **{**values, **changes})


def assert_same(one: Protocol, other: Protocol) -> None:
    """Check that two protocols agree to 1e-8 in every quantity."""
    for name in PER_MEASUREMENT:
        first, second = getattr(one, name), getattr(other, name)
        if first is None or second is None:
            assert first is second, name
        else:
            torch.testing.assert_close(second, first, rtol=0, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
    for name in (
        "field_strength_T",
        "readout_pulse_s",
        "echo_time_s",
        "magnetisation_carried_over",
        "signal_normalisation",
        "initial_magnetisation",
        "larmor_frequency_MHz",
    ):
        assert getattr(one, name) == pytest.approx(getattr(other, name)), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"post_delay_s": 0.005},
        {"readout_pulse_s": 0.0021, "echo_time_s": 0.02},
        {"readout_pulse_s": 0.0021, "echo_time_s": 0.02, "post_delay_s": [0.0, 0.001, 0.002, 0.003, 0.004]},
        {"readout_flip_angle_deg": None},
        {"readout_flip_angle_deg": None, "magnetisation_carried_over": False, "signal_normalisation": "m0"},
        {"magnetisation_carried_over": False, "signal_normalisation": "none", "initial_magnetisation": 0.4},
        {"larmor_frequency_MHz": 399.7},
        {"b1_uT": 1.5, "saturation_time_s": 2.0, "readout_flip_angle_deg": 90.0},
    ],
)
def test_continuous_wave_schedules_read_back_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    protocol = schedule(**changes)
    write_seq(protocol, tmp_path / "a.seq")
    assert_same(protocol, read_seq(tmp_path / "a.seq"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"post_delay_s": 0.005},
        {"readout_pulse_s": 0.0021, "echo_time_s": 0.02},
        {"readout_flip_angle_deg": None},
        {"echo_time_s": 0.01},
        {"recovery_time_s": [0.5, 0.0005, 0.75, 0.02, 0.001]},
    ],
)
def test_a_written_schedule_lasts_as_long_as_its_scan_time(changes: dict[str, Any], tmp_path: Path) -> None:
    import pypulseq

    protocol = schedule(**changes)
    write_seq(protocol, tmp_path / "a.seq")
    sequence = pypulseq.Sequence()
    sequence.read(str(tmp_path / "a.seq"))
    excited = protocol.readout_flip_angle_deg is not None
    rest = protocol.recovery_time_s - excited * protocol.echo_time_s
    needed = SAMPLE_S + (IDEAL_PULSE_S if excited and protocol.readout_pulse_s == 0 else 0.0)
    missing = float((needed - rest).clamp_min(0).sum())  # where the recovery is too short to hold them
    assert missing < 6e-4
    assert sequence.duration()[0] == pytest.approx(float(scan_time_s(protocol)) + missing, abs=1e-9)
    assert_same(protocol, read_seq(tmp_path / "a.seq"))


def test_files_of_earlier_versions_read_as_before(tmp_path: Path) -> None:
    """They have no definition ``readout_overhead_s``: the whole recovery follows the sample."""
    write_seq(schedule(b1_uT=1.0), tmp_path / "a.seq")
    lines = (tmp_path / "a.seq").read_text().splitlines(keepends=True)
    (tmp_path / "a.seq").write_text("".join(line for line in lines if not line.startswith("readout_overhead_s")))
    found = read_seq(tmp_path / "a.seq").recovery_time_s
    expected = schedule().recovery_time_s - IDEAL_PULSE_S - SAMPLE_S
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_long_blocks_stay_small_files(tmp_path: Path) -> None:
    write_seq(schedule(), tmp_path / "a.seq")
    assert (tmp_path / "a.seq").stat().st_size < 10_000


@pytest.mark.parametrize("shape", ["block", "gaussian", "sinc_gaussian"])
def test_pulse_trains_read_back_to_the_same_signal(shape: str, tmp_path: Path) -> None:
    train = PulseTrain(4, 0.05, 0.05, PulseShape.named(shape))
    protocol = Protocol(3.0, [3.5, -3.5, 8.0], [1.0, 1.0, 0.0], train.total_time_s, pulses=train, post_delay_s=0.0065)
    write_seq(protocol, tmp_path / "train.seq")
    back = read_protocol(tmp_path / "train.seq")
    assert_same(protocol, back)
    assert (back.pulses.n_pulses, back.pulses.delay_s) == (4, pytest.approx(0.05))
    signals = [simulate(TISSUE, p) for p in (protocol, back)]
    torch.testing.assert_close(signals[1], signals[0], rtol=0, atol=2e-6)


def test_a_measurement_without_rf_is_as_long_as_the_trains_of_the_others(tmp_path: Path) -> None:
    train = PulseTrain(4, 0.05, 0.05, PulseShape.named("block"))
    write_seq(Protocol(3.0, [3.5, -300.0], [1.0, 0.0], train.total_time_s, pulses=train), tmp_path / "a.seq")
    text = (tmp_path / "a.seq").read_text()
    line = next(line for line in text.splitlines() if line.startswith("saturation_time_s"))
    (tmp_path / "a.seq").write_text(text.replace(line, f"saturation_time_s {train.total_time_s} 0"))
    read = read_seq(tmp_path / "a.seq")
    assert read.pulses is not None
    assert read.saturation_time_s.tolist() == pytest.approx([0.35, 0.35])


def test_a_written_schedule_gives_the_signals_of_the_original(tmp_path: Path) -> None:
    protocol = schedule(readout_pulse_s=0.002, echo_time_s=0.015)
    write_seq(protocol, tmp_path / "a.seq")
    signals = [simulate(TISSUE, p) for p in (protocol, read_seq(tmp_path / "a.seq"))]
    torch.testing.assert_close(signals[1], signals[0], rtol=0, atol=1e-9)


def test_what_is_played_takes_precedence_over_contradicting_definitions(tmp_path: Path) -> None:
    write_seq(schedule(), tmp_path / "a.seq")
    text = (tmp_path / "a.seq").read_text()
    line = next(line for line in text.splitlines() if line.startswith("offsets_ppm"))
    (tmp_path / "a.seq").write_text(text.replace(line, "offsets_ppm 1 2 3 4 5"))
    torch.testing.assert_close(read_seq(tmp_path / "a.seq").offsets_ppm[0].item(), 3.123, rtol=0, atol=1e-5)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.seq"):
        write_seq(schedule(), tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"cannot write .*the folder .*missing' does not exist"):
        write_seq(schedule(), tmp_path / "missing" / "a.seq")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_published_schedule_reads_back_the_same(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    original = read_seq(shared_data("data/cest/larginine_9p4T_mrf/acq_protocol.seq"))
    write_seq(original, tmp_path / "b.seq")
    assert_same(original, read_seq(tmp_path / "b.seq"))


def test_the_m0_measurements_of_a_protocol_come_back(tmp_path: Path) -> None:
    """The file plays nothing that tells them from measurements without saturation at other offsets."""
    protocol = Protocol(3.0, [3.5, -3.5, 3.5, 1.0], [0.0, 1.0, 1.0, 0.0], 1.0, m0_measurements=(1, 4))
    write_seq(protocol, tmp_path / "m0.seq")
    assert read_seq(tmp_path / "m0.seq").m0_measurements == (1, 4)


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_the_start_of_a_protocol_comes_back(start: float, tmp_path: Path) -> None:
    protocol = Protocol(
        3.0, [-3.5, 3.5, 0.0], 2.0, 1.0, initial_magnetisation=start, initial_recovery_s=[2.5, 2.0, 3.0]
    )
    write_seq(protocol, tmp_path / "start.seq")
    found = read_seq(tmp_path / "start.seq")
    assert found.initial_magnetisation == start
    torch.testing.assert_close(found.initial_recovery_s, protocol.initial_recovery_s)


PADDED = {"samples_uT": [0.0, 0.5, 2.0, -1.0, 0.0], "phase_rad": [0.0, 0.3, 0.1, 0.0, 0.0]}
FINE = {"samples_uT": [math.sin(math.pi * (i + 0.5) / 200) ** 2 for i in range(200)]}


def train_protocol(**changes: Any) -> Protocol:
    values = {
        "field_strength_T": 3.0,
        "offsets_ppm": [3.5, 0.0, -300.0],
        "b1_uT": [1.0, 1.5, 0.0],
        "pulse_shape": "gaussian",
        "n_pulses": 3,
        "pulse_duration_s": 0.05,
        "pulse_delay_s": 0.01,
    }
    return protocol_from_dict({**values, **changes}, "train")


@pytest.mark.parametrize("shape", ["block", "gaussian", "sinc_gaussian", PADDED, FINE])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("duration_s", "gap_s"), [(0.005, 0.005), (0.0512345, 0.0056789), (0.01236, 0.0)])
def test_every_pulse_train_reads_back_the_same(
    shape: Any, count: int, duration_s: float, gap_s: float, tmp_path: Path
) -> None:
    """Also one pulse with a gap, which counts for its B1, and durations that the rasters of the file round."""
    timing = {"n_pulses": count, "pulse_duration_s": duration_s, "pulse_delay_s": gap_s}
    protocol = train_protocol(pulse_shape=shape, **timing)
    write_seq(protocol, tmp_path / "train.seq")
    found = read_seq(tmp_path / "train.seq")
    assert protocol_to_dict(found) == protocol_to_dict(protocol)
    assert protocol_difference(protocol, found) == ""


def test_played_pulses_take_precedence_over_the_shape_that_is_stated(tmp_path: Path) -> None:
    write_seq(train_protocol(), tmp_path / "a.seq")
    text = (tmp_path / "a.seq").read_text()
    (tmp_path / "a.seq").write_text(text.replace("pulse_shape gaussian", "pulse_shape sinc_gaussian"))
    difference = protocol_difference(train_protocol(pulse_shape="sinc_gaussian"), read_seq(tmp_path / "a.seq"))
    assert difference.startswith("pulse_shape is sinc_gaussian, here a pulse of 100 samples: at equal power")


def test_pulses_of_files_without_a_stated_shape_are_compared_as_they_are_played(tmp_path: Path) -> None:
    """So are those that earlier versions wrote."""
    write_seq(train_protocol(), tmp_path / "a.seq")
    lines = (tmp_path / "a.seq").read_text().splitlines(keepends=True)
    stated = ("pulse_shape", "n_pulses", "pulse_duration_s", "pulse_delay_s")
    (tmp_path / "a.seq").write_text("".join(line for line in lines if not line.startswith(stated)))
    found = read_seq(tmp_path / "a.seq")
    assert found.pulses is not None
    assert found.pulses.shape.absolute
    assert protocol_difference(train_protocol(), found) == ""
    assert "pulse_shape is block, here" in protocol_difference(train_protocol(pulse_shape="block"), found)


SATURATION_RECOVERY = {
    "field_strength_T": 3.0,
    "offsets_ppm": [-3.5, 3.5, 3.0],
    "b1_uT": 2.0,
    "saturation_time_s": 2.0,
    "initial_magnetisation": 0.0,
    "initial_recovery_s": 3.5,
}


@pytest.mark.parametrize(
    ("changes", "lasts_s"),
    [
        ({}, 16.5),
        ({"initial_recovery_s": [3.0, 2.0, 1.0]}, 12.0),
        ({"recovery_time_s": 1.0}, 17.5),
        ({"recovery_time_s": [4.0, 5.0, 0.0]}, 18.5),
        ({"recovery_time_s": 1.0, "magnetisation_carried_over": True}, 12.5),
        ({"readout_flip_angle_deg": 90.0, "readout": {"pulse_duration_s": 0.01, "echo_time_s": 0.02}}, 16.59),
    ],
)
def test_the_initial_recovery_is_played_and_comes_back(changes: dict[str, Any], lasts_s: float, tmp_path: Path) -> None:
    """It is a part of the recovery of the measurement before, so that the longer of the two is waited for."""
    import pypulseq

    protocol = protocol_from_dict({**SATURATION_RECOVERY, **changes}, "recovery")
    write_seq(protocol, tmp_path / "a.seq")
    sequence = pypulseq.Sequence()
    sequence.read(str(tmp_path / "a.seq"))
    assert float(scan_time_s(protocol)) == pytest.approx(lasts_s)
    assert sequence.duration()[0] == pytest.approx(lasts_s, abs=1e-4)
    assert_same(protocol, read_seq(tmp_path / "a.seq"))


def test_a_wait_that_was_changed_in_the_file_takes_precedence_over_the_initial_recovery(tmp_path: Path) -> None:
    write_seq(protocol_from_dict(SATURATION_RECOVERY, "recovery"), tmp_path / "a.seq")
    text = (tmp_path / "a.seq").read_text()
    changed = text.replace("initial_recovery_s 3.5 3.5 3.5", "initial_recovery_s 1 1 1")
    assert changed != text
    (tmp_path / "a.seq").write_text(changed)
    assert read_seq(tmp_path / "a.seq").initial_recovery_s.tolist() == pytest.approx([3.5] * 3, abs=1e-6)
