"""Which studies are paired: visits or subjects, the same for the same seed and epoch, sampled by class."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from JointRegSegLib.cohort.pairing import Pairing, PairPlan, StudySampling

SUBJECTS = ["A", "A", "A", "B", "B", "C", "D", "E"]
"""Subject of each study."""


def test_every_two_visits_of_a_subject_meet_once_an_epoch() -> None:
    plan = PairPlan(SUBJECTS, Pairing("visits"))
    directions = Counter()
    for epoch in range(40):
        pairs = plan.epoch(epoch)
        assert sorted(tuple(sorted(pair)) for pair in pairs) == [(0, 1), (0, 2), (1, 2), (3, 4)]
        directions.update(pairs)
    assert 8 < directions[3, 4] < 32
    assert directions[3, 4] + directions[4, 3] == 40
    forward = PairPlan(SUBJECTS, Pairing("visits", both_directions=False))
    assert all(a < b for epoch in range(5) for a, b in forward.epoch(epoch))


def test_subjects_are_never_paired_with_themselves_and_every_study_is_the_fixed_one_once() -> None:
    plan = PairPlan(SUBJECTS, Pairing("subjects"), seed=3)
    met = set()
    for epoch in range(30):
        pairs = plan.epoch(epoch)
        assert sorted(a for a, _ in pairs) == list(range(len(SUBJECTS)))
        assert all(SUBJECTS[a] != SUBJECTS[b] for a, b in pairs)
        met |= set(pairs)
    assert len(met) > 35  # of 48 possible ones


def test_seed_and_epoch_decide_the_pairs() -> None:
    plan = PairPlan(SUBJECTS, Pairing("subjects"), seed=3)
    assert plan.epoch(2) == PairPlan(SUBJECTS, Pairing("subjects"), seed=3).epoch(2)
    assert plan.epoch(2) != plan.epoch(3)
    assert plan.epoch(2) != PairPlan(SUBJECTS, Pairing("subjects"), seed=4).epoch(2)


def test_auto_pairs_visits_where_a_subject_has_two() -> None:
    assert PairPlan(SUBJECTS).of_visits
    assert not PairPlan(["A", "B"]).of_visits


def test_sampling_meets_the_proportions_over_an_epoch() -> None:
    counts = torch.tensor([[10, 0, 0, 0]] * 6 + [[10, 5, 5, 0], [10, 0, 5, 5]], dtype=torch.float64)
    sampling = StudySampling({"enhancing_tumor": 0.5, "background": 0.5}, pairs=120)
    plan = PairPlan(list("ABCDEFGH"), Pairing("subjects"), sampling, counts)
    fixed = Counter(a for a, _ in plan.epoch(0))
    assert len(plan) == 120
    assert fixed[7] == 60
    assert fixed[6] == 0
    assert all(fixed[i] == 10 for i in range(6))


def test_sampling_meets_the_proportions_among_subjects_with_visits() -> None:
    subjects = ["A", "A", "B", "B", *(f"single {number}" for number in range(16))]
    counts = torch.zeros(20, 5, dtype=torch.float64)
    counts[:, 0] = 1000
    counts[:2, 3] = 10
    sampling = StudySampling({"anywhere": 0.5, "enhancing_tumor": 0.5}, pairs=1000)
    plan = PairPlan(subjects, Pairing("visits"), sampling, counts)
    assert Counter(subjects[fixed] for fixed, _ in plan.epoch(0)) == {"A": 750, "B": 250}


def test_sampling_never_draws_the_latest_visit_as_the_fixed_one_where_the_earlier_one_is_to_be() -> None:
    forward = Pairing("visits", both_directions=False)
    plan = PairPlan(["A", "A", "B", "B", "B"], forward, StudySampling(pairs=60), torch.ones(5, 5))
    pairs = Counter(pair for epoch in range(5) for pair in plan.epoch(epoch))
    assert pairs.keys() == {(0, 1), (2, 3), (2, 4), (3, 4)}


@pytest.mark.parametrize("both_directions", [True, False])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_sampling_meets_a_class_that_only_the_last_visit_has(both_directions: bool, share: float) -> None:
    """Of the three subjects, only B has a resection cavity, and at its last visit alone."""
    counts = torch.zeros(7, 5, dtype=torch.float64)
    counts[:, 0] = 1000
    counts[4, 4] = 10
    sampling = StudySampling({"resection_cavity": share, "anywhere": 1 - share}, pairs=70)
    plan = PairPlan(list("AABBBCC"), Pairing("visits", both_directions), sampling, counts)
    pairs = plan.epoch(0)
    assert sum(4 in pair for pair in pairs) >= 70 * share
    assert both_directions or all(a < b for a, b in pairs)


def test_sampling_of_a_class_that_only_single_visits_have_is_refused() -> None:
    counts = torch.tensor([[1000, 0, 0, 10, 0]] * 2 + [[1000, 0, 0, 0, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="no study that can be paired contains any of the wanted classes background"):
        PairPlan(["A", "A", "B"], Pairing("visits"), StudySampling({"background": 1.0}), counts)


LABELED = [True, False, False, False, False, True, True, False]
"""Which of the studies of ``SUBJECTS`` have labels: the first visit of A, C and D."""


@pytest.mark.parametrize("kind", ["visits", "subjects", "same"])
@pytest.mark.parametrize("sampled", [False, True])
def test_pairs_without_any_labels_are_left_out_where_labels_are_needed(kind: str, sampled: bool) -> None:
    sampling = StudySampling(pairs=20) if sampled else None
    plan = PairPlan(SUBJECTS, Pairing(kind), sampling, torch.ones(8, 5), labeled=LABELED)
    assert plan.left_out == {"visits": 2, "subjects": 5, "same": 5}[kind]  # the pair of B, and two of later visits of A
    for epoch in range(10):
        pairs = plan.epoch(epoch)
        assert len(pairs) == len(plan) == (20 if sampled else {"visits": 2, "subjects": 3, "same": 3}[kind])
        assert all(LABELED[a] or LABELED[b] for a, b in pairs)
        if kind == "subjects":
            assert all(SUBJECTS[a] != SUBJECTS[b] for a, b in pairs)


def test_labels_of_all_studies_change_no_pair() -> None:
    for kind in ("visits", "subjects", "same"):
        assert PairPlan(SUBJECTS, Pairing(kind), labeled=[True] * 8).epoch(3) == PairPlan(
            SUBJECTS, Pairing(kind)
        ).epoch(3)


def test_a_cohort_without_a_labelled_pair_is_refused_by_its_subjects() -> None:
    with pytest.raises(ValueError, match=r"no pair of the cohort has labels, .* \(subjects A, B, C, D, E\): add label"):
        PairPlan(SUBJECTS, Pairing("visits"), labeled=[False] * 5 + [True] * 3)
    with pytest.raises(ValueError, match=r"\(subjects 0, 1, 2, 3, 4 and 3 more\)"):
        PairPlan(list("01234567"), labeled=[False] * 8)
