"""Partial volumes: exact where the axes of the grids are parallel, close to it where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from geometries import rotation
from synthetic_brains import grid_around

from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.partial_volumes import partial_volumes


def cuboid(grid: Grid, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """Mask of the voxels from ``low`` up to but not including ``high``, both (k, j, i)."""
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_shares_are_exact_for_parallel_axes_with_any_ratio_of_voxel_sizes() -> None:
    fine = Grid((10, 10, 10), np.eye(4))
    coarse = Grid((2, 3, 3), np.diag([2.5, 2.5, 5.0, 1.0]))  # centres of its first voxel at the origin too
    mask = cuboid(fine, (0, 0, 0), (10, 2, 4))  # i from -0.5 to 3.5 mm, j to 1.5 mm, k to 9.5 mm
    share = partial_volumes({"part": mask}, fine, coarse)["part"]
    i = np.array([(1.25 + 0.5) / 2.5, (3.5 - 1.25) / 2.5, 0.0])
    j = np.array([(1.25 + 0.5) / 2.5, (1.5 - 1.25) / 2.5, 0.0])
    k = np.array([(2.5 + 0.5) / 5.0, 1.0])
    np.testing.assert_allclose(share, k[:, None, None] * j[:, None] * i, atol=1e-6)


def test_flipped_and_exchanged_axes_are_parallel_too() -> None:
    fine = grid_around((12, 14, 16), (1.0, 1.0, 1.0))
    mask = np.random.default_rng(1).random(fine.shape) < 0.4
    straight = grid_around((4, 7, 8), (2.0, 2.0, 3.0))
    expected = partial_volumes({"m": mask}, fine, straight)["m"]
    turned = Grid(
        (8, 4, 7), straight.ijk_to_ras @ np.array([[0, 0, -1, 7], [1, 0, 0, 0], [0, -1, 0, 3], [0, 0, 0, 1.0]])
    )
    found = partial_volumes({"m": mask}, fine, turned)["m"]
    np.testing.assert_allclose(found, expected[::-1].transpose(2, 0, 1)[::-1], atol=1e-6)


@pytest.mark.parametrize("turn", [(10.0, 0.0, 0.0), (12.0, -25.0, 40.0)])
def test_the_volume_of_a_mask_is_kept_on_oblique_grids(turn: tuple[float, float, float]) -> None:
    fine = grid_around((40, 40, 40), (1.0, 1.0, 1.0))
    ball = (np.linalg.norm(fine.points(), axis=1) < 12).reshape(fine.shape)
    slab = grid_around((9, 30, 30), (2.0, 2.0, 5.0), rotation(turn))
    share = partial_volumes({"ball": ball}, fine, slab)["ball"]
    assert share.sum() * slab.voxel_ml == pytest.approx(ball.sum() * fine.voxel_ml, rel=5e-3)
    assert share.max() == 1.0


def test_sampled_shares_agree_with_exact_ones() -> None:
    fine = grid_around((20, 20, 20), (1.0, 1.0, 1.0))
    mask = np.random.default_rng(2).random(fine.shape) < 0.5
    slab = grid_around((4, 10, 10), (2.0, 2.0, 5.0))
    exact = partial_volumes({"m": mask}, fine, slab)["m"]
    tilt = np.eye(4)
    tilt[:3, :3] = rotation((0.05, 0.0, 0.0))  # turned by less than matters, but more than counts as parallel
    np.testing.assert_allclose(partial_volumes({"m": mask}, fine, slab, tilt)["m"], exact, atol=0.03)


def test_a_slab_sees_a_part_of_a_mask() -> None:
    fine = grid_around((40, 20, 20), (1.0, 1.0, 1.0))
    slab = grid_around((2, 10, 10), (2.0, 2.0, 5.0))
    share = partial_volumes({"all": np.ones(fine.shape, bool)}, fine, slab)["all"]
    assert share.sum() * slab.voxel_ml == pytest.approx(0.25 * 40 * 20 * 20 / 1000)


def test_a_rigid_alignment_moves_the_slab_and_not_the_mask() -> None:
    fine = grid_around((20, 20, 20), (1.0, 1.0, 1.0))
    mask = cuboid(fine, (8, 8, 8), (12, 12, 12))
    slab = grid_around((20, 20, 20), (1.0, 1.0, 1.0))
    move = np.eye(4)
    move[:3, 3] = 3.0, 0.0, 0.0
    found = partial_volumes({"m": mask}, fine, slab, move)["m"]
    np.testing.assert_allclose(found, np.roll(mask, -3, axis=2).astype(float), atol=1e-6)
