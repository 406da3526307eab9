"""The four modalities, their synonyms, and the files of a study recognised by their names.

Known: BraTS 2018 to 2021 (``NAME_t1``, ``_t1ce``, ``_t2``, ``_flair``, ``_seg``), BraTS 2023 (``NAME-t1n``, ``-t1c``,
``-t2w``, ``-t2f``, ``-seg``), and skull-stripped collections (``NAME_t1_bet``, ``_t1c_bet``, ``_fla_bet``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""Order of the channels."""

TITLES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
"""Names for people."""

SYNONYMS = {
    "t1": ("t1", "t1n", "t1w", "t1pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1gad", "t1post", "t1cw", "ct1"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "fla", "t2f", "t2flair", "t2fl"),
    "label": ("seg", "segm", "label", "labels", "segmentation"),
    "mask": ("mask", "brainmask"),
}
"""Words by which file names tell what is in the file; the first is the usual one."""

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_DECORATION = (
    "bet",
    "brain",
    "reg",
    "n4",
    "stripped",
    "fused",
    "auto",
    "manual",
    "gt",
    "glistrboost",
    "manuallycorrected",
)
_SECOND_WORDS = ("flair", "gd", "ce", "post")
_LESION = ("tumor", "tumour", "lesion")
_ROLES = {word: role for role, words in SYNONYMS.items() for word in words}


def modality(name: str) -> str:
    """Modality of a name or synonym, upper or lower case.

    Raises:
        ValueError: no modality goes by that name.
    """
    role = _ROLES.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if role not in MODALITIES:
        raise ValueError(f"'{name}' is no known modality; use one of {', '.join(MODALITIES)}")
    return role


def role_of_file(path: str | os.PathLike) -> str | None:
    """What a file holds by its name: a modality, 'label', 'mask', or None where the name does not tell.

    The last telling word of the name counts, so that subjects may be called anything.
    """
    return split_name(path)[1]


def split_name(path: str | os.PathLike) -> tuple[str, str | None]:
    """Name of the study in a file name, and what the file holds: ('BraTS2021_00006', 't1ce')."""
    stem = _stem(Path(path).name)
    if stem is None:
        return Path(path).name, None
    words = [(match.group().lower(), match.start()) for match in re.finditer(r"[^_\-. ]+", stem)]
    while len(words) > 1 and words[-1][0] in _DECORATION:
        words.pop()
    if not words:
        return stem, None
    word, start = words[-1]
    before = words[-2][0] if len(words) > 1 else ""
    if word == "mask" and before in _LESION:
        return stem, None  # neither a brain mask nor a map of classes
    if word == "mask" and before in _DECORATION:
        start = words[-2][1]
    if word in _SECOND_WORDS and before in ("t1", "t2", "t1w", "t2w"):  # t1_ce, t2_flair
        word, start = before.rstrip("w") + word, words[-2][1]
    role = _ROLES.get(word)
    if role == "t1" and any(other == "ce" for other, _ in words[:-1]):  # BIDS: sub-1_ce-gadolinium_T1w
        role = "t1ce"
    return (stem[:start].rstrip("_-. ") if role else stem), role


def recognise(folder: str | os.PathLike) -> dict[str, Path]:
    """Files of the study in a folder by what they hold: modalities, and 'label' and 'mask' where there are.

    Returns:
        Paths in the order of ``MODALITIES``, then label and mask; empty where no file name tells.

    Raises:
        ValueError: the folder is missing, or two files claim the same modality.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"the folder '{folder}' does not exist")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        role = role_of_file(path) if path.is_file() and not path.name.startswith(".") else None
        if role is None:
            continue
        if role in found:
            raise ValueError(
                f"'{folder}' has two files for {TITLES.get(role, role)}: '{found[role].name}' and '{path.name}'; "
                "keep one study a folder, or name the files in a manifest"
            )
        found[role] = path
    return {role: found[role] for role in (*MODALITIES, "label", "mask") if role in found}


def _stem(name: str) -> str | None:
    """File name without the ending of an image; None for other files."""
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)].removesuffix(".seg")
    return None
