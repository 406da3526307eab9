"""Models as tables of pools: texts of values, changes of a model, and the models to start from."""

import json

import pytest

from CESTQuantLib.formats import presets
from CESTQuantLib.tables.cells import Cell, cell_of_entry, cell_of_text
from CESTQuantLib.tables.peaks import PlofTable
from CESTQuantLib.tables.pools import LorentzianTable, TissueTable, model_text, readable_model
from CESTQuantLib.tissue.line_fits.plof_model import PlofModel
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel
from CESTQuantLib.tissue.lorentzian_two_step import TwoStepModel
from CESTQuantLib.tissue.model import tissue_model_from_dict
from NeuroCESTLib.core.checked_json import read_json

ALL = ("fixed", "fitted", "map", "tied")


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("0.001", 0.001),
        (" −2.4 ", -2.4),
        ("1e-5", 1e-5),
        ("300 [5, 1500]", {"fit": True, "start": 300.0, "bounds": [5.0, 1500.0]}),
        ("3 [1 5]", {"fit": True, "start": 3.0, "bounds": [1.0, 5.0]}),
        (
            "0.1 [0, 1] prior 0.2 ± 0.1",
            {"fit": True, "start": 0.1, "bounds": [0.0, 1.0], "prior": {"mean": 0.2, "sd": 0.1}},
        ),
        ("1.3 ± 0.1", {"value": 1.3, "sd": 0.1}),
        ("from t1", {"map": "t1"}),
        ("from t1 ± 0.1", {"map": "t1", "sd": 0.1}),
        ("map maps/T1 map.nii.gz", {"map": "maps/T1 map.nii.gz"}),
    ],
)
def test_typed_values_are_those_of_a_model_file_and_are_shown_again_as_typed(text, entry):
    cell = cell_of_text(text, ALL)
    assert cell.entry() == entry
    assert cell_of_text(cell.text(), ALL) == cell
    assert cell_of_entry(entry) == cell


def test_position_can_be_tied_to_the_water():
    assert cell_of_text("water + 3.5", ALL) == Cell("tied", 3.5)
    assert cell_of_text("Water -3.5", ALL).text() == "water - 3.5"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "type a number, such as 0.001 or a fitted value"),
        ("fast", "'fast' cannot be used here"),
        ("5 [1, 2]", "the start 5 lies outside its bounds"),
        ("5 [6, 4]", "the lower bound 6 must be below"),
        ("5 [1, 9] prior 5 ± 0", "deviation of the prior"),
        ("1e999", "not finite"),
        ("2 [2, 2]", "the lower bound 2 must be below"),
        ("1 +/- 0", "standard deviation must be above 0"),
        ("from t1", "cannot be used here"),
    ],
)
def test_texts_that_are_no_value_are_refused_with_what_to_type(text, reason):
    with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
        cell_of_text(text, ("fixed", "fitted"))


@pytest.mark.parametrize("name", presets.model_names())
def test_models_to_start_from_are_valid_fit_something_and_name_their_source(name):
    model = tissue_model_from_dict(presets.model_values(name), name)
    assert model.parameters
    assert presets.model_source(name)
    assert 3.0 <= presets.model_field_T(name) <= 11.7


def test_models_to_start_from_are_listed_by_field_and_unknown_ones_named():
    fields = [presets.model_field_T(name) for name in presets.model_names()]
    assert fields == sorted(fields)
    with pytest.raises(ValueError, match="'liver 3T' is unknown; use one of white matter 3T"):
        presets.model_values("liver 3T")


def test_ranges_of_simulated_data_become_bounds():
    model = presets.model_values("l-arginine schedule 9.4T")
    assert model["solutes"][0]["k_Hz"] == {"fit": True, "start": pytest.approx(244.9, abs=0.1), "bounds": [60, 1000]}


def test_every_cell_of_a_tissue_model_can_be_typed_as_it_is_shown():
    table = TissueTable()
    for name in presets.model_names():
        model = readable_model(table, presets.model_values(name), name)
        for row in table.rows(model):
            for column in table.COLUMNS:
                if table.applies(model, row, column.key):
                    text = table.text(model, row, column.key)
                    changed = table.with_text(model, row, column.key, text)
                    assert table.text(changed, row, column.key) == text


def test_changes_leave_the_earlier_model_as_it_was():
    table, model = TissueTable(), presets.model_values("creatine phantom 7T")
    before = json.dumps(model)
    changed = table.with_text(model, "creatine", "protons", "")
    changed = table.with_semisolid(table.with_pool(table.renamed(changed, "creatine", "cr")))
    changed = table.with_text(changed, "B0 shift", "dw_ppm", "0 [-0.2, 0.2]")
    changed = table.with_text(changed, "relative B1", "fraction", "from b1")
    assert json.dumps(model) == before
    read = tissue_model_from_dict(changed)
    assert read.solute_names == ("cr", "pool1")
    assert not read.protons
    assert read.semisolid_kind is not None
    assert read.entries["b1_relative"].name == "b1"
    again = table.with_text(table.without(changed, "semisolid"), "B0 shift", "dw_ppm", "")
    assert tissue_model_from_dict(again).semisolid_kind is None
    assert "b0_shift_ppm" not in again


