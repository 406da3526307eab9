"""A protocol as two tables: one row for every measurement, and one for every setting of the whole acquisition.

A protocol is the content of its ``protocol.json``; every change gives a new one.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from NeuroCESTLib.core.checked_json import with_ascii_minus


@dataclass(frozen=True)
class Column:
    """A quantity that has one value for every measurement.

    Attributes:
        key: Key in the file.
        title: Heading with the unit.
        description: What it is, for the tool tip.
        signed: Whether values may be negative.
        needed: Whether it may not be left out.
    """

    key: str
    title: str
    description: str
    signed: bool = False
    needed: bool = False


COLUMNS = (
    Column("offsets_ppm", "Offset (ppm)", "Offset of the saturation from the water in ppm.", True, True),
    Column(
        "b1_uT",
        "B1 (µT)",
        "Saturation amplitude in µT: of a train, the root mean square over its pulses and the gaps between them.",
        needed=True,
    ),
    Column("saturation_time_s", "Saturation (s)", "Duration of continuous-wave saturation in s."),
    Column("post_delay_s", "Delay (s)", "Time between saturation and readout in s."),
    Column("recovery_time_s", "Recovery (s)", "Time from the excitation to the next saturation in s."),
    Column("readout_flip_angle_deg", "Flip angle (°)", "Flip angle of the readout in degrees."),
)
"""Columns of the table of measurements."""


@dataclass(frozen=True)
class Setting:
    """A value of the whole acquisition.

    Attributes:
        key: Key in the file; ``readout.`` marks those of its part.
        title: What the table calls it.
        description: What it is, for the tool tip.
        kind: ``number``, ``choice``, ``yes or no``, ``numbers``, ``text``, or ``shape``, a name or an object.
        choices: Accepted texts of a choice.
        of_train: Whether it describes a pulse train.
    """

    key: str
    title: str
    description: str
    kind: str = "number"
    choices: tuple[str, ...] = ()
    of_train: bool = False


SETTINGS = (
    Setting("field_strength_T", "Static field (T)", "Field strength of the scanner in T."),
    Setting(
        "saturation_type", "Saturation", "cw, or pulse_train with the pulses below.", "choice", ("cw", "pulse_train")
    ),
    Setting("n_pulses", "Pulses", "Number of pulses of a train.", of_train=True),
    Setting("pulse_duration_s", "Pulse duration (s)", "Duration of each pulse of a train in s.", of_train=True),
    Setting(
        "duty_cycle",
        "Duty cycle",
        "Pulse duration divided by the time from pulse to pulse, from 0 to 1.",
        of_train=True,
    ),
    Setting("pulse_delay_s", "Pulse delay (s)", "Pause between pulses in s, instead of the duty cycle.", of_train=True),
    Setting("pulse_shape", "Pulse shape", "block, gaussian or sinc_gaussian.", "shape", of_train=True),
    Setting("readout.pulse_duration_s", "Excitation (s)", "Duration of the excitation pulse in s."),
    Setting("readout.echo_time_s", "Echo time (s)", "Time from the excitation to the echo in s."),
    Setting(
        "magnetisation_carried_over",
        "Carried over",
        "yes if the magnetisation of one measurement is the start of the next, no if each starts afresh.",
        "yes or no",
    ),
    Setting(
        "signal_normalisation",
        "Normalisation",
        "m0: by the unsaturated image, l2: by the norm of the spectrum, or none.",
        "choice",
        ("m0", "l2", "none"),
    ),
    Setting(
        "m0_measurements", "M0 measurements", "Numbers of the unsaturated measurements, counted from 1.", "numbers"
    ),
    Setting("note", "Note", "Any text.", "text"),
)
"""Rows of the table of settings."""


def new_protocol(offsets_ppm: Sequence[float]) -> dict[str, Any]:
    """Return a protocol of which only the offsets are known; it is at 3 T, and B1 and saturation time are 0."""
    return {
        "field_strength_T": 3.0,
        "offsets_ppm": [float(offset) for offset in offsets_ppm],
        "b1_uT": 0.0,
        "saturation_type": "cw",
        "saturation_time_s": 0.0,
    }


_GAPS = {"duty_cycle": "pulse_delay_s", "pulse_delay_s": "duty_cycle"}
"""Settings that describe the gaps of a train, each with the one that it replaces."""


def measurement_count(protocol: Mapping[str, Any]) -> int:
    """Return the number of measurements."""
    return len(_listed(protocol["offsets_ppm"]))


def readable_protocol(values: Any, source: str) -> dict[str, Any]:
    """Return a protocol that the tables can show.

    Args:
        values: Content of a ``protocol.json``.
        source: File, with which the message begins.

    Raises:
        ValueError: The content is no protocol.
    """
    try:
        for column in COLUMNS:
            column_texts(values, column.key)
        for setting in SETTINGS:
            setting_text(values, setting.key)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise ValueError(f"{source}: this is not a protocol with offsets_ppm") from None
    return dict(values)


def column_texts(protocol: Mapping[str, Any], key: str) -> list[str]:
    """Return the texts of a column, one for every measurement; empty ones where nothing is given."""
    count, value = measurement_count(protocol), protocol.get(key)
    if value is None:
        return [""] * count
    given = _listed(value)
    return [f"{float(each):.7g}" for each in (given * count if len(given) == 1 else given)][:count]


def text_of_all(protocol: Mapping[str, Any], key: str) -> str:
    """Return the text of a column where it is the same for all measurements; an empty one where it is not."""
    texts = set(column_texts(protocol, key))
    return texts.pop() if len(texts) == 1 else ""


def with_measurement(protocol: Mapping[str, Any], row: int | None, key: str, text: str) -> dict[str, Any]:
    """Return the protocol with another value of a measurement.

    Args:
        protocol: Content of a ``protocol.json``.
        row: Measurement, counted from 0; None for all of them.
        key: Key of the column.
        text: The value as typed; an empty one for all measurements leaves the quantity out.

    Raises:
        ValueError: The text is no such value, in a message that names measurement and column, or the protocol has
            single events, which the value describes.
    """
    column = next(column for column in COLUMNS if column.key == key)
    where = column.title if row is None else f"measurement {row + 1}, {column.title}"
    changed = copy.deepcopy(dict(protocol))
    if not text.strip() and row is None and not column.needed:
        changed.pop(key, None)
        return _playing_the_same(changed, protocol, key)
    value = _number(text, where)
    if value < 0 and not column.signed:
        raise ValueError(f"{where}: {value:g} is negative")
    if row is None:
        changed[key] = [value] * measurement_count(protocol) if key == "offsets_ppm" else value
        return _playing_the_same(changed, protocol, key)
    kept = _listed(protocol.get(key, math.nan))
    listed = [float(each) for each in (kept * measurement_count(protocol) if len(kept) == 1 else kept)]
    if any(math.isnan(each) for place, each in enumerate(listed) if place != row):
        raise ValueError(f"{where}: give the value of all measurements first, in the line 'all'")
    listed[row] = value
    changed[key] = listed
    return _playing_the_same(changed, protocol, key)


def _playing_the_same(changed: dict[str, Any], protocol: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a changed protocol.

    Raises:
        ValueError: The protocol has single events, which are what is played, and a quantity that describes them is
            another one than before.
    """
    if protocol.get("events") is None:
        return changed
    shown = column_texts if any(column.key == key for column in COLUMNS) else setting_text
    if shown(changed, key) != shown(protocol, key):
        raise ValueError("the protocol describes the events of every measurement: edit its file instead")
    return changed


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


