"""Checkerboard and difference of two images."""

import numpy as np
import pytest

from JointRegSegLib.pictures.comparison import checkerboard, difference, normalized

RAMP = np.linspace(1.0, 100.0, 4 * 4 * 6).reshape(4, 4, 6)


def test_images_of_different_gain_have_the_same_scale():
    np.testing.assert_allclose(normalized(3.5 * RAMP), normalized(RAMP), atol=1e-5)
    np.testing.assert_allclose(difference(RAMP, 3.5 * RAMP), 0.0, atol=1e-5)
    assert difference(RAMP, RAMP[..., ::-1]).max() > 0.01


def test_blocks_of_both_images_alternate_in_every_direction():
    board = checkerboard(RAMP, RAMP[::-1], (2, 2, 3))
    expected = {False: normalized(RAMP), True: normalized(RAMP[::-1])}
    for k, j, i in np.ndindex(board.shape):
        odd = bool((k // 2 + j // 2 + i // 3) % 2)
        assert board[k, j, i] == expected[odd][k, j, i]


def test_missing_values_stay_missing_and_empty_images_are_no_error():
    image = RAMP.copy()
    image[0] = np.nan
    assert np.isnan(difference(RAMP, image)[0]).all()
    assert np.isfinite(difference(RAMP, image)[1:]).all()
    np.testing.assert_array_equal(normalized(np.zeros((2, 2, 2))), 0.0)


def test_images_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 6\) and \(3, 4, 6\)"):
        checkerboard(RAMP, RAMP[:3], (1, 1, 1))
