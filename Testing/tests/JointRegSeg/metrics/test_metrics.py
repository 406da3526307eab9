"""Metrics against closed forms and brute force, in mm with real spacings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.metrics.scores import (
    Landmarks,
    dice,
    inverse_consistency,
    jacobian_statistics,
    landmark_errors,
    read_landmarks,
    region_scores,
    volume_ratios,
)
from JointRegSegLib.metrics.surface_distance import HD95_ONE_EMPTY_MM, hd95, surface, surface_distances

EMPTY = np.zeros((6, 7, 8), bool)


def box(
    start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int] = (24, 20, 22)
) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def brute_force(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distances between all surface voxels, one by one."""

    def voxels(mask: np.ndarray) -> np.ndarray:
        found = []
        for k, j, i in np.argwhere(mask):
            neighbours = [(k - 1, j, i), (k + 1, j, i), (k, j - 1, i), (k, j + 1, i), (k, j, i - 1), (k, j, i + 1)]
            inside = [all(0 <= n < s for n, s in zip(p, mask.shape, strict=True)) and mask[p] for p in neighbours]
            if not all(inside):
                found.append((k, j, i))
        return np.array(found) * spacing

    first, second = voxels(a), voxels(b)
    distances = np.linalg.norm(first[:, None] - second[None], axis=2)
    return distances.min(1), distances.min(0)


@pytest.mark.parametrize("seed", range(4))
def test_surface_distances_are_those_of_brute_force(seed: int) -> None:
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
    """Of thin slabs across the whole image every distance is the shift."""
    shape = [12, 12, 12]
    start, size = [0, 0, 0], list(shape)
    start[axis], size[axis] = 3, 1
    a = box(tuple(start), tuple(size), tuple(shape))
    b = np.roll(a, 4, axis)
    assert hd95(a, b, spacing) == pytest.approx(4 * spacing[axis], rel=1e-6)


def test_hd95_leaves_out_the_farthest_twentieth() -> None:
    a = box((10, 10, 0), (1, 1, 22))
    b = a.copy()
    b[0, 10, 0] = True  # one voxel of 23, ten away
    assert hd95(a, b) == 0
    assert hd95(a, np.roll(a, 3, 1), (1, 2, 1)) == pytest.approx(6)
    few = box((10, 10, 0), (1, 1, 9))
    far = few.copy()
    far[0, 10, 0] = True  # one of ten: half way between the ninth and the tenth
    assert hd95(few, far) == pytest.approx(10 * 0.55)


def test_hd95_of_nested_cubes_is_the_distance_of_their_corners_or_faces() -> None:
    outer, inner = box((4, 4, 4), (11, 11, 11)), box((7, 7, 7), (5, 5, 5))
    there, back = surface_distances(outer, inner)
    assert there.max() == pytest.approx(3 * np.sqrt(3), rel=1e-6)
    assert back.max() == pytest.approx(3, rel=1e-6)


def test_empty_masks_follow_the_conventions_of_brats() -> None:
    full = EMPTY.copy()
    full[2:4, 2:4, 2:4] = True
    assert (dice(EMPTY, EMPTY), hd95(EMPTY, EMPTY)) == (1, 0)
    assert (dice(EMPTY, full), hd95(EMPTY, full)) == (0, HD95_ONE_EMPTY_MM)
    assert (dice(full, EMPTY), hd95(full, EMPTY)) == (0, HD95_ONE_EMPTY_MM)
    assert pytest.approx(np.linalg.norm((240, 240, 155)), abs=0.01) == HD95_ONE_EMPTY_MM
    assert (dice(full, full), hd95(full, full)) == (1, 0)


def test_dice_of_shifted_boxes_is_their_overlap() -> None:
    a = box((2, 2, 2), (4, 5, 10))
    assert dice(a, np.roll(a, 3, 2)) == pytest.approx(0.7)


def test_unusable_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, 7, 8\) and \(6, 7, 7\)"):
        hd95(EMPTY, EMPTY[..., :7])
    with pytest.raises(ValueError, match="spacing"):
        hd95(EMPTY, EMPTY, (1, 0, 1))
    with pytest.raises(ValueError, match="both must be the same"):
        dice(EMPTY, EMPTY[1:])


def test_surface_counts_the_border_of_the_image_as_outside() -> None:
    assert surface(np.ones((4, 4, 4), bool)).sum() == 64 - 8
    assert surface(box((5, 5, 5), (3, 3, 3))).sum() == 26


