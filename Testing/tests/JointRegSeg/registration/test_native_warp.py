"""Images and labels warped in one pass have the values that SimpleITK gives with the same transform."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from joint_studies import rimmed_sphere

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.registration.deformation import Deformation
from JointRegSegLib.registration.native_warp import NativeWarp
from JointRegSegLib.registration.transforms import PairTransform, pair_transform, warp_image, warp_label_image

ROUNDING = 1e-4


@pytest.fixture(scope="module")
def transform() -> PairTransform:
    bumps = 2 * torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    displacement = F.interpolate(bumps, size=(32, 40, 32), mode="trilinear")
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.02, 0.03, 0, -0.02, 0.99, 0.01, 0, 0.02, 1.01))
    affine.SetTranslation((2, -1, 3))
    affine.SetCenter((3, 4, 5))
    return pair_transform(Deformation(displacement), WorkingGrid((32, 40, 32), 1.5, (24.0, 28.0, -22.0)), affine)


def image(values: np.ndarray, spacing: tuple[float, float, float], turn: float) -> sitk.Image:
    """Image around the origin, turned about the third axis by an angle in radians."""
    found = sitk.GetImageFromArray(values)
    found.SetSpacing(spacing)
    found.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    middle = found.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in found.GetSize()])
    found.SetOrigin([-m for m in middle])
    return found


@pytest.fixture(scope="module")
def fixed() -> sitk.Image:
    return image(np.zeros((20, 36, 30), np.float32), (1.6, 1.5, 2.4), 0.3)


@pytest.fixture(scope="module")
def moving() -> sitk.Image:
    values = np.random.default_rng(1).normal(size=(24, 30, 32)).astype(np.float32)
    values[:, :7] = values.min()  # air
    return image(values, (1.5, 1.7, 2.0), -0.2)


def test_images_are_those_of_simpleitk(transform: PairTransform, fixed: sitk.Image, moving: sitk.Image) -> None:
    other = image(sitk.GetArrayFromImage(moving)[::2].copy(), (1.5, 1.7, 4.0), 0.0)  # on another grid
    found = NativeWarp(fixed, transform).images({"t1": moving, "flair": other, "t2": moving * 2})
    assert list(found) == ["t1", "flair", "t2"]
    for name, source in (("t1", moving), ("flair", other), ("t2", moving * 2)):
        expected = sitk.GetArrayFromImage(warp_image(source, fixed, transform.moving_to_fixed))
        difference = np.abs(sitk.GetArrayFromImage(found[name]) - expected)
        assert (difference > ROUNDING * np.ptp(expected)).mean() < 1e-3  # voxels on the very edge of the image
        assert found[name].GetOrigin() == fixed.GetOrigin()


def test_labels_are_those_of_simpleitk(transform: PairTransform, fixed: sitk.Image, moving: sitk.Image) -> None:
    smooth = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(moving, 3.0))
    labels = np.digitize(smooth, np.quantile(smooth, [0.5, 0.7, 0.9])).astype(np.uint8)
    labels[labels == 2] = 4  # a gap in the numbers
    classes = sitk.GetImageFromArray(labels)
    classes.CopyInformation(moving)
    found = sitk.GetArrayFromImage(NativeWarp(fixed, transform).labels(classes))
    expected = sitk.GetArrayFromImage(warp_label_image(classes, fixed, transform.moving_to_fixed))
    assert set(np.unique(found)) == {0, 1, 3, 4}
    assert (found != expected).mean() < 2e-3


def test_without_labels_everything_is_background(
    transform: PairTransform, fixed: sitk.Image, moving: sitk.Image
) -> None:
    found = NativeWarp(fixed, transform).labels(sitk.Cast(moving * 0, sitk.sitkUInt8))
    assert not sitk.GetArrayFromImage(found).any()


def test_labels_keep_their_volume_on_a_grid_shifted_by_half_a_voxel() -> None:
    labels = rimmed_sphere()
    shifted = sitk.Image(labels)
    shifted.SetOrigin((0.5, 0.5, 0.5))
    none = Deformation(torch.zeros(1, 3, 4, 4, 4))
    identity = pair_transform(none, WorkingGrid((4, 4, 4), 16.0, (47.0, 47.0, 0.0)), sitk.AffineTransform(3))
    found = sitk.GetArrayFromImage(NativeWarp(shifted, identity).labels(labels))
    given = sitk.GetArrayFromImage(labels)
    for classes in ((1, 2, 3), (1, 3), (3,)):
        assert np.isin(found, classes).sum() == pytest.approx(np.isin(given, classes).sum(), rel=0.02)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(NativeWarp(labels, identity).labels(labels)), given)