def title_of(key: str) -> str:
    """Return what the tables call a key."""
    return next(each.title for each in (*COLUMNS, *SETTINGS) if each.key == key)


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


def offsets_of_ranges(text: str) -> list[float]:
    """Return the offsets that a user has typed: single numbers and ranges ``from:step:to``, in ppm.

    ``-300, -6:0.25:6`` is one far offset and 49 around the water; a range includes its end.

    Raises:
        ValueError: The text holds no offsets; the message names the part that is none.
    """
    offsets: list[float] = []
    for part in re.split(r"[,;\s]+", with_ascii_minus(text).strip()):
        if not part:
            continue
        numbers = [_number(number, f"'{part}'") for number in part.split(":")]
        if len(numbers) == 1:
            offsets += numbers
            continue
        if len(numbers) != 3:
            raise ValueError(f"'{part}': a range is from:step:to, such as -6:0.25:6")
        start, step, end = numbers
        if step == 0 or (end - start) / step < 0:
            raise ValueError(f"'{part}': steps of {step:g} do not lead from {start:g} to {end:g}")
        count = math.floor((end - start) / step + 1e-9) + 1
        if count > 10000:
            raise ValueError(f"'{part}' has {count} offsets, which is too many")
        offsets += [round(start + step * place, 9) for place in range(count)]
    if not offsets:
        raise ValueError("type offsets in ppm, such as -300, -6:0.25:6")
    return offsets


