"""What the name of a segment means: compartments of a tumour by their usual names, all others segments of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from NeuroCESTLib.core.labels.conventions import CONVENTIONS, LABELS, convention_named

COMPARTMENTS = ("necrotic_core", "edema", "enhancing_tumor", "resection_cavity")
"""Compartments in the numbers' order of ``jointregseg``, which writes them 1 to 4."""
CAVITY = "resection_cavity"
"""The compartment that is no tumour; the unions of the others do not contain it."""
COLORS: Mapping[str, tuple[float, float, float]] = {
    "necrotic_core": (0.84, 0.37, 0.0),
    "edema": (0.34, 0.71, 0.91),
    "enhancing_tumor": (0.94, 0.89, 0.26),
    "resection_cavity": (0.80, 0.47, 0.65),
    "tumor_core": (0.90, 0.62, 0.0),
    "whole_tumor": (0.0, 0.62, 0.45),
    "contralateral": (0.0, 0.45, 0.70),
    "white_matter": (1.0, 1.0, 1.0),
}
"""Colours of Okabe and Ito, which colour-blind readers tell apart."""
_CORE = re.compile(r"\bcore\b|\btc\b")
_WHOLE = re.compile(r"\bwhole\b(?! (?:brain|head)\b)|\bwt\b|\bgtv\b")
_PLAIN = re.compile(r"(?:tumou?r|glioma|lesion)")
_NOT_ENHANCING = re.compile(r"\b(?:non?|not|un|without|w/o)[\s-]*(?:(?:contrast|gd|gadolinium)[\s-]*)?enhanc\w*")
_NOT_CONTENT = re.compile(
    r"\b(?:non?|not|un|post|pre)[\s-]*resect\w*|\b(?:before|after|following)\b.*?\bresect\w*|\b(?:without|w/o|excluding)\b.*"
)
"""What a name says of the time or of what the segment does not hold, as in "tumour after resection"."""
_MEANINGS = {
    "resection_cavity": re.compile(r"cavit|\bresect(?:ion|ed)\b(?! (?:tumou?r|lesion|glioma|gtv))|\brc\b"),
    "edema": re.compile(
        r"o?edema|\b(?:ed|snfh|flair)\b|^t2$|\bt2w?[\s/-]+(?:lesion|signal|abnormal)|hyper-?intens|peri-?tumou?r|infiltrat"
    ),
    "necrotic_core": re.compile(r"necro|cyst|\b(?:ncr|net|netc|nec|ncr/net)\b"),
    "enhancing_tumor": re.compile(r"enhanc|\b(?:et|ce|cet|gd|active)\b|^at$"),
}
"""What the words of a name mean; ``jointregseg`` reads names in the same way.

"AT" and "T2" are abbreviations only as the whole name; in "tumour at baseline" and "tumour T2" they tell the time.
"""
_OF_TUMOR = re.compile(
    r"(?<!peri[\s-])\b(?:tumou?r|glioma|gtv)s?\b(?! (?:resection )?cavit)|(?<!t2[\s/-])(?<!flair[\s/-])\blesions?\b"
    r"|\bresidual\b|\brecurren"
)
"""Words that make a cavity or an oedema uncertain, as in "tumour, resected" or "recurrence in the resection cavity"."""


def compartment_of(name: str) -> str | None:
    """Return the compartment that a segment's name stands for; None for any other name.

    Args:
        name: Name of a segment.

    Returns:
        One of ``COMPARTMENTS``; ``tumor_core`` or ``whole_tumor`` for a segment that is the union of compartments.
    """
    words = name.lower().replace("_", " ").strip()
    rest = _NOT_ENHANCING.sub(" ", words)
    content = _NOT_CONTENT.sub(" ", rest).strip()
    found = [meaning for meaning, pattern in _MEANINGS.items() if pattern.search(content)]
    if {CAVITY, "edema"}.intersection(found) and _OF_TUMOR.search(content):
        return None
    if rest != words and found in ([], ["necrotic_core"]):
        return "necrotic_core"  # "non-enhancing tumour"
    if rest != words:
        return "edema" if found == ["edema"] else None  # "non-enhancing FLAIR hyperintensity"
    if not found and _CORE.search(content):
        return "tumor_core"
    if not found and (_WHOLE.search(content) or _PLAIN.fullmatch(content)):
        return "whole_tumor"
    return found[0] if len(found) == 1 else None


