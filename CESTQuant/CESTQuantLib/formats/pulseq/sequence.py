"""A pulseq sequence as it is played: the saturation of every measurement, and what the definitions say about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...physics.events import Event, EventPulse, Events, Play, Spoil, Wait
from .field import field_of_definitions
from .text import Definitions

ROUNDING = 2e-5
"""Relative and absolute difference between what is stated and what is played that is due to the digits of a file."""
_DEFINITIONS_OF_PROTOCOL = "signal_normalisation"
"""Definition by which files are known that were written from a protocol."""


@dataclass(frozen=True)
class Saturation:
    """The preparation of a measurement before its excitation.

    Attributes:
        plays: The pulses.
        waits_s: Free time in s before each of them and after the last; without pulses, all of it.
        spoiled: Whether something is spoiled between the first and the last pulse.
    """

    plays: tuple[Play, ...]
    waits_s: tuple[float, ...]
    spoiled: bool

    @classmethod
    def of(cls, events: Sequence[Event]) -> Saturation:
        """Return the preparation that some events are."""
        plays: list[Play] = []
        waits = [0.0]
        spoiled = spoils = False
        for event in events:
            if isinstance(event, Play):
                spoiled = spoiled or (spoils and bool(plays))
                plays.append(event)
                waits.append(0.0)
                spoils = False
            elif isinstance(event, Wait):
                waits[-1] += event.duration_s
            elif isinstance(event, Spoil):
                spoils = True
        return cls(tuple(plays), tuple(waits), spoiled)

    @property
    def recovery_s(self) -> float:
        """Free time in s before the first pulse."""
        return self.waits_s[0] if self.plays else 0.0

    @property
    def post_delay_s(self) -> float:
        """Free time in s after the last pulse."""
        return self.waits_s[-1] if self.plays else 0.0


class PlayedSequence:
    """What is played of a file, and its definitions.

    Attributes:
        definitions: Definitions of the file.
        events: What is played.
        field_T: Static field in T at which the file is played.
        gamma: Gyromagnetic ratio in rad/(s uT).
        saturations: Preparation of each measurement.
        silent: (measurement,) bool, whether a measurement has no RF before its excitation.
        excited: Whether the samples follow an excitation.
        from_protocol: Whether the file was written from a protocol, whose values its definitions hold.
        larmor_MHz: Larmor frequency of that protocol in MHz, or None.
        hz_per_ppm: Frequency in Hz of an offset of 1 ppm.
        carried_over: Whether a measurement starts from what the last one left.
    """

    def __init__(
        self, definitions: Definitions, events: Events, field_T: float, gamma: float, carried_over: bool | None
    ) -> None:
        self.definitions, self.events, self.field_T, self.gamma = definitions, events, field_T, gamma
        self.saturations = [Saturation.of(events.preparation(m)) for m in range(len(events.measurements))]
        self.silent = np.array([not saturation.plays for saturation in self.saturations])
        if self.silent.all():
            raise ValueError("the sequence has no saturation pulse")
        self.excited = events.excitation(0) is not None
        self.from_protocol = definitions.text(_DEFINITIONS_OF_PROTOCOL) is not None
        self.larmor_MHz = definitions.number("larmor_frequency_MHz") if self.from_protocol else None
        self.hz_per_ppm = self.larmor_MHz or gamma * field_T / (2 * math.pi)
        stated = definitions.number("magnetisation_carried_over")
        if carried_over is None:
            carried_over = stated == 1 if stated is not None else self.excited
        self.carried_over = carried_over

    def first_pulse(self, saturation: Saturation) -> EventPulse:
        """Return the first pulse of a saturation."""
        return self.events.pulses[saturation.plays[0].pulse]

    def scale_of_field(self) -> float:
        """Return the ratio of the field at which the file is played to that for which it is made."""
        stated = field_of_definitions(self.definitions, self.gamma)
        return 1.0 if stated is None else self.field_T / stated

    def stated(self, name: str) -> np.ndarray | None:
        """Return what the definitions of a written protocol say about a quantity, (measurement,); None for nothing."""
        found = self.definitions.numbers(name) if self.from_protocol else None
        if found is None or len(found) not in (1, len(self.saturations)):
            return None
        return np.resize(np.array(found), len(self.saturations))

    def quantity(self, name: str, played: Sequence[float] | np.ndarray) -> Tensor:
        """Return a quantity per measurement: what the definitions say where it agrees with what is played to rounding.

        Measurements without RF play nothing that tells their offset or duration; there the definitions decide.
        """
        values = np.asarray(played, dtype=float)
        stated = self.definitions.numbers(name) if self.from_protocol else None
        if stated is not None and len(stated) == len(values):
            heard = ~self.silent
            if name == "readout_flip_angle_deg":
                heard = np.ones_like(self.silent)
            elif name == "recovery_time_s":  # ends with the RF of the next measurement
                heard = ~np.append(self.silent[1:], False)
            if np.allclose(np.array(stated)[heard], values[heard], rtol=ROUNDING, atol=ROUNDING):
                values = np.array(stated)
        return torch.from_numpy(values.copy())
