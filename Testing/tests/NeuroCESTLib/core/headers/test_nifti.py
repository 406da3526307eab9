"""NIfTI files are complete, or are refused in one sentence; NaN and infinity are found where readers lose them."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from NeuroCESTLib.core.headers.nifti import (
    NotNifti1Error,
    check_complete,
    check_nifti,
    is_nifti,
    nifti_layout,
    non_finite_voxels,
    plain_file,
)
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import read_sequence
from NeuroCESTLib.scene.volumes import array_on, read_volume

SHAPE = (3, 4, 5)
LEFT_HANDED = Geometry(SHAPE, np.diag([-1.0, 1.0, 1.0, 1.0]))


def written(path: Path, dtype: type = np.float32) -> Path:
    """A NIfTI file of random numbers, which do not compress."""
    array = np.random.default_rng(5).normal(scale=100, size=SHAPE).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "f4"), (np.float64, "f8"), (np.int16, "u1")])
def test_the_layout_says_where_the_data_are(name: str, dtype: type, kind: str, tmp_path: Path) -> None:
    layout = nifti_layout(written(tmp_path / name, dtype))
    assert layout.sizes == SHAPE[::-1]
    assert layout.dtype == np.dtype(kind)
    assert layout.data_bytes == np.prod(SHAPE) * np.dtype(dtype).itemsize
    assert layout.file_bytes == layout.data_offset + layout.data_bytes


@pytest.mark.parametrize("trust_size", [False, True])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_complete_files_pass_and_shorter_ones_do_not(name: str, trust_size: bool, tmp_path: Path) -> None:
    whole = written(tmp_path / name)
    check_complete(whole, trust_size)
    content = whole.read_bytes()
    for length in (40, len(content) // 2, len(content) - 1):
        part = tmp_path / f"part_{name}"
        part.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"part_{name}' (is truncated|is not an image)"):
            check_complete(part, trust_size)


def test_data_missing_before_the_compression_are_noticed(tmp_path: Path) -> None:
    content = gzip.decompress(written(tmp_path / "v.nii.gz").read_bytes())
    path = tmp_path / "short.nii.gz"
    path.write_bytes(gzip.compress(content[:-8]))
    with pytest.raises(ValueError, match=r"short\.nii\.gz' is truncated: it has 584 of 592 bytes"):
        check_complete(path, trust_size=True)


def test_damage_in_the_middle_is_found_by_unpacking_the_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.nii\.gz'"):
        check_complete(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (struct.pack("<i", 540) + bytes(600), "is NIfTI-2, which Slicer does not read"),
        (bytes(600), "is not an image: it has no NIfTI header"),
        (b"offset,z\n", "is not an image: it has no NIfTI header"),
    ],
)
def test_other_headers_are_told_apart_from_damage(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "v.nii").write_bytes(content)
    with pytest.raises(NotNifti1Error, match=words):
        check_complete(tmp_path / "v.nii")


@pytest.mark.parametrize(
    ("place", "value"), [(40, struct.pack("<h", 9)), (42, struct.pack("<h", -3)), (72, struct.pack("<h", 0))]
)
def test_impossible_headers_are_damaged(place: int, value: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(ValueError, match="has a damaged NIfTI header") as caught:
        nifti_layout(path)
    assert not isinstance(caught.value, NotNifti1Error)


@pytest.mark.parametrize(("scale", "is_read"), [((0.0, 0.0), True), ((2.0, 7.0), True), ((0.0, 7.0), False)])
def test_an_intercept_without_a_slope_is_refused(scale: tuple[float, float], is_read: bool, tmp_path: Path) -> None:
    """By NIfTI a slope of 0 means that values are not scaled; ITK adds the intercept all the same."""
    path = written(tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", *scale)
    path.write_bytes(content)
    refused = pytest.raises(
        ValueError, match=r"v\.nii' has a slope of 0 .* an intercept of 7 .*: set the intercept to 0"
    )
    with contextlib.nullcontext() if is_read else refused:
        check_nifti(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.nii' cannot be read: No such file"):
        check_complete(tmp_path / "no.nii")


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_found_with_their_place(name: str, dtype: type, tmp_path: Path) -> None:
    array = np.zeros((2, *SHAPE), dtype)
    array[0, 1, 2, 3], array[1, 2, 0, 4] = np.nan, -np.inf
    series = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in array])
    sitk.WriteImage(series, str(tmp_path / name))
    index, values = non_finite_voxels(tmp_path / name)
    assert index.tolist() == [[3, 2, 1, 0], [4, 0, 2, 1]]
    np.testing.assert_array_equal(values, [np.nan, -np.inf])


def test_integers_and_other_formats_have_no_such_voxels(tmp_path: Path) -> None:
    assert len(non_finite_voxels(written(tmp_path / "v.nii", np.int16))[0]) == 0
    assert len(non_finite_voxels(written(tmp_path / "v.nrrd"))[0]) == 0
    assert is_nifti("V.NII.GZ")
    assert not is_nifti("v.nrrd")


# files that Slicer does not read


def with_five_dimensions(path: Path, plain: bytes) -> Path:
    """Write a 4-D file as (x, y, z, 1, measurement), as some exports do."""
    header = bytearray(plain[:348])
    sizes = struct.unpack("<8h", header[40:56])
    header[40:56] = struct.pack("<8h", 5, *sizes[1:4], 1, sizes[4], 1, 1)
    path.write_bytes(gzip.compress(bytes(header) + plain[348:]))
    return path


def as_pair(folder: Path, plain: bytes) -> tuple[Path, Path]:
    """Write a file as header and data."""
    header = bytearray(plain[:348])
    offset = int(struct.unpack("<f", header[108:112])[0])
    header[108:112] = struct.pack("<f", 0.0)
    header[344:348] = b"ni1\0"
    (folder / "pair.hdr").write_bytes(bytes(header))
    (folder / "pair.img").write_bytes(plain[offset:])
    return folder / "pair.hdr", folder / "pair.img"


def series(path: Path) -> bytes:
    """Bytes of a 4-D file."""
    arrays = np.random.default_rng(6).normal(size=(7, *SHAPE)).astype(np.float32)
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(array) for array in arrays]), str(path))
    return path.read_bytes()


def test_a_series_with_a_singleton_axis_or_in_two_files_becomes_a_plain_one(tmp_path: Path) -> None:
    content = series(tmp_path / "plain.nii")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "plain.nii")))
    unusual = [with_five_dimensions(tmp_path / "five.nii.gz", content), *as_pair(tmp_path, content)]
    folder = tmp_path / "new"
    folder.mkdir()
    for path in unusual:
        plain = plain_file(path, folder)
        assert plain.parent == folder
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(plain))), expected)
    assert plain_file(tmp_path / "plain.nii", folder) == tmp_path / "plain.nii"


@pytest.mark.parametrize(
    ("dtype", "largest", "expected"),
    [("<i8", 3, "i4"), (">i8", -3, "i4"), ("<u8", 3, "i4"), ("<i8", 2**40, "f8"), (">u8", 2**40, "f8")],
)
def test_64_bit_integers_become_types_that_slicer_reads(
    dtype: str, largest: int, expected: str, tmp_path: Path
) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    values[-1, -1, -1] = largest
    plain = plain_file(with_long_integers(tmp_path / "long.nii.gz", values), tmp_path)
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(plain)))
    assert read.dtype == expected
    np.testing.assert_array_equal(read, values)


def test_left_handed_volumes_and_series_of_64_bit_integers_are_read(tmp_path: Path, slicer: object) -> None:
    """Slicer's own reader ends the process at them."""
    values = np.arange(2 * np.prod(SHAPE)).reshape(2, *SHAPE)
    volume = read_volume(with_long_integers(tmp_path / "labels.nii.gz", values[0]))
    np.testing.assert_array_equal(array_on(volume, LEFT_HANDED), values[0])
    series = read_sequence(with_long_integers(tmp_path / "series.nii.gz", values))
    np.testing.assert_array_equal(array_on(series.GetNthDataNode(1), LEFT_HANDED), values[1])


