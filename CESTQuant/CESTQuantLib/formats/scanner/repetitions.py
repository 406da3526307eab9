"""Offsets of one repetition, given for images that repeat them."""

from __future__ import annotations

from collections.abc import Sequence


def repeated(offsets: Sequence[float], volumes: int, name: str, source: str) -> tuple[list[float], tuple[str, ...]]:
    """Return the offsets of all volumes, and a sentence where they are repeated.

    Args:
        offsets: Offsets of one repetition.
        volumes: Number of volumes of the images.
        name: Name of the list for messages.
        source: Name of the images for messages.

    Raises:
        ValueError: The list is empty, or the volumes are no multiple of it; the message names both.
    """
    if not offsets or volumes % len(offsets):
        raise ValueError(f"{name} has {len(offsets)} offsets but {source} has {volumes} volumes")
    times = volumes // len(offsets)
    told = f"the {len(offsets)} offsets of {name} are taken as measured {times} times, one list after the other"
    return list(offsets) * times, (told,) if times > 1 else ()
