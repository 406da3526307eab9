"""Refusal of studies that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, edited, with_value

from JointRegSegLib.images import study as study_images
from JointRegSegLib.images.study import BRAIN_MASK, StudyImages, checked_study


@pytest.fixture(scope="module")
def study() -> HeadStudy:
    return HeadStudy.of("axial")


def refused(study: StudyImages) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        checked_study(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_images_are_refused_in_one_sentence_that_names_them(study: HeadStudy) -> None:
    good = study.image("t1")
    first = StudyImages({"t1": good}, name="first")
    assert "no image" in refused(replace(first, images={}))
    assert "'pet'" in refused(replace(first, images={"t1": good, "pet": good}))
    constant = edited(good, lambda a: np.full_like(a, 7))
    assert refused(replace(first, images={"t1": constant})).startswith("the t1 image of the first study is constant (7")
    holes = edited(good, lambda a: np.where(np.arange(a.size).reshape(a.shape) % 100 > 0, np.nan, a))
    assert "not finite in 99 % of its voxels" in refused(replace(first, images={"t1": holes}))
    assert "too small (5 x" in refused(replace(first, images={"t1": good[:5]}))
    vector = sitk.Compose(good, good)
    assert "3-D with 2 values per voxel" in refused(replace(first, images={"t1": vector}))
    assert "2-D" in refused(replace(first, images={"t1": good[:, :, 3]}))
    far = sitk.Image(good)
    far.SetOrigin((900.0, 0.0, 0.0))
    message = refused(replace(first, images={"t1": good, "t2": far}))
    assert "the t2 image of the first study lies elsewhere in space than the t1 image" in message
    empty = sitk.Image(good.GetSize(), sitk.sitkUInt8)
    empty.CopyInformation(good)
    assert "brain mask of the first study is empty" in refused(replace(first, brain_mask=empty))
    empty.SetOrigin((900.0, 0.0, 0.0))
    assert "brain mask of the first study lies elsewhere" in refused(replace(first, brain_mask=empty))


def test_masks_and_labels_may_be_smaller_than_an_image(study: HeadStudy) -> None:
    voxels = np.argwhere(study.visit.labels)
    k, j, i = (int(n) for n in voxels[len(voxels) // 2])
    lesion = study.labels[i : i + 1, j : j + 2, k : k + 1]
    for field in ("tumor_labels", "left_out"):
        checked, notes = checked_study(replace(study.images("first"), **{field: lesion}))
        assert getattr(checked, field).GetSize() == (1, 2, 1)
        assert notes == []


def test_skewed_axes_are_refused(study: HeadStudy) -> None:
    skewed = sitk.Image(study.image("t1"))
    direction = np.array(skewed.GetDirection()).reshape(3, 3) @ np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]])
    skewed.SetDirection(direction.ravel().tolist())
    assert "not perpendicular" in refused(StudyImages({"t1": skewed}, name="first"))


def test_huge_volumes_are_refused_with_the_memory_they_need(study: HeadStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_images, "LARGEST_VOXELS", 1000)
    message = refused(StudyImages({"t1": study.image("t1")}, name="first"))
    assert "voxels, which needs" in message
    assert "crop or resample" in message


def test_non_finite_voxels_become_background_with_a_warning(study: HeadStudy) -> None:
    holes = edited(study.image("t1"), lambda a: np.where(study.visit.brain, a, np.nan))
    holes = edited(holes, lambda a: with_value(a, tuple(n // 2 for n in a.shape), np.inf))
    checked, notes = checked_study(StudyImages({"t1": holes}, name="first"))
    array = sitk.GetArrayFromImage(checked.images["t1"])
    assert np.isfinite(array).all()
    assert array[~study.visit.brain].max() == array.min()
    assert len(notes) == 1
    assert "the t1 image of the first study has" in notes[0]


def test_a_soft_brain_mask_ends_at_half_of_its_maximum_which_is_told(study: HeadStudy) -> None:
    """Smoothing leaves small values far around the brain."""
    brain = sitk.Cast(study.brain, sitk.sitkFloat32)
    soft = edited(sitk.SmoothingRecursiveGaussian(brain, 8.0), lambda a: a + 1e-4)
    given = StudyImages({"t1": study.image("t1")}, soft, name="first", sources={BRAIN_MASK: "soft.nii.gz"})
    checked, (note,) = checked_study(given)
    mask = sitk.GetArrayFromImage(checked.brain_mask) > 0
    assert mask.sum() == pytest.approx(study.visit.brain.sum(), rel=0.1)
    assert note.startswith("the brain mask 'soft.nii.gz' of the first study has values between 0 and 1: voxels above")


def test_a_mask_that_is_no_probability_holds_all_that_is_not_zero(study: HeadStudy) -> None:
    for values in (
        study.visit.brain * np.float32(0.998),  # stored with a scale
        study.visit.brain * (np.arange(study.visit.brain.size).reshape(study.visit.brain.shape) % 3 + 1),  # labels
        study.visit.images["t1"] * np.float32(1.01),  # a stripped image
    ):
        given = study.grid.to_sitk(values)
        checked, notes = checked_study(StudyImages({"t1": study.image("t1")}, given, name="first"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(checked.brain_mask) > 0, study.visit.brain)
        assert notes == []
