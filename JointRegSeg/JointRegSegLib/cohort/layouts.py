"""Subject and visit of a study by the names of its folder and files, and the order of visits.

Layouts that are known: BraTS 2015 to 2024 and BraTS-Reg, BIDS, UPENN-GBM, UCSF-PDGM and UCSF-ALPTDG, UCSD-PTGBM,
RHUH-GBM, MU-Glioma-Post, LUMIERE, folders by visit or date, and what ``jointregseg synthesize`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_VISIT = (
    r"(?:ses|session|visit|week|wk|time|timepoint|tp|t|day|month|scan|v)[-_ ]?\d+(?:[-_.]\d+)*"
    r"|ses-[a-z0-9]+|baseline|follow[-_ ]?up[-_ ]?\d*|pre(?:[-_ ]?op)?[-_ ]?\d*|post(?:[-_ ]?op)?[-_ ]?\d*"
)
_NUMBER = re.compile(r"[-_ ]?\d+([-_.]\d+)*")
_DATE = re.compile(r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])")
_WHOLE_VISIT = re.compile(_VISIT, re.IGNORECASE)
_SUBJECT_AND_VISIT = re.compile(
    rf"(?P<subject>.+?)[-_ .]+(?P<visit>{_VISIT.replace('|t|', '|')}|{_DATE.pattern})", re.IGNORECASE
)
_COLLECTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<subject>BraTS-[A-Za-z]+-\d+)-(?P<visit>\d{3})",
        r"(?P<subject>BraTSReg_\d+)_(?P<visit>\d+_\d+)",
        r"(?P<subject>(?:UPENN-GBM|UCSD-PTGBM)-\d+)_(?P<visit>\d+)",
        r"(?P<subject>RHUH-\d+)_(?P<visit>\d+)",
        r"(?P<subject>PatientID_\d+)_(?P<visit>Timepoint_\d+)",
        r"(?P<subject>sub-[A-Za-z0-9]+)_(?P<visit>ses-[A-Za-z0-9]+)",
    )
)
"""Names of studies in public collections, which hold subject and visit."""
_BIDS = re.compile(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?:_.*)?")
_BIDS_KINDS = ("anat",)
_SUFFIXES = ("_nifti", "-nifti")
_NUMBERED = re.compile(r"(?P<subject>.*\d)[-_](?P<visit>\d{1,2})")
_BEFORE = re.compile(r"(?:^|[^a-z])(?:pre|base|initial)", re.IGNORECASE)
_AFTER = re.compile(r"(?:^|[^a-z])post", re.IGNORECASE)


def study_name(prefix: str) -> str:
    """Return the name of a study in the prefix of a file: of BIDS names only subject and session, else all of it."""
    bids = _BIDS.fullmatch(prefix)
    return bids[1] if bids else prefix


def subject_and_visit(place: Path, prefix: str, alone: bool, top: Path) -> tuple[str, str]:
    """Return the names of subject and visit.

    Args:
        place: Folder of the study.
        prefix: Name of the study in its file names.
        alone: Whether the folder holds no other study.
        top: Folder that was searched.
    """
    if place.name in _BIDS_KINDS and place != top:  # the folder says which kind of image it is, not whose
        place = place.parent
    folder = _without_suffix(place.name)
    for name in (folder, prefix) if alone else (prefix,):
        for pattern in _COLLECTIONS:
            if found := pattern.fullmatch(name):
                return found["subject"], found["visit"]
    if _BIDS.fullmatch(prefix):
        return prefix, "1"
    if alone and (_WHOLE_VISIT.fullmatch(folder) or _DATE.fullmatch(folder)):
        return _without_suffix(place.parent.name), place.name
    if _WHOLE_VISIT.fullmatch(prefix):
        return folder, prefix
    if prefix.startswith(folder) and place != top:
        rest = prefix[len(folder) :].lstrip("-_ .")
        if _WHOLE_VISIT.fullmatch(rest) or _DATE.fullmatch(rest) or (rest and not alone):
            return folder, rest
    if alone and _NUMBER.fullmatch(folder) and place.parent != top:
        return _without_suffix(place.parent.name), place.name
    name = folder if alone or not prefix else prefix
    if found := _SUBJECT_AND_VISIT.fullmatch(name):
        return found["subject"], found["visit"]
    return name, "1"


def numbered_visits(subjects: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Find subjects that look like visits of one subject: ``P0001_1`` and ``P0001_2``.

    Args:
        subjects: Names of subjects with a single visit.

    Returns:
        Subject and visit by name, where at least two names differ in a last number of one or two digits alone and
        the rest ends in a number too.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in subjects:
        if found := _NUMBERED.fullmatch(name):
            groups.setdefault(found["subject"], []).append((name, found["visit"]))
    return {
        name: (subject, visit) for subject, members in groups.items() if len(members) > 1 for name, visit in members
    }


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts names by their numbers: week_2 before week_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def visit_key(visit: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Return a key that sorts visits by time: those before treatment, after it, then all others by their numbers."""
    if _DATE.fullmatch(visit):
        return 2, natural_key(re.sub(r"\D", "", visit))
    stage = 0 if _BEFORE.search(visit) else 1 if _AFTER.search(visit) else 2
    return stage, natural_key(visit)


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
