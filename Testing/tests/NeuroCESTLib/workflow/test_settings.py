"""Settings of a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohorts import write_settings
from paths import ROOT

from CESTQuantLib.methods.base import Input
from CESTQuantLib.methods.registry import method_named
from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.settings import OPTIONS_OF_THE_RUN, Settings, read_settings
from NeuroCESTLib.workflow.visits import FILE_COLUMNS, Visit


def test_settings_name_all_their_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"metod": "r1rho", "register": "yes", "fit": "--power 1", "model": "none.json"}))
    with pytest.raises(ValueError, match="settings") as error:
        read_settings(path)
    for words in (
        "the key 'metod' is unknown (did you mean method?)",
        "register must be true or false",
        "fit must be a list of texts",
        "model names 'none.json', which does not exist",
    ):
        assert words in str(error.value)
    assert read_settings(None) == Settings()


def test_files_among_the_arguments_are_relative_to_the_settings(tmp_path: Path) -> None:
    (tmp_path / "calib.json").touch()
    arguments = ["--calibration", "calib.json", "--other=calib.json", "--power", "1", "elsewhere.json"]
    settings = read_settings(write_settings(tmp_path / "settings.json", fit=arguments))
    file = str(tmp_path / "calib.json")
    assert settings.fit == ("--calibration", file, f"--other={file}", "--power", "1", "elsewhere.json")


def test_the_method_of_the_documented_example_uses_its_options(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cohorts.md").read_text(encoding="utf-8")
    example = text.split("```json\n")[1].split("```")[0]
    (tmp_path / "model.json").touch()
    (tmp_path / "settings.json").write_text(example)
    settings = read_settings(tmp_path / "settings.json")
    method = method_named(settings.method)
    assert settings.fit
    assert not {what.option for what in Input if not method.uses(what)}.intersection(settings.fit)


@pytest.mark.parametrize(
    ("key", "arguments", "option"),
    [
        ("fit", ["--output=elsewhere"], "--output"),
        ("fit", ["--mask", "mask.nii"], "--mask"),
        ("fields", ["--signal", "wasabi.nii"], "--signal"),
        ("registration", ["--moving-tumor", "seg.nii"], "--moving-tumor"),
        ("segmentation", ["--images", "t1.nii"], "--images"),
        ("compartments", ["--no-spectra", "--visits", "before", "after"], "--visits"),
        ("compartments", ["--signal2", "cest.nii"], "--signal2"),
        ("compartments", ["--register"], "--register"),
    ],
)
def test_options_that_the_run_gives_itself_are_refused_by_name(
    key: str, arguments: list[str], option: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"{key} has {option}, which the run gives itself: leave it out"):
        read_settings(write_settings(tmp_path / "settings.json", **{key: arguments}))


def test_every_option_that_the_run_gives_itself_is_known_as_such() -> None:
    """But ``--labels``: the settings declare the convention, which the run passes on for single visits."""
    names = {column: f"/d/{column}.nii" for column in FILE_COLUMNS if not column.startswith("wassr")}
    without_transform = {column: name for column, name in names.items() if column != "to_anatomy"}
    settings = Settings(model="/d/model.json", anonymous=True)
    groups = [[names, names], [names], [without_transform, without_transform], [{"t1": "/d/t1.nii"}]]
    for files in groups:
        plan = Plan({"s": [Visit("s", f"v{number}", one, {}) for number, one in enumerate(files)]}, settings)
        for stage, visit in plan.stages("s"):
            given = {word for word in plan.job(stage, "s", visit.name).arguments if word.startswith("--")}
            assert given - {"--labels", "--anonymous"} <= {*OPTIONS_OF_THE_RUN[stage]}
