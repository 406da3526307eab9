"""Images of one visit between which the patient moved: brought into one position, and left alone where they match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, by_sitk, points_in_head

from JointRegSegLib.images.study import BRAIN_MASK, TUMOR, StudyImages
from JointRegSegLib.inference.coregistration import (
    coregister,
    coregistration_warnings,
    mask_doubts,
    moved_with_its_image,
)
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings

SPACING_MM = (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def head() -> HeadStudy:
    return HeadStudy.of("axial", spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def motion() -> sitk.Euler3DTransform:
    """Map of points of an image to points of the patient as they were in the first image: 6 mm and 5.6 degrees."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(0.03, 0.02, 0.09)
    transform.SetTranslation((5, 3, -2))
    return transform


@pytest.fixture(scope="module")
def moved(head: HeadStudy, motion: sitk.Euler3DTransform) -> StudyImages:
    """The FLAIR image in another position than T1 and T2."""
    flair = sitk.Resample(head.image("flair"), head.image("flair"), motion, sitk.sitkLinear, 0.0)
    study = head.images("first", ("t1", "t2", "flair"))
    return replace(study, images={**study.images, "flair": flair})


def brain_of(head: HeadStudy) -> sitk.Image:
    return head.grid.to_sitk(head.visit.brain.astype(np.uint8))


def test_an_image_in_another_position_is_aligned_and_the_others_stay(
    head: HeadStudy, moved: StudyImages, motion: sitk.Euler3DTransform
) -> None:
    before = sitk.GetArrayFromImage(moved.images["flair"]), moved.images["flair"].GetOrigin()
    aligned, found = coregister(moved, brain_of(head))
    assert [m for m, entry in found.items() if entry.corrected] == ["flair"]
    points = points_in_head()
    error = by_sitk(found["flair"].transform, points) - by_sitk(motion.GetInverse(), points)
    assert np.linalg.norm(error, axis=1).mean() < 1.0  # mm; 8 mm before
    assert found["flair"].rotation_deg == pytest.approx(5.6, abs=0.7)
    assert found["flair"].information_after > found["flair"].information_before
    assert aligned.images["t2"] is moved.images["t2"]
    # The header alone moves: every voxel keeps its value, and the given image its place.
    assert np.array_equal(sitk.GetArrayFromImage(aligned.images["flair"]), before[0])
    assert moved.images["flair"].GetOrigin() == before[1]
    back = sitk.GetArrayFromImage(sitk.Resample(aligned.images["flair"], head.image("flair")))
    inside = head.visit.brain
    wrong = [np.abs(values - head.visit.images["flair"])[inside].mean() for values in (back, before[0])]
    assert wrong[0] < 0.5 * wrong[1]  # the rest is the interpolation of the moved image, twice
    (sentence,) = coregistration_warnings("first", "t1", found)
    assert "FLAIR image of the first study lay" in sentence


def test_images_in_one_position_are_left_alone(head: HeadStudy) -> None:
    study = head.images("first", ("t1", "t1ce", "t2", "flair"))
    aligned, found = coregister(study, brain_of(head))
    assert aligned.images == study.images
    assert set(found) == {"t1ce", "t2", "flair"}
    assert not any(entry.corrected for entry in found.values())
    assert coregistration_warnings("first", "t1", found) == []


def test_a_run_aligns_the_images_of_a_visit_unless_told_not_to(head: HeadStudy, moved: StudyImages) -> None:
    whole = replace(moved, brain_mask=brain_of(head))
    settings = InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=0)
    found = process_pair(whole, whole, None, settings)
    assert found.summary["coregistration"]["fixed"]["flair"]["corrected"]
    assert sum("was aligned with it" in warning for warning in found.warnings) == 2
    pixels = sitk.Resample(
        moved.images["flair"],
        moved.images["t1"],
        sitk.CompositeTransform([found.positions["moving"]["flair"], found.moving_to_fixed]),
    )
    np.testing.assert_allclose(sitk.GetArrayFromImage(found.warped["flair"]), sitk.GetArrayFromImage(pixels), atol=0.1)
    trusted = process_pair(whole, whole, None, replace(settings, coregister=False))
    assert trusted.summary["coregistration"] == {"fixed": {}, "moving": {}}
    assert trusted.warnings == ()
    assert trusted.positions == {"fixed": {}, "moving": {}}


