"""Recognition of DICOM files, which are imported as scans but, except for single volumes, not read as images."""

from __future__ import annotations

from pathlib import Path

CONVERT = "convert the DICOM series to NIfTI first, with dcm2niix or by loading it in Slicer"
"""What to do about DICOM files where an image is needed."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether a folder holds a DICOM file, without its subfolders."""
    return any(is_dicom(file) for file in folder.iterdir())
