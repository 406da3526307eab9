"""Lesion diameters, response categories, transitions, Jacobian and change maps with known truth."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import rotation
from synthetic_brains import grid_around

from CESTQuantLib.compartments.anatomy.regions import RegionMasks
from CESTQuantLib.compartments.growth import maps_on_first, transitions_of
from CESTQuantLib.compartments.response import CAVEAT, diameters, lesions_of, response

GRID = grid_around((30, 40, 40), (1.0, 1.0, 1.0))


def ball(radius: float, center: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return (np.linalg.norm(GRID.points() - center, axis=1) < radius).reshape(GRID.shape)


def test_diameters_of_a_rectangle_are_its_diagonal_and_what_is_across_it() -> None:
    pixels = np.argwhere(np.ones((20, 20)))
    longest, across = diameters(pixels, np.array([1.0, 1.0]))
    assert longest == pytest.approx(20 * np.sqrt(2), rel=1e-3)
    assert across == pytest.approx(20 * np.sqrt(2), rel=0.05)


def test_diameters_of_an_ellipse_are_its_axes_whatever_its_direction() -> None:
    y, x = np.mgrid[-30:31, -30:31]
    for angle in (0.0, 0.4, 1.2):
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        pixels = np.argwhere((u / 24) ** 2 + (v / 12) ** 2 < 1)
        longest, across = diameters(pixels, np.array([0.5, 0.5]))
        assert (longest, across) == (pytest.approx(24, abs=1.0), pytest.approx(12, abs=1.0))


def test_lesions_are_counted_and_measured_apart() -> None:
    lesions = lesions_of(ball(8, (-8, 0, 0)) | ball(4, (12, 0, 0)), GRID)
    assert [lesion.measurable for lesion in lesions] == [True, False]
    assert lesions[0].longest_mm == pytest.approx(16, abs=1.5)  # within the size of a voxel
    assert lesions[0].perpendicular_mm == pytest.approx(16, abs=1.5)
    np.testing.assert_allclose(lesions[0].center, (-8, 0, 0), atol=0.3)


def test_a_cavity_is_not_measured_with_its_enhancing_wall() -> None:
    cavity = ball(9)
    wall = ball(12) & ~cavity
    (lesion,) = lesions_of(wall, GRID, cavity)
    assert not lesion.measurable
    assert lesion.longest_mm == pytest.approx(3, abs=1.5)
    assert lesions_of(wall, GRID)[0].longest_mm == pytest.approx(24, abs=1.5)
    nodule = wall | (ball(7, (14, 0, 0)) & ~cavity)
    (lesion,) = lesions_of(nodule, GRID, cavity)
    assert lesion.measurable
    assert 10 <= lesion.perpendicular_mm <= lesion.longest_mm < 18
    (apart,) = lesions_of(ball(6, (-8, 0, 0)), GRID, ball(5, (12, 0, 0)))
    assert apart.longest_mm == pytest.approx(12, abs=1.5)


@pytest.mark.parametrize(
    ("before", "after", "category"),
    [
        (9, 9, "stable disease"),
        (8, 10, "progressive disease"),
        (10, 6, "partial response"),
        (9, 0, "complete response"),
        (0, 9, "progressive disease"),
        (0, 0, "not assessable"),
    ],
)
def test_categories_of_the_response(before: float, after: float, category: str) -> None:
    masks = [ball(radius) for radius in (before, after)]
    volumes = (float(masks[0].sum()) / 1000, float(masks[1].sum()) / 1000)
    found = response(lesions_of(masks[0], GRID), lesions_of(masks[1], GRID), volumes)
    assert found.category == category
    assert "do not replace" in found.caveat


def test_a_response_that_is_an_operation_has_no_category() -> None:
    lesions = [lesions_of(ball(radius), GRID) for radius in (10, 3)]
    found = response(lesions[0], lesions[1], (4.2, 0.1), (0.0, 25.0))
    assert (found.category, found.volume_category) == ("not assessable", "not assessable")
    assert found.caveat.startswith("Tumour was resected between the visits")
    unchanged = response(lesions[0], lesions[1], (4.2, 0.1), (25.0, 25.5))
    assert (unchanged.category, unchanged.volume_category) == ("partial response", "partial response")
    assert unchanged.caveat == CAVEAT


def scaled(factor: float) -> sitk.Transform:
    transform = sitk.AffineTransform(3)
    transform.Scale(factor)
    return transform


def masks_of(edema: float, enhancing: float) -> RegionMasks:
    inner = ball(enhancing)
    return RegionMasks(GRID, (), {"edema": ball(edema) & ~inner, "enhancing_tumor": inner})


def test_oedema_that_enhances_later_is_a_transition_with_its_volume() -> None:
    found = transitions_of(masks_of(10, 4), masks_of(10, 7), sitk.Transform(3, sitk.sitkIdentity))
    assert found is not None
    transitions, labels, kept, grid, jacobian = found
    volume = {(entry.first, entry.second): entry.volume_ml for entry in transitions}
    expected = float((ball(7) & ~ball(4)).sum()) / 1000
    assert volume["edema", "enhancing_tumor"] == pytest.approx(expected)
    number = next(i for i, e in enumerate(transitions, 1) if (e.first, e.second) == ("edema", "enhancing_tumor"))
    assert (labels == number).sum() * grid.voxel_ml == pytest.approx(expected)
    assert [entry.mean for entry in jacobian] == pytest.approx([1.0, 1.0])
    assert kept.sum() * grid.voxel_ml == pytest.approx(float((ball(10) & ~ball(7) | ball(4)).sum()) / 1000)
    assert not labels[kept].any()


def test_tissue_that_only_grew_keeps_its_compartment() -> None:
    found = transitions_of(masks_of(8, 4), masks_of(12, 6), scaled(1.5))
    assert found is not None
    transitions, _, _, _, jacobian = found
    changed = sum(entry.volume_ml for entry in transitions if entry.first != entry.second)
    assert changed < 0.15 * sum(entry.volume_ml for entry in transitions)
    assert [entry.mean for entry in jacobian] == pytest.approx([1.5**3] * 2, rel=1e-3)


def test_maps_of_the_second_visit_are_interpolated_once_through_the_composed_transform() -> None:
    first, second = (
        grid_around((4, 12, 12), (2.0, 2.0, 4.0), rotation((5, 0, 0))),
        grid_around((9, 20, 20), (2.0, 2.0, 3.0)),
    )
    to_first, to_second = np.eye(4), np.eye(4)
    to_first[:3, :3], to_first[:3, 3] = rotation((0, 0, 4)), (1.0, 2.0, 0.0)
    to_second[:3, 3] = 0.0, -1.5, 1.0
    between = sitk.TranslationTransform(3, (1.0, -2.0, 0.5))  # LPS

    def ramp(points: np.ndarray) -> np.ndarray:
        return points @ np.array([1.0, 2.0, -3.0]) + 5

    array = ramp(second.points()).reshape(second.shape)
    found = maps_on_first({"q": array}, second, first, to_first, to_second, between)["q"].ravel()
    points = first.points() @ to_first[:3, :3].T + to_first[:3, 3] + [-1.0, 2.0, 0.5] - to_second[:3, 3]
    seen = np.isfinite(found)
    np.testing.assert_allclose(found[seen], ramp(points)[seen], rtol=1e-5, atol=1e-4)
    assert seen.mean() > 0.9
