"""The commands of the modules as processes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from NeuroCESTLib.batch.frame import CANCELLED

LIBRARIES = {
    "cestquant": "CESTQuantLib.batch",
    "jointregseg": "JointRegSegLib.batch",
    "neurocest": "NeuroCESTLib.workflow.batch",
}
"""Module that runs each command."""
_USAGE = tuple(f"{program} " for program in LIBRARIES)
"""How the messages about unusable options begin."""


def command_line(program: str, *arguments: object) -> list[str]:
    """Return the command line that runs a command of this project with the Python of this process.

    Args:
        program: A key of ``LIBRARIES``.
        arguments: Arguments of the command.
    """
    return [sys.executable, "-m", LIBRARIES[program], *map(str, arguments)]


def check_program(program: str, *arguments: object) -> None:
    """Check the arguments of a command of this project as it does itself before it reads any image.

    Args:
        program: ``cestquant`` or ``jointregseg``.
        arguments: Arguments of the command.

    Raises:
        ValueError: The command would refuse them; the message is the one that it would print.
    """
    importlib.import_module(LIBRARIES[program]).check([str(argument) for argument in arguments])


def run_program(program: str, *arguments: object, cwd: Path | None = None) -> None:
    """Run a command of this project and wait for its end; what it prints appears where it fails.

    Args:
        program: A key of ``LIBRARIES``.
        arguments: Arguments of the command.
        cwd: Folder in which it runs; that of this process by default.

    Raises:
        ValueError: The command refused its arguments or input; the message is the one that it printed.
        RuntimeError: It failed.
    """
    done = subprocess.run(
        command_line(program, *arguments), capture_output=True, text=True, check=False, env=environment(), cwd=cwd
    )
    if done.returncode:
        message = f"{program} {arguments[0]}: {last_error(done.stderr) or f'exit status {done.returncode}'}"
        raise (ValueError if done.returncode == 2 else RuntimeError)(message)


def environment(threads: int | None = None) -> Mapping[str, str]:
    """Return the environment of the processes, in which the packages of this process are found.

    Args:
        threads: Number of threads for numerical libraries; None leaves what is set.
    """
    # The folders from which this process imports the project, which need not be installed.
    folders = [str(Path(folder or ".").resolve()) for folder in sys.path if _holds_a_library(Path(folder or "."))]
    known = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(dict.fromkeys([*folders, *(known.split(os.pathsep) if known else [])]))
    limits = (
        {}
        if threads is None
        else dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads))
    )
    # Without the last one, Python would import files of the folder in which it is started, such as a 'random.py' of the
    # user. Python 3.10 does not know it; Snakemake needs 3.11.
    return {**os.environ, **({"PYTHONPATH": path} if path else {}), **limits, "PYTHONSAFEPATH": "1"}


def last_error(printed: str) -> str:
    """Return the sentence with which a command ended, from what it printed to standard error.

    A command that was killed has none; then the last thing that it said is told. Empty where it said nothing at all.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith(("error: ", *_USAGE))]
    if errors or not lines:
        return errors[-1] if errors else ""
    return f"it ended without a message after '{lines[-1]}': it was stopped, perhaps for lack of memory or time"


def was_cancelled(printed: str) -> bool:
    """Return whether a command was cancelled, by what it printed to standard error."""
    return printed.rstrip().endswith(CANCELLED)


def options(values: Mapping[str, object]) -> list[str]:
    """Return the arguments of options that have a value; a sequence becomes several values of one option."""
    arguments: list[str] = []
    for name, value in values.items():
        if value is None or value == "":
            continue
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        arguments += [name, *map(str, several)]
    return arguments


def _holds_a_library(folder: Path) -> bool:
    return any((folder / name.split(".")[0] / "__init__.py").is_file() for name in LIBRARIES.values())
