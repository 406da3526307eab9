"""Rigid and affine alignment of two visits of one brain, whatever their grids and positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import rotation

from JointRegSegLib.registration.affine import Brain, align, as_affine
from JointRegSegLib.synthesis.phantom import RADII_MM, make_visit
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.threads import torch_threads
from NeuroCESTLib.scene.geometry import Geometry


def head(
    matrix: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    spacing: tuple = (3.0, 3.0, 3.0),
    reach_mm: float = 85.0,
) -> Brain:
    """Return the phantom on a grid with the given axes, moved in space by a matrix (4, 4) in RAS mm."""
    matrix = np.eye(4) if matrix is None else matrix
    axes = np.eye(3) if axes is None else axes
    size = np.ceil(2 * reach_mm / np.array(spacing)).astype(int)
    center = matrix[:3, 3] + [2, -3, 1]
    grid = Geometry.from_spacing(tuple(size[::-1]), spacing, tuple(center - axes @ (spacing * (size - 1) / 2)), axes)
    visit = make_visit(grid.shape, np.linalg.inv(matrix) @ grid.ijk_to_ras)
    return Brain(grid.to_sitk(visit.images["t1"]), grid.to_sitk(visit.brain.astype(np.uint8)))


def motion(degrees: tuple, shift_mm: tuple, scales: tuple = (1.0, 1.0, 1.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(degrees) @ np.diag(scales)
    matrix[:3, 3] = shift_mm
    return matrix


def found_matrix(transform: sitk.AffineTransform) -> np.ndarray:
    """Return the matrix (4, 4) of a transform in RAS mm."""
    flip = np.diag([-1.0, -1, 1])
    matrix = np.eye(4)
    matrix[:3, :3] = flip @ np.array(transform.GetMatrix()).reshape(3, 3) @ flip
    matrix[:3, 3] = flip @ np.array(as_affine(transform).GetTranslation())
    return matrix


def errors(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Return the largest distance in the brain (mm) and the angle between the rotations (degrees) of two matrices."""
    directions = np.random.default_rng(0).normal(size=(300, 3))
    points = np.c_[directions / np.linalg.norm(directions, axis=1, keepdims=True) * RADII_MM, np.ones(300)]
    distance = np.linalg.norm((points @ (found - true).T)[:, :3], axis=1).max()
    factors = [np.linalg.svd(m[:3, :3]) for m in (found, true)]
    first, second = (u @ v for u, _, v in factors)
    return distance, float(np.degrees(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))


