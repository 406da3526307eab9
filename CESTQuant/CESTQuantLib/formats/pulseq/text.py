"""The text of a pulseq file (.seq) of the versions 1.2 to 1.5: definitions, blocks, events and compressed shapes.

The reader needs no further package. Shapes stay compressed here; see :mod:`.shapes`. The format is described in
https://pulseq.github.io/specification.pdf.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from NeuroCESTLib.core.checked_json import read_bytes

from .shapes import CompressedShape

_OLDEST, _TOO_NEW = (1, 2), (1, 6)
_SECTION = re.compile(r"^[ \t]*(?:\[(\w+)\]|(extension[ \t]+\w+)\b.*)[ \t]*$", re.MULTILINE)
_SHAPE = re.compile(r"^[ \t]*shape_id[ \t]+(\d+)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_SAMPLES = re.compile(r"\s*num_(?:samples|uncompressed)[ \t]+(\d+)[ \t]*\n?", re.IGNORECASE)
_US, _NS = 1e-6, 1e-9
Event = TypeVar("Event")
_LONGEST = 64 << 20
"""Bytes of the longest file that is read."""


@dataclass(frozen=True)
class RfEvent:
    """An RF event as the file gives it.

    Attributes:
        amplitude_Hz: Peak amplitude in Hz.
        magnitude_id: Number of the shape of the magnitude.
        phase_id: Number of the shape of the phase, in turns; 0 for a constant phase.
        time_id: Number of the shape of the sample times; 0 for the RF raster, -1 for half of it.
        delay_s: Time in s between the start of the block and that of the pulse.
        frequency_ppm: Part of the frequency offset in ppm of the Larmor frequency.
        phase_rad_per_MHz: Part of the phase offset in rad per MHz of the Larmor frequency.
        frequency_Hz: Part of the frequency offset in Hz.
        phase_rad: Part of the phase offset in rad.
        use: Initial of the purpose, such as ``"e"`` for an excitation; empty before version 1.5.
    """

    amplitude_Hz: float
    magnitude_id: int
    phase_id: int
    time_id: int
    delay_s: float
    frequency_ppm: float
    phase_rad_per_MHz: float
    frequency_Hz: float
    phase_rad: float
    use: str


@dataclass(frozen=True)
class Gradient:
    """A gradient event.

    Attributes:
        duration_s: Time in s from the start of the block to the end of the gradient.
        area_per_m: Net area in 1/m.
    """

    duration_s: float
    area_per_m: float


@dataclass(frozen=True)
class Block:
    """A block: what is played at the same time.

    Attributes:
        number: Number in the file.
        duration_s: Duration in s.
        rf: RF event, or None.
        gradients: Gradients along x, y and z, each of which may be None.
        samples: Whether it holds an ADC event.
    """

    number: int
    duration_s: float
    rf: RfEvent | None
    gradients: tuple[Gradient | None, Gradient | None, Gradient | None]
    samples: bool


@dataclass(frozen=True)
class Definitions:
    """The definitions of a file, whose names are found in any case.

    Attributes:
        lines: Name and text of every definition, in the order of the file.
    """

    lines: tuple[tuple[str, str], ...] = ()

    def text(self, name: str) -> str | None:
        """Return a definition as it stands, the last of the exact spelling first; None where there is none."""
        exact = [text for key, text in self.lines if key == name]
        return exact[-1] if exact else next(iter(self.texts(name)), None)

    def texts(self, name: str) -> list[str]:
        """Return the different texts of a definition that a file gives more than once, in any spelling."""
        return list(dict.fromkeys(text for key, text in self.lines if key.lower() == name.lower()))

    def numbers(self, name: str) -> list[float] | None:
        """Return the numbers of a definition; None where there is none, or where it is not made of finite numbers."""
        text = self.text(name)
        if text is None:
            return None
        try:
            found = [float(word) for word in text.strip("[]").replace(",", " ").split()]
        except ValueError:
            return None
        return found if found and all(map(math.isfinite, found)) else None

    def number(self, name: str) -> float | None:
        """Return the first number of a definition; None where there is none."""
        found = self.numbers(name)
        return None if found is None else found[0]


@dataclass(frozen=True)
class SequenceFile:
    """What a pulseq file holds.

    Attributes:
        version: Major and minor number of the format.
        definitions: The definitions.
        blocks: The blocks in the order of the file.
        shapes: Compressed shapes by number.
        rf_raster_s: Duration in s of an RF sample.
        extensions: Names of the extensions that the blocks refer to.
    """

    version: tuple[int, int]
    definitions: Definitions
    blocks: list[Block]
    shapes: dict[int, CompressedShape]
    rf_raster_s: float
    extensions: tuple[str, ...]

    def shape(self, number: int) -> CompressedShape:
        """Return a shape.

        Raises:
            ValueError: The file has no shape of this number.
        """
        if number not in self.shapes:
            raise ValueError(f"shape {number} is missing; is the file complete?")
        return self.shapes[number]


def read_sequence_file(path: str | Path) -> SequenceFile:
    """Read a pulseq file in UTF-8, with or without byte-order mark, or Latin-1.

    Raises:
        ValueError: The file is missing, damaged, truncated, empty or of an unsupported version; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a pulseq .seq file")
    content = read_bytes(path, _LONGEST)
    try:
        return _Parser(_text(content)).file()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _text(content: bytes) -> str:
    if b"\0" in content:
        raise ValueError("not a readable pulseq file: it is damaged or of another type")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Parser:
    """The sections of a file, and the events in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sections: dict[str, tuple[int, int]] = {}
        found = list(_SECTION.finditer(text))
        for match, following in zip(found, [*found[1:], None], strict=True):
            name = match[1] or " ".join(match[2].split())
            self.sections[name] = (match.end(), len(text) if following is None else following.start())
        if "VERSION" not in self.sections:
            raise ValueError("not a readable pulseq file: it is damaged or of another type")
        self.version = self._version()
        self.definitions = Definitions(
            tuple((words[0], " ".join(words[1:])) for _, words in self._lines("DEFINITIONS"))
        )

    def file(self) -> SequenceFile:
        """The whole file."""
        if "BLOCKS" not in self.sections:
            raise ValueError("the file holds no blocks; it is truncated or of another type")
        rows = [(line, self._row(line, words, (7, 8))) for line, words in self._lines("BLOCKS")]
        if not rows:
            raise ValueError("the pulseq file holds no blocks")
        shapes = self._shapes()
        rf_raster = self._raster("RadiofrequencyRasterTime", 1e-6)
        rf, adc, delays = self._rf(), self._adc(), self._delays()
        gradients = self._gradients(shapes)
        lengths = _RfLengths(shapes, rf_raster)
        block_raster = self._raster("BlockDurationRaster", 1e-5)
        blocks = []
        for line, row in rows:
            number, first, rf_id, x, y, z, adc_id = (int(value) for value in row[:7])
            pulse = None if rf_id == 0 else _event(rf, rf_id, "RF", line)
            along = tuple(None if i == 0 else _event(gradients, i, "gradient", line) for i in (x, y, z))
            sampled = None if adc_id == 0 else _event(adc, adc_id, "ADC", line)
            if self.version >= (1, 4):
                duration = row[1] * block_raster
            else:
                duration = max(
                    0.0 if first == 0 else _event(delays, first, "delay", line),
                    0.0 if pulse is None else pulse.delay_s + lengths.duration_s(pulse),
                    *(0.0 if gradient is None else gradient.duration_s for gradient in along),
                    sampled or 0.0,
                )
            blocks.append(Block(number, duration, pulse, (along[0], along[1], along[2]), sampled is not None))
        used = any(len(row) > 7 and row[7] != 0 for _, row in rows)
        extensions = tuple(name.split()[1] for name in self.sections if name.startswith("extension ")) if used else ()
        return SequenceFile(self.version, self.definitions, blocks, shapes, rf_raster, extensions)

    def _version(self) -> tuple[int, int]:
        values = {words[0]: words[1:] for _, words in self._lines("VERSION")}
        try:
            version = int(values["major"][0]), int(values["minor"][0])
        except (KeyError, ValueError, IndexError):
            raise ValueError("the version is not readable; the file is damaged or of another type") from None
        if not _OLDEST <= version < _TOO_NEW:
            raise ValueError(f"pulseq version {version[0]}.{version[1]} is not supported; use version 1.2 to 1.5")
        return version

    def _raster(self, name: str, default: float) -> float:
        value = self.definitions.number(name)
        if value is not None and not value > 0:
            raise ValueError(f"the definition {name} is {value:g} but must be positive")
        return default if value is None else value

    def _lines(self, section: str) -> Iterator[tuple[int, list[str]]]:
        """Number and words of every line of a section that is neither blank nor a comment."""
        if section not in self.sections:
            return
        start, end = self.sections[section]
        first = self.text.count("\n", 0, start) + 1
        for number, line in enumerate(self.text[start:end].split("\n"), start=first):
            words = line.split()
            if words and not words[0].startswith("#"):
                yield number, words

    @staticmethod
    def _row(line: int, words: list[str], lengths: tuple[int, ...]) -> list[float]:
        """The numbers of a line, of which there must be one of some counts."""
        try:
            values = [float(word) for word in words]
        except ValueError:
            raise ValueError(f"line {line} is not a row of numbers; the file is damaged") from None
        if len(values) not in lengths or not all(map(math.isfinite, values)):
            wanted = " or ".join(map(str, lengths))
            raise ValueError(f"line {line} has {len(values)} values instead of {wanted}; the file is damaged")
        return values

    def _rf(self) -> dict[int, RfEvent]:
        events = {}
        for line, words in self._lines("RF"):
            if self.version >= (1, 5):
                use, words = words[-1].lower(), words[:-1]
                i, amplitude, magnitude, phase, time, _, delay, ppm, per_MHz, *rest = self._row(line, words, (11,))
            elif self.version == (1, 4):
                i, amplitude, magnitude, phase, time, delay, *rest = self._row(line, words, (8,))
                ppm, per_MHz, use = 0.0, 0.0, ""
            else:
                i, amplitude, magnitude, phase, delay, *rest = self._row(line, words, (7,))
                time, ppm, per_MHz, use = 0.0, 0.0, 0.0, ""
            frequency, phase_offset = rest
            events[int(i)] = RfEvent(
                amplitude_Hz=amplitude,
                magnitude_id=int(magnitude),
                phase_id=int(phase),
                time_id=int(time),
                delay_s=delay * _US,
                frequency_ppm=ppm,
                phase_rad_per_MHz=per_MHz,
                frequency_Hz=frequency,
                phase_rad=phase_offset,
                use=use,
            )
        return events

    def _adc(self) -> dict[int, float]:
        """Time in s from the start of the block to the end of the samples."""
        length = 9 if self.version >= (1, 5) else 6
        rows = (self._row(line, words, (length,)) for line, words in self._lines("ADC"))
        return {int(row[0]): row[3] * _US + row[1] * row[2] * _NS for row in rows}

    def _delays(self) -> dict[int, float]:
        rows = (self._row(line, words, (2,)) for line, words in self._lines("DELAYS"))
        return {int(row[0]): row[1] * _US for row in rows}

    def _gradients(self, shapes: dict[int, CompressedShape]) -> dict[int, Gradient]:
        events = {}
        for line, words in self._lines("TRAP"):
            i, amplitude, rise, flat, fall, delay = self._row(line, words, (6,))
            area = amplitude * (rise / 2 + flat + fall / 2) * _US
            events[int(i)] = Gradient((delay + rise + flat + fall) * _US, area)
        raster = self._raster("GradientRasterTime", 1e-5)
        for line, words in self._lines("GRADIENTS"):
            if self.version >= (1, 5):
                i, amplitude, _, _, shape, time, delay = self._row(line, words, (7,))
            elif self.version == (1, 4):
                i, amplitude, shape, time, delay = self._row(line, words, (5,))
            else:
                i, amplitude, shape, delay = self._row(line, words, (4,))
                time = 0.0
            for number in (int(shape), int(time)):
                if number > 0 and number not in shapes:
                    raise ValueError(f"line {line} refers to shape {number}, which is missing; is the file complete?")
            samples = shapes[int(shape)]
            duration, area = samples.integral(shapes[int(time)] if time > 0 else None)
            events[int(i)] = Gradient(delay * _US + duration * raster, amplitude * area * raster)
        return events

    def _shapes(self) -> dict[int, CompressedShape]:
        if "SHAPES" not in self.sections:
            return {}
        start, end = self.sections["SHAPES"]
        text = self.text[start:end]
        found = list(_SHAPE.finditer(text))
        shapes: dict[int, CompressedShape] = {}
        distinct: dict[str, CompressedShape] = {}
        for match, following in zip(found, [*found[1:], None], strict=True):
            content = text[match.end() : len(text) if following is None else following.start()]
            if content not in distinct:
                count = _SAMPLES.match(content)
                if count is None:
                    raise ValueError(f"shape {match[1]} does not say its number of samples; the file is damaged")
                distinct[content] = CompressedShape(
                    int(match[1]), int(count[1]), content[count.end() :], may_be_raw=self.version >= (1, 4)
                )
            shapes[int(match[1])] = distinct[content]
        return shapes


class _RfLengths:
    """Durations of RF events of files that do not give those of their blocks."""

    def __init__(self, shapes: dict[int, CompressedShape], raster_s: float) -> None:
        self.shapes, self.raster_s = shapes, raster_s

    def duration_s(self, rf: RfEvent) -> float:
        """Duration in s of the samples."""
        if rf.magnitude_id not in self.shapes:
            raise ValueError(f"shape {rf.magnitude_id} is missing; is the file complete?")
        return self.shapes[rf.magnitude_id].count * self.raster_s


def _event(events: dict[int, Event], number: int, kind: str, line: int) -> Event:
    if number not in events:
        raise ValueError(f"line {line} refers to {kind} event {number}, which is missing; is the file complete?")
    return events[number]
