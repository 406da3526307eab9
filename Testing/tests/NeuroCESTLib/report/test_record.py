"""``report.json``: inputs, settings, versions, timings and results."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from NeuroCESTLib.report.record import Report


def test_the_report_has_inputs_settings_versions_and_timings(tmp_path: Path) -> None:
    (tmp_path / "mz.nii.gz").write_bytes(b"data")
    report = Report("cestquant fit", {"method": "quesp", "output": tmp_path})
    report.add_input("signal", tmp_path / "mz.nii.gz")
    with report.timed("fit"):
        pass
    report.summary = {"rmse": np.float32(0.5), "failed": float("nan"), "n": np.arange(2)}
    written = json.loads(report.write(tmp_path).read_text())
    assert written["inputs"][0]["sha256"] == hashlib.sha256(b"data").hexdigest()
    assert written["summary"] == {"rmse": 0.5, "failed": None, "n": [0, 1]}
    assert set(written["versions"]) >= {"python", "torch", "numpy", "SimpleITK", "slicer"}
    assert set(written["timings_s"]) == {"fit", "total"}
    assert written["settings"] == {"method": "quesp", "output": str(tmp_path)}
    with pytest.raises(ValueError, match="file not found"):
        report.add_input("mask", tmp_path / "no.nii.gz")


def test_the_data_of_a_header_belong_to_its_checksum(tmp_path: Path) -> None:
    for name in ("mz.hdr", "mz.img"):
        (tmp_path / name).write_text(name)
    report = Report("cestquant fit")
    report.add_input("signal", tmp_path / "mz.hdr")
    (entry,) = report.as_dict()["inputs"]
    assert entry["sha256"] == hashlib.sha256(b"mz.hdrmz.img").hexdigest()
    assert (entry["bytes"], entry["files"]) == (12, [str(tmp_path / name) for name in ("mz.hdr", "mz.img")])


def test_repeated_steps_add_up_and_a_failed_step_is_timed_too() -> None:
    report = Report("cestquant fit")
    with report.timed("fit"):
        pass
    with pytest.raises(RuntimeError), report.timed("fit"):
        raise RuntimeError
    with report.timed("writing"):
        pass
    assert set(report.as_dict()["timings_s"]) == {"fit", "writing", "total"}


def test_values_of_any_type_become_json(tmp_path: Path) -> None:
    report = Report("cestquant fit", {"path": Path("a/b"), "pair": (1, 2), 3: np.float64("inf")})
    settings = json.loads(report.write(tmp_path).read_text())["settings"]
    assert settings == {"path": "a/b", "pair": [1, 2], "3": None}


def test_warnings_for_the_user_are_recorded_once_and_shown() -> None:
    def warn_three_times() -> None:
        for category in (UserWarning, UserWarning, DeprecationWarning):
            warnings.warn(f"a {category.__name__}", category, stacklevel=1)

    report = Report("cestquant fit")
    with pytest.warns(UserWarning, match="a UserWarning") as shown, report.warned():
        warn_three_times()
    assert report.warnings == ["a UserWarning"]
    assert len(shown) == 3
