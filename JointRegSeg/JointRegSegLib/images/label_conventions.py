"""Conventions by which public data sets and tools number the compartments of a tumour.

The same numbers mean different things: 4 is the enhancing tumour in BraTS 2021 and the resection cavity in BraTS 2024,
1 is the core in BraTS and the oedema in the Medical Segmentation Decathlon. Users declare a convention by its name or
number by number (``1=core,2=oedema,3=enhancing``). Where they do not, it is recognized by names of files that only one
data set has, or by the numbers together with what ``label_evidence`` finds in the map and its images. What stays open
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .compartments import class_of_segment
from .labels import CAVITY, EDEMA, ENHANCING, LABELS, NECROTIC_CORE


@dataclass(frozen=True)
class LabelConvention:
    """Meaning of the numbers in label maps.

    Attributes:
        name: Name by which it is declared.
        title: Where it is used.
        classes: Number in ``labels.LABELS`` by number in the file; 0 is always the background. None for a plain mask,
            whose numbers name no compartment.
        rare: Whether the convention is considered only where no other one fits.
        only_declared: Whether the convention is never recognized by the numbers alone.
    """

    name: str
    title: str
    classes: Mapping[int, int] | None
    rare: bool = False
    only_declared: bool = False

    @property
    def meaning(self) -> dict[str, str]:
        """Name of the compartment by number in the file, both as text."""
        if self.classes is None:
            return {"any": "tumor"}
        return {str(number): LABELS[meant] for number, meant in sorted(self.classes.items())}

    def describe(self, values: Collection[int] | None = None) -> str:
        """Return the numbers with their meaning in words; only those of ``values`` if given."""
        if self.classes is None:
            return "every number but 0 is tumour"
        chosen = (number for number in sorted(self.classes) if values is None or number in values)
        return ", ".join(f"{number} {_WORDS[self.classes[number]]}" for number in chosen)


_WORDS = {
    0: "background",
    NECROTIC_CORE: "non-enhancing core",
    EDEMA: "oedema",
    ENHANCING: "enhancing tumour",
    CAVITY: "resection cavity",
}
BINARY = "binary"
"""Name of the convention of plain masks."""


def _convention(name: str, title: str, *numbers: tuple[int, int], **how: bool) -> LabelConvention:
    return LabelConvention(name, title, MappingProxyType(dict(numbers)), **how)


_ALL = (
    _convention("brats2021", "BraTS 2017 to 2021", (1, NECROTIC_CORE), (2, EDEMA), (4, ENHANCING)),
    _convention("brats2023", "BraTS 2023", (1, NECROTIC_CORE), (2, EDEMA), (3, ENHANCING)),
    _convention(
        "brats2024", "BraTS 2024, after treatment", (1, NECROTIC_CORE), (2, EDEMA), (3, ENHANCING), (4, CAVITY)
    ),
    _convention("msd", "Medical Segmentation Decathlon, Task01", (1, EDEMA), (2, NECROTIC_CORE), (3, ENHANCING)),
    _convention("hd-glio", "HD-GLIO and HD-GLIO-AUTO", (1, EDEMA), (2, ENHANCING)),
    _convention(
        "brats-ped",
        "BraTS-PEDs, children",
        (1, ENHANCING),
        (2, NECROTIC_CORE),
        (3, NECROTIC_CORE),
        (4, EDEMA),
        rare=True,
    ),
    _convention(
        "brats2015",
        "BraTS 2012 to 2016",
        (1, NECROTIC_CORE),
        (2, EDEMA),
        (3, NECROTIC_CORE),
        (4, ENHANCING),
        only_declared=True,
    ),
    LabelConvention(BINARY, "plain mask", None, only_declared=True),
)
CONVENTIONS: Mapping[str, LabelConvention] = MappingProxyType({each.name: each for each in _ALL})
"""Conventions by name."""

_SYNONYMS = {f"brats{year}": "brats2021" for year in range(2017, 2021)} | {
    **{f"brats{year}": "brats2015" for year in (2012, 2013, 2014, 2016)},
    "brats2025": "brats2024",
    "bratsped": "brats-ped",
    "bratspeds": "brats-ped",
    "hdglio": "hd-glio",
    "hdglioauto": "hd-glio",
    "msdtask01": "msd",
    "decathlon": "msd",
    "mask": BINARY,
}
_BY_FILE_NAME = (
    ("brats2024", r"brats-gli-\d+-[1-9]\d\d\b|brats-met-|\bbrats_?2024"),
    ("brats2023", r"brats-(?:gli|men|ssa)-|\bbrats_?2023"),
    ("brats-ped", r"brats-peds?-|\bbrats_?peds?\b"),
    ("brats2015", r"brats_2013_pat|vsd\.brain|\bbrats_?201[2-6]"),
    ("brats2021", r"\bbrats_?20(?:1[789]|2[01])|brats(?:17|18|19|20|21)_|ucsf-pdgm-|upenn-gbm-|glistrboost"),
    ("msd", r"^brats_\d{3}\b|\bmsd_?task_?01"),
    ("hd-glio", r"\bhd[-_]?glio"),
)
"""Conventions by what only the names of the files of their data sets contain, the more special ones first."""
_BY_FOLDER_NAME = (
    ("brats2024", r"brats-gli-\d+-[1-9]\d\d|brats-met-\d+-\d+|synthetic\d{6}"),
    ("brats2023", r"brats-(?:gli|men|ssa)-\d+-\d+"),
    ("brats-ped", r"brats-peds?-\d+-\d+"),
    ("brats2015", r"brats_2013_pat\d+_\d+"),
    ("brats2021", r"brats(?:20)?(?:17|18|19|20|21)_\w*\d+|ucsf-pdgm-\d+(?:_nifti)?"),
    ("msd", r"task01_braintumou?r"),
    ("hd-glio", r"hd-glio(?:-auto)?(?:-segmentation)?"),
)
"""Conventions by the whole name of a folder above the file; a part of it could be the name of a user's project."""
_FOLDERS_ABOVE = 3


def choices() -> str:
    """Return the conventions for the help of a command."""
    named = "; ".join(f"{each.name}: {each.describe()} ({each.title})" for each in _ALL)
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
    word = re.sub(r"[^a-z0-9]", "", text.lower())
    known = {re.sub(r"[^a-z0-9]", "", name): name for name in CONVENTIONS} | _SYNONYMS
    if word not in known:
        raise ValueError(
            f"{option} is '{text}', which is no known convention; use {', '.join(CONVENTIONS)}, or the numbers one by "
            "one, as in 1=core,2=oedema,3=enhancing,4=cavity"
        )
    return CONVENTIONS[known[word]]


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


def convention_of_name(path: str) -> LabelConvention | None:
    """Return the convention that the name of a file, or of a folder above it, tells for certain.

    Args:
        path: Path of the file, or the name of a node.

    Returns:
        The convention; None if the names tell none.
    """
    *folders, file = re.split(r"[\\/]", path.lower())
    for name, pattern in _BY_FILE_NAME:
        if re.search(pattern, file):
            return CONVENTIONS[name]
    for folder in reversed(folders[-_FOLDERS_ABOVE:]):
        for name, pattern in _BY_FOLDER_NAME:
            if re.fullmatch(pattern, folder):
                return CONVENTIONS[name]
    return None
