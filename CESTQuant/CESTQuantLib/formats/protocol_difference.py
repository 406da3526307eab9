"""The first difference between two acquisition protocols, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..physics.protocol import Protocol
from ..physics.pulse_shapes import SAMPLES, PulseShape
from .protocol_json import protocol_to_dict

_TOLERANCE = 1e-4
"""Relative and absolute difference up to which two numbers are the same."""
_SAME_SHAPE = 1e-3
"""Difference between two pulses of equal energy, relative to the peak, up to which they have the same shape."""
_NOT_ACQUISITION = ("note", "solute", "m0_measurements")
_PLAYED_AND_STATED = (
    "it states its values, but here every event of a sequence is given, with which they cannot be compared: give a "
    "protocol.json with the values that are stated there",
    "it plays every event of a sequence, but here only values are stated: give the .seq file of this sequence",
)
"""What is said where the found protocol, or the expected one, alone has events."""


def protocol_difference(expected: Protocol, found: Protocol) -> str:
    """Say in words how a protocol first differs from the expected one.

    Pulses are compared as they are played, whether they are given by name or by samples: B1 says how strong they are.

    Args:
        expected: Protocol to compare with.
        found: Protocol that is called "here".

    Returns:
        A clause such as ``saturation_time_s is 2, here 1``; empty where the protocols agree to a relative tolerance of
        1e-4.
    """
    if (expected.events is None) != (found.events is None):
        return _PLAYED_AND_STATED[expected.events is not None]
    first, second = protocol_to_dict(expected), protocol_to_dict(found)
    for key in dict.fromkeys((*first, *second)):
        if key in _NOT_ACQUISITION:
            continue
        if key == "pulse_shape" and expected.pulses is not None and found.pulses is not None:
            difference = _difference_of_shapes(expected.pulses.shape, found.pulses.shape)
        else:
            difference = _difference(first.get(key), second.get(key))
        if difference:
            return f"{key} {difference}"
    return ""


def _difference_of_shapes(expected: PulseShape, found: PulseShape) -> str:
    """How two pulses differ in their course over time; empty where they differ only in name, strength or sampling."""
    bins = max(SAMPLES, min(len(expected.amplitude), len(found.amplitude)))
    first, second = _envelope(expected, bins), _envelope(found, bins)
    overlap = np.vdot(second, first)
    second = second * (overlap / abs(overlap) if overlap else 1.0)  # the phase of the whole pulse does not count
    share = float(np.abs(first - second).max() / np.abs(first).max())
    if share <= _SAME_SHAPE:
        return ""
    return (
        f"is {_named(expected)}, here {_named(found)}: at equal power the two pulses differ by up to "
        f"{100 * share:.2g} % of the peak"
    )


def _envelope(shape: PulseShape, bins: int) -> np.ndarray:
    """Mean complex amplitudes of a pulse in equal parts of its duration, (bin,), with a root mean square of 1."""
    samples = shape.amplitude.detach().cpu().double().numpy().astype(complex)
    if shape.phase_rad is not None:
        samples = samples * np.exp(1j * shape.phase_rad.detach().cpu().double().numpy())
    area = np.concatenate(([0.0], np.cumsum(samples / len(samples))))
    ends, edges = np.linspace(0.0, 1.0, len(area)), np.linspace(0.0, 1.0, bins + 1)
    means = np.diff(np.interp(edges, ends, area.real) + 1j * np.interp(edges, ends, area.imag))
    return means / np.sqrt(np.mean(np.abs(means) ** 2)).clip(1e-300)


def _named(shape: PulseShape) -> str:
    return f"a pulse of {len(shape.amplitude)} samples" if shape.absolute else shape.name


def _difference(expected: Any, found: Any) -> str:
    """How two values differ; empty where they do not. A number stands for a list of equal ones."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys((*expected, *found)):
            if difference := _difference(expected.get(key), found.get(key)):
                return f"{key} {difference}"
        return ""
    if isinstance(expected, list) or isinstance(found, list):
        return _difference_of_lists(expected, found)
    if _is_number(expected) and _is_number(found):
        same = math.isclose(expected, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    else:
        same = expected == found
    return "" if same else f"is {_shown(expected)}, here {_shown(found)}"


def _difference_of_lists(expected: Any, found: Any) -> str:
    length = len(expected) if isinstance(expected, list) else len(found)
    first = expected if isinstance(expected, list) else [expected] * length
    second = found if isinstance(found, list) else [found] * length
    if len(first) != len(second):
        return f"has {len(first)} values, here {len(second)}"
    for measurement, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        if difference := _difference(one, other):
            return f"of measurement {measurement} {difference}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
