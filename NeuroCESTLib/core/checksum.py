"""Checksums of files."""

from __future__ import annotations

import hashlib
import os


def sha256(*paths: str | os.PathLike) -> str:
    """Return the SHA-256 checksum of a file, or of several one after the other, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
