"""Settings of a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohorts import write_settings

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
