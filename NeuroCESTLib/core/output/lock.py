"""One run at a time: a lock that the system lifts when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_FAR = 1 << 30
"""Offset of the locked byte on Windows, behind the text of the file, which others may then read."""


@contextlib.contextmanager
def only_run(path: str | os.PathLike) -> Iterator[None]:
    """Keep other runs from writing to the same place while the block runs.

    The lock is held by the system on an open file, ``.<name>.lock`` beside the place. It ends with the process, even
    one that is killed: a file that is left behind holds no lock. Where the file system has no locks, or nothing can be
    written beside the place, the block runs without one.

    Args:
        path: Folder or file that the run writes.

    Raises:
        ValueError: Another run holds the lock; the message names ``path``.
    """
    target = Path(path).resolve()
    place = target.parent
    if not os.access(place, os.W_OK) and target.is_dir():
        place = target
    file = place / f".{target.name}.lock"
    descriptor = _locked(file, Path(path))
    try:
        yield
    finally:
        if descriptor is not None:
            # While the lock is held, so that nobody can have locked the file that is removed.
            with contextlib.suppress(OSError):
                file.unlink()
            os.close(descriptor)
            if os.name == "nt":  # which removes no open file
                with contextlib.suppress(OSError):
                    file.unlink()


def _locked(file: Path, path: Path) -> int | None:
    """Open and lock a file; None where that is impossible for another reason than another run."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError:
            return None
        try:
            _lock(descriptor)
        except OSError as error:
            number = _process(descriptor)
            os.close(descriptor)
            if error.errno in _BUSY:
                raise ValueError(
                    f"another run{number} is writing to '{path}': wait until it has ended, or choose another place"
                ) from None
            if error.errno in _UNSUPPORTED:
                return None
            raise
        if _is_still(descriptor, file):
            with contextlib.suppress(OSError):  # on a full disk, the lock holds without its text
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)  # its owner removed it between opening and locking


def _is_still(descriptor: int, file: Path) -> bool:
    """Whether an open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except OSError:
        return False


def _process(descriptor: int) -> str:
    """Say which process holds the lock, as far as the file tells."""
    try:
        text = os.pread(descriptor, 20, 0).decode().strip() if hasattr(os, "pread") else ""
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {text})" if text.isdigit() else ""


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
