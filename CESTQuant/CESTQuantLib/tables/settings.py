"""The table of the settings of a protocol: a row for every value of the whole acquisition."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .events import playing_the_same
from .values import typed_number


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
_GAPS = {"duty_cycle": "pulse_delay_s", "pulse_delay_s": "duty_cycle"}
"""Settings that describe the gaps of a train, each with the one that it replaces."""


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
    return playing_the_same(changed, protocol, key, setting_text) if played else changed


def _setting(setting: Setting, text: str) -> Any:
    if setting.kind == "number":
        value = typed_number(text, setting.title)
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
        return [int(typed_number(part, setting.title)) for part in re.split(r"[,;\s]+", text) if part]
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
