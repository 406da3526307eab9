"""Whole commands on headers and texts that nobody writes: the file is named in a sentence, at once, in little space."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from costs import costs
from joint_studies import small_weights
from studies import messages

from CESTQuantLib.batch import main as cestquant
from JointRegSegLib.batch import main as jointregseg
from JointRegSegLib.images.reading import header_problem
from NeuroCESTLib.workflow.batch import main as neurocest
from NeuroCESTLib.workflow.visits import MODALITIES

MOST_SECONDS, MOST_MB = 1.0, 200
"""Bounds of a refusal: processor time once everything is imported, and memory in addition to what there was."""
NAN, INFINITE = float("nan"), float("inf")
SHORTS, FLOATS = {"dim": 40}, {"pixdim": 76, "quatern": 256, "qoffset": 268}
"""Places of fields in the header of a NIfTI file."""
Main = Callable[[list[str]], int]


def refused(main: Main, words: Sequence[str], path: Path, capfd: pytest.CaptureFixture) -> None:
    """Check that a command refuses a file by name, writes nothing, and does so at once."""
    output = path.parent / "out"
    words = [*words, "--output", str(output)]
    main(list(words))  # what is imported the first time does not count
    capfd.readouterr()
    with costs() as spent:
        status = main(list(words))
    printed = capfd.readouterr()
    assert status == 2, printed.err
    assert printed.out == ""
    lines = messages(printed.err)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(path) in lines[0]
    assert len(lines[0].replace(str(path), "")) < 300
    assert spent.seconds < MOST_SECONDS
    assert spent.megabytes < MOST_MB
    assert not output.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the highest memory is told by Linux alone")
def test_memory_and_time_of_a_block_are_noticed() -> None:
    blocks = [np.ones(12_500) for _ in range(1000)]
    last = np.ones(12_500)  # keeps the heap from shrinking when the 100 MB before it are freed
    del blocks
    with costs() as spent:
        assert np.ones(8 << 20).sum() == 8 << 20  # 64 MiB
    assert 60 < spent.megabytes < MOST_MB
    assert spent.seconds > 0
    assert last.all()


def nifti(path: Path, shape: tuple[int, ...], field: str, *values: float) -> Path:
    """Write an image of ones, in whose header a field is overwritten."""
    image = sitk.GetImageFromArray(np.ones(shape[-3:], np.float32))
    sitk.WriteImage(sitk.JoinSeries([image] * shape[0]) if len(shape) == 4 else image, str(path))
    content = bytearray(path.read_bytes())
    if field in SHORTS:
        struct.pack_into(f"<{len(values)}h", content, SHORTS[field], *map(int, values))
    else:
        struct.pack_into(f"<{len(values)}f", content, FLOATS[field], *values)
    path.write_bytes(content)
    return path


EXTREMES = {
    "infinite origin": ("qoffset", INFINITE, INFINITE, INFINITE),
    "huge origin": ("qoffset", 1e30),
    "direction of NaN": ("quatern", NAN, NAN, NAN),
    "voxels of NaN": ("pixdim", 1.0, NAN, 1.0, 1.0),
    "infinite voxels": ("pixdim", 1.0, INFINITE, 1.0, 1.0),
    "sizes beyond any memory": ("dim", 3, 32767, 32767, 32767),
    "sizes of five dimensions": ("dim", 5, 32767, 32767, 32767, 32767, 32767),
    "negative sizes": ("dim", 3, -8, 8, 8),
}


def fit(path: Path, folder: Path) -> list[str]:
    protocol = folder / "protocol.json"
    protocol.write_text(json.dumps({"field_strength_T": 3, "offsets_ppm": [-3.5, 0, 3.5]}))
    return ["fit", "--signal", str(path), "--protocol", str(protocol), "--method", "mtrasym"]


def relaxation(path: Path, folder: Path) -> list[str]:
    return ["relaxation", "--signal", str(path), "--kind", "multi-echo", "--times-ms", "10", "20", "40"]


def compartments(path: Path, folder: Path) -> list[str]:
    maps = folder / "maps"
    maps.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((8, 8, 8), np.float32)), str(maps / "mtr_asym_3.5ppm.nii.gz"))
    return ["compartments", "--maps", str(maps), "--segmentation", str(path)]


def phantom(path: Path, folder: Path) -> list[str]:
    return ["phantom", "--regions", str(path)]


def scan(path: Path, folder: Path) -> list[str]:
    (path.parent / f"{path.name.partition('.')[0]}.json").write_text(json.dumps({"MagneticFieldStrength": 3}))
    return ["import", str(path)]


def apply(path: Path, folder: Path) -> list[str]:
    return ["apply", "--weights", "none", "--fixed", str(path), "--moving", str(path)]


def segment(path: Path, folder: Path) -> list[str]:
    weights = small_weights(folder / "small.pt")
    return ["segment", "--weights", str(weights), "--images", str(path), *["-"] * (len(MODALITIES) - 1)]


@pytest.mark.parametrize("extreme", list(EXTREMES))
@pytest.mark.parametrize(
    ("main", "arguments", "shape"),
    [
        (cestquant, fit, (3, 8, 8, 8)),
        (cestquant, relaxation, (3, 8, 8, 8)),
        (cestquant, compartments, (8, 8, 8)),
        (cestquant, phantom, (8, 8, 8)),
        (cestquant, scan, (3, 8, 8, 8)),
        (jointregseg, apply, (8, 8, 8)),
        (jointregseg, segment, (8, 8, 8)),
    ],
)
def test_extreme_nifti_headers_are_refused_by_name(
    main: Main,
    arguments: Callable[[Path, Path], list[str]],
    shape: tuple[int, ...],
    extreme: str,
    slicer: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    path = nifti(tmp_path / "strange.nii", shape, *EXTREMES[extreme])
    refused(main, arguments(path, tmp_path), path, capfd)


NRRD = (
    "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 8\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
    "space origin: (0,0,0)\n\n"
)
SEQUENCE = (
    "NRRD0004\ntype: float\ndimension: 4\nspace: left-posterior-superior\nsizes: 3 8 8 8\n"
    "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\nendian: little\n"
    "encoding: raw\nspace origin: (0,0,0)\naxis 0 index type:=numeric\naxis 0 index values:=-3.5 0 3.5\n\n"
)
METAIMAGE = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 8 8 8\n"
    "ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
)
OF_NRRD = {
    "infinite origin": ("origin: (0,0,0)", "origin: (inf,inf,inf)"),
    "huge origin": ("origin: (0,0,0)", "origin: (1e30,0,0)"),
    "directions of NaN": ("(1,0,0)", "(nan,0,0)"),
    "infinite voxels": ("(0,1,0)", "(0,inf,0)"),
    "sizes beyond any memory": ("8 8 8", "99999999 99999999 99999999"),
    "sizes that overflow": ("8 8 8", "4294967296 4294967296 8"),
    "negative sizes": ("8 8 8", "-8 8 8"),
}
OF_METAIMAGE = {
    "infinite origin": ("Offset = 0 0 0", "Offset = inf inf inf"),
    "huge origin": ("Offset = 0 0 0", "Offset = 1e30 0 0"),
    "directions of NaN": ("Matrix = 1 0 0", "Matrix = nan 0 0"),
    "infinite voxels": ("Spacing = 1 1 1", "Spacing = 1 inf 1"),
    "voxels of NaN": ("Spacing = 1 1 1", "Spacing = 1 nan 1"),
    "sizes beyond any memory": ("8 8 8", "99999999 99999999 99999999"),
    "sizes that overflow": ("8 8 8", "4294967296 4294967296 8"),
    "negative sizes": ("8 8 8", "-8 8 8"),
}
FORMATS = [
    (cestquant, fit, "strange.seq.nrrd", SEQUENCE, OF_NRRD),
    (cestquant, compartments, "strange.seg.nrrd", NRRD.replace("float", "unsigned char"), OF_NRRD),
    (cestquant, phantom, "strange.nrrd", NRRD.replace("float", "unsigned char"), OF_NRRD),
    (jointregseg, apply, "strange.nrrd", NRRD, OF_NRRD),
    (jointregseg, apply, "strange.mha", METAIMAGE, OF_METAIMAGE),
    (cestquant, phantom, "strange.mha", METAIMAGE.replace("FLOAT", "UCHAR"), OF_METAIMAGE),
]


@pytest.mark.parametrize(
    ("main", "arguments", "name", "header", "change"),
    [(*one[:4], change) for one in FORMATS for change in one[4].values()],
    ids=[f"{one[1].__name__}-{one[2]}-{extreme}" for one in FORMATS for extreme in one[4]],
)
def test_extreme_headers_of_other_formats_are_refused_by_name(
    main: Main,
    arguments: Callable[[Path, Path], list[str]],
    name: str,
    header: str,
    change: tuple[str, str],
    slicer: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    path = tmp_path / name
    assert change[0] in header
    path.write_bytes(header.replace(*change).encode() + bytes(4 * 8**3 * 3))
    refused(main, arguments(path, tmp_path), path, capfd)


@pytest.mark.parametrize("extreme", list(EXTREMES))
def test_the_check_of_a_cohort_returns_from_extreme_nifti_headers(extreme: str, tmp_path: Path) -> None:
    path = nifti(tmp_path / "strange.nii", (8, 8, 8), *EXTREMES[extreme])
    with costs() as spent:
        assert str(path) in str(header_problem(path))
    assert spent.seconds < MOST_SECONDS
    assert spent.megabytes < MOST_MB


@pytest.mark.parametrize(
    ("name", "header", "change"),
    [("s.nrrd", NRRD, c) for c in OF_NRRD.values()] + [("s.mha", METAIMAGE, c) for c in OF_METAIMAGE.values()],
)
def test_the_check_of_a_cohort_returns_from_extreme_headers_of_other_formats(
    name: str, header: str, change: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(header.replace(*change).encode() + bytes(4 * 8**3))
    with costs() as spent:
        assert str(path) in str(header_problem(path))
    assert spent.seconds < MOST_SECONDS
    assert spent.megabytes < MOST_MB


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "a billion values": BOMB,
    "lists within lists": "a: " + "[" * 5000 + "]" * 5000,
    "mappings within mappings": "".join(f"{' ' * depth}a:\n" for depth in range(400)),
    "a list of itself": "a: &a [*a]\n",
    "a mapping of itself": "a: &a\n  b: *a\n",
    "megabytes": "a: [" + "1, " * 200_000 + "1]",
}
JSON = {
    "lists within lists": "[" * 100_000 + "]" * 100_000,
    "objects within objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a number of a million digits": '{"offsets_ppm": ' + "9" * 1_000_000 + "}",
    "megabytes": "[" + "1," * 4_000_000 + "1]",
    "a million values": '{"offsets_ppm": [' + "1," * 1_000_000 + "1]}",
}


@pytest.mark.parametrize("text", list(YAML.values()), ids=list(YAML))
def test_yaml_bombs_are_refused_by_name(
    text: str, slicer: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    path, sequence = tmp_path / "pools.yaml", tmp_path / "p.seq"
    path.write_text(text)
    sequence.write_text("# no sequence is read before the pools\n")
    refused(cestquant, ["simulate", "--pools", str(path), "--sequence", str(sequence)], path, capfd)


def as_protocol(path: Path) -> tuple[Main, list[str]]:
    signal = path.with_name("z.nii")
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(np.ones((4, 4, 4), np.float32))] * 3), str(signal))
    return cestquant, ["fit", "--signal", str(signal), "--protocol", str(path), "--method", "mtrasym"]


def as_training(path: Path) -> tuple[Main, list[str]]:
    manifest = path.with_name("cohort.csv")
    manifest.write_text("subject,t1\n")
    return jointregseg, ["train", "--manifest", str(manifest), "--config", str(path)]


def as_settings(path: Path) -> tuple[Main, list[str]]:
    for name in ("t1.nii", "seg.nii", "z.nii", "p.json"):
        path.with_name(name).write_text("x")
    manifest = path.with_name("cohort.csv")
    manifest.write_text("subject,visit,t1,segmentation,cest,protocol\nA,1,t1.nii,seg.nii,z.nii,p.json\n")
    return neurocest, ["run", str(manifest), "--settings", str(path)]


@pytest.mark.parametrize("text", list(JSON.values()), ids=list(JSON))
@pytest.mark.parametrize("used", [as_protocol, as_training, as_settings])
def test_deep_and_long_json_is_refused_by_name(
    used: Callable[[Path], tuple[Main, list[str]]],
    text: str,
    slicer: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    path = tmp_path / "strange.json"
    path.write_text(text)
    main, words = used(path)
    refused(main, words, path, capfd)
