"""Images that consist of several files: a header and its data."""

from __future__ import annotations

import os
from pathlib import Path

from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.headers.metaimage import data_file, is_metaimage
from NeuroCESTLib.core.headers.nifti import is_pair, partners
from NeuroCESTLib.core.headers.nrrd import data_files, is_nrrd, read_nrrd_header


def files_of_image(path: str | os.PathLike) -> list[Path]:
    """Return all files of an image, the given one first.

    Args:
        path: A file of any kind. Those of images in ``.hdr`` and ``.img``, of ``.nhdr`` and of ``.mhd`` have further
            ones; where they cannot be found, reading the image says why.
    """
    path = Path(path)
    others: list[Path | None] = []
    try:
        if is_pair(path):
            others += partners(path)
        elif is_nrrd(path):
            others += data_files(read_nrrd_header(path))
        elif is_metaimage(path):
            others.append(data_file(path))
    except (OSError, ValueError):
        return [path]
    return [path, *(file for file in others if file is not None and file != path)]


def image_checksum(path: str | os.PathLike) -> str:
    """Return the SHA-256 checksum of a file, or of all files of an image one after the other, in hexadecimal digits."""
    return sha256(*files_of_image(path))
