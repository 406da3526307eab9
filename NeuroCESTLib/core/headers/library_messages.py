"""Lines that the format libraries below ITK and Slicer write to standard error past Python.

The caller says in one sentence of its own what is wrong with a file; lines such as ``** ERROR (nifti_image_read)`` on
top of it would only confuse.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

_LIBRARY_LINE = re.compile(
    rb"\*\* |\+\+ |-- |\s*(WARNING|ERROR|INFO|Error|Warning|Info): In |\[\w+\] |\s+#\d+: |\s+(major|minor): |"
    rb"(NIFTI|nifti|nrrd|ITK|itk|vtk|HDF5|MetaImage|MetaObject)\w*\b|\w+ \(0x[0-9a-f]+\)|.*\.(cxx|cpp|h|c), line \d+|"
    rb"Generic Warning|.*(required and not defined|prior to defining)"
)
_alone = False
_lock = threading.Lock()
_depth = 0
_real: int | None = None
_caught: BinaryIO | None = None


@contextlib.contextmanager
def library_lines_caught() -> Iterator[None]:
    """Keep lines of the format libraries from standard error while the block runs.

    Lines of others, such as the progress in another thread, are written afterwards. Blocks may be nested and run in
    several threads.
    """
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _depth, _real, _caught, _alone
    with _lock:
        _depth += 1
        if _depth > 1:
            return
        try:
            sys.stderr.flush()
            real = os.dup(2)
        except (OSError, ValueError, AttributeError):  # an application without a standard error
            return
        try:
            caught = tempfile.TemporaryFile()  # noqa: SIM115  closed when the last block ends
            os.dup2(caught.fileno(), 2)
        except OSError:
            os.close(real)
            return
        _real, _caught, _alone = real, caught, threading.active_count() == 1


def _end() -> None:
    global _depth, _real, _caught
    with _lock:
        _depth -= 1
        if _depth or _real is None or _caught is None:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        real, caught = _real, _caught
        _real = _caught = None
        os.dup2(real, 2)
        with caught:
            caught.seek(0)
            lines = caught.read().splitlines(keepends=True)
        if _alone and threading.active_count() == 1:  # nothing but libraries can have written
            lines = []
        own = b"".join(line for line in lines if line.strip() and not _LIBRARY_LINE.match(line))
        if own:
            with contextlib.suppress(OSError):
                os.write(real, own)
        os.close(real)
