"""Surface distances against closed forms and brute force, in mm with anisotropic spacings."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.metrics.surface_distance import hd95, surface, surface_distances


def box(
    start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int] = (24, 20, 22)
) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def brute_force(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel to the nearest one of the other mask, computed between all pairs."""

    def voxels(mask: np.ndarray) -> np.ndarray:
        found = []
        for k, j, i in np.argwhere(mask):
            neighbors = [(k - 1, j, i), (k + 1, j, i), (k, j - 1, i), (k, j + 1, i), (k, j, i - 1), (k, j, i + 1)]
            inside = [all(0 <= n < s for n, s in zip(p, mask.shape, strict=True)) and mask[p] for p in neighbors]
            if not all(inside):
                found.append((k, j, i))
        return np.array(found) * spacing

    first, second = voxels(a), voxels(b)
    distances = np.linalg.norm(first[:, None] - second[None], axis=2)
    return distances.min(1), distances.min(0)


@pytest.mark.parametrize("seed", range(4))
def test_surface_distances_agree_with_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    spacing = tuple(generator.uniform(0.5, 3, 3))
    a = generator.random((9, 8, 7)) < (0.9, 0.5, 0.1, 0.97)[seed]  # thick, ragged, scattered, full of holes
    b = generator.random((9, 8, 7)) < 0.3
    found = surface_distances(a, b, spacing)
    expected = brute_force(a, b, spacing)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.sort(one), np.sort(other), rtol=1e-5, atol=1e-5)
    both = max(np.percentile(expected[0], 95), np.percentile(expected[1], 95))
    assert hd95(a, b, spacing) == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize(("axis", "spacing"), [(0, (3.0, 1, 1)), (1, (1, 0.5, 1)), (2, (1, 1, 2.0))])
def test_hd95_of_a_shifted_slab_is_the_shift(axis: int, spacing: tuple[float, float, float]) -> None:
    """All distances between two parallel slabs across the whole image are equal."""
    shape = [12, 12, 12]
    start, size = [0, 0, 0], list(shape)
    start[axis], size[axis] = 3, 1
    a = box(tuple(start), tuple(size), tuple(shape))
    b = np.roll(a, 4, axis)
    assert hd95(a, b, spacing) == pytest.approx(4 * spacing[axis], rel=1e-6)


def test_hd95_ignores_the_farthest_five_per_cent() -> None:
    a = box((10, 10, 0), (1, 1, 22))
    b = a.copy()
    b[0, 10, 0] = True  # one voxel of 23, at a distance of ten
    assert hd95(a, b) == 0
    assert hd95(a, np.roll(a, 3, 1), (1, 2, 1)) == pytest.approx(6)
    few = box((10, 10, 0), (1, 1, 9))
    far = few.copy()
    far[0, 10, 0] = True  # one of ten: the percentile lies between the ninth and the tenth
    assert hd95(few, far) == pytest.approx(10 * 0.55)


def test_hd95_of_nested_cubes_is_the_distance_of_their_corners_or_faces() -> None:
    outer, inner = box((4, 4, 4), (11, 11, 11)), box((7, 7, 7), (5, 5, 5))
    outward, inward = surface_distances(outer, inner)
    assert outward.max() == pytest.approx(3 * np.sqrt(3), rel=1e-6)
    assert inward.max() == pytest.approx(3, rel=1e-6)


def test_surface_counts_the_border_of_the_image_as_outside() -> None:
    assert surface(np.ones((4, 4, 4), bool)).sum() == 64 - 8
    assert surface(box((5, 5, 5), (3, 3, 3))).sum() == 26


def test_masks_or_spacings_that_do_not_fit_are_refused() -> None:
    mask = np.zeros((6, 7, 8), bool)
    with pytest.raises(ValueError, match=r"\(6, 7, 8\) and \(6, 7, 7\)"):
        hd95(mask, mask[..., :7])
    with pytest.raises(ValueError, match="spacing"):
        hd95(mask, mask, (1, 0, 1))
