"""What a protocol leaves open, such as what the files of a scanner do not say, and filling it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .measurements import COLUMNS, with_measurement
from .offsets import offsets_of_ranges
from .protocols import title_of
from .settings import SETTINGS, with_setting

_OF_TRAIN = ("n_pulses", "pulse_duration_s", "pulse_shape")


def open_keys(protocol: Mapping[str, Any]) -> list[str]:
    """Return the keys of a protocol that are null, such as those that scanner files do not say, in their order.

    A train of pulses also needs those of its pulses that are not there.
    """
    shown = {*(column.key for column in COLUMNS), *(setting.key for setting in SETTINGS)}
    keys = [key for key, value in protocol.items() if value is None and key in shown]
    if protocol.get("saturation_type") == "pulse_train":
        keys += [key for key in _OF_TRAIN if protocol.get(key) is None and key not in keys]
        keys = [key for key in keys if key != "saturation_time_s"]
    return keys


def open_saturation(protocol: Mapping[str, Any]) -> list[str]:
    """Return the keys without which no saturation can be simulated, B1 and its duration, that a protocol leaves open.

    Samples of a pulse in uT say the B1, and the pulses of a train its duration. A duration of 0 is none, and so is the
    B1 of 0 that goes with it: lists of offsets have these values.
    """
    if protocol.get("events") is not None:
        return []

    def is_positive(key: str) -> bool:
        value = protocol.get(key)
        values = value if isinstance(value, list) else [value]
        return any(isinstance(number, int | float) and number > 0 for number in values)

    lasts = is_positive("saturation_time_s") or (is_positive("n_pulses") and is_positive("pulse_duration_s"))
    shape = protocol.get("pulse_shape")
    has_b1 = isinstance(shape, Mapping) and "samples_uT" in shape
    has_b1 = has_b1 or is_positive("b1_uT") or (lasts and protocol.get("b1_uT") is not None)
    return [key for key, known in (("b1_uT", has_b1), ("saturation_time_s", lasts)) if not known]


def filled_in(protocol: Mapping[str, Any], key: str, text: str, measurements: int) -> dict[str, Any]:
    """Return the protocol with a value for what was null.

    Args:
        protocol: Content of a ``protocol.json``.
        key: Its key.
        text: The value as typed; offsets are numbers and ranges, those of one repetition or of all measurements.
        measurements: Number of volumes of the acquisition.

    Raises:
        ValueError: The text is no such value, or the offsets do not fit the volumes.
    """
    if key == "offsets_ppm":
        offsets = offsets_of_ranges(text)
        if measurements % len(offsets):
            raise ValueError(f"{len(offsets)} offsets do not fit {measurements} volumes")
        return {**protocol, key: offsets * (measurements // len(offsets))}
    if not text.strip():
        raise ValueError(f"{title_of(key)}: type a value")
    if any(column.key == key for column in COLUMNS):
        return {**protocol, key: with_measurement({"offsets_ppm": [0.0]}, None, key, text)[key]}
    return with_setting(protocol, key, text)
