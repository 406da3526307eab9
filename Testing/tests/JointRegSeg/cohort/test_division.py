"""Subjects of a cohort divided into splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from JointRegSegLib.cohort.division import divide
from JointRegSegLib.cohort.studies import Cohort, StudyRecord


def test_subjects_that_differ_in_letter_case_alone_are_not_divided() -> None:
    records = [StudyRecord(name, "1", {"t1": Path(f"{name}.nii")}) for name in ("p1", "P1")]
    with pytest.raises(ValueError, match="'P1' and 'p1' differ in letter case alone and are in the splits"):
        divide(Cohort("cohort", tuple(records)), validation=0.5, test=0)


def cohort_of(subjects: int, visits: int = 2) -> Cohort:
    return Cohort(
        "cohort",
        tuple(
            StudyRecord(f"P{s}", f"v{v}", {"t1": Path(f"{s}-{v}.nii")}) for s in range(subjects) for v in range(visits)
        ),
    )


def test_subjects_are_divided_by_shares_and_keep_their_visits_together() -> None:
    divided = divide(cohort_of(20), validation=0.1, test=0.25, seed=3)
    counts = {split: len(divided.of_split(split).visits()) for split in ("train", "val", "test")}
    assert counts == {"train": 13, "val": 2, "test": 5}
    assert all(len({visit.split for visit in visits}) == 1 for visits in divided.visits().values())
    assert divide(cohort_of(20), 0.1, 0.25, seed=3) == divided
    assert divide(cohort_of(20), 0.1, 0.25, seed=4) != divided


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to train on"):
        divide(cohort_of(4), 0.5, 0.5)
    with pytest.raises(ValueError, match="2 subjects of 'cohort' cannot be divided"):
        divide(cohort_of(2), 0.1, 0.1)
