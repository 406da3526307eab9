"""Three sources of the same pairs of studies: memory, cache on disk, on the fly."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from joint_cohorts import CONFIG, SETTINGS, pairs_of, same_sample, small_cohort

from JointRegSegLib.cohort import sources
from JointRegSegLib.cohort.sources import PATHS, all_counts, open_pairs, open_studies
from JointRegSegLib.cohort.studies import Cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return small_cohort(tmp_path)


def test_all_data_paths_give_the_same_pairs(cohort: Cohort, tmp_path: Path) -> None:
    memory, cache, fly = (pairs_of(cohort, path, tmp_path, pairing="subjects", seed=4) for path in PATHS)
    for epoch in (0, 1):
        for source in (memory, cache, fly):
            source.set_epoch(epoch)
        assert len(memory) == len(cache) == len(fly) == 4
        for first, second, third in zip(memory, cache, fly, strict=True):
            assert all(same_sample(a, b) and same_sample(a, c) for a, b, c in zip(first, second, third, strict=True))


def test_the_pairs_depend_on_the_epoch_alone(cohort: Cohort, tmp_path: Path) -> None:
    source = pairs_of(cohort, "memory", tmp_path, pairing="subjects")
    first = [tuple(s.name for s in pair) for pair in source]
    orders = set()
    for epoch in range(1, 6):
        source.set_epoch(epoch)
        orders.add(tuple(source.pairs))
    assert len(orders) > 1
    source.set_epoch(0)
    assert [tuple(s.name for s in pair) for pair in source] == first


def test_workers_of_a_data_loader_read_the_same_studies(cohort: Cohort, tmp_path: Path) -> None:
    for path in ("cache", "on_the_fly"):
        source = pairs_of(cohort, path, tmp_path, pairing="visits")
        loader = torch.utils.data.DataLoader(source, batch_size=None, num_workers=1)
        (pair,) = list(loader)
        assert all(same_sample(a, b) for a, b in zip(pair, source[0], strict=True))


def test_sources_can_be_sent_to_other_processes(cohort: Cohort, tmp_path: Path) -> None:
    source = pairs_of(cohort, "cache", tmp_path)
    assert same_sample(pickle.loads(pickle.dumps(source))[0][0], source[0][0])


def test_sampling_of_visits_leaves_out_subjects_with_a_single_visit(cohort: Cohort, tmp_path: Path) -> None:
    sampling = {"proportions": {"anywhere": 1}, "pairs": 10}
    source = pairs_of(cohort, "on_the_fly", tmp_path, pairing="visits", sampling=sampling)
    assert {name for pair in source.pairs for name in pair} == {0, 1}
    assert len(source) == 10


def test_class_counts_agree_between_the_data_paths(cohort: Cohort, tmp_path: Path) -> None:
    memory, cache, fly = (all_counts(open_studies(cohort, path, CONFIG, tmp_path / "cache")) for path in PATHS)
    assert torch.equal(memory, cache)
    assert memory[3, 1:].sum() == 0
    assert torch.allclose(memory[:, 1:], fly[:, 1:], rtol=0.05)  # counted on the file's own grid, of the same spacing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "network"}, "data path 'network' is unknown; use memory, cache, on_the_fly"),
        ({"path": "cache"}, "needs a folder for the cache"),
        ({"preparation": {"spacing": 2}}, "preprocessing: unknown keys spacing; use spacing_mm, "),
        ({"preparation": {"extent_mm": [10]}}, "preprocessing: extent_mm needs three lengths"),
        ({"preparation": {"align": "elastic"}}, "preprocessing: align is 'elastic'; use affine, rigid, none"),
        ({"pairing": "twins"}, "pairing: kind is 'twins'; use auto, visits, subjects"),
        ({"pairing": {"sort": 1}}, "pairing: unknown keys sort; use kind, both_directions"),
        ({"sampling": {"proportions": {"gland": 1}}}, "sampling: proportions: unknown class 'gland'"),
        ({"sampling": {"proportions": {"edema": -1}}}, "proportions must be 0 or more"),
        ({"sampling": {"pairs": 1.5}}, "sampling: pairs is 1.5 but must be a whole number"),
        ({"sampling": "much"}, "sampling: must be an object with the keys proportions, pairs"),
    ],
)
def test_unusable_settings_are_refused(cohort: Cohort, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        open_pairs(cohort, **{"path": "on_the_fly", "preparation": SETTINGS} | options)


def test_cohorts_without_any_pair_are_refused(cohort: Cohort) -> None:
    alone = Cohort("cohort.csv", cohort.studies[2:3])
    with pytest.raises(ValueError, match=r"'cohort\.csv' has a single subject"):
        open_pairs(alone, "on_the_fly", SETTINGS)
    with pytest.raises(ValueError, match=r"no subject of 'cohort\.csv' has two visits"):
        open_pairs(Cohort("cohort.csv", cohort.studies[2:]), "on_the_fly", SETTINGS, "visits")


def test_a_cohort_that_does_not_fit_into_memory_is_refused(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_free_memory", lambda: 100_000)
    with pytest.raises(ValueError, match=r"the 4 studies of .* need .* GB in memory .* use the data path 'cache'"):
        open_pairs(cohort, "memory", SETTINGS)
    monkeypatch.undo()
    assert sources._free_memory() is None or sources._free_memory() > 0
