"""Preparation of studies: normalised tensors on an RAS grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import TURNS, HeadStudy, edited, head_grid, ras_points

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
from JointRegSegLib.images.preprocessing.preparation import prepare_study
from JointRegSegLib.images.study import StudyImages, checked_study

COARSE = PreprocessingConfig(spacing_mm=4.0, multiple_of=8)


@pytest.fixture(scope="module")
def study() -> HeadStudy:
    return HeadStudy.of("axial")


def images_of(study: HeadStudy, modalities: tuple[str, ...] = ("t1", "flair")) -> dict[str, sitk.Image]:
    return {m: study.image(m) for m in modalities}


@pytest.mark.parametrize("turn", TURNS)
def test_axes_run_to_superior_anterior_and_right_whatever_the_file(turn: str) -> None:
    """The image shows x + 2 y + 3 z of RAS positions in mm, in a ball; a line fit undoes the normalisation."""
    grid = head_grid(turn)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    at = np.stack([i, j, k], axis=-1) @ grid.ijk_to_ras[:3, :3].T + grid.ijk_to_ras[:3, 3]
    image = grid.to_sitk((at @ [1.0, 2.0, 3.0]).astype(np.float32))
    ball = grid.to_sitk((np.linalg.norm(at, axis=-1) < 45).astype(np.uint8))
    prepared = prepare_study({"t1": image}, ball, COARSE)
    inside = prepared.mask.numpy()
    found = prepared.images[0].numpy()[inside]
    expected = (ras_points(prepared.grid) @ [1.0, 2.0, 3.0])[inside]
    slope, offset = np.polyfit(found, expected, 1)
    assert slope > 0
    assert np.abs(slope * found + offset - expected).max() < 0.1


@pytest.mark.parametrize("turn", [t for t in TURNS if t != "axial"])
def test_the_same_anatomy_gives_the_same_tensor(study: HeadStudy, turn: str) -> None:
    mask = study.brain
    first = prepare_study(images_of(study), mask, COARSE)
    other = HeadStudy.of(turn)
    second = prepare_study(images_of(other), other.brain, COARSE, grid=first.grid)
    both = (first.mask & second.mask).numpy()
    assert both.sum() > 0.95 * first.mask.sum()
    assert np.corrcoef(first.images[0].numpy()[both], second.images[0].numpy()[both])[0, 1] > 0.75


def test_an_aligned_image_keeps_its_voxels() -> None:
    generator = np.random.default_rng(0)
    array = generator.uniform(50, 150, (44, 52, 48)).astype(np.float32)
    image = sitk.GetImageFromArray(array)  # LPS, 1 mm
    image.SetOrigin((-3.25, 7.5, 0.125))
    mask = sitk.GetImageFromArray(np.pad(np.ones((30, 36, 34), np.uint8), 7 * np.ones((3, 2), int)))
    mask = sitk.Resample(mask, image.GetSize(), sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    mask.CopyInformation(image)
    prepared = prepare_study({"t2": image}, mask, PreprocessingConfig())
    inside = array[sitk.GetArrayFromImage(mask) > 0]
    expected = np.flip((array - inside.mean()) / inside.std(), (1, 2))  # to RAS
    assert all(n % 16 == 0 for n in prepared.grid.shape)
    values = np.sort(prepared.images[2][prepared.mask].numpy())
    assert np.allclose(values, np.sort(expected[np.flip(sitk.GetArrayFromImage(mask), (1, 2)) > 0]), atol=1e-5)


def test_absent_modalities_and_voxels_outside_the_brain_have_the_background_value(study: HeadStudy) -> None:
    prepared = prepare_study(images_of(study), study.brain, COARSE)
    assert prepared.present == ("t1", "flair")
    assert prepared.images.shape[0] == len(MODALITIES)
    assert (prepared.images[[1, 2]] == -3).all()
    assert (prepared.images[:, ~prepared.mask] == -3).all()
    assert prepared.images[0][prepared.mask].mean().abs() < 0.02
    assert abs(prepared.images[0][prepared.mask].std() - 1) < 0.05


def test_modalities_of_a_study_may_lie_on_different_grids() -> None:
    first, other = HeadStudy.of("axial"), HeadStudy.of("left-handed oblique", spacing_mm=(3.0, 4.0, 6.0))
    mixed = prepare_study({"t1": first.image("t1"), "t2": other.image("t2")}, first.brain, COARSE)
    same = prepare_study(images_of(first, ("t1", "t2")), first.brain, COARSE)
    assert mixed.grid == same.grid
    inside = same.mask.numpy()
    assert np.corrcoef(mixed.images[2].numpy()[inside], same.images[2].numpy()[inside])[0, 1] > 0.75


def test_a_study_is_resampled_to_another_grid_through_a_transform(study: HeadStudy) -> None:
    """A shifted image together with the transform that describes the shift gives the tensor of the original."""
    shift = (12.0, -8.0, 20.0)
    first = prepare_study(images_of(study), study.brain, COARSE)
    moved = {m: sitk.Image(image) for m, image in images_of(study).items()}
    mask = sitk.Image(study.brain)
    for image in (*moved.values(), mask):
        image.SetOrigin(tuple(np.add(image.GetOrigin(), shift)))
    second = prepare_study(moved, mask, COARSE, first.grid, sitk.TranslationTransform(3, shift))
    assert torch.equal(first.mask, second.mask)
    assert torch.allclose(first.images, second.images, atol=1e-3)


def test_millilitres_of_a_voxel_are_those_of_the_study(study: HeadStudy) -> None:
    larger = sitk.AffineTransform(3)
    larger.Scale((1.1, 1.0, 1.2))
    larger.SetTranslation((5.0, 0.0, 0.0))
    prepared = prepare_study(images_of(study), study.brain, COARSE)
    assert prepared.voxel_ml == pytest.approx(COARSE.spacing_mm**3 / 1000)
    assert replace(prepared, transform=larger).voxel_ml == pytest.approx(1.1 * 1.2 * COARSE.spacing_mm**3 / 1000)


def test_images_without_the_bias_correction_are_kept_beside_the_corrected_ones(study: HeadStudy) -> None:
    plain, corrected = (prepare_study(images_of(study), study.brain, replace(COARSE, n4=n4)) for n4 in (False, True))
    assert plain.uncorrected is None
    assert corrected.bias_corrected
    assert torch.equal(corrected.uncorrected, plain.images)
    assert not torch.equal(corrected.images, plain.images)


def test_voxels_of_a_mask_that_are_not_finite_do_not_belong_to_it(study: HeadStudy) -> None:
    mask = edited(sitk.Cast(study.brain, sitk.sitkFloat32), lambda a: np.where(a != 0, a, np.nan))
    checked, notes = checked_study(StudyImages(images_of(study), mask, name="first", left_out=mask))
    for found in (checked.brain_mask, checked.left_out):
        assert found is not None
        assert found.GetPixelID() == sitk.sitkUInt8
        assert np.array_equal(sitk.GetArrayFromImage(found) != 0, study.visit.brain)
    assert "the brain mask of the first study has" in notes[0]
    assert "that are not finite; they do not belong to it" in notes[0]
    prepared = prepare_study(images_of(study), mask, COARSE)
    assert torch.equal(prepared.mask, prepare_study(images_of(study), study.brain, COARSE).mask)


def test_an_image_that_does_not_vary_in_the_brain_is_refused(study: HeadStudy) -> None:
    flat = edited(study.image("t1"), lambda a: np.where(study.visit.brain, 50, np.arange(a.size).reshape(a.shape) % 9))
    mask = sitk.BinaryErode(study.brain, [2] * 3)
    with pytest.raises(ValueError, match="the t1 image of the first study is constant inside the brain"):
        prepare_study({"t1": flat}, mask, COARSE, name="first")


def test_a_brain_outside_the_working_grid_is_refused(study: HeadStudy) -> None:
    grid = WorkingGrid((16, 16, 16), 4.0, (2000.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="brain of the first study lies outside the working grid"):
        prepare_study(images_of(study), study.brain, COARSE, grid, name="first")
