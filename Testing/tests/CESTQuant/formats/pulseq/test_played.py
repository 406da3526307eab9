"""Pulseq files are played as they are written, or refused by name."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from expm_reference import GAMMA, Sample
from sequence_files import SequenceText

from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.formats.protocol_json import protocol_from_dict, protocol_to_dict
from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.simulation import simulate

OFFSETS = (-3.5, 0.3, 2.0)
TISSUE = Tissue(Water(1.5, 0.08), (Pool("amide", 0.002, 100.0, 1.0, 0.1, 3.5),))
WATER, AMIDE = (
    {"f": 1.0, "k": 0.0, "T1": 1.5, "T2": 0.08, "dw": 0.0},
    {"f": 0.002, "k": 100.0, "T1": 1.0, "T2": 0.1, "dw": 3.5},
)
GAUSS = tuple(np.exp(-0.5 * ((np.arange(20) + 0.5) / 20 - 0.5) ** 2 / 0.04).tolist())


class Reference:
    """An independent player in the water frame, one matrix exponential a step."""

    def __init__(self) -> None:
        self.sample = Sample([WATER, AMIDE], B0=3.0)

    def turn(self, angle: float) -> None:
        m, n = self.sample.m, 2
        x, y = m[n : 2 * n].copy(), m[2 * n :].copy()
        m[n : 2 * n], m[2 * n :] = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)

    def pulse(
        self, b1: float, duration: float, offset: float = 0.0, phase: float = 0.0, shape=(1.0,), turns=None
    ) -> None:
        """Play in the frame at the offset, which coincides with that of water at the start of the pulse."""
        for i, level in enumerate(shape):
            # the rule of pulseq-cest: phase shapes count against phase offsets
            within = 0.0 if turns is None else -2 * math.pi * turns[i]
            self.sample.step(duration / len(shape), offset, b1 * level, phase + within)
        self.turn(offset * GAMMA * 3.0 * duration)

    def wait(self, duration: float) -> None:
        self.sample.step(duration)

    def gradient(self, duration: float) -> None:
        self.sample.step(duration)
        self.sample.spoil(0.0)


def played(play: Callable, folder: Path, version: int = 4, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """Signals of a file in which ``play(file, m, offset)`` plays every measurement, and those of the reference."""
    file = SequenceText(version, B0=3, offsets_ppm=" ".join(map(str, OFFSETS)))
    reference = []
    for m, offset in enumerate(OFFSETS):
        file.wait(2.0)
        play(file, m, offset)
        file.sample()
        alone = Reference()
        play(alone, m, offset)
        reference.append(alone.sample.z)
    protocol = read_seq(file.write(folder), **options)
    return simulate(TISSUE, protocol)[0].numpy(), np.array(reference)


def train(
    *,
    count: Callable[[int], int] = lambda m: 4,
    amplitude: Callable[[int], float] = lambda i: 1.0,
    sign: Callable[[int], int] = lambda i: 1,
    phase: Callable[[int, float], float] = lambda i, advanced: advanced,
    duration: Callable[[int], float] = lambda i: 0.02,
    gap: Callable[[int], float] = lambda i: 0.005,
    spoil: bool = False,
    shape: tuple[float, ...] = GAUSS,
) -> Callable:
    """A train whose members may differ in everything."""

    def play(target, m: int, offset: float) -> None:
        advanced = 0.0
        for i in range(count(m)):
            frequency = offset * sign(i)
            target.pulse(2.0 * amplitude(i), duration(i), frequency, phase(i, advanced) % (2 * math.pi), shape=shape)
            advanced += frequency * GAMMA * 3.0 * duration(i)
            if i < count(m) - 1:
                target.gradient(gap(i)) if spoil else target.wait(gap(i))

    return play


def spin_lock(target, m: int, offset: float) -> None:
    """Tip down, lock, tip up."""
    angle = math.atan2(2.0, offset * 3.0)
    b1 = angle / (2e-4 * GAMMA)
    target.pulse(b1, 2e-4, 0.0, 1.5 * math.pi)
    target.wait(1e-4)
    target.pulse(2.0, 0.05 * (m + 1), offset)
    target.wait(1e-4)
    target.pulse(b1, 2e-4, 0.0, (0.5 * math.pi + offset * GAMMA * 3 * 0.05 * (m + 1)) % (2 * math.pi))
    target.gradient(0.005)


def with_fat_saturation(target, m: int, offset: float) -> None:
    target.pulse(2.0, 0.5, offset)
    target.wait(0.002)
    target.pulse(4.0, 0.004, -3.4)
    target.gradient(0.005)


def t2_preparation(target, m: int, offset: float) -> None:
    b1 = math.pi / 2 / (1e-3 * GAMMA)
    for flip, phase in ((b1, 0.0), (2 * b1, math.pi / 2), (b1, math.pi)):
        target.pulse(flip, 1e-3, 0.0, phase)
        target.wait(0.01 * (m + 1))
    target.gradient(0.005)


SWEEP = tuple((0.6 * (np.arange(40) / 40 - 0.5) ** 2 * 40).tolist())


def swept(target, m: int, offset: float) -> None:
    """A pulse whose phase is modulated."""
    shape = tuple(np.sin(np.pi * (np.arange(40) + 0.5) / 40).tolist())
    if isinstance(target, SequenceText):
        target.pulse(8.0, 8e-3, offset, 0.4, shape=shape, phase_shape=SWEEP)
    else:
        target.pulse(8.0, 8e-3, offset, 0.4, shape=shape, turns=SWEEP)
    target.pulse(2.0, 0.02, offset, 1.0)


PREPARATIONS = {
    "equal pulses": train(),
    "amplitudes": train(amplitude=lambda i: (1.0, 0.2, 1.0, 0.5)[i]),
    "frequencies": train(sign=lambda i: (-1) ** i),
    "phases": train(phase=lambda i, advanced: 0.0),
    "durations": train(duration=lambda i: (0.01, 0.02, 0.02, 0.04)[i], shape=(1.0,)),
    "gaps": train(gap=lambda i: (0.002, 0.01, 0.005)[i]),
    "spoilers": train(spoil=True),
    "numbers": train(count=lambda m: m + 1),
    "no gaps": train(gap=lambda i: 0.0, phase=lambda i, advanced: 0.5 * math.pi * i, shape=(1.0,)),
    "spin lock": spin_lock,
    "fat saturation": with_fat_saturation,
    "T2 preparation": t2_preparation,
    "phase modulation": swept,
}


@pytest.mark.parametrize("name", PREPARATIONS)
def test_every_member_of_a_preparation_is_played(name: str, tmp_path: Path) -> None:
    ours, reference = played(PREPARATIONS[name], tmp_path)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_all_versions_of_the_format_play_the_same(version: int, tmp_path: Path) -> None:
    """Block durations of old versions follow from the events, of new ones they are given."""

    def play(target, m: int, offset: float) -> None:
        target.pulse(2.0, 0.1, offset)
        target.gradient(0.1)
        target.pulse(1.0, 0.05, offset)
        target.gradient(0.1)

    ours, reference = played(play, tmp_path, version)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-8)


def test_only_what_is_equal_in_everything_becomes_a_train(tmp_path: Path) -> None:
    def simplified(name: str) -> bool:
        file = SequenceText(4, B0=3)
        for m, offset in enumerate(OFFSETS):
            PREPARATIONS[name](file, m, offset)
            file.sample()
        return read_seq(file.write(tmp_path)).events is None

    assert [name for name in PREPARATIONS if simplified(name)] == ["equal pulses"]


def test_hardware_times_are_left_out_by_one_rule_and_played_by_the_other(tmp_path: Path) -> None:
    def play(target, m: int, offset: float) -> None:
        if isinstance(target, SequenceText):
            target.pulse(2.0, 0.1, offset, delay=1e-3, block=0.1 + 2e-3)
            target.pulse(2.0, 0.1, offset, delay=1e-3, block=0.1 + 2e-3)
        else:
            target.pulse(2.0, 0.1, offset)
            target.wait(2e-3)
            target.pulse(2.0, 0.1, offset)
            target.wait(1e-3)

    ours, reference = played(play, tmp_path, rules="pulseq")
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-8)
    left_out, _ = played(play, tmp_path)
    assert np.abs(left_out - reference).max() > 1e-5


def test_long_silence_within_a_block_is_always_played(tmp_path: Path) -> None:
    def play(target, m: int, offset: float) -> None:
        if isinstance(target, SequenceText):
            target.pulse(2.0, 0.1, offset, block=0.4)
        else:
            target.pulse(2.0, 0.1, offset)
            target.wait(0.3)

    ours, reference = played(play, tmp_path)
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-8)


def test_gradients_across_the_slice_spoil_by_the_rule_of_the_format_only(tmp_path: Path) -> None:
    def play(target, m: int, offset: float) -> None:
        for _ in range(2):
            target.pulse(2.0, 0.02, offset)
            if isinstance(target, SequenceText):
                target.gradient(0.005, axes="x")
            else:
                target.gradient(0.005) if spoils else target.wait(0.005)

    for rules in ("pulseq-cest", "pulseq"):
        spoils = rules == "pulseq"
        ours, reference = played(play, tmp_path, rules=rules)
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("pulses", [1, 5])
@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("wait_s", [0.5, 2.0])
def test_an_image_without_rf_recovers_for_as_long_as_it_waits(
    pulses: int, start: float, wait_s: float, tmp_path: Path
) -> None:
    """A continuous-wave block of 1 s, or a train of 0.14 s; the start is a share of the equilibrium."""
    file = SequenceText(B0=3, offsets_ppm="-300 3.5")
    file.wait(wait_s)
    file.sample()
    for number in range(pulses):
        file.pulse(2.0, 1.0 if pulses == 1 else 0.02, 3.5, phase=2 * math.pi * number * 0.02 * file.hertz(3.5))
        if number < pulses - 1:
            file.wait(0.01)
    file.sample()
    protocol = replace(read_seq(file.write(tmp_path)), initial_magnetisation=start)
    assert protocol.events is None
    assert (protocol.pulses is None) == (pulses == 1)
    z = simulate(Tissue(Water(1.3, 0.08)), protocol)[0, 0].item()
    assert z == pytest.approx(1 - (1 - start) * math.exp(-wait_s / 1.3), abs=1e-9)


def test_an_image_without_rf_that_waits_less_than_a_train_lasts_is_told(tmp_path: Path) -> None:
    file = SequenceText(B0=3, offsets_ppm="-300 3.5")
    file.wait(0.01)
    file.sample()
    for _ in range(2):
        file.pulse(2.0, 0.1, 0.0)
    file.sample()
    with pytest.warns(UserWarning, match=r"measurement 1 has no RF and waits 0\.01 s, less than a pulse train lasts"):
        assert read_seq(file.write(tmp_path)).initial_recovery_s[0].item() == 0


def test_unknown_rules_are_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown; use one of pulseq-cest, pulseq"):
        played(PREPARATIONS["equal pulses"], tmp_path, rules="siemens")


# readouts


def test_magnetisation_is_carried_over_through_many_readout_pulses(tmp_path: Path) -> None:
    """Three readouts of 15 degrees a measurement, with the phases of the file and no spoiling."""
    file = SequenceText(5, B0=3, offsets_ppm=" ".join(map(str, OFFSETS)))
    reference, signals = Reference(), []
    b1 = math.radians(15) / (1e-3 * GAMMA)
    for offset in OFFSETS:
        for target in (file, reference):
            target.pulse(2.0, 0.3, offset)
            target.wait(0.005)
        for readout in range(3):
            for target in (file, reference):
                target.pulse(b1, 1e-3, 0.0, 0.5 * readout, **({"use": "e"} if target is file else {}))
                target.wait(0.004)
            file.sample()
            if readout == 0:
                signals.append(reference.sample.transverse)
        for target in (file, reference):
            target.wait(0.2)
    with pytest.warns(UserWarning, match="3 samples belong to every measurement"):
        protocol = read_seq(file.write(tmp_path))
    assert protocol.magnetisation_carried_over
    expected = np.array(signals) / np.linalg.norm(signals)
    np.testing.assert_allclose(simulate(TISSUE, protocol)[0], expected, rtol=0, atol=1e-8)


def test_the_last_pulse_of_a_spin_lock_is_no_excitation(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3, offsets_ppm="0 0")
    b1 = math.pi / 2 / (2e-4 * GAMMA)
    for duration in (0.02, 0.05):
        file.pulse(b1, 2e-4, 0.0, 1.5 * math.pi)
        file.pulse(2.0, duration)
        file.pulse(b1, 2e-4, 0.0, 0.5 * math.pi)
        file.sample()
    protocol = read_seq(file.write(tmp_path))
    assert protocol.readout_flip_angle_deg is None
    assert not protocol.magnetisation_carried_over


def test_a_guessed_excitation_is_told(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    for offset in OFFSETS:
        file.pulse(2.0, 0.3, offset)
        file.pulse(11.66, 0.002)
        file.wait(0.02)
        file.sample()
    with pytest.warns(UserWarning, match="taken for its excitation"):
        assert read_seq(file.write(tmp_path)).readout_flip_angle_deg is not None


# definitions


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("B0 3", "b0 3"),
        lambda text: text.replace("B0 3", "FREQ 127.7292"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip(),
        lambda text: text.replace("revision 0", "revision 1post1"),
    ],
    ids=["lower case", "Larmor frequency", "byte-order mark", "Windows", "no last line break", "post release"],
)
def test_files_as_they_are_found_in_the_wild(change: Callable[[str], str], tmp_path: Path) -> None:
    file = SequenceText(3, B0=3)
    for offset in OFFSETS:
        file.pulse(2.0, 0.1, offset)
        file.sample()
    path = tmp_path / "a.seq"
    path.write_text(change(file.text()), encoding="utf-8", newline="")
    protocol = read_seq(path)
    assert protocol.field_strength_T == pytest.approx(3.0, rel=1e-5)
    np.testing.assert_allclose(protocol.offsets_ppm, OFFSETS, atol=1e-4)


def test_latin_1_comments_are_read(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    file.pulse(2.0, 0.1, 1.0)
    file.sample()
    (tmp_path / "a.seq").write_bytes("# Müller, 2 µT\n".encode("latin-1") + file.text().encode())
    assert read_seq(tmp_path / "a.seq").measurement_count == 1


def test_another_field_than_that_of_the_file_is_told_and_the_hertz_are_played(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    file.pulse(2.0, 0.1, 3.5)
    file.sample()
    path = file.write(tmp_path)
    with pytest.warns(UserWarning, match="made for 3 T but is played at 7 T"):
        protocol = read_seq(path, field_strength_T=7.0)
    np.testing.assert_allclose(protocol.offsets_ppm, 3.5 * 3 / 7, rtol=1e-9)


def test_frequencies_in_ppm_follow_the_field(tmp_path: Path) -> None:
    file = SequenceText(5, B0=3)
    file.pulse(2.0, 0.1, ppm_of_file=3.5)
    file.sample()
    np.testing.assert_allclose(read_seq(file.write(tmp_path)).offsets_ppm, 3.5, rtol=1e-9)


def test_offsets_that_contradict_what_is_played_are_told(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3, offsets_ppm="1 2")
    for offset in (1.0, 3.0):
        file.pulse(2.0, 0.1, offset)
        file.sample()
    with pytest.warns(UserWarning, match="measurement 2 plays 3 ppm but offsets_ppm says 2"):
        np.testing.assert_allclose(read_seq(file.write(tmp_path)).offsets_ppm, [1.0, 3.0], atol=1e-9)


def test_offsets_alone_serve_where_the_pulses_cannot_be_played(tmp_path: Path) -> None:
    file = SequenceText(4, offsets_ppm="1 2")  # no field
    for offset in (1.0, 2.0):
        file.pulse(2.0, 0.1, offset)
        file.sample()
    with pytest.warns(UserWarning, match="only its offsets are used"):
        protocol = read_protocol(file.write(tmp_path))
    assert protocol.offsets_ppm.tolist() == [1.0, 2.0]
    assert not bool(protocol.saturation_time_s.any())


# damage


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("minor 4", "minor 9"), "version 1.9 is not supported"),
        (lambda text: text.replace("[RF]", "[FR]"), "refers to RF event 1, which is missing"),
        (lambda text: text.replace("shape_id 1\n", "shape_id 7\n"), "shape 1 is missing"),
        (lambda text: text.replace("1 10000 1", "1 10x00 1"), "line 12 is not a row of numbers"),
        (lambda text: text.replace("num_samples 100000\n1\n", "num_samples 99999\n1\n"), "differ in length"),
        (lambda text: text.replace("\n99997\n", "\n99990\n"), "has 99993 samples instead of 100000"),
    ],
)
def test_damage_is_named(change: Callable[[str], str], message: str, tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    file.pulse(2.0, 0.1, 1.0)
    file.sample()
    text = change(file.text())
    assert text != file.text()
    path = tmp_path / "a.seq"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_seq(path)


# size


def test_a_long_block_is_not_expanded_to_its_samples(tmp_path: Path) -> None:
    file = SequenceText(3, B0=3)
    for offset in OFFSETS:
        file.pulse(2.0, 15.0, offset)
        file.sample()
    path = file.write(tmp_path)
    tracemalloc.start()
    protocol = read_seq(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(protocol.saturation_time_s, 15.0)
    assert most < 2e6


def test_smooth_pulses_are_averaged_only_as_far_as_they_turn_alike(tmp_path: Path) -> None:
    shape = np.exp(-0.5 * (((np.arange(5000) + 0.5) / 5000 - 0.5) / 0.2) ** 2)
    file = SequenceText(4, B0=3)
    file.pulse(3.0, 0.05, 1.0, shape=shape.tolist())
    file.sample()
    pulse = read_seq(file.write(tmp_path)).pulses
    assert pulse is not None
    assert len(pulse.shape.amplitude) < 1000
    protocol = read_seq(tmp_path / "preparation.seq")
    reference = Reference()
    reference.pulse(3.0, 0.05, 1.0, shape=tuple(shape.reshape(1000, 5).mean(1).tolist()))
    np.testing.assert_allclose(simulate(TISSUE, protocol)[0], reference.sample.z, rtol=0, atol=1e-5)


# what becomes of the events


def test_events_survive_a_protocol_json_and_a_selection(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    for m, offset in enumerate(OFFSETS):
        spin_lock(file, m, offset)
        file.sample()
    protocol = read_seq(file.write(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = protocol_from_dict(protocol_to_dict(protocol))
    assert again.events == protocol.events
    whole = simulate(TISSUE, protocol)
    torch.testing.assert_close(simulate(TISSUE, again), whole, rtol=0, atol=1e-14)
    chosen = torch.tensor([True, False, True])
    torch.testing.assert_close(simulate(TISSUE, protocol.select(chosen)), whole[:, chosen], rtol=0, atol=1e-12)


def test_voxels_are_simulated_together(tmp_path: Path) -> None:
    file = SequenceText(4, B0=3)
    for m, offset in enumerate(OFFSETS):
        spin_lock(file, m, offset)
        file.sample()
    protocol = read_seq(file.write(tmp_path))
    shifts = torch.tensor([0.0, 0.2, -0.1], dtype=torch.float64)
    together = simulate(TISSUE, protocol, b0_shift_ppm=shifts, b1_relative=0.9)
    alone = simulate(TISSUE, protocol, b0_shift_ppm=0.2, b1_relative=0.9)
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-12)


def test_pulses_are_linear_between_the_sample_times_of_a_file(tmp_path: Path) -> None:
    """A trapezoid from its four corners, as times and levels, of which the plateau stays one step."""
    file = SequenceText(4, B0=3)
    file.pulse(2.0, 0.01, 1.0)
    file.sample()
    text = file.text().replace(" 1 2 0 0 ", " 1 2 3 0 ")  # the third shape gives the times
    levels = "shape_id 1\nnum_samples 4\n0\n1\n1\n0\n"
    times = "shape_id 3\nnum_samples 4\n0\n1000\n9000\n10000\n"
    phases = "shape_id 2\nnum_samples 4\n0\n0\n2\n"
    path = tmp_path / "a.seq"
    path.write_text(text[: text.index("shape_id 1")] + "\n".join((levels, phases, times)), encoding="utf-8")
    protocol = read_seq(path)
    reference = Reference()
    steps = (np.arange(200) + 0.5) / 200
    for level in steps:
        reference.sample.step(1e-3 / 200, 1.0, 2.0 * level)
    reference.sample.step(8e-3, 1.0, 2.0)
    for level in steps[::-1]:
        reference.sample.step(1e-3 / 200, 1.0, 2.0 * level)
    np.testing.assert_allclose(simulate(TISSUE, protocol)[0], reference.sample.z, rtol=0, atol=5e-6)


def test_methods_for_continuous_waves_refuse_other_sequences(tmp_path: Path) -> None:
    from CESTQuantLib.methods.exchange import require_cw
    from CESTQuantLib.schedules.quantities import trained_quantities

    file = SequenceText(4, B0=3)
    for m, offset in enumerate(OFFSETS):
        spin_lock(file, m, offset)
        file.sample()
    protocol = read_seq(file.write(tmp_path))
    with pytest.raises(ValueError, match="the sequence plays several pulses"):
        require_cw(protocol)
    with pytest.raises(ValueError, match="single events, which cannot be trained"):
        trained_quantities(["b1_uT"], protocol)
