"""JSON files beside NIfTI images, as converters write them in the layout of BIDS: what they say of the saturation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.checked_json import number, numbers, read_json

from ..protocol_json import PROTOCOL_KEYS, SAME_MAGNET
from ..pulseq.field import STRONGEST_T
from .saturation import field_of_larmor

_OFFSETS_PPM = ("offsets_ppm", "SaturationOffsets", "SaturationOffset_ppm", "OffsetsPPM", "FrequencyOffsetsPPM")
_FIELDS_T = ("field_strength_T", "MagneticFieldStrength")
_FREQUENCIES_MHZ = ("larmor_frequency_MHz", "ImagingFrequency")
_OFFSETS_HZ = ("SaturationOffset_Hz", "FrequencyOffsets", "MTOffsetFrequency", "OffsetsHz")
_ROUNDING_PPM = 0.05
"""Difference of offsets that are the same but rounded."""
_NARROWEST_PPM = 0.1
"""No spectrum has half of its distances from water, the farthest apart, below this."""


def sidecar_of(image: str | Path) -> Path:
    """Return the JSON file of an image: its name with another ending."""
    image = Path(image)
    stem = image.name
    for ending in (".gz", ".nii", ".img", ".hdr"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return image.with_name(f"{stem}.json")


def unknown_protocol() -> dict[str, Any]:
    """Return the keys of a ``protocol.json`` for an image without a sidecar: None for what nothing says."""
    return _protocol({})


def protocol_of_sidecar(path: str | Path) -> dict[str, Any]:
    """Return the keys of a ``protocol.json`` that a sidecar gives, None for what it does not say.

    Keys of a ``protocol.json`` are taken as they are. Of BIDS are read ``MagneticFieldStrength`` (T),
    ``ImagingFrequency`` (MHz) and the offsets under usual names, in ppm or, converted, in Hz. The Larmor frequency
    converts them, or else the field.

    Raises:
        ValueError: The file is missing or has an unusable value, fields that are not those of one magnet, or
            offsets that contradict each other; the message names it.
    """
    values = read_json(path, "give the JSON file beside the image, or the offsets with --offsets")
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a JSON object")
    try:
        return _protocol(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _protocol(values: dict[str, Any]) -> dict[str, Any]:
    protocol: dict[str, Any] = dict.fromkeys(
        ("field_strength_T", "larmor_frequency_MHz", "offsets_ppm", "b1_uT", "saturation_type", "saturation_time_s")
    )
    protocol["signal_normalisation"] = "m0"
    protocol |= {key: value for key, value in values.items() if key in PROTOCOL_KEYS}
    values = {key: value for key, value in values.items() if value is not None}
    _require_finite({name: values[name] for name in (*PROTOCOL_KEYS, *_OFFSETS_PPM, *_OFFSETS_HZ) if name in values})
    protocol |= _magnet(values)
    given = {name: numbers(values[name], name).tolist() for name in _OFFSETS_PPM if name in values}
    larmor = _larmor_MHz(protocol)
    for name in _OFFSETS_HZ:
        comparable = larmor is not None and isinstance(values.get(name), list)
        if name in values and (comparable or not given):
            given[name] = _in_ppm(numbers(values[name], name).tolist(), larmor, name)
    protocol["offsets_ppm"] = _agreed(given)
    return protocol


def _require_finite(values: dict[str, Any]) -> None:
    for name, value in values.items():
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(one, float) and not math.isfinite(one) for one in listed):
            raise ValueError(f"{name} has a number that is not finite; correct it, or use null where it is not known")


def _magnet(values: dict[str, Any]) -> dict[str, float | None]:
    """Field and Larmor frequency, those of a protocol.json before those of BIDS; all that are given have to agree."""
    fields = {name: _positive(values, name) for name in _FIELDS_T if name in values}
    frequencies = {name: _positive(values, name) for name in _FREQUENCIES_MHZ if name in values}
    given = fields | {name: field_of_larmor(frequency) for name, frequency in frequencies.items()}
    for name, field in given.items():
        if field > STRONGEST_T:
            raise ValueError(
                f"{name} is {values[name]:g}, which no magnet has; give fields in T and Larmor frequencies in MHz"
            )
        first = next(iter(given))
        if not math.isclose(field, given[first], rel_tol=SAME_MAGNET):
            raise ValueError(
                f"{name} is {values[name]:g}, which is {field:.4g} T, but {first} is that of {given[first]:.4g} T: "
                "correct the wrong one"
            )
    by_worth = [name for name in ("field_strength_T", *_FREQUENCIES_MHZ, "MagneticFieldStrength") if name in given]
    return {
        "field_strength_T": given[by_worth[0]] if by_worth else None,
        "larmor_frequency_MHz": next(iter(frequencies.values()), None),
    }


def _positive(values: dict[str, Any], name: str) -> float:
    value = number(values[name], name)
    if value <= 0:
        raise ValueError(f"{name} is {value:g} but must be positive")
    return value


def _larmor_MHz(protocol: dict[str, Any]) -> float | None:
    larmor, field = protocol["larmor_frequency_MHz"], protocol["field_strength_T"]
    return field / field_of_larmor(1.0) if larmor is None and field is not None else larmor


def _in_ppm(offsets_hz: list[float], larmor_MHz: float | None, name: str) -> list[float]:
    if larmor_MHz is None:
        raise ValueError(
            f"{name} is in Hz and none of {', '.join((*_FREQUENCIES_MHZ, *_FIELDS_T))} is given, which convert it"
        )
    distances = np.unique(np.abs(offsets_hz))
    near = distances[distances > 0][:-1]  # without the farthest, which may be the reference
    if len(near) > 1 and np.median(near) < _NARROWEST_PPM * larmor_MHz:
        raise ValueError(
            f"{name} reaches from {min(offsets_hz):g} to {max(offsets_hz):g}, which in Hz is too close to water for a "
            "spectrum and looks like ppm or kHz: name the list SaturationOffset_ppm if it is in ppm, or give it in Hz"
        )
    return [round(offset / larmor_MHz, 6) for offset in offsets_hz]


def _agreed(given: dict[str, list[float]]) -> list[float] | None:
    """The offsets in ppm, which all lists that are given have to have."""
    if not given:
        return None
    first, offsets = next(iter(given.items()))
    for name, others in given.items():
        if len(others) != len(offsets) or not np.allclose(others, offsets, rtol=SAME_MAGNET, atol=_ROUNDING_PPM):
            raise ValueError(
                f"{name} and {first} give different offsets: correct the wrong one, or leave it out, and check that "
                "the names say the units"
            )
    return offsets
