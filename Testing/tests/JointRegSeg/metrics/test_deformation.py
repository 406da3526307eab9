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
