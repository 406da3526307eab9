"""What messages of commands have in common: they name a file that the command was given, or an option."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def names_an_input(message: str, arguments: Sequence[object]) -> bool:
    """Whether a message names a file or folder of the command line, which may be missing, or an option.

    Args:
        message: Message of a command.
        arguments: Its arguments, also as ``NAME=FILE``.
    """
    if "file not found: '" in message or re.search(r"(?<![\w-])--[a-z]", message):
        return True
    parts = [part for argument in arguments for part in (str(argument), str(argument).partition("=")[2])]
    return any(part in message for part in parts if part and ("/" in part or Path(part).exists()))
