"""Pulseq sequences: what is played is what is simulated, and files that cannot be used are named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from expm_reference import GAMMA, Sample
from pool_files import POOLS, pools_file

from CESTQuantLib.formats.pools_yaml import read_pools
from CESTQuantLib.formats.protocol_files import read_protocol
from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.physics.simulation import simulate

pypulseq = pytest.importorskip("pypulseq")
pytest.importorskip("yaml")

FIELD_T = 3.0
HZ_PER_UT = GAMMA / (2 * math.pi)
OFFSETS = [-4.0, -1.0, 0.0, 2.0, 3.5]
SYSTEM = pypulseq.Opts(rf_dead_time=0.0, rf_ringdown_time=0.0, adc_dead_time=0.0, B0=FIELD_T)


def hertz(offset_ppm: float) -> float:
    return offset_ppm * FIELD_T * HZ_PER_UT


def block_pulse(b1_uT: float, duration: float, offset_ppm: float = 0.0) -> SimpleNamespace:
    angle = b1_uT * duration * GAMMA
    return pypulseq.make_block_pulse(
        angle, duration=duration, freq_offset=hertz(offset_ppm), system=SYSTEM, use="saturation"
    )


def gauss_samples(count: int) -> np.ndarray:
    t = (np.arange(count) + 0.5) / count - 0.5
    return np.exp(-0.5 * (t / 0.2) ** 2)


def arbitrary_pulse(
    samples_uT: np.ndarray, dwell: float, offset_ppm: float, phase_offset: float = 0.0
) -> SimpleNamespace:
    return pypulseq.make_arbitrary_rf(
        signal=samples_uT * HZ_PER_UT,
        flip_angle=1.0,
        no_signal_scaling=True,
        dwell=dwell,
        system=SYSTEM,
        freq_offset=hertz(offset_ppm),
        phase_offset=phase_offset,
        use="saturation",
    )


class Writer:
    """A sequence under construction."""

    def __init__(self, offsets: Sequence[float] = OFFSETS, field: float | None = FIELD_T) -> None:
        self.sequence = pypulseq.Sequence(SYSTEM)
        self.sequence.set_definition("offsets_ppm", list(offsets))
        if field is not None:
            self.sequence.set_definition("B0", field)

    def play(self, *events: SimpleNamespace) -> None:
        self.sequence.add_block(*events)

    def wait(self, seconds: float) -> None:
        self.play(pypulseq.make_delay(seconds))

    def sample(self) -> None:
        self.play(pypulseq.make_adc(num_samples=1, duration=1e-3, system=SYSTEM))

    def write(self, folder: Path) -> Path:
        path = folder / "preparation.seq"
        self.sequence.write(str(path))
        return path


def cw_sequence(folder: Path, recovery: float = 3.0) -> Path:
    writer = Writer()
    for offset in OFFSETS:
        writer.wait(recovery)
        writer.play(block_pulse(1.7, 0.8, offset))
        writer.wait(0.0065)
        writer.sample()
    return writer.write(folder)


def train_sequence(folder: Path, samples: np.ndarray, recovery: float = 0.0) -> Path:
    """Five pulses with gaps; phases advance during pulses and not during gaps, as in the pulseq-cest library."""
    dwell, pulses, gap = 2e-4, 5, 0.004
    writer = Writer()
    for offset in OFFSETS:
        phase = 0.0
        if recovery:
            writer.wait(recovery)
        for n in range(pulses):
            writer.play(arbitrary_pulse(samples, dwell, offset, phase % (2 * math.pi)))
            phase += 2 * math.pi * hertz(offset) * dwell * np.count_nonzero(samples)
            if n < pulses - 1:
                writer.wait(gap)
        writer.wait(0.005)
        writer.sample()
    return writer.write(folder)


def ours(sequence: Path, pools: Path) -> np.ndarray:
    """As ``cestquant simulate --pools --sequence`` does."""
    found = read_pools(pools)
    protocol = replace(
        read_seq(sequence, found.gamma_rad_per_s_per_uT),
        magnetisation_carried_over=found.magnetisation_carried_over,
        initial_magnetisation=found.initial_magnetisation,
    )
    fields = {"b0_shift_ppm": found.b0_shift_ppm, "b1_relative": found.b1_relative}
    return simulate(found.tissue, protocol, **fields)[0].numpy()


def test_continuous_wave_is_read_back(tmp_path: Path) -> None:
    protocol = read_protocol(cw_sequence(tmp_path))
    assert protocol.pulses is None
    assert protocol.field_strength_T == FIELD_T
    np.testing.assert_allclose(protocol.offsets_ppm, OFFSETS, atol=2e-5)
    np.testing.assert_allclose(protocol.b1_uT, 1.7, rtol=1e-5)
    np.testing.assert_allclose(protocol.saturation_time_s, 0.8)
    np.testing.assert_allclose(protocol.post_delay_s, 0.0065)
    assert not protocol.magnetisation_carried_over


def test_gaussian_train_with_gaps_is_read_back(tmp_path: Path) -> None:
    samples = 3.0 * gauss_samples(100)
    protocol = read_seq(train_sequence(tmp_path, samples))
    train = protocol.pulses
    assert train.n_pulses == 5
    assert train.duration_s == pytest.approx(0.02)
    assert train.delay_s == pytest.approx(0.004)
    assert train.duty_cycle == pytest.approx(0.02 / 0.024)
    np.testing.assert_allclose(train.shape.amplitude, samples, rtol=1e-5)
    expected = math.sqrt(np.mean(samples**2) * 0.02 / 0.024)
    np.testing.assert_allclose(protocol.b1_uT, expected, rtol=1e-5)


def test_readout_pulse_makes_a_carried_over_schedule(tmp_path: Path) -> None:
    writer = Writer()
    for offset in OFFSETS:
        writer.play(block_pulse(2.0, 0.5, offset))
        writer.play(block_pulse(11.66, 0.0021))
        writer.wait(0.02)
        writer.sample()
        writer.wait(0.9)
    protocol = read_seq(writer.write(tmp_path))
    assert protocol.magnetisation_carried_over
    assert protocol.signal_normalisation == "l2"
    assert protocol.readout_pulse_s == pytest.approx(0.0021)
    assert protocol.echo_time_s == pytest.approx(0.02)
    np.testing.assert_allclose(protocol.recovery_time_s, 0.92, rtol=1e-6)
    np.testing.assert_allclose(protocol.readout_flip_angle_deg, math.degrees(11.66 * 0.0021 * GAMMA), rtol=1e-4)
    np.testing.assert_allclose(protocol.saturation_time_s, 0.5)


@pytest.mark.parametrize("kind", ["cw", "train", "bipolar"])
def test_simulated_sequences_agree_with_an_independent_exponential(tmp_path: Path, kind: str) -> None:
    samples = {"cw": np.ones(1), "train": 3 * gauss_samples(20), "bipolar": 3 * np.cos(np.linspace(-4, 4, 20))}[kind]
    path = cw_sequence(tmp_path) if kind == "cw" else train_sequence(tmp_path, samples)
    water = {"f": 1.0, "k": 0.0, "T1": 1.3, "T2": 0.075, "dw": 0.0}
    amide = {"f": 9e-4, "k": 40.0, "T1": 1.0, "T2": 0.1, "dw": 3.5}
    amine = {"f": 2e-3, "k": 900.0, "T1": 1.1, "T2": 0.03, "dw": 2.0}
    mt = {"f": 0.1, "k": 30.0, "T1": 1.0, "T2": 4e-5, "dw": -2.6}
    reference = []
    for offset in OFFSETS:
        sample = Sample([water, amide, amine], mt, B0=FIELD_T)
        if kind == "cw":
            sample.step(0.8, offset, 1.7)
            sample.step(0.0065)
        for n in range(0 if kind == "cw" else 5):
            for b1 in samples:
                sample.step(2e-4, offset, b1)
            sample.step(0.004 if n < 4 else 0.005)
        reference.append(sample.z)
    # the format keeps six digits of amplitudes and frequencies
    np.testing.assert_allclose(ours(path, pools_file(tmp_path)), reference, atol=5e-5)


def bmctool_spectrum(sequence: Path, pools: Path) -> np.ndarray:
    from bmctool.parameters.Parameters import Parameters
    from bmctool.simulation.BMCSim import BMCSim

    simulation = BMCSim(Parameters.from_yaml(pools), sequence, verbose=False)
    simulation.run()
    return simulation.get_zspec(return_abs=False)[1]


@pytest.mark.parametrize("options", [{}, {"scale": 0.4}, {"reset_init_mag": False}, {"rel_b1": 0.8}])
@pytest.mark.parametrize("kind", ["cw", "train", "padded"])
def test_simulated_sequences_agree_with_bmctool(tmp_path: Path, kind: str, options: dict[str, float]) -> None:
    pytest.importorskip("bmctool")
    samples = 3 * gauss_samples(20)
    if kind == "padded":  # zero samples are a gap for these simulators
        samples = np.concatenate((samples, np.zeros(4)))
    path = cw_sequence(tmp_path, recovery=0.3) if kind == "cw" else train_sequence(tmp_path, samples, recovery=0.1)
    text = POOLS
    for key, value in options.items():
        text = "\n".join(f"{key}: {value}" if line.startswith(key) else line for line in text.splitlines())
    pools = pools_file(tmp_path, text)
    tolerance = 1e-9 if kind == "cw" else 5e-5  # the file keeps six digits of the phases that BMCTool adds up
    np.testing.assert_allclose(ours(path, pools), bmctool_spectrum(path, pools), atol=tolerance)


def test_wasabi_of_the_bmctool_library_agrees_to_1e_9() -> None:
    bmctool = pytest.importorskip("bmctool")
    library = Path(bmctool.__file__).parent / "library"
    sequence, pools = library / "seq-library" / "WASABI.seq", library / "sim-library" / "config_1pool.yaml"
    z = ours(sequence, pools)
    assert len(z) == 32
    assert np.abs(z - bmctool_spectrum(sequence, pools)).max() <= 1e-9


@pytest.mark.slow
def test_arginine_sequence_agrees_with_its_protocol(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("data/cest/larginine_9p4T_mrf")
    from_seq, from_json = read_seq(folder / "acq_protocol.seq"), read_protocol(folder / "protocol.json")
    np.testing.assert_allclose(from_seq.offsets_ppm, from_json.offsets_ppm, atol=1e-4)
    for name in ("b1_uT", "saturation_time_s", "recovery_time_s", "readout_flip_angle_deg"):
        np.testing.assert_allclose(getattr(from_seq, name), getattr(from_json, name), rtol=2e-3, err_msg=name)
    assert from_seq.echo_time_s == pytest.approx(from_json.echo_time_s, rel=1e-3)
    assert from_seq.magnetisation_carried_over


# files that cannot be used


def unusable(path: Path) -> str:
    """Message about a file that cannot be used, one line that begins with its name."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_seq(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_sequences_without_a_usable_saturation_are_named(tmp_path: Path) -> None:
    no_field = Writer(field=None)
    no_field.play(block_pulse(1.0, 0.1))
    no_field.sample()
    assert "B0" in unusable(no_field.write(tmp_path))
    no_adc = Writer()
    no_adc.play(block_pulse(1.0, 0.1))
    assert "ADC" in unusable(no_adc.write(tmp_path))
    no_rf = Writer([0.0])
    no_rf.wait(1.0)
    no_rf.sample()
    assert "no saturation pulse" in unusable(no_rf.write(tmp_path))
    both = Writer([1.0])
    both.play(block_pulse(1.0, 0.1, 1.0), pypulseq.make_adc(num_samples=1, duration=1e-3, system=SYSTEM))
    assert "block 1 plays RF and samples at the same time" in unusable(both.write(tmp_path))
    miscounted = Writer([1.0, 2.0, 3.0])
    miscounted.play(block_pulse(1.0, 0.1, 1.0))
    miscounted.sample()
    assert "offsets_ppm has 3 values but the sequence has 1" in unusable(miscounted.write(tmp_path))


@pytest.mark.timeout(60)  # pypulseq's parser never ends within a truncated shape
@pytest.mark.parametrize("cut", [0.02, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_truncated_sequences_are_named(tmp_path: Path, cut: float) -> None:
    path = train_sequence(tmp_path, 3 * gauss_samples(100))
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    unusable(path)


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(range(256)), b"[VERSION]\nmajor x\n"):
        path = tmp_path / "a.seq"
        path.write_bytes(content)
        unusable(path)
    unusable(tmp_path / "absent.seq")


def test_voxelwise_simulation_of_a_sequence(tmp_path: Path) -> None:
    found, protocol = read_pools(pools_file(tmp_path)), read_seq(cw_sequence(tmp_path))
    shifts = torch.tensor([0.0, 0.3], dtype=torch.float64)
    both = simulate(found.tissue, protocol, b0_shift_ppm=shifts)
    alone = simulate(found.tissue, protocol, b0_shift_ppm=0.3)
    torch.testing.assert_close(both[1], alone[0], rtol=0, atol=1e-12)
