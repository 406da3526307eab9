"""Lesion diameters, response categories, transitions, Jacobian and change maps with known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import rotation
from synthetic_brains import grid_around

from CESTQuantLib.compartments.anatomy.regions import RegionMasks
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.growth import followed_lesions, grid_before, maps_on_first, moved_points, transitions_of
from CESTQuantLib.compartments.inputs import Image
from CESTQuantLib.compartments.response import CAVEAT, NOT_FOLLOWED, diameters, lesions_of, response

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
    found = response(lesions_of(masks[0], GRID), lesions_of(masks[1], GRID))
    assert found.category == category
    assert found.volumes_ml == pytest.approx([float(mask.sum()) / 1000 for mask in masks])
    assert "do not replace" in found.caveat


def dots(count: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, bool)
    mask[3, 3, 3 : 3 + count] = True
    return mask


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (dots(1), dots(2), "not assessable"),
        (dots(0), dots(1), "not assessable"),
        (ball(9), dots(1), "complete response"),
        (ball(3), ball(4), "not assessable"),  # neither is measurable
        (ball(9), ball(3), "partial response"),
    ],
)
def test_voxels_of_noise_and_lesions_too_small_to_measure_make_no_category(
    before: np.ndarray, after: np.ndarray, expected: str
) -> None:
    found = response(lesions_of(before, GRID), lesions_of(after, GRID))
    assert (found.category, found.volume_category) == (expected, expected)


def masks_with(enhancing: np.ndarray) -> RegionMasks:
    return RegionMasks(GRID, (), {"enhancing_tumor": enhancing})


def test_a_lesion_is_new_where_none_was_within_what_the_registration_may_be_wrong() -> None:
    moved = sitk.TranslationTransform(3, (4.0, 0.0, 0.0))  # LPS
    old, there = ball(6, (-6, 0, 0)), ball(6, (-11, 0, 0))  # 1 mm away after the registration
    assert followed_lesions(masks_with(old), masks_with(there | ball(5, (10, 0, 0))), moved) == ({(1, 1)}, {2}, set())
    assert followed_lesions(masks_with(ball(0)), masks_with(there), moved) == (set(), {1}, set())
    assert followed_lesions(masks_with(old), masks_with(ball(0)), moved) == (set(), set(), set())
    halves = there & ~(np.abs(GRID.points()[:, 1].reshape(GRID.shape)) < 1)
    assert followed_lesions(masks_with(old), masks_with(halves), moved) == ({(1, 1), (1, 2)}, set(), set())
    far = sitk.TranslationTransform(3, (200.0, 0.0, 0.0))
    assert followed_lesions(masks_with(old), masks_with(there), far) == (set(), set(), {1})


def test_a_new_measurable_lesion_is_progressive_disease_however_much_the_others_shrank() -> None:
    before, after = (
        lesions_of(mask, GRID) for mask in (ball(13, (-6, 0, 0)), ball(5, (-6, 0, 0)) | ball(6, (12, 0, 0)))
    )
    found = response(before, after, new_measurable=1)
    assert (found.category, found.volume_category) == ("progressive disease", "progressive disease")
    assert found.caveat.startswith("1 measurable lesion is new at the second visit")
    assert response(before, after, new_measurable=0).category == "partial response"
    unknown = response(before, lesions_of(ball(6, (-6, 0, 0)) | ball(6, (12, 0, 0)), GRID))
    assert unknown.caveat.startswith("There are 2 measurable lesions instead of 1")
    assert unknown.caveat.endswith(NOT_FOLLOWED)


def test_a_lesion_that_crosses_the_measurable_size_keeps_its_product() -> None:
    """Half a millimetre more or less is neither response nor progression."""
    large, small = lesions_of(ball(4.8), GRID), lesions_of(ball(4.6), GRID)
    assert (large[0].measurable, small[0].measurable) == (True, False)
    for before, after in ((large, small), (small, large)):
        found = response(before, after, new_measurable=0, same={(1, 1)})
        assert found.products_mm2 == (before[0].product_mm2, after[0].product_mm2)
        assert found == response(before, after, new_measurable=0)  # a single lesion is the same
    shrunk = response(large, small)
    assert -50 < shrunk.product_percent < 0
    assert shrunk.category == "stable disease"


def test_several_lesions_of_which_one_crosses_the_measurable_size_have_to_be_followed() -> None:
    stays = ball(8, (-8, 0, 0))
    before, after = (lesions_of(stays | ball(radius, (12, 0, 0)), GRID) for radius in (4.6, 5.6))
    followed = response(before, after, new_measurable=0, same={(1, 1), (2, 2)})
    assert followed.products_mm2[0] == before[0].product_mm2 + before[1].product_mm2
    assert followed.category == "stable disease"
    alone = response(before, after)
    assert (alone.category, alone.volume_category) == ("not assessable", "stable disease")
    assert np.isnan(alone.product_percent)
    assert alone.caveat.startswith("2 instead of 1 of the lesions are measurable")
    assert "give the transform between the visits" in alone.caveat


def test_a_lesion_that_falls_apart_counts_with_all_of_its_parts() -> None:
    before, after = lesions_of(ball(8), GRID), lesions_of(ball(4, (-8, 0, 0)) | ball(4, (8, 0, 0)), GRID)
    found = response(before, after, new_measurable=0, same={(1, 2), (1, 1)})
    assert found.products_mm2[1] == after[0].product_mm2 + after[1].product_mm2


def test_a_response_that_is_an_operation_has_no_category() -> None:
    lesions = [lesions_of(ball(radius), GRID) for radius in (10, 3)]
    found = response(lesions[0], lesions[1], (0.0, 25.0), 0)
    assert (found.category, found.volume_category) == ("not assessable", "not assessable")
    assert found.caveat.startswith("Tumour was resected between the visits")
    unchanged = response(lesions[0], lesions[1], (25.0, 25.5), 0)
    assert (unchanged.category, unchanged.volume_category) == ("partial response", "partial response")
    assert unchanged.caveat == CAVEAT


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (10, 5, {(True, False): "partial response", (False, True): "not assessable", (True, True): "not assessable"}),
        (10, 0, {(True, False): "complete response", (False, True): "not assessable"}),
        (8, 12, {(True, False): "not assessable", (False, True): "progressive disease"}),
        (9, 9, {(True, False): "not assessable", (False, True): "not assessable"}),
    ],
)
def test_lesions_that_are_not_shown_whole_have_a_category_only_if_any_larger_size_gives_it(
    before: float, after: float, expected: dict[tuple[bool, bool], str]
) -> None:
    first, second = (lesions_of(ball(radius), GRID) for radius in (before, after))
    for cut_off, category in expected.items():
        found = response(first, second, cut_off=cut_off)
        assert (found.category, found.volume_category) == (category, category)
        assert "may not show all of the enhancing tumour at" in found.caveat
    assert response(first, second, new_measurable=1, cut_off=(True, True)).category == "progressive disease"


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
    transitions, labels, kept, grid, jacobian, left_out_ml = found
    volume = {(entry.first, entry.second): entry.volume_ml for entry in transitions}
    expected = float((ball(7) & ~ball(4)).sum()) / 1000
    assert volume["edema", "enhancing_tumor"] == pytest.approx(expected)
    number = next(i for i, e in enumerate(transitions, 1) if (e.first, e.second) == ("edema", "enhancing_tumor"))
    assert (labels == number).sum() * grid.voxel_ml == pytest.approx(expected)
    assert [entry.mean for entry in jacobian] == pytest.approx([1.0, 1.0])
    assert kept.sum() * grid.voxel_ml == pytest.approx(float((ball(10) & ~ball(7) | ball(4)).sum()) / 1000)
    assert not labels[kept].any()
    assert left_out_ml == 0


LOWER = Grid((15, 40, 40), GRID.ijk_to_ras)
"""The lower half of the grid."""
STAYS = sitk.Transform(3, sitk.sitkIdentity)


def showing(masks: RegionMasks, grid: Grid) -> RegionMasks:
    """The compartments of a visit with an anatomy on a grid."""
    return replace(masks, anatomy=(Image("T1", np.zeros(grid.shape, np.float32), grid),))


def cropped(masks: RegionMasks, low: tuple[int, int, int], grid: Grid) -> RegionMasks:
    """The compartments on a smaller grid, which starts at a voxel (k, j, i)."""
    box = tuple(slice(start, start + size) for start, size in zip(low, grid.shape, strict=True))
    return replace(masks, grid=grid, compartments={name: mask[box] for name, mask in masks.compartments.items()})


def transitions_and_rest(first: RegionMasks, second: RegionMasks) -> tuple[dict[tuple[str, str], float], float]:
    """Volumes by the compartments at both visits, and the volume that is left out."""
    found = transitions_of(first, second, STAYS)
    assert found is not None
    assert np.unique(found[1]).max() <= len(found[0])
    return {(entry.first, entry.second): entry.volume_ml for entry in found[0]}, found[-1]


def test_tumour_that_the_other_visit_does_not_show_is_no_transition() -> None:
    whole = masks_of(10, 4)
    volumes = {name: float(mask.sum()) / 1000 for name, mask in whole.compartments.items()}
    halves = {(name, name): volume / 2 for name, volume in volumes.items()}
    half = cropped(whole, (0, 0, 0), LOWER)
    transitions, left_out_ml = transitions_and_rest(whole, showing(half, LOWER))
    assert (transitions, left_out_ml) == (pytest.approx(halves), pytest.approx(sum(halves.values())))
    assert transitions_and_rest(showing(half, LOWER), whole)[0] == pytest.approx(halves)
    gone = {(name, "background"): volume / 2 for name, volume in volumes.items()}
    assert transitions_and_rest(whole, showing(half, GRID)) == (pytest.approx(halves | gone), 0)


def test_without_an_anatomy_nothing_is_known_beyond_a_segmentation_that_cuts_the_tumour_off() -> None:
    whole = masks_of(10, 4)
    half = cropped(whole, (0, 0, 0), LOWER)
    assert {second for _, second in transitions_and_rest(whole, half)[0]} == {"edema", "enhancing_tumor"}
    start = np.eye(4)
    start[:3, 3] = (10, 10, 5)
    small = cropped(masks_of(6, 4), (5, 10, 10), Grid((20, 20, 20), GRID.ijk_to_ras @ start))
    transitions, left_out_ml = transitions_and_rest(whole, small)  # cropped around the tumour
    assert ("edema", "background") in transitions
    assert left_out_ml == 0


def test_a_lesion_where_the_first_visit_shows_nothing_is_not_called_new() -> None:
    old, new = ball(6, (0, 0, -7)), ball(6, (0, 0, 8))
    first, second = masks_with(old), masks_with(old | new)
    assert followed_lesions(showing(first, GRID), second, STAYS) == ({(1, 1)}, {2}, set())
    assert followed_lesions(showing(first, LOWER), second, STAYS) == ({(1, 1)}, set(), {2})
    assert followed_lesions(showing(masks_with(old | new), LOWER), second, STAYS)[1:] == (set(), set())


def test_tissue_that_only_grew_keeps_its_compartment() -> None:
    found = transitions_of(masks_of(8, 4), masks_of(12, 6), scaled(1.5))
    assert found is not None
    transitions, _, _, _, jacobian, _ = found
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


def test_the_grid_before_a_transform_is_taken_to_all_of_the_grid_after_it() -> None:
    turned = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.2, 1.5, 0.1, (30.0, -500.0, 80.0))
    field = np.zeros((20, 20, 20, 3))
    field[..., 0] = 12 * np.sin(np.linspace(0, np.pi, 20))
    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing((10.0, 10.0, 10.0))
    image.SetOrigin((-100.0, -100.0, -100.0))
    transform = sitk.CompositeTransform([turned, sitk.DisplacementFieldTransform(image)])
    centre = np.array(turned.TransformPoint((10.0, 20.0, 0.0))) * [-1, -1, 1]
    after = Grid((12, 10, 8), np.diag([2.0, 2.0, 2.0, 1.0]))
    after.ijk_to_ras[:3, 3] = centre
    before = grid_before(after, transform)
    reached = np.floor(after.indices(moved_points(before, transform)) + 0.5).astype(int)
    inside = reached[((reached >= 0) & (reached < after.shape[::-1])).all(1)]
    assert (inside.min(0).tolist(), inside.max(0).tolist()) == ([0, 0, 0], [7, 9, 11])
    assert np.prod(before.shape) < 40_000
