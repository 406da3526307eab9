"""JSON files beside NIfTI images, as converters write them in the layout of BIDS: what they say of the saturation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import number, numbers, read_json

from ..protocol_json import PROTOCOL_KEYS
from .saturation import field_of_larmor

_OFFSETS_PPM = ("offsets_ppm", "SaturationOffsets", "SaturationOffset_ppm", "OffsetsPPM", "FrequencyOffsetsPPM")
_OFFSETS_HZ = ("SaturationOffset_Hz", "FrequencyOffsets", "MTOffsetFrequency", "OffsetsHz")


def sidecar_of(image: str | Path) -> Path:
    """Return the JSON file of an image: its name with another ending."""
    image = Path(image)
    stem = image.name
    for ending in (".gz", ".nii", ".img", ".hdr"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return image.with_name(f"{stem}.json")


def protocol_of_sidecar(path: str | Path) -> dict[str, Any]:
    """Return the keys of a ``protocol.json`` that a sidecar gives, None for what it does not say.

    Keys of a ``protocol.json`` are taken as they are. Of BIDS are read ``MagneticFieldStrength`` (T),
    ``ImagingFrequency`` (MHz) and the offsets under usual names, in ppm or, converted, in Hz.

    Raises:
        ValueError: The file is missing or has an unusable value; the message names it.
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
    if "ImagingFrequency" in values:
        protocol["larmor_frequency_MHz"] = _positive(values, "ImagingFrequency")
        protocol["field_strength_T"] = field_of_larmor(protocol["larmor_frequency_MHz"])
    elif "MagneticFieldStrength" in values:
        protocol["field_strength_T"] = _positive(values, "MagneticFieldStrength")
    for name in _OFFSETS_PPM:
        if name in values:
            protocol["offsets_ppm"] = numbers(values[name], name).tolist()
    for name in _OFFSETS_HZ:
        if protocol["offsets_ppm"] is None and name in values:
            protocol["offsets_ppm"] = _in_ppm(numbers(values[name], name).tolist(), protocol, name)
    return protocol | {key: value for key, value in values.items() if key in PROTOCOL_KEYS}


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
        raise ValueError(f"{name} is in Hz and neither ImagingFrequency nor MagneticFieldStrength is given")
    return [round(offset / larmor, 6) for offset in offsets_hz]
