"""Conventions by which public data sets and tools number the compartments of a tumour.

The same numbers mean different things: 4 is the enhancing tumour in BraTS 2021 and the resection cavity in BraTS 2024,
1 is the core in BraTS and the oedema in the Medical Segmentation Decathlon. Users declare a convention by its name;
where they do not, names of files that only one data set has tell it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

LABELS = ("background", "necrotic_core", "edema", "enhancing_tumor", "resection_cavity")
"""Name of each number in label maps of this project: the tumour classes, and the resection cavity."""
NECROTIC_CORE, EDEMA, ENHANCING, CAVITY = range(1, len(LABELS))


@dataclass(frozen=True)
class LabelConvention:
    """Meaning of the numbers in label maps.

    Attributes:
        name: Name by which it is declared.
        title: Where it is used.
        classes: Number in ``LABELS`` by number in the file; 0 is always the background. None for a plain mask,
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


def convention_named(text: str) -> LabelConvention | None:
    """Return the convention of a name.

    Args:
        text: Name of ``CONVENTIONS`` or a synonym, in upper or lower case.

    Returns:
        The convention; None if the name is unknown.
    """
    word = re.sub(r"[^a-z0-9]", "", text.lower())
    known = {re.sub(r"[^a-z0-9]", "", name): name for name in CONVENTIONS} | _SYNONYMS
    return CONVENTIONS[known[word]] if word in known else None


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
