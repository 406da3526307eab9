"""Three ways to the same pairs of studies, from synthetic files: memory, cache on disk, on the fly."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from JointRegSegLib.cohort import sources as study_sources
from JointRegSegLib.cohort.cache import StudyCache
from JointRegSegLib.cohort.manifest import Cohort, StudyRecord, read_manifest
from JointRegSegLib.cohort.pairing import Pairing, PairPlan, StudySampling
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.cohort.sample import OUTSIDE, StudySample
from JointRegSegLib.cohort.sources import PATHS, StudyPairs, all_counts, open_pairs, open_studies
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.reading import read_image

SIZE = 20
SPACING = 4.0
SETTINGS = {"spacing_mm": 4.0, "extent_mm": [64, 64, 64], "align": "none"}
CONFIG = PreparationConfig.from_dict(SETTINGS)


def image(array: np.ndarray, shift: float = 0.0) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.SetSpacing((SPACING,) * 3)
    result.SetOrigin((-40.0 + shift, -40.0, -40.0))
    return result


def write_study(folder: Path, seed: int, tumour: bool = True, absent: tuple[str, ...] = (), shift: float = 0.0) -> None:
    """A skull-stripped ball with texture; the tumour has all three classes, numbered as until BraTS 2021."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    z = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 3, indexing="ij"))
    radius = np.sqrt((z**2).sum(0))
    for modality in MODALITIES:
        if modality not in absent:
            values = np.where(radius < 7.2, 100 + 20 * random.standard_normal(radius.shape) + z[0], 0)
            sitk.WriteImage(image(values.astype(np.float32), shift), str(folder / f"x_{modality}.nii.gz"))
    labels = np.zeros(radius.shape, np.uint8)
    if tumour:
        away = np.sqrt(((z - np.array([0, 2, 2])[:, None, None, None]) ** 2).sum(0))
        for value, reach in ((2, 4.0), (4, 2.6), (1, 1.6)):
            labels[away < reach] = value
    sitk.WriteImage(image(labels, shift), str(folder / "x_seg.nii.gz"))


def manifest(folder: Path, studies: list[tuple[str, str]], absent: tuple[str, ...] = ()) -> Cohort:
    lines = ["subject,visit,t1,t1ce,t2,flair,label"]
    for subject, visit in studies:
        place = f"{subject}-{visit}"
        files = ["" if m in absent else f"{place}/x_{m}.nii.gz" for m in MODALITIES]
        lines.append(",".join([subject, visit, *files, f"{place}/x_seg.nii.gz"]))
    (folder / "cohort.csv").write_text("\n".join(lines))
    return read_manifest(folder / "cohort.csv")


