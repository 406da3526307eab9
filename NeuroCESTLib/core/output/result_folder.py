"""The folder of a command's results: the old one or the new one, whole, at every moment."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..whole_files import write_errors
from .exchange import NotCarriedError, bring_latecomers, carry_over, exchange
from .hidden import left_behind, make_hidden, remove_left_behind
from .inputs import require_inputs_kept
from .lock import only_run

_OLD = "-old"
"""Ending of the name of an old result while the new one takes its place."""
_COMPLETE = "-complete"
"""Ending of the name of a complete result whose files are being moved one by one."""


def _nothing(name: str) -> bool:
    return False


class OutputFolder:
    """A folder for results that appears whole or not at all::

        with OutputFolder("out") as folder:
            write_node(node, folder / "map.nii.gz")

    Files are collected in a hidden folder beside the wanted one. At the end the two change places in one step, so that
    whenever a run is killed, the folder holds either the old result or the new one. An error or a cancelled run leaves
    the old one. Other files in the folder, of the user or of earlier runs, are carried over.

    Where the folder cannot be exchanged, the files are moved into it one by one: it is a file system of its own,
    nothing can be written beside it, it is or contains the working folder, or it holds more than 1,000 other files.
    If a run is killed in the very moment of these moves, the next one completes them before it starts.

    An input of the command in the folder that has the name of a result ends the run with an error and stays as it is.

    Hidden folders that killed runs on this machine left behind for the same place are removed.

    Args:
        path: Folder for the results; missing parents are made.
        name: Name of the result, where several results share a folder; that of the folder by default.
        belongs: Says by its name whether an entry of a shared folder belongs to this result. The folder is exchanged
            only if all do. By default the folder is not shared.
        replaced: Says for a path relative to the folder whether it belongs to an earlier result and is not carried
            over. Files that the new result has too are always replaced.
        lock: Whether to keep other runs from writing to the same folder; False where the caller does so.

    Raises:
        ValueError: The folder cannot be written to, or another run is writing to it; this is checked on entering,
            before any work is done. Or a result would replace an input of the command.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        name: str | None = None,
        belongs: Callable[[str], bool] | None = None,
        replaced: Callable[[str], bool] = _nothing,
        lock: bool = True,
    ) -> None:
        self.path = Path(path)
        self._name, self._belongs, self._replaced, self._lock = name, belongs, replaced, lock
        self._places: _Places | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Path:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"cannot write to '{self.path}': it is a file, not a folder")
        target = self.path.resolve()
        parent, name = target.parent, target.name if self._name is None else f"{target.name}+{self._name}"
        with write_errors(self.path):
            ancestor = next(folder for folder in (parent, *parent.parents) if folder.exists())
            if not ancestor.is_dir():
                raise ValueError(f"cannot write '{self.path}': '{ancestor}' is not a folder")
            parent.mkdir(parents=True, exist_ok=True)
            try:
                if self._lock:
                    self._open.enter_context(only_run(self.path))
                _recover(target, name)
                work = make_hidden(parent if _has_room_beside(target) else target, name)
            except BaseException:
                self._open.close()
                _remove_made_parents(target, ancestor)
                raise
        self._places = _Places(target, work, ancestor, name)
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
                    self._put_into_place(self._places)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            self._open.close()
            if kind is not None:
                _remove_made_parents(self._places.target, self._places.ancestor)
        if isinstance(error, ValueError) and str(work) in str(error):
            # The user asked for the wanted folder and knows nothing of the hidden one.
            raise ValueError(str(error).replace(str(work), str(self.path))) from None

    def _put_into_place(self, places: _Places) -> None:
        target, work = places.target, places.work
        require_inputs_kept(target, lambda path: os.path.lexists(work / path) or self._is_replaced(path))
        if not target.exists():
            work.chmod(0o777 & ~_umask())  # it was made private
            os.replace(work, target)
            return
        if work.parent == target or _contains_working_folder(target) or not self._is_ours(target):
            _move_files(work, target)
            return
        try:
            carried = carry_over(target, work, self._replaced)
        except NotCarriedError:
            _move_files(work, target)
            return
        _copy_attributes(target, work)
        old = _exchanged(target, work)
        if old is None:
            _move_files(work, target)
            return
        bring_latecomers(old, target, carried, self._replaced)
        shutil.rmtree(old, ignore_errors=True)

    def _is_replaced(self, path: Path) -> bool:
        return any(self._replaced(part.as_posix()) for part in (path, *path.parents[:-1]))

    def _is_ours(self, target: Path) -> bool:
        return self._belongs is None or all(self._belongs(entry.name) for entry in target.iterdir())


