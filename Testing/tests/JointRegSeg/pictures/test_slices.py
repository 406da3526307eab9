"""Which slice a picture shows, how it is turned, and the checkerboard of two studies."""

from __future__ import annotations

import numpy as np
from joint_studies import layered_tumor

from JointRegSegLib.pictures.slices import SQUARES, as_bright_as, axial, checkerboard, fullest_slice


def test_the_fullest_slice_shows_all_compartments() -> None:
    labels, brain = layered_tumor(), np.ones((14, 20, 20), bool)
    assert fullest_slice(labels, brain) == 9
    assert fullest_slice(labels.transpose(1, 0, 2), brain.transpose(1, 0, 2), axis=1) == 9
    assert fullest_slice(np.where(labels == 2, labels, 0), brain) in (3, 4, 5)


def test_without_a_tumor_the_fullest_slice_shows_most_of_the_brain() -> None:
    brain = np.ones((14, 20, 20), bool)
    brain[:5] = False
    assert fullest_slice(np.zeros_like(brain, np.uint8), brain) == 5
    assert fullest_slice(None, brain) == 5


def test_axial_slices_are_in_radiological_view() -> None:
    volume = np.zeros((2, 3, 4))  # superior, anterior, right
    volume[1, 2, 3] = 1  # the most anterior voxel on the patient's right
    assert axial(volume, 1)[0, 0] == 1


def test_a_checkerboard_has_equal_squares_of_both_pictures() -> None:
    board = checkerboard(np.zeros((32, 64)), np.ones((32, 64)))
    side = 64 // SQUARES
    assert not board[:side, :side].any()
    assert board[:side, side : 2 * side].all()
    assert board[side : 2 * side, :side].all()
    assert board.mean() == 0.5


def test_squares_of_a_checkerboard_are_square_on_the_screen_where_pixels_are_not() -> None:
    board = checkerboard(np.zeros((20, 40)), np.ones((20, 40)), aspect=2.0)  # 40 x 40 on the screen
    assert not board[:2, :5].any()
    assert board[3:5, :5].all()


def test_a_picture_of_another_gain_is_made_as_bright_as_the_other() -> None:
    first = np.zeros((20, 20))
    first[4:16, 4:16] = np.random.default_rng(1).uniform(100, 200, (12, 12))
    second = np.where(first == 0, 0, 3 * first + 40)
    np.testing.assert_allclose(as_bright_as(second, first), first, rtol=1e-9)


def test_a_picture_without_contrast_is_left_as_it_is() -> None:
    picture = np.full((4, 4), 7.0)
    assert as_bright_as(picture, np.arange(16.0).reshape(4, 4)) is picture
    assert as_bright_as(np.zeros((4, 4)), picture).max() == 0