STUDIES = [("A", "1"), ("A", "2"), ("B", "1"), ("C", "1")]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two visits of A, one of B, and one of C, who has no tumour."""
    for seed, (subject, visit) in enumerate(STUDIES):
        write_study(tmp_path / f"{subject}-{visit}", seed, tumour=subject != "C")
    return manifest(tmp_path, STUDIES)


def same(a: StudySample, b: StudySample) -> bool:
    return a.name == b.name and all(
        torch.equal(x, y) for x, y in ((a.images, b.images), (a.labels, b.labels), (a.mask, b.mask))
    )


def open_path(cohort: Cohort, path: str, tmp_path: Path, **options: object) -> StudyPairs:
    return open_pairs(cohort, path, SETTINGS, cache=tmp_path / "cache", **options)


def test_a_sample_is_normalised_and_labelled_on_the_common_grid(cohort: Cohort) -> None:
    sample = StudyPreparer(cohort, CONFIG)(0)
    assert CONFIG.shape == sample.shape == (16, 16, 16)
    assert sample.images.dtype == torch.float32
    assert sample.labels.unique().tolist() == [0, 1, 2, 3]
    inside = sample.images[:, sample.mask]
    assert torch.allclose(inside.mean(1), torch.zeros(4), atol=1e-3)
    assert bool((sample.images[:, ~sample.mask] == OUTSIDE).all())
    brain = sample.mask.nonzero().float().mean(0)
    assert torch.allclose(brain, torch.full((3,), 7.5), atol=0.6)  # the grid is centred on the brain


def test_all_paths_give_the_same_pairs(cohort: Cohort, tmp_path: Path) -> None:
    memory, cache, fly = (open_path(cohort, path, tmp_path, pairing="subjects", seed=4) for path in PATHS)
    for epoch in (0, 1):
        for source in (memory, cache, fly):
            source.set_epoch(epoch)
        assert len(memory) == len(cache) == len(fly) == 4
        for first, second, third in zip(memory, cache, fly, strict=True):
            assert all(same(a, b) and same(a, c) for a, b, c in zip(first, second, third, strict=True))


def test_the_pairs_change_with_the_epoch_and_come_back_with_it(cohort: Cohort, tmp_path: Path) -> None:
    source = open_path(cohort, "memory", tmp_path, pairing="subjects")
    first = [tuple(s.name for s in pair) for pair in source]
    orders = set()
    for epoch in range(1, 6):
        source.set_epoch(epoch)
        orders.add(tuple(source.pairs))
    assert len(orders) > 1
    source.set_epoch(0)
    assert [tuple(s.name for s in pair) for pair in source] == first


def test_workers_of_a_data_loader_read_the_same(cohort: Cohort, tmp_path: Path) -> None:
    for path in ("cache", "on_the_fly"):
        source = open_path(cohort, path, tmp_path, pairing="visits")
        loader = torch.utils.data.DataLoader(source, batch_size=None, num_workers=1)
        (pair,) = list(loader)
        assert all(same(a, b) for a, b in zip(pair, source[0], strict=True))


def test_sources_travel_to_other_processes(cohort: Cohort, tmp_path: Path) -> None:
    source = open_path(cohort, "cache", tmp_path)
    assert same(pickle.loads(pickle.dumps(source))[0][0], source[0][0])


# --- cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(cohort: Cohort, tmp_path: Path) -> Callable[..., list[str]]:
    """Open the cache anew; the names of the studies that had to be prepared."""

    def prepared(settings: dict = SETTINGS) -> list[str]:
        names: list[str] = []
        preparer = StudyPreparer(cohort, PreparationConfig.from_dict(settings))
        prepare = preparer.__call__

        class Counting(StudyPreparer):
            def __call__(self, index: int) -> StudySample:
                names.append(self.cohort.studies[index].name)
                return prepare(index)

        cache = StudyCache(Counting(cohort, preparer.config), tmp_path / "cache")
        for index in range(len(cache)):
            assert same(cache[index], prepare(index))
            assert cache.is_current(index)
        return names

    return prepared


def test_the_cache_prepares_each_study_once(counted: Callable[..., list[str]]) -> None:
    assert counted() == ["A 1", "A 2", "B 1", "C 1"]
    assert counted() == []


def test_other_settings_have_a_cache_of_their_own(counted: Callable[..., list[str]]) -> None:
    counted()
    assert len(counted(SETTINGS | {"normalisation": "percentile"})) == 4
    assert counted() == []


def test_changed_files_are_prepared_again_with_the_visits_that_depend_on_them(
    counted: Callable[..., list[str]], tmp_path: Path
) -> None:
    counted()
    write_study(tmp_path / "B-1", seed=99)
    assert counted() == ["B 1"]
    write_study(tmp_path / "A-1", seed=98)
    assert counted() == ["A 1", "A 2"]  # the second visit lies on the grid of the first


def test_files_that_were_only_touched_are_not_prepared_again(counted: Callable[..., list[str]], tmp_path: Path) -> None:
    counted()
    os.utime(tmp_path / "B-1/x_t1.nii.gz", (1, 1))
    assert counted() == []


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other", "gone"])
def test_damaged_cache_files_are_built_again(counted: Callable[..., list[str]], tmp_path: Path, damage: str) -> None:
    counted()
    (path,) = (tmp_path / "cache").rglob("B_1-*.pt")
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif damage == "other":
        torch.save({"images": torch.zeros(2)}, path)
    assert counted() == ["B 1"]


def test_an_interrupted_build_leaves_no_file(cohort: Cohort, tmp_path: Path) -> None:
    def cancel(fraction: float, message: str) -> None:
        if fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_path(cohort, "cache", tmp_path, progress=cancel)
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


# --- visits in one frame -----------------------------------------------------------------------------------------


def test_visits_share_the_grid_of_the_first_one(tmp_path: Path) -> None:
    """Without alignment, a visit that lies 8 mm further to the left in space stays so on the grid."""
    write_study(tmp_path / "A-1", 0)
    write_study(tmp_path / "A-2", 0, shift=8.0)
    pairs = open_pairs(
        manifest(tmp_path, STUDIES[:2]), "memory", SETTINGS, {"kind": "visits", "both_directions": False}
    )
    fixed, moving = pairs[0]
    assert (fixed.name, moving.name) == ("A 1", "A 2")
    apart = moving.mask.nonzero().float().mean(0) - fixed.mask.nonzero().float().mean(0)
    assert torch.allclose(apart, torch.tensor([0.0, 0.0, -2.0]), atol=0.3)  # W runs to the right; LPS x to the left


def test_alignment_brings_the_visits_together(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0)
    write_study(tmp_path / "A-2", 0, shift=8.0)
    cohort = manifest(tmp_path, STUDIES[:2])
    fixed, moving = (
        StudyPreparer(cohort, PreparationConfig.from_dict(SETTINGS | {"align": "rigid"}))(i) for i in (0, 1)
    )
    assert float((fixed.mask == moving.mask).float().mean()) > 0.97
    assert float((fixed.labels == moving.labels).float().mean()) > 0.98


# --- pairing -----------------------------------------------------------------------------------------------------

SUBJECTS = ["A", "A", "A", "B", "B", "C", "D", "E"]


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


def test_subjects_are_never_paired_with_themselves_and_every_study_is_fixed_once() -> None:
    plan = PairPlan(SUBJECTS, Pairing("subjects"), seed=3)
    met = set()
    for epoch in range(30):
        pairs = plan.epoch(epoch)
        assert sorted(a for a, _ in pairs) == list(range(len(SUBJECTS)))
        assert all(SUBJECTS[a] != SUBJECTS[b] for a, b in pairs)
        met |= set(pairs)
    assert len(met) > 35  # of 48 possible ones


def test_seeds_and_epochs_give_other_pairs_and_the_same_ones_again() -> None:
    plan = PairPlan(SUBJECTS, Pairing("subjects"), seed=3)
    assert plan.epoch(2) == PairPlan(SUBJECTS, Pairing("subjects"), seed=3).epoch(2)
    assert plan.epoch(2) != plan.epoch(3)
    assert plan.epoch(2) != PairPlan(SUBJECTS, Pairing("subjects"), seed=4).epoch(2)


def test_pairing_chooses_visits_where_there_are_any() -> None:
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


def test_sampling_visits_leaves_out_subjects_with_a_single_one(cohort: Cohort, tmp_path: Path) -> None:
    sampling = {"proportions": {"anywhere": 1}, "pairs": 10}
    source = open_path(cohort, "on_the_fly", tmp_path, pairing="visits", sampling=sampling)
    assert {name for pair in source.pairs for name in pair} == {0, 1}
    assert len(source) == 10


def test_class_counts_agree_between_the_paths(cohort: Cohort, tmp_path: Path) -> None:
    memory, cache, fly = (all_counts(open_studies(cohort, path, CONFIG, tmp_path / "cache")) for path in PATHS)
    assert torch.equal(memory, cache)
    assert memory[3, 1:].sum() == 0
    assert torch.allclose(memory[:, 1:], fly[:, 1:], rtol=0.05)  # counted on the file's own grid, of the same spacing


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["t1"].write_bytes(b"no image"), ["x_t1.nii.gz' cannot be read as an image"]),
        (lambda p: p["t2"].write_bytes(p["t2"].read_bytes()[:200]), ["x_t2.nii.gz' is truncated or damaged"]),
        (lambda p: write(p["t1"], np.zeros((SIZE,) * 3)), ["the t1 image of the B 1 study is constant", "B-1'"]),
        (lambda p: write(p["label"], np.full((SIZE,) * 3, 9)), ["x_seg.nii.gz' has the value 9"]),
        (lambda p: write(p["t1"], np.random.rand(4, SIZE, SIZE, SIZE)), ["x_t1.nii.gz' is no scalar 3-D volume"]),
        (lambda p: write(p["t1"], np.random.rand(4, 4, 4)), ["the t1 image of the B 1 study is too small"]),
        (lambda p: write(p["flair"], np.random.rand(SIZE, SIZE, SIZE), 900.0), ["lies elsewhere in space"]),
    ],
    ids=["garbage", "truncated", "constant", "labels", "4-D", "tiny", "elsewhere"],
)
def test_unusable_files_are_named(cohort: Cohort, tmp_path: Path, change: Callable, said: list[str]) -> None:
    change(cohort.studies[2].files)
    for path in PATHS:
        with pytest.raises(ValueError, match=said[0]) as error:
            list(open_path(cohort, path, tmp_path, pairing="subjects"))
        assert all(words in str(error.value) for words in said)
        assert "\n" not in str(error.value)


def write(path: Path, values: np.ndarray, shift: float = 0.0) -> None:
    volume = sitk.GetImageFromArray(values.astype(np.float32), isVector=False)
    volume.SetSpacing((SPACING,) * 3 + (1.0,) * (volume.GetDimension() - 3))
    volume.SetOrigin((-40.0 + shift, -40.0, -40.0) + (0.0,) * (volume.GetDimension() - 3))
    sitk.WriteImage(volume, str(path))


def test_all_unreadable_files_are_named_at_once(cohort: Cohort) -> None:
    for study in cohort.studies[:3]:
        study.images["t1"].write_bytes(b"no image")
    cohort.studies[3].images["t2"].unlink()
    with pytest.raises(ValueError, match=r"A-1.*A-2.*B-1.*C-1.*does not exist"):
        StudyPreparer(cohort, CONFIG)


def test_truncated_volumes_are_noticed_packed_and_unpacked(tmp_path: Path) -> None:
    """SimpleITK reads what is there and fills up with zeros."""
    volume = image(np.random.default_rng(0).random((SIZE,) * 3).astype(np.float32))
    for name in ("a.nii", "a.nii.gz"):
        path = tmp_path / name
        sitk.WriteImage(volume, str(path))
        read_image(path)
        content = path.read_bytes()
        for kept in (len(content) // 2, len(content) - 9):
            path.write_bytes(content[:kept])
            with pytest.raises(ValueError, match=rf"{name}' is truncated"):
                read_image(path)
    packed = tmp_path / "parts.nii.gz"  # compressed in parts, as parallel programs do
    sitk.WriteImage(volume, str(tmp_path / "b.nii"))
    whole = (tmp_path / "b.nii").read_bytes()
    packed.write_bytes(gzip.compress(whole[:5000]) + gzip.compress(whole[5000:]))
    assert read_image(packed).GetSize() == (SIZE,) * 3


def test_a_missing_modality_is_absent_from_the_sample(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0, absent=("t2", "flair"))
    sample = StudyPreparer(manifest(tmp_path, STUDIES[:1], absent=("t2", "flair")), CONFIG)(0)
    assert sample.present.tolist() == [True, True, False, False]
    assert bool((sample.images[2:] == OUTSIDE).all())


def test_voxels_that_are_not_finite_are_told_and_do_no_harm(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0)
    path = tmp_path / "A-1/x_t1.nrrd"  # the NIfTI reader hides NaN
    volume = sitk.ReadImage(str(tmp_path / "A-1/x_t1.nii.gz"))
    volume[10, 10, 10] = float("nan")
    sitk.WriteImage(volume, str(path))
    cohort = Cohort("cohort", (StudyRecord("A", "1", {"t1": path}),))
    with pytest.warns(UserWarning, match="the t1 image of the A 1 study has 1 voxels that are not finite"):
        sample = StudyPreparer(cohort, CONFIG)(0)
    assert bool(sample.images.isfinite().all())
    assert sample.labels is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "network"}, "data path 'network' is unknown; use memory, cache, on_the_fly"),
        ({"path": "cache"}, "needs a folder for the cache"),
        ({"preparation": {"spacing": 2}}, "preprocessing: unknown keys spacing; use spacing_mm, "),
        ({"preparation": {"extent_mm": [10]}}, "extent_mm needs three lengths"),
        ({"preparation": {"align": "elastic"}}, "align is 'elastic'; use affine, rigid, none"),
        ({"pairing": "twins"}, "pairing is 'twins'; use auto, visits, subjects"),
        ({"pairing": {"sort": 1}}, "pairing: unknown setting 'sort'"),
        ({"sampling": {"proportions": {"gland": 1}}}, "unknown class 'gland'"),
        ({"sampling": {"proportions": {"edema": -1}}}, "proportions must be 0 or more"),
        ({"sampling": {"pairs": 1.5}}, "pairs of the sampling must be a whole number"),
        ({"sampling": "much"}, "sampling is an object with proportions, pairs"),
    ],
)
def test_unusable_settings_are_refused(cohort: Cohort, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        open_pairs(cohort, **{"path": "on_the_fly", "preparation": SETTINGS} | options)


def test_cohorts_without_any_pair_are_refused(cohort: Cohort) -> None:
    alone = Cohort("cohort.csv", cohort.studies[2:3])
    with pytest.raises(ValueError, match=r"'cohort\.csv' has a single subject"):
        open_pairs(alone, "on_the_fly", SETTINGS)
    with pytest.raises(ValueError, match=r"no subject of 'cohort\.csv' has two visits"):
        open_pairs(Cohort("cohort.csv", cohort.studies[2:]), "on_the_fly", SETTINGS, "visits")


def test_a_cohort_that_does_not_fit_into_memory_is_refused(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_sources, "_free_memory", lambda: 100_000)
    with pytest.raises(ValueError, match=r"the 4 studies of .* need .* GB in memory .* use the data path 'cache'"):
        open_pairs(cohort, "memory", SETTINGS)
    monkeypatch.undo()
    assert study_sources._free_memory() is None or study_sources._free_memory() > 0


def test_nothing_is_warned_about_sound_studies(cohort: Cohort, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(open_path(cohort, "memory", tmp_path))
