"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same ending, renamed to it when the block ends without error.

    Raises:
        ValueError: the place cannot be written to; names the file.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=f"-{path.name}", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ValueError(f"cannot write '{path}': {error.strerror}") from None
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp made it private
        os.replace(name, path)
    except OSError as error:
        raise ValueError(f"cannot write '{path}': {error.strerror or error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
