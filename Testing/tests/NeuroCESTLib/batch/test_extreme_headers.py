"""Whole commands whose images have headers that no scanner writes: a sentence that names the file, nothing written."""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import small_weights

from CESTQuantLib.batch import main as cestquant
from JointRegSegLib.batch import main as jointregseg
from NeuroCESTLib.workflow.manifest import MODALITIES

MOST_MB = 200
NAN, INFINITE = float("nan"), float("inf")
SHORTS, FLOATS = {"dim": 40}, {"pixdim": 76, "quatern": 256, "qoffset": 268}
"""Places of fields in the header of a NIfTI file."""


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
def test_extreme_headers_are_refused_by_name(
    main: Callable[[list[str]], int],
    arguments: Callable[[Path, Path], list[str]],
    shape: tuple[int, ...],
    extreme: str,
    slicer: ModuleType,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    path = nifti(tmp_path / "strange.nii", shape, *EXTREMES[extreme])
    words = arguments(path, tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert str(path) in lines[0]
    assert len(lines[0].replace(str(path), "")) < 300
    assert grown_mb < MOST_MB
    assert not (tmp_path / "out").exists()
