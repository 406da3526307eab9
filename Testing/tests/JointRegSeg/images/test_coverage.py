"""What an image shows of the brain: slabs, padding, missing slices and holes are told from background."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from joint_studies import HeadStudy

from JointRegSegLib.images.brain_mask import estimate_brain_mask
from JointRegSegLib.images.coverage import coverage_of, share_shown
from JointRegSegLib.images.modalities import MODALITIES
from JointRegSegLib.images.preprocessing.config import PreprocessingConfig
from JointRegSegLib.images.preprocessing.preparation import prepare_study
from JointRegSegLib.images.study import StudyImages

SPACING_MM = 3.0


@pytest.fixture(scope="module")
def brain() -> sitk.Image:
    """An ellipsoid of the size of a brain within a larger grid."""
    k, j, i = np.meshgrid(np.arange(50) - 24.5, np.arange(66) - 32.5, np.arange(56) - 27.5, indexing="ij")
    inside = (k / 20) ** 2 + (j / 28) ** 2 + (i / 23) ** 2 <= 1
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    mask.SetSpacing((SPACING_MM,) * 3)
    return mask


def image_of(brain: sitk.Image, hidden: np.ndarray | tuple | None = None) -> sitk.Image:
    """An image of the brain with intensities of 50 to 150 on a background of 0, which also fills ``hidden``."""
    inside = sitk.GetArrayViewFromImage(brain) != 0
    values = np.where(inside, np.random.default_rng(0).uniform(50, 150, inside.shape), 0).astype(np.float32)
    if hidden is not None:
        values[hidden] = 0
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(brain)
    return image


def seen(image: sitk.Image, brain: sitk.Image) -> np.ndarray:
    found = coverage_of(image, brain).seen
    assert found is not None
    return sitk.GetArrayFromImage(found) != 0


def test_a_whole_brain_is_complete_also_where_it_fills_its_box(brain: sitk.Image) -> None:
    found = coverage_of(image_of(brain), brain)
    assert found.seen is None
    assert found.beyond is None
    tight = (slice(5, 51), slice(5, 61), slice(5, 45))  # of its 46 x 56 x 40 voxels, i, j, k
    assert coverage_of(image_of(brain)[tight], brain[tight]).beyond is None


def test_slices_of_a_padded_slab_were_not_acquired(brain: sitk.Image) -> None:
    image = image_of(brain, np.s_[:20])
    found = seen(image, brain)
    assert not found[:20].any()
    assert found[20:].all()
    inside = sitk.GetArrayViewFromImage(brain) != 0
    expected = inside[20:].sum() / inside.sum()
    assert share_shown(image, coverage_of(image, brain), brain) == pytest.approx(expected)


def test_the_field_of_view_counts_as_padding_does(brain: sitk.Image) -> None:
    slab = image_of(brain)[:, :, 20:]
    found = coverage_of(slab, brain)
    assert found.seen is None
    assert found.beyond is not None
    padded = image_of(brain, np.s_[:20])
    share = share_shown(padded, coverage_of(padded, brain), brain)
    assert share_shown(slab, found, brain) == pytest.approx(share)


@pytest.mark.parametrize("plane", [np.s_[:20], np.s_[:, 33:], np.s_[:, :, :28]])
def test_a_brain_that_ends_abruptly_goes_on_behind_the_plane(brain: sitk.Image, plane: tuple) -> None:
    """The only image of a study: its brain mask ends with it."""
    part = sitk.GetArrayFromImage(brain)
    part[plane] = 0
    mask = sitk.GetImageFromArray(part)
    mask.CopyInformation(brain)
    found = coverage_of(image_of(brain, plane), mask)
    assert found.seen is not None
    assert not sitk.GetArrayFromImage(found.seen)[plane].any()
    assert found.beyond is not None
    beyond = sitk.GetArrayFromImage(sitk.Resample(found.beyond, brain, sitk.Transform(3, sitk.sitkIdentity), 1)) != 0
    assert beyond[plane].any()
    rest = np.ones_like(beyond)
    rest[plane] = False
    assert not beyond[rest].any()


def test_missing_slices_are_found_one_by_one(brain: sitk.Image) -> None:
    found = seen(image_of(brain, np.s_[[15, 22, 23]]), brain)
    assert np.flatnonzero(~found.all(axis=(1, 2))).tolist() == [15, 22, 23]
    assert not found[[15, 22, 23]].any()


def test_missing_slices_do_not_cut_the_brain_in_two(brain: sitk.Image) -> None:
    image = image_of(brain, np.s_[[22, 23]])
    mask = estimate_brain_mask(StudyImages({"t1": image})).mask
    found, expected = (sitk.GetArrayFromImage(m) != 0 for m in (mask, brain))
    assert not (found & ~expected).any()
    assert found.sum() > 0.99 * expected.sum()
    assert np.flatnonzero(~seen(image, mask).all(axis=(1, 2))).tolist() == [22, 23]


def test_an_oblique_cut_is_found_and_dark_ventricles_are_not_one(brain: sitk.Image) -> None:
    k, j, i = np.meshgrid(np.arange(50), np.arange(66), np.arange(56), indexing="ij")
    hidden = k + 0.4 * j + 0.2 * i < 35
    inside = sitk.GetArrayViewFromImage(brain) != 0
    found = seen(image_of(brain, hidden), brain)
    assert (~found & inside).sum() > 0.85 * (hidden & inside).sum()
    assert (~found & inside & ~hidden).sum() < 0.02 * inside.sum()  # slivers in slices that show hardly anything
    ventricles = (abs(k - 25) < 5) & (abs(j - 33) < 9) & (abs(i - 28) < 6)  # 35 ml
    assert coverage_of(image_of(brain, ventricles), brain).seen is None


def test_what_an_image_does_not_show_is_left_out_of_its_normalization() -> None:
    head = HeadStudy.of("axial")
    t1, flair = head.image("t1"), head.image("flair")
    middle = flair.GetSize()[2] // 2
    config = PreprocessingConfig(spacing_mm=4.0, multiple_of=8)
    mask = head.grid.to_sitk(head.visit.brain.astype(np.uint8))
    whole = prepare_study({"t1": t1, "flair": flair}, mask, config)
    values = sitk.GetArrayFromImage(flair)
    values[:middle] = values[0, 0, 0]
    padded = sitk.GetImageFromArray(values)
    padded.CopyInformation(flair)
    channel = MODALITIES.index("flair")
    for partial in (flair[:, :, middle:], padded):
        study = prepare_study({"t1": t1, "flair": partial}, mask, config, grid=whole.grid)
        shown = study.shown(["flair"])
        assert 0.3 < float(shown[study.mask].float().mean()) < 0.7
        assert torch.equal(study.images[0], whole.images[0])
        assert bool(study.shown(["t1"])[study.mask].all())
        inside = study.images[channel][shown & study.mask]
        assert float(inside.mean()) == pytest.approx(0, abs=0.02)
        assert float(inside.std()) == pytest.approx(1, abs=0.02)
        assert bool((study.images[channel][~shown] == config.background).all())
