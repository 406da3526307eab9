"""The common frame of the batch commands: arguments, exit status, output folders.

Exit status: 0 success, 2 unusable arguments or input, 1 failure or cancel. What went wrong is one line on
standard error; a traceback comes only with ``--debug``.
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
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.core.whole_files import write_errors

SUCCESS, FAILURE, UNUSABLE = 0, 1, 2

# What bad arguments and bad files raise. Other exceptions are failures of ours.
_BAD_INPUT = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something, once."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """Argument parser whose errors are one line; adds ``--debug`` to the top parser."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", _Help)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line that says what is wrong and where help is; exit status 2."""
        self.exit(UNUSABLE, f"{self.prog}: {one_line(message)} (see '{self.prog} --help')\n")


def run(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        main: the command; gets the arguments without ``--debug``, returns an exit status or None for 0.
        arguments: as ``sys.argv[1:]``, the default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _warnings_in_one_line():
            return main(arguments) or SUCCESS
    except SystemExit as stop:
        return _exit_status(stop)
    except (Cancelled, KeyboardInterrupt):
        print("cancelled, nothing written", file=sys.stderr)
        return FAILURE
    except Exception as error:  # a command ends with a sentence, whatever happened
        if debug:
            traceback.print_exc()
        status, line = _outcome(error)
        print(f"error: {one_line(line)}", file=sys.stderr)
        return status


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print what is meant for the user as ``warning: …``, without the place in the code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: object, **kwargs: object) -> None:
            if category is UserWarning:
                print(f"warning: {one_line(str(message))}", file=sys.stderr)
            else:
                shown(message, category, *args, **kwargs)

        warnings.showwarning = show
        yield


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """Arguments as the report has them: all but the function that runs the command."""
    return {name: value for name, value in vars(options).items() if name != "command"}


def one_line(text: str) -> str:
    """``text`` without line breaks."""
    return " ".join(str(text).split())


def _outcome(error: Exception) -> tuple[int, str]:
    if isinstance(error, _BAD_INPUT):
        return UNUSABLE, _sentence(error)
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
    """A folder for results that appears whole or not at all.

        with OutputFolder("out") as folder:
            write_node(node, folder / "map.nii.gz")

    Files are collected in a hidden folder, beside the wanted one or in it where it exists (it may be a file system
    of its own), and moved into place at the end. After an error or a cancel, results of an earlier run are as they
    were. Other files in the folder stay. Hidden folders that killed runs on this machine left for the same place are
    removed.

    Raises:
        ValueError: the place cannot be written to; checked before any work is done.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._existing_ancestor: Path | None = None
        self._work: Path | None = None

    def __enter__(self) -> Path:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"cannot write to '{self.path}': it is a file, not a folder")
        place = self.path.resolve()
        parent = place.parent
        with write_errors(self.path):
            self._existing_ancestor = next(p for p in (parent, *parent.parents) if p.exists())
            if not self._existing_ancestor.is_dir():
                raise ValueError(f"cannot write '{self.path}': '{self._existing_ancestor}' is not a folder")
            parent.mkdir(parents=True, exist_ok=True)
            for folder in (place, parent):
                _remove_leftovers(folder, place.name)
            prefix = f".{place.name}-{os.getpid()}-{_machine()}-"
            self._work = Path(tempfile.mkdtemp(prefix=prefix, dir=place if place.exists() else parent))
        return self._work

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with write_errors(self.path / "results"):
                    self._move_into_place()
        finally:
            shutil.rmtree(self._work, ignore_errors=True)
            if kind is not None:
                self._remove_made_parents()
        if isinstance(error, ValueError) and str(self._work) in str(error):
            # The user asked for the wanted folder and knows nothing of the hidden one.
            raise ValueError(str(error).replace(str(self._work), str(self.path))) from None

    def _move_into_place(self) -> None:
        if not self.path.exists():
            self._work.chmod(0o777 & ~_umask())  # mkdtemp made it private
            os.replace(self._work, self.path)
            return
        for source in sorted(self._work.rglob("*")):
            target = self.path / source.relative_to(self._work)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(source, target)

    def _remove_made_parents(self) -> None:
        parent = self.path.resolve().parent
        while parent != self._existing_ancestor and parent.exists() and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove hidden work folders for ``name`` whose process, of this machine, has ended."""
    if not folder.is_dir():
        return
    pattern = re.compile(re.escape(f".{name}-") + rf"(\d+)-{_machine()}-\w+")
    for place in folder.iterdir():
        found = pattern.fullmatch(place.name)
        if found and place.is_dir() and not place.is_symlink() and not _is_running(int(found[1])):
            shutil.rmtree(place, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether the process may be alive; on Windows, where a signal cannot ask, always."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # of another user
    return True


def _machine() -> str:
    """Short name of this machine, which a folder on a shared disk is marked with."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
