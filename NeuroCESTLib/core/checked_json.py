"""JSON and text files, and the values in them, checked where they are read; every message names its place."""

from __future__ import annotations

import codecs
import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor

Settings = TypeVar("Settings", bound="DataclassInstance")


LONGEST_TEXT = 4 << 20
"""Bytes of the longest text file that is read; what would unpack to more than some 200 MB is refused."""
_MOST_PARTS = 200_000
DEEPEST = 50
"""Most levels of lists and objects in one another."""


def read_bytes(path: str | Path, longest: int, remedy: str = "") -> bytes:
    """Read a file that must not be long.

    Args:
        path: File to read.
        longest: Most bytes that it may have.
        remedy: What the user can do about a missing file; it ends the message.

    Returns:
        The content of the file.

    Raises:
        ValueError: The file is missing, too long or cannot be read; the message names it.
    """
    ending = f"; {remedy}" if remedy else ""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # 0 for a pipe, whose length is not known before
            content = file.read(min(size or longest, longest) + 1)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file{ending}") from None
    except OSError:
        raise ValueError(f"{path}: not a readable text file{ending}") from None
    if len(content) > longest:
        raise ValueError(f"{path}: longer than {longest / 1e6:.1f} MB, which no such file needs{ending}")
    return content


def read_text(path: str | Path, remedy: str = "", longest: int = LONGEST_TEXT) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.

    Args:
        path: File to read.
        remedy: What the user can do about a missing file; it ends the message.
        longest: Most bytes that it may have.

    Returns:
        The text of the file.

    Raises:
        ValueError: The file is missing, too long or is not readable text; the message names it.
    """
    content = read_bytes(path, longest, remedy)
    try:
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8").lstrip("\ufeff")
        if wide:
            text[:1].replace("\u2212", "-").encode(
                "ascii"
            )  # any two bytes are a character of UTF-16: this one must begin a text
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeError:
        ending = f"; {remedy}" if remedy else ""
        raise ValueError(f"{path}: not a readable text file{ending}") from None


def read_json(path: str | Path, remedy: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: File to read.
        remedy: What the user can do about a missing file; it ends the message.

    Returns:
        The value in the file, of any JSON type: callers check it, objects with ``check_keys``.

    Raises:
        ValueError: The file is missing, is not text or is not valid JSON, an object has a key twice, or values are
            nested too deep; the message names the file and, where it can, the line.
    """
    text = read_text(path, remedy)
    if text.count("[") + text.count("{") > _MOST_PARTS:
        raise ValueError(f"{path}: holds more than {_MOST_PARTS} lists and objects, which no such file needs")
    try:
        return parse_json(text, str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None


def parse_json(text: str, where: str) -> Any:
    """Read JSON from a text.

    Args:
        text: JSON; a typographic minus sign before a number passes.
        where: Where the text comes from, with which every message but that of invalid JSON begins.

    Raises:
        json.JSONDecodeError: The text is not valid JSON.
        ValueError: An object has a key twice, a number is too long, or values are nested too deep.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _RefusedError(f"{where}: the key {shortened(twice)} occurs twice in one object; remove one of them")
        return found

    try:
        try:
            values = json.loads(text, object_pairs_hook=unique)
        except json.JSONDecodeError as error:
            plain = with_ascii_minus(text)
            if plain == text:
                raise error
            values = json.loads(plain, object_pairs_hook=unique)
    except (json.JSONDecodeError, _RefusedError):
        raise
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: not usable JSON (a number too long or values nested too deep)") from None
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except (UnicodeError, RecursionError):
            raise ValueError(f"{where}: holds half a character (such as \\ud800); write the character itself") from None
    _check_depth(values, where)
    return values


class _RefusedError(ValueError):
    """A sentence that is complete."""


def _check_depth(values: Any, where: str) -> None:
    """Check that lists and objects are not nested too deep for what reads them."""
    level = [values]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            below += [item for item in items if isinstance(item, (dict, list))]
        if not below:
            return
        level = below
    raise ValueError(f"{where}: values are nested more than {DEEPEST} levels deep")


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
        named = [key if len(key) <= 40 else f"{key[:37]}..." for key in unknown[:10]]
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise ValueError(f"{where}: unknown keys {', '.join(named)}{more}; use {', '.join(known)}")
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
    except TypeError:
        raise ValueError(f"{where}: {_wrong_type(kind, checked)}") from None


def _wrong_type(kind: type[Settings], values: Mapping[str, Any]) -> str:
    """Say which values may have the wrong type: those that are not of the kind of their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    suspects = [name for name, value in values.items() if _kind_of(value) != _kind_of(defaults[name])]
    named = ", ".join(f"{name} is {shortened(values[name])}" for name in suspects[:3] or list(values)[:3])
    return f"a value has the wrong type ({named})"


def _kind_of(value: Any) -> str:
    """Kind of a value in JSON's terms."""
    if isinstance(value, Real):
        return "boolean" if isinstance(value, bool) else "number"
    return "text" if isinstance(value, str) else "list" if isinstance(value, (list, tuple)) else "object"


def number(value: Any, name: str) -> float:
    """Return a finite number as float.

    Args:
        value: Value as read from JSON; booleans are not numbers.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: The value is not a number, or is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} is {shortened(value)}, which is not a number")
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
        raise ValueError(f"{name} is {shortened(value)}, which is too large") from None
    if not whole or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} is {shortened(value)} but must be a whole number{bound}")
    return int(value)


def numbers(value: Any, name: str) -> Tensor:
    """Return one or several numbers as a floating-point tensor of shape (n,).

    Args:
        value: A number, a flat list or numpy array of numbers, or a tensor of at most one dimension. A floating-point
            tensor keeps its dtype and its autograd graph; everything else becomes float64.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: The value is neither a number nor a flat list of numbers.
    """
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        value = value.copy()  # torch takes no array that is reversed, and would share the memory of any other
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a number or a list of numbers") from error
    if tensor.ndim > 1:
        raise ValueError(f"{name} must be a number or a list of numbers, not nested lists")
    return (tensor if tensor.is_floating_point() else tensor.to(torch.float64)).reshape(-1)


def check_one_line_a_row(rows: Iterable[tuple[int, Iterable[str]]], where: str) -> None:
    """Check that no field of a table goes on in the next line, as it does where a quotation mark is not closed.

    Args:
        rows: Number of the last line and fields of every row.
        where: File, with which the message begins.

    Raises:
        ValueError: A field has a line break; the message says where.
    """
    for line, fields in rows:
        if any(len(field.splitlines()) > 1 for field in fields):
            raise ValueError(
                f"{where} has a field with a line break that ends in line {line}: close the quotation mark"
            )


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


def shortened(value: Any) -> str:
    """Return a value as a message shows it: on one line, and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
