"""A doubtful orientation or position of an NRRD file is told, as it is for NIfTI files (``test_nifti_orientation``)."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from JointRegSegLib.images.reading import read_image
from NeuroCESTLib.scene.volumes import read_volume

PLACE = "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (-10,5,0)\n"


def written(path: Path, place: str) -> Path:
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n{place}\n"
    path.write_bytes(header.encode() + bytes(range(24)))
    return path


@pytest.mark.parametrize("place", ["space dimension: 3\n" + PLACE, "space: scanner-xyz\n" + PLACE])
def test_a_space_that_does_not_name_directions_of_the_patient_is_told(place: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.nrrd", place)
    with pytest.warns(UserWarning, match=rf"'{path}' does not name a space of the patient, .*left and right may be"):
        assert read_image(path).GetOrigin() == (-10, 5, 0)


def test_spacings_alone_leave_orientation_and_position_unknown(tmp_path: Path, slicer: object) -> None:
    path = written(tmp_path / "a.nrrd", "spacings: 1 1 2\n")
    with pytest.warns(UserWarning) as told:  # noqa: PT030 two of them
        read_volume(path)
    assert [str(each.message).split(":")[0] for each in told] == [
        f"'{path}' does not name a space of the patient, such as left-posterior-superior, which is assumed",
        f"'{path}' has no space origin",
    ]


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "right-anterior-superior", "LAS"])
def test_a_space_of_the_patient_is_beyond_doubt(space: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(written(tmp_path / "a.nrrd", f"space: {space}\n{PLACE}"))
