"""Subject and visit of a study by the names of its folder and files, and the order of visits.

Layouts that are known: BraTS 2015 to 2024 and BraTS-Reg, BIDS, UPENN-GBM, UCSF-PDGM and UCSF-ALPTDG, UCSD-PTGBM,
RHUH-GBM, MU-Glioma-Post, LUMIERE, folders by visit or date, and what ``jointregseg synthesize`` writes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

_VISIT = (
    r"(?:ses|session|visit|week|wk|time|timepoint|tp|t|day|month|scan|v)[-_ ]?\d+(?:[-_.]\d+)*"
    r"|ses-[a-z0-9]+|baseline|follow[-_ ]?up[-_ ]?\d*|pre(?:[-_ ]?op)?[-_ ]?\d*|post(?:[-_ ]?op)?[-_ ]?\d*"
)
_NUMBER = re.compile(r"[-_ ]?\d+([-_.]\d+)*")
_DAY, _MONTH, _YEAR = r"(?:0[1-9]|[12]\d|3[01])", r"(?:0[1-9]|1[0-2])", r"(?:19|20)\d\d"
_YEAR_FIRST = rf"{_YEAR}[-_.]?{_MONTH}[-_.]?{_DAY}"
_YEAR_LAST = rf"(?:{_DAY}[-_.]{_MONTH}|{_MONTH}[-_.]{_DAY})[-_.]{_YEAR}"
_DIGITS_YEAR_LAST = rf"(?:{_DAY}{_MONTH}|{_MONTH}{_DAY}){_YEAR}"
_WRITTEN_DATE = rf"(?:{_YEAR_FIRST}|{_YEAR_LAST})"
_DATE = re.compile(rf"{_WRITTEN_DATE}|{_DIGITS_YEAR_LAST}")
_DATE_FIRST = re.compile(rf"(?P<date>{_DATE.pattern})(?![0-9]).*", re.DOTALL)
"""A name that is or begins with a date."""
_WHOLE_VISIT = re.compile(_VISIT, re.IGNORECASE)
_SUBJECT_AND_VISIT = re.compile(
    rf"(?P<subject>.+?)[-_ .]+(?P<visit>{_VISIT.replace('|t|', '|')}|{_WRITTEN_DATE})", re.IGNORECASE
)
_COLLECTIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<subject>BraTS-[A-Za-z]+-\d+)-(?P<visit>\d{3})",
        r"(?P<subject>BraTSReg_\d+)_(?P<visit>\d+_\d+)",
        r"(?P<subject>(?:UPENN-GBM|UCSD-PTGBM)-\d+)_(?P<visit>\d+)",
        r"(?P<subject>UCSF-PDGM-\d+)_(?P<visit>FU\d+d)",
        r"(?P<subject>RHUH-\d+)_(?P<visit>\d+)",
        r"(?P<subject>PatientID_\d+)_(?P<visit>Timepoint_\d+)",
        r"(?P<subject>sub-[A-Za-z0-9]+)_(?P<visit>ses-[A-Za-z0-9]+)",
    )
)
"""Names of studies in public collections, which hold subject and visit."""
_BIDS = re.compile(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?:_.*)?")
_BIDS_KINDS = ("anat",)
_OF_SUBJECTS = ("train", "training", "val", "validation", "test", "testing", "data")
"""Names of folders that hold subjects, in lower case."""
_NAME_WITH_NUMBER = re.compile(r"(?P<name>[a-z]+)[-_ ]?\d+", re.IGNORECASE)
_EXAMINATION = re.compile(r"(?:mri?|scan|exam|study|brain|head)[-_ ]?\d+", re.IGNORECASE)
_SUFFIXES = ("_nifti", "-nifti")
_NUMBERED = re.compile(r"(?P<subject>.*\d)[-_](?P<visit>\d{1,2})")
_BEFORE = re.compile(r"(?:^|[^a-z])(?:pre|base|initial)", re.IGNORECASE)
_AFTER = re.compile(r"(?:^|[^a-z])post", re.IGNORECASE)


def study_name(prefix: str) -> str:
    """Return the name of a study in the prefix of a file: of BIDS names only subject and session, else all of it."""
    bids = _BIDS.fullmatch(prefix)
    return bids[1] if bids else prefix


def study_folder(place: Path, top: Path) -> Path:
    """Return the folder that is named after a study: that above, where a folder says which kind of image it holds."""
    return place.parent if place.name in _BIDS_KINDS and place != top else place


def holds_subjects(folder: Path, top: Path) -> bool:
    """Tell whether a folder is the one that was searched, or named after a split, and so is no subject itself."""
    return folder == top or folder.name.lower() in _OF_SUBJECTS


def dated_subjects(folders: Iterable[Path], top: Path) -> set[Path]:
    """Find the folders of studies that are named after a date and a subject, such as ``20190102_P01``.

    In a folder that holds subjects these are all whose names begin with a date. In one whose name has no number they
    are those that the date apart have one name with different numbers, unless it is that of visits or examinations.
    """
    rests: dict[Path, dict[Path, str]] = {}
    for folder in folders:
        if rest := follows_a_date(folder.name).strip("-_. "):
            rests.setdefault(folder.parent, {})[folder] = rest
    found: set[Path] = set()
    for parent, members in rests.items():
        names = [_NAME_WITH_NUMBER.fullmatch(rest) for rest in members.values()]
        same = len({name and name["name"].lower() for name in names}) == 1 and all(names)
        visits = any(pattern.fullmatch(rest) for rest in members.values() for pattern in (_WHOLE_VISIT, _EXAMINATION))
        differ = len(set(members.values())) > 1
        if holds_subjects(parent, top) or (same and differ and not visits and not re.search(r"\d", parent.name)):
            found |= members.keys()
    return found


def subject_and_visit(
    place: Path, prefix: str, alone: bool, top: Path, subjects: Collection[Path] = ()
) -> tuple[str, str]:
    """Return the names of subject and visit.

    Args:
        place: Folder of the study.
        prefix: Name of the study in its file names.
        alone: Whether the folder holds no other study.
        top: Folder that was searched.
        subjects: Folders whose names begin with a date and that are subjects nevertheless, see ``dated_subjects``.
    """
    place = study_folder(place, top)
    folder = _without_suffix(place.name)
    for name in (folder, prefix) if alone else (prefix,):
        for pattern in _COLLECTIONS:
            if found := pattern.fullmatch(name):
                return found["subject"], found["visit"]
    if _BIDS.fullmatch(prefix):
        return prefix, "1"
    if alone and (_WHOLE_VISIT.fullmatch(folder) or re.fullmatch(_WRITTEN_DATE, folder)):
        return _without_suffix(place.parent.name), place.name
    if _WHOLE_VISIT.fullmatch(prefix):
        return folder, prefix
    if prefix.startswith(folder) and place != top:
        rest = prefix[len(folder) :].lstrip("-_ .")
        if _WHOLE_VISIT.fullmatch(rest) or _DATE.fullmatch(rest) or (rest and not alone):
            return folder, rest
    is_visit = _NUMBER.fullmatch(folder) or (_DATE_FIRST.fullmatch(folder) and place not in subjects)
    if alone and is_visit and not holds_subjects(place.parent, top):
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


def visit_key(visit: str, day_first: bool = True) -> tuple[int, list[tuple[int, int, str]]]:
    """Return a key that sorts visits by time: those before treatment, after it, then all others by their numbers.

    Args:
        visit: Name of the visit.
        day_first: Whether the day stands before the month in dates that have the year last and do not tell it.
    """
    if found := _DATE_FIRST.fullmatch(visit):
        return 2, natural_key(_year_month_day(found["date"], day_first)) + natural_key(visit)
    stage = 0 if _BEFORE.search(visit) else 1 if _AFTER.search(visit) else 2
    return stage, natural_key(visit)


def follows_a_date(visit: str) -> str:
    """Return what follows the date with which the name of a visit begins; empty where there is none."""
    found = _DATE_FIRST.fullmatch(visit)
    return visit[found.end("date") :] if found else ""


def day_stands_first(visits: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether the day stands before the month in dates that have the year last.

    One date of which a part is above 12 tells it for all. Where none does, or some contradict each other, it is
    guessed, which a warning tells where the order of visits depends on it.

    Args:
        visits: Names of the visits of each subject.
    """
    found = [match["date"] for names in visits.values() for name in names if (match := _DATE_FIRST.fullmatch(name))]
    dates = [date for date in found if not re.fullmatch(_YEAR_FIRST, date)]
    digits = [re.sub(r"\D", "", date) for date in dates]
    told = {int(first) > 12 for first, second in ((d[:2], d[2:4]) for d in digits) if max(first, second) > "12"}
    if len(told) == 1:
        return told.pop()
    day_first = any("." in date for date in dates)
    unsure = [
        (subject, names)
        for subject, names in visits.items()
        if sorted(names, key=visit_key) != sorted(names, key=lambda name: visit_key(name, day_first=False))
    ]
    if unsure:
        subject, names = unsure[0]
        more = f" and of {len(unsure) - 1} more" if len(unsure) > 1 else ""
        warnings.warn(
            f"the dates of the visits of '{subject}'{more} ({', '.join(names)}) do not tell day from month; the "
            f"{'day' if day_first else 'month'} is taken to stand first: put the lines of the manifest into the order "
            "of time if it does not",
            stacklevel=3,
        )
    return day_first


def _year_month_day(date: str, day_first: bool) -> str:
    """Digits of a date in the order in which they sort."""
    digits = re.sub(r"\D", "", date)
    if re.fullmatch(_YEAR_FIRST, date):
        return digits
    first, second, year = digits[:2], digits[2:4], digits[4:]
    is_day_first = second <= "12" and (day_first or first > "12")
    return year + (second + first if is_day_first else first + second)


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
