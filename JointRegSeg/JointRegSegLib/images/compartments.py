"""Names, colours and terminology codes of the tumour compartments, and what the name of a segment means.

Names of segments are read by their meaning, not by single words: in "Non-enhancing tumor core" and in "Surrounding
non-enhancing FLAIR hyperintensity", the official names of BraTS for the core and the oedema, nothing enhances.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from .labels import CAVITY, EDEMA, ENHANCING, LABELS, NECROTIC_CORE

# Slicer's context and category of lesions, with the brain as region, as in the text of a terminology entry.
_CONTEXT = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^49755003^Morphologically Altered Structure"
_REGION = "Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"

_NOT_ENHANCING = re.compile(r"\b(?:non?|not|un|without|w/o)[\s-]*(?:(?:contrast|gd|gadolinium)[\s-]*)?enhanc\w*")
_NOT_CONTENT = re.compile(
    r"\b(?:non?|not|un|post|pre)[\s-]*resect\w*|\b(?:before|after|following)\b.*?\bresect\w*|\b(?:without|w/o|excluding)\b.*"
)
"""What a name says of the time or of what the segment does not hold, as in "tumour after resection"."""
_MEANINGS: tuple[tuple[int, re.Pattern[str]], ...] = (
    (CAVITY, re.compile(r"cavit|\bresect(?:ion|ed)\b(?! (?:tumou?r|lesion|glioma|gtv))|\brc\b")),
    (
        EDEMA,
        re.compile(
            r"o?edema|\b(?:ed|snfh|flair)\b|^t2$|\bt2w?[\s/-]+(?:lesion|signal|abnormal)|hyper-?intens|peri-?tumou?r|infiltrat"
        ),
    ),
    (NECROTIC_CORE, re.compile(r"necro|cyst|\b(?:ncr|net|netc|nec|ncr/net)\b")),
    (ENHANCING, re.compile(r"enhanc|\b(?:et|ce|cet|gd|active)\b|^at$")),
)
"""What the words of a name mean, in the order in which they are told to the user.

