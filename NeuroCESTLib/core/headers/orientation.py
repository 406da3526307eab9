"""What a user should know about the orientation of an image file.

Readers silently take one of two transforms that differ, and left-posterior-superior where a header names no directions.
"""

from __future__ import annotations

import os

import numpy as np

from NeuroCESTLib.core.headers.nifti_orientation import LARGEST_SHIFT_MM, nifti_orientation
from NeuroCESTLib.core.headers.nrrd import NrrdHeader, is_nrrd, read_nrrd_header


def orientation_notes(path: str | os.PathLike, used: np.ndarray) -> list[str]:
    """Return what a user should know about the orientation of a file.

    Args:
        path: File of any format.
        used: Map (4, 4) from voxels of the file to RAS mm that was read.

    Returns:
        Sentences that name the file; none for a file whose orientation is beyond doubt.
    """
    if is_nrrd(path):
        return _nrrd_notes(read_nrrd_header(path))
    found = nifti_orientation(path)
    if found is None:
        return []
    if found.qform is None and found.sform is None:
        return [
            f"'{path}' has neither a qform nor an sform: its orientation is unknown, left and right may be exchanged"
        ]
    if found.qform is None or found.sform is None:
        return []
    apart = found.distance_mm(found.qform, found.sform)
    if apart <= LARGEST_SHIFT_MM:
        return []
    taken, other = ("qform", "sform")
    if found.distance_mm(found.sform, used) < found.distance_mm(found.qform, used):
        taken, other = other, taken
    reason = ", because its sform is sheared" if taken == "qform" and found.shear_mm > LARGEST_SHIFT_MM else ""
    return [
        f"'{path}' has a qform and an sform that place its corners up to {apart:.1f} mm apart: the {taken} is used"
        f"{reason}; set the code of the {other} to 0 if that is right"
    ]


def _nrrd_notes(header: NrrdHeader) -> list[str]:
    found = []
    if not header.is_in_patient_space:
        found.append(
            f"'{header.path}' does not name a space of the patient, such as left-posterior-superior, which is assumed: "
            "its orientation is unknown, left and right may be exchanged"
        )
    if not any(header.vectors("space origin")):
        found.append(f"'{header.path}' has no space origin: its position is unknown, its first voxel is put at 0 mm")
    return found
