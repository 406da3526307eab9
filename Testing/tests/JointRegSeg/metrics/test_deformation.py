"""Quality of deformations of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.metrics.deformation import inverse_consistency, jacobian_statistics


def test_jacobian_statistics_of_known_maps() -> None:
    determinant = np.full((4, 4, 4), 1.0)
    assert jacobian_statistics(determinant) == {"folded_fraction": 0, "sd_log_jacobian": 0}
    determinant[0] = -1
    determinant[1] = np.e
    found = jacobian_statistics(determinant)
    assert found["folded_fraction"] == 0.25
    assert found["sd_log_jacobian"] == pytest.approx(np.sqrt(2) / 3)
    mask = np.zeros((4, 4, 4), bool)
    assert all(np.isnan(value) for value in jacobian_statistics(determinant, mask).values())
    mask[2:] = True
    assert jacobian_statistics(determinant, mask) == {"folded_fraction": 0, "sd_log_jacobian": 0}


def test_inverse_consistency_is_the_distance_after_the_round_trip() -> None:
    image = sitk.Image(10, 10, 10, sitk.sitkUInt8)
    image.SetSpacing((2, 1, 3))
    forward, inverse = sitk.TranslationTransform(3, (5.0, 0, 0)), sitk.TranslationTransform(3, (-5.0, 3, 4))
    mask = np.ones((10, 10, 10), bool)
    found = inverse_consistency(forward, inverse, image, mask, count=100)
    assert found == pytest.approx({"inverse_error_mean_mm": 5, "inverse_error_max_mm": 5})
    assert inverse_consistency(forward, forward.GetInverse(), image, mask)["inverse_error_max_mm"] == pytest.approx(0)


@pytest.mark.parametrize("slices", [99, 101, 199])
def test_inverse_consistency_looks_at_the_whole_mask(slices: int) -> None:
    image = sitk.Image(4, 4, slices, sitk.sitkUInt8)
    scaled = sitk.ScaleTransform(3, (1.0, 1.0, 2.0))
    mask = np.ones((slices, 4, 4), bool)
    found = inverse_consistency(sitk.Transform(3, sitk.sitkIdentity), scaled, image, mask, count=1600)
    assert found["inverse_error_max_mm"] == pytest.approx(slices - 1)
    assert found["inverse_error_mean_mm"] == pytest.approx((slices - 1) / 2, rel=1e-3)