def test_a_copy_can_be_straightened_too(tmp_path: Path, slicer: object) -> None:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    path = with_long_integers(tmp_path / "a.nii.gz", values)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = struct.pack("<f", -1.0)
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.warns(UserWarning, match=rf"'{path}' has a negative voxel size"):
        volume = read_volume(path)
    np.testing.assert_array_equal(array_on(volume, LEFT_HANDED), values)


def with_long_integers(path: Path, values: np.ndarray) -> Path:
    """Write 64-bit integers of shape ([measurement,] K, J, I) on a left-handed grid."""
    order, code = values.dtype.str[0], 1024 if values.dtype.kind == "i" else 1280
    sizes = values.shape[::-1]
    header = bytearray(348)
    header[0:4] = struct.pack(order + "i", 348)
    header[40:56] = struct.pack(order + "8h", len(sizes), *sizes, *[1] * (7 - len(sizes)))
    header[70:74] = struct.pack(order + "2h", code, 64)
    header[76:108] = struct.pack(order + "8f", *[1.0] * 8)
    header[108:112] = struct.pack(order + "f", 352.0)
    header[252:256] = struct.pack(order + "2h", 0, 1)
    header[280:328] = struct.pack(order + "12f", *LEFT_HANDED.ijk_to_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + b"\0" * 4 + values.tobytes()))
    return path


def test_half_a_pair_and_damaged_pairs_are_named(tmp_path: Path) -> None:
    header, data = as_pair(tmp_path, series(tmp_path / "plain.nii"))
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"pair.img' is truncated: it has 1676 of 1680 bytes"):
        plain_file(header, tmp_path)
    data.unlink()
    with pytest.raises(ValueError, match=r"pair.hdr' is one of two files, and 'pair.img' is missing beside it"):
        plain_file(header, tmp_path)
    data.write_bytes(b"")
    header.write_bytes(header.read_bytes()[:344] + b"\0\0\0\0")
    with pytest.raises(NotNifti1Error, match="it has no NIfTI header"):
        plain_file(data, tmp_path)
