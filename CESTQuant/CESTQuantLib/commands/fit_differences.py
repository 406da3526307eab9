"""In what two output folders of ``cestquant fit`` were made otherwise, so that their maps do not compare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json, shortened
from NeuroCESTLib.core.checksum import sha256

_SETTINGS = (
    "method",
    "power",
    "normalisation",
    "m0_over_time",
    "quass",
    "motion_correct",
    "denoise",
    "smooth_spectra",
    "spatial_prior",
    "dictionary_entries",
)
"""Settings in a report that change the values of the maps."""
_FILES = ("model", "lorentzian", "network", "config", "calibration", "protocol")
"""Roles of files that do so; a preset is a setting instead."""
_WHETHER = ("reference", "b0", "b1", "t1")
"""Files of every visit itself: it matters whether they were given."""
_OF_A_SESSION = ("larmor_frequency_MHz", "note")
"""Keys of a protocol that differ between sessions of the same protocol."""


def differences(first: str, second: str) -> list[str]:
    """Compare the reports of two folders of maps.

    Args:
        first: Output folder of ``cestquant fit``.
        second: Another one.

    Returns:
        What differs, such as ``method (mtrasym, lorentzian)``, or cannot be compared; nothing where a folder has no
        report of a fit.
    """
    reports = [_report(Path(folder)) for folder in (first, second)]
    if not all(reports):
        return []
    found = []
    for name in (*_SETTINGS, *_FILES, *_WHETHER):
        one, other = (_value(report, name) for report in reports)
        if name == "protocol" and one != other:
            found += _of_protocols(reports, (Path(first), Path(second)))
        elif one != other:
            plain = all(isinstance(value, str | float | int | None) for value in (one, other))
            shown = f" ({_text(one)}, {_text(other)})" if plain and name not in _FILES else ""
            found.append(name.replace("_", " ") + shown)
    return found


def _report(folder: Path) -> dict[str, Any]:
    file = folder / "report.json"
    content = read_json(file) if file.exists() else {}
    return content if isinstance(content, dict) and content.get("command") == "cestquant fit" else {}


def _value(report: Mapping[str, Any], name: str) -> Any:
    """What is compared: a setting, the checksums of files, or whether a file was given."""
    settings = report.get("settings")
    setting = settings.get(name) if isinstance(settings, Mapping) else None
    if name in _SETTINGS:
        return setting or None  # a version without an option left it out
    if name in _WHETHER:
        return "given" if setting else None
    return [each.get("sha256") for each in _files(report, name)] or setting


def _files(report: Mapping[str, Any], role: str) -> list[Mapping[str, Any]]:
    inputs = report.get("inputs")
    entries = [each for each in inputs if isinstance(each, Mapping)] if isinstance(inputs, list) else []
    return [each for each in entries if each.get("role") == role]


def _of_protocols(reports: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> list[str]:
    """What protocols of different checksums differ in; they may differ in keys of the session alone."""
    files = [_files(report, "protocol") for report in reports]
    if not all(files):
        return ["protocol"]
    contents = [[_content(each, folder) for each in entries] for entries, folder in zip(files, folders, strict=True)]
    if any(content is None for one in contents for content in one):
        return ["protocol (the files differ, in what cannot be compared because one of them is gone)"]
    if contents[0] == contents[1]:
        return []
    return ["protocol"]


def _content(entry: Mapping[str, Any], folder: Path) -> Any:
    """The keys of a protocol, its checksum if it has none, or None where the file is gone."""
    path = str(entry.get("path"))
    for place in (Path(path), folder / path, folder.parent / path):
        if os.path.isfile(place) and sha256(place) == entry.get("sha256"):
            content = read_json(place) if path.lower().endswith(".json") else None
            if isinstance(content, Mapping):
                return {key: value for key, value in content.items() if key not in _OF_A_SESSION}
            return entry.get("sha256")
    return None


def _text(value: Any) -> str:
    return "none" if value is None else "yes" if value is True else shortened(value).strip("'")
