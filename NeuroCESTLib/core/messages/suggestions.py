"""Suggestions for names that may be misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that a name resembles, in brackets, to end a message with; empty where there is none."""
    close = difflib.get_close_matches(name, list(known), 1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""
