"""Images of ParaVision: scaling, frame order, place in patient coordinates, and contradictions that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paravision import stored_frames, visu_parameters, write_scan

from CESTQuantLib.formats.scanner.images import read_images

SLOPES = 0.5 * (1 + np.arange(8)).reshape(4, 2, 1, 1)
"""Slopes of the frames of the standard scan."""


def test_every_frame_is_scaled_by_its_own_slope_and_offset(tmp_path: Path) -> None:
    stored = stored_frames()
    images = read_images(write_scan(tmp_path / "1", stored, visu={"VisuCoreDataOffs": "( 8 )\n@8*(3)"}) / "pdata" / "1")
    np.testing.assert_allclose(images.array, stored * SLOPES + 3, rtol=1e-6)
    assert [(group.name, group.count) for group in images.groups] == [("FG_CYCLE", 4)]


@pytest.mark.parametrize(
    ("word", "dtype"), [("_8BIT_UNSGN_INT", "u1"), ("_32BIT_SGN_INT", "<i4"), ("_32BIT_FLOAT", ">f4")]
)
def test_word_types_and_byte_orders(tmp_path: Path, word: str, dtype: str) -> None:
    stored = (stored_frames() % 200).astype(dtype)
    order = "bigEndian" if dtype.startswith(">") else "littleEndian"
    scan = write_scan(tmp_path / "1", stored, visu={"VisuCoreWordType": word, "VisuCoreByteOrder": order})
    np.testing.assert_allclose(read_images(scan / "pdata" / "1").array, stored * SLOPES, rtol=1e-6)


def test_slices_may_be_the_slower_loop(tmp_path: Path) -> None:
    stored = stored_frames()
    scan = write_scan(
        tmp_path / "1",
        stored,
        visu={"VisuFGOrderDesc": "( 2 )\n(4, <FG_CYCLE>, <>, 2, 0) (2, <FG_SLICE>, <>, 0, 2)"},
    )
    (scan / "pdata" / "1" / "2dseq").write_bytes(stored.transpose(1, 0, 2, 3).tobytes())
    slopes = SLOPES.reshape(2, 4, 1, 1).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(read_images(scan / "pdata" / "1").array, stored * slopes, rtol=1e-6)


def test_magnitude_is_taken_from_complex_images(tmp_path: Path) -> None:
    stored = stored_frames(measurements=8, slices=1)
    changes = {
        "VisuCoreFrameType": "( 2 )\nPHASE_IMAGE MAGNITUDE_IMAGE",
        "VisuFGOrderDesc": "( 2 )\n(2, <FG_COMPLEX>, <>, 0, 1) (4, <FG_CYCLE>, <>, 2, 0)",
        "VisuCoreDataSlope": "( 1 )\n1",
    }
    images = read_images(write_scan(tmp_path / "1", stored, visu=changes) / "pdata" / "1")
    np.testing.assert_array_equal(images.array, stored[1::2])


def test_the_place_is_in_patient_coordinates_at_voxel_centres(tmp_path: Path) -> None:
    """Rows of the orientation are image axes; the position is a corner in the plane, a centre along the normal."""
    rotation = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
    stored = stored_frames()
    scan = write_scan(tmp_path / "1", stored, visu=visu_parameters(stored, rotation=rotation))
    images = read_images(scan / "pdata" / "1")
    np.testing.assert_allclose(images.ijk_to_lps[:3, :3], rotation.T * [0.5, 0.25, 2.0], atol=1e-12)
    np.testing.assert_allclose(images.ijk_to_lps[:3, 3], rotation.T @ [-3.75, -1.875, -3.0], atol=1e-12)
    assert images.notes == ()


def test_a_volume_of_three_dimensions_has_its_corner_as_position(tmp_path: Path) -> None:
    stored = stored_frames(measurements=4, slices=2)
    changes = {
        "VisuCoreDim": "3",
        "VisuCoreDimDesc": "( 3 )\nspatial spatial spatial",
        "VisuCoreSize": "( 3 )\n5 6 2",
        "VisuCoreExtent": "( 3 )\n2.5 1.5 4",
        "VisuCoreUnits": "( 3, 65 )\n<mm> <mm> <mm>",
        "VisuCoreFrameCount": "4",
        "VisuCoreOrientation": "( 1, 9 )\n1 0 0 0 1 0 0 0 1",
        "VisuCorePosition": "( 1, 3 )\n-4 -2 -3",
        "VisuCoreDataOffs": None,
        "VisuCoreDataSlope": "( 1 )\n1",
        "VisuFGOrderDesc": "( 1 )\n(4, <FG_CYCLE>, <>, 0, 0)",
    }
    images = read_images(write_scan(tmp_path / "1", stored, visu=changes) / "pdata" / "1")
    np.testing.assert_array_equal(images.array, stored)
    np.testing.assert_allclose(images.ijk_to_lps[:3, 3], [-3.75, -1.875, -2.0])


def test_positions_along_the_image_axes_are_told(tmp_path: Path) -> None:
    """Files whose positions contradict their orientation, but fit it along the axes of the image."""
    rotation = "0 1 0 0 0 -1 -1 0 0"
    scan = write_scan(tmp_path / "1", visu={"VisuCoreOrientation": f"( 2, 9 )\n{rotation} {rotation}"})
    images = read_images(scan / "pdata" / "1")
    assert "check the place" in images.notes[0]
    np.testing.assert_allclose(images.ijk_to_lps[:3, 2], [-2, 0, 0])


@pytest.mark.parametrize(
    ("visu", "message"),
    [
        ({"VisuCoreSize": "( 2 )\n5 7"}, "2dseq' is cut off: it has 480 bytes but 'visu_pars' describes 8 frames of"),
        ({"VisuCoreSize": "( 2 )\n5 5"}, "2dseq' is too long"),
        ({"VisuCoreSize": "( 2 )\n1000000 1000000"}, "2dseq' is cut off"),
        ({"VisuCoreFrameCount": "9"}, "contradicts itself: VisuCoreFrameCount is 9"),
        ({"VisuFGOrderDesc": "( 1 )\n(1e999, <FG_CYCLE>, <>, 0, 0)"}, "VisuFGOrderDesc is damaged"),
        ({"VisuCoreSize": "( 2 )\n5 0"}, "VisuCoreSize must have positive whole numbers"),
        ({"VisuCoreSize": "( 3 )\n5 6 2"}, "VisuCoreSize has 3 numbers but must have 2"),
        ({"VisuCoreDataSlope": "( 3 )\n1 1 1"}, "VisuCoreDataSlope has 3 numbers for 8 frames"),
        ({"VisuCoreDataSlope": None, "VisuCorePosition": None}, "VisuCorePosition is missing"),
        ({"VisuCoreWordType": "_64BIT"}, "word type '_64BIT'"),
        ({"VisuCoreFrameType": "( 1 )\nPHASE_IMAGE"}, "'PHASE_IMAGE': reconstruct magnitude images"),
        ({"VisuCoreDimDesc": "( 2 )\nspectroscopic spatial"}, "describes no images"),
        ({"VisuCoreUnits": "( 2, 65 )\n<cm> <cm>"}, "must be in mm"),
        ({"VisuCoreUnits": "( 900, 65 )\n" + "<cm> " * 900}, r"the extent is in '(cm, )+c?m?\.\.\.' but"),
        ({"VisuCoreByteOrder": "big\0Endian"}, r"byte order 'big\?Endian' is unknown"),
        ({"VisuCoreOrientation": "( 2, 9 )\n1 0 0 0 1 0 0 0 1 0 1 0 1 0 0 0 0 1"}, "several orientations"),
        ({"VisuCoreOrientation": "( 1, 9 )\n1 0 0 0 2 0 0 0 1"}, "is no rotation"),
        ({"VisuCorePosition": "( 1, 3 )\n0 0 0"}, "describes 1 slices but there are 2 slices"),
        ({"VisuCorePosition": "( 2, 3 )\n0 0 0 0 0 0"}, "does not stack the slices"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(tmp_path: Path, visu: dict[str, str | None], message: str) -> None:
    scan = write_scan(tmp_path / "1", visu=visu)
    with pytest.raises(ValueError, match=message):
        read_images(scan / "pdata" / "1")


@pytest.mark.parametrize("name", ["2dseq", "visu_pars"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    scan = write_scan(tmp_path / "1")
    (scan / "pdata" / "1" / name).unlink()
    with pytest.raises(ValueError, match=f"{name}' is missing"):
        read_images(scan / "pdata" / "1")
