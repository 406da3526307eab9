"""Pulseq files: reading against pypulseq, and playing against BMCTool 1.0.3, both from the same files.

The files are like those of the pulseq-cest library: a spectrum of continuous-wave blocks on the RF raster, trains of 36
shaped pulses of 50,000 samples, and spin-lock trains of which every measurement differs. Reading means everything up to
the pulses of all blocks. The peers read and play some of the measurements; their times are scaled to all of them.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pypulseq
import torch
from bench_simulation import FIELD_T, SOLUTES, WATER, peer_parameters
from benchmarking import Table, Time, seconds
from bmctool.simulation.BMCSim import BMCSim
from expm_reference import GAMMA
from sequence_files import SequenceText

from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.physics.pools import Tissue
from CESTQuantLib.physics.simulation import simulate

TISSUE = Tissue(WATER, SOLUTES[:2])


def spectrum(offsets: np.ndarray) -> SequenceText:
    file = SequenceText(5, B0=FIELD_T, offsets_ppm=" ".join(map(str, offsets)))
    for offset in offsets:
        file.wait(3.5)
        file.pulse(2.0, 0.2, offset)
        file.gradient(0.0055, axes="xyz")
        file.sample()
    return file


def shaped_trains(offsets: np.ndarray) -> SequenceText:
    """Trains of 36 sinc-Gaussian pulses with spoilers between them."""
    t = (np.arange(50_000) + 0.5) / 50_000 - 0.5
    shape = np.round(np.exp(-0.5 * (t / 0.2) ** 2) * np.sinc(2 * t), 7).tolist()
    file = SequenceText(5, B0=FIELD_T, offsets_ppm=" ".join(map(str, offsets)))
    for offset in offsets:
        for _ in range(36):
            file.pulse(3.0, 0.05, offset, shape=shape)
            file.gradient(0.005)
        file.sample()
    return file


def spin_lock_trains(count: int) -> SequenceText:
    """Spin-lock trains whose offset, amplitude, number of pulses and phases differ."""
    rng = np.random.default_rng(3)
    offsets = np.round(rng.uniform(3, 50, count), 2)
    file = SequenceText(5, B0=FIELD_T, offsets_ppm=" ".join(map(str, offsets)))
    for offset in offsets:
        b1 = rng.uniform(0.9, 1.9)
        angle = math.atan(b1 / (offset * FIELD_T))
        for n in range(int(rng.integers(2, 11))):
            turned = 0.87 * n
            file.pulse(angle / (1e-3 * GAMMA), 1e-3, 0.0, (1.5 * math.pi + turned) % (2 * math.pi))
            file.pulse(b1, 0.1, offset, turned % (2 * math.pi))
            back = 0.5 * math.pi + turned + offset * FIELD_T * GAMMA * 0.1
            file.pulse(angle / (1e-3 * GAMMA), 1e-3, 0.0, back % (2 * math.pi))
            file.wait(0.098)
        file.gradient(0.0055, axes="xyz")
        file.sample()
    return file


def read_by_pypulseq(path: Path) -> pypulseq.Sequence:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sequence = pypulseq.Sequence()
        sequence.read(str(path))
        for number in sequence.block_events:
            sequence.get_block(number)
    return sequence


def main() -> None:
    torch.set_grad_enabled(False)
    offsets = np.linspace(-4, 4, 33)
    reading = Table("Reading pulseq files", "file")
    playing: list[tuple[str, Time, Time, float, str]] = []
    cases = (
        ("33 CW blocks", spectrum, offsets, 1, 30.0),
        ("33 trains of 36 shaped pulses", shaped_trains, offsets, 1, 30.0),
        ("40 spin-lock trains", lambda numbers: spin_lock_trains(len(numbers)), np.arange(40), 3, 10.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, build, numbers, compared, target in cases:
            path = build(numbers).write(Path(folder), "whole.seq")
            ours, protocol = seconds(lambda path=path: read_seq(path), 3)
            some = build(numbers[:compared]).write(Path(folder), "some.seq")
            peer, sequence = seconds(lambda some=some: read_by_pypulseq(some))
            size = f"{path.stat().st_size / 1e6:.2g} MB"
            share = len(numbers) / compared
            reading.row(f"{name}, {size}", peer * share, ours, 2, "the same events")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                simulation = BMCSim(peer_parameters(TISSUE), sequence, verbose=False)
                peer, _ = seconds(simulation.run)
            simulate(TISSUE, protocol)
            ours, z = seconds(lambda protocol=protocol: simulate(TISSUE, protocol)[0], 3)
            difference = np.abs(z[:compared].numpy() - simulation.get_zspec(return_abs=False)[1]).max()
            playing.append((name, peer * share, ours, target, f"max difference from BMCTool {difference:.0e}"))
    print()
    table = Table("Playing pulseq files", "file")
    for row in playing:
        table.row(*row)


if __name__ == "__main__":
    main()
