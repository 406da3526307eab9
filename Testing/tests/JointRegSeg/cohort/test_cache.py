"""The cache of prepared studies: built once, rebuilt when inputs or settings change, never half written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_cohorts import CONFIG, SETTINGS, image_of, pairs_of, same_sample, small_cohort, write_study

from JointRegSegLib.cohort.cache import StudyCache
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.cohort.sample import StudySample
from JointRegSegLib.cohort.sources import open_studies
from JointRegSegLib.cohort.studies import Cohort, StudyRecord


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return small_cohort(tmp_path)


@pytest.fixture
def prepared(cohort: Cohort, tmp_path: Path) -> Callable[..., list[str]]:
    """Open the cache anew and return the names of the studies that had to be prepared."""

    def open_cache(settings: dict = SETTINGS) -> list[str]:
        names: list[str] = []
        preparer = StudyPreparer(cohort, PreparationConfig.from_dict(settings))
        prepare = preparer.__call__

        class Counting(StudyPreparer):
            def __call__(self, index: int) -> StudySample:
                names.append(self.cohort.studies[index].name)
                return prepare(index)

        cache = StudyCache(Counting(cohort, preparer.config), tmp_path / "cache")
        for index in range(len(cache)):
            assert same_sample(cache[index], prepare(index))
            assert cache.is_current(index)
        return names

    return open_cache


def test_the_cache_prepares_each_study_once(prepared: Callable[..., list[str]]) -> None:
    assert prepared() == ["A 1", "A 2", "B 1", "C 1"]
    assert prepared() == []


def test_other_settings_have_a_separate_cache(prepared: Callable[..., list[str]]) -> None:
    prepared()
    assert len(prepared(SETTINGS | {"normalisation": "percentile"})) == 4
    assert prepared() == []


def test_changed_files_are_prepared_again_together_with_dependent_visits(
    prepared: Callable[..., list[str]], tmp_path: Path
) -> None:
    prepared()
    write_study(tmp_path / "B-1", seed=99)
    assert prepared() == ["B 1"]
    write_study(tmp_path / "A-1", seed=98)
    assert prepared() == ["A 1", "A 2"]  # the second visit lies on the grid of the first


def test_files_that_were_only_touched_are_not_prepared_again(
    prepared: Callable[..., list[str]], tmp_path: Path
) -> None:
    prepared()
    os.utime(tmp_path / "B-1/x_t1.nii.gz", (1, 1))
    assert prepared() == []


def test_a_change_of_the_data_beside_a_header_is_noticed(cohort: Cohort, tmp_path: Path) -> None:
    study = next(study for study in cohort.studies if study.name == "B 1")
    images = {name: path.with_name(f"{name}.nhdr") for name, path in study.images.items()}
    for name, path in study.images.items():
        sitk.WriteImage(sitk.ReadImage(str(path)), str(images[name]))
    detached = replace(cohort, studies=(replace(study, images=images),))
    cache = StudyCache(StudyPreparer(detached, PreparationConfig.from_dict(SETTINGS)), tmp_path / "cache")
    assert (cache[0] is not None, cache.is_current(0)) == (True, True)
    with open(next(iter(images.values())).with_suffix(".raw"), "r+b") as file:
        file.write(b"changed")
    assert not cache.is_current(0)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other", "gone"])
def test_damaged_cache_files_are_built_again(prepared: Callable[..., list[str]], tmp_path: Path, damage: str) -> None:
    prepared()
    (path,) = (tmp_path / "cache").rglob("B_1-*.pt")
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif damage == "other":
        torch.save({"images": torch.zeros(2)}, path)
    assert prepared() == ["B 1"]


def test_an_interrupted_build_leaves_no_file(cohort: Cohort, tmp_path: Path) -> None:
    def cancel(fraction: float, message: str) -> None:
        if fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pairs_of(cohort, "cache", tmp_path, progress=cancel)
    files = list((tmp_path / "cache").rglob("*.pt"))
    assert sorted(file.name[:3] for file in files) == ["A_1", "A_2"]
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.name.startswith(".")]


def test_cached_tensors_are_mapped_from_the_file(cohort: Cohort, tmp_path: Path) -> None:
    sample = open_studies(cohort, "cache", CONFIG, tmp_path / "cache")[0]
    mapped = Path("/proc/self/maps")
    if not mapped.exists():
        pytest.skip("needs a system that lists the memory maps of a process")
    assert str(tmp_path / "cache") in mapped.read_text()
    assert sample.images.shape == (4, 16, 16, 16)


def test_a_cache_that_cannot_be_written_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot use .* as cache"):
        open_studies(cohort, "cache", CONFIG, tmp_path / "file")


def test_a_cache_has_no_folder_before_a_study_is_stored(cohort: Cohort, tmp_path: Path) -> None:
    cache = StudyCache(StudyPreparer(cohort, CONFIG), tmp_path / "cache")
    assert not cache.is_current(0)
    assert not (tmp_path / "cache").exists()
    assert cache[0].name == "A 1"
    assert cache.is_current(0)


def cached(tmp_path: Path, images: dict[str, Path], subject: str = "A", visit: str = "1") -> StudySample:
    """The study of these files, from the cache or prepared."""
    cohort = Cohort("cohort", (StudyRecord(subject, visit, images),))
    return StudyCache(StudyPreparer(cohort, CONFIG), tmp_path / "cache")[0]


def test_a_file_that_moves_to_another_column_is_prepared_again(cohort: Cohort, tmp_path: Path) -> None:
    file = tmp_path / "A-1/x_t1ce.nii.gz"
    assert cached(tmp_path, {"t1": file}).present.tolist() == [True, False, False, False]
    assert cached(tmp_path, {"t1ce": file}).present.tolist() == [False, True, False, False]


def test_other_channels_of_a_file_are_prepared_again(cohort: Cohort, tmp_path: Path) -> None:
    volumes = [sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"A-1/x_{name}.nii.gz")) for name in ("t1", "t2")]
    sitk.WriteImage(image_of(np.stack(volumes)), tmp_path / "both.nii.gz")
    first, second = (tmp_path / f"both.nii.gz#{channel}" for channel in (0, 1))
    wrong = cached(tmp_path, {"t1": second, "t2": first}).images
    right = cached(tmp_path, {"t1": first, "t2": second}).images
    assert torch.equal(right[[0, 2]], wrong[[2, 0]])


def test_studies_whose_names_are_divided_differently_have_files_of_their_own(cohort: Cohort, tmp_path: Path) -> None:
    studies = (StudyRecord("A B", "1", {}), StudyRecord("A", "B 1", {}))
    cache = StudyCache(StudyPreparer(Cohort("cohort", studies), CONFIG), tmp_path / "cache")
    assert cache.path(0) != cache.path(1)


def test_what_a_study_was_warned_of_is_told_whenever_its_cache_is_used(cohort: Cohort, tmp_path: Path) -> None:
    undeclared = replace(cohort, studies=tuple(replace(study, convention="") for study in cohort.studies[:3]))
    for _ in range(2):
        with pytest.warns(UserWarning, match="label files without a declared convention are read as") as told:
            open_studies(undeclared, "cache", CONFIG, tmp_path / "cache")
        assert len(told) == 1
