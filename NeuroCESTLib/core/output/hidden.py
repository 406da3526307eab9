"""Hidden folders in which a run collects its files, and what killed runs left of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def make_hidden(place: Path, name: str) -> Path:
    """Make a hidden folder that carries the number of this process and the name of this machine.

    Args:
        place: Folder to make it in.
        name: Name of the result that is collected in it.

    Raises:
        OSError: The file system refused.
    """
    return Path(tempfile.mkdtemp(prefix=f".{name}-{os.getpid()}-{_machine()}-", dir=place))


def left_behind(place: Path, name: str, ending: str = "") -> Iterator[Path]:
    """Yield the hidden folders for ``name`` of processes of this machine that have ended.

    Args:
        place: Folder to look in; it may be missing.
        name: Name of the result.
        ending: Text at the end of the names of the folders.
    """
    pattern = re.compile(re.escape(f".{name}-") + rf"(\d+)-{_machine()}-\w+{re.escape(ending)}")
    if not place.is_dir():
        return
    for entry in sorted(place.iterdir()):
        found = pattern.fullmatch(entry.name)
        if found and entry.is_dir() and not entry.is_symlink() and not _is_running(int(found[1])):
            yield entry


def remove_left_behind(place: Path, name: str) -> None:
    """Remove the hidden folders for ``name`` that killed runs left in a folder."""
    for folder in left_behind(place, name):
        shutil.rmtree(folder, ignore_errors=True)


def make_temporary() -> Path:
    """Make a folder for files that no user sees, in the system's place for them, and tidy up after killed runs.

    Returns:
        The folder; the caller removes it.
    """
    place = Path(tempfile.gettempdir())
    tidy_up(place)
    return make_hidden(place, _TEMPORARY)


@functools.cache
def tidy_up(place: Path) -> None:
    """Remove what killed runs left in the system's folder for temporary files, once in the life of a process."""
    remove_left_behind(place, _TEMPORARY)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Provide a folder as :func:`make_temporary` does, and remove it at the end of the block."""
    folder = make_temporary()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_TEMPORARY = "neurocest"


def _is_running(process: int) -> bool:
    """Whether the process may still run; always on Windows, where a signal cannot tell."""
    if process == os.getpid() or os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it belongs to another user
    return True


@functools.cache
def _machine() -> str:
    """Short name of this machine, to mark its folders on a shared disk."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
