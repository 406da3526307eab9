"""Limits of a schedule: hardware (peak B1), safety (time-averaged B1^2), durations and the scan time as a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..physics.protocol import Protocol

TRAINABLE = ("offsets_ppm", "b1_uT", "saturation_time_s", "readout_flip_angle_deg", "recovery_time_s")
"""Per-measurement quantities that can be trained; the names of the key ``trainable`` of a configuration."""
TIMES = ("saturation_time_s", "recovery_time_s")
DEFAULT_BOUNDS = {
    "offsets_ppm": (-8.0, 8.0),
    "b1_uT": (0.0, 6.0),
    "saturation_time_s": (0.02, 5.0),
    "readout_flip_angle_deg": (5.0, 90.0),
    "recovery_time_s": (0.02, 5.0),
}


@dataclass(frozen=True)
class Limits:
    """Bounds of every quantity, and what holds for the schedule as a whole (None: not limited).

    bounds: lowest and highest value by quantity. b1_peak_uT: of the RF amplitude within a pulse. b1_rms_uT: root of
    B1^2 averaged over the scan time, gaps and readouts included. total_time_s: scan time, see :func:`scan_time_s`.
    """

    bounds: Mapping[str, tuple[float, float]]
    b1_peak_uT: float | None = None
    b1_rms_uT: float | None = None
    total_time_s: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping | None) -> Limits:
        """Limits from a configuration's ``limits``.

        Keys: ``b1_peak_uT``, ``b1_rms_uT``, ``total_time_s``, and the bounds of a quantity either as
        ``"offsets_ppm": [low, high]`` or in ``"minima": {"offsets_ppm": low}`` and ``"maxima"``.

        Raises ValueError naming the key for unknown names, for values that are not positive numbers, and where a
        minimum is not below its maximum.
        """
        values = dict(values or {})
        minima, maxima = dict(values.pop("minima", {})), dict(values.pop("maxima", {}))
        whole = {
            key: _positive(values.pop(key), key)
            for key in ("b1_peak_uT", "b1_rms_uT", "total_time_s")
            if values.get(key) is not None
        }
        unknown = sorted({*values, *minima, *maxima} - {*TRAINABLE, "b1_peak_uT", "b1_rms_uT", "total_time_s"})
        if unknown:
            raise ValueError(
                f"limits: unknown keys {', '.join(unknown)}; use b1_peak_uT, b1_rms_uT, total_time_s, minima, maxima, "
                f"{', '.join(TRAINABLE)}"
            )
        bounds = {}
        for name, (low, high) in DEFAULT_BOUNDS.items():
            if name == "b1_uT" and "b1_peak_uT" in whole:
                high = whole["b1_peak_uT"]
            if name in values:
                low, high = _pair(values[name], name)
            low, high = _number(minima.get(name, low), name), _number(maxima.get(name, high), name)
            if not low < high:
                raise ValueError(f"limits: the minimum of {name}, {low:g}, is not below its maximum, {high:g}")
            if name != "offsets_ppm" and low < 0:
                raise ValueError(f"limits: the minimum of {name} is {low:g} but must not be negative")
            bounds[name] = (low, high)
        return cls(bounds, **whole)

    def for_protocol(self, protocol: Protocol) -> Limits:
        """Limits as they apply to a protocol: peak B1 in the units of its ``b1_uT``, recovery beyond the echo."""
        bounds = dict(self.bounds)
        if self.b1_peak_uT is not None:
            low, high = bounds["b1_uT"]
            highest = self.b1_peak_uT / peak_of_unit_b1(protocol)
            if low >= highest:
                raise ValueError(f"limits: b1_uT is at least {low:g} but b1_peak_uT allows only {highest:g}")
            bounds["b1_uT"] = (low, min(high, highest))
        low, high = bounds["recovery_time_s"]
        if protocol.echo_time_s >= high:
            raise ValueError(f"limits: recovery_time_s ends at {high:g} s, before the echo at {protocol.echo_time_s:g}")
        bounds["recovery_time_s"] = (max(low, protocol.echo_time_s), high)
        return replace(self, bounds=bounds)

    def violations(self, protocol: Protocol, tolerance: float = 1e-6) -> list[str]:
        """What a protocol violates, one clause each; empty where it keeps all limits to a relative tolerance."""
        found = []
        limits = self.for_protocol(protocol)
        for name, (low, high) in limits.bounds.items():
            value = getattr(protocol, name)
            slack = tolerance * (high - low)
            if value is None:
                continue
            least, most = float(value.min()), float(value.max())
            if least < low - slack or most > high + slack:
                found.append(f"{name} runs from {least:g} to {most:g}, beyond {low:g} to {high:g}")
        whole = (("b1_rms_uT", b1_rms_uT(protocol)), ("total_time_s", scan_time_s(protocol)))
        for name, value in whole:
            limit = getattr(self, name)
            if limit is not None and float(value) > limit * (1 + tolerance):
                found.append(f"{name} is {float(value):g}, above {limit:g}")
        return found


def scan_time_s(protocol: Protocol) -> Tensor:
    """Scan time in s: saturation, post-delay, readout pulse and recovery of all measurements (a scalar tensor)."""
    times = protocol.saturation_time_s + protocol.post_delay_s + protocol.recovery_time_s
    return times.sum() + protocol.measurement_count * protocol.readout_pulse_s


def b1_rms_uT(protocol: Protocol) -> Tensor:
    """Root of the saturation's B1^2 averaged over the scan time (a scalar tensor), a proxy of the SAR."""
    energy = (protocol.b1_uT**2 * protocol.saturation_time_s).sum()
    return torch.sqrt(energy / scan_time_s(protocol))


