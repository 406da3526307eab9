"""Two folders that change places in one step, and files that are carried from one to the other."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

MOST_CARRIED = 1000
"""Most files that are carried over into a new folder."""
_LINUX_EXCHANGE, _MACOS_SWAP = 2, 2
"""``RENAME_EXCHANGE`` of ``renameat2``, and ``RENAME_SWAP`` of ``renamex_np``."""
_WORKING_FOLDER = -100
"""``AT_FDCWD``: paths are relative to the working folder."""
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV)
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EMLINK, *_NO_EXCHANGE)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step.

    Returns:
        Whether it was done; False where system or file system cannot do it.

    Raises:
        OSError: The file system refused.
    """
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform.startswith("linux") and hasattr(library, "renameat2"):
        failed = library.renameat2(_WORKING_FOLDER, names[0], _WORKING_FOLDER, names[1], _LINUX_EXCHANGE)
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, _MACOS_SWAP)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


class NotCarriedError(Exception):
    """The files of a folder cannot all be carried over into another one, or are too many."""


def carry_over(old: Path, new: Path, replaced: Callable[[str], bool]) -> dict[str, bool]:
    """Give a new folder the files of an old one that it does not have itself.

    They are hard links, so that a file is never missing and one that is being written goes on; copies where the file
    system has no links.

    Args:
        old: Folder whose files are carried over; it stays as it is.
        new: Folder that gets them.
        replaced: Says for a path relative to ``old`` that it is not carried over.

    Returns:
        Whether it is a link, for every file by its relative path.

    Raises:
        NotCarriedError: It cannot be done; ``new`` is as before.
    """
    made: list[Path] = []
    carried: dict[str, bool] = {}
    try:
        _carry(old, new, Path(), replaced, made, carried)
    except (OSError, NotCarriedError) as error:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        raise NotCarriedError(str(error)) from None
    return carried


def _carry(
    old: Path, new: Path, inside: Path, replaced: Callable[[str], bool], made: list[Path], carried: dict[str, bool]
) -> None:
    for entry in sorted(os.scandir(old / inside), key=lambda entry: entry.name):
        relative, target = inside / entry.name, new / inside / entry.name
        if replaced(relative.as_posix()):
            continue
        if len(carried) >= MOST_CARRIED:
            raise NotCarriedError("too many files")
        if entry.is_dir(follow_symlinks=False):
            if os.path.ismount(entry.path):
                raise NotCarriedError(f"'{entry.path}' is a file system of its own")
            if not os.path.lexists(target):
                target.mkdir()
                made.append(target)
            elif target.is_symlink() or not target.is_dir():
                raise NotCarriedError(f"'{entry.path}' is a folder where the result has a file")
            _carry(old, new, relative, replaced, made, carried)
            shutil.copystat(entry.path, target)
        elif not os.path.lexists(target):
            made.append(target)
            carried[relative.as_posix()] = _link(Path(entry.path), target)


def _link(source: Path, target: Path) -> bool:
    """Make a hard link, or a copy where links are impossible; returns whether it is a link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    shutil.copy2(source, target, follow_symlinks=False)
    return False


def bring_latecomers(old: Path, new: Path, carried: dict[str, bool], replaced: Callable[[str], bool]) -> None:
    """Move files that appeared in the old folder while the two changed places into the new one.

    Args:
        old: The old folder at its new place, which will be removed.
        new: The new folder.
        carried: What :func:`carry_over` returned.
        replaced: As for :func:`carry_over`.
    """
    for file in sorted(old.rglob("*")):
        relative = file.relative_to(old).as_posix()
        target = new / relative
        if replaced(relative) or (file.is_dir() and not file.is_symlink()):
            continue
        late = not os.path.lexists(target)
        saved_anew = carried.get(relative, False) and not os.path.samestat(file.lstat(), target.lstat())
        if late or saved_anew:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
