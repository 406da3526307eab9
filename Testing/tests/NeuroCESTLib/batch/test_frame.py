"""The frame of the batch commands: exit status, errors of one line, warnings, output folders."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

from NeuroCESTLib.batch.frame import CommandParser, OutputFolder, run
from NeuroCESTLib.core.progress import Cancelled


def raising(error: BaseException) -> Callable:
    def main(arguments: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("'mz.nii.gz' is\ntruncated"), 2, "error: 'mz.nii.gz' is truncated"),
        (FileNotFoundError(2, "No such file", "p.json"), 2, "error: file not found: 'p.json'"),
        (PermissionError(13, "Permission denied", "out"), 2, "error: 'out': Permission denied"),
        (RuntimeError("singular"), 1, "error: RuntimeError: singular"),
        (MemoryError(), 1, "error: not enough memory"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "error: PyTorch is not installed: in Slicer"),
        (ModuleNotFoundError("No module named 'odd'", name="odd"), 1, "error: ModuleNotFoundError: No module named"),
        (Cancelled(), 1, "cancelled, nothing written"),
        (KeyboardInterrupt(), 1, "cancelled, nothing written"),
    ],
)
def test_every_failure_has_its_status_and_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture
) -> None:
    assert run(raising(error), []) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(line)


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture) -> None:
    assert run(raising(ValueError("bad")), ["fit", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_success_is_zero_and_a_command_may_choose_its_status() -> None:
    assert run(lambda arguments: None, []) == 0
    assert run(lambda arguments: 1, []) == 1


def test_wrong_arguments_are_one_line_and_status_two(capsys: pytest.CaptureFixture) -> None:
    def main(arguments: list[str]) -> None:
        parser = CommandParser(prog="cestquant")
        parser.add_subparsers(required=True).add_parser("fit").add_argument("--method", choices=["quesp"])
        parser.parse_args(arguments)

    assert run(main, ["fit", "--method", "magic"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cestquant fit: argument --method: invalid choice")
    assert error.count("\n") == 1
    assert run(main, ["--help"]) == 0


def test_an_output_folder_appears_only_when_all_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "map.txt").write_text("new")
        assert not out.exists()
    assert (out / "sub" / "map.txt").read_text() == "new"
    assert os.listdir(out.parent) == ["out"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_run_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(Cancelled), OutputFolder(tmp_path / "deep" / "out") as folder:
        (folder / "map.txt").write_text("half")
        raise Cancelled
    assert os.listdir(tmp_path) == []


def test_a_failed_run_keeps_earlier_results_and_a_good_one_replaces_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "map.txt").write_text("earlier")
    (out / "notes.txt").write_text("the user's")
    with pytest.raises(RuntimeError), OutputFolder(out) as folder:
        (folder / "map.txt").write_text("half")
        raise RuntimeError
    assert (out / "map.txt").read_text() == "earlier"
    with OutputFolder(out) as folder:
        (folder / "map.txt").write_text("new")
    assert (out / "map.txt").read_text() == "new"
    assert (out / "notes.txt").read_text() == "the user's"
    assert os.listdir(tmp_path) == ["out"]


def test_an_existing_output_folder_may_be_a_file_system_of_its_own(tmp_path: Path) -> None:
    """Then nothing can be renamed into it from beside it, and its parent may be read-only."""
    with OutputFolder(tmp_path) as folder:
        assert folder.parent == tmp_path
        (folder / "map.txt").write_text("new")
    assert os.listdir(tmp_path) == ["map.txt"]


def test_warnings_for_the_user_are_one_line_without_the_place_in_the_code(capsys: pytest.CaptureFixture) -> None:
    def main(arguments: list[str]) -> None:
        warnings.warn("p.json: unknown keys\nare ignored", stacklevel=1)

    assert run(main, []) == 0
    assert capsys.readouterr().err == "warning: p.json: unknown keys are ignored\n"


def test_impossible_output_folders_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, words in (("file", "it is a file"), ("file/out", "cannot write")):
        with pytest.raises(ValueError, match=words), OutputFolder(tmp_path / place):
            pytest.fail("work began")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process has ended")
@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_run_left_is_removed_by_the_next_one(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    code = (
        "import os, signal\n"
        "from NeuroCESTLib.batch.frame import OutputFolder\n"
        f"with OutputFolder({str(out)!r}) as folder:\n"
        "    (folder / 'map.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    place = out if exists else tmp_path
    (left,) = place.glob(".out-*")
    others = [tmp_path / ".out-backup", tmp_path / f".other{left.name[4:]}", tmp_path / f"{left.name}.old"]
    another = tmp_path / left.name.replace(left.name.split("-")[2], "0123abcd")  # of another machine
    for kept in (*others, another):
        kept.mkdir()
    with OutputFolder(out) as living:
        with OutputFolder(out) as folder:
            (folder / "map.txt").write_text("new")
        assert living.is_dir()
        assert not left.exists()
        (living / "second.txt").write_text("new")
    assert sorted(os.listdir(out)) == ["map.txt", "second.txt"]
    assert sorted(os.listdir(tmp_path)) == sorted(["out", another.name, *(kept.name for kept in others)])


def test_errors_name_the_wanted_folder_and_not_the_hidden_one(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"out/map\.nii\.gz' is bad") as caught,
        OutputFolder(tmp_path / "out") as folder,
    ):
        raise ValueError(f"'{folder / 'map.nii.gz'}' is bad")
    assert str(tmp_path / "out" / "map.nii.gz") in str(caught.value)


def test_an_interrupted_command_ends_with_one_line(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from NeuroCESTLib.batch.frame import OutputFolder, run\n"
        "from NeuroCESTLib.core.progress import terminal_progress\n"
        "def main(arguments):\n"
        f"    with OutputFolder({str(tmp_path / 'out')!r}) as folder, terminal_progress() as progress:\n"
        "        (folder / 'map.txt').write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        progress(0.5, 'fitting')\n"
        "sys.exit(run(main, []))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "cancelled, nothing written\n")
    assert os.listdir(tmp_path) == []
