"""The eight cases of the BMsim challenge, rebuilt from their published parameters, against BMCTool 1.0.3.

The challenge is at https://github.com/pulseq-cest/BMsim_challenge. Every file is written here in pulseq 1.4 on a raster
of 1 µs. BMCTool plays a few of the offsets, and its times are scaled to all of them; it reads the same shorter file.
With ``--write FOLDER`` the files and pool models are only written, to be used with ``cestquant simulate``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bench_pulseq import read_by_pypulseq
from bench_simulation import FIELD_T, peer_parameters
from benchmarking import Table, Time, seconds
from bmctool.simulation.BMCSim import BMCSim
from sequence_files import SequenceText

from CESTQuantLib.formats.pulseq.read import read_seq
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.simulation import simulate

CREATINE = Tissue(Water(3.0, 2.0), (Pool("creatine_gua", 5e-4, 50.0, 1.05, 0.1, 1.9),))
WHITE_MATTER = Tissue(
    Water(1.0, 0.04),
    (
        Pool("amide", 9.009e-4, 50.0, 1.0, 0.1, 3.5),
        Pool("guanidine", 9.009e-4, 1000.0, 1.0, 0.1, 2.0),
        Pool("NOE", 4.5e-3, 20.0, 1.3, 5e-3, -3.0),
    ),
    Semisolid(0.1351, 30.0, 1.0, 4e-5, -3.0, "lorentzian"),
)
PULSE_PEAK_UT = 3.327369733085533
SINC_GAUSS_SAMPLES = 200
COMPARED_PPM = (-3.0, 0.3, 1.9, 3.5)


@dataclass(frozen=True)
class Case:
    """A case of the challenge; without a shape its pulses are blocks."""

    name: str
    tissue: Tissue
    offsets_ppm: np.ndarray
    b1_uT: float
    duration_s: float
    pulses: int = 1
    delay_s: float = 0.0
    recovery_s: float = 3.5
    m0_recovery_s: float = 3.5
    m0_ppm: float = -300.0
    shaped: bool = False

    def file(self, chosen: np.ndarray | None = None) -> SequenceText:
        """The sequence file with the image far from water and all other offsets, or those with the chosen indices."""
        others = self.offsets_ppm if chosen is None else self.offsets_ppm[chosen]
        offsets = [self.m0_ppm, *np.round(others, 6).tolist()]
        text = SequenceText(4, field_T=FIELD_T, B0=FIELD_T, offsets_ppm=" ".join(f"{o:g}" for o in offsets))
        text.definitions["M0_offset"] = f"{self.m0_ppm:g}"
        shape = pulse_shape() if self.shaped else (1.0,)
        for offset in offsets:
            text.wait(self.m0_recovery_s if offset == self.m0_ppm else self.recovery_s)
            phase = 0.0
            for n in range(self.pulses):
                text.pulse(self.b1_uT, self.duration_s, offset, phase, shape=shape)
                phase = (phase + 2 * math.pi * text.hertz(offset) * self.duration_s) % (2 * math.pi)
                if n < self.pulses - 1:
                    text.wait(self.delay_s)
            text.gradient(0.0065, axes="xyz")
            text.sample()
        return text


def pulse_shape() -> list[float]:
    """The sinc pulse of the challenge with a time-bandwidth product of 2 and apodization 0.15."""
    u = (np.arange(SINC_GAUSS_SAMPLES) + 0.5) / SINC_GAUSS_SAMPLES - 0.5
    shape = np.sinc(2 * u) * (0.85 + 0.15 * np.cos(2 * np.pi * u))
    return (shape / shape.max()).tolist()


def cases() -> tuple[Case, ...]:
    wide, narrow = np.linspace(-15, 15, 301), np.linspace(-2, 2, 81)
    fine = np.linspace(-2, 2, 201)
    peak, train = PULSE_PEAK_UT, {"pulses": 36, "delay_s": 5e-3, "shaped": True}
    wasabi = {"recovery_s": 3.0, "m0_recovery_s": 12.0}
    return (
        Case("1: block of 15 s, 2 pools", CREATINE, wide, 2.0, 15.0, m0_ppm=-1560.0),
        Case("2: block of 2 s, 2 pools", CREATINE, wide, 2.0, 2.0),
        Case("3: block of 2 s, 5 pools", WHITE_MATTER, wide, 2.0, 2.0),
        Case("4: WASABI, 5 pools", WHITE_MATTER, narrow, 3.7, 5e-3, **wasabi),
        Case("5: one shaped pulse, 2 pools", CREATINE, fine, peak, 0.05, shaped=True),
        Case("6: 36 shaped pulses, 2 pools", CREATINE, wide, peak, 0.05, **train),
        Case("7: 36 shaped pulses, 5 pools", WHITE_MATTER, wide, peak, 0.05, **train),
        Case("8: two-pulse WASABI, 5 pools", WHITE_MATTER, narrow, 3.7, 5e-3, pulses=2, delay_s=1e-4, **wasabi),
    )


def compare(case: Case, folder: Path, reading: Table) -> tuple[str, Time, Time, float, str]:
    """Read the files of a case and play them; print the row of the reading and return that of the simulation."""
    chosen = np.array([np.abs(case.offsets_ppm - offset).argmin() for offset in COMPARED_PPM])
    chosen = np.unique(chosen)
    path, some = case.file().write(folder, "whole.seq"), case.file(chosen).write(folder, "some.seq")
    ours, protocol = seconds(lambda: read_seq(path), 2)
    peer, sequence = seconds(lambda: read_by_pypulseq(some))
    share = (1 + len(case.offsets_ppm)) / (1 + len(chosen))
    reading.row(case.name, peer * share, ours, 2, f"{path.stat().st_size / 1e3:.0f} KB")
    parameters = peer_parameters(case.tissue)
    if parameters.mt_pool is not None:
        parameters.mt_pool.lineshape = "Lorentzian"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulation = BMCSim(parameters, sequence, verbose=False)
        peer, _ = seconds(simulation.run)
    ours, z = seconds(lambda: simulate(case.tissue, protocol)[0], 2)
    z = z.numpy()[[0, *(1 + chosen)]]
    difference = np.abs(z - simulation.get_zspec(return_abs=False)[1]).max()
    return case.name, peer * share, ours, 30.0, f"max difference from BMCTool {difference:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the sequence files there and stop")
    folder = parser.parse_args().write
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases():
            case.file().write(folder, f"case_{case.name[0]}.seq")
        return
    torch.set_grad_enabled(False)
    reading = Table("Reading the files of the BMsim challenge", "file")
    with tempfile.TemporaryDirectory() as temporary:
        rows = [compare(case, Path(temporary), reading) for case in cases()]
    print()
    playing = Table("Playing the files of the BMsim challenge", "file")
    for row in rows:
        playing.row(*row)


if __name__ == "__main__":
    main()
