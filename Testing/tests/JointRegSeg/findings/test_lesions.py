"""Lesions of two visits matched through the registration: none is hidden by the total volume."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.findings.lesion_status import lesion_warnings
from JointRegSegLib.findings.lesions import exchanged, lesion_changes
from JointRegSegLib.findings.result import LesionChange

IDENTITY = sitk.Transform(3, sitk.sitkIdentity)
SHAPE = (40, 60, 50)
ENHANCING = 3


def labels(*balls: tuple[tuple[int, int, int], float], spacing_mm: float = 2.0) -> sitk.Image:
    """Return labels with enhancing balls of a centre (K, J, I) and a radius in voxels."""
    array = np.zeros(SHAPE, np.uint8)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    for center, radius in balls:
        array[np.linalg.norm(index - center, axis=-1) <= radius] = ENHANCING
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing_mm,) * 3)
    return image


def changes(fixed: sitk.Image, moving: sitk.Image, shift_mm: float = 0.0) -> list[LesionChange]:
    """Return the enhancing lesions of a moving study that lies ``shift_mm`` further along x."""
    there = sitk.TranslationTransform(3, (shift_mm, 0.0, 0.0))
    rows = lesion_changes(fixed, moving, there, there.GetInverse())
    return [row for row in rows if row.region == "enhancing_tumor"]


def test_every_lesion_has_its_own_fate() -> None:
    places = {"growing": (10, 10, 10), "stable": (10, 45, 10), "shrinking": (30, 10, 40), "vanished": (30, 45, 40)}
    fixed = labels(*((place, 4.0) for place in places.values()))
    moving = labels((places["growing"], 6.0), (places["stable"], 4.0), (places["shrinking"], 2.5), ((10, 25, 40), 3.0))
    found = {row.status: row for row in changes(fixed, moving)}
    assert set(found) == {"growing", "stable", "shrinking", "vanished", "new"}
    for status, (k, j, i) in places.items():
        assert np.allclose(found[status].center_ras_mm, (-2.0 * i, -2.0 * j, 2.0 * k), atol=1.0)
    assert found["new"].change_percent is None
    assert found["stable"].change_ml == 0
    assert sorted(row.number for row in found.values()) == [1, 2, 3, 4, 5]


def test_lesions_are_matched_through_the_registration() -> None:
    """Without the transform, the lesion would be taken for a vanished and a new one."""
    fixed = labels(((20, 30, 15), 4.0))
    moving = labels(((20, 30, 35), 4.0))
    assert [row.status for row in changes(fixed, moving, shift_mm=40.0)] == ["stable"]
    assert sorted(row.status for row in changes(fixed, moving)) == ["new", "vanished"]


def test_what_a_cavity_has_replaced_was_resected() -> None:
    before = labels(((12, 20, 12), 6.0), ((12, 45, 12), 6.0), ((30, 20, 38), 6.0))
    array = sitk.GetArrayFromImage(labels(((12, 20, 15), 3.0)))
    cavities = sitk.GetArrayFromImage(labels(((12, 20, 11), 5.0), ((12, 45, 12), 6.0)))
    after = sitk.GetImageFromArray(np.where((array == 0) & (cavities > 0), 4, array).astype(np.uint8))
    after.CopyInformation(before)
    found = {tuple(round(abs(value) / 2) for value in row.center_ras_mm): row for row in changes(before, after)}
    assert {place: row.status for place, row in found.items()} == {
        (12, 20, 12): "partly resected",
        (12, 45, 12): "resected",
        (38, 20, 30): "vanished",
    }


def test_a_nodule_beside_a_lesion_that_vanished_is_new_and_is_told() -> None:
    before = labels(((20, 25, 20), 9.0))
    after = labels(((20, 25, 33), 2.5))
    rows = changes(before, after)
    assert sorted(row.status for row in rows) == ["new", "vanished"]
    (message,) = lesion_warnings(rows)
    assert message.startswith("the enhancing tumour shrank by 97 % in total, but there is 1 new lesion (0.6 ml)")


def test_a_nodule_on_the_rim_of_a_shrinking_lesion_is_new_too() -> None:
    """Both are one connected part, but the nodule reaches well beyond the former extent of the lesion."""
    before = labels(((20, 25, 20), 8.0))
    after = labels(((20, 25, 20), 5.0), ((20, 25, 28), 5.5))
    found = {row.status: row for row in changes(before, after)}
    assert set(found) == {"shrinking", "new"}
    assert found["new"].moving_ml > 0.3


@pytest.mark.parametrize(("reach", "status"), [(30, "stable"), (46, "growing")])
def test_a_lesion_that_grows_to_one_side_is_one_lesion_however_much_it_grows(reach: int, status: str) -> None:
    before = labels(((20, 25, 20), 8.0))
    after = labels(((20, 25, 20), 8.0), *(((20, 25, i), 4.0) for i in range(26, reach)))
    (row,) = changes(before, after)
    assert (row.status, row.fixed_parts, row.moving_parts) == (status, 1, 1)


def test_lesions_of_an_earlier_moving_study_keep_the_status_of_the_order_of_time() -> None:
    """The later study is the fixed one, whose points lie 40 mm further along x in the earlier one."""
    earlier, later = labels(((20, 30, 35), 4.0)), labels(((20, 30, 15), 6.0), ((8, 10, 10), 3.0))
    there = sitk.TranslationTransform(3, (40.0, 0.0, 0.0))
    in_order = lesion_changes(earlier, later, there.GetInverse(), there)
    growing, new = (row for row in exchanged(in_order, there.GetInverse()) if row.region == "enhancing_tumor")
    assert (growing.status, new.status) == ("growing", "new")
    assert growing.fixed_ml > growing.moving_ml > 0
    assert new.moving_ml == new.moving_parts == 0 < new.fixed_ml
    assert growing.center_ras_mm == pytest.approx((-30.0, -60.0, 40.0), abs=0.1)
    assert new.center_ras_mm == pytest.approx((-20.0, -20.0, 16.0), abs=0.1)
    assert lesion_warnings(in_order) == ()


def test_a_lesion_that_falls_apart_is_one_lesion() -> None:
    before = labels(((20, 20, 20), 5.0), ((20, 28, 20), 5.0))
    after = labels(((20, 18, 20), 3.0), ((20, 30, 20), 3.0))
    (row,) = changes(before, after)
    assert (row.status, row.fixed_parts, row.moving_parts) == ("shrinking", 1, 2)


@pytest.mark.parametrize(("radius", "count"), [(2.0, 1), (1.0, 0)])
def test_parts_of_less_than_a_tenth_of_a_millilitre_do_not_count(radius: float, count: int) -> None:
    assert len(changes(labels(), labels(((20, 30, 20), radius)))) == count


def cuboid(*sizes: int) -> sitk.Image:
    """Labels with one enhancing cuboid of voxels of 1 mm³."""
    array = np.zeros(SHAPE, np.uint8)
    array[tuple(slice(10, 10 + size) for size in sizes)] = ENHANCING
    return sitk.GetImageFromArray(array)


def test_a_lesion_near_the_smallest_volume_is_neither_new_nor_vanished() -> None:
    larger, smaller, noise = cuboid(3, 4, 9), cuboid(3, 3, 11), cuboid(3, 3, 3)  # 0.108, 0.099 and 0.027 ml
    for fixed, moving in ((larger, smaller), (smaller, larger)):
        (row,) = changes(fixed, moving)
        assert (row.status, row.fixed_parts, row.moving_parts) == ("stable", 1, 1)
    assert changes(smaller, smaller) == []
    assert [row.status for row in changes(larger, noise)] == ["vanished"]
    assert [row.status for row in changes(noise, larger)] == ["new"]


def test_a_place_that_the_other_visit_does_not_show_is_not_called_new() -> None:
    moving = labels(((20, 30, 45), 4.0))
    fixed = labels()[:30, :, :]
    assert [row.status for row in changes(fixed, moving)] == ["not covered"]


def test_beyond_given_labels_that_were_cropped_the_images_show_that_there_is_no_lesion() -> None:
    """Labels are often kept in a box around the tumour."""
    old, new = ((20, 30, 15), 4.0), ((8, 10, 40), 3.0)
    cropped, whole, field = labels(old)[:30, 15:45, :], labels(old, new), labels()
    there = lesion_changes(cropped, whole, IDENTITY, IDENTITY, fields=(field, field), given=(True, True))
    assert [row.status for row in there if row.region == "enhancing_tumor"] == ["stable", "new"]
    back = lesion_changes(whole, cropped, IDENTITY, IDENTITY, fields=(field, field), given=(True, True))
    assert [row.status for row in back if row.region == "enhancing_tumor"] == ["stable", "vanished"]
    slab = lesion_changes(cropped, whole, IDENTITY, IDENTITY, fields=(field[:30], field), given=(True, True))
    assert [row.status for row in slab if row.region == "enhancing_tumor"] == ["stable", "not covered"]


def test_guessed_regions_and_single_segmentations_have_no_lesions() -> None:
    image = labels(((20, 30, 20), 4.0))
    assert lesion_changes(image, None, IDENTITY, IDENTITY) == ()
    rows = lesion_changes(image, image, IDENTITY, IDENTITY, guessed=("enhancing_tumor",))
    assert {row.region for row in rows} == {"whole_tumor"}


def test_a_place_that_no_image_of_the_other_visit_shows_is_not_covered() -> None:
    """The moving visit shows nothing in the upper slices, where the fixed one has a lesion; and the other way round."""
    fixed, moving = labels(((30, 20, 15), 4.0), ((8, 20, 15), 4.0)), labels(((8, 20, 15), 4.0))
    array = np.zeros(SHAPE, np.uint8)
    array[20:] = 1
    upper = sitk.GetImageFromArray(array)
    upper.CopyInformation(fixed)
    unseen = {"enhancing_tumor": upper}
    for first, second, hidden in ((fixed, moving, ({}, unseen)), (moving, fixed, (unseen, {}))):
        rows = lesion_changes(first, second, IDENTITY, IDENTITY, (), hidden)
        found = [row.status for row in rows if row.region == "enhancing_tumor"]
        assert sorted(found) == ["not covered", "stable"]
    own = lesion_changes(fixed, moving, IDENTITY, IDENTITY, (), (unseen, {}))  # nothing is known of it in its own visit
    assert [row.status for row in own if row.region == "enhancing_tumor"] == ["stable"]
    drawn = lesion_changes(fixed, moving, IDENTITY, IDENTITY, (), (unseen, {}), given=(True, True))
    assert sorted(row.status for row in drawn if row.region == "enhancing_tumor") == ["stable", "vanished"]


def test_what_lies_beyond_the_slices_of_the_first_visit_is_not_new_beside_a_lesion() -> None:
    """Both visits have the same lesion, of which the fixed one shows the lower part only."""
    both = labels(((20, 30, 25), 9.0))
    array = np.zeros(SHAPE, np.uint8)
    array[18:] = 1
    upper = sitk.GetImageFromArray(array)
    upper.CopyInformation(both)
    rows = lesion_changes(both, both, IDENTITY, IDENTITY, (), ({"enhancing_tumor": upper}, {}))
    assert not [row for row in rows if row.region == "enhancing_tumor" and row.status == "new"]


def test_a_bulge_that_reaches_from_the_old_part_of_a_lesion_that_was_not_shown_is_no_new_lesion() -> None:
    """Of the bulge and the old tumour below it, which are connected, only 0.4 ml lie where both visits show."""
    before = labels(((20, 30, 20), 8.0))
    array = sitk.GetArrayFromImage(before)
    array[15:23, 28:33, 28:36] = ENHANCING
    after = sitk.GetImageFromArray(array)
    after.CopyInformation(before)
    (row,) = enhancing(before[:, :, 21:], after, IDENTITY, IDENTITY)
    assert (row.status, row.change_ml) == ("covered in part", None)
    assert row.moving_ml == pytest.approx(0.008 * np.count_nonzero(array))


def upper_hidden(first_slice: int) -> dict[str, sitk.Image]:
    """Return a mask of the slices from one on, in which no image shows the enhancing tumour."""
    array = np.zeros(SHAPE, np.uint8)
    array[first_slice:] = 1
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(labels())
    return {"enhancing_tumor": image}


def enhancing(*args: object, **options: object) -> list[LesionChange]:
    rows = lesion_changes(*args, **options)  # type: ignore[arg-type]
    return [row for row in rows if row.region == "enhancing_tumor"]


@pytest.mark.parametrize("ends", ["the field of view", "what the images show"])
def test_a_lesion_that_one_visit_shows_in_part_neither_shrank_nor_grew(ends: str) -> None:
    """The lesion is the same at both visits; only its lower half, up to slice 20, is shown by one of them."""
    whole, lower = labels(((20, 30, 25), 8.0)), labels(((20, 30, 25), 8.0))[:, :, :20]
    hidden: dict[str, sitk.Image] = {}
    if ends != "the field of view":
        hidden = upper_hidden(20)
        lower = sitk.Mask(whole, hidden["enhancing_tumor"] == 0)
    (later,) = enhancing(whole, lower, IDENTITY, IDENTITY, hidden=({}, hidden))
    (earlier,) = enhancing(lower, whole, IDENTITY, IDENTITY, hidden=(hidden, {}))
    for row in (later, earlier):
        assert (row.status, row.change_ml, row.change_percent) == ("covered in part", None, None)
    assert later.moving_unseen_ml == earlier.fixed_unseen_ml == pytest.approx(later.fixed_ml - later.moving_ml)
    assert later.fixed_unseen_ml == earlier.moving_unseen_ml == 0.0


def test_a_status_that_holds_with_and_without_what_is_not_shown_is_kept_without_a_change() -> None:
    small, large = ((20, 30, 25), 5.0), ((20, 30, 25), 9.0)
    unseen = upper_hidden(23)
    (row,) = enhancing(labels(small), labels(large), IDENTITY, IDENTITY, hidden=(unseen, {}))
    assert (row.status, row.change_ml) == ("growing", None)
    (row,) = enhancing(labels(large), labels(small), IDENTITY, IDENTITY, hidden=({}, unseen))
    assert (row.status, row.change_ml) == ("shrinking", None)
    (row,) = enhancing(labels(large), labels(large), IDENTITY, IDENTITY, hidden=({}, upper_hidden(28)))
    assert (row.status, row.change_ml) == ("stable", None)


def test_of_a_lesion_that_the_other_visit_shows_in_part_only_the_least_is_said() -> None:
    """Most of its place is shown and holds nothing: it may have been there before, or be left, in the rest."""
    lesion, nothing, unseen = labels(((20, 30, 25), 6.0)), labels(), upper_hidden(23)
    (row,) = enhancing(nothing, lesion, IDENTITY, IDENTITY, hidden=(unseen, {}))
    assert (row.status, row.change_ml) == ("growing", None)
    (row,) = enhancing(lesion, nothing, IDENTITY, IDENTITY, hidden=({}, unseen))
    assert (row.status, row.change_ml) == ("shrinking", None)
    (row,) = enhancing(lesion, nothing, IDENTITY, IDENTITY, hidden=({}, upper_hidden(16)))
    assert (row.status, row.change_ml) == ("covered in part", None)


def test_lesions_that_are_not_covered_whole_do_not_make_a_total_that_shrinks() -> None:
    """The second visit ends below one lesion and in another, shows a third as it was, and a new one."""
    same, cut, beyond, new = ((8, 20, 10), 5.0), ((18, 20, 35), 6.0), ((32, 20, 10), 6.0), ((8, 45, 10), 3.0)
    fixed, moving = labels(same, cut, beyond), labels(same, cut, beyond, new)[:, :, :20]
    rows = enhancing(fixed, moving, IDENTITY, IDENTITY)
    assert sorted(row.status for row in rows) == ["covered in part", "new", "not covered", "stable"]
    assert lesion_warnings(rows) == ()
    gone = ((8, 45, 40), 6.0)
    rows = enhancing(labels(same, gone, beyond), moving, IDENTITY, IDENTITY)
    (message,) = lesion_warnings(rows)
    assert "the enhancing tumour, as far as both visits show its lesions whole, shrank by" in message


def test_of_a_lesion_that_both_visits_cut_off_at_one_place_nothing_tells_whether_it_changed() -> None:
    whole, cut = ((9, 20, 25), 4.0), ((20, 40, 25), 6.0)
    hidden = upper_hidden(22)
    slab, upper_unseen = labels(whole, cut)[:, :, :22], sitk.Mask(labels(whole, cut), hidden["enhancing_tumor"] == 0)
    regions = {"enhancing_tumor"}
    for study, unseen in ((slab, {}), (upper_unseen, hidden)):
        first, second = enhancing(study, study, IDENTITY, IDENTITY, hidden=(unseen, unseen), cut_off=(regions, regions))
        assert (first.status, first.change_ml, first.fixed_at_least) == ("covered in part", None, True)
        assert (second.status, second.change_ml, second.fixed_at_least) == ("stable", 0.0, False)
        # Images that were cropped around the brain end there, too, but show all of the lesion.
        cropped = enhancing(study, study, IDENTITY, IDENTITY, hidden=(unseen, unseen))
        assert [(row.status, row.change_ml) for row in cropped] == [("stable", 0.0)] * 2


def test_a_lesion_at_one_visit_alone_that_may_go_on_where_neither_shows_it_is_called_by_the_least() -> None:
    lesion, nothing = labels(((20, 40, 25), 6.0))[:, :, :22], labels()[:, :, :22]
    regions = {"enhancing_tumor"}
    (row,) = enhancing(nothing, lesion, IDENTITY, IDENTITY, cut_off=((), regions))
    assert (row.status, row.change_ml, row.moving_at_least) == ("growing", None, True)
    (row,) = enhancing(lesion, nothing, IDENTITY, IDENTITY, cut_off=(regions, ()))
    assert (row.status, row.change_ml, row.fixed_at_least) == ("shrinking", None, True)
