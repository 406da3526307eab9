"""Studies from files to samples: one grid per subject, visits aligned, unusable files named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_cohorts import CONFIG, SETTINGS, SIZE, STUDIES, image_of, manifest_of, pairs_of, small_cohort, write_study

from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer, read_study
from JointRegSegLib.cohort.sample import OUTSIDE
from JointRegSegLib.cohort.sources import PATHS, open_pairs
from JointRegSegLib.cohort.studies import Cohort, StudyRecord


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return small_cohort(tmp_path)


def test_a_sample_is_normalized_and_labelled_on_a_grid_centred_on_the_brain(cohort: Cohort) -> None:
    sample = StudyPreparer(cohort, CONFIG)(0)
    assert CONFIG.shape == sample.shape == (16, 16, 16)
    assert sample.images.dtype == torch.float32
    assert sample.labels.unique().tolist() == [0, 1, 2, 3]
    inside = sample.images[:, sample.mask]
    assert torch.allclose(inside.mean(1), torch.zeros(4), atol=1e-3)
    assert bool((sample.images[:, ~sample.mask] == OUTSIDE).all())
    brain = sample.mask.nonzero().float().mean(0)
    assert torch.allclose(brain, torch.full((3,), 7.5), atol=0.6)


def test_visits_share_the_grid_of_the_first_one(tmp_path: Path) -> None:
    """Without alignment, a visit that lies 8 mm further to the left in space also does on the grid."""
    write_study(tmp_path / "A-1", 0)
    write_study(tmp_path / "A-2", 0, shift_mm=8.0)
    pairs = open_pairs(
        manifest_of(tmp_path, STUDIES[:2]), "memory", SETTINGS, {"kind": "visits", "both_directions": False}
    )
    fixed, moving = pairs[0]
    assert (fixed.name, moving.name) == ("A 1", "A 2")
    apart = moving.mask.nonzero().float().mean(0) - fixed.mask.nonzero().float().mean(0)
    assert torch.allclose(apart, torch.tensor([0.0, 0.0, -2.0]), atol=0.3)  # W runs to the right; LPS x to the left


def test_alignment_brings_the_visits_together(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0)
    write_study(tmp_path / "A-2", 0, shift_mm=8.0)
    cohort = manifest_of(tmp_path, STUDIES[:2])
    fixed, moving = (
        StudyPreparer(cohort, PreparationConfig.from_dict(SETTINGS | {"align": "rigid"}))(i) for i in (0, 1)
    )
    assert float((fixed.mask == moving.mask).float().mean()) > 0.97
    assert float((fixed.labels == moving.labels).float().mean()) > 0.98


def test_a_missing_modality_is_absent_from_the_sample(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0, absent=("t2", "flair"))
    sample = StudyPreparer(manifest_of(tmp_path, STUDIES[:1], absent=("t2", "flair")), CONFIG)(0)
    assert sample.present.tolist() == [True, True, False, False]
    assert bool((sample.images[2:] == OUTSIDE).all())


def test_voxels_that_are_not_finite_are_replaced_with_a_warning(tmp_path: Path) -> None:
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


def test_a_mask_with_a_background_of_nan_is_the_brain_of_the_sample(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0)
    plain, with_nan = tmp_path / "mask.nrrd", tmp_path / "nan.nrrd"
    image = tmp_path / "A-1/x_t1.nii.gz"
    inside = sitk.Cast(sitk.ReadImage(str(image)) > 0, sitk.sitkFloat32)
    sitk.WriteImage(inside, str(plain))
    sitk.WriteImage(inside / inside, str(with_nan))
    with pytest.warns(UserWarning, match="the brain mask of the A 1 study has"):
        sample = StudyPreparer(Cohort("cohort", (StudyRecord("A", "1", {"t1": image}, mask=with_nan),)), CONFIG)(0)
    expected = StudyPreparer(Cohort("cohort", (StudyRecord("A", "1", {"t1": image}, mask=plain),)), CONFIG)(0)
    assert torch.equal(sample.mask, expected.mask)


def test_tissues_of_the_normal_brain_are_not_taken_for_a_tumor(tmp_path: Path) -> None:
    write_study(tmp_path / "A-1", 0)
    image, label = tmp_path / "A-1/x_t1.nii.gz", tmp_path / "A-1/x_seg.nii.gz"
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    radius = np.sqrt(sum(np.square(np.meshgrid(axis, axis, axis))))
    tissues = np.select([radius < 2, radius < 6, radius < 7.2], [3, 2, 1], 0).astype(np.uint8)
    sitk.WriteImage(image_of(tissues), str(label))
    record = StudyRecord("A", "1", {"t1": image}, label)
    with (
        pytest.warns(UserWarning, match="label files without a declared convention are read as msd"),
        pytest.raises(ValueError, match=r"x_seg.nii.gz', read as msd .* tumour of \d+ ml in a brain of \d+ ml: leave"),
    ):
        read_study(record)
    read_study(replace(record, convention="msd"))


def write(path: Path, values: np.ndarray, shift_mm: float = 0.0) -> None:
    sitk.WriteImage(image_of(values.astype(np.float32), shift_mm), str(path))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["t1"].write_bytes(b"no image"), ["x_t1.nii.gz' is not an image: it is not a gzip file"]),
        (lambda p: p["t2"].write_bytes(p["t2"].read_bytes()[:200]), ["x_t2.nii.gz' is truncated or damaged"]),
        (lambda p: write(p["t1"], np.zeros((SIZE,) * 3)), ["the t1 image of the B 1 study is constant", "B-1'"]),
        (lambda p: write(p["label"], np.full((SIZE,) * 3, 9)), ["x_seg.nii.gz' has the value 9"]),
        (lambda p: write(p["t1"], noise(4, SIZE, SIZE, SIZE)), ["x_t1.nii.gz' is not a scalar 3-D volume"]),
        (lambda p: write(p["t1"], noise(4, 4, 4)), ["the t1 image of the B 1 study is too small"]),
        (lambda p: write(p["flair"], noise(SIZE, SIZE, SIZE), 900.0), ["lies elsewhere in space"]),
    ],
    ids=["garbage", "truncated", "constant", "labels", "4-D", "tiny", "elsewhere"],
)
def test_unusable_files_are_named(cohort: Cohort, tmp_path: Path, change: Callable, words: list[str]) -> None:
    change(cohort.studies[2].files)
    for path in PATHS:
        with pytest.raises(ValueError, match=words[0]) as error:
            list(pairs_of(cohort, path, tmp_path, pairing="subjects"))
        assert all(part in str(error.value) for part in words)
        assert "\n" not in str(error.value)


def test_all_unreadable_files_are_named_at_once(cohort: Cohort) -> None:
    for study in cohort.studies[:3]:
        study.images["t1"].write_bytes(b"no image")
    cohort.studies[3].images["t2"].unlink()
    with pytest.raises(ValueError, match=r"A-1.*A-2.*B-1.*C-1.*does not exist"):
        StudyPreparer(cohort, CONFIG)


def test_sound_studies_cause_no_warning(cohort: Cohort, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(pairs_of(cohort, "memory", tmp_path))
