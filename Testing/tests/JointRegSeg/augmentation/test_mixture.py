"""Sources made of other sources: shares, repetition, and dependence on seed, epoch and index alone."""

from __future__ import annotations

import torch
from augmentation_cases import study

from JointRegSegLib.augmentation.mixture import MixedPairs, TransplantedPairs
from JointRegSegLib.augmentation.transplant import TransplantConfig
from JointRegSegLib.cohort.pairing import Pairing, PairPlan
from JointRegSegLib.cohort.sampling import class_counts
from JointRegSegLib.cohort.sources import StudyPairs


class Studies:
    """Three labelled studies in memory."""

    def __init__(self) -> None:
        self.samples = [study(seed, name) for seed, name in enumerate("abc")]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int):
        return self.samples[index]

    def counts(self, index: int):
        return class_counts(self.samples[index].labels)


class Synthetic:
    """Pairs that are told from those of the cohort by their names."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int):
        return study(0, "synthetic"), study(1, "synthetic")

    def set_epoch(self, epoch: int) -> None:
        pass


def cohort_pairs() -> StudyPairs:
    return StudyPairs(Studies(), PairPlan(list("abc"), Pairing("same")))


def test_pairing_same_pairs_every_study_with_itself_once_per_epoch():
    pairs = cohort_pairs()
    names = [(pairs[index][0].name, pairs[index][1].name) for index in range(len(pairs))]
    assert sorted(names) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_share_of_synthetic_pairs_is_the_configured_one():
    mixed = MixedPairs(cohort_pairs(), Synthetic(), 0.3, 0)
    synthetic = [mixed[index][0].name == "synthetic" for index in range(len(mixed))]
    assert len(mixed) == 200
    assert 0.2 < sum(synthetic) / len(synthetic) < 0.4


def test_every_study_of_the_cohort_is_met_again_and_again():
    mixed = MixedPairs(cohort_pairs(), Synthetic(), 0.3, 0)
    names = [mixed[index][0].name for index in range(len(mixed))]
    counts = [names.count(name) for name in "abc"]
    assert min(counts) > 30


def test_transplants_depend_on_seed_epoch_and_index_alone():
    first, again = (TransplantedPairs(cohort_pairs(), TransplantConfig(probability=1.0), 7) for _ in range(2))
    again[2]
    for epoch in (1, 0):
        first.set_epoch(epoch)
        again.set_epoch(epoch)
        assert torch.equal(first[1][0].images, again[1][0].images)
    again.set_epoch(5)
    assert not torch.equal(first[1][0].images, again[1][0].images)


def test_studies_of_a_pair_are_changed_independently():
    pairs = TransplantedPairs(cohort_pairs(), TransplantConfig(probability=1.0), 7)
    fixed, moving = pairs[0]
    assert not torch.equal(fixed.images, moving.images)


def test_seeds_may_be_as_long_as_a_date():
    transplanted = TransplantedPairs(cohort_pairs(), TransplantConfig(), seed=20240101)
    assert len(transplanted[0]) == 2
    assert len(MixedPairs(cohort_pairs(), Synthetic(), 0.5, seed=20240101)[0]) == 2


def test_no_subject_receives_its_own_tumor():
    pairs = StudyPairs(Studies(), PairPlan(["A", "A", "B"], Pairing("visits")))
    source = TransplantedPairs(pairs, TransplantConfig(0.0, 1.0, 0.0))
    names = set()
    for epoch in range(10):
        source.set_epoch(epoch)
        names |= {sample.name for index in range(len(source)) for sample in source[index]}
    assert {"a with tumour of c", "b with tumour of c"} <= names <= {"a", "b"} | {f"{n} with tumour of c" for n in "ab"}
