"""YAML files, read without executing anything of them, and bounded in length, depth and repetition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import DEEPEST, read_text
from NeuroCESTLib.core.packages import MissingPackage

LONGEST_YAML = 256 << 10
"""Bytes of the longest YAML file that is read."""
_MOST_VALUES = 20_000
"""Most values of a file, those counted again that it repeats by aliases."""


def read_yaml(path: str | Path, remedy: str = "") -> Any:
    """Read a YAML file.

    Args:
        path: File to read.
        remedy: What the user can do about a missing file; it ends the message.

    Returns:
        The value in the file: plain values, lists and dictionaries.

    Raises:
        ValueError: The file is missing, too long or not valid YAML, a mapping has a key twice, values are nested too
            deep, contain themselves or repeat without end, or PyYAML is not installed; the message names the file.
    """
    try:
        import yaml
    except ImportError:
        raise MissingPackage("yaml", f"{path}: .yaml files need the package") from None
    text = read_text(path, remedy, LONGEST_YAML)
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            root = loader.get_single_node()
            if root is not None:
                _check_nodes(root, path)
            return None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a readable YAML file{_place(error, text)}") from None
    except RecursionError:
        raise ValueError(f"{path}: values are nested too deep, or contain themselves") from None
    except _RefusedError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError):
        raise ValueError(f"{path}: not a readable YAML file (a date, number or key that cannot be read)") from None


def _place(error: Exception, text: str) -> str:
    """Where and why a YAML file cannot be read, as far as the parser says so."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return ""
    reason = " ".join(str(problem or "").split()).replace("unhashable key", "a list or mapping as a key")
    line = [*text.splitlines()[mark.line : mark.line + 1], ""][0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        reason = "a tab at the start of a line; indent with spaces"
    reason = reason if len(reason) <= 80 else f"{reason[:77]}..."
    return f" (line {mark.line + 1}: {reason})"


class _RefusedError(ValueError):
    """A sentence that is complete."""


def _check_nodes(root: Any, path: str | Path) -> None:
    """Check the nodes of a document before anything is built of them; aliases are followed as often as they occur."""
    level, count = [root], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for node in level:
            if node.id == "mapping":
                _check_keys(node, path)
                below += [part for pair in node.value for part in pair]
            elif node.id == "sequence":
                below += node.value
            if len(below) + count > _MOST_VALUES:
                raise _RefusedError(f"{path}: holds more than {_MOST_VALUES} values, or values that repeat without end")
        count += len(below)
        if not below:
            return
        level = below
    raise _RefusedError(f"{path}: values are nested more than {DEEPEST} levels deep, or contain themselves")


def _check_keys(mapping: Any, path: str | Path) -> None:
    """Check that no key occurs twice, which YAML forbids and PyYAML decides for the last."""
    seen: set[tuple[str, str]] = set()
    for key, _ in mapping.value:
        if key.id == "scalar" and key.tag != "tag:yaml.org,2002:merge":
            name = (key.tag, key.value)
            if name in seen:
                raise _RefusedError(
                    f"{path}: the key '{key.value[:40]}' occurs twice (again in line {key.start_mark.line + 1}): "
                    "remove one of them"
                )
            seen.add(name)
