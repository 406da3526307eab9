"""A cohort from folders whose files are named as in BraTS, with its subjects divided into splits."""

from __future__ import annotations

import dataclasses
import os
import random
import re
from collections.abc import Iterator
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
    """All studies below a folder, in the order of their names, all in the split 'train'.

    A folder with recognised files (see ``modalities``) is one study, or several where its files have different names
    before the modality. BraTS 2023 names (BraTS-GLI-00000-001) give subject and visit; folders called like visits
    (ses-01, week-012, baseline, 001) belong to the subject that their parent is named for, and so do files that are
    named for a visit (visit1_t1.nii.gz) in a folder called like none, or by a number; any other name is a subject.
    NAME_landmarks.csv (or .fcsv) beside the images is taken too. Links to folders are followed.

    Raises:
        ValueError: the folder is missing, holds no recognised image, two files claim one modality, or two studies
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
            others = (files.get(role) for role in ("label", "mask", "landmarks"))
            studies[subject, visit] = StudyRecord(subject, visit, images, *others)
    if not studies:
        raise ValueError(
            f"no file below '{folder}' is named like an image of a study; expected are names as in BraTS, such as "
            "NAME_t1.nii.gz, NAME_t1ce.nii.gz, NAME_t2.nii.gz, NAME_flair.nii.gz and NAME_seg.nii.gz"
        )
    return Cohort(str(folder), tuple(studies[key] for key in sorted(studies)))


def divide(cohort: Cohort, validation: float, test: float, seed: int = 0) -> Cohort:
    """The cohort with its subjects divided at random into train, val and test.

    validation, test: shares of the subjects, 0 to 1; a share above 0 gets one subject at least. All visits of a subject
    come into one split.

    Raises:
        ValueError: shares that leave nothing to train on.
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
    val, held_out = set(subjects[: counts[0]]), set(subjects[counts[0] : sum(counts)])
    _, *rest = SPLITS
    splits = dict.fromkeys(val, rest[0]) | dict.fromkeys(held_out, rest[1])
    studies = (dataclasses.replace(s, split=splits.get(s.subject, SPLITS[0])) for s in cohort.studies)
    return Cohort(cohort.source, tuple(studies))


def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and all below it, each with the names of its files, and each once however many links lead there.

    Links come after the folders themselves, so that a folder goes by its own name where it has one. A link to a folder
    that holds ``top`` is not followed.
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
    """Studies among the files of one folder, as (what their file names have before the modality, files by role)."""
    groups: dict[str, dict[str, Path]] = {}
    roles: list[str] = []
    for name in sorted(names):
        prefix, role = _prefix_and_role(name)
        if role is None or name.startswith("."):
            continue
        group = groups.setdefault(prefix, {})
        if role in group:
            raise ValueError(
                f"'{place}' has two files for {role}, '{group[role].name}' and '{name}'; keep one of them there"
            )
        group[role] = place / name
        roles.append(role)
    found = [(prefix, group) for prefix, group in groups.items() if any(role in MODALITIES for role in group)]
    if found and len(set(roles)) == len(roles):  # one study, even if its files have different first names
        return [(found[0][0], {role: file for group in groups.values() for role, file in group.items()})]
    return found


def _prefix_and_role(name: str) -> tuple[str, str | None]:
    """What a file name has before the word that tells what the file holds, and what that is."""
    landmarks = _LANDMARKS.fullmatch(name)
    return (landmarks.group(1), "landmarks") if landmarks else split_name(name)


def _subject_and_visit(place: Path, prefix: str, alone: bool) -> tuple[str, str]:
    """Names of subject and visit. prefix: of the file names. alone: the folder is for this study."""
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
