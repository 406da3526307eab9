"""Protocols with single events, which are what is played: the other values only describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def playing_the_same(
    changed: dict[str, Any], protocol: Mapping[str, Any], key: str, shown: Callable[[Mapping[str, Any], str], Any]
) -> dict[str, Any]:
    """Return a changed protocol.

    Args:
        changed: The protocol after the change.
        protocol: The protocol before it.
        key: Key of what is changed.
        shown: Returns the text, or texts, of a key of a protocol.

    Raises:
        ValueError: The protocol has single events, which are what is played, and a quantity that describes them is
            another one than before.
    """
    if protocol.get("events") is None:
        return changed
    if shown(changed, key) != shown(protocol, key):
        raise ValueError("the protocol describes the events of every measurement: edit its file instead")
    return changed
