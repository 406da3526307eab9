"""Messages about inputs: science says which input it means, and the layer that knows the files says what it is called.

Science takes tensors and protocols and knows no files. Where it cannot work with one of its inputs, it raises
:class:`InputError` with the role of this input. On the way up, :func:`naming` puts the file or node that has this role
in front of the sentence.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping

_OPTION = re.compile(r"(?<![\w-])--[a-z]")
_STAND_ALONE = ("file not found: '", "cannot write ")
"""How messages begin that name their file or folder themselves, though it does not exist."""


class InputError(ValueError):
    """An input cannot be used.

    Args:
        role: Which input the sentence is about: ``protocol``, ``model``, or the name of another option without its
            hyphens in front, such as ``noise-sd``.
        sentence: The message, without the name of the input.
    """

    def __init__(self, role: str, sentence: str) -> None:
        super().__init__(role, sentence)
        self.role = role
        self.sentence = sentence

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence


@contextlib.contextmanager
def naming(names: Mapping[str, str], default: str = "") -> Iterator[None]:
    """Put the name of the input that an error is about in front of its message while the block runs.

    Args:
        names: What messages call each input, by its role: a file in quotation marks, or a node. Errors about other
            roles pass unchanged.
        default: Name for errors that say no role, and for roles whose name is empty. A sentence without a role that
            mentions an option, one of the names or another file stands for itself.

    Raises:
        ValueError: The error of the block, with the name in front.
    """
    try:
        yield
    except ValueError as error:
        raise _named(error, names, default) from error.__cause__


def _named(error: ValueError, names: Mapping[str, str], default: str) -> ValueError:
    text = str(error)
    if isinstance(error, InputError):
        name = names.get(error.role, "") or default if error.role in names else ""
    else:
        known = any(name and _bare(name) in text for name in names.values())
        name = "" if known or _OPTION.search(text) or _mentions_a_file(text) else default
    if not name or _bare(name) in text:
        return error
    return ValueError(f"{name}: {text}").with_traceback(error.__traceback__)


def _mentions_a_file(text: str) -> bool:
    """Whether a file or folder, also one to come, stands in quotation marks or in front of the sentence."""
    if text.startswith(_STAND_ALONE):
        return True
    places = [*re.findall("'([^']+)'", text), *itertools.accumulate(text.split(": "), lambda *parts: ": ".join(parts))]
    return any(os.path.exists(place) for place in places)


def _bare(name: str) -> str:
    """Return the file or node of a name, without quotation marks and without 'and 3 more'."""
    quoted = re.match("'(.+)'", name)
    return quoted[1] if quoted else name
