"""Limits of a schedule: hardware (peak B1), safety (time-averaged B1^2), durations, and the scan time as a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number

from ..physics.protocol import Protocol

TRAINABLE = ("offsets_ppm", "b1_uT", "saturation_time_s", "readout_flip_angle_deg", "recovery_time_s")
"""Per-measurement quantities that can be trained; the names that the key ``trainable`` of a configuration takes."""
TIMES = ("saturation_time_s", "recovery_time_s")
"""Trainable quantities that share the scan time."""
DEFAULT_BOUNDS = {
    "offsets_ppm": (-8.0, 8.0),
    "b1_uT": (0.0, 6.0),
    "saturation_time_s": (0.02, 5.0),
    "readout_flip_angle_deg": (5.0, 90.0),
    "recovery_time_s": (0.02, 5.0),
}
"""Lowest and highest value of every trainable quantity where a configuration does not say."""
_OF_THE_WHOLE = ("b1_peak_uT", "b1_rms_uT", "total_time_s")
_KEYS = (*_OF_THE_WHOLE, "minima", "maxima", *TRAINABLE)


@dataclass(frozen=True)
class Limits:
    """What a schedule must keep.

    Attributes:
        bounds: Lowest and highest value of every trainable quantity where it is trained.
        b1_peak_uT: Highest RF amplitude within a pulse, in uT; None does not limit it.
        b1_rms_uT: Highest root of B1^2 averaged over the scan time, gaps and readouts included, in uT; None does not
            limit it.
        total_time_s: Longest scan time in s, see :func:`scan_time_s`; None does not limit it.
        given: Lowest and highest value of the quantities for which a configuration names bounds, infinite where it
            names none. They hold where a quantity is not trained too.
    """

    bounds: Mapping[str, tuple[float, float]]
    b1_peak_uT: float | None = None
    b1_rms_uT: float | None = None
    total_time_s: float | None = None
    given: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Any) -> Limits:
        """Read the key ``limits`` of a configuration.

        Args:
            values: Object with the keys ``b1_peak_uT``, ``b1_rms_uT``, ``total_time_s``, and the bounds of a quantity
                either as ``"offsets_ppm": [low, high]`` or in ``"minima": {"offsets_ppm": low}`` and ``"maxima"``; None
                sets no limits but the default bounds.

        Raises:
            ValueError: A key is unknown, a value is not a positive number, or a minimum is not below its maximum; the
                message names the key.
        """
        values = check_keys(values or {}, _KEYS, "limits")
        minima = check_keys(values.get("minima") or {}, TRAINABLE, "limits: minima")
        maxima = check_keys(values.get("maxima") or {}, TRAINABLE, "limits: maxima")
        whole = {key: _positive(values[key], key) for key in _OF_THE_WHOLE if values.get(key) is not None}
        bounds, given = {}, {}
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
            has_low, has_high = (name in values or name in sides for sides in (minima, maxima))
            if has_low or has_high:
                given[name] = (low if has_low else -math.inf, high if has_high else math.inf)
        return cls(bounds, **whole, given=given)

    def for_protocol(self, protocol: Protocol) -> Limits:
        """Return the limits as they apply to a protocol.

        The peak B1 is converted to the units of the protocol's ``b1_uT``, and the recovery, which is counted from the
        excitation, lasts at least until the echo.

        Raises:
            ValueError: Nothing is left between two bounds.
        """
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

    def violations(
        self, protocol: Protocol, tolerance: float = 1e-6, trained: Mapping[str, Tensor] | None = None
    ) -> list[str]:
        """Return what a protocol violates, one clause each; empty where it keeps all limits.

        Args:
            protocol: Protocol to check.
            tolerance: Tolerance relative to the width of a range, or to the limit of the whole.
            trained: Measurements (measurement,) whose bounds are checked, by quantity; those of other quantities are
                not. None checks all.
        """
        found = []
        for name, (low, high) in self.for_protocol(protocol).bounds.items():
            value = getattr(protocol, name)
            if value is None or (trained is not None and name not in trained):
                continue
            value = value if trained is None else value[trained[name]]
            slack = tolerance * (high - low)
            least, most = float(value.min()), float(value.max())
            if least < low - slack or most > high + slack:
                found.append(f"{name} runs from {least:g} to {most:g}, outside {low:g} to {high:g}")
        for name, reached, limit in (
            ("b1_rms_uT", b1_rms_uT(protocol), self.b1_rms_uT),
            ("total_time_s", scan_time_s(protocol), self.total_time_s),
        ):
            if limit is not None and float(reached) > limit * (1 + tolerance):
                found.append(f"{name} is {float(reached):g}, above {limit:g}")
        return found


def scan_time_s(protocol: Protocol) -> Tensor:
    """Return the scan time in s, a scalar: saturation, post-delay, readout and recovery of all measurements.

    A recovery lasts until the echo and for the ``initial_recovery_s`` of the next measurement at least; that of the
    first measurement comes before the scan. Where magnetisation is carried over, only that one is waited for.
    """
    lead_in = protocol.lead_in_s
    echo = protocol.echo_time_s if protocol.readout_flip_angle_deg is not None else 0.0
    recovery = torch.maximum(protocol.recovery_time_s, echo + torch.cat((lead_in[1:], torch.zeros_like(lead_in[:1]))))
    times = protocol.saturation_time_s + protocol.post_delay_s + recovery
    return lead_in[0] + times.sum() + protocol.measurement_count * protocol.readout_pulse_s


def b1_rms_uT(protocol: Protocol) -> Tensor:
    """Return the root of the saturation's B1^2 averaged over the scan time in uT, a scalar: a proxy of the SAR.

    The B1 of a train is the root mean square over its pulses and as many gaps, which is one gap more than it lasts.
    """
    gap = 0.0 if protocol.pulses is None else protocol.pulses.delay_s
    energy = (protocol.b1_uT**2 * (protocol.saturation_time_s + gap)).sum()
    return torch.sqrt(energy / scan_time_s(protocol))


def peak_of_unit_b1(protocol: Protocol) -> float:
    """Return the highest RF amplitude of a pulse per unit of ``b1_uT``; 1 for continuous wave."""
    if protocol.pulses is None:
        return 1.0
    return float(protocol.pulses.shape.amplitude.abs().max()) / protocol.pulses.rms_of_unit_peak


def playable(protocol: Protocol, limits: Limits, trained: Mapping[str, Tensor]) -> Protocol:
    """Round the trained values of a protocol to the raster of a scanner so that it still keeps its limits.

    Offsets are rounded to 0.001 ppm and flip angles to 0.01 degrees; times are rounded down to 0.1 ms and B1 to
    0.001 uT, but not below their minima, such as the echo for a recovery.

    Args:
        protocol: Protocol that keeps the limits.
        limits: Limits that apply to it.
        trained: Measurements (measurement,), boolean, whose values are rounded, by quantity; all others stay.

    Returns:
        Rounded protocol without gradients.
    """
    rounded = {name: value.detach() for name in TRAINABLE if (value := getattr(protocol, name)) is not None}
    rounded["post_delay_s"] = protocol.post_delay_s.detach()
    for name, which in trained.items():
        value, (low, high) = rounded[name], limits.bounds[name]
        rounded[name] = torch.where(which, _on_raster(name, value).clamp(low, high), value)
    result = with_quantities(protocol, rounded)
    rms = float(b1_rms_uT(result))
    if "b1_uT" in trained and limits.b1_rms_uT is not None and rms > limits.b1_rms_uT:
        # Shorter pauses raise the average a little, which the trained powers make up for.
        which, energy = trained["b1_uT"], result.b1_uT**2 * result.saturation_time_s
        left = energy.sum() * (limits.b1_rms_uT / rms) ** 2 - energy[~which].sum()
        lower = _down(result.b1_uT * torch.sqrt(left / energy[which].sum()), 1e-3)
        result = replace(result, b1_uT=torch.where(which, lower, result.b1_uT))
    return result


def with_quantities(protocol: Protocol, quantities: Mapping[str, Tensor]) -> Protocol:
    """Return a protocol with other values of some per-measurement quantities.

    Args:
        protocol: Protocol to change.
        quantities: Values (measurement,) by name: those of ``TRAINABLE``, and ``post_delay_s``.
    """
    return replace(
        protocol,
        offsets_ppm=quantities.get("offsets_ppm", protocol.offsets_ppm),
        b1_uT=quantities.get("b1_uT", protocol.b1_uT),
        saturation_time_s=quantities.get("saturation_time_s", protocol.saturation_time_s),
        readout_flip_angle_deg=quantities.get("readout_flip_angle_deg", protocol.readout_flip_angle_deg),
        recovery_time_s=quantities.get("recovery_time_s", protocol.recovery_time_s),
        post_delay_s=quantities.get("post_delay_s", protocol.post_delay_s),
    )


def _on_raster(name: str, value: Tensor) -> Tensor:
    """Round a quantity to the raster of a scanner."""
    if name in TIMES:
        return _down(value, 1e-4)
    return _down(value, 1e-3) if name == "b1_uT" else torch.round(value, decimals=3 if name == "offsets_ppm" else 2)


def _down(value: Tensor, raster: float) -> Tensor:
    """Round down to a raster; a value within a millionth of the next point is on it already."""
    return torch.round(torch.floor(value / raster + 1e-6) * raster, decimals=6)


def _number(value: Any, name: str) -> float:
    return number(value, f"limits: {name}")


def _positive(value: Any, name: str) -> float:
    result = _number(value, name)
    if result <= 0:
        raise ValueError(f"limits: {name} is {result:g} but must be positive")
    return result


def _pair(value: Any, name: str) -> tuple[float, float]:
    if isinstance(value, Mapping) and set(value) == {"min", "max"}:
        value = (value["min"], value["max"])
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"limits: {name} must be two numbers, the lowest and the highest")
    return _number(value[0], name), _number(value[1], name)
