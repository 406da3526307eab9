"""Small pulseq files written as text, without pypulseq, so that every version of the format can be tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from expm_reference import GAMMA

HZ_PER_UT = GAMMA / (2 * math.pi)


class SequenceText:
    """A pulseq file under construction.

    Args:
        version: Minor number of the format, 2 to 5.
        definitions: Definitions as they stand in the file.
        field_T: Static field in T, which converts ppm into Hz.
    """

    def __init__(self, version: int = 4, *, field_T: float = 3.0, **definitions: object) -> None:
        self.version, self.field_T, self.definitions = version, field_T, definitions
        self.blocks: list[str] = []
        self.rf: list[str] = []
        self.trap: list[str] = []
        self.delays: list[str] = []
        self.shapes: list[str] = []

    def hertz(self, offset_ppm: float) -> float:
        """Frequency in Hz of an offset in ppm."""
        return offset_ppm * self.field_T * HZ_PER_UT

    def pulse(
        self,
        b1_uT: float,
        duration: float,
        offset_ppm: float = 0.0,
        phase: float = 0.0,
        *,
        shape: Sequence[float] = (1.0,),
        phase_shape: Sequence[float] = (0.0,),
        use: str = "s",
        delay: float = 0.0,
        block: float | None = None,
        ppm_of_file: float = 0.0,
    ) -> None:
        """Add a pulse of equal samples; with ``block`` its block is longer than the pulse."""
        counts = [round(duration / 1e-6 / len(shape))] * len(shape)
        magnitude, turns = self._shape(shape, counts), self._shape(phase_shape, counts)
        amplitude = f"{b1_uT * HZ_PER_UT:.12g} {magnitude} {turns}"
        frequency = f"{self.hertz(offset_ppm):.12g} {phase:.12g}"
        number = len(self.rf) + 1
        if self.version >= 5:
            line = f"{number} {amplitude} 0 0 {delay * 1e6:g} {ppm_of_file:g} 0 {frequency} {use}"
        elif self.version == 4:
            line = f"{number} {amplitude} 0 {delay * 1e6:g} {frequency}"
        else:
            line = f"{number} {amplitude} {delay * 1e6:g} {frequency}"
        self.rf.append(line)
        self._block(delay + duration if block is None else block, rf=number)

    def wait(self, seconds: float) -> None:
        """Add a delay."""
        if self.version >= 4:
            self._block(seconds)
        else:
            self.delays.append(f"{len(self.delays) + 1} {seconds * 1e6:.10g}")
            self._block(0.0, delay=len(self.delays))

    def gradient(self, seconds: float, axes: str = "z", amplitude: float = 1e6) -> None:
        """Add a trapezoid along some axes."""
        self.trap.append(f"{len(self.trap) + 1} {amplitude:g} 1000 {seconds * 1e6 - 2000:.10g} 1000 0")
        self._block(seconds, **dict.fromkeys(axes, len(self.trap)))

    def sample(self) -> None:
        """Add an ADC event."""
        self._block(1e-3, adc=1)

    def _block(
        self, seconds: float, *, delay: int = 0, rf: int = 0, x: int = 0, y: int = 0, z: int = 0, adc: int = 0
    ) -> None:
        first = round(seconds / 1e-5) if self.version >= 4 else delay
        self.blocks.append(f"{len(self.blocks) + 1} {first} {rf} {x} {y} {z} {adc} 0")

    def _shape(self, values: Sequence[float], counts: Sequence[int]) -> int:
        """Add a shape as the differences of its samples, repeated ones counted."""
        runs: list[tuple[str, int]] = []
        values = values if len(values) == len(counts) else list(values) * len(counts)
        differences = [values[0], *(b - a for a, b in itertools.pairwise(values))]
        for difference, count in zip(differences, counts, strict=True):
            for value, repeats in ((f"{difference:.12g}", 1), ("0", count - 1)):
                if repeats and runs and runs[-1][0] == value:
                    runs[-1] = value, runs[-1][1] + repeats
                elif repeats:
                    runs.append((value, repeats))
        lines = []
        for value, repeats in runs:
            lines += [value] if repeats == 1 else [value, value, str(repeats - 2)]
        body = f"num_samples {sum(counts)}\n" + "\n".join(lines) + "\n"
        if body not in self.shapes:
            self.shapes.append(body)
        return self.shapes.index(body) + 1

    def text(self) -> str:
        """The file."""
        adc = "1 1 1000000 0 0 0 0 0 0" if self.version >= 5 else "1 1 1000000 0 0 0"
        sections = [
            "# Pulseq sequence file",
            f"[VERSION]\nmajor 1\nminor {self.version}\nrevision 0",
            "[DEFINITIONS]\n" + "\n".join(f"{name} {value}" for name, value in self.definitions.items()),
            "[BLOCKS]\n" + "\n".join(self.blocks),
            "[RF]\n" + "\n".join(self.rf),
            "[TRAP]\n" + "\n".join(self.trap),
            f"[ADC]\n{adc}",
            *(["[DELAYS]\n" + "\n".join(self.delays)] if self.version < 4 else []),
            "[SHAPES]\n\n" + "\n".join(f"shape_id {i}\n{body}" for i, body in enumerate(self.shapes, start=1)),
        ]
        return "\n\n".join(sections) + "\n\n"

    def write(self, folder: Path, name: str = "preparation.seq") -> Path:
        """Write the file."""
        path = folder / name
        path.write_text(self.text(), encoding="utf-8")
        return path