@dataclass(frozen=True)
class _Places:
    target: Path  # the wanted folder, without symbolic links
    work: Path  # hidden folder in which files are collected
    ancestor: Path  # deepest folder on the way to the results that existed before the run
    name: str  # name of the result


def _has_room_beside(target: Path) -> bool:
    """Whether a folder beside ``target`` can take its place."""
    if not target.exists():
        return True
    same_device = target.stat().st_dev == target.parent.stat().st_dev
    return same_device and not os.path.ismount(target) and os.access(target.parent, os.W_OK)


def _contains_working_folder(target: Path) -> bool:
    """Whether the process works in the folder or below it; the shell that started it would lose its place."""
    try:
        working = Path.cwd().resolve()
    except FileNotFoundError:
        return False
    return working.is_relative_to(target)


def _exchanged(target: Path, work: Path) -> Path | None:
    """Put ``work`` in the place of ``target``, in one step where the system can.

    Returns:
        Where the old folder is; None where the system cannot move it, such as a folder in use on Windows.
    """
    if exchange(work, target):
        return work
    old = work.with_name(work.name + _OLD)
    try:
        os.rename(target, old)
    except OSError:
        return None
    try:
        os.rename(work, target)
    except OSError:
        os.rename(old, target)
        raise
    return old


def _move_files(work: Path, target: Path) -> None:
    """Move the files of a complete result into a folder one by one, so that a killed run can be completed.

    Raises:
        IsADirectoryError: The folder has a folder where the result has a file; nothing was moved.
    """
    for source in work.rglob("*"):
        place = target / source.relative_to(work)
        if place.is_dir() != source.is_dir() and os.path.lexists(place):
            raise IsADirectoryError(errno.EISDIR, "a file and a folder have the same name", str(place))
    complete = work if work.name.endswith(_COMPLETE) else work.with_name(work.name + _COMPLETE)
    os.rename(work, complete)
    try:
        for source in sorted(complete.rglob("*")):
            place = target / source.relative_to(complete)
            if source.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(source, place)
    finally:
        shutil.rmtree(complete, ignore_errors=True)


def _recover(target: Path, name: str) -> None:
    """Bring a result that a killed run left in the moment of its replacement into order, and remove what is left."""
    for old in left_behind(target.parent, name, _OLD):
        if not target.exists():
            os.rename(old, target)
        else:
            shutil.rmtree(old, ignore_errors=True)
    for place in (target.parent, target):
        for complete in left_behind(place, name, _COMPLETE):
            if target.is_dir():
                with contextlib.suppress(IsADirectoryError):
                    _move_files(complete, target)
            shutil.rmtree(complete, ignore_errors=True)
        remove_left_behind(place, name)


def _copy_attributes(source: Path, target: Path) -> None:
    """Give a folder the permissions and, where allowed, the group of another one."""
    with contextlib.suppress(OSError):
        shutil.copystat(source, target)
        os.utime(target)
    if os.name == "posix" and source.stat().st_gid != target.stat().st_gid:
        with contextlib.suppress(OSError):
            os.chown(target, -1, source.stat().st_gid)
            target.chmod(source.stat().st_mode & 0o7777)  # changing the group clears the bit that passes it on


def _remove_made_parents(target: Path, ancestor: Path) -> None:
    """Remove the empty folders on the way to the results that the run made."""
    parent = target.parent
    while parent != ancestor and parent.exists() and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
