"""Headers of NRRD files pass as the format describes them; anything else is refused in one sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from NeuroCESTLib.core.headers.checks import check_file
from NeuroCESTLib.core.headers.nrrd import read_nrrd_header
from NeuroCESTLib.core.headers.nrrd_checks import ENCODINGS, check_nrrd

SOUND = {
    "type": "uint8",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "2 3 4",
    "space directions": "(1,0,0) (0,1,0) (0,0,2)",
    "kinds": "domain domain domain",
    "encoding": "raw",
    "space origin": "(-10,5,0)",
}
DATA = bytes(range(24))


def written(path: Path, data: bytes = DATA, metadata: dict[str, str] | None = None, **changes: str | None) -> Path:
    """A file of 2 x 3 x 4 bytes, with changed fields (``space_origin`` for ``space origin``); None leaves one out."""
    fields = SOUND | {name.replace("_", " "): value for name, value in changes.items()}
    lines = ["NRRD0004", "# a comment", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    lines += [f"{key}:={value}" for key, value in (metadata or {}).items()]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    return path


def refusal(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        check_file(path)
    sentence = str(caught.value)
    assert f"'{path}'" in sentence
    assert len(sentence) < 300
    assert "\n" not in sentence
    return sentence


def test_a_header_is_read_into_fields_and_free_keys(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nrrd", metadata={"Segment0_Name": "necrotic core: 1"})
    header = read_nrrd_header(path)
    assert header.sizes == [2, 3, 4]
    assert header.vectors("space directions") == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert header.metadata == {"Segment0_Name": "necrotic core: 1"}
    assert path.read_bytes()[header.data_offset :] == DATA


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dimension", [2, 3, 4])
def test_what_itk_writes_passes(dimension: int, compressed: bool, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5)[-dimension:], np.float32), isVector=False)
    image.SetOrigin([-100.0] * dimension)
    path = tmp_path / "v.nrrd"
    sitk.WriteImage(image, str(path), compressed)
    check_file(path)


@pytest.mark.parametrize("encoding", [name for name, kind in ENCODINGS.items() if kind == "text"])
def test_numbers_written_as_text_pass(encoding: str, tmp_path: Path) -> None:
    check_file(written(tmp_path / "v.nrrd", " ".join(map(str, DATA)).encode(), encoding=encoding))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "x" * 600}, "there is no encoding"),
        ({"encoding": "bzip2"}, "save it with gzip"),
        ({"encoding": None}, "the field encoding is missing"),
        ({"type": "block"}, "there is no type 'block'"),
        ({"type": "double"}, "the field endian is missing"),
        ({"sizes": "2 3"}, "sizes has 2 entries for 3 axes"),
        ({"sizes": "2 3 x"}, "must be whole numbers"),
        ({"sizes": "2 3 0"}, "impossible"),
        ({"sizes": "999999999 999999999 999999999"}, "impossible"),
        ({"sizes": "2 3 5"}, "truncated: it has 24 of 30 bytes"),
        ({"dimension": "99999999999999999999"}, "must be whole numbers"),
        ({"dimension": "0"}, "dimension must be"),
        ({"space": "outer"}, "there is no space 'outer'"),
        ({"kinds": "domain domain orange"}, "unknown entry 'orange'"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "voxel size or direction that is not finite"),
        ({"space_directions": "(1,0,0) (0,1,0) (1,1,0)"}, "do not span space"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,1e30)"}, "its voxel size is damaged"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0)"}, "must have 3 numbers a vector"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,two)"}, "'two', which is not a number"),
        ({"space_origin": "(inf,0,0)"}, "origin that is not finite"),
        ({"space_origin": "(0,0,1e12)"}, "lies 1e+09 m from the origin"),
        ({"favourite_colour": "blue"}, "is no field of an NRRD file"),
        ({"byte_skip": "many"}, "byte skip is 'many'"),
        ({"labels": '"x" ' + "y" * 3000}, "must be texts in quotation marks"),
        ({"units": "m" * 5000}, "units is too long"),
        ({"units": '"cm" "cm" "cm"'}, "gives its place in 'cm' (units)"),
        ({"space_units": '"m" "m" "m"'}, "gives its place in 'm' (space units)"),
        ({"data_file": "../elsewhere.raw"}, "which is missing beside it"),
        ({"data_file": "%s%n 1 2 1"}, "are no pattern"),
        ({"content": "x" * (1 << 21)}, "too long"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_would_mislead_its_reader_is_refused(changes: dict, words: str, tmp_path: Path) -> None:
    assert words in refusal(written(tmp_path / "v.nrrd", **changes))


@pytest.mark.parametrize("units", ['"mm" "mm" "mm"', '"millimeter" "" "???"', '"mm" "mm" "mm" "s"'])
def test_millimetres_and_units_that_are_no_length_pass(units: str, tmp_path: Path) -> None:
    check_file(written(tmp_path / "v.nrrd", space_units=units))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("Segment0_LabelValue", "one", "must be a whole number"),
        ("Segment0_Layer", "7", "only 1 layers"),
        ("Segment0_Extent", "0 1 0 2", "must be 6 whole numbers"),
        ("Segment0_Extent", "0 1 0 2 0 999999999", "lies outside the image"),
        ("Segmentation_ReferenceImageExtentOffset", "0 0 nan", "must be 3 whole numbers"),
    ],
)
def test_segments_lie_in_the_image(key: str, value: str, words: str, tmp_path: Path) -> None:
    assert words in refusal(written(tmp_path / "v.seg.nrrd", metadata={key: value}))


def test_data_are_unpacked_only_as_far_as_they_can_be_right(tmp_path: Path) -> None:
    too_little = written(tmp_path / "little.nrrd", gzip.compress(DATA[:-1]), encoding="gzip")
    assert "truncated" in refusal(too_little)
    bomb = written(tmp_path / "bomb.nrrd", gzip.compress(bytes(200 << 20)), encoding="gzip")
    assert "far more data than its header announces" in refusal(bomb)
    impossible = written(tmp_path / "impossible.nrrd", gzip.compress(DATA), encoding="gzip", sizes="1000 1000 1000")
    assert "truncated" in refusal(impossible)


def test_detached_data_lie_beside_the_header(tmp_path: Path) -> None:
    header = written(tmp_path / "v.nhdr", b"", data_file="v.raw")
    assert "'v.raw', which is missing" in refusal(header)
    (tmp_path / "v.raw").write_bytes(DATA)
    check_nrrd(header)
