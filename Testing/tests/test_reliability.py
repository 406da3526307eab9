"""Short forms of the trials under ``Testing/reliability``: kills, cancelled runs, places that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from command_runs import environment
from joint_studies import HeadStudy, small_weights
from paths import ROOT
from studies import read_image

RELIABILITY = ROOT / "Testing" / "reliability"
QUICKEST = ["import", "simulate", "manifest"]


def tried(program: str, *arguments: object) -> str:
    """Run a trial, which must find nothing; returns what it printed."""
    command = [sys.executable, str(RELIABILITY / program), *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and killed as on Linux")
def test_killed_runs_leave_the_old_or_the_new_result_and_are_repeated_bit_by_bit(tmp_path: Path) -> None:
    tried("kill.py", "--kills", 4, "--seed", 3, "--only", *QUICKEST, "--output", tmp_path / "kill.json")
    summary = json.loads((tmp_path / "kill.json").read_text())
    assert (summary["kills"], summary["problems"]) == (4, [])
    assert set(summary["commands"]) == set(QUICKEST)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file systems are limited as on Linux")
def test_a_full_disk_or_a_read_only_folder_loses_nothing_and_is_named() -> None:
    printed = tried("full_disk.py", "--only", *QUICKEST)
    assert f"of {len(QUICKEST)} commands" in printed
    if "read-only not tried" in printed:
        pytest.skip("the full disk was tried; the read-only folder was not, as mounting is refused here")


def test_any_exception_at_random_moments_leaves_scene_selection_and_threads_as_before(
    slicer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RELIABILITY))
    import cancel

    for runs in (cancel.cest_runs(), cancel.joint_runs(tmp_path)):
        assert cancel.cancel_at_random(slicer, runs, moments=6, seed=11) == []
        for name, run in runs.items():  # the last call comes when all results are in the scene
            count = cancel.calls_of(run)
            before = cancel.state(slicer)
            assert cancel.cancelled(run, count, ZeroDivisionError)
            assert cancel.changes(before, cancel.state(slicer)) == [], name


def test_a_result_that_stays_in_the_scene_is_noticed(slicer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RELIABILITY))
    import cancel

    def careless(progress: object) -> None:
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "left")
        progress(0.5)

    (problem, *_) = cancel.cancel_at_random(slicer, {"careless": careless}, moments=1, seed=1)
    assert "changed attributes of vtkMRMLTextNode" in problem


@pytest.mark.slow
def test_one_and_two_threads_agree_within_the_tolerance_of_the_documentation(tmp_path: Path) -> None:
    """The bounds are those of docs/reliability.md."""
    visit = HeadStudy.of("left-handed oblique").write(tmp_path / "visit")
    weights = small_weights(tmp_path / "small.pt")
    images = [visit / "t1.nii.gz", "-", "-", visit / "flair.nii.gz"]
    for threads in ("1", "2"):
        options = ["--weights", weights, "--no-flips", "--device", "cpu", "--output", tmp_path / threads]
        done = subprocess.run(
            [sys.executable, "-m", "JointRegSegLib.batch", "segment", "--images", *map(str, [*images, *options])],
            env={**environment(), "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        one, two = (read_image(tmp_path / threads / name) for threads in ("1", "2"))
        return one, two

    assert sorted(os.listdir(tmp_path / "1")) == sorted(os.listdir(tmp_path / "2"))
    one, two = both("segmentation.seg.nrrd")
    assert (one != two).mean() <= 0.002
    one, two = both("uncertainty.nii.gz")
    assert np.abs(one - two).max() <= 0.02
