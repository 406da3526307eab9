"""Settings of a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohorts import write_settings
from paths import ROOT

from CESTQuantLib.methods.base import Input
from CESTQuantLib.methods.registry import method_named
from NeuroCESTLib.workflow.settings import Settings, read_settings


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
