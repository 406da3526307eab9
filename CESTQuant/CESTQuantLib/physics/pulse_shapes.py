"""Shapes of saturation pulses as piecewise-constant samples, and trains of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import number, numbers

SHAPES = ("block", "gaussian", "sinc_gaussian")
SAMPLES = 100
"""Samples of a named shape; 100 samples of a 50 ms Gaussian pulse agree with 1000 to 2e-5 in Z."""


@dataclass(frozen=True)
class PulseShape:
    """One pulse as samples of equal duration.

    Attributes:
        name: Name of a known shape (one of ``SHAPES``), or ``"samples"``.
        amplitude: RF amplitude of every sample, (sample,); negative values invert the RF phase.
        phase_rad: RF phase of every sample in rad, (sample,); None for RF along x.
        absolute: Whether the amplitude is in uT; otherwise it is relative, and scaled by the protocol's B1.

    Raises:
        ValueError: There are no samples, all are zero, or a value is not finite.
    """

    name: str
    amplitude: Tensor
    phase_rad: Tensor | None = None
    absolute: bool = False

    def __post_init__(self) -> None:
        if self.amplitude.ndim != 1 or len(self.amplitude) == 0:
            raise ValueError("pulse_shape needs a list of at least one sample")
        if not bool(torch.isfinite(self.amplitude).all()):
            raise ValueError("pulse_shape contains a sample that is not finite")
        if float(self.amplitude.abs().max()) == 0:
            raise ValueError("pulse_shape has only zero samples")
        if self.phase_rad is not None:
            if self.phase_rad.shape != self.amplitude.shape:
                raise ValueError(
                    f"pulse_shape has {len(self.amplitude)} samples but phase_rad has {self.phase_rad.numel()}"
                )
            if not bool(torch.isfinite(self.phase_rad).all()):
                raise ValueError("pulse_shape: phase_rad contains a value that is not finite")

    @property
    def root_mean_square(self) -> float:
        """Root mean square of the amplitude, in its unit."""
        return float((self.amplitude**2).mean().sqrt())

    @classmethod
    def named(cls, name: str, samples: int = SAMPLES) -> PulseShape:
        """Return a known shape.

        Args:
            name: ``"block"``; ``"gaussian"``, whose standard deviation is a fifth of the duration, as in the golden
                trains; or ``"sinc_gaussian"``, a sinc with three lobes on each side under the same Gaussian.
            samples: Number of samples; a block has one.

        Raises:
            ValueError: The shape is unknown.
        """
        if name == "block":
            return cls(name, torch.ones(1, dtype=torch.float64))
        t = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples - 0.5
        gaussian = torch.exp(-0.5 * (t / 0.2) ** 2)
        if name == "gaussian":
            return cls(name, gaussian)
        if name == "sinc_gaussian":
            return cls(name, gaussian * torch.sinc(6 * t))
        raise ValueError(f"pulse_shape '{name}' is unknown; use one of {', '.join(SHAPES)} or samples_uT with dwell_s")

    @classmethod
    def from_description(cls, description: str | dict[str, Any], duration_s: float) -> PulseShape:
        """Return the shape that the protocol key ``pulse_shape`` describes.

        Args:
            description: A name, or an object with ``samples_uT``, ``dwell_s`` and optionally ``phase_rad``.
            duration_s: Duration of the pulse in s, which the samples must fill.

        Raises:
            ValueError: The description is not usable.
        """
        if isinstance(description, str):
            return cls.named(description)
        if not isinstance(description, dict) or "samples_uT" not in description:
            raise ValueError("pulse_shape is a name or an object with samples_uT and dwell_s")
        amplitude = numbers(description["samples_uT"], "pulse_shape: samples_uT")
        if len(amplitude) == 0:
            raise ValueError("pulse_shape needs a list of at least one sample")
        dwell = number(description.get("dwell_s", duration_s / len(amplitude)), "pulse_shape: dwell_s")
        if not math.isclose(dwell * len(amplitude), duration_s, rel_tol=1e-6):
            raise ValueError(
                f"pulse_shape: {len(amplitude)} samples of {dwell:g} s last {dwell * len(amplitude):g} s "
                f"but pulse_duration_s is {duration_s:g}"
            )
        phase = description.get("phase_rad")
        phase = None if phase is None else numbers(phase, "pulse_shape: phase_rad")
        return cls("samples", amplitude, phase, absolute=True)

    def description(self) -> str | dict[str, list[float]]:
        """Return the value of the protocol key ``pulse_shape`` that describes this shape."""
        if not self.absolute:
            return self.name
        values = {"samples_uT": self.amplitude.tolist()}
        if self.phase_rad is not None:
            values["phase_rad"] = self.phase_rad.tolist()
        return values


@dataclass(frozen=True)
class PulseTrain:
    """Equal pulses separated by equal gaps.

    Attributes:
        n_pulses: Number of pulses.
        duration_s: Duration of a pulse in s.
        delay_s: Duration of a gap in s; there is none after the last pulse.
        shape: Shape of a pulse.

    Raises:
        ValueError: There is no pulse, or a duration is negative.
    """

    n_pulses: int
    duration_s: float
    delay_s: float
    shape: PulseShape

    def __post_init__(self) -> None:
        if self.n_pulses < 1:
            raise ValueError(f"n_pulses is {self.n_pulses} but a pulse train has at least one pulse")
        if not self.duration_s > 0:
            raise ValueError(f"pulse_duration_s is {self.duration_s:g} but must be positive")
        if self.delay_s < 0:
            raise ValueError(f"pulse_delay_s is {self.delay_s:g} but must not be negative")

    @property
    def total_time_s(self) -> float:
        """Duration in s from the start of the first pulse to the end of the last."""
        return self.n_pulses * self.duration_s + (self.n_pulses - 1) * self.delay_s

    @property
    def duty_cycle(self) -> float:
        """Fraction of pulse and gap during which RF is on."""
        return self.duration_s / (self.duration_s + self.delay_s)

    @property
    def rms_of_unit_peak(self) -> float:
        """Root mean square of the shape's own samples over pulse and gap, in the unit of the samples."""
        return self.shape.root_mean_square * self.duty_cycle**0.5
