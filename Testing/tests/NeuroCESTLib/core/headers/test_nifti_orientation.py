"""Orientation of NIfTI files: sheared sforms straightened or refused, qform and sform that differ, true reasons."""

from __future__ import annotations

import gzip
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from JointRegSegLib.images.reading import header_problem, read_image
from NeuroCESTLib.core.headers.nifti_orientation import nifti_orientation, straight_file
from NeuroCESTLib.core.headers.orientation import orientation_notes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import read_header
from NeuroCESTLib.scene.sequences import read_sequence
from NeuroCESTLib.scene.volumes import array_on, read_volume

SIZE = (30, 40, 50)
AXES = np.array([[-1.99, 0.1, 0.0, 20.0], [0.1, 1.99, 0.0, -30.0], [0.0, 0.0, 2.0, 10.0], [0, 0, 0, 1.0]])
SPACING, QFORM_CODE, SFORM = 80, 252, 280


def write(
    path: Path, sform: np.ndarray | None = None, codes: tuple[int, int] = (1, 1), dtype: type = np.float32
) -> Path:
    """Write an image whose qform is upright; its sform and the codes of both are set in the bytes of the header."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).random(SIZE[::-1]).astype(dtype)), str(plain))
    content = bytearray(plain.read_bytes())
    plain.unlink()
    content[QFORM_CODE : QFORM_CODE + 4] = struct.pack("<2h", *codes)
    if sform is not None:
        content[SPACING : SPACING + 12] = struct.pack("<3f", *np.linalg.norm(sform[:3, :3], axis=0))
        content[SFORM : SFORM + 48] = struct.pack("<12f", *sform[:3].ravel())
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def sheared(by: float) -> np.ndarray:
    """Axes whose second one leans towards the first by a share of its length."""
    sform = np.diag([2.0, 2.0, 2.0, 1.0])
    sform[0, 1] = 2 * by
    return sform


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_slightly_sheared_sform_is_straightened_with_a_warning(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, sheared(0.001), (0, 1))
    before = path.read_bytes()
    with pytest.warns(UserWarning, match=rf"axes of '.*{name}' are not quite perpendicular: .* up to 0\.0\d+ mm"):
        image = read_image(path)
    found = Geometry.from_sitk(image).ijk_to_ras
    axes = found[:3, :3]
    assert np.abs(axes.T @ axes - np.diag(np.diag(axes.T @ axes))).max() < 1e-5
    corners = np.array([(i, j, k, 1) for i in (0, 29) for j in (0, 39) for k in (0, 49)]).T
    moved = np.linalg.norm(((found - sheared(0.001)) @ corners)[:3], axis=0)
    assert 0.01 < moved.max() < 0.1
    assert header_problem(path) is None
    np.testing.assert_allclose(read_header(path).geometry.ijk_to_ras, found, atol=1e-4)
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_a_sheared_sform_is_refused_with_its_true_reason(tmp_path: Path, slicer: object, dtype: type) -> None:
    path = write(tmp_path / "a.nii.gz", sheared(0.02), (0, 1), dtype)
    words = (
        f"^'{re.escape(str(path))}' has an sform whose axes are not perpendicular: "
        r"straightening it would move a corner by 0\.\d+ mm"
    )
    for read in (read_image, read_header, read_volume, read_sequence):
        with pytest.raises(ValueError, match=words):
            read(path)
    assert "not perpendicular" in str(header_problem(path))


@pytest.mark.parametrize(("codes", "used"), [((1, 1), "sform"), ((1, 2), "qform")])
def test_a_qform_and_an_sform_that_differ_are_told(tmp_path: Path, codes: tuple[int, int], used: str) -> None:
    path = write(tmp_path / "a.nii.gz", AXES, codes)
    with pytest.warns(UserWarning, match=rf"a qform and an sform .* mm apart: the {used} is used; set the code of"):
        image = read_image(path)
    orientation = nifti_orientation(path)
    taken = orientation.sform if used == "sform" else orientation.qform
    np.testing.assert_allclose(Geometry.from_sitk(image).ijk_to_ras, taken, atol=1e-4)


def test_the_sform_gives_the_voxel_size_where_the_header_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", np.diag([2.0, 2.0, 2.0, 1.0]), (0, 1))
    content = bytearray(path.read_bytes())
    content[SPACING : SPACING + 12] = struct.pack("<3f", 1.0, 1.0, 1.0)
    path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"voxels of 1 x 1 x 1 mm by its spacing and of 2 x 2 x 2 mm by its sform"):
        assert read_image(path).GetSpacing() == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
def test_an_image_of_two_dimensions_keeps_its_tilt(tmp_path: Path, slicer: object, codes: tuple[int, int]) -> None:
    """ITK would put it upright into the plane z = 0."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5)
    image = sitk.GetImageFromArray(np.arange(20, dtype=np.float32).reshape(1, 4, 5))
    image.SetDirection(turn.GetMatrix())
    image.SetOrigin((10, -20, 30))
    path = tmp_path / "a.nii"
    sitk.WriteImage(image, str(path))
    content = bytearray(path.read_bytes())
    content[40:42] = struct.pack("<h", 2)
    content[QFORM_CODE : QFORM_CODE + 4] = struct.pack("<2h", *codes)
    path.write_bytes(bytes(content))
    geometry = Geometry.from_sitk(image)
    values = array_on(read_volume(path), geometry, strict=True)
    np.testing.assert_array_equal(values, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1)])
