"""The frame of the batch commands: exit status, errors of one line, warnings, output folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

from NeuroCESTLib.batch.frame import CommandParser, check_arguments, run
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


def test_the_help_of_every_command_names_the_options_that_all_take() -> None:
    own = CommandParser(prog="cestquant fit", epilog="Methods: quesp.").format_help()
    assert "Methods: quesp. Every command takes --anonymous" in own
    assert "Every command takes --anonymous" in CommandParser(prog="cestquant").format_help()


def test_an_empty_default_is_not_printed() -> None:
    parser = CommandParser(prog="cestquant")
    parser.add_argument("--label", default="", help="pseudonym of the patient")
    assert "default" not in parser.format_help()


def test_warnings_for_the_user_are_one_line_without_the_place_in_the_code(capsys: pytest.CaptureFixture) -> None:
    def main(arguments: list[str]) -> None:
        warnings.warn("p.json: unknown keys\nare ignored", stacklevel=1)

    assert run(main, []) == 0
    assert capsys.readouterr().err == "warning: p.json: unknown keys are ignored\n"


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--power", "abc"], "cestquant fit: argument --power: invalid float value: 'abc'"),
        (["fit", "--power", "-1"], "--power is -1.0; give a positive one"),
        (["fit", "--powr", "1"], "cestquant: unrecognized arguments: --powr 1"),
    ],
)
def test_arguments_are_checked_without_running_the_command(arguments: list[str], words: str) -> None:
    def check(options: Namespace) -> None:
        if options.power < 0:
            raise ValueError(f"--power is {options.power}; give a positive one")

    parser = CommandParser(prog="cestquant")
    command = parser.add_subparsers(required=True).add_parser("fit")
    command.add_argument("--power", type=float, default=1.0)
    command.set_defaults(check=check)
    check_arguments(parser, ["fit", "--power", "1", "--debug", "--anonymous"])
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        check_arguments(parser, arguments)
