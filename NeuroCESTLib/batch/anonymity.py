"""``--anonymous``: reports, tables, pictures and scenes without paths, and without names that come from them.

The arguments of a command tell which files it is given. Where their paths stand in a text, ``file1.nii.gz`` and so on
take their place, and so do ``file1`` for the names that nodes have from their files. All other absolute paths, which
may contain the name of the user or of the machine, become ``file`` with their ending.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from NeuroCESTLib.core.whole_files import written_as
from NeuroCESTLib.scene.image_files import node_name

_ABSOLUTE = re.compile(
    r"(?<![\w./\\:<])(?:[A-Za-z]:[\\/]|[\\/]{1,2})(?:[^\\/:*?\"'<>|\r\n,;]+[\\/])+([^\\/:*?\"'<>|\r\n,;\s]*)"
)
_ENDING = re.compile(r"(\.[A-Za-z][A-Za-z0-9]{0,5}){1,2}$")
_LONGEST_PLAIN_WORD = 3
_SAY_NOTHING = """
t1ce flair signal mask labels label segmentation protocol config model reference m0 cohort manifest output volume scene
weights network pools offsets visit1 visit2 fixed moving tumor tumour brain
"""
_PLAIN_WORDS = frozenset(_SAY_NOTHING.split())
"""Names of files that say nothing about a patient; they are left where a node or a value has them as its name."""


@contextlib.contextmanager
def anonymous(arguments: Sequence[str]) -> Iterator[None]:
    """Write texts without paths, and without names that come from them, while the block runs.

    Args:
        arguments: Arguments of the command, of which those with files are recognised.
    """
    token = written_as.set(Replacements(arguments))
    try:
        yield
    finally:
        written_as.reset(token)


class Replacements:
    """What stands in a text in place of paths and of the names that come from them.

    Args:
        arguments: Arguments of a command, also as ``NAME=FILE``.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._paths: dict[str, str] = {}
        self._names: dict[str, str] = {}
        for part in dict.fromkeys(part for argument in arguments for part in (argument, argument.partition("=")[2])):
            if _is_file(part):
                self._add(part)
        self._own = {name for name in (_user(), platform.node()) if len(name) > _LONGEST_PLAIN_WORD}

    def _add(self, part: str) -> None:
        number = len(set(self._paths.values())) + 1
        ending = _ENDING.search(part)
        replacement = f"file{number}{ending[0] if ending else ''}"
        path = Path(part)
        for text in (part, str(path), str(path.absolute()), str(path.resolve())):
            self._paths.setdefault(text, replacement)
        for name in (path.name, node_name(path), path.stem):
            if len(name) > _LONGEST_PLAIN_WORD and name.lower() not in _PLAIN_WORDS:
                self._names.setdefault(name, f"file{number}")

    def __call__(self, text: str) -> str:
        """Return a text without paths and names."""
        if text in self._names or text in self._own:
            return self._names.get(text, "name")
        for path in sorted(self._paths, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./\\]){re.escape(path)}(?![\w])", self._paths[path], text)
        text = _ABSOLUTE.sub(lambda found: f"file{_ending(found[1])}", text)
        for name, replacement in sorted(self._names.items(), key=lambda item: -len(item[0])):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", replacement, text)
        return text


def _is_file(part: str) -> bool:
    """Whether an argument names a file or folder."""
    if not part or part.startswith("-"):
        return False
    has_folder = os.sep in part or "/" in part
    return has_folder or os.path.exists(part) or _ENDING.search(part) is not None


def _ending(name: str) -> str:
    found = _ENDING.search(name)
    return found[0] if found else ""


def _user() -> str:
    with contextlib.suppress(Exception):  # without an account of its own, as in some containers
        return getpass.getuser()
    return ""
