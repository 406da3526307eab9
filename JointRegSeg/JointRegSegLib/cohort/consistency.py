"""Whether the studies of a manifest contradict each other or themselves."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..images.modalities import TITLES, role_of_file
from .studies import Cohort, StudyRecord

_MOST_TOLD = 5
"""Contradictions that a message lists."""


def contradictions(studies: list[StudyRecord]) -> list[str]:
    """Studies that occur twice, and subjects or images in two splits (which would let a network see its test data)."""
    problems = []
    for (subject, visit), count in Counter((study.subject, study.visit) for study in studies).items():
        if count > 1:
            which = f"visit '{visit}' of '{subject}'" if visit else f"'{subject}' without a visit"
            problems.append(f"{which} occurs {count} times")
    for members in _grouped((study.subject.lower(), study) for study in studies).values():
        names, splits = (sorted({getattr(study, name) for study in members}) for name in ("subject", "split"))
        if len(splits) > 1 and len(names) > 1:
            problems.append(
                f"{' and '.join(map(repr, names))} differ in letter case alone and are in the splits "
                f"{' and '.join(splits)}: give a subject one name and keep it in one split"
            )
        elif len(splits) > 1:
            problems.append(f"'{names[0]}' is in the splits {' and '.join(splits)}: keep a subject in one split")
    owners = _grouped((os.path.abspath(file), study) for study in studies for file in study.images.values())
    for file, members in owners.items():
        splits = sorted({study.split for study in members})
        if len(splits) > 1 and len({study.subject.lower() for study in members}) > 1:
            names = [f"'{study.name}' ({study.split})" for study in members]
            problems.append(f"'{file}' is an image of {' and '.join(names)}: keep an image in one split")
    return problems


def require_consistent(cohort: Cohort) -> Cohort:
    """The same cohort, whose manifest can be read back.

    Raises:
        ValueError: Its studies contradict each other; the message names them.
    """
    problems = contradictions(list(cohort.studies))
    if problems:
        more = f"; and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise ValueError(
            f"the studies below '{cohort.source}' contradict each other: {'; '.join(problems[:_MOST_TOLD])}{more}; "
            "rename their folders or files, or write a manifest for each data set"
        )
    return cohort


def warn_of_misplaced(studies: list[StudyRecord], path: Path) -> None:
    """Warn of images whose own names say that they are another image than their column."""
    wrong = [
        f"'{file.name}' as {TITLES[column]}"
        for study in studies
        for column, file in study.images.items()
        if role_of_file(file) not in (None, column)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        warnings.warn(
            f"'{path}' names {', '.join(wrong[:3])}{more}, but the names of the files say otherwise: check the columns",
            stacklevel=3,
        )


def warn_of_shared(studies: list[StudyRecord], path: Path) -> None:
    """Warn of images that several studies have; different splits are refused before."""
    owners = _grouped((os.path.abspath(file), study) for study in studies for file in study.images.values())
    shared = [
        f"'{file}' for {' and '.join(study.name for study in members)}"
        for file, members in owners.items()
        if len(members) > 1
    ]
    if shared:
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        warnings.warn(
            f"'{path}' names the same image {', '.join(shared[:3])}{more}: check that these are different studies",
            stacklevel=3,
        )


def warn_without_validation(cohort: Cohort, key: str, instead: str = "") -> None:
    """Warn of a cohort without held-out studies for a training that is to be validated.

    Args:
        cohort: Studies of all splits.
        key: Setting with the number of held-out items.
        instead: What happens instead; by default that the training loss chooses the weights.
    """
    if all(study.split != "val" for study in cohort.studies):
        instead = instead or "the loss of the training itself chooses the best weights"
        warnings.warn(
            f"'{cohort.source}' has no study in the split 'val', so that {instead}: give some subjects the split "
            f"'val', or set {key} to 0",
            stacklevel=3,
        )


def _grouped(studies: Iterable[tuple[str, StudyRecord]]) -> dict[str, list[StudyRecord]]:
    """Studies by what they share."""
    groups: dict[str, list[StudyRecord]] = {}
    for key, study in studies:
        groups.setdefault(key, []).append(study)
    return groups