def test_a_mask_that_was_drawn_on_an_image_moves_with_it(head: HeadStudy, motion: sitk.Euler3DTransform) -> None:
    """T1 has other voxels than FLAIR, on whose grid the tumour was drawn in its wrong position."""
    t1 = sitk.BinShrink(head.image("t1"), [2, 2, 2])
    flair = sitk.Resample(head.image("flair"), head.image("flair"), motion, sitk.sitkLinear, 0.0)
    drawn = head.grid.to_sitk((head.visit.labels > 0).astype(np.uint8))
    tumor = sitk.Resample(drawn, drawn, motion, sitk.sitkNearestNeighbor)
    brain = sitk.Resample(brain_of(head), t1, sitk.Transform(), sitk.sitkNearestNeighbor)
    study = StudyImages({"t1": t1, "flair": flair}, None, tumor, "first")
    aligned, found = coregister(study, brain)
    assert found["flair"].corrected
    assert aligned.tumor_labels is not None

    def center(mask: sitk.Image) -> np.ndarray:
        index = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0).mean(0)[::-1]
        return np.array(mask.TransformContinuousIndexToPhysicalPoint(index.tolist()))

    assert np.linalg.norm(center(tumor) - center(drawn)) > 4
    assert np.linalg.norm(center(aligned.tumor_labels) - center(drawn)) < 2


def test_a_mask_on_the_grid_of_images_of_which_one_moved_stays_with_the_first_of_them(
    head: HeadStudy, motion: sitk.Euler3DTransform
) -> None:
    """It may have been drawn on T2, which did not move."""
    t1 = sitk.BinShrink(head.image("t1"), [2, 2, 2])
    flair = sitk.Resample(head.image("flair"), head.image("flair"), motion, sitk.sitkLinear, 0.0)
    drawn = head.grid.to_sitk((head.visit.labels > 0).astype(np.uint8))
    brain = sitk.Resample(brain_of(head), t1, sitk.Transform(), sitk.sitkNearestNeighbor)
    study = StudyImages({"t1": t1, "t2": head.image("t2"), "flair": flair}, None, drawn, "first")
    aligned, found = coregister(study, brain)
    assert [m for m, entry in found.items() if entry.corrected] == ["flair"]
    assert aligned.tumor_labels is drawn
    (sentence,) = mask_doubts(drawn, TUMOR, study, aligned)
    assert "has the voxels of T2 and FLAIR, which lay apart, so it is taken to lie on the T2 image" in sentence


def empty(voxels: int, x_mm: float = 0.0) -> sitk.Image:
    image = sitk.Image([voxels] * 3, sitk.sitkUInt8)
    image.SetOrigin((x_mm, 0, 0))
    return image


def places(**x_mm: float) -> dict[str, sitk.Image]:
    """T1, and other images that share a grid, at positions along x."""
    return {"t1": empty(40)} | {modality: empty(30, x) for modality, x in x_mm.items()}


@pytest.mark.parametrize("what", [BRAIN_MASK, TUMOR])
def test_a_mask_moves_with_images_that_share_its_grid_and_went_to_one_place(what: str) -> None:
    """T1 with contrast agent is often acquired on the voxels of T2 or FLAIR."""
    given = StudyImages(places(t2=6, flair=6))
    moved = StudyImages(places(t2=0, flair=0.1))
    assert moved_with_its_image(empty(30, 6), what, given, moved).GetOrigin()[0] == 0
    assert mask_doubts(empty(30, 6), what, given, moved) == []


@pytest.mark.parametrize(("what", "place"), [(BRAIN_MASK, 1), (TUMOR, 4)])
def test_a_mask_of_images_that_went_apart_moves_with_the_likeliest_one_which_is_told(what: str, place: float) -> None:
    """A tumour is drawn on T1 with contrast agent, and a brain on the first image."""
    given = StudyImages({"t1ce": empty(30, 6), "t2": empty(30, 6), "flair": empty(40)}, chosen_reference="flair")
    moved = replace(given, images={"t1ce": empty(30, 4), "t2": empty(30, 1), "flair": empty(40)})
    if what == BRAIN_MASK:
        given, moved = (replace(study, images={**study.images, "t1": study.images["t2"]}) for study in (given, moved))
    assert moved_with_its_image(empty(30, 6), what, given, moved).GetOrigin()[0] == place
    (sentence,) = mask_doubts(empty(30, 6), what, given, moved)
    assert f"taken to lie on the {'T1' if what == BRAIN_MASK else 'T1ce'} image" in sentence


def test_a_mask_with_voxels_of_its_own_stays_with_the_reference_which_is_told() -> None:
    given, moved = StudyImages(places(flair=6), name="first"), StudyImages(places(flair=0))
    mask = empty(35)
    assert moved_with_its_image(mask, TUMOR, given, moved) is mask
    (sentence,) = mask_doubts(mask, TUMOR, given, moved)
    assert sentence.startswith("the tumour segmentation of the first study has the voxels of none of the images")
    assert "taken to lie on the T1 image" in sentence
