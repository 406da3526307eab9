"""Batches: the same stream of pairs however it is divided, each pair once per pass, on a common grid."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from joint_training_cases import Shells

from JointRegSegLib.cohort.sample import Pair
from JointRegSegLib.training.batches import Batch, BatchStream, collate


def first_batches(number: int, **options: Any) -> list[Batch]:
    settings = {"seed": 3, "step_pairs": 4, "multiple": 2, **options}
    stream = BatchStream(Shells(5), noisy, **settings).batches(0)
    return [next(stream) for _ in range(number)]


def noisy(pair: Pair, generator: torch.Generator) -> Pair:
    return tuple(replace(s, images=s.images + torch.randn(s.images.shape, generator=generator) * s.mask) for s in pair)


def test_pairs_are_the_same_for_any_number_of_processes_passes_and_workers() -> None:
    whole = torch.cat([batch.fixed for batch in first_batches(2)])
    passes = torch.cat([batch.fixed for batch in first_batches(4, passes=2)])
    workers = torch.cat([batch.fixed for batch in first_batches(2, workers=2)])
    ranks = [first_batches(2, rank=rank, count=2) for rank in (0, 1)]
    shared = torch.cat([batch.fixed for pair in zip(*ranks, strict=True) for batch in pair])
    assert torch.equal(whole, passes)
    assert torch.equal(whole, workers)
    assert torch.equal(whole, shared)


def test_the_application_is_never_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PythonQt", None)
    with pytest.warns(UserWarning, match="'workers' is ignored"):
        stream = BatchStream(Shells(5), noisy, seed=3, step_pairs=4, multiple=2, workers=2).batches(0)
    next(stream)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_study_that_cannot_be_used_is_refused_in_the_same_sentence_by_workers(workers: int) -> None:
    message = "the patch (64, 64, 64) is larger than the grid (16, 16, 16) of '1 a'"

    def refuse(pair: Pair, generator: torch.Generator) -> Pair:
        if pair[0].name == "1 a":
            raise ValueError(message)
        return pair

    stream = BatchStream(Shells(5), refuse, seed=3, step_pairs=2, multiple=2, workers=workers).batches(0)
    with pytest.raises(ValueError, match="the patch") as error:
        for _ in range(3):
            next(stream)
    assert str(error.value) == message


def test_every_pair_is_used_once_in_a_pass_over_the_data() -> None:
    names = [name for batch in first_batches(5) for name in batch.names]
    assert len(names) == 20
    for start in range(0, 20, 5):
        assert len(set(names[start : start + 5])) == 5
    assert names[:5] != names[5:10]


def test_studies_of_different_sizes_are_padded_to_a_common_grid() -> None:
    small, large = Shells(1, 8)[0], Shells(1, 12)[0]
    batch = collate([small, large], multiple=8)
    assert batch.fixed.shape == (2, 4, 16, 16, 16)
    assert torch.equal(batch.fixed[0, :, :8, :8, :8], small[0].images)
    assert bool((batch.fixed[0, :, 8:] == -3).all())
    assert not batch.fixed_mask[0, 8:].any()
    assert not batch.fixed_labels[0, 8:].any()
