"""Values of model files as short texts, for tables that are edited in place.

``0.0009`` is a fixed value, ``1.3 ± 0.1`` one with an uncertainty (its standard deviation), ``0.001 [0, 0.005]`` a
fitted one with its start and bounds, which may be followed by ``prior 0.001 ± 0.0002``; ``from t1`` takes the value of
each voxel from a map, ``from t1 ± 0.1`` from an uncertain one, and ``water + 3.5`` ties the position of a Lorentzian
line to that of the water. Equal bounds, ``2 [2, 2]``, fix a value of a Lorentzian line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from NeuroCESTLib.core.checked_json import with_ascii_minus

FIXED, FITTED, MAP, TIED, WORD = "fixed", "fitted", "map", "tied", "word"
"""Kinds of values."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_PLUS_MINUS = r"(?:±|\+-|\+/-)"
_FORMS = {
    FIXED: "a number, such as 0.001",
    FITTED: "a fitted value with its bounds, such as 0.001 [0, 0.005]",
    MAP: "a map, such as from t1",
    TIED: "a distance from the water, such as water + 3.5",
    WORD: "a word",
}


def number_text(number: float) -> str:
    """Return a number with as many digits as reading it back needs."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


@dataclass(frozen=True)
class Cell:
    """A value of a model.

    Attributes:
        kind: ``fixed``, ``fitted``, ``map``, ``tied`` or ``word``.
        value: The fixed value, the start of a fitted one, or the distance of a tied position from the water.
        bounds: Lower and upper bound of a fitted value.
        prior: Mean and standard deviation of the prior of a fitted value, if it has one.
        name: Name of a map, or the word.
        sd: Standard deviation of a fixed value or a map that is uncertain.
    """

    kind: str
    value: float = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)
    prior: tuple[float, float] | None = None
    name: str = ""
    sd: float | None = None

    def text(self) -> str:
        """Return the text of the table, which ``cell_of_text`` reads back."""
        if self.kind == MAP:
            return f"from {self.name}" + (f" ± {self.sd:g}" if self.sd else "")
        if self.kind == WORD:
            return self.name
        if self.kind == TIED:
            return f"water {'-' if self.value < 0 else '+'} {number_text(abs(self.value))}"
        if self.kind == FIXED:
            return number_text(self.value) + (f" ± {number_text(self.sd)}" if self.sd else "")
        low, high = map(number_text, self.bounds)
        prior = f" prior {' ± '.join(map(number_text, self.prior))}" if self.prior else ""
        return f"{number_text(self.value)} [{low}, {high}]{prior}"

    def entry(self) -> Any:
        """Return the value as a model file holds it."""
        if self.kind == MAP:
            return {"map": self.name, "sd": self.sd} if self.sd else {"map": self.name}
        if self.kind == WORD:
            return self.name
        if self.kind != FITTED:
            return {"value": self.value, "sd": self.sd} if self.sd else self.value
        prior = {"prior": {"mean": self.prior[0], "sd": self.prior[1]}} if self.prior else {}
        return {"fit": True, "start": self.value, "bounds": list(self.bounds), **prior}


def cell_of_entry(entry: Any) -> Cell:
    """Return the cell of a value of a model file: a number, a fitted value, a map or a word.

    Raises:
        ValueError: The value is none of these.
    """
    if isinstance(entry, str):
        return Cell(WORD, name=entry)
    if isinstance(entry, Mapping) and "map" in entry:
        sd = entry.get("sd")
        return Cell(MAP, name=str(entry["map"]), sd=float(sd) if isinstance(sd, int | float) else None)
    try:
        if not isinstance(entry, Mapping):
            return Cell(FIXED, float(entry))
        if "value" in entry:
            return Cell(FIXED, float(entry["value"]), sd=float(entry["sd"]))
        low, high = (float(bound) for bound in entry["bounds"])
        prior = entry.get("prior")
        if isinstance(prior, Mapping):
            prior = (prior["mean"], prior["sd"])
        spread = None if prior is None else (float(prior[0]), float(prior[1]))
        return Cell(FITTED, float(entry.get("start", (low + high) / 2)), (low, high), spread)
    except (TypeError, ValueError, KeyError, IndexError):
        raise ValueError(f"{str(entry)[:60]} is no value of a model") from None


def cell_of_text(text: str, kinds: tuple[str, ...]) -> Cell:
    """Return the value that a user has typed.

    Args:
        text: What was typed, see the head of this file.
        kinds: Kinds that are allowed here.

    Raises:
        ValueError: The text is no such value; the message says what to type.
    """
    cell = _read(with_ascii_minus(text).strip())
    if cell is None or cell.kind not in kinds:
        if kinds == (WORD,) and text.strip():
            return Cell(WORD, name=text.strip())
        raise ValueError(f"'{text}' cannot be used here; type {' or '.join(_FORMS[kind] for kind in kinds)}")
    return checked(cell, fixing=FIXED not in kinds)


def _read(text: str) -> Cell | None:
    if found := re.fullmatch(rf"(?:from|map)\s+(.+?)(?:\s*{_PLUS_MINUS}\s*({_NUMBER}))?", text):
        return Cell(MAP, name=found[1].strip(), sd=float(found[2]) if found[2] else None)
    if found := re.fullmatch(rf"water\s*([-+])\s*({_NUMBER})", text, re.IGNORECASE):
        return Cell(TIED, float(found[2]) * (-1 if found[1] == "-" else 1))
    if re.fullmatch(_NUMBER, text, re.IGNORECASE):
        return Cell(FIXED, float(text))
    if found := re.fullmatch(rf"({_NUMBER})\s*{_PLUS_MINUS}\s*({_NUMBER})", text, re.IGNORECASE):
        return Cell(FIXED, float(found[1]), sd=float(found[2]))
    separator, numbers = r"\s*(?:,|;|to|\s)\s*", rf"({_NUMBER})"
    pattern = (
        rf"{numbers}\s*\[\s*{numbers}{separator}{numbers}\s*\](?:\s*prior\s+{numbers}\s*{_PLUS_MINUS}\s*{numbers})?"
    )
    found = re.fullmatch(pattern, text, re.IGNORECASE)
    if found is None:
        return None
    start, low, high = (float(found[place]) for place in (1, 2, 3))
    prior = (float(found[4]), float(found[5])) if found[4] else None
    return Cell(FITTED, start, (low, high), prior)


def checked(cell: Cell, *, fixing: bool = False) -> Cell:
    """Return the cell itself.

    Args:
        cell: The cell.
        fixing: Whether equal bounds fix a value, as those of Lorentzian pools do.

    Raises:
        ValueError: A number is not finite, the bounds are not in order, the start lies outside them, or the standard
            deviation of the prior is not positive.
    """
    low, high = cell.bounds
    if not math.isfinite(cell.value):
        raise ValueError("the value is not finite")
    if cell.kind == FITTED and not (low < high or (fixing and low == high)):
        raise ValueError(f"the lower bound {low:g} must be below the upper bound {high:g}")
    if cell.kind == FITTED and not low <= cell.value <= high:
        raise ValueError(f"the start {cell.value:g} lies outside its bounds [{low:g}, {high:g}]")
    if cell.prior is not None and not cell.prior[1] > 0:
        raise ValueError("the standard deviation of the prior must be above 0")
    if cell.sd is not None and not cell.sd > 0:
        raise ValueError("the standard deviation must be above 0")
    return cell


def maps_of(entry: Any) -> set[str]:
    """Return the names of the maps that a model, or a part of one, refers to."""
    if isinstance(entry, list):
        return {name for each in entry for name in maps_of(each)}
    if not isinstance(entry, dict):
        return set()
    own = {entry["map"]} if isinstance(entry.get("map"), str) else set()
    return own.union(*(maps_of(value) for value in entry.values()))