FIXED = head()
OBLIQUE = rotation((15, -20, 35))
CASES = {
    "small motion, same grid": (motion((3, -2, 4), (5, -4, 3)), np.eye(3), (3.0, 3.0, 3.0)),
    "different orientation and spacing": (
        motion((-8, 5, 10), (0, 12, -6)),
        np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
        (2.5, 3.2, 4.0),
    ),
    "left-handed and far away": (
        motion((12, 8, -20), (150, -90, 200)),
        OBLIQUE @ np.diag([1.0, -1, 1]),
        (3.0, 2.6, 3.4),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rigid_motion_is_recovered(case: str) -> None:
    true, axes, spacing = CASES[case]
    result = align(FIXED, head(true, axes, spacing), "rigid")
    distance, angle = errors(found_matrix(result.transform), true)
    assert distance < 0.5
    assert angle < 0.5
    assert result.overlap > 0.95


def test_an_affine_map_is_recovered() -> None:
    true = motion((6, -4, 8), (20, 10, -15), (1.06, 0.95, 1.03))
    result = align(FIXED, head(true, OBLIQUE), "affine")
    distance, angle = errors(found_matrix(result.transform), true)
    assert distance < 0.5
    assert angle < 0.5


def test_a_large_rotation_is_recovered_from_several_starts() -> None:
    true = motion((35, 10, 60), (0, 0, 40))
    result = align(FIXED, head(true, reach_mm=95.0), "rigid")
    assert errors(found_matrix(result.transform), true)[0] < 0.7


def test_a_different_contrast_and_intensity_scale_do_not_matter() -> None:
    true = motion((5, 4, -6), (8, -3, 5))
    moving = head(true, OBLIQUE)
    brighter = sitk.Cast(
        sitk.Sqrt(moving.image) * 40 + 300 * sitk.Cast(moving.mask, sitk.sitkFloat32), sitk.sitkFloat32
    )
    result = align(FIXED, replace(moving, image=brighter), "rigid")
    assert errors(found_matrix(result.transform), true)[0] < 0.5


def test_a_brain_that_was_acquired_in_part_is_aligned() -> None:
    """The upper third of the brain lies outside the moving image; it must not be treated as background."""
    true = motion((4, -3, 5), (6, 4, -8))
    moving = head(true)
    cut = slice(0, 38)
    slab = Brain(moving.image[:, :, cut], moving.mask[:, :, cut])
    result = align(FIXED, slab, "rigid")
    assert errors(found_matrix(result.transform), true)[0] < 0.8
    assert result.overlap > 0.95


def test_a_brain_is_aligned_with_itself_by_the_identity() -> None:
    found = found_matrix(align(FIXED, FIXED, "affine").transform)
    assert errors(found, np.eye(4))[0] < 0.01


def test_an_exchange_of_the_brains_gives_the_inverse_map() -> None:
    moving = head(motion((6, -4, 8), (20, 10, -15), (1.06, 0.95, 1.03)), OBLIQUE, (3.0, 2.6, 3.4))
    there, back = (found_matrix(align(*brains).transform) for brains in ((FIXED, moving), (moving, FIXED)))
    assert errors(back @ there, np.eye(4))[0] < 0.05


def test_voxels_that_are_left_out_have_no_influence() -> None:
    """A bright object at different places in the two images would distort the alignment if it were not left out."""
    true = motion((3, -2, 4), (5, -4, 3))
    moving = head(true)

    def with_object(brain: Brain, at: tuple) -> Brain:
        array = sitk.GetArrayFromImage(brain.image)
        k, j, i = np.meshgrid(*(np.arange(n) for n in array.shape), indexing="ij")
        ball = (np.linalg.norm(np.stack([k, j, i], -1) - at, axis=-1) < 7) & (array > 0)
        image = sitk.GetImageFromArray(np.where(ball, 300, array).astype(np.float32))
        left_out = sitk.GetImageFromArray(ball.astype(np.uint8))
        for new in (image, left_out):
            new.CopyInformation(brain.image)
        return Brain(image, brain.mask, left_out)

    first, second = with_object(FIXED, (28, 36, 34)), with_object(moving, (28, 26, 20))
    result = align(first, second, "rigid")
    assert errors(found_matrix(result.transform), true)[0] < 0.5


def test_the_result_is_reproducible() -> None:
    moving = head(motion((3, -2, 4), (5, -4, 3)))
    first, second = (align(FIXED, moving, "rigid").transform for _ in range(2))
    assert np.allclose(first.GetParameters(), second.GetParameters(), atol=1e-3)


def test_the_kind_none_relies_on_the_headers() -> None:
    result = align(FIXED, FIXED, "none")
    assert np.allclose(found_matrix(result.transform), np.eye(4))
    assert result.overlap == 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="affine 'similarity' is unknown; use one of none, rigid, affine"):
        align(FIXED, FIXED, "similarity")


def test_progress_increases_and_can_cancel() -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    seen = []

    def report(fraction: float, message: str) -> None:
        seen.append(fraction)
        if fraction > 0.3:
            raise Stopped

    with pytest.raises(Stopped):
        align(FIXED, head(motion((3, -2, 4), (5, -4, 3))), "affine", report)
    assert seen == sorted(seen)


def test_images_that_cannot_be_aligned_are_refused() -> None:
    """No rigid motion aligns a brain with a rod."""
    image = FIXED.image
    array = np.zeros(sitk.GetArrayFromImage(image).shape, np.float32)
    array[2:-2, 25:31, 25:31] = np.random.default_rng(1).uniform(50, 100, (array.shape[0] - 4, 6, 6))
    rod, mask = sitk.GetImageFromArray(array), sitk.GetImageFromArray((array > 0).astype(np.uint8))
    for new in (rod, mask):
        new.CopyInformation(image)
    first = replace(FIXED, name="first")
    second = Brain(rod, mask, None, "second", "the brain mask 'rod.nii.gz' of the second study")
    for pair in ((first, second), (replace(second, name="first"), replace(first, name="second"))):
        with pytest.raises(InputError, match=r"alignment of the second study to the first study failed") as caught:
            align(*pair, "rigid")
        assert caught.value.role == next(brain.name for brain in pair if brain.image is rod)  # the one without a brain
        assert all(brain.mask_in_words in str(caught.value) for brain in pair)
        assert f"the brain mask 'rod.nii.gz' of the second study ({second.volume_ml:.0f} ml)" in str(caught.value)


def test_the_same_brains_give_the_same_transform_to_the_last_bit() -> None:
    moving = head(motion((3, -2, 4), (5, -4, 3), (1.03, 0.98, 1.0)), spacing=(2.5, 3.2, 4.0))
    first, second = (align(FIXED, moving).transform for _ in range(2))
    assert first.GetParameters() == second.GetParameters()


def test_the_number_of_threads_does_not_change_the_alignment() -> None:
    moving = head(motion((3, -2, 4), (5, -4, 3)), spacing=(6.0, 6.0, 6.0))
    found = []
    for threads in (1, 2):
        with torch_threads(threads):
            found.append(align(head(spacing=(6.0, 6.0, 6.0)), moving, "rigid").transform.GetParameters())
    assert found[0] == found[1]