"AT" and "T2" are abbreviations only as the whole name; in "tumour at baseline" and "tumour T2" they tell the time.
"""
_OF_TUMOR = re.compile(
    r"(?<!peri[\s-])\b(?:tumou?r|glioma|gtv)s?\b(?! (?:resection )?cavit)|(?<!t2[\s/-])(?<!flair[\s/-])\blesions?\b"
    r"|\bresidual\b|\brecurren"
)
"""Words that make a cavity or an oedema uncertain, as in "tumour, resected" or "recurrence in the resection cavity"."""
_CORE = re.compile(r"\bcore\b|\btc\b")
_PLAIN = re.compile(r"\b(?:tumou?r|gtv|lesion|(?<!brain )mask|roi|wt|whole(?! brain)|glioma|segment|label)\b")


@dataclass(frozen=True)
class Compartment:
    """One class of the segmentation.

    Attributes:
        name: Name of the segment.
        color: Red, green and blue from 0 to 1.
        code: SNOMED CT code and meaning as in Slicer's list of lesions. That list has no enhancing tumour and no
            resection cavity, which are therefore coded as primary neoplasm and as lesion.
    """

    name: str
    color: tuple[float, float, float]
    code: tuple[str, str]

    @property
    def terminology(self) -> str:
        """Terminology entry as Slicer writes it into segments."""
        value, meaning = self.code
        return f"{_CONTEXT}~{_CATEGORY}~SCT^{value}^{meaning}~^^~{_REGION}"


COMPARTMENTS = {
    1: Compartment("Necrotic core", (0.84, 0.37, 0.0), ("6574001", "Necrosis")),
    2: Compartment("Oedema", (0.34, 0.71, 0.91), ("79654002", "Edema")),
    3: Compartment("Enhancing tumour", (0.94, 0.89, 0.26), ("86049000", "Neoplasm, Primary")),
    4: Compartment("Resection cavity", (0.80, 0.47, 0.65), ("52988006", "Lesion")),
}
"""Compartments by number in ``labels.LABELS``, in colours of Okabe and Ito, which colour-blind readers tell apart."""


def shown_compartments(
    labels: np.ndarray | None = None, known: Collection[int] | None = None
) -> dict[int, Compartment]:
    """Return the compartments that segmentations and legends list, by their numbers.

    Args:
        labels: Label map of any shape, whose compartments are listed in any case, or None.
        known: Numbers that the map can have, which are listed even where it has no voxel of them; None for those of the
            tumour, without the cavity.
    """
    if known is None:
        known = [number for number in COMPARTMENTS if number != CAVITY]
    return {
        number: each
        for number, each in COMPARTMENTS.items()
        if number in known or (labels is not None and bool((labels == number).any()))
    }


def title_of(region: str) -> str:
    """Return the name of a class or region, such as ``whole_tumor``, in tables and pictures."""
    if region in LABELS[1:]:
        return COMPARTMENTS[LABELS.index(region)].name
    return region.replace("_", " ").replace("tumor", "tumour").capitalize()


def class_of_segment(name: str) -> int | None:
    """Return the class that the name of a segment stands for.

    Args:
        name: Name such as 'Oedema', 'ET' or 'Nonenhancing tumor core (NETC)'.

    Returns:
        Number in ``labels.LABELS``; None if the name is unknown or fits several compartments.
    """
    words = _words(name)
    rest = _NOT_ENHANCING.sub(" ", words)
    content = _NOT_CONTENT.sub(" ", rest).strip()
    found = [number for number, pattern in _MEANINGS if pattern.search(content)]
    if {CAVITY, EDEMA}.intersection(found) and _OF_TUMOR.search(content):
        return None
    if rest != words and not found:
        return NECROTIC_CORE  # "non-enhancing tumour"
    if rest != words and found == [EDEMA]:
        return EDEMA  # "non-enhancing FLAIR hyperintensity"
    if rest != words:
        return NECROTIC_CORE if found == [NECROTIC_CORE] else None
    if len(found) == 1:
        return found[0]
    return None


def _words(name: str) -> str:
    return name.lower().replace("_", " ").strip()


def classes_of_segments(names: Iterable[str], source: str) -> dict[str, int]:
    """Return the class of each segment of a segmentation.

    "Core" alone is the non-enhancing core where another segment is the enhancing tumour, which is then painted over
    it; without such a segment it could contain the enhancing tumour.

    Args:
        names: Names of the segments.
        source: Name of the segmentation, for messages.

    Returns:
        Class number in ``labels.LABELS`` by segment.

    Raises:
        ValueError: A name is unknown or unclear; the message names it and the names that are understood.
    """
    names = list(names)
    classes = {name: class_of_segment(name) for name in names}
    if ENHANCING in classes.values():
        for name, number in classes.items():
            words = _words(name)
            if number is None and _CORE.search(words) and not _NOT_ENHANCING.search(words):
                classes[name] = NECROTIC_CORE
    known = {name: number for name, number in classes.items() if number is not None}
    for name in names:
        if name not in known:
            raise ValueError(
                f"the segment '{name}' of '{source}' is not a known compartment: call the segments 'Necrotic core', "
                "'Oedema', 'Enhancing tumour' and 'Resection cavity', and remove others"
            )
    return known


def is_plain_mask(names: Iterable[str]) -> bool:
    """Return whether a segmentation is a single segment that names no compartment, such as 'Tumour' or 'Segment_1'."""
    names = list(names)
    if len(names) != 1 or class_of_segment(names[0]) is not None:
        return False
    content = _NOT_CONTENT.sub(" ", _words(names[0]))
    if any(pattern.search(content) for number, pattern in _MEANINGS if number in (CAVITY, EDEMA)):
        return False  # "oedema around the tumour"
    return _PLAIN.search(re.sub(r"\d+", " ", _words(names[0]))) is not None
