"""One run at a time in one place, whatever became of the runs before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import environment
from paths import ROOT

from NeuroCESTLib.core.output.lock import only_run
from NeuroCESTLib.core.output.result_folder import OutputFolder

_HOLDING = """
import sys
from NeuroCESTLib.core.output.lock import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen:
    """A process that writes to a place until it is killed."""
    command = [sys.executable, "-c", _HOLDING, str(path)]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_into_the_same_folder_says_so_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = holder(out)
    try:
        with pytest.raises(ValueError, match="another run") as refused, OutputFolder(out):
            pytest.fail("work began")
        assert str(refused.value) == (
            f"another run (process {process.pid}) is writing to '{out}': wait until it has ended, or choose another "
            "place"
        )
        with OutputFolder(tmp_path / "other") as folder:
            (folder / "map.txt").write_text("new")
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / ".out.lock").exists()  # a file alone is no lock
    with OutputFolder(out) as folder:
        (folder / "map.txt").write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_the_lock_is_of_the_folder_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    with only_run(tmp_path / "out"):
        for name in ("link", "out/", "out/../out"):
            with pytest.raises(ValueError, match="another run"), only_run(f"{tmp_path}/{name}"):
                pytest.fail("work began")
    with only_run(tmp_path / "link"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["link", "out"]


def test_a_place_that_cannot_be_locked_is_written_without_a_lock(tmp_path: Path) -> None:
    with only_run(tmp_path / "missing" / "out"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the size of files is limited as on Linux")
def test_a_lock_holds_and_is_removed_where_nothing_can_be_written_into_it(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # as on a full disk
    try:
        with only_run(tmp_path / "out"), pytest.raises(ValueError, match="another run"), only_run(tmp_path / "out"):
            pytest.fail("work began")
        with only_run(tmp_path / "out"):
            assert (tmp_path / ".out.lock").stat().st_size == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
