"""JSON files beside NIfTI images, as converters write them in the layout of BIDS: what they say of the saturation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import number, numbers, read_json

from ..protocol_json import PROTOCOL_KEYS, SAME_MAGNET
from ..pulseq.field import STRONGEST_T
from .saturation import field_of_larmor

_OFFSETS_PPM = ("offsets_ppm", "SaturationOffsets", "SaturationOffset_ppm", "OffsetsPPM", "FrequencyOffsetsPPM")
_FIELDS_T = ("field_strength_T", "MagneticFieldStrength")
_FREQUENCIES_MHZ = ("larmor_frequency_MHz", "ImagingFrequency")
_OFFSETS_HZ = ("SaturationOffset_Hz", "FrequencyOffsets", "MTOffsetFrequency", "OffsetsHz")


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
        ValueError: The file is missing or has an unusable value, or fields that are not those of one magnet; the
            message names it.
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
    for name in _OFFSETS_PPM:
        if name in values:
            protocol["offsets_ppm"] = numbers(values[name], name).tolist()
            break
    for name in _OFFSETS_HZ:
        if protocol["offsets_ppm"] is None and name in values:
            protocol["offsets_ppm"] = _in_ppm(numbers(values[name], name).tolist(), protocol, name)
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


def _in_ppm(offsets_hz: list[float], protocol: dict[str, Any], name: str) -> list[float]:
    larmor = protocol["larmor_frequency_MHz"]
    if larmor is None and protocol["field_strength_T"] is not None:
        larmor = protocol["field_strength_T"] / field_of_larmor(1.0)
    if larmor is None:
        raise ValueError(
            f"{name} is in Hz and none of {', '.join((*_FREQUENCIES_MHZ, *_FIELDS_T))} is given, which convert it"
        )
    return [round(offset / larmor, 6) for offset in offsets_hz]
