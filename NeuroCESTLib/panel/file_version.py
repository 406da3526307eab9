"""Files that change outside of the panel, such as in a text editor, while the panel shows what they hold."""

import os
from typing import Any


def file_version(given: Any) -> Any:
    """Return a value that differs once a file has changed on disk: its path, its time and its size.

    Args:
        given: Path of a file; anything else, such as the name of a preset, is returned as it is.
    """
    if not isinstance(given, str) or not os.path.isfile(given):
        return given
    found = os.stat(given)
    return given, found.st_mtime_ns, found.st_size