def test_pools_without_names_get_those_of_the_reader():
    pool = {"fraction": 0.001, "k_Hz": 50, "T1_s": 1, "T2_s": 0.1, "dw_ppm": 3.5}
    model = readable_model(TissueTable(), {"water": {"T1_s": 1, "T2_s": 0.1}, "solutes": [pool]}, "model")
    assert TissueTable().rows(model)[1] == tissue_model_from_dict(model).solute_names[0] == "solute1"


def test_peaks_without_names_get_those_of_the_reader():
    content = read_json(presets.FOLDER / "lorentzian_plof_3T.json")
    del content["peaks"][0]["name"]
    table = PlofTable()
    model = readable_model(table, content, "peaks.json")
    assert table.rows(model)[0] == PlofModel.from_dict(content).peaks[0].name == "peak1"
    changed = table.with_text(model, "peak1", "position_ppm", "3.4 [3, 4]")
    assert PlofModel.from_dict(changed).peaks[0].position_ppm.start == 3.4


def test_pools_named_by_a_number_are_shown_and_edited():
    pool = {"name": 7, "fraction": 0.001, "k_Hz": 50, "T1_s": 1, "T2_s": 0.1, "dw_ppm": 3.5}
    table = TissueTable()
    model = readable_model(table, {"water": {"T1_s": 1, "T2_s": 0.1}, "solutes": [pool]}, "model")
    assert table.text(model, "7", "k_Hz") == "50"
    assert table.with_text(model, "7", "k_Hz", "60")["solutes"][0]["k_Hz"] == 60
    assert table.rows(table.without(model, "7")) == table.rows({"water": {}})


@pytest.mark.parametrize("table", [TissueTable(), LorentzianTable(), PlofTable()])
def test_a_value_of_a_pool_that_is_not_there_is_refused_and_not_lost(table):
    model = {"water": {}, "solutes": [], "pools": [], "peaks": [], "baseline": [0, 1, 2]}
    with pytest.raises(ValueError, match="the model has no pool 'amide'"):
        table.with_text(model, "amide", table.COLUMNS[0].key, "0.1 [0, 1]")


@pytest.mark.parametrize("content", [[], {"water": 3}, {"solutes": []}, {"water": {"T1_s": {"fit": True}}}])
def test_files_that_hold_no_model_are_refused_by_name(content):
    with pytest.raises(ValueError, match=r"model\.json: "):
        readable_model(TissueTable(), content, "model.json")


@pytest.mark.parametrize("name", ["lorentzian_3T", "lorentzian_7T", "lorentzian_preclinical", "lorentzian_3T_two_step"])
def test_lorentzian_pools_are_edited_to_what_their_reader_takes(name):
    table = LorentzianTable()
    model = readable_model(table, read_json(presets.FOLDER / f"{name}.json"), name)
    changed = table.with_text(model, "amide", "position_ppm", "3.4 [3, 4]")
    last = table.rows(model)[-2]  # above the baseline; not every model has the same pools
    changed = table.with_text(changed, last, "position_ppm", "water - 3.4")
    changed = table.with_text(table.with_pool(changed), "baseline", "amplitude", "0.9 [0.6, 1]")
    changed = table.with_text(changed, "amide", "width_ppm", "2 [2, 2]")  # fixed, as files have it
    kind = TwoStepModel if "two_step" in name else LorentzianModel
    assert kind.from_dict(json.loads(model_text(changed)))
    for row, key, text, reason in (
        ("water", "position_ppm", "water + 1", "itself is fitted"),
        ("amide", "width_ppm", "1 [0, 2]", "above 0"),
        ("amide", "amplitude", "0.1", "a fitted value"),
    ):
        with pytest.raises(ValueError, match=reason):
            table.with_text(changed, row, key, text)
    with pytest.raises(ValueError, match="'water' cannot be removed"):
        table.without(changed, "water")


def test_peaks_are_edited_to_what_their_reader_takes():
    table = PlofTable()
    model = readable_model(table, read_json(presets.FOLDER / "lorentzian_plof_3T.json"), "plof")
    assert table.rows(model) == ["amide", "background"]
    changed = table.with_text(model, "amide", "position_ppm", "3.4 [3, 4]")
    changed = table.with_text(changed, "background", "polynomial_degree", "3")
    changed = table.with_text(table.with_pool(changed), "background", "water_term", "no")
    read = PlofModel.from_dict(json.loads(model_text(changed)))
    assert [peak.name for peak in read.peaks] == ["amide", "pool1"]
    assert (read.polynomial_degree, read.water_term) == (3, False)
    assert table.rows(table.without(changed, "amide")) == ["pool1", "background"]
    for row, key, text, reason in (
        ("amide", "peak_to", "9", "peak_ppm must lie within window_ppm"),
        ("background", "polynomial_degree", "2.5", "whole number"),
        ("background", "water_term", "maybe", "type yes or no"),
        ("amide", "width_ppm", "1 ± 0.1", "a fitted value"),
    ):
        with pytest.raises(ValueError, match=reason):
            table.with_text(changed, row, key, text)
    with pytest.raises(ValueError, match="at least one"):
        table.without(model, "amide")