def peak_of_unit_b1(protocol: Protocol) -> float:
    """Highest RF amplitude of a pulse for ``b1_uT`` = 1 (1 for continuous wave)."""
    if protocol.pulses is None:
        return 1.0
    return float(protocol.pulses.shape.amplitude.abs().max()) / protocol.pulses.rms_of_unit_peak


def playable(protocol: Protocol, limits: Limits) -> Protocol:
    """The protocol on the raster of a scanner, still within its limits; without gradients.

    Offsets to 0.001 ppm, flip angles to 0.01 degrees; times down to 0.1 ms and B1 down to 0.001 uT.
    """
    rounded = {
        "offsets_ppm": torch.round(protocol.offsets_ppm.detach(), decimals=3),
        "b1_uT": _down(protocol.b1_uT.detach(), 1e-3),
        "recovery_time_s": _down(protocol.recovery_time_s.detach(), 1e-4),
    }
    if protocol.pulses is None:
        rounded["saturation_time_s"] = _down(protocol.saturation_time_s.detach(), 1e-4)
    if protocol.readout_flip_angle_deg is not None:
        rounded["readout_flip_angle_deg"] = torch.round(protocol.readout_flip_angle_deg.detach(), decimals=2)
    result = replace(protocol, **rounded, post_delay_s=protocol.post_delay_s.detach())
    rms = float(b1_rms_uT(result))
    if limits.b1_rms_uT is not None and rms > limits.b1_rms_uT:  # shorter pauses raise the average a little
        result = replace(result, b1_uT=_down(result.b1_uT * (limits.b1_rms_uT / rms), 1e-3))
    return result


def _down(value: Tensor, raster: float) -> Tensor:
    """Down to the raster; what lies within a millionth of the next point is on it."""
    return torch.round(torch.floor(value / raster + 1e-6) * raster, decimals=6)


def _number(value, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"limits: {name} is {value!r}, which is not a number")
    return float(value)


def _positive(value, name: str) -> float:
    if _number(value, name) <= 0:
        raise ValueError(f"limits: {name} is {value:g} but must be positive")
    return float(value)


def _pair(value, name: str) -> tuple[float, float]:
    if isinstance(value, Mapping) and set(value) == {"min", "max"}:
        value = (value["min"], value["max"])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"limits: {name} must be two numbers, the lowest and the highest")
    return _number(value[0], name), _number(value[1], name)