def test_regions_are_nested_and_scored_by_themselves() -> None:
    expected = np.zeros((12, 12, 12), np.uint8)
    expected[2:10, 2:10, 2:10] = 2
    expected[4:8, 4:8, 4:8] = 3
    expected[5:7, 5:7, 5:7] = 1
    predicted = np.where(expected == 1, 3, expected)  # the necrosis is called enhancing
    scores = region_scores(predicted, expected, (2, 1, 1))
    assert scores["dice_whole_tumor"] == scores["dice_tumor_core"] == 1
    assert scores["dice_enhancing_tumor"] == pytest.approx(2 * 56 / (64 + 56))
    assert scores["hd95_mm_tumor_core"] == 0
    assert scores["hd95_mm_enhancing_tumor"] == 0  # the outer surface, which is the same, outnumbers the hole's


def test_volume_ratios_compare_mm_not_voxels() -> None:
    before = np.zeros((8, 8, 8), np.uint8)
    before[2:6, 2:6, 2:6] = 2
    after = np.zeros((16, 8, 8), np.uint8)
    after[4:12, 2:6, 2:6] = 2
    ratios = volume_ratios(before, after, 0.5)
    assert ratios["volume_ratio_whole_tumor"] == 1
    assert np.isnan(ratios["volume_ratio_enhancing_tumor"])


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
    there, back = sitk.TranslationTransform(3, (5.0, 0, 0)), sitk.TranslationTransform(3, (-5.0, 3, 4))
    mask = np.ones((10, 10, 10), bool)
    found = inverse_consistency(there, back, image, mask, count=100)
    assert found == pytest.approx({"inverse_error_mean_mm": 5, "inverse_error_max_mm": 5})
    assert inverse_consistency(there, there.GetInverse(), image, mask)["inverse_error_max_mm"] == pytest.approx(0)


@pytest.mark.parametrize(
    "text",
    [
        "name,x,y,z\na,1,2,3\nb,4,5,6\n",
        "label,r,a,s\na,-1,-2,3\nb,-4,-5,6\n",
        "label,l,p,s\na,1,2,3\nb,4,5,6\n",
        "# Markups fiducial file version = 5.6\n# CoordinateSystem = RAS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc\n"
        "1,-1,-2,3,0,0,0,1,1,1,0,a,\n2,-4,-5,6,0,0,0,1,1,1,0,b,\n",
        "# CoordinateSystem = 1\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n1,1,2,3,0,0,0,1,1,1,0,a\n"
        "2,4,5,6,0,0,0,1,1,1,0,b\n",
    ],
)
def test_landmarks_of_any_file_become_lps(tmp_path: Path, text: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    assert read_landmarks(tmp_path / "points.csv").points == {"a": (1, 2, 3), "b": (4, 5, 6)}


def test_landmarks_without_names_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    assert list(read_landmarks(tmp_path / "points.csv").points) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n", "columns x, y, z"),
        ("x,y,z\n1,2\n", "row 1"),
        ("x,y,z\n1,2,nan\n", "not finite"),
        ("name,x,y,z\na,1,2,3\na,1,2,3\n", "'a' occurs twice"),
        ("x,y,z\n", "no point"),
        ("", "columns x, y, z"),
        ("# CoordinateSystem = IJK\nx,y,z\n1,2,3\n", "'IJK'"),
    ],
)
def test_unusable_landmarks_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_landmarks(tmp_path / "points.csv")
    assert "points.csv" in str(error.value)
    with pytest.raises(ValueError, match=r"none\.csv"):
        read_landmarks(tmp_path / "none.csv")


def test_landmarks_are_carried_from_the_fixed_to_the_moving_study() -> None:
    fixed = Landmarks({"a": (1, 0, 0), "b": (0, 2, 0), "only here": (9, 9, 9)})
    moving = Landmarks({"b": (0, 2, 7), "a": (1, 0, 3)})
    assert landmark_errors(fixed, moving, None) == pytest.approx([3, 7])
    shift = sitk.TranslationTransform(3, (0, 0, 3.0))
    assert landmark_errors(fixed, moving, shift) == pytest.approx([0, 4])
    with pytest.raises(ValueError, match="no name in common"):
        landmark_errors(fixed, Landmarks({"c": (0, 0, 0)}), None)
