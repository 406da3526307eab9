"""What an enhancing ring encloses becomes core, core far from enhancement oedema, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.labels import CAVITY, CLASSES
from JointRegSegLib.inference.plausibility import with_enclosed_core, without_distant_core

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


def tumor(spacing: tuple[float, float, float], core_at_mm: tuple[float, float]) -> sitk.Image:
    """A slab of oedema along i with an enhancing plate at 30 to 36 mm, and core between two places in mm."""
    count = round(100 / spacing[0])
    x = np.arange(count) * spacing[0]
    line = np.full(count, EDEMA)
    line[(x >= core_at_mm[0]) & (x < core_at_mm[1])] = CORE
    line[(x >= 30) & (x < 36)] = ENHANCING
    array = np.broadcast_to(line, (round(40 / spacing[2]), round(40 / spacing[1]), count))
    image = labelled(array)
    image.SetSpacing(spacing)
    return image


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 4.0)])
def test_core_far_from_the_enhancing_tumour_is_oedema(spacing):
    image = tumor(spacing, (36, 60))
    result = without_distant_core(image)
    line, x = sitk.GetArrayFromImage(result)[5, 20], np.arange(result.GetSize()[0]) * spacing[0]
    assert (line[(x >= 36) & (x < 37.5)] == CORE).all()  # beside the enhancing tumour
    assert (line[(x >= 40) & (x < 60)] == EDEMA).all()
    assert (line[(x >= 30) & (x < 36)] == ENHANCING).all()
    assert (result.GetSpacing(), result.GetOrigin()) == (image.GetSpacing(), image.GetOrigin())


def test_core_between_enhancing_parts_stays_core():
    array = shell(CORE)
    array[:, :, 13:] = np.where(array[:, :, 13:] == ENHANCING, EDEMA, array[:, :, 13:])  # open at one side
    result = sitk.GetArrayFromImage(without_distant_core(labelled(array)))
    assert (result == CORE).sum() >= 0.9 * (array == CORE).sum()
    assert result[10, 10, 10] == CORE


def test_a_tumour_that_hardly_enhances_keeps_its_core():
    array = sitk.GetArrayFromImage(tumor((1.0, 1.0, 1.0), (0, 100)))
    array[:, :, 31:36] = CORE  # 1 of 100 mm enhances
    assert np.array_equal(sitk.GetArrayFromImage(without_distant_core(labelled(array))), array)


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.full((5, 5, 5), CORE), np.full((5, 5, 5), ENHANCING)])
def test_nothing_to_compare_changes_nothing(array):
    assert np.array_equal(sitk.GetArrayFromImage(without_distant_core(labelled(array))), array)
