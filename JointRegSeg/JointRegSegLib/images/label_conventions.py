"""The convention of a label map that a user declares, by its name or number by number.

Where users declare none, it is recognized by names of files that only one data set has, or by the numbers together with
what ``label_evidence`` finds in the map and its images. What stays open is refused.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from NeuroCESTLib.core.labels.conventions import CONVENTIONS, LABELS, NECROTIC_CORE, LabelConvention, convention_named

from .compartments import class_of_segment


def choices() -> str:
    """Return the conventions for the help of a command."""
    named = "; ".join(f"{each.name}: {each.describe()} ({each.title})" for each in CONVENTIONS.values())
    return f"{named}; or the numbers one by one, as in 1=core,2=oedema,3=enhancing,4=cavity"


def declared_convention(text: str, option: str = "--labels") -> LabelConvention:
    """Return the convention that a user declares.

    Args:
        text: Name of ``CONVENTIONS`` or a synonym in upper or lower case, or numbers with their meaning such as
            ``1=core,2=oedema,4=enhancing``. Numbers that mean ``background`` are no tumour.
        option: Where it was declared, for messages.

    Raises:
        ValueError: The name is unknown, or a number or meaning cannot be used; the message lists the known ones.
    """
    text = text.strip()
    if "=" in text:
        return _by_numbers(text, option)
    convention = convention_named(text)
    if convention is None:
        raise ValueError(
            f"{option} is '{text}', which is no known convention; use {', '.join(CONVENTIONS)}, or the numbers one by "
            "one, as in 1=core,2=oedema,3=enhancing,4=cavity"
        )
    return convention


def _by_numbers(text: str, option: str) -> LabelConvention:
    classes: dict[int, int] = {}
    for entry in text.split(","):
        number, _, word = (part.strip() for part in entry.partition("="))
        meant = 0 if word.lower() in ("background", "none", "nothing") else _class_of_word(word)
        if not re.fullmatch(r"[+-]?\d+", number) or meant is None:
            raise ValueError(
                f"{option} has '{entry.strip()}'; give a number and its meaning, one of core, oedema, enhancing, "
                "cavity, background, as in 1=core,2=oedema,3=enhancing"
            )
        if int(number) in classes:
            raise ValueError(f"{option} gives the number {int(number)} twice; give it one meaning")
        if int(number) == 0 and meant:
            raise ValueError(f"{option} gives the number 0 a meaning, but 0 is always the background")
        classes[int(number)] = meant
    if not any(classes.values()):
        raise ValueError(f"{option} names no compartment; give at least one, as in 1=core,2=oedema,3=enhancing")
    name = ",".join(f"{number}={LABELS[meant]}" for number, meant in sorted(classes.items()))
    return LabelConvention(name, "numbers given one by one", MappingProxyType(classes), only_declared=True)


def _class_of_word(word: str) -> int | None:
    return NECROTIC_CORE if word.lower() == "core" else class_of_segment(word)
