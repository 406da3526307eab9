"""Sequences of the pulseq-cest library, rebuilt from their published parameters, against BMCTool 1.0.3.

The library is at https://github.com/kherz/pulseq-cest-library. The files are written here in pulseq 1.3 with gaps of
the originals, on a raster of 1 µs; the tissue is the library's white matter of seven pools. A large fingerprinting
schedule, in which everything varies, is made up. BMCTool plays a few measurements, and its time is scaled to all of
them; it is given the durations of the blocks, which it loses in files of version 1.3.

With ``--write FOLDER`` the files are only written, to be used with ``cestquant simulate``; with ``--published FOLDER``,
every file of a copy of the library is compared with the curve ``M_z_<name>.txt`` beside it.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench_pulseq import read_by_pypulseq
from bench_simulation import FIELD_T, HZ_PER_UT, peer_parameters
from benchmarking import Table, Time, seconds
from bmctool.simulation.BMCSim import BMCSim
from sequence_files import SequenceText

from CESTQuantLib.formats.pools_yaml import read_pools
from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.simulation import simulate

WHITE_MATTER = Tissue(
    Water(1.0, 0.04),
    (
        Pool("amide", 9.009e-4, 50.0, 1.0, 0.1, 3.5),
        Pool("guanidine", 9.009e-4, 1000.0, 1.0, 0.1, 2.0),
        Pool("amine", 9.009e-4, 5000.0, 1.0, 0.1, 3.0),
        Pool("hydroxyl", 9.009e-4, 3500.0, 1.0, 0.1, 1.0),
        Pool("NOE", 4.5e-3, 20.0, 1.3, 5e-3, -3.0),
    ),
    Semisolid(0.1351, 30.0, 1.0, 4e-5, -3.0, "lorentzian"),
)
DEAD_S, RINGDOWN_S = 100e-6, 30e-6
COMPARED = 5
"""Measurements that BMCTool plays."""


@dataclass(frozen=True)
class LibrarySequence:
    """A sequence of the library: its measurements, and how one of them is written."""

    name: str
    offsets_ppm: Sequence[float]
    measure: Callable[[SequenceText, int], None]
    field_T: float = FIELD_T

    def file(self, chosen: Sequence[int] | None = None) -> SequenceText:
        """The sequence file with all measurements, or with those that are chosen."""
        numbers = range(len(self.offsets_ppm)) if chosen is None else chosen
        offsets = " ".join(f"{self.offsets_ppm[m]:.9g}" for m in numbers)
        text = SequenceText(3, field_T=self.field_T, B0=self.field_T, offsets_ppm=offsets)
        for m in numbers:
            self.measure(text, m)
            text.sample()
        return text


def spoil(text: SequenceText) -> None:
    text.gradient(0.0065, axes="xyz", amplitude=1.36e6)


def phase_of(offset_Hz: float, duration_s: float) -> float:
    return (2 * math.pi * offset_Hz * duration_s) % (2 * math.pi)


def train(
    b1_uT: float,
    pulse_s: float,
    gaps_s: Sequence[float],
    pulses: int,
    offsets: Sequence[float],
    recovery_s: float = 3.5,
    shape: Sequence[float] = (1.0,),
) -> Callable[[SequenceText, int], None]:
    """Equal pulses whose phase follows the frequency, with gaps by turns."""

    def measure(text: SequenceText, m: int) -> None:
        text.wait(recovery_s)
        played = sum(value != 0 for value in shape) / len(shape) * pulse_s
        phase = 0.0
        for n in range(pulses):
            text.pulse(b1_uT, pulse_s, offsets[m], phase, shape=shape, delay=DEAD_S)
            phase = (phase + phase_of(text.hertz(offsets[m]), played)) % (2 * math.pi)
            if n < pulses - 1:
                text.wait(gaps_s[n % len(gaps_s)])
        spoil(text)

    return measure


def sinc(count: int) -> list[float]:
    """Sinc pulse with a time-bandwidth product of 2 and apodization 0.15."""
    u = (np.arange(count) + 0.5) / count - 0.5
    shape = np.sinc(2 * u) * (0.85 + 0.15 * np.cos(2 * np.pi * u))
    return (shape / shape.max()).tolist()


def spin_lock(offsets: Sequence[float]) -> Callable[[SequenceText, int], None]:
    """APTw_3T_004: 19 locks of 100 ms with tips of 1 ms, but where they would turn by less than 0.38 degrees."""

    def measure(text: SequenceText, m: int) -> None:
        tip, pause, gap = 1e-3, 250e-6 - DEAD_S - RINGDOWN_S, 2.5e-3
        hertz = text.hertz(offsets[m])
        angle = math.atan(2.0 * HZ_PER_UT / hertz) if hertz else math.pi / 2
        text.wait(3.5)
        for n in range(19):
            if abs(angle) > math.radians(0.38):
                b1 = abs(angle) / (2 * math.pi * HZ_PER_UT * tip)
                turned = math.pi if angle < 0 else 0.0
                text.pulse(b1, tip, phase=turned - math.pi / 2, delay=DEAD_S)
                text.wait(pause)
                text.pulse(2.0, 0.1, offsets[m], delay=DEAD_S)
                text.wait(pause)
                text.pulse(b1, tip, phase=turned + phase_of(hertz, 0.1) + math.pi / 2, delay=DEAD_S)
            else:
                text.wait(tip + DEAD_S + RINGDOWN_S + pause)
                text.pulse(2.0, 0.1, offsets[m], delay=DEAD_S)
                text.wait(tip + DEAD_S + RINGDOWN_S + pause)
            if n < 18:
                text.wait(gap)
        spoil(text)

    return measure


def cycled_spin_lock(
    offsets: Sequence[float], powers: Sequence[float], counts: Sequence[int], recoveries: Sequence[float]
) -> Callable[[SequenceText, int], None]:
    """MRF_CEST_MT_3T_003: locks of 100 ms whose phase turns by 50 degrees from one to the next."""

    def measure(text: SequenceText, m: int) -> None:
        b1, hertz = powers[m], text.hertz(offsets[m])
        angle, cycle = math.atan(b1 / (offsets[m] * FIELD_T)), math.radians(50)
        tip_b1 = angle / (2 * math.pi * HZ_PER_UT * 1e-3)
        text.wait(recoveries[m])
        for n in range(counts[m]):
            turned = cycle * (n + 1)
            text.pulse(tip_b1, 1e-3, phase=turned - math.pi / 2, delay=200e-6)
            text.pulse(b1, 0.1, offsets[m], turned, delay=200e-6)
            text.pulse(tip_b1, 1e-3, phase=turned + phase_of(hertz, 0.1) + math.pi / 2, delay=200e-6)
            if n < counts[m] - 1:
                text.wait(0.1 - 2 * (1e-3 + 250e-6))
        spoil(text)

    return measure


def half_passage(text: SequenceText) -> None:
    """Adiabatic half passage of 8 ms and 20 µT: 1200 Hz, mu 6."""
    t, bandwidth, mu = np.arange(1, 8001) / 8000 * 8e-3, 1200.0, 6.0
    beta = bandwidth * math.pi / mu
    amplitude = 1 / np.cosh(beta * (t - t[-1]))
    turns = np.cumsum(bandwidth * math.pi * np.tanh(beta * (t - t[-1]))) * 1e-6 / (2 * math.pi)
    turns = (turns - turns[-1]) % 1.0
    silent = [0.0] * round(RINGDOWN_S / 1e-6)
    shape, phase = [*amplitude.tolist(), *silent], [*turns.tolist(), *silent]
    text.pulse(20.0, 8e-3 + RINGDOWN_S, shape=shape, phase_shape=phase, delay=DEAD_S)


def saturation_recovery(
    times: Sequence[float], offsets: Sequence[float], wasabi: bool
) -> Callable[[SequenceText, int], None]:
    """Three half passages with spoilers, a recovery and, of WASABITI, the pulse of 5.12 ms."""

    def measure(text: SequenceText, m: int) -> None:
        if not wasabi:
            text.wait(1.0)
        for _ in range(3):
            half_passage(text)
            spoil(text)
        text.wait(times[m])
        if wasabi:
            text.pulse(3.7, 5.12e-3, offsets[m], delay=DEAD_S)
            spoil(text)

    return measure


def fingerprint(b1_uT: Sequence[float], offsets: Sequence[float], pulses: Sequence[int]) -> Callable:
    """MRF_CEST_3T_001: trains of blocks of 200 ms."""

    def measure(text: SequenceText, m: int) -> None:
        train(b1_uT[m], 0.2, (0.01,), pulses[m], offsets, 2.5)(text, m)

    return measure


def slices(
    train_of_offset: Callable[[SequenceText, int], None], unsaturated: int
) -> Callable[[SequenceText, int], None]:
    """pHw_3T_001: a train before each slice, and delays of its length before the slices of M0."""

    def measure(text: SequenceText, m: int) -> None:
        if m < unsaturated:
            text.wait(0.32)
            spoil(text)
        else:
            train_of_offset(text, m)

    return measure


def with_b1_mapping(
    train_of_offset: Callable[[SequenceText, int], None], spectrum: int
) -> Callable[[SequenceText, int], None]:
    """PICAE_7T_003: after the spectrum, images without and with a block of 70 degrees and 2 ms before them."""

    def measure(text: SequenceText, m: int) -> None:
        if m < spectrum:
            train_of_offset(text, m)
            return
        text.wait(4.0)
        if (m - spectrum) % 2:
            text.pulse(70 / 360 / (2e-3 * HZ_PER_UT), 2e-3, delay=DEAD_S)
        spoil(text)

    return measure


def sequences() -> tuple[LibrarySequence, ...]:
    apt = [-300.0, *np.linspace(-4, 4, 33)]
    lock = [-300.0, *np.round(np.linspace(-4, 4, 81), 6)]
    wasabi = [-300.0, *np.linspace(-2, 2, 31)]
    titi = [-300.0, *np.linspace(-4, 4, 31)]
    recovery = [15, 0.5, 1, 2, 3, 4, 5, *[1.5] * 19, 5, 4, 3, 2, 1, 0.5]
    inversion = [10, 6, 5, 4, 3, 2.5, 2, 1.5, *np.linspace(1, 0.1, 10)]
    mrf = [8, 6, 6, 10, 10, 10, 8, 6, 8, 14, 14, 10, 6, 10, 8, 6, 8, 10, 14, 14, 6, 8, 14, 6, 14, 14, 14, 8, 10, 8]
    powers = [
        *(2.0, 2.0, 1.7, 1.5, 1.2, 1.2, 3.0, 0.5, 3.0, 1.0, 2.2, 3.2, 1.5, 0.7, 1.5),
        *(2.2, 2.5, 1.2, 3.0, 0.2, 1.5, 2.5, 0.7, 4.0, 3.2, 3.5, 1.5, 2.7, 0.7, 0.5),
    ]
    glint = [-300.0, -100, -50, -40, -30, -20, *np.arange(-10, 10.1, 0.5), 20, 30, 40, 50, 100]
    ph = [*np.linspace(-3.5, -2.5, 11), *np.linspace(-0.3, 0.3, 7), *np.linspace(2.5, 3.5, 11)]
    ph = [offset for offset in (0.0, *ph) for _ in range(25)]
    picae = [*[-201.0] * 10, -100, -50, -20, -12, -9, -5.5, -4, -3.3, -2.7, -2, -1.5, -1.1, -0.6, -0.4, 0, 0.4, 0.6]
    picae += [*np.arange(0.95, 4.5, 0.15), 4.7, 5.25, 6.25, 8, 12, 20, 50, 100, 0, 0, 0, 0]
    rng = np.random.default_rng(1)
    many = 300
    large = np.round(rng.uniform(2.5, 50, many), 3)
    u = (np.arange(2048) + 0.5) / 2048 - 0.5
    gauss = (0.5 + 0.5 * np.cos(2 * np.pi * u)) * np.exp(-((np.pi * 0.2 * u) ** 2))  # time-bandwidth 0.2
    return (
        LibrarySequence("APTw_3T_000_2uT_1block_2s", apt, train(2.0, 2.0, (), 1, apt)),
        LibrarySequence(
            "APTw_3T_001_2uT_36SincGauss_DC90", apt, train(3.3274, 0.05, (5e-3,), 36, apt, shape=sinc(2000))
        ),
        LibrarySequence("APTw_3T_003_2uT_8block_DC95", apt, train(2.0, 0.1, (1e-3, 10e-3), 8, apt)),
        LibrarySequence("APTw_3T_004_2uT_19SL_DC95", lock, spin_lock(lock)),
        LibrarySequence("WASABI_3T_001_3p7uT_1block_5ms", wasabi, train(3.7, 5e-3, (), 1, wasabi, 3.0)),
        LibrarySequence("WASABIT1_3T_001_3p7uT", titi, saturation_recovery(recovery, titi, True)),
        LibrarySequence("T1map_001_3HypSec", [0.0] * 18, saturation_recovery(inversion, [0.0] * 18, False)),
        LibrarySequence(
            "MultiPool_3T_001_80Gauss_DC50", glint, train(1.2, 0.02048, (0.02,), 80, glint, 0.0, gauss.tolist())
        ),
        LibrarySequence(
            "pHw_3T_001_3Gauss_DC90, 25 slices", ph, slices(train(6.0, 0.1, (0.01,), 3, ph, 0.0, gauss.tolist()), 25)
        ),
        LibrarySequence(
            "PICAE_7T_003_120Gauss_DC60",
            picae,
            with_b1_mapping(train(1.0, 0.015, (0.01,), 120, picae, 1.0, gauss.tolist()), len(picae) - 4),
            7.0,
        ),
        LibrarySequence(
            "MRF_CEST_3T_001_block", [4, 3, 3.5, 10], fingerprint([1.2, 0.8, 2, 3], [4, 3, 3.5, 10], [4, 2, 4, 3])
        ),
        LibrarySequence("MRF_CEST_MT_3T_003_13SL", mrf, cycled_spin_lock(mrf, powers, [13] * 30, [1.0] * 30)),
        LibrarySequence(
            "large schedule, everything varies",
            large,
            cycled_spin_lock(large, rng.uniform(0.5, 4, many), rng.integers(5, 40, many), rng.uniform(0.5, 4, many)),
        ),
    )


def read_with_durations(path: Path) -> object:
    """The file as pypulseq reads it, with the durations of its blocks, which are missing in version 1.3."""
    sequence = read_by_pypulseq(path)
    original = sequence.get_block

    def get_block(number: int) -> object:
        block = original(number)
        block.block_duration = sequence.block_durations[number]
        return block

    sequence.get_block = get_block
    return sequence


def compare(case: LibrarySequence, folder: Path) -> tuple[str, Time, Time, float, str]:
    count = len(case.offsets_ppm)
    chosen = np.unique(np.linspace(0, count - 1, min(COMPARED, count)).round().astype(int)).tolist()
    path, some = case.file().write(folder, "whole.seq"), case.file(chosen).write(folder, "some.seq")
    reading, protocol = seconds(lambda: read_seq(path), 2)
    ours, z = seconds(lambda: simulate(WHITE_MATTER, protocol)[0], 2)
    parameters = peer_parameters(WHITE_MATTER)
    parameters.system.b0 = case.field_T
    parameters.mt_pool.lineshape = "Lorentzian"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulation = BMCSim(parameters, read_with_durations(some), verbose=False)
        peer, _ = seconds(simulation.run)
    difference = np.abs(z.numpy()[chosen] - simulation.get_zspec(return_abs=False)[1]).max()
    size = f"{path.stat().st_size / 1e3:.0f} KB read in {reading.wall:.2g} s"
    note = f"{size}, {count} measurements, max difference from BMCTool {difference:.0e}"
    return case.name, peer * (count / len(chosen)), ours, 2.0, note


def compare_with_published(folder: Path) -> None:
    """Print the largest difference of every file in a copy of the library from the curve beside it."""
    pools = {path.name: path for path in sorted(folder.rglob("WM_3T_*7pool*bmsim.yaml"))}
    tissue = read_pools(next(iter(pools.values()))) if pools else None
    for path in sorted(folder.rglob("*.seq")):
        curve = path.with_name(f"M_z_{path.name}.txt")
        begin = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                protocol = read_seq(path)
                z = simulate(tissue.tissue if tissue else WHITE_MATTER, protocol)[0].numpy()
        except ValueError as error:
            print(f"{path.name}: refused, {error}")
            continue
        spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - begin
        published = np.loadtxt(curve, ndmin=1) if curve.exists() else None
        if published is None or published.shape != z.shape:
            print(f"{path.name}: {len(z)} measurements, no curve of as many, {spent:.2g} s")
        else:
            print(f"{path.name}: difference {np.abs(z - published).max():.1e}, {spent:.2g} s")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the sequence files there and stop")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="play a copy of the library and stop")
    parser.add_argument("--only", metavar="TEXT", default="", help="only the sequences whose name has this text")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    chosen = [case for case in sequences() if options.only in case.name]
    if options.write is not None:
        options.write.mkdir(parents=True, exist_ok=True)
        for case in chosen:
            case.file().write(options.write, f"{case.name.replace(' ', '_').replace(',', '')}.seq")
    elif options.published is not None:
        compare_with_published(options.published)
    else:
        table = Table("Sequences of the pulseq-cest library", "file")
        with tempfile.TemporaryDirectory() as temporary:
            for case in chosen:
                table.row(*compare(case, Path(temporary)))


if __name__ == "__main__":
    main()