def test_the_sign_of_a_negative_voxel_size_is_ignored(tmp_path: Path, codes: tuple[int, int]) -> None:
    """ITK would mirror the image about its first voxel."""
    path = write(tmp_path / "a.nii", codes=codes)
    expected = Geometry.from_sitk(sitk.ReadImage(str(path))).ijk_to_ras
    content = bytearray(path.read_bytes())
    content[SPACING : SPACING + 4] = struct.pack("<f", -1.0)
    path.write_bytes(bytes(content))
    words = rf"'{path}' has a negative voxel size \(pixdim\), which NIfTI does not allow: its sign is ignored"
    with pytest.warns(UserWarning, match=words) as told:
        image = read_image(path)
    np.testing.assert_allclose(Geometry.from_sitk(image).ijk_to_ras, expected, atol=1e-5)
    assert len(told) == 1


def test_a_file_without_orientation_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", codes=(0, 0))
    with pytest.warns(UserWarning, match="has neither a qform nor an sform: its orientation is unknown"):
        read_image(path)


def test_sound_files_cause_no_warning(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "both.nii.gz"),
        write(tmp_path / "sform.nii.gz", AXES, (0, 1)),
        write(tmp_path / "qform.nii.gz", AXES, (1, 0)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = read_image(path)
        assert orientation_notes(path, Geometry.from_sitk(image).ijk_to_ras) == []
        assert straight_file(path, tmp_path) == (path, [])


def test_qform_and_sform_are_read_as_itk_writes_them(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros(SIZE[::-1], np.uint8))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.3, -0.2, 0.5)
    image.SetDirection((np.array(turn.GetMatrix()).reshape(3, 3) @ np.diag([1, -1, 1])).ravel())
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((10, -20, 30))
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(image, str(path))
    orientation = nifti_orientation(path)
    expected = Geometry.from_sitk(image).ijk_to_ras
    np.testing.assert_allclose(orientation.sform, expected, atol=1e-4)
    np.testing.assert_allclose(orientation.qform, expected, atol=1e-3)
    assert orientation.shear_mm < 1e-3
    assert orientation.sizes == SIZE


def test_the_true_reason_is_told_for_compression_and_formats(tmp_path: Path) -> None:
    good = write(tmp_path / "good.nii.gz")
    content = good.read_bytes()
    cases = {
        "twice.nii.gz": (gzip.compress(content), "is compressed twice: unpack it once"),
        "zipped.nii": (content, "is compressed, but its name does not say so: name it 'zipped.nii.gz'"),
        "plain.nii.gz": (
            gzip.decompress(content),
            "is not compressed, although its name ends in '.gz': name it 'plain.nii'",
        ),
        "head.mgz": (content, "is an image of FreeSurfer, which is not read: convert it with mri_convert"),
    }
    for name, (written, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(written)
        for read in (read_image, read_header):
            with pytest.raises(ValueError, match=name) as error:
                read(path)
            assert words in str(error.value)


def test_libraries_write_nothing_of_their_own_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    content = bytearray(write(tmp_path / "a.nii", np.diag([2.0, 2.0, 2.0, 1.0])).read_bytes())
    content[SPACING : SPACING + 12] = struct.pack("<3f", 1.0, 1.0, 1.0)
    (tmp_path / "spacing.nii").write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="a qform and an sform"):
        read_image(tmp_path / "spacing.nii")
    for position, damage in ((40, struct.pack("<h", 9)), (70, struct.pack("<h", 1234))):
        damaged = bytearray(content)
        damaged[position : position + 2] = damage
        (tmp_path / "damaged.nii").write_bytes(bytes(damaged))
        assert "damaged NIfTI header" in str(header_problem(tmp_path / "damaged.nii"))
        for read in (read_image, read_header):
            with pytest.raises(ValueError, match="has a damaged NIfTI header"):
                read(tmp_path / "damaged.nii")
    assert capfd.readouterr().err == ""


def test_the_scene_reads_slightly_sheared_volumes_and_series_with_a_warning(tmp_path: Path, slicer: object) -> None:
    path = write(tmp_path / "a.nii.gz", sheared(0.001), (0, 1))
    with pytest.warns(UserWarning, match=r"axes of '.*a\.nii\.gz' are not quite perpendicular"):
        node = read_volume(path)
    assert node.GetName() == "a"
    values = np.random.default_rng(0).random((2, *SIZE[::-1])).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=False), str(tmp_path / "series.nii"))
    content = bytearray((tmp_path / "series.nii").read_bytes())
    content[SPACING : SPACING + 12] = struct.pack("<3f", *np.linalg.norm(sheared(0.001)[:3, :3], axis=0))
    content[QFORM_CODE : QFORM_CODE + 4] = struct.pack("<2h", 0, 1)
    content[SFORM : SFORM + 48] = struct.pack("<12f", *sheared(0.001)[:3].ravel())
    (tmp_path / "series.nii").write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"axes of '.*series\.nii' are not quite perpendicular"):
        series = read_sequence(tmp_path / "series.nii")
    assert series.GetNumberOfDataNodes() == 2
