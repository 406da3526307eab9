"""Motion correction: a head that moved is brought back, a still one keeps its images to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from moving_head import MovingHead, acquire_moving, residuals, rigid, z_protocol

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.motion import correct_motion
from CESTQuantLib.scene.preparation import prepare
from CESTQuantLib.scene.study import Study
from NeuroCESTLib.scene.geometry import Geometry

SPACING_MM = (5.0, 5.0, 5.0)
PROTOCOL = z_protocol(9)
COUNT = PROTOCOL.measurement_count
JUMP = 7
"""Measurement before which the head moves; the ones near water lie before it."""


def head(poses: np.ndarray, slices: int = 1) -> MovingHead:
    return acquire_moving(PROTOCOL, poses, (slices, 44, 37), SPACING_MM)


def still_poses() -> np.ndarray:
    return np.tile(np.eye(4), (COUNT, 1, 1))


def moved_poses(rotation_deg: tuple[float, float, float], translation_mm: tuple[float, float, float]) -> np.ndarray:
    poses = still_poses()
    poses[JUMP:] = rigid(np.array(rotation_deg), np.array(translation_mm))
    return poses


@pytest.mark.parametrize("slices", [12, 1])
def test_a_still_head_keeps_its_images_to_the_bit(slices: int) -> None:
    images = head(still_poses(), slices).noisy(100)
    images[0, 0, 0, 0] = np.nan
    corrected, motion = correct_motion(images, SPACING_MM)
    np.testing.assert_array_equal(corrected, images)
    assert not motion.moved.any()


@pytest.mark.parametrize(
    ("slices", "rotation_deg", "translation_mm"),
    [(12, (1.0, -0.5, 2.0), (2.0, -1.5, 1.0)), (1, (0.0, 0.0, 3.0), (2.0, -1.5, 0.0))],
)
def test_a_head_that_moved_is_brought_back(
    slices: int, rotation_deg: tuple[float, float, float], translation_mm: tuple[float, float, float]
) -> None:
    poses = moved_poses(rotation_deg, translation_mm)
    images = head(poses, slices).noisy(100)
    corrected, motion = correct_motion(images, SPACING_MM)
    assert motion.in_plane == (slices == 1)
    translations, rotations = residuals(motion, poses)
    bright = np.flatnonzero(motion.measured)
    assert len(bright) >= 5
    assert translations[bright].max() < 0.05 * SPACING_MM[0]
    assert rotations[bright].max() < 0.4
    still = head(np.tile(poses[motion.reference], (COUNT, 1, 1)), slices)
    middle = still.inside.copy()
    middle[[0, -1]] &= slices == 1  # what came from beyond the first and last slices is unknown
    wrong = [np.abs(found - still.images)[bright][:, middle].mean() for found in (images, corrected)]
    assert wrong[1] < 0.6 * wrong[0]


def test_dark_images_take_the_position_of_their_neighbors() -> None:
    poses = moved_poses((0.0, 0.0, 2.0), (3.0, 0.0, 0.0))
    _corrected, motion = correct_motion(head(poses).noisy(100), SPACING_MM)
    water = int(PROTOCOL.offsets_ppm.abs().argmin())
    assert not motion.measured[water]
    assert np.isnan(motion.errors_mm[water])
    neighbors = np.flatnonzero(motion.measured)
    before, after = neighbors[neighbors < water].max(), neighbors[neighbors > water].min()
    x = motion.translations_mm[:, 0]
    assert min(x[before], x[after]) <= x[water] <= max(x[before], x[after])


@pytest.mark.parametrize("offsets_ppm", [[-6, -5, -4, -3.5, 3.5, 4, 5, 6], [-6, -5, -4, -3, -2, 0, 2, 3, 4, 5, 6]])
def test_strongly_saturated_images_are_registered_to_each_other(offsets_ppm: list[float]) -> None:
    """M0 is more than twice as bright as all others, which are not too dark because of that."""
    strong = Protocol(3.0, [300.0, *offsets_ppm], 4.0, 2.0)
    poses = np.tile(np.eye(4), (strong.measurement_count, 1, 1))
    poses[JUMP:] = rigid(np.array([0.0, 0.0, 2.0]), np.array([2.0, -1.0, 0.0]))
    images = acquire_moving(strong, poses, (1, 44, 37), SPACING_MM).noisy(100)
    assert images[1:].mean((1, 2, 3)).max() < 0.5 * images[0].mean()
    _corrected, motion = correct_motion(images, SPACING_MM)
    assert motion.measured.sum() >= 0.75 * len(images)
    assert motion.measured[0]
    translations, rotations = residuals(motion, poses)
    assert translations[motion.measured].max() < 0.05 * SPACING_MM[0]
    assert rotations[motion.measured].max() < 0.6


def test_motion_that_could_hardly_be_measured_is_told() -> None:
    poses = moved_poses((0.0, 0.0, 2.0), (3.0, 0.0, 0.0))
    images = head(poses).noisy(3)  # noise hides the position of all images
    geometry = Geometry.from_lps(images.shape[1:], np.diag([*SPACING_MM, 1.0]))
    study = Study("cest", "'cest'", images, geometry, PROTOCOL, None, np.arange(images[0].size))
    ready = prepare(study, motion_correction=True)
    found = COUNT - len(ready.record["motion"]["interpolated"])
    assert found <= COUNT / 2
    assert f"the position of only {found} of the {COUNT} images of 'cest' could be measured" in ready.warnings[-2]


def test_integer_images_stay_integers_in_their_range() -> None:
    poses = moved_poses((0.0, 0.0, 3.0), (4.0, 0.0, 0.0))
    images = head(poses, 1).noisy(100).astype(np.int16)
    corrected, motion = correct_motion(images, SPACING_MM)
    assert motion.moved.any()
    assert corrected.dtype == np.int16
    assert corrected.min() >= images.min()


def test_what_cannot_be_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images, not 3"):
        correct_motion(np.ones((3, 1, 20, 20)), SPACING_MM)
    with pytest.raises(ValueError, match="found no object"):
        correct_motion(np.zeros((5, 1, 20, 20)), SPACING_MM)
