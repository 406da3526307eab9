"""Volumes over more than two visits: changes since a chosen visit and since the one before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from joint_studies import HeadStudy, exact_result

from JointRegSegLib.findings.follow_up import FollowUpRow, follow_up, reference_warnings, sentences_of_visits
from JointRegSegLib.findings.region_volumes import VOLUME_REGIONS
from JointRegSegLib.findings.result import JointResult, LesionChange, RegionVolume


@pytest.fixture(scope="module")
def result() -> JointResult:
    return exact_result(HeadStudy.of("axial"), HeadStudy.of("LPS", second=True), spacing_mm=8.0)


def pair(result: JointResult, fixed_ml: float, moving_ml: float, at_least: bool = False) -> JointResult:
    """A result in which every region has the same volume; that of the moving visit may be only the least one."""
    fixed = tuple(RegionVolume("fixed", region, fixed_ml) for region in VOLUME_REGIONS)
    moving = tuple(RegionVolume("moving", region, moving_ml, at_least=at_least) for region in VOLUME_REGIONS)
    return replace(result, volumes=fixed + moving)


def of_edema(rows: tuple[FollowUpRow, ...]) -> list[tuple]:
    return [
        (row.visit, row.volume.volume_ml, row.change_ml, row.change_percent, row.since_previous_ml)
        for row in rows
        if row.volume.region == "edema"
    ]


def test_changes_count_from_the_reference_and_from_the_visit_before(result: JointResult) -> None:
    rows = follow_up({2: pair(result, 10.0, 15.0), 3: pair(result, 10.0, 6.0)}, reference=1)
    assert of_edema(rows) == [
        (1, 10.0, 0.0, 0.0, None),
        (2, 15.0, 5.0, 50.0, 5.0),
        (3, 6.0, -4.0, -40.0, -9.0),
    ]
    assert {row.volume.region for row in rows} == set(VOLUME_REGIONS)


def test_the_reference_may_lie_between_the_others(result: JointResult) -> None:
    rows = follow_up({1: pair(result, 10.0, 4.0), 3: pair(result, 10.0, 12.0)}, reference=2)
    assert of_edema(rows) == [(1, 4.0, -6.0, -60.0, None), (2, 10.0, 0.0, 0.0, 6.0), (3, 12.0, 2.0, 20.0, 2.0)]


def test_a_visit_that_shows_the_tumor_in_part_has_no_change_and_gives_none_to_the_next(result: JointResult) -> None:
    pairs = {2: pair(result, 10.0, 7.0, at_least=True), 3: pair(result, 10.0, 6.0), 4: pair(result, 10.0, 8.0)}
    rows = follow_up(pairs, reference=1)
    assert of_edema(rows) == [
        (1, 10.0, 0.0, 0.0, None),
        (2, 7.0, None, None, None),
        (3, 6.0, -4.0, -40.0, None),
        (4, 8.0, -2.0, -20.0, 2.0),
    ]


def test_a_visit_without_the_region_gives_no_change_to_the_next(result: JointResult) -> None:
    """Only the third segmentation knows the resection cavity of the first again."""

    def without_cavity(of_visits: JointResult) -> JointResult:
        volumes = tuple(row for row in of_visits.volumes if (row.study, row.region) != ("moving", "resection_cavity"))
        return replace(of_visits, volumes=volumes)

    rows = follow_up({2: without_cavity(pair(result, 10.0, 0.0)), 3: pair(result, 10.0, 12.0)}, reference=1)
    found = [
        (row.visit, row.change_ml, row.since_previous_ml) for row in rows if row.volume.region == "resection_cavity"
    ]
    assert found == [(1, 0.0, None), (3, 2.0, None)]


def test_without_segmentations_there_are_no_rows(result: JointResult) -> None:
    assert follow_up({2: replace(result, volumes=())}, reference=1) == ()


@pytest.mark.parametrize("reference", [1, 2, 3])
def test_every_change_is_a_difference_of_volumes_of_the_table(result: JointResult, reference: int) -> None:
    """Every pair measures the reference anew, here with 20 and 26 ml."""
    first, second = (number for number in (1, 2, 3) if number != reference)
    pairs = {first: pair(result, 20.0, 18.0), second: pair(result, 26.0, 22.0)}
    rows = of_edema(follow_up(pairs, reference))
    volumes = [row[1] for row in rows]
    assert volumes[reference - 1] == 20.0
    assert [row[2] for row in rows] == [volume - 20.0 for volume in volumes]
    assert [row[4] for row in rows] == [None, volumes[1] - volumes[0], volumes[2] - volumes[1]]
    (sentence,) = reference_warnings(pairs, reference)
    assert sentence.startswith(f"every other visit is compared with visit {reference} on voxels that suit both")
    assert "oedema 20.0 to 26.0 ml (20.0 ml in the table)" in sentence
    assert reference_warnings({first: pairs[first], second: pair(result, 20.4, 22.0)}, reference) == ()
    guesses = {n: replace(p, volumes=[replace(row, seen_share=0.0) for row in p.volumes]) for n, p in pairs.items()}
    assert reference_warnings(guesses, reference) == ()


def test_a_reference_of_which_the_volume_is_not_known_has_no_change_either(result: JointResult) -> None:
    for unknown in ({"at_least": True}, {"seen_share": 0.0}):
        fixed = tuple(RegionVolume("fixed", region, 10.0, **unknown) for region in VOLUME_REGIONS)
        moving = pair(result, 10.0, 4.0).volumes[len(fixed) :]
        rows = of_edema(follow_up({2: replace(result, volumes=fixed + moving)}, reference=1))
        assert rows == [(1, 10.0, None, None, None), (2, 4.0, None, None, None)]
    assert of_edema(follow_up({2: pair(result, 0.0, 4.0)}, reference=1)) == [
        (1, 0.0, 0.0, None, None),
        (2, 4.0, 4.0, None, 4.0),
    ]


def test_the_order_of_time_is_told_where_lesions_of_an_earlier_visit_are_compared(result: JointResult) -> None:
    lesion = LesionChange("whole_tumor", 1, "growing", 5.0, 2.0, 1, 1, (0.0, 0.0, 0.0))
    pairs = {1: replace(pair(result, 10.0, 4.0), lesions=(lesion,)), 3: pair(result, 10.0, 12.0)}
    (sentence,) = reference_warnings(pairs, reference=2)
    assert "what became of a lesion from such a visit to visit 2" in sentence
    assert reference_warnings({3: pairs[1]}, reference=2) == ()


def test_what_is_told_of_a_pair_names_the_visits_and_what_concerns_the_reference_stands_once() -> None:
    of_reference = "the FLAIR image of the fixed study was aligned"
    sentences = {
        1: [of_reference, "the T1 image of the moving study is constant"],
        2: [of_reference, "the moving study is hardly like the fixed one", "the registration should be checked"],
    }
    assert sentences_of_visits(sentences, reference=3) == [
        "the FLAIR image of visit 3 was aligned",
        "visit 1: the T1 image of visit 1 is constant",
        "visit 2: visit 2 is hardly like visit 3",
        "visit 2: the registration should be checked",
    ]
