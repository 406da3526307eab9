"""What an enhancing ring encloses becomes core, in any orientation, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.labels import CAVITY, CLASSES
from JointRegSegLib.inference.plausibility import with_enclosed_core

CORE, EDEMA, ENHANCING = (CLASSES.index(name) for name in ("necrotic_core", "edema", "enhancing_tumor"))


def labelled(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetSpacing((1.0, 1.5, 2.0))
    return image


def shell(inside: int) -> np.ndarray:
    """An enhancing shell in oedema around another class; radii 5 and 3 voxels."""
    distance = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    array = np.where(distance < 8, EDEMA, 0)
    return np.where(distance < 3, inside, np.where(distance < 5, ENHANCING, array))


@pytest.mark.parametrize("inside", [0, EDEMA])
def test_inside_of_an_enhancing_shell_becomes_core(inside):
    array = shell(inside)
    result = with_enclosed_core(labelled(array))
    expected = shell(CORE)
    assert np.array_equal(sitk.GetArrayFromImage(result), expected)
    assert result.GetOrigin() == (1.0, -2.0, 3.0)
    assert result.GetSpacing() == (1.0, 1.5, 2.0)


def test_a_resection_cavity_within_an_enhancing_rim_stays_one():
    assert np.array_equal(sitk.GetArrayFromImage(with_enclosed_core(labelled(shell(CAVITY)))), shell(CAVITY))


def test_ring_that_is_open_at_one_end_still_encloses_its_middle():
    array = shell(EDEMA)
    array[:8] = np.where(array[:8] == ENHANCING, EDEMA, array[:8])
    result = sitk.GetArrayFromImage(with_enclosed_core(labelled(array)))
    assert result[10, 10, 10] == EDEMA or result[12, 10, 10] == CORE
    assert not (result[:8] == CORE).any()


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.full((5, 5, 5), EDEMA)])
def test_labels_without_enhancement_stay_as_they_are(array):
    assert np.array_equal(sitk.GetArrayFromImage(with_enclosed_core(labelled(array))), array)


def test_given_image_is_not_changed():
    image = labelled(shell(EDEMA))
    before = sitk.GetArrayFromImage(image).copy()
    with_enclosed_core(image)
    assert np.array_equal(sitk.GetArrayFromImage(image), before)
