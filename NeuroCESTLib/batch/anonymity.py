"""``--anonymous``: reports, tables, pictures and scenes without paths, and without names that come from them.

The arguments of a command tell which files it is given. Where their paths stand in a text, ``file1.nii.gz`` and so on
take their place, and so do ``file1`` for the names that nodes have from their files. What lies below a given folder has
its number and the ending of the file. All other paths, which may contain the name of a patient, of the user or of the
machine, become ``file`` with their ending. Words of the program stay, also where a file is called the same.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from NeuroCESTLib.core.whole_files import written_as
from NeuroCESTLib.scene.image_files import node_name

_KINDS = "nii gz hdr img nrrd nhdr seq mha mhd mgz dcm ima par rec h5 tfm mat pt json yaml yml csv tsv txt xml mrb mrml"
_ENDING = re.compile(rf"(\.(?:nii|seq|seg))?\.(?:{'|'.join(_KINDS.split())})$", re.IGNORECASE)
"""Ending that tells the kind of a file; other words after a point may belong to a name."""
_DOTTED = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,5}$")
_START = r"(?<![\w./\\:<])"
_INNER = r"[:,;'](?=\w)|&(?!#x27;|quot;|lt;|gt;)"
"""Characters that end a path in a sentence, but not within a name such as O'Hara."""
_FOLDER = rf"(?:(?!\.[A-Za-z]\w{{0,5}}\s)(?:[^\\/:*?\"'<>|\r\n,;&]|{_INNER}))+[\\/]"
"""A folder, which may have spaces in its name, but not after the ending of a file."""
_FILE = rf"(?:[^\\/:*?\"'<>|\r\n,;&\s]|{_INNER})*"
_ABSOLUTE = re.compile(
    rf"{_START}(?:(?:[A-Za-z]:[\\/]|[\\/]{{1,2}})(?:{_FOLDER})+|(?:~|\.{{1,2}})[\\/](?:{_FOLDER})*){_FILE}"
)
_RELATIVE = re.compile(rf"{_START}(?:[\\/]|(?:(?:[^\\/:*?\"'<>|\r\n,;&\s]|{_INNER})+[\\/])+){_FILE}")
_QUOTED = re.compile(r"(?<!\w)(')((?:[^'\r\n]|'(?=\w))+)'(?!\w)|(?<![\w=])(\")([^\"\r\n]+)\"")
_BEGINS_AS_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/].|(?:~|\.{1,2})[\\/]")
_LONGEST_SHORT_NAME = 3
_SAY_NOTHING = """
t1ce flair signal mask labels label segmentation protocol config model reference m0 cohort manifest output volume scene
weights network pools offsets visit1 visit2 fixed moving tumor tumour brain
t1 t2 t1w t2w t1c t1n t2f pd b0 b1 mz s0 r1 r2 k mt mtr apt cest noe adc dwi dti rex seg roi map ref img pet ct mr mri
v1 v2 out fit run all new old
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
        self._file_names: dict[str, str] = {}
        self._kept: set[str] = set()
        self._count = 0
        for part in dict.fromkeys(part for argument in arguments for part in (argument, argument.partition("=")[2])):
            if _is_file(part):
                self._add(part)
        self._own = {name for name in (_user(), platform.node()) if len(name) > 1}

    def _add(self, part: str) -> None:
        path = Path(part)
        replacement = self._replacement(part)
        for text in (part, str(path), str(path.absolute()), str(path.resolve())):
            self._paths.setdefault(text, replacement)
        for name in (path.name, node_name(path), path.stem):
            if _may_tell(name):
                self._names.setdefault(name, replacement.split(".")[0])

    def learn(self, path: str | os.PathLike) -> None:
        """Replace the path of a file that no argument gives, such as one below a folder, and its name."""
        path = Path(path)
        if str(path) in self._paths:
            return
        replacement = self._replacement(path.name)
        for text in (str(path), str(path.absolute())):
            self._paths.setdefault(text, replacement)
        if _DOTTED.search(path.name) and node_name(path).lower() not in _PLAIN_WORDS:
            self._file_names.setdefault(path.name, replacement)

    def learn_name(self, name: str, path: str | os.PathLike) -> None:
        """Replace the name of a node that was read from a file, such as ``z_1`` for the second of two ``z.nii.gz``."""
        replacement = self._paths.get(str(path))
        if replacement is not None and node_name(path) in self._names and name.startswith(node_name(path)):
            self._names.setdefault(name, replacement.split(".")[0])

    def keep(self, words: Iterable[str]) -> None:
        """Leave whole words of the program as they are, such as the name of a method or of a map that it made."""
        self._kept.update(words)

    def _replacement(self, path: str) -> str:
        self._count += 1
        return f"file{self._count}{_ending(path)}"

    def __call__(self, text: str) -> str:
        """Return a text without paths and names."""
        if text in self._kept:
            return text
        if text in self._names or text in self._own:
            return self._names.get(text, "name")
        if text in self._paths or text in self._file_names:
            return self._paths.get(text) or self._file_names[text]
        if any(mark in text for mark in "/\\."):
            text = _QUOTED.sub(self._quoted, text)
            known = [path for path in self._paths if path in text]
            for path in sorted(known, key=len, reverse=True):
                pattern = rf"(?<![\w./\\]){re.escape(path)}(?!\w)(?:[\\/](?:{_FOLDER})*{_FILE})?"
                text = re.sub(pattern, lambda found: self._below(found[0]), text)
            text = _ABSOLUTE.sub(_unknown, text)
            text = _RELATIVE.sub(lambda found: _unknown(found) if _is_kind(found[0]) else found[0], text)
            for name in [name for name in self._file_names if name in text]:
                text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", self._file_names[name], text)
        for name in sorted(self._names, key=len, reverse=True):
            words = [word for word in self._kept if name in word and word in text]
            kept = "".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])|" for word in words)
            text = re.sub(rf"{kept}(?P<name>{_where_named(name)})", self._named, text)
        return text

    def _named(self, found: re.Match[str]) -> str:
        """What takes the place of the name of a file, or a word of the program as it is."""
        return found[0] if found["name"] is None else self._names[found["name"]]

    def _quoted(self, found: re.Match[str]) -> str:
        """A text in quotation marks, which holds spaces and all the rest of a path."""
        mark, content = (found[1], found[2]) if found[1] else (found[3], found[4])
        if content in self._paths or self._owner(content):
            return f"{mark}{self._below(content)}{mark}"
        has_folder = "/" in content or "\\" in content
        if has_folder and "://" not in content and (_BEGINS_AS_PATH.match(content) or _ENDING.search(content)):
            return f"{mark}file{_ending(content)}{mark}"
        return found[0]

    def _below(self, path: str) -> str:
        """What takes the place of a known path or of one below a known folder, whose rest it swallows."""
        if path in self._paths:
            return self._paths[path]
        path, end = _without_stop(path)
        if path in self._paths:
            return self._paths[path] + end
        return f"{self._paths.get(self._owner(path), 'file').split('.')[0]}{_ending(path)}{end}"

    def _owner(self, path: str) -> str:
        """The longest known folder above a path; empty where there is none."""
        above = (place for place in range(len(path) - 1, 0, -1) if path[place] in "/\\")
        return next((path[:place] for place in above if path[:place] in self._paths), "")


def _may_tell(name: str) -> bool:
    """Whether the name of a file may be that of a patient: it is no plain word, single letter or short number."""
    has_letters = any(sign.isalpha() for sign in name)
    return len(name) > (1 if has_letters else _LONGEST_SHORT_NAME) and name.lower() not in _PLAIN_WORDS


def _where_named(name: str) -> str:
    """Pattern of a name in a text. Slicer and results add a suffix after ``_`` or a space.

    A short one in small letters, which may be a word of any sentence, must begin the text or stand in quotation marks.
    """
    if len(name) > _LONGEST_SHORT_NAME or not name.islower():
        return rf"(?<![\w-]){re.escape(name)}(?![^\W_]|-)"
    return rf"(?:^|(?<=['\">])){re.escape(name)}(?=[\s_'\"<]|$)"


def _unknown(found: re.Match[str]) -> str:
    path, end = _without_stop(found[0])
    return f"file{_ending(path)}{end}"


def _without_stop(path: str) -> tuple[str, str]:
    """A path, and the punctuation mark with which its sentence goes on."""
    stripped = path.rstrip(".)!")
    return (stripped, path[len(stripped) :]) if stripped else (path, "")


def _is_kind(path: str) -> bool:
    return _ENDING.search(_without_stop(path)[0]) is not None


def _is_file(part: str) -> bool:
    """Whether an argument names a file or folder."""
    if not part or part.startswith("-"):
        return False
    has_folder = os.sep in part or "/" in part
    return has_folder or os.path.exists(part) or _DOTTED.search(part) is not None


def _ending(name: str) -> str:
    found = _ENDING.search(name)
    return found[0] if found else ""


def _user() -> str:
    with contextlib.suppress(Exception):  # without an account of its own, as in some containers
        return getpass.getuser()
    return ""
