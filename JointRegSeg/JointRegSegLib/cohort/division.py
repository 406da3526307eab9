"""Division of the subjects of a cohort into splits."""

from __future__ import annotations

import random
from dataclasses import replace

from .consistency import require_consistent
from .studies import SPLITS, Cohort


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
        ValueError: The shares leave nothing to train on, or subjects whose names differ in letter case alone would be
            in different splits.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ValueError(f"shares of {validation:g} for validation and {test:g} for testing leave nothing to train on")
    subjects = sorted(cohort.visits())
    random.Random(seed).shuffle(subjects)
    counts = [0 if share == 0 else max(1, round(share * len(subjects))) for share in (validation, test)]
    if sum(counts) >= len(subjects):
        found = "1 subject" if len(subjects) == 1 else f"{len(subjects)} subjects"
        raise ValueError(
            f"{found} of '{cohort.source}' cannot be divided: {counts[0]} for validation and {counts[1]} for testing "
            "would leave none for training"
        )
    train, val, held_out = SPLITS
    splits = dict.fromkeys(subjects[: counts[0]], val) | dict.fromkeys(subjects[counts[0] : sum(counts)], held_out)
    studies = tuple(replace(study, split=splits.get(study.subject, train)) for study in cohort.studies)
    return require_consistent(replace(cohort, studies=studies))
