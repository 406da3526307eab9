"""The report on a patient shows all results without names, opens in a browser, prints well and says how it was made."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser, running_browser
from report_cases import FIT, NAMES, QUANTITIES, REGISTRATION, SECRET, a_patient

from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.scene.compartments.nodes import CompartmentsResult
from CESTQuantLib.scene.patient_report.bids import bids_name, rename_as_bids
from CESTQuantLib.scene.patient_report.material import Material, read_record, without_names
from CESTQuantLib.scene.patient_report.methods import methods_text
from CESTQuantLib.scene.patient_report.overlays import anatomy_picture, checkerboard, planes_of, window_of
from CESTQuantLib.scene.patient_report.page import patient_page
from CESTQuantLib.scene.patient_report.planes import Plane
from CESTQuantLib.scene.patient_report.plots import over_offset
from NeuroCESTLib.report.numbers import error_text, interval_text
from NeuroCESTLib.report.page import Page, Picture, Section, Table, page_html, write_page

A4_PIXELS = 695
MOST_BYTES = 5e6


@pytest.fixture(scope="module")
def patient() -> Material:
    return a_patient()


@pytest.fixture(scope="module")
def page(patient: Material) -> Page:
    return patient_page(patient)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_browser()
    if command is None:
        pytest.skip("needs a headless Chromium: run Testing/system_libraries.sh as root, or install chromium")
    with running_browser(command, tmp_path_factory.mktemp("profile")) as running:
        yield running


def all_sections(page: Page) -> list[Section]:
    return [section for each in page.sections for section in (each, *each.subsections)]


def tables_of(page: Page) -> list[Table]:
    return [part for section in all_sections(page) for part in section.parts if isinstance(part, Table)]


def pictures_of(page: Page) -> list[Picture]:
    return [part for section in all_sections(page) for part in section.parts if isinstance(part, Picture)]


def text_of(page: Page) -> str:
    return re.sub(r"data:image/png;base64,[^\"]*", "", page_html(page))


@pytest.mark.parametrize(("media", "width"), [("screen", 1200), ("print", A4_PIXELS)])
def test_a_browser_shows_the_report_and_prints_it(
    tmp_path: Path, browser: Browser, page: Page, media: str, width: int
) -> None:
    path = write_page(page, tmp_path / "report.html")
    assert path.stat().st_size < MOST_BYTES
    visit = browser.visit(path, width, media)
    assert (visit.requests, visit.errors) == ([], [])
    layout = visit.layout
    assert (layout["images"], layout["broken"], layout["unnamed"]) == (len(pictures_of(page)), 0, 0)
    assert (layout["width"], layout["wide"], layout["cut"], layout["dead"]) == (width, [], [], [])
    assert layout["text"].index("warnings") < layout["text"].index("amide amplitude")
    if media == "print":
        assert 5 <= visit.pdf_pages <= 25


def test_no_name_of_a_file_or_node_is_shown(page: Page) -> None:
    assert SECRET not in text_of(page)
    assert "/data/" not in text_of(page)


def test_everything_that_was_found_has_its_section(page: Page) -> None:
    titles = [section.title for section in page.sections]
    assert titles == ["Summary", "Maps", "Regions", "Spectra", "Tumour and growth", "Inputs and checks", "Methods"]
    captions = [table.caption for table in tables_of(page)]
    for caption in ("Measures in the manner of RANO", "Transitions of tissue", "Alignment of CEST images and anatomy"):
        assert caption in captions
    described = " ".join(picture.alt for picture in pictures_of(page))
    for words in (
        "amide amplitude over",
        "Box plots",
        "Histograms",
        "Mean spectra",
        "Checkerboards",
        "Changes",
        "Tissue",
    ):
        assert words in described


def test_the_summary_begins_with_the_values_of_pure_tissue(page: Page, patient: Material) -> None:
    table = next(part for part in page.sections[0].parts if isinstance(part, Table))
    assert table.caption == "Compartments without their neighbours (pure tissue)"
    row = patient.visits[0].visit.row("edema", patient.quantities()[0])
    assert row is not None
    scaled = patient.scaled(row)
    cells = next(cells for cells in table.rows if cells[1] == "Oedema")
    assert cells[2] == error_text(scaled.pure, scaled.pure_se)
    assert patient.analysis.between is not None
    change = next(c for c in patient.analysis.between.changes if (c.region, c.quantity) == (row.region, row.quantity))
    scaled_change = patient.scaled(change)
    limits = (scaled_change.pure_change, scaled_change.pure_lower, scaled_change.pure_upper)
    assert cells[4] == interval_text(*limits, signed=True)
    assert "–" not in str(cells[4])


def test_warnings_of_analysis_maps_and_registration_come_first_and_once(page: Page) -> None:
    assert "maps of visit 1: a file has few offsets" in page.warnings
    assert "registration of the visits: the segmentation should be checked" in page.warnings
    assert "visit 1: it moved far" in page.warnings
    assert len(set(page.warnings)) == len(page.warnings)
    assert page.badge is not None
    assert page.badge.level == "check"


def test_the_caveat_stands_beside_the_measures_of_response(page: Page) -> None:
    table = next(table for table in tables_of(page) if "RANO" in table.caption)
    assert table.notes == ["Automatic, not a reading."]


def test_changes_are_shown_with_their_interval_and_unit(patient: Material, page: Page) -> None:
    between = patient.analysis.between
    assert between is not None
    change = next(c for c in between.changes if (c.region, c.quantity) == ("whole_tumor", "amide_position_ppm"))
    table = next(table for table in tables_of(page) if table.caption == "Regional means")
    row = next(row for row in table.rows if row[:2] == ["amide position (ppm)", "Whole tumour"])
    assert str(row[4]).startswith(f"+{change.change:.3f} (+{change.lower:.3f} to ")
    assert "change (95 % CI)" in table.columns


def test_small_numbers_are_given_in_a_power_of_ten(patient: Material, page: Page) -> None:
    assert patient.with_unit("amide_amplitude") == "amide amplitude (10⁻³)"
    assert patient.with_unit("amide_position_ppm") == "amide position (ppm)"
    row = patient.visits[0].visit.row("edema", "amide_amplitude")
    assert row is not None
    assert patient.scaled(row).mean == pytest.approx(1000 * row.mean)
    table = next(table for table in tables_of(page) if table.caption == "visit 1")
    shown = dict(zip(table.columns, next(row for row in table.rows if row[0] == "Oedema"), strict=True))
    assert str(shown["mean ± SE"]).startswith(f"{1000 * row.mean:.2f} ± ")


def test_motion_is_told_in_a_line_for_each_visit(page: Page) -> None:
    (table,) = [table for table in tables_of(page) if table.caption == "Motion during the acquisition"]
    assert list(table.rows[0]) == ["visit 1", 32, 3, 1, 0.83, "within the slices"]


def test_a_map_has_one_colour_scale_at_both_visits(patient: Material) -> None:
    low, high = window_of(patient, "amide_amplitude")
    values = np.concatenate([visit.visit.maps["amide_amplitude"].ravel() for visit in patient.visits])
    assert (low, high) == pytest.approx(tuple(np.nanpercentile(values, (2, 98))))


def test_pictures_show_the_same_place_at_both_visits(patient: Material) -> None:
    first, second = planes_of(patient)
    assert np.allclose(first.center[2], second.center[2], atol=3.1)  # half a slice
    moved = Plane.of(patient.visits[1], through=first.center + np.array([0, 0, 6.0]))
    assert moved is not None
    assert moved.view.index == first.view.index + 1


def test_the_anatomy_under_a_map_lies_where_the_map_lies(patient: Material) -> None:
    plane = Plane.of(patient.visits[0])
    assert plane is not None
    points = plane.anatomy_points()
    rows, columns = plane.cut(np.empty(plane.geometry.shape)).shape
    assert points.shape == (rows * plane.fine, columns * plane.fine, 3)
    centers = points.reshape(rows, plane.fine, columns, plane.fine, 3).mean((1, 3))
    grid = patient.visits[0].visit.grid
    assert grid is not None
    expected = np.stack([plane.cut(axis.reshape(grid.shape)) for axis in grid.points().T], axis=-1)
    assert np.allclose(centers, expected)
    share = plane.outline("enhancing_tumor")
    assert share is not None
    weights = plane.cut(patient.visits[0].visit.regions[2].weights)
    coarse = share.reshape(rows, plane.fine, columns, plane.fine).mean((1, 3))
    assert np.abs(coarse - weights).mean() < 0.02


def test_the_mid_sagittal_plane_is_drawn_where_it_was_found(patient: Material, page: Page) -> None:
    assert any("Dotted: the mid-sagittal plane" in picture.caption for picture in pictures_of(page))
    visits = tuple(replace(each, visit=replace(each.visit, midplane=None)) for each in patient.visits)
    without = replace(patient, visits=visits)
    assert "mid-sagittal" not in anatomy_picture(without, planes_of(without)).caption


def test_a_checkerboard_takes_squares_of_both_pictures() -> None:
    board = checkerboard(np.tile(np.linspace(0, 1, 60), (60, 1)), np.tile(np.linspace(1, 0, 60), (60, 1)))
    assert board[0, 1] < 0.1  # of the first picture
    assert board[10, 1] > 0.9  # of the second


@pytest.mark.slow
def test_one_visit_has_no_changes(browser: Browser, tmp_path: Path) -> None:
    page = patient_page(a_patient(1))
    assert page.subtitle == "Visit 1"
    assert not any("change" in column for table in tables_of(page) for column in table.columns)
    assert browser.visit(write_page(page, tmp_path / "report.html")).layout["wide"] == []


@pytest.mark.slow
def test_a_visit_without_cest_still_gives_volumes(patient: Material) -> None:
    second = patient.visits[1]
    bare = replace(second.visit, grid=None, maps={}, statistics=(), spectra=(), distributions=(), alignment=None)
    bare = replace(bare, unsaturated=None, regions=tuple(replace(r, weights=np.zeros((0, 0, 0))) for r in bare.regions))
    material = replace(patient, visits=(patient.visits[0], replace(second, visit=bare)), between=None)
    page = patient_page(material)
    table = next(table for table in tables_of(page) if table.caption.startswith("Volumes"))
    assert table.rows[0][2] == "2.85"


def test_without_matplotlib_the_report_has_no_pictures_and_says_so(
    patient: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = patient_page(patient)
    assert pictures_of(page) == []
    assert page.warnings[-1].startswith("matplotlib is not installed, so this report has no pictures")
    assert len(tables_of(page)) > 10


def test_the_console_writes_the_report_of_a_result(
    patient: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # pictures have been tested, and take long
    inputs = tuple(visit.source for visit in patient.visits if visit.source is not None)
    result = CompartmentsResult(patient.analysis, None, inputs=inputs, between=patient.between)
    path = CESTQuantLogic().compartmentReport(
        result, tmp_path / "report.html", label="P01", fits=[FIT, FIT], registration=REGISTRATION
    )
    text = path.read_text(encoding="utf-8")
    assert "CEST of tumour compartments: P01" in text
    assert "similarity &#x27;lncc&#x27;" in text
    assert SECRET not in text


def test_methods_tell_what_was_run(patient: Material) -> None:
    text = methods_text(patient)
    words = " ".join(text.paragraphs)
    for part in ("'lorentzian'", "Preset: 3T", "block bootstrap with 60 samples", "similarity 'lncc' on T1 and FLAIR"):
        assert part in words
    assert "NeuroCEST 0.1.0" in words
    assert text.references[0] == "Zaiss et al., J Magn Reson 2011;211:149"
    cited = {int(number) for group in re.findall(r"\[([\d, ]+)\]", words) for number in group.split(",")}
    assert cited == set(range(1, len(text.references) + 1))


def test_methods_tell_how_the_signals_were_prepared(patient: Material) -> None:
    record = {"denoising": {"method": "MP-PCA", "patch_voxels": [5, 5, 3], "publications": ["A. Author, 2016"]}}
    motion = {"measurements": ["1", "2", "3"], "resampled": ["3"], "largest_displacement_mm": 1.234}
    record["motion"] = motion
    summary = {**FIT["summary"], "preparation": {**record, "smoothing": {"width_ppm": 0.5}}, "quass": "equilibrium"}
    visits = tuple(replace(visit, fit={**FIT, "summary": summary}) for visit in patient.visits)
    text = methods_text(replace(patient, visits=visits))
    assert "1 of 3 images were resampled, and the largest displacement was 1.2 mm" in text.paragraphs[0]
    assert "denoised by MP-PCA in patches of 5 × 5 × 3 voxels [3]" in text.paragraphs[0]
    assert "smoothed along their offsets (FWHM 0.5 ppm)" in text.paragraphs[0]
    assert "by QUASS ('equilibrium') [4]" in text.paragraphs[0]
    assert text.references[2] == "A. Author, 2016"


def test_methods_name_no_network_where_none_was_used(patient: Material) -> None:
    settings = {"affine": "affine", "weights": "none", "fixed_tumor": "a.nii.gz", "moving_tumor": "b.nii.gz"}
    text = methods_text(replace(patient, registration={"command": "jointregseg apply", "settings": settings}))
    (sentence,) = [each for each in text.paragraphs if "deformation between the visits" in each]
    assert "Tumour segmentations were given" in sentence
    assert "without a network" in sentence
    assert not any("Estienne" in reference for reference in text.references)
    default = methods_text(replace(patient, registration={"command": "jointregseg apply", "settings": {}}))
    assert any("Tumour segmentations and the deformation" in each for each in default.paragraphs)
    assert any("Estienne" in reference for reference in default.references)


def test_records_of_other_commands_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(FIT))
    assert read_record(tmp_path, "cestquant fit")["summary"]["median_rmse"] == 0.005
    assert read_record(tmp_path, "jointregseg apply") == {}
    assert read_record(tmp_path / "missing", "cestquant fit") == {}


def test_methods_name_no_method_that_is_not_recorded(patient: Material) -> None:
    unknown = replace(patient, visits=tuple(replace(visit, fit={}) for visit in patient.visits), registration={})
    words = " ".join(methods_text(unknown).paragraphs)
    assert "how they were computed is not recorded" in words
    assert "how it was found is not recorded" in words


def test_names_in_sentences_are_replaced() -> None:
    hidden = {"Doe t1": "anatomical image 1 of visit 1"}
    assert without_names("'Doe t1' is dark", hidden) == "anatomical image 1 of visit 1 is dark"
    assert without_names("'/a/Doe.nii.gz' and 'D:\\Doe' are missing", {}) == "a file and a file are missing"
    assert without_names("the method 'mtrasym' is fast", hidden) == "the method 'mtrasym' is fast"
    common = {"model": "the file of --model", "Doe_1.nii.gz": "the file of --signal"}
    assert without_names("a model fit of Doe_1.nii.gz", common) == "a model fit of the file of --signal"


def test_names_with_apostrophes_are_replaced_as_a_whole() -> None:
    text = "the mask '/data/O'Brien_Mary/cest.nii.gz' of 'O'Brien' is empty"
    assert without_names(text, {"O'Brien": "the signal"}) == "the mask a file of the signal is empty"
    known = {"/data/O'Brien_Mary/cest.nii.gz": "the file of --mask", "cest": "another file", "O'Brien": "the signal"}
    assert without_names(text, known) == "the mask the file of --mask of the signal is empty"
    assert without_names("the visit's 'a' differs", {"a": "M0"}) == "the visit's M0 differs"


def test_outputs_can_be_named_as_bids_derivatives(tmp_path: Path) -> None:
    (tmp_path / "compartments.csv").write_text("region,mean\nrim,\n")
    for name in ("visit_1_regions.seg.nrrd", "change_amide_amplitude.nii.gz", "report.html", "report.json"):
        (tmp_path / name).write_text("x")
    rename_as_bids(tmp_path, "sub-01", NAMES)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "dataset_description.json",
        "report.json",
        "sub-01_desc-compartments_report.html",
        "sub-01_desc-compartments_stats.tsv",
        "sub-01_ses-visit1_desc-regions_dseg.seg.nrrd",
        "sub-01_ses-visit2_desc-changeAmideAmplitude_map.nii.gz",
    ]
    assert (tmp_path / "sub-01_desc-compartments_stats.tsv").read_text() == "region\tmean\nrim\tn/a\n"
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_maps_that_differ_in_what_bids_does_not_allow_keep_names_of_their_own(tmp_path: Path) -> None:
    """Nothing is lost: each file has its own content, whatever its name becomes."""
    names = ("mtr_asym_3.5ppm", "mtr_asym_-3.5ppm", "mtr_asym_35ppm", "r1_a+", "r1_a~", "R1_A", "µ")
    for name in names:
        (tmp_path / f"change_{name}.nii.gz").write_text(name, encoding="utf-8")
    rename_as_bids(tmp_path, "01", NAMES)
    start = "sub-01_ses-visit2_desc-change"
    found = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob(f"{start}*")}
    assert sorted(found.values()) == sorted(names)
    assert found[f"{start}MtrAsym3p5ppm_map.nii.gz"] == "mtr_asym_3.5ppm"
    assert found[f"{start}MtrAsymMinus3p5ppm_map.nii.gz"] == "mtr_asym_-3.5ppm"
    assert found[f"{start}MtrAsym35ppm_map.nii.gz"] == "mtr_asym_35ppm"
    assert {f"{start}R1A{number}_map.nii.gz" for number in ("", 2, 3)} < set(found)
    assert len({name.casefold() for name in found}) == len(names)


def test_names_that_bids_does_not_allow_are_refused() -> None:
    with pytest.raises(ValueError, match="'---' is no name for BIDS, which allows letters and digits only"):
        bids_name("report.html", "---", NAMES)


def test_maps_are_shown_in_the_order_of_their_importance(patient: Material) -> None:
    assert set(patient.quantities()) == set(QUANTITIES)
    assert patient.quantities(1) == [patient.quantities()[0]]


def test_lists_of_offsets_that_are_measured_again_are_drawn_over_ppm_and_schedules_are_not() -> None:
    offsets, one = np.tile(np.linspace(-5, 5, 11), 2), np.ones(22)
    assert over_offset(offsets, one)  # the list is measured twice
    assert over_offset(offsets, np.repeat([1.0, 2.5], 11))
    assert not over_offset(np.full(22, 3.5), one)
    assert not over_offset(offsets, np.linspace(1, 2, 22))
