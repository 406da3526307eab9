"""JSON and text files, and the values in them, checked where they are read; every message names its place."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor

Settings = TypeVar("Settings", bound="DataclassInstance")


def read_text(path: str | Path, remedy: str = "") -> str:
    """Read a text file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.

    Args:
        path: File to read.
        remedy: What the user can do about a missing file; it ends the message.

    Returns:
        The text of the file.

    Raises:
        ValueError: The file is missing or is not readable text; the message names it.
    """
    ending = f"; {remedy}" if remedy else ""
    try:
        content = Path(path).read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8").lstrip("\ufeff")
        if wide:
            text[:1].replace("\u2212", "-").encode(
                "ascii"
            )  # any two bytes are a character of UTF-16: this one must begin a text
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file{ending}") from None
    except (UnicodeError, OSError):
        raise ValueError(f"{path}: not a readable text file{ending}") from None


def read_json(path: str | Path, remedy: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: File to read.
        remedy: What the user can do about a missing file; it ends the message.

    Returns:
        The value in the file, of any JSON type: callers check it, objects with ``check_keys``.

    Raises:
        ValueError: The file is missing, is not text or is not valid JSON; the message names the file and the line.
    """
    text = read_text(path, remedy)
    try:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
        return json.loads(with_ascii_minus(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not usable JSON (a number too long or values nested too deep)") from None


def with_ascii_minus(text: str) -> str:
    """Replace the typographic minus sign (U+2212) before a number, as word processors write it, by the hyphen-minus."""
    return re.sub(r"\u2212(?=[\d.])", "-", text)


def check_keys(values: Any, known: Iterable[str], where: str, also: Iterable[str] = ()) -> dict[str, Any]:
    """Check that a value is a JSON object with known keys only.

    Every configuration of the project is read through this function, so a misspelled key is an error everywhere.
    Files that describe an experiment and may come from other software (``protocol.json``, simulation scenarios, pool
    files) are the exception: their readers name unknown keys in a warning.

    Args:
        values: Object as read from JSON.
        known: Accepted keys, which the message lists.
        where: File and section, such as ``'config.json': training``, with which the message begins.
        also: Further accepted keys that the message does not list, such as notes.

    Returns:
        ``values`` as a dictionary.

    Raises:
        ValueError: ``values`` is not an object, or has unknown keys; the message lists the known ones.
    """
    known = tuple(known)
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: must be an object with the keys {', '.join(known)}")
    if unknown := sorted(str(key) for key in values if key not in known and key not in tuple(also)):
        raise ValueError(f"{where}: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
    return dict(values)


def settings_from_json(kind: type[Settings], values: Any, where: str) -> Settings:
    """Build a settings dataclass from an object as read from JSON.

    Args:
        kind: Dataclass whose fields are the keys; it checks its values when it is made.
        values: Object as read from JSON.
        where: File and section, such as ``'config.json': training``, with which every message begins.

    Returns:
        The settings; fields without a key have their defaults.

    Raises:
        ValueError: ``values`` is not an object, has unknown keys, or has a value that the dataclass refuses.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    checked = check_keys(values, known, where)
    try:
        return kind(**checked)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    except TypeError as error:
        raise ValueError(f"{where}: a value has the wrong type ({error})") from None


def number(value: Any, name: str) -> float:
    """Return a finite number as float.

    Args:
        value: Value as read from JSON; booleans are not numbers.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: The value is not a number, or is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {_shortened(value)}, which is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} is not finite")
    return result


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """Return a whole number as int; 3.0 counts as one.

    Args:
        value: Value as read from JSON; booleans are not numbers.
        name: Name of the value, with which the message begins.
        least: Smallest accepted number; None accepts all.

    Raises:
        ValueError: The value is not a whole number, is too large for a float, or is below ``least``.
    """
    try:
        whole = isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()
    except OverflowError:
        raise ValueError(f"{name} is {_shortened(value)}, which is too large") from None
    if not whole or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} is {_shortened(value)} but must be a whole number{bound}")
    return int(value)


def numbers(value: Any, name: str) -> Tensor:
    """Return one or several numbers as a floating-point tensor of shape (n,).

    Args:
        value: A number, a flat list of numbers, or a tensor of at most one dimension. A floating-point tensor keeps
            its dtype and its autograd graph; everything else becomes float64.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: The value is neither a number nor a flat list of numbers.
    """
    import torch

    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a number or a list of numbers") from error
    if tensor.ndim > 1:
        raise ValueError(f"{name} must be a number or a list of numbers, not nested lists")
    return (tensor if tensor.is_floating_point() else tensor.to(torch.float64)).reshape(-1)


def require_file_name(name: str, what: str) -> None:
    """Check that a name can be part of a file name.

    Args:
        name: Name such as that of a solute pool, after which map files are named.
        what: What the name belongs to, with which the message begins.

    Raises:
        ValueError: The name contains characters other than letters, digits, spaces and ``_ . + -``.
    """
    if not re.fullmatch(r"\w[\w .+-]*", name):
        raise ValueError(f"{what} '{name}' must consist of letters, digits, spaces, '_', '.', '+' and '-'")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
