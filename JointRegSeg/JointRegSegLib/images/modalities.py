"""The four modalities and their synonyms, and the recognition of a study's files by their names.

Known names are those of BraTS 2018 to 2021 (``NAME_t1``, ``_t1ce``, ``_t2``, ``_flair``, ``_seg``), of BraTS 2023
(``NAME-t1n``, ``-t1c``, ``-t2w``, ``-t2f``, ``-seg``) and of skull-stripped collections (``NAME_t1_bet``, ``_t1c_bet``,
``_fla_bet``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""Order of the channels."""

TITLES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
"""Names of the modalities in texts."""

SYNONYMS = {
    "t1": ("t1", "t1n", "t1w", "t1pre"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1gad", "t1post", "t1cw", "ct1"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "fla", "t2f", "t2flair", "t2fl"),
    "label": ("seg", "segm", "label", "labels", "segmentation", "segmentations", "tumormask", "dseg"),
    "mask": ("mask", "brainmask"),
}
"""Words in file names for what the file contains, the usual one first."""

_WHOLE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_HEADER_ENDINGS = (".nhdr", ".mhd", ".hdr")
IMAGE_ENDINGS = (*_WHOLE_ENDINGS, *_HEADER_ENDINGS)
"""Endings of image files that are read; the data of some are in another file."""
FREESURFER_ENDINGS = (".mgz", ".mgh")
"""Endings of image files that are not read, see ``reading.unreadable``."""
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
_OF_LABELS = (*_LESION, "brats", "glioma")
"""Words before 'segmentation' that do not belong to the name of the study."""
_NO_TUMOR = ("parenchyma", "cellular", "tissue", "ventricle", "ventricles", "skull", "vessel", "vessels")
"""Words before 'segmentation' or 'mask' that show that it is not the whole tumour."""
_BIDS_ENTITY = re.compile(r"(?<![a-z0-9])(label|desc)-([a-z0-9]+)(?=_)")
"""What BIDS names say of a segmentation or mask, as in ``sub-01_label-tumor_dseg``."""
_BIDS_BRAIN = ("brain", "brainmask", "bet", "hdbet", "synthstrip")
_ROLES = {word: role for role, words in SYNONYMS.items() for word in words}


def modality(name: str) -> str:
    """Return the modality of a name or synonym in upper or lower case.

    Raises:
        ValueError: The name is unknown; the message lists the modalities.
    """
    role = _ROLES.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if role not in MODALITIES:
        raise ValueError(f"modality '{name}' is unknown; use one of {', '.join(MODALITIES)}")
    return role


def role_of_file(path: str | os.PathLike) -> str | None:
    """Return what a file contains by its name: a modality, 'label', 'mask', or None if the name does not show it.

    Only the end of the name counts, so that subjects can have any name.
    """
    return split_name(path)[1]


def split_name(path: str | os.PathLike) -> tuple[str, str | None]:
    """Split a file name into the name of the study and what the file contains, such as ('BraTS2021_00006', 't1ce')."""
    stem = _stem(Path(path).name)
    if stem is None:
        return Path(path).name, None
    words = _words(stem)
    if not words:
        return stem, None
    word, start = words[-1]
    before = words[-2][0] if len(words) > 1 else ""
    if _is_derived(stem, words):
        return stem, None
    if word == "mask" and before in _LESION:
        return stem, None  # neither a brain mask nor a map of classes
    if word == "mask" and before in _DECORATION:
        start = words[-2][1]
    if word in _SECOND_WORDS and before in ("t1", "t2", "t1w", "t2w"):  # t1_ce, t2_flair
        word, start = before.rstrip("w") + word, words[-2][1]
    role = _ROLES.get(word)
    if role == "t1" and any(other == "ce" for other, _ in words[:-1]):  # BIDS: sub-1_ce-gadolinium_T1w
        role = "t1ce"
    if role is None:
        return stem, None
    if role == "label":
        if before == "brain":
            role, start = "mask", words[-2][1]
        start = _start_of(words, start, _OF_LABELS)
    start = _start_of(words, start, _DECORATION)
    return stem[:start].rstrip("_-. "), role


def says_no_part(path: str | os.PathLike) -> bool:
    """Tell whether a file has the name of a segmentation or mask in BIDS that says neither tumor nor brain."""
    stem = _stem(Path(path).name)
    words = _words(stem) if stem is not None else []
    return stem is not None and words != [] and _is_other_part(stem.lower(), words[-1][0])


def _words(stem: str) -> list[tuple[str, int]]:
    """Words of a file name in lower case with their positions, without those at the end that do not tell its role."""
    words = [(match.group().lower(), match.start()) for match in re.finditer(r"[^_\-. ]+", stem)]
    while len(words) > 1 and words[-1][0] in _DECORATION:
        words.pop()
    return words


def _start_of(words: list[tuple[str, int]], start: int, passed: Collection[str]) -> int:
    """Position of the first of the words in ``passed`` that lead up to ``start``; ``start`` if there is none."""
    for word, position in reversed([(w, p) for w, p in words[1:] if p < start]):
        if word not in passed:
            break
        start = position
    return start


def _is_derived(stem: str, words: list[tuple[str, int]]) -> bool:
    """Whether a file shows the difference of two images (``t1ce-t1``), or a part that is neither tumour nor brain."""
    if len(words) < 2:
        return False
    (before, position), (word, start) = words[-2:]
    if word in SYNONYMS["label"] + SYNONYMS["mask"] and any(other in _NO_TUMOR for other, _ in words[:-1]):
        return True
    if _is_other_part(stem.lower(), word):
        return True
    images = [name for modality in MODALITIES for name in SYNONYMS[modality]]
    joined = stem[position + len(before) : start] == "-"
    return joined and word in images and word not in _SECOND_WORDS and before in images


def _is_other_part(stem: str, word: str) -> bool:
    """Whether the BIDS name of a segmentation or mask does not say that it shows tumour, or shows the brain.

    A ``dseg`` shows any structures, in most data sets the tissues of the normal brain.
    """
    told = dict(_BIDS_ENTITY.findall(stem))
    if word == "mask":
        return told.get("label", told.get("desc", "brain")) not in _BIDS_BRAIN
    if word == "dseg":
        shown = list(told.values())
    elif word in SYNONYMS["label"] and "label" in told:
        shown = [told["label"]]
    else:
        return False
    return not any(part in value for value in shown for part in _OF_LABELS)


def find_study_files(folder: str | os.PathLike) -> dict[str, Path]:
    """Find the files of the study in a folder by their names.

    Returns:
        Paths by modality in the order of ``MODALITIES``, then those of 'label' and 'mask' if present; empty if no name
        is recognised.

    Raises:
        ValueError: The folder is missing, or two files have names of the same modality.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"the folder '{folder}' does not exist")
    found: dict[str, Path] = {}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    copies = headers_beside_images([path.name for path in files])
    for path in files:
        role = role_of_file(path)
        if role is None or path.name in copies:
            continue
        if role in found:
            raise ValueError(
                f"'{folder}' has two files for {TITLES.get(role, role)}: '{found[role].name}' and '{path.name}'; "
                "keep one study per folder, or list the files in a manifest"
            )
        found[role] = path
    return {role: found[role] for role in (*MODALITIES, "label", "mask") if role in found}


def headers_beside_images(names: Collection[str]) -> set[str]:
    """Return those files of a folder that are the header of an image that a single file of the same name holds too."""
    whole = {name[: -len(ending)] for name in names for ending in _WHOLE_ENDINGS if name.lower().endswith(ending)}
    return {
        name
        for name in names
        for ending in _HEADER_ENDINGS
        if name.lower().endswith(ending) and name[: -len(ending)] in whole
    }


def _stem(name: str) -> str | None:
    """Return a file name without its image ending; None for other files."""
    for ending in IMAGE_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)].removesuffix(".seg")
    return None
