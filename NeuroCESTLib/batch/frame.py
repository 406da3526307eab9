"""The frame of every batch command: arguments, exit status, output folder.

The exit status is 0 for success, 2 for unusable arguments or input, and 1 for a failure or a cancelled run. Standard
error gets one line that says what went wrong; only ``--debug`` adds a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.core.whole_files import write_errors

SUCCESS, FAILURE, UNUSABLE = 0, 1, 2

# Exceptions that bad arguments and bad files raise; any other one is a failure of the program.
_BAD_INPUT = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

ANONYMOUS = "--anonymous"
_EVERYWHERE = (
    f"Every command takes {ANONYMOUS}, which leaves paths, user and machine, and names of nodes that come from files "
    "out of report, tables, pictures and scene, and --debug, which shows where an error arose."
)
"""What the help of every command ends with."""
_REMEDIES = {
    "torch": "PyTorch is not installed: in Slicer, install the extension PyTorch and press 'Install PyTorch' in its "
    "module 'PyTorch Utils'; elsewhere run 'pip install torch'",
    "SimpleITK": "SimpleITK is not installed: run 'pip install SimpleITK' (Slicer brings its own)",
}
"""What to do about a package that is missing, by its name."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that adds the default of an option where it is informative and the text does not mention it yet."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose errors are one line and whose options cannot be abbreviated.

    It takes the arguments of ``argparse.ArgumentParser``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False, "epilog": _EVERYWHERE, **settings})

    def error(self, message: str) -> NoReturn:
        """Print one line that says what is wrong and how to get help, and exit with status 2."""
        self.exit(UNUSABLE, f"{self.prog}: {one_line(message)} (see '{self.prog} --help')\n")


def run(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        main: The command. It takes the arguments without ``--debug`` and ``--anonymous``, and returns an exit status,
            or None for 0.
        arguments: Arguments of the command line; ``sys.argv[1:]`` by default. ``--anonymous`` leaves paths and the
            names that come from them out of what is written.

    Returns:
        0 for success, 2 for unusable arguments or input, 1 for a failure or a cancelled run.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, hides_names = "--debug" in arguments, ANONYMOUS in arguments
    arguments = [argument for argument in arguments if argument not in ("--debug", ANONYMOUS)]
    try:
        with _warnings_in_one_line(), _names_hidden(arguments) if hides_names else contextlib.nullcontext():
            return main(arguments) or SUCCESS
    except SystemExit as stop:
        return _exit_status(stop)
    except (Cancelled, KeyboardInterrupt):
        print("cancelled, nothing written", file=sys.stderr)
        return FAILURE
    except Exception as error:  # whatever happened, a command ends with a sentence
        if debug:
            traceback.print_exc()
        status, line = _outcome(error)
        print(f"error: {one_line(line)}", file=sys.stderr)
        return status


def _names_hidden(arguments: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    from NeuroCESTLib.batch.anonymity import anonymous  # imports what a help text does not need

    return anonymous(arguments)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings that are meant for the user as ``warning: …``, without the place in the code."""
    with warnings.catch_warnings():
        default = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is UserWarning:
                print(f"warning: {one_line(str(message))}", file=sys.stderr)
            else:
                default(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """Return the arguments of a command for its report, without the function that runs it."""
    return {name: value for name, value in vars(options).items() if name != "command"}


def one_line(text: str) -> str:
    """Return the text on one line, with single spaces."""
    return " ".join(str(text).split())


def _outcome(error: Exception) -> tuple[int, str]:
    if isinstance(error, _BAD_INPUT):
        return UNUSABLE, _sentence(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _REMEDIES:
        return FAILURE, _REMEDIES[error.name]
    if isinstance(error, MemoryError):
        return FAILURE, "not enough memory: use fewer voxels (a mask), or a machine with more"
    return FAILURE, f"{type(error).__name__}: {error}"


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"file not found: '{error.filename}'"
    if isinstance(error, OSError) and error.filename:
        return f"'{error.filename}': {error.strerror}"
    return str(error) or type(error).__name__


def _exit_status(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or SUCCESS
    print(f"error: {one_line(str(stop.code))}", file=sys.stderr)
    return FAILURE


class OutputFolder:
    """A folder for results that appears whole or not at all::

        with OutputFolder("out") as folder:
            write_node(node, folder / "map.nii.gz")

    Files are collected in a hidden folder and moved into place at the end. The hidden folder lies beside the wanted
    one, or inside it where it exists already, because that may be a file system of its own. An error or a cancelled
    run leaves earlier results as they were; other files in the folder always stay. Hidden folders that killed runs on
    this machine left behind for the same place are removed.

    Args:
        path: Folder for the results; missing parents are made.

    Raises:
        ValueError: The folder cannot be written to; this is checked on entering, before any work is done.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._places: _Places | None = None

    def __enter__(self) -> Path:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"cannot write to '{self.path}': it is a file, not a folder")
        target = self.path.resolve()
        parent = target.parent
        with write_errors(self.path):
            ancestor = next(folder for folder in (parent, *parent.parents) if folder.exists())
            if not ancestor.is_dir():
                raise ValueError(f"cannot write '{self.path}': '{ancestor}' is not a folder")
            parent.mkdir(parents=True, exist_ok=True)
            for folder in (target, parent):
                _remove_leftovers(folder, target.name)
            prefix = f".{target.name}-{os.getpid()}-{_machine()}-"
            work = Path(tempfile.mkdtemp(prefix=prefix, dir=target if target.exists() else parent))
        self._places = _Places(work, ancestor)
        return work

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._places is None:
            return
        work = self._places.work
        try:
            if kind is None:
                with write_errors(self.path / "results"):
                    self._move_into_place(work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if kind is not None:
                self._remove_made_parents(self._places.ancestor)
        if isinstance(error, ValueError) and str(work) in str(error):
            # The user asked for the wanted folder and knows nothing of the hidden one.
            raise ValueError(str(error).replace(str(work), str(self.path))) from None

    def _move_into_place(self, work: Path) -> None:
        if not self.path.exists():
            work.chmod(0o777 & ~_umask())  # mkdtemp made it private
            os.replace(work, self.path)
            return
        for source in sorted(work.rglob("*")):
            target = self.path / source.relative_to(work)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(source, target)

    def _remove_made_parents(self, ancestor: Path) -> None:
        parent = self.path.resolve().parent
        while parent != ancestor and parent.exists() and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent


@dataclass(frozen=True)
class _Places:
    work: Path  # hidden folder in which files are collected
    ancestor: Path  # deepest folder on the way to the results that existed before the run


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove hidden folders for ``name`` of processes on this machine that have ended."""
    if not folder.is_dir():
        return
    pattern = re.compile(re.escape(f".{name}-") + rf"(\d+)-{_machine()}-\w+")
    for entry in folder.iterdir():
        found = pattern.fullmatch(entry.name)
        if found and entry.is_dir() and not entry.is_symlink() and not _is_running(int(found[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether the process may still run; always on Windows, where a signal cannot tell."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it belongs to another user
    return True


def _machine() -> str:
    """Short name of this machine, to mark its folders on a shared disk."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
