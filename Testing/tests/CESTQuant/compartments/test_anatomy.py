"""Mid-sagittal plane, alignment and regions on a synthetic brain whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from geometries import rotation
from synthetic_brains import T1_WEIGHTED, UNSATURATED, Brain, grid_around

from CESTQuantLib.compartments.anatomy.alignment import align, require_same_side
from CESTQuantLib.compartments.anatomy.cut_off import is_cut_off, touches_border
from CESTQuantLib.compartments.anatomy.midplane import find_midplane, mirrored
from CESTQuantLib.compartments.anatomy.regions import regions_of
from CESTQuantLib.compartments.anatomy.segment_names import compartment_of, compartments_and_segments, named_labels
from CESTQuantLib.compartments.anatomy.structure import head_of
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.inputs import CestMaps, Image, Masks, Settings, VisitInput
from CESTQuantLib.compartments.results.anatomy import Midplane
from CESTQuantLib.compartments.results.regions import CONTRALATERAL, WHITE_MATTER, title_of

WHOLE_HEAD = grid_around((72, 96, 80), (2.0, 2.0, 2.0))


def anatomy_of(brain: Brain, name: str = "T1") -> Image:
    return Image(name, brain.image(WHOLE_HEAD, T1_WEIGHTED), WHOLE_HEAD)


def tumor_of(brain: Brain) -> Masks:
    tissue = brain.on(WHOLE_HEAD)
    return Masks("tumour", WHOLE_HEAD, {"Oedema": tissue == 4, "Enhancing tumour": tissue == 5})


def slab_visit(brain: Brain, slices: int, seen: Brain | None = None, register: bool = True) -> VisitInput:
    """A visit with the anatomy of ``brain`` and a CEST slab, of slices of 5 mm, of ``seen`` or else of ``brain``."""
    grid = grid_around((slices, 64, 56), (2.5, 2.5, 5.0), rotation((6.0, 0.0, 0.0)))
    image = (seen or brain).image(grid, UNSATURATED, 0.02)
    cest = CestMaps("maps", grid, {"amide": image}, {"amide": ""}, image)
    return VisitInput("visit", cest, tumor_of(brain), (anatomy_of(brain),), None, register)


@pytest.mark.parametrize(
    ("turn", "shift"), [((0, 0, 0), (0, 0, 0)), ((4, 6, -11), (5, -3, 2)), ((-5, -12, 15), (-8, 4, 0))]
)
def test_the_mid_sagittal_plane_is_found_in_a_turned_brain_with_a_tumor(
    turn: tuple[float, float, float], shift: tuple[float, float, float]
) -> None:
    brain = Brain(turn, shift)
    image = anatomy_of(brain)
    tumor = brain.on(WHOLE_HEAD) >= 4
    plane = find_midplane(image, head_of(image.array), tumor, WHOLE_HEAD)
    assert plane is not None
    assert np.degrees(np.arccos(min(1.0, abs(plane.normal @ brain.normal)))) < 1.0
    assert abs((np.array(shift) - plane.point) @ plane.normal) < 1.0


def shaded(image: Image, strength: float) -> Image:
    """The image with a bias field that grows towards the right, the front and the top, as of a surface coil."""
    x, y, z = (WHOLE_HEAD.points() / 70).T
    field = np.exp(strength * (0.8 * x + 0.6 * y + 0.3 * z + 0.5 * x * y)).reshape(WHOLE_HEAD.shape)
    return replace(image, array=(image.array * field).astype(np.float32))


@pytest.mark.parametrize("turn", [(2, -4, 5), (0, 6, -8)])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_neither_a_bias_field_nor_a_large_tumor_on_one_side_tilts_the_plane(
    turn: tuple[float, float, float], side: float
) -> None:
    brain = Brain(turn, (3.0, -2.0, 1.0), tumor_scale=2.3)
    image = shaded(anatomy_of(brain), side * 0.7)
    tumor = brain.on(WHOLE_HEAD) >= 4
    assert tumor.sum() * WHOLE_HEAD.voxel_ml > 120
    plane = find_midplane(image, head_of(image.array), tumor, WHOLE_HEAD)
    assert plane is not None
    assert np.degrees(np.arccos(min(1.0, abs(plane.normal @ brain.normal)))) < 2.0
    assert abs((np.array(brain.shift_mm) - plane.point) @ plane.normal) < 2.0


COARSE_HEAD = grid_around((36, 48, 40), (4.0, 4.0, 4.0))


def coarse_visit(brain: Brain, asymmetry: float = 0.0) -> VisitInput:
    """A visit without CEST on voxels of 4 mm; ``asymmetry`` blends random blobs of 12 mm into the brain."""
    tissue = brain.on(COARSE_HEAD)
    image = brain.image(COARSE_HEAD, T1_WEIGHTED)
    blobs = np.random.default_rng(5).uniform(0.2, 1.0, [n // 3 + 1 for n in COARSE_HEAD.shape]).astype(np.float32)
    blobs = np.kron(blobs, np.ones((3, 3, 3), np.float32))[tuple(slice(n) for n in COARSE_HEAD.shape)]
    image = np.where(tissue > 0, (1 - asymmetry) * image + asymmetry * blobs, 0).astype(np.float32)
    masks = Masks("tumour", COARSE_HEAD, {"Oedema": tissue == 4, "Enhancing tumour": tissue == 5})
    return VisitInput("visit", None, masks, (Image("T1", image, COARSE_HEAD),))


def test_a_plane_that_is_no_better_than_the_scanner_s_is_not_taken() -> None:
    visit = coarse_visit(Brain())
    plane = find_midplane(visit.anatomy[0], head_of(visit.anatomy[0].array))
    assert plane is not None
    np.testing.assert_array_equal(plane.normal, (1.0, 0.0, 0.0))
    assert plane.symmetry == plane.symmetry_before
    assert plane.reasons == ()


def test_an_unusually_tilted_plane_is_doubtful_and_the_user_is_told() -> None:
    found = regions_of(coarse_visit(Brain((0, 0, 22))), Settings(), np.eye(4))
    assert found.midplane is not None
    assert any("tilted by 2" in reason for reason in found.midplane.reasons)
    assert any(
        "mid-sagittal plane is doubtful, look at the contralateral region: it is tilted" in n for n in found.notes
    )
    assert CONTRALATERAL in [region.name for region in found.regions]


def test_a_brain_that_hardly_resembles_its_mirror_image_has_a_doubtful_plane() -> None:
    found = regions_of(coarse_visit(Brain(), asymmetry=1.0), Settings(), np.eye(4))
    assert found.midplane is not None
    assert any("only moderately similar to its mirror image" in note for note in found.notes)


def test_a_brain_without_symmetry_has_no_contralateral_region_and_the_user_is_told() -> None:
    visit = coarse_visit(Brain())
    (anatomy,) = visit.anatomy
    array = anatomy.array.copy()
    array[:, :, :18] = 0  # most of one half is not shown, and what is left is no brain
    array[:, :24] = 0
    noise = np.random.default_rng(2).uniform(0.2, 1.0, array.shape)
    found = regions_of(
        replace(visit, anatomy=(replace(anatomy, array=(noise * (array > 0)).astype(np.float32)),)),
        Settings(),
        np.eye(4),
    )
    assert found.midplane is None
    assert "'T1' shows no plane of symmetry: there is no contralateral region" in found.notes
    assert CONTRALATERAL not in [region.name for region in found.regions]


def test_mirroring_twice_is_nothing() -> None:
    plane = Midplane(np.array([1.0, 2.0, 3.0]), rotation((3, 4, 5))[:, 0], 1.0)
    points = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(mirrored(mirrored(points, plane), plane), points)


def test_the_contralateral_region_is_healthy_tissue_without_fluid() -> None:
    brain = Brain((3, -4, 6))
    found = regions_of(replace(slab_visit(brain, 5), cest=None), Settings(), np.eye(4))
    regions = {region.name: region.mask for region in found.regions}
    tissue = brain.on(WHOLE_HEAD)
    mirror = tissue[regions[CONTRALATERAL]]
    assert np.isin(mirror, (2, 3)).mean() > 0.97
    assert regions[CONTRALATERAL].sum() > 0.8 * regions["whole_tumor"].sum()
    white = tissue[regions[WHITE_MATTER]]
    assert len(white) > 1000
    assert (white == 3).mean() > 0.98
    side = brain.inside(WHOLE_HEAD.points())[:, 0].reshape(WHOLE_HEAD.shape)
    assert (side[regions[WHITE_MATTER]] < 0).all()  # the tumour is on the other side


def test_a_cavity_is_left_out_of_the_reference_and_needs_no_tumor_beside_it() -> None:
    brain = Brain((3, -4, 6))
    visit = replace(slab_visit(brain, 5), cest=None)
    tissue = brain.on(WHOLE_HEAD)
    plain = {region.name: region.mask for region in regions_of(visit, Settings(), np.eye(4)).regions}
    corner = np.argwhere(plain[CONTRALATERAL]).mean(0).astype(int)
    cavity = np.zeros(WHOLE_HEAD.shape, bool)
    cavity[tuple(slice(index - 3, index + 4) for index in corner)] = True
    with_cavity = Masks("tumour", WHOLE_HEAD, {"Oedema": tissue == 4, "Resection cavity": cavity})
    found = regions_of(replace(visit, segmentation=with_cavity), Settings(), np.eye(4))
    regions = {region.name: region.mask for region in found.regions}
    assert regions[CONTRALATERAL].any()
    assert not (regions[CONTRALATERAL] & cavity).any()
    assert not (regions["whole_tumor"] & cavity).any()
    alone = Masks("tumour", WHOLE_HEAD, {"Resection cavity": tissue >= 4})
    found = regions_of(replace(visit, segmentation=alone), Settings(), np.eye(4))
    assert "no tumour is segmented: there is no contralateral region" in found.notes
    assert {"resection_cavity", WHITE_MATTER} <= {region.name for region in found.regions}
    assert CONTRALATERAL not in {region.name for region in found.regions}


def test_the_rim_has_its_width_and_no_enhancing_tissue() -> None:
    brain = Brain()
    found = regions_of(VisitInput("visit", None, tumor_of(brain)), Settings(rim_mm=4.0), np.eye(4))
    regions = {region.name: region.mask for region in found.regions}
    rim, core = regions["rim_4mm"], regions["enhancing_tumor"]
    assert not (rim & core).any()
    points = WHOLE_HEAD.points().reshape(*WHOLE_HEAD.shape, 3)
    distance = np.linalg.norm(points[rim][:, None] - points[core][None, ::3], axis=2).min(1)
    assert 3.0 < distance.max() < 6.5


def test_a_segment_that_is_called_like_a_region_keeps_its_own_place_beside_it() -> None:
    brain = Brain()
    tissue = brain.on(WHOLE_HEAD)
    names = ("White matter", "white_matter", "contralateral", "Ventricles")
    segmentation = replace(tumor_of(brain), masks={**tumor_of(brain).masks, **{name: tissue == 3 for name in names}})
    visit = VisitInput("visit", None, segmentation, (anatomy_of(brain),))
    found = regions_of(visit, Settings(), np.eye(4))
    segments = [region for region in found.regions if region.kind == "segment"]
    assert [region.name for region in segments] == [
        "White matter (segment)", "white_matter (segment 2)", "contralateral (segment)", "Ventricles"
    ]  # fmt: skip
    assert all((region.mask == (tissue == 3)).all() for region in segments)
    assert len({title_of(region.name) for region in found.regions}) == len(found.regions)
    assert sum("is named 'White matter (segment)'" in note for note in found.notes) == 1


def test_a_tumor_that_does_not_enhance_has_its_rim_around_the_core() -> None:
    tissue = Brain().on(WHOLE_HEAD)
    names = {"Oedema": tissue == 4, "Necrotic core": tissue == 5, "Enhancing tumour": np.zeros(WHOLE_HEAD.shape, bool)}
    found = regions_of(VisitInput("visit", None, Masks("tumour", WHOLE_HEAD, names)), Settings(rim_mm=3.0), np.eye(4))
    rim = next(region.mask for region in found.regions if region.name == "rim_3mm")
    assert rim.any()
    assert np.isin(tissue[rim], (4, 3, 2, 1)).all()


@pytest.mark.parametrize("slices", [3, 9])
def test_registration_finds_how_the_patient_moved(slices: int) -> None:
    brain = Brain((2, 0, 3))
    moved = replace(brain, turn_deg=(2, 0, 6), shift_mm=(4.0, -3.0, 2.0))
    found = align(slab_visit(brain, slices, moved))
    assert found is not None
    points = moved.inside(np.zeros((1, 3)))  # the origin of the slab, in the head
    expected = points @ rotation(brain.turn_deg).T
    centre = found.cest_to_anatomy[:3, 3]
    assert np.linalg.norm(centre - expected[0]) < 2.0
    assert found.verdict == "good"
    assert found.correlation_after > found.correlation_before


def test_an_anatomy_of_few_thick_slices_can_be_registered() -> None:
    brain = Brain()
    few = grid_around((3, 96, 80), (2.0, 2.0, 8.0))
    anatomy = Image("T1", brain.image(few, T1_WEIGHTED), few)
    visit = slab_visit(brain, 3, replace(brain, shift_mm=(4.0, -3.0, 0.0)))
    found = align(replace(visit, anatomy=(anatomy,)))
    assert found is not None
    assert found.source == "registered"
    assert np.linalg.norm(found.cest_to_anatomy[:2, 3] - (-4.0, 3.0)) < 2.0


def test_cest_of_another_patient_is_refused() -> None:
    visit = slab_visit(Brain(), 5, Brain(seed=9, tumor_scale=0, size=0.7))
    with pytest.raises(ValueError, match=r"do not show the same brain.*one patient"):
        align(visit)


def test_images_that_do_not_overlap_are_refused() -> None:
    visit = slab_visit(Brain(), 5, register=False)
    away = np.eye(4)
    away[:3, 3] = 0.0, 150.0, 0.0
    with pytest.raises(ValueError, match=r"overlap by \d+ % only"):
        align(replace(visit, cest_to_anatomy=away))


def test_a_transform_that_maps_the_other_way_is_refused() -> None:
    brain, shift = Brain(), np.array([6.0, 0.0, 0.0])
    moved = replace(brain, shift_mm=(-6.0, 0.0, 0.0))
    visit = slab_visit(brain, 5, moved, register=False)
    to_anatomy = np.eye(4)
    to_anatomy[:3, 3] = shift
    found = align(replace(visit, cest_to_anatomy=to_anatomy))
    assert found is not None
    assert found.verdict == "good"
    with pytest.raises(ValueError, match="maps the other way"):
        align(replace(visit, cest_to_anatomy=np.linalg.inv(to_anatomy)))


def test_a_registration_without_anatomy_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"registration needs an anatomical image"):
        align(replace(slab_visit(Brain(), 5), anatomy=()))


def test_a_header_with_left_and_right_swapped_is_refused() -> None:
    brain = Brain()
    visit = slab_visit(brain, 7, register=False)
    assert visit.cest is not None
    swapped = replace(visit.cest, unsaturated=_asymmetric(brain, visit.cest)[:, :, ::-1].copy())
    right = replace(visit.cest, unsaturated=_asymmetric(brain, visit.cest))
    plane = Midplane(np.zeros(3), brain.normal, 1.0)
    anatomy = Image("T1", _asymmetric_anatomy(brain), WHOLE_HEAD)
    for cest, fits in ((right, True), (swapped, False)):
        one = replace(visit, cest=cest, anatomy=(anatomy,))
        alignment = align(one)
        assert alignment is not None
        if fits:
            assert require_same_side(one, alignment, plane) < 1.0
        else:
            with pytest.raises(ValueError, match="left and right are swapped"):
                require_same_side(one, alignment, plane)


def _asymmetric(brain: Brain, cest: CestMaps) -> np.ndarray:
    """The slab with a slow change from left to right within tissue, as no brain is quite symmetric."""
    assert cest.unsaturated is not None
    return (cest.unsaturated * _shade(brain, cest.grid.points()).reshape(cest.grid.shape)).astype(np.float32)


def _asymmetric_anatomy(brain: Brain) -> np.ndarray:
    shade = _shade(brain, WHOLE_HEAD.points()).reshape(WHOLE_HEAD.shape)
    return (brain.image(WHOLE_HEAD, T1_WEIGHTED) / shade**2).astype(np.float32)


def _shade(brain: Brain, points: np.ndarray) -> np.ndarray:
    q = brain.inside(points)
    return 1 + 0.35 * np.sin(q[:, 0] / 6) * np.cos(q[:, 1] / 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Oedema", "edema"),
        ("ED", "edema"),
        ("Surrounding non-enhancing FLAIR hyperintensity", "edema"),
        ("Enhancing tumour", "enhancing_tumor"),
        ("Non-enhancing tumor core", "necrotic_core"),
        ("Necrotic core", "necrotic_core"),
        ("Resection cavity", "resection_cavity"),
        ("Tumour core", "tumor_core"),
        ("Whole tumour", "whole_tumor"),
        ("white matter", None),
        ("Segment_1", None),
        ("Region at 3 ppm", None),
        ("Tumour at baseline", None),
        ("Tumor T2", None),
        ("Unresected tumor", "whole_tumor"),
        ("Residual tumour after resection", None),
        ("GTV at follow-up", "whole_tumor"),
        ("Tumour without oedema", "whole_tumor"),
        ("Whole brain", None),
        ("Tumour resected", None),
        ("Tumour (resected)", None),
        ("Tumour, partially resected", None),
        ("Residual tumour beside resection cavity", None),
        ("Recurrence in resection cavity", None),
        ("Tumour at resection margin", None),
        ("Tumour with oedema", None),
        ("Tumour on FLAIR", None),
        ("Lesion on FLAIR", None),
        ("Non-enhancing tumour with oedema", None),
    ],
)
def test_names_of_segments_are_read_by_their_meaning(name: str, expected: str | None) -> None:
    assert compartment_of(name) == expected


def test_compartments_agree_with_those_of_jointregseg() -> None:
    from JointRegSegLib.images.compartments import class_of_segment
    from JointRegSegLib.images.labels import LABELS

    for name in (
        "Oedema",
        "ET",
        "Nonenhancing tumor core (NETC)",
        "Necrosis",
        "Resection cavity",
        "SNFH",
        "GD-enhancing",
        "AT",
        "T2",
        "Surrounding non-enhancing FLAIR hyperintensity",
        "Tumor without enhancement",
        "Necrosis after resection",
        "resection_cavity",
        "T2 lesion",
        "T2 signal abnormality",
        "FLAIR lesion",
        "Peri-tumour oedema",
        "Tumour resection cavity",
    ):
        number = class_of_segment(name)
        assert number is not None
        assert compartment_of(name) == LABELS[number], name


def test_each_voxel_has_one_compartment() -> None:
    one, both = np.zeros((1, 1, 4), bool), np.zeros((1, 1, 4), bool)
    one[..., :2], both[...] = True, True
    compartments, others = compartments_and_segments({"Enhancing": one, "Oedema": both, "vessel": one})
    assert (compartments["edema"] & compartments["enhancing_tumor"]).sum() == 0
    assert list(others) == ["vessel"]


def test_labels_are_named_one_by_one() -> None:
    assert named_labels("1=core, 2=oedema") == {1: "necrotic core", 2: "oedema"}
    with pytest.raises(ValueError, match="give numbers and names"):
        named_labels("core")
    with pytest.raises(ValueError, match="gives the number 0 a meaning, but 0 is always the background"):
        named_labels("0=core")
    assert named_labels("0=Background") == {0: "Background"}


def test_labels_are_named_by_the_convention_of_their_data_set() -> None:
    expected = {1: "edema", 2: "necrotic_core", 3: "enhancing_tumor"}
    assert named_labels("msd") == named_labels("MSD Task01") == expected
    assert all(compartment_of(name) == name for name in expected.values())
    with pytest.raises(ValueError, match="'brats2033', which is no known convention: use brats2021, brats2023"):
        named_labels("brats2033")
    with pytest.raises(ValueError, match="a plain mask, which names no compartment: say what its numbers mean"):
        named_labels("binary")


def cropped(image: Image, low: tuple[int, int, int], high: tuple[int, int, int]) -> Image:
    """The voxels of an image from ``low`` up to ``high`` (k, j, i)."""
    start = np.eye(4)
    start[:3, 3] = low[::-1]
    k, j, i = (slice(a, b) for a, b in zip(low, high, strict=True))
    array = image.array[k, j, i]
    return Image(image.name, array, Grid(array.shape, image.grid.ijk_to_ras @ start))


def test_a_region_is_cut_off_where_every_image_ends_within_it() -> None:
    ball = (np.linalg.norm(WHOLE_HEAD.points(), axis=1) < 60).reshape(WHOLE_HEAD.shape)
    image = Image("T1", 500 * ball.astype(np.float32), WHOLE_HEAD)
    tumor = WHOLE_HEAD.points()[np.linalg.norm(WHOLE_HEAD.points() - (0, 0, 50), axis=1) < 9]  # reaches to 59 mm
    places = np.argwhere(ball)
    around = cropped(image, tuple(places.min(0)), tuple(places.max(0) + 1))
    slab = cropped(image, (20, 0, 0), (61, 96, 80))  # up to 50 mm
    apart = cropped(image, (20, 0, 0), (50, 96, 80))
    for images, touches, reaches_beyond in (
        ((), False, False),
        ((image,), False, False),
        ((around,), False, False),  # cropped around the head, which the tumour touches
        ((slab,), True, True),
        ((slab, image), False, False),
        ((slab, apart), True, True),
    ):
        assert is_cut_off(tumor, WHOLE_HEAD, images) == touches
        assert is_cut_off(tumor, WHOLE_HEAD, images, beyond=True) == reaches_beyond
    shown = tumor[tumor[:, 2] < 50]
    assert is_cut_off(shown, WHOLE_HEAD, (slab,))
    assert not is_cut_off(shown, WHOLE_HEAD, (slab,), beyond=True)


def test_a_segmentation_that_was_cropped_around_the_tumour_does_not_touch_the_border_by_that() -> None:
    mask = np.zeros((6, 8, 8), bool)
    mask[1:5, 2:6, 2:6] = True
    assert not touches_border([mask])
    assert not touches_border([mask[1:5, 2:6, 2:6]])
    assert touches_border([mask[1:4, :, :], mask[1:4, :, :]])