def is_background(name: str) -> bool:
    """Whether the name of a number in a label map says that there is nothing, as for ``jointregseg``."""
    return name.strip().lower() in ("background", "none", "nothing")


def named_labels(text: str) -> dict[int, str]:
    """Read what the numbers of a label volume mean.

    Args:
        text: Such as ``1=necrotic core,2=oedema,3=enhancing``; other words name segments of the user, but
            ``background`` says that a number is none. Or the name of one of the ``CONVENTIONS``, such as ``brats2023``.

    Returns:
        Name by number.

    Raises:
        ValueError: An entry is not a number and a name, a number is given twice, or 0 is not the background; the
            convention is unknown, or is that of plain masks.
    """
    if "=" not in text:
        return _labels_of_convention(text.strip())
    names: dict[int, str] = {}
    for entry in text.split(","):
        number, separator, name = (part.strip() for part in entry.partition("="))
        if not separator or not name or not re.fullmatch(r"\d+", number):
            raise ValueError(
                f"--labels has '{entry.strip()}'; give numbers and names, as in 1=core,2=oedema,3=enhancing"
            )
        if int(number) == 0 and not is_background(name):
            raise ValueError("--labels gives the number 0 a meaning, but 0 is always the background")
        if int(number) in names:
            raise ValueError(f"--labels gives the number {number} twice; give it one name")
        names[int(number)] = "necrotic core" if name.lower() == "core" else name
    return names


def _labels_of_convention(name: str) -> dict[int, str]:
    convention = convention_named(name)
    if convention is None:
        known = ", ".join(each for each, one in CONVENTIONS.items() if one.classes is not None)
        raise ValueError(
            f"--labels has '{name}', which is no known convention: use {known}, or give numbers and names, as in "
            "1=core,2=oedema,3=enhancing"
        )
    if convention.classes is None:
        raise ValueError(
            f"--labels is '{name}', a plain mask, which names no compartment: say what its numbers mean, as in "
            "1=whole tumour"
        )
    return {number: LABELS[meant] for number, meant in convention.classes.items()}


def compartments_and_segments(masks: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tell the compartments of the tumour from other segments.

    Several segments of the same compartment are united. Where segments overlap, a voxel belongs to the enhancing tumour
    before the cavity, the necrotic core and the oedema, so that each voxel has one compartment. The core and the whole
    tumour do not contain the cavity.

    Args:
        masks: Boolean masks by the name of the segment.

    Returns:
        Masks by compartment, in the order of ``COMPARTMENTS``, then ``tumor_core`` and ``whole_tumor`` where the
        segmentation has them, and masks of the other segments by their own name.
    """
    united: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    for name, mask in masks.items():
        meaning = compartment_of(name)
        if meaning is None:
            others[name] = mask
        else:
            united[meaning] = united[meaning] | mask if meaning in united else mask.copy()
    if "enhancing_tumor" in united and "tumor_core" in united:
        # Beside an enhancing segment, "core" is what it surrounds, as in the files of many tools.
        core = united.pop("tumor_core")
        united["necrotic_core"] = united["necrotic_core"] | core if "necrotic_core" in united else core
    taken: np.ndarray | None = None
    for name in ("enhancing_tumor", "resection_cavity", "necrotic_core", "edema"):
        if name in united:
            if taken is not None:
                united[name] = united[name] & ~taken
            taken = united[name] if taken is None else taken | united[name]
    for name in ("tumor_core", "whole_tumor"):
        if name in united and CAVITY in united:
            united[name] = united[name] & ~united[CAVITY]
    return {name: united[name] for name in (*COMPARTMENTS, "tumor_core", "whole_tumor") if name in united}, others
