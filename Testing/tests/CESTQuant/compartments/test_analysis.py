"""The analysis of whole visits on a synthetic brain: oblique slabs, partial coverage, mean spectra, swapped visits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometries import rotation
from synthetic_brains import T1_WEIGHTED, UNSATURATED, Brain, grid_around

from CESTQuantLib.compartments.analysis import _coverage_notes, analyze, analyze_visit
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.growth import registration_quality
from CESTQuantLib.compartments.inputs import Acquisition, CestMaps, Image, Masks, Settings, VisitInput
from CESTQuantLib.compartments.region_spectra import _engine_errors, region_spectrum
from CESTQuantLib.compartments.results.regions import Region
from CESTQuantLib.methods.base import Settings as MethodSettings
from CESTQuantLib.methods.model_fit import ENGINE_BIAS
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

HEAD = grid_around((72, 96, 80), (2.0, 2.0, 2.0))
AMIDE = np.array([np.nan, 0.0, 0.03, 0.02, 0.03, 0.06])
"""Amide in each tissue of the synthetic brain."""
QUICK = Settings(draws=50, perturbations=4)


def visit_of(brain: Brain, name: str = "visit", slices: int = 6, noise: float = 0.001) -> VisitInput:
    """A visit whose oblique slab shows the amide of each tissue."""
    grid = grid_around((slices, 72, 60), (2.5, 2.5, 5.0), rotation((10.0, 4.0, 0.0)))
    tissue = brain.on(grid)
    amide = AMIDE[tissue] + noise * np.random.default_rng(brain.seed).standard_normal(grid.shape)
    maps = {"amide": amide.astype(np.float32), "amide_sd": np.full(grid.shape, noise, np.float32)}
    whole = brain.on(HEAD)
    masks = Masks("tumour", HEAD, {"Oedema": whole == 4, "Enhancing tumour": whole == 5})
    anatomy = Image("T1", brain.image(HEAD, T1_WEIGHTED), HEAD)
    unsaturated = brain.image(grid, UNSATURATED, 0.02)
    return VisitInput(name, CestMaps("maps", grid, maps, {"amide": ""}, unsaturated), masks, (anatomy,))


def test_numbers_of_an_oblique_slab_are_those_of_the_tissue() -> None:
    brain = Brain((3, 0, 5))
    found, _ = analyze_visit(visit_of(brain), QUICK)
    enhancing, edema = found.row("enhancing_tumor", "amide"), found.row("edema", "amide")
    assert enhancing is not None
    assert edema is not None
    assert enhancing.median == pytest.approx(0.06, rel=0.02)
    assert enhancing.variance_weighted_mean == pytest.approx(enhancing.mean, rel=1e-3)
    assert edema.median == pytest.approx(0.03, rel=0.03)
    white = found.row("white_matter", "amide")
    assert white is not None
    assert white.mean == pytest.approx(0.02, rel=0.05)
    assert enhancing.n_effective <= enhancing.n
    assert enhancing.mean_se_alignment > 0
    assert found.alignment is not None
    assert found.alignment.verdict == "good"
    reference = found.row("contralateral", "amide")
    assert reference is not None
    assert enhancing.ratio == pytest.approx(enhancing.mean / reference.mean)


def test_the_share_of_each_compartment_in_the_slab_is_told() -> None:
    brain = Brain()
    visit = visit_of(brain, slices=2)
    found, _ = analyze_visit(visit, QUICK)
    whole = found.region("whole_tumor")
    assert whole is not None
    assert visit.cest is not None
    points = HEAD.points()[(brain.on(HEAD) >= 4).ravel()]
    inside = (np.abs(visit.cest.grid.indices(points) - (np.array([60, 72, 2]) - 1) / 2) <= np.array([30, 36, 1])).all(1)
    assert whole.coverage == pytest.approx(inside.mean(), abs=0.02)
    assert whole.coverage < 0.6
    assert any("covers the tumour in part" in text and "whole tumour" in text for text in found.warnings)


def test_an_empty_segmentation_needs_a_tumour_at_the_other_visit() -> None:
    empty = replace(
        visit_of(Brain(), "after"), segmentation=Masks("nothing", HEAD, {"Oedema": np.zeros(HEAD.shape, bool)})
    )
    for other in (None, replace(empty, name="later"), replace(empty, name="later", segmentation=None)):
        with pytest.raises(ValueError, match="'nothing' is empty: no voxel is set"):
            analyze(empty, other, QUICK)
    before = replace(visit_of(Brain(), "before"), cest=None)
    found = analyze(before, empty, QUICK, sitk.Transform(3, sitk.sitkIdentity))
    assert any("'nothing' is empty, so that this visit counts as one without" in note for note in found.warnings)
    assert found.visits[1].row("white_matter", "amide") is not None


def test_the_error_of_the_solution_is_in_the_unit_of_its_quantity() -> None:
    summary = {f"{ENGINE_BIAS}amide.fraction": 0.5, f"{ENGINE_BIAS}water.T2_s": 2.0, "noise_sd": 0.1}
    values = {"amide_fraction": (1e-3, 4e-5), "water_r2_Hz": (8.0, 0.1)}
    assert _engine_errors(summary, values) == pytest.approx({"amide_fraction": 2e-5, "water_r2_Hz": 0.2})


def test_a_compartment_smaller_than_a_voxel_is_told() -> None:
    weights = np.zeros((1, 2, 2), np.float32)
    weights[0, 0, 0] = 0.1
    core = Region("necrotic_core", "tumor", weights, np.ones((1, 1, 1), bool), 0.004, 0.004)
    assert _coverage_notes("v1", [core]) == [
        "no CEST voxel lies in it by half or more, so that there are no numbers of: necrotic core"
    ]


def test_two_visits_of_one_brain_change_by_what_they_differ() -> None:
    first, second = visit_of(Brain(), "before"), visit_of(Brain(tumor_scale=1.15), "after")
    assert second.cest is not None
    later = {**second.cest.maps, "amide": second.cest.maps["amide"] + 0.01}
    second = replace(second, cest=replace(second.cest, maps=later))
    found = analyze(first, second, QUICK, sitk.Transform(3, sitk.sitkIdentity))
    assert found.between is not None
    changes = {(row.region, row.quantity): row for row in found.between.changes}
    change = changes["enhancing_tumor", "amide"]
    assert change.lower < 0.01 < change.upper
    assert change.change == pytest.approx(0.01, abs=0.002)
    assert changes["whole_tumor", "volume"].percent > 30
    grown = {(entry.first, entry.second) for entry in found.between.transitions}
    assert ("edema", "enhancing_tumor") in grown
    assert np.nanmedian(found.between.change_maps["amide"]) == pytest.approx(0.01, abs=1e-3)
    assert found.between.registration["with"] > 0.5


def segmented(name: str, **masks: np.ndarray) -> VisitInput:
    """A visit without CEST that has a segmentation alone."""
    return VisitInput(name, None, Masks("tumour", HEAD, masks))


def ball(radius_mm: float, center: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return (np.linalg.norm(HEAD.points() - center, axis=1) < radius_mm).reshape(HEAD.shape)


def test_an_enhancing_tumour_that_is_gone_or_new_is_a_response() -> None:
    with_tumor = segmented("with", edema=ball(20), enhancing=ball(12))
    without = segmented("without", edema=ball(20), enhancing=ball(0))
    for visits, category in (
        ((with_tumor, without), "complete response"),
        ((without, with_tumor), "progressive disease"),
    ):
        between = analyze(*visits, QUICK).between
        assert between is not None
        assert between.response is not None
        assert (between.response.category, between.response.volume_category) == (category, category)


def test_a_segmentation_that_does_not_know_the_enhancing_tumour_is_told() -> None:
    found = analyze(segmented("first", enhancing=ball(12)), segmented("second", edema=ball(20)), QUICK)
    assert found.between is not None
    assert found.between.response is None
    assert any("the segmentation of second does not know an enhancing tumour" in text for text in found.warnings)
    never = analyze(segmented("first", edema=ball(12)), segmented("second", edema=ball(20)), QUICK)
    assert not any("RANO" in text for text in never.warnings)


def test_lesions_are_followed_by_the_transform_between_the_visits() -> None:
    new = ball(8, (40, 0, 0))
    first, second = segmented("first", enhancing=ball(20)), segmented("second", enhancing=ball(8) | new)
    between = analyze(first, second, QUICK, sitk.Transform(3, sitk.sitkIdentity)).between
    assert between is not None
    assert between.response is not None
    assert (between.response.category, between.response.new_measurable) == ("progressive disease", 1)
    alone = analyze(first, second, QUICK).between
    assert alone is not None
    assert alone.response is not None
    assert (alone.response.category, alone.response.new_measurable) == ("partial response", None)
    small = segmented("first", enhancing=ball(8))
    far = analyze(small, segmented("second", enhancing=ball(20)), QUICK, sitk.TranslationTransform(3, (500.0, 0, 0)))
    assert far.between is not None
    assert far.between.response is not None
    assert far.between.response.category == "not assessable"
    assert any("lie beyond the segmentation or the anatomy of first" in text for text in far.warnings)


def test_lesions_that_cross_the_measurable_size_are_followed_by_the_transform() -> None:
    stays = ball(12, (-20, 0, 0))
    first, second = (segmented(f"{radius}", enhancing=stays | ball(radius, (20, 0, 0))) for radius in (4, 7))
    between = analyze(first, second, QUICK, sitk.Transform(3, sitk.sitkIdentity)).between
    assert between is not None
    assert between.response is not None
    assert between.response.category == "stable disease"
    assert between.response.products_mm2[0] > 576 + 36  # 24 mm squared, and something of the small one
    alone = analyze(first, second, QUICK).between
    assert alone is not None
    assert alone.response is not None
    assert alone.response.category == "not assessable"


def test_a_transform_that_maps_the_other_way_is_refused() -> None:
    first, second = visit_of(Brain()), visit_of(Brain(shift_mm=(0.0, 12.0, 0.0)), "later")
    to_second = sitk.TranslationTransform(3, (0.0, -12.0, 0.0))  # LPS
    assert registration_quality(first, second, to_second)["with"] > 0.5
    with pytest.raises(ValueError, match="maps later to visit, not visit to later"):
        registration_quality(first, second, to_second.GetInverse())


def slices_of(visit: VisitInput, low: int, high: int) -> VisitInput:
    """A visit whose anatomy and segmentation have only some of their axial slices."""
    lift = np.eye(4)
    lift[2, 3] = low
    given = visit.segmentation
    assert given is not None
    masks = {name: mask[low:high] for name, mask in given.masks.items()}
    grid = Grid((high - low, *given.grid.shape[1:]), given.grid.ijk_to_ras @ lift)
    images = tuple(replace(image, array=image.array[low:high], grid=grid) for image in visit.anatomy)
    return replace(visit, segmentation=replace(given, masks=masks, grid=grid), anatomy=images)


def test_a_right_transform_is_not_refused_where_one_anatomy_shows_less_of_the_head() -> None:
    whole = visit_of(Brain())
    cut = replace(slices_of(whole, 30, 50), name="later")
    for one, two in ((whole, cut), (cut, whole)):
        assert registration_quality(one, two, sitk.Transform(3, sitk.sitkIdentity))["with"] > 0.5
    with pytest.raises(ValueError, match="does not bring the anatomies of visit and later together"):
        registration_quality(whole, cut, sitk.TranslationTransform(3, (0.0, 0.0, 130.0)))


def test_an_unchanged_tumour_that_the_second_anatomy_shows_in_part_is_no_response() -> None:
    whole = replace(visit_of(Brain()), cest=None)
    cut = replace(slices_of(whole, 20, 40), name="later")
    found = analyze(whole, cut, QUICK)
    assert found.between is not None
    assert found.between.response is not None
    assert found.between.response.volume_percent < -30
    assert (found.between.response.category, found.between.response.volume_category) == ("not assessable",) * 2
    assert found.between.response.caveat.startswith(
        "The anatomical images or the segmentation may not show all of the enhancing tumour at the second visit"
    )
    assert not any(change.enough for change in found.between.changes if change.quantity == "volume")
    assert any(text.startswith("later: the anatomy may not show all of the tumour") for text in found.warnings)


def test_what_the_first_visit_has_beyond_the_second_anatomy_cuts_the_second_visit_off() -> None:
    """The second anatomy ends below the tumour, which was not drawn in its last slices."""
    whole = replace(visit_of(Brain()), cest=None)
    cut = slices_of(whole, 20, 40)
    assert cut.segmentation is not None
    masks = {name: mask.copy() for name, mask in cut.segmentation.masks.items()}
    for mask in masks.values():
        mask[-4:] = False
    cut = replace(cut, name="later", segmentation=replace(cut.segmentation, masks=masks))
    assert not any(region.at_least for region in analyze_visit(cut, QUICK)[0].regions)
    found = analyze(whole, cut, QUICK, sitk.Transform(3, sitk.sitkIdentity))
    assert any("one of the visits does not show the place of" in text for text in found.warnings)
    assert [region.name for region in found.visits[1].regions if region.at_least] == [
        "edema",
        "enhancing_tumor",
        "whole_tumor",
    ]


def test_tumour_that_the_first_anatomy_could_not_show_is_no_progression() -> None:
    """The first anatomy ends below a lesion that only the second one shows, and the patient turned in between."""
    brain = Brain()
    turned = rotation((10.0, 0.0, 0.0))
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((np.diag([-1, -1, 1]) @ turned @ np.diag([-1.0, -1.0, 1.0])).ravel().tolist())
    pose = np.eye(4)
    pose[:3, :3] = turned
    low, high = ball(12, (0, 0, -25)), ball(12, (0, 0, 30))
    anatomy = Image("T1", brain.image(HEAD, T1_WEIGHTED), HEAD)
    second_grid = Grid(HEAD.shape, pose @ HEAD.ijk_to_ras)
    first = slices_of(replace(segmented("first", enhancing=low), anatomy=(anatomy,)), 0, 42)
    both = Masks("second", second_grid, {"enhancing": low | high})
    second = VisitInput("second", None, both, (Image("T1", anatomy.array, second_grid),))
    found = analyze(first, second, QUICK, transform)
    assert found.between is not None
    assert found.between.response is not None
    assert (found.between.response.category, found.between.response.volume_category) == ("not assessable",) * 2
    assert "at the first visit" in found.between.response.caveat
    assert not any(change.enough for change in found.between.changes if change.region == "enhancing_tumor")
    assert [[region.name for region in visit.regions if region.at_least] for visit in found.visits] == [
        ["enhancing_tumor", "whole_tumor"],
        [],
    ]


def test_without_an_anatomy_a_tumour_at_the_border_of_its_segmentation_is_told() -> None:
    whole, cut = (segmented(name, enhancing=ball(12)) for name in ("first", "second"))
    assert cut.segmentation is not None
    grid = Grid((36, *HEAD.shape[1:]), HEAD.ijk_to_ras)
    masks = {name: mask[:36] for name, mask in cut.segmentation.masks.items()}
    cut = replace(cut, segmentation=replace(cut.segmentation, masks=masks, grid=grid))
    told = [text for text in analyze(whole, cut, QUICK).warnings if "touches the border of its segmentation" in text]
    assert [text.split(":")[0] for text in told] == ["second"]


def acquisition(voxels: int, b0_ppm: float) -> Acquisition:
    offsets = torch.linspace(-6, 6, 49, dtype=torch.float64)
    shift = torch.linspace(-b0_ppm, b0_ppm, voxels, dtype=torch.float64)
    at = offsets - shift[:, None]
    signal = 1 - 0.8 / (1 + (at / 0.7) ** 2) - 0.05 / (1 + ((at - 3.5) / 0.5) ** 2)
    protocol = Protocol(3.0, offsets, torch.tensor(1.0), torch.tensor(1.0))
    return Acquisition(
        ZSpectra(signal, protocol, b0_shift_ppm=shift), np.arange(voxels), "lorentzian", MethodSettings()
    )


def region_of(voxels: int) -> Region:
    return Region("edema", "tumor", np.ones((1, 1, voxels), np.float32), np.ones((1, 1, 1), bool), 1.0, 1.0)


def test_a_spread_of_b0_does_not_broaden_the_mean_spectrum() -> None:
    found = region_spectrum(region_of(40), acquisition(40, 0.3))
    assert found is not None
    assert found.values["amide_amplitude"][0] == pytest.approx(0.05, rel=0.1)
    assert found.values["amide_amplitude"][1] > 0
    assert found.values["water_width_ppm"][0] == pytest.approx(1.4, rel=0.05)
    assert found.fit is not None
    assert np.nanmax(np.abs(found.fit - found.signal)) < 0.02


def test_the_noise_of_a_mean_spectrum_is_that_of_a_mean() -> None:
    errors = []
    for voxels in (16, 64):
        one = replace(acquisition(voxels, 0.0), method="mtrasym", settings=MethodSettings(noise_sd=0.01))
        found = region_spectrum(region_of(voxels), one)
        assert found is not None
        errors.append(found.values["mtr_asym_3.5ppm"][1])
    assert errors[0] == pytest.approx(2 * errors[1])
    assert errors[0] < 0.01


def test_a_region_of_fewer_voxels_than_fitted_values_is_not_fitted() -> None:
    found = region_spectrum(region_of(4), acquisition(4, 0.0))
    assert found is not None
    assert found.fit is None
    assert found.note.startswith("'edema' has 4 voxels, fewer than the")


def test_zeros_of_a_t1_map_do_not_count_in_the_fit_of_a_region() -> None:
    water, amide = {"T1_s": 1.3, "T2_s": 0.06}, {"name": "amide", "k_Hz": 60, "T1_s": 1, "T2_s": 0.05, "dw_ppm": 3.5}
    truth = tissue_model_from_dict({"water": water, "solutes": [{**amide, "fraction": 0.002}]})
    fitted = {**amide, "fraction": {"fit": True, "start": 1e-3, "bounds": [0, 0.01]}}
    model = tissue_model_from_dict({"water": {**water, "T1_s": {"map": "t1"}}, "solutes": [fitted]})
    protocol = Protocol(3.0, torch.linspace(-6, 6, 25, dtype=torch.float64), 1.5, 2.0)
    signal = simulate(truth.tissue(truth.values({}, {})), protocol, engine="r1rho").expand(16, -1)
    t1_s = torch.full((16,), 1.3, dtype=torch.float64)
    t1_s[:5] = 0.0
    spectra = ZSpectra(signal, protocol, t1_s=t1_s, maps={"t1": t1_s})
    found = region_spectrum(
        region_of(16), Acquisition(spectra, np.arange(16), "r1rho", MethodSettings(model=model, noise_sd=0.01))
    )
    assert found is not None
    assert found.values["amide_fraction"][0] == pytest.approx(0.002, rel=0.01)
