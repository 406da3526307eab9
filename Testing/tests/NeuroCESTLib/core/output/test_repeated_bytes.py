"""Files with the same bytes whenever they are written."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import SimpleITK as sitk

from NeuroCESTLib.core.output.repeated_bytes import checksum, remove_hdf5_times, sort_archive


def transform_file(path: Path) -> bytes:
    """Write a transform of a matrix and a field; returns the bytes of the file."""
    affine = sitk.AffineTransform(3)
    affine.SetTranslation((1, 2, 3))
    field = sitk.DisplacementFieldTransform(sitk.Image([6, 5, 4], sitk.sitkVectorFloat64, 3) + 0.25)
    sitk.WriteTransform(sitk.CompositeTransform([affine, field]), str(path))
    return path.read_bytes()


def test_transform_files_have_no_time_and_the_same_meaning(tmp_path: Path) -> None:
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    first = transform_file(one)
    time.sleep(1.1)  # the times in the file are whole seconds
    assert transform_file(other) != first
    expected = sitk.ReadTransform(str(one)).TransformPoint((1.0, 1.0, 1.0))
    for path in (one, other):
        remove_hdf5_times(path)
    assert one.read_bytes() == other.read_bytes()
    assert sitk.ReadTransform(str(one)).TransformPoint((1.0, 1.0, 1.0)) == expected


def test_the_checksum_is_that_of_hdf5() -> None:
    """Reference values of Bob Jenkins' lookup3."""
    assert checksum(b"") == 0xDEADBEEF
    assert checksum(b"Four score and seven years ago") == 0x17770551


def test_bytes_that_only_look_like_an_object_header_stay(tmp_path: Path) -> None:
    data = b"\x89HDF\r\n\x1a\n" + b"OHDR\x02\x20" + bytes(range(100)) + b"OHDR\x02\x20"
    (tmp_path / "a.h5").write_bytes(data)
    remove_hdf5_times(tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == data


def test_archives_are_in_the_order_of_names_and_have_no_times(tmp_path: Path) -> None:
    transform = transform_file(tmp_path / "t.h5")
    time.sleep(1.1)
    later = transform_file(tmp_path / "t.h5")
    files = {"s/b.txt": b"b", "s/a.txt": b"a" * 1000}
    for name, order, content in (("one", 1, transform), ("other", -1, later)):
        with zipfile.ZipFile(tmp_path / f"{name}.mrb", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("s")
            for file, data in list({**files, "s/t.h5": content}.items())[::order]:
                archive.writestr(zipfile.ZipInfo(file, (2020 + order, 5, 1, 0, 0, 0)), data)
        sort_archive(tmp_path / f"{name}.mrb")
    assert (tmp_path / "one.mrb").read_bytes() == (tmp_path / "other.mrb").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.mrb") as archive:
        assert archive.namelist() == ["s/a.txt", "s/b.txt", "s/t.h5"]
        assert {name: archive.read(name) for name in files} == files
