"""The brain of images, stripped or not."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy, edited, head_grid, with_value

from JointRegSegLib.images import brain_mask, head_mask
from JointRegSegLib.images.brain_mask import brain_of, estimate_brain_mask
from JointRegSegLib.images.study import BRAIN_MASK, StudyImages
from JointRegSegLib.synthesis.phantom import RADII_MM, make_visit


@pytest.fixture(scope="module")
def study() -> HeadStudy:
    return HeadStudy.of("axial")


def test_the_brain_of_stripped_images_is_what_differs_from_the_background(study: HeadStudy) -> None:
    speck = edited(study.image("t1"), lambda a: with_value(a, (1, 1, 1), 900.0))  # noise outside
    hole = edited(study.image("flair"), lambda a: with_value(a, tuple(n // 2 for n in a.shape), 0.0))
    found = estimate_brain_mask(StudyImages({"t1": speck, "flair": hole}))
    assert found.stripped
    assert not found.warnings
    assert np.array_equal(sitk.GetArrayFromImage(found.mask) > 0, study.visit.brain)


def test_images_that_were_stripped_by_one_mask_have_the_brain_of_each(study: HeadStudy) -> None:
    t1, flair = study.images("study").images.values()
    shown = sitk.GetArrayFromImage(t1) != 0
    moved = sitk.GetImageFromArray(sitk.GetArrayFromImage(flair) * shown)
    moved.CopyInformation(t1)
    moved.SetOrigin(np.add(t1.GetOrigin(), (3.0, 0.0, 0.0)).tolist())
    alone = estimate_brain_mask(StudyImages({"t1": moved})).mask
    both = estimate_brain_mask(StudyImages({"t1": moved, "flair": t1})).mask
    resampled = sitk.Resample(estimate_brain_mask(StudyImages({"t1": t1})).mask, moved, sitk.Transform(), 1)
    assert np.array_equal(sitk.GetArrayFromImage(both), sitk.GetArrayFromImage(alone | resampled))


def head_with_brain() -> tuple[sitk.Image, np.ndarray]:
    """Return an oblique image of a head with noise, and its brain (D, H, W)."""
    grid = head_grid("oblique", (3.0, 3.0, 3.0))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    at = np.stack([i, j, k], axis=-1) @ grid.ijk_to_ras[:3, :3].T + grid.ijk_to_ras[:3, 3]
    radius = np.linalg.norm(at / RADII_MM, axis=-1)
    brain = make_visit(grid.shape, grid.ijk_to_ras).images["t1"]
    inside = radius * 1.18  # the brain is the inner part, inside a dark skull and a bright scalp
    head = np.where(inside < 1, brain, np.where(inside < 1.09, 12.0, np.where(inside < 1.25, 140.0, 0.0)))
    noise = np.random.default_rng(3).rayleigh(3.0, grid.shape)
    return grid.to_sitk((head + noise).astype(np.float32)), inside < 1


def test_the_brain_in_a_head_is_found_with_a_warning() -> None:
    image, truth = head_with_brain()
    found = estimate_brain_mask(StudyImages({"t1": image}, name="first"))
    mask = sitk.GetArrayFromImage(found.mask) > 0
    assert not found.stripped
    assert "estimated from the head" in found.warnings[0]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_the_brain_in_a_head_does_not_depend_on_the_value_of_the_air(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_mask, "_STEPS", 30)
    image, _ = head_with_brain()
    values = sitk.GetArrayViewFromImage(image)
    from_zero = image - float(values.min())
    standardized = sitk.Cast((image - float(values.mean())) / float(values.std()), sitk.sitkFloat32)
    masks = [sitk.GetArrayFromImage(head_mask.brain_in_head(i)[0]) for i in (from_zero, standardized)]
    assert (masks[0] != masks[1]).sum() < 0.005 * masks[0].sum()  # rounding


@pytest.mark.parametrize("visit", [1, 2])
def test_a_slab_of_a_head_in_air_of_zero_is_not_taken_for_a_stripped_brain(visit: int, shared_data) -> None:
    """It has 2600 and 2980 ml, less than a whole head."""
    folder = "data/brain/multiple_sclerosis/long_patient01"
    image = sitk.ReadImage(str(shared_data(f"{folder}/raw/study{visit}_T1W.nii.gz")), sitk.sitkFloat32)
    found = estimate_brain_mask(StudyImages({"t1": image}))
    assert not found.stripped
    volume_ml = sitk.GetArrayFromImage(found.mask).sum() * np.prod(image.GetSpacing()) / 1000
    assert 1200 < volume_ml < 1500


def test_pure_noise_has_no_brain() -> None:
    noise = np.random.default_rng(4).rayleigh(10, (40, 40, 40)).astype(np.float32)
    image = sitk.GetImageFromArray(noise)
    image.SetSpacing((1.5, 1.5, 1.5))
    with pytest.raises(ValueError, match=r"no brain was found in the t1 image of the first study.*give a brain mask"):
        estimate_brain_mask(StudyImages({"t1": image}, name="first"))


def planes(image: sitk.Image, first: int, last: int | None = None) -> sitk.Image:
    return image[:, :, first : image.GetSize()[2] if last is None else last]


def brain_voxels(mask: sitk.Image) -> int:
    return int((sitk.GetArrayViewFromImage(mask) > 0).sum())


def test_the_first_image_is_the_reference_where_it_shows_the_brain(study: HeadStudy) -> None:
    t1, flair = study.image("t1"), planes(study.image("flair"), 8, 18)
    found, brain, warnings = brain_of(StudyImages({"t1": t1, "flair": flair}))
    assert found.reference_modality == "t1"
    assert warnings == ()
    assert brain.GetSize() == t1.GetSize()


def test_a_slab_is_not_the_reference_beside_an_image_of_the_whole_brain(study: HeadStudy) -> None:
    t1, flair = planes(study.image("t1"), 8, 18), study.image("flair")
    found, brain, warnings = brain_of(StudyImages({"t1": t1, "flair": flair}, name="first"))
    assert found.reference is found.images["flair"]
    assert brain_voxels(brain) == study.visit.brain.sum()
    share = study.visit.brain[8:18].sum() / study.visit.brain.sum()
    assert warnings == (
        f"the T1 image of the first study reaches over only {100 * share:.0f} % of the brain, so the results lie on "
        "the voxels of the FLAIR image",
    )


def test_a_given_mask_decides_which_image_shows_the_brain(study: HeadStudy) -> None:
    t1, flair = planes(study.image("t1"), 8, 18), study.image("flair")
    whole, brain, _ = brain_of(StudyImages({"t1": t1, "flair": flair}, study.brain))
    assert whole.reference_modality == "flair"
    assert brain_voxels(brain) == study.visit.brain.sum()
    within, _, warnings = brain_of(StudyImages({"t1": t1, "flair": flair}, planes(study.brain, 8, 18)))
    assert within.reference_modality == "t1"
    assert warnings == ()


def test_the_mask_holds_what_several_slabs_show_together(study: HeadStudy) -> None:
    """It is on the voxels of the reference, continued."""
    t1, flair = planes(study.image("t1"), 0, 16), planes(study.image("flair"), 14)
    for mask in (None, study.brain):
        found, brain, _ = brain_of(StudyImages({"t1": t1, "flair": flair}, mask))
        assert abs(brain_voxels(brain) - study.visit.brain.sum()) < 0.01 * study.visit.brain.sum()
        assert brain.GetSpacing() == found.reference.GetSpacing()
        offset = found.reference.TransformPhysicalPointToContinuousIndex(brain.GetOrigin())
        np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)


def test_the_brain_in_a_head_comes_from_an_image_that_does_not_cut_it_off(
    study: HeadStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    t1, flair = planes(study.image("t1"), 8, 18), study.image("flair")
    noisy = {
        m: edited(i, lambda a: a + np.arange(a.size).reshape(a.shape) % 7) for m, i in (("t1", t1), ("flair", flair))
    }
    masks = {t1.GetSize(): planes(study.brain, 8, 18), flair.GetSize(): study.brain}
    monkeypatch.setattr(brain_mask, "brain_in_head", lambda image: (masks[image.GetSize()], True))
    found, brain, warnings = brain_of(StudyImages(noisy))
    assert found.reference_modality == "flair"
    assert brain_voxels(brain) == study.visit.brain.sum()
    assert "was estimated from the head" in warnings[0]


def test_a_given_mask_without_the_volume_of_a_brain_is_told(study: HeadStudy) -> None:
    """A tumour mask, or one of the whole image, given by mistake."""
    tumor = study.grid.to_sitk((study.visit.labels > 0).astype(np.uint8))
    everything = tumor * 0 + 1
    for mask, kind in ((study.brain, None), (tumor, "smaller"), (everything, "larger")):
        given = StudyImages({"t1": study.image("t1")}, mask, name="first", sources={BRAIN_MASK: "mask.nii.gz"})
        _, _, warnings = brain_of(given)
        volume_ml = brain_voxels(mask) * study.grid.voxel_volume_mm3 / 1000
        expected = f"the brain mask 'mask.nii.gz' of the first study has {volume_ml:.0f} ml, {kind} than a whole brain"
        assert [text.split(":")[0] for text in warnings] == ([] if kind is None else [expected])
