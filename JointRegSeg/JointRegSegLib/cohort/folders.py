"""A cohort from folders whose files are named as in BraTS, with its subjects divided into splits."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..images.modalities import MODALITIES, split_name
from .manifest import SPLITS, Cohort, StudyRecord

_VISIT = re.compile(
    r"(ses|session|visit|week|wk|time|timepoint|tp|t|day|month|scan|v)[-_ ]?\d+([-_.]\d+)*"
    r"|baseline|follow[-_ ]?up\d*|pre([-_ ]?op)?|post([-_ ]?op)?"
)
_NUMBER = re.compile(r"[-_ ]?\d+([-_.]\d+)*")
_LANDMARKS = re.compile(r"(.*?)[-_. ]*landmarks?\.f?csv", re.IGNORECASE)
_BRATS_2023 = re.compile(r"(BraTS-[A-Za-z]+-\d+)-(\d{3})")


def cohort_of_folder(folder: str | os.PathLike) -> Cohort:
    """Find all studies below a folder.

    A folder with recognised files (see ``images.modalities``) is one study, or several where the part of the file
    names before the modality differs. Subject and visit follow from the names:

    - BraTS 2023 names (``BraTS-GLI-00000-001``) contain both.
    - A folder called like a visit (``ses-01``, ``week-012``, ``baseline``, ``001``) belongs to the subject that its
      parent folder is named after.
    - Files called like a visit (``visit1_t1.nii.gz``) belong to the subject that their folder is named after, unless
      that folder is itself called like a visit.
    - Any other name is the name of a subject.

    ``NAME_landmarks.csv`` (or ``.fcsv``) beside the images is taken too. Links to folders are followed.

    Args:
        folder: Folder to search.

    Returns:
        The studies in the order of their names, all in the split ``train``.

    Raises:
        ValueError: The folder is missing or holds no recognised image, two files are of one modality, or two studies
            have the same subject and visit.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise ValueError(f"the folder '{folder}' does not exist")
    studies: dict[tuple[str, str], StudyRecord] = {}
    for place, names in _folders(folder):
        found = _studies_in(place, names)
        alone = len(found) == 1 and place != folder
        for prefix, files in found:
            images = {modality: files[modality] for modality in MODALITIES if modality in files}
            subject, visit = _subject_and_visit(place, prefix, alone)
            if (subject, visit) in studies:
                first = next(iter(studies[subject, visit].images.values())).parent
                raise ValueError(
                    f"'{first}' and '{place}' both hold the study '{subject} {visit}'; rename one of the folders"
                )
            studies[subject, visit] = StudyRecord(
                subject, visit, images, files.get("label"), files.get("mask"), files.get("landmarks")
            )
    if not studies:
        raise ValueError(
            f"no file below '{folder}' is named like an image of a study; expected are names as in BraTS, such as "
            "NAME_t1.nii.gz, NAME_t1ce.nii.gz, NAME_t2.nii.gz, NAME_flair.nii.gz and NAME_seg.nii.gz"
        )
    return Cohort(str(folder), tuple(studies[key] for key in sorted(studies)))


def divide(cohort: Cohort, validation: float, test: float, seed: int = 0) -> Cohort:
    """Divide the subjects of a cohort at random into the splits train, val and test.

    All visits of a subject are in one split. A share above 0 gets at least one subject.

    Args:
        cohort: Cohort to divide.
        validation: Share of the subjects for validation, from 0 to 1.
        test: Share of the subjects for testing, from 0 to 1.
        seed: Seed of the draw.

    Returns:
        The same studies with their splits.

    Raises:
        ValueError: The shares leave nothing to train on.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(f"shares of {validation:g} for validation and {test:g} for testing leave nothing to train on")
    subjects = sorted(cohort.visits())
    random.Random(seed).shuffle(subjects)
    counts = [0 if share == 0 else max(1, round(share * len(subjects))) for share in (validation, test)]
    if sum(counts) >= len(subjects):
        raise ValueError(
            f"{len(subjects)} subjects of '{cohort.source}' are too few to give {counts[0]} to validation and "
            f"{counts[1]} to testing"
        )
    train, val, held_out = SPLITS
    splits = dict.fromkeys(subjects[: counts[0]], val) | dict.fromkeys(subjects[counts[0] : sum(counts)], held_out)
    studies = tuple(replace(study, split=splits.get(study.subject, train)) for study in cohort.studies)
    return replace(cohort, studies=studies)


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and all below it with the names of their files, each once however many links lead to it.

    Links come after the folders themselves, so that a folder is known by its own name where it has one. A link to a
    folder that contains ``top`` is not followed.
    """
    here, seen = Path(os.path.realpath(top)), set()
    waiting = [top]
    while waiting:
        links = []
        for start in waiting:
            for place, folders, names in os.walk(start):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                real = Path(os.path.realpath(place))
                if real in seen or real in here.parents:
                    folders.clear()
                    continue
                seen.add(real)
                links += [Path(place) / name for name in folders if os.path.islink(os.path.join(place, name))]
                yield Path(place), names
        waiting = links


def _studies_in(place: Path, names: list[str]) -> list[tuple[str, dict[str, Path]]]:
    """Studies among the files of one folder, as (part of the file names before the modality, files by role)."""
    groups: dict[str, dict[str, Path]] = {}
    roles: list[str] = []
    for name in sorted(names):
        prefix, role = _prefix_and_role(name)
        if role is None or name.startswith("."):
            continue
        group = groups.setdefault(prefix, {})
        if role in group:
            raise ValueError(
                f"'{place}' has two files for {role}, '{group[role].name}' and '{name}'; keep only one of them there"
            )
        group[role] = place / name
        roles.append(role)
    found = [(prefix, group) for prefix, group in groups.items() if any(role in MODALITIES for role in group)]
    if found and len(set(roles)) == len(roles):  # a single study, even if its file names begin differently
        return [(found[0][0], {role: file for group in groups.values() for role, file in group.items()})]
    return found


def _prefix_and_role(name: str) -> tuple[str, str | None]:
    """The part of a file name before the word that says what the file holds, and what it holds."""
    landmarks = _LANDMARKS.fullmatch(name)
    return (landmarks.group(1), "landmarks") if landmarks else split_name(name)


def _subject_and_visit(place: Path, prefix: str, alone: bool) -> tuple[str, str]:
    """Names of subject and visit from a folder and the prefix of its files; ``alone``: it holds no other study."""
    for name in (place.name, prefix) if alone else (prefix,):
        brats = _BRATS_2023.fullmatch(name)
        if brats is not None:
            return brats.group(1), brats.group(2)
    folder, file = place.name.lower(), prefix.lower()
    if alone and _VISIT.fullmatch(folder):
        return place.parent.name, place.name
    if _VISIT.fullmatch(file):
        return place.name, prefix
    if alone and _NUMBER.fullmatch(folder):
        return place.parent.name, place.name
    return (place.name if alone or not prefix else prefix), "1"