def with_offsets(protocol: Mapping[str, Any] | None, offsets_ppm: Sequence[float]) -> dict[str, Any]:
    """Return the protocol with other offsets; without one, a new protocol.

    Numbers of M0 measurements are dropped where other offsets stand there now.

    Raises:
        ValueError: The number of offsets changes although another quantity has one value for every measurement, or the
            protocol has single events.
    """
    if protocol is None:
        return new_protocol(offsets_ppm)
    offsets = [float(offset) for offset in offsets_ppm]
    changed = copy.deepcopy(dict(protocol))
    _playing_the_same({**changed, "offsets_ppm": offsets}, protocol, "offsets_ppm")
    if changed.get("events") is not None:
        return changed
    for column in COLUMNS[1:]:
        value = _listed(changed.get(column.key, 0.0))
        if len(set(value)) == 1 and column.key in changed:
            changed[column.key] = value[0]
        elif len(value) not in (1, len(offsets_ppm)):
            raise ValueError(
                f"{column.title} has a value of its own for each of {len(value)} measurements, but {len(offsets_ppm)} "
                "offsets are given: set it to one value in the line 'all' first"
            )
    if _of_numbers(changed.get("m0_measurements"), offsets) != _of_numbers(
        changed.get("m0_measurements"), _listed(changed["offsets_ppm"])
    ):
        del changed["m0_measurements"]
    changed["offsets_ppm"] = offsets
    return changed


def _of_numbers(measurements: Any, offsets_ppm: Sequence[float]) -> dict[float, str]:
    """Texts of the offsets of measurements whose numbers, counted from 1, are given."""
    given = [] if measurements is None else _listed(measurements)
    return {number: f"{offsets_ppm[int(number) - 1]:.7g}" for number in given if 1 <= number <= len(offsets_ppm)}


def setting_text(protocol: Mapping[str, Any], key: str) -> str:
    """Return the text of a setting; empty where it is not given."""
    owner, name = _owner(protocol, key)
    value = owner.get(name)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(f"{each:g}" for each in value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    return value if isinstance(value, str) else f"{value:.7g}"


def with_setting(protocol: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
    """Return the protocol with another setting; an empty text leaves it out.

    Duty cycle and pulse delay say the same: the one that is set replaces the other.

    Raises:
        ValueError: The text is no such value, in a message that names the setting, or the protocol has single events,
            which the setting describes.
    """
    setting = next(setting for setting in SETTINGS if setting.key == key)
    changed = copy.deepcopy(dict(protocol))
    part = key.rpartition(".")[0]
    if part and not changed.get(part):
        changed[part] = {}
    owner, name = _owner(changed, key)
    text = text.strip()
    if not text and key != "field_strength_T":
        owner.pop(name, None)
        changed = {key: value for key, value in changed.items() if value != {}}
    else:
        owner[name] = _setting(setting, text)
        if key in _GAPS:
            changed.pop(_GAPS[key], None)
    played = setting.of_train or key == "saturation_type" or part == "readout"
    return _playing_the_same(changed, protocol, key) if played else changed


def _setting(setting: Setting, text: str) -> Any:
    if setting.kind == "number":
        value = _number(text, setting.title)
        if value < 0:
            raise ValueError(f"{setting.title}: {value:g} is negative")
        return int(value) if setting.key == "n_pulses" and value.is_integer() else value
    if setting.kind == "choice" and text not in setting.choices:
        raise ValueError(f"{setting.title}: '{text}' is unknown; use {' or '.join(setting.choices)}")
    if setting.kind == "yes or no":
        if text.lower() not in ("yes", "no"):
            raise ValueError(f"{setting.title}: type yes or no")
        return text.lower() == "yes"
    if setting.kind == "numbers":
        return [int(_number(part, setting.title)) for part in re.split(r"[,;\s]+", text) if part]
    if setting.kind == "shape" and text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(f"{setting.title}: the samples of the pulse cannot be read") from None
    return text


def _owner(protocol: Any, key: str) -> tuple[dict[str, Any], str]:
    part, _, name = key.rpartition(".")
    owner = protocol.get(part) if part else protocol
    return ({} if owner is None else owner), name


def _listed(value: Any) -> list[float]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _number(text: str, where: str) -> float:
    try:
        value = float(with_ascii_minus(text).strip())
    except ValueError:
        raise ValueError(f"{where}: '{text}' is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not finite")
    return value
