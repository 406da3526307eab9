"""What a checkpoint stores of the studies of a cohort, by which a resumed training recognizes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from NeuroCESTLib.core.stored_values import check_stored

from ..cohort.studies import Cohort, StudyRecord

_USED = ("train", "val")
_STUDY = {"subject": str, "visit": str, "files": str, "convention": str, "targets": str}
_FORM = dict.fromkeys(_USED, ([_STUDY], str))
"""Form of the stored studies, see ``stored_values``; earlier versions stored one text for a split."""
_RECOGNIZED = "recognized by numbers and arrangement"


def study_digests(cohort: Cohort) -> dict[str, list[dict[str, str]]]:
    """Describe the training and the held-out studies of a cohort.

    A study is told by subject and visit, the names of its files, the convention of its labels and its targets, so that
    a cohort may be moved to another folder. Landmarks take no part in a training.

    Args:
        cohort: Studies of all splits.

    Returns:
        The studies of the splits 'train' and 'val'.
    """
    return {split: [_described(study) for study in cohort.studies if study.split == split] for split in _USED}


def difference_of_studies(found: Any, cohort: Cohort) -> str:
    """Say which study is the first that differs from those of a checkpoint.

    Args:
        found: What the checkpoint stores of its studies.
        cohort: Studies of all splits.

    Returns:
        The difference in words; empty where there is none.

    Raises:
        ValueError: The checkpoint does not hold studies.
    """
    check_stored(found, _FORM, "the studies of the checkpoint")
    for split in _USED:
        if isinstance(found[split], str) and found[split] not in (now := _earlier_digests(cohort, split)):
            return (
                f"the subjects, visits or names of files in the split '{split}' have changed, which were "
                f"{found[split]} and are now {now[0]}"
            )
    stored = {split: studies for split, studies in found.items() if not isinstance(studies, str)}
    wanted = {split: studies for split, studies in study_digests(cohort).items() if split in stored}
    return _first_difference(_by_study(stored), _by_study(wanted))


def _described(study: StudyRecord) -> dict[str, str]:
    told = study.told_convention
    return {
        "subject": study.subject,
        "visit": study.visit,
        "files": _digest(_file_names(study, with_landmarks=False)),
        "convention": "" if study.label is None else _RECOGNIZED if told is None else told.name,
        "targets": _digest(sorted(study.target_values.items())) if study.target_values else "",
    }


_Studies = Mapping[tuple[str, str], tuple[str, Mapping[str, str]]]
"""Split and description of each study, by subject and visit."""


def _by_study(splits: Mapping[str, list[dict[str, str]]]) -> _Studies:
    return {
        (study["subject"], study["visit"]): (split, study) for split, studies in splits.items() for study in studies
    }


def _first_difference(found: _Studies, wanted: _Studies) -> str:
    for key in dict.fromkeys((*found, *wanted)):
        name = f"the study '{' '.join(key).strip()}'"
        if key not in wanted:
            return f"{name} of the split '{found[key][0]}' is missing now"
        if key not in found:
            return f"{name} of the split '{wanted[key][0]}' is new"
        (split, before), (split_now, now) = found[key], wanted[key]
        if split != split_now:
            return f"{name} was in the split '{split}' and is now in '{split_now}'"
        if before["files"] != now["files"]:
            return f"the names of the files of {name} have changed"
        if before["convention"] != now["convention"]:
            return (
                f"the convention of the labels of {name} was '{before['convention']}' and is now '{now['convention']}'"
            )
        if before["targets"] != now["targets"]:
            return f"the targets of {name} have changed"
    return ""


def _earlier_digests(cohort: Cohort, split: str) -> list[str]:
    """Texts that earlier versions stored for a split; landmarks counted for them and may have been added since."""
    studies = [study for study in cohort.studies if study.split == split]
    return [
        f"{len(studies)} studies "
        f"({_digest(sorted([s.subject, s.visit, *_file_names(s, with_landmarks)] for s in studies))})"
        for with_landmarks in (True, False)
    ]


def _file_names(study: StudyRecord, with_landmarks: bool) -> list[str]:
    files = sorted(study.files.items())
    return [f"{column}={file.name}" for column, file in files if with_landmarks or column != "landmarks"]


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
