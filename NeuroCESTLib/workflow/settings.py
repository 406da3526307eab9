"""The settings of ``neurocest run``, which hold for all visits of a cohort."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.headers.limits import quoted
from NeuroCESTLib.core.messages.suggestions import did_you_mean

_FILES_OF_FIT = ("--signal", "--protocol", "--reference", "--mask")
_FILES_OF_COMPARTMENTS = ("--maps", "--segmentation", "--anatomy", "--to-anatomy", *_FILES_OF_FIT[:3], "--files")
OPTIONS_OF_THE_RUN: Mapping[str, tuple[str, ...]] = {
    "fit": (*_FILES_OF_FIT, "--b0", "--b1", "--t1", "--method", "--model", "--output"),
    "fields": ("--signal", "--protocol", "--mask", "--output"),
    "registration": (
        *(f"--{study}{what}" for study in ("fixed", "moving") for what in ("", "-mask", "-tumor")),
        *("--visit", "--reference", "--output"),
    ),
    "segmentation": ("--images", "--mask", "--output"),
    "compartments": (
        *(f"{option}{end}" for option in _FILES_OF_COMPARTMENTS for end in ("", "2")),
        *("--between", "--visits", "--register", "--output"),
    ),
}
"""Options of the commands that differ from visit to visit or have keys of their own, by the key of the others."""


@dataclass(frozen=True)
class Settings:
    """What holds for all visits of a cohort.

    Attributes:
        method: Method of ``cestquant fit``.
        model: Absolute path of the tissue model of that method; empty for none.
        register: Whether CEST and structural images are registered; otherwise the scanner's coordinates count.
        fit: Further arguments of ``cestquant fit``.
        fields: Further arguments of ``cestquant wasabi`` and ``wassr``.
        registration: Further arguments of ``jointregseg apply``.
        segmentation: Further arguments of ``jointregseg segment``.
        compartments: Further arguments of ``cestquant compartments``.
        anonymous: Whether the commands leave paths and names out of what they write; an argument of ``neurocest run``
            and no key of the file.
    """

    method: str = "lorentzian"
    model: str = ""
    register: bool = True
    fit: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    registration: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    compartments: tuple[str, ...] = ()
    anonymous: bool = False


def read_settings(path: str | os.PathLike | None) -> Settings:
    """Read the settings of a cohort.

    Args:
        path: JSON file with the attributes of ``Settings`` as keys; arguments are lists of texts, and ``model``
            and files among the arguments are relative to the file. None for the defaults.

    Raises:
        ValueError: The file is unreadable or there are mistakes in it; all are named.
    """
    if path is None:
        return Settings()
    path = Path(path)
    values = read_json(path)
    known = [name for name in Settings.__dataclass_fields__ if name != "anonymous"]
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: must be an object with the keys {', '.join(known)}")
    problems = [
        f"the key {quoted(str(key))} is unknown{did_you_mean(str(key), known)}" for key in values if key not in known
    ]
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            continue
        usual = getattr(Settings(), key)
        if isinstance(usual, tuple):
            fits = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
            checked[key] = tuple(_beside(path, entry) for entry in value) if fits else ()
            wanted = "a list of texts"
        else:
            fits = isinstance(value, type(usual))
            checked[key] = value
            wanted = "true or false" if isinstance(usual, bool) else "a text"
        if not fits:
            problems.append(f"{key} must be {wanted}")
    for key, options in OPTIONS_OF_THE_RUN.items():
        words = {word.partition("=")[0] for word in checked.get(key, ())}
        problems += [
            f"{key} has {option}, which the run gives itself: leave it out (files are columns of the manifest; method, "
            "model and register are keys of the settings)"
            for option in options
            if option in words
        ]
    if model := checked.get("model"):
        checked["model"] = str(Path(os.path.abspath(path)).parent / str(model))
        if not Path(checked["model"]).is_file():
            problems.append(f"model names {quoted(str(model), 200)}, which does not exist")
    if problems:
        raise ValueError(f"the settings '{path}' cannot be used: {'; '.join(problems)}; keys are {', '.join(known)}")
    return Settings(**checked)


def _beside(settings: Path, argument: str) -> str:
    """An argument, as an absolute path where it names a file beside the settings (also as ``--option=FILE``)."""
    option, equals, name = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    file = Path(os.path.abspath(settings)).parent / name
    try:
        return f"{option}{equals}{file}" if name and file.is_file() else argument
    except (OSError, ValueError):
        return argument
