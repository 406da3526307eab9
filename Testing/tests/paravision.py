"""Small ParaVision studies as the scanner writes them: parameter files in JCAMP-DX and a ``2dseq``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

METHOD = {
    "Method": "<User:cest>",
    "PVM_FrqWork": "( 8 )\n300 0 0 0 0 0 0 0",
    "PVM_MagTransOnOff": "On",
    "PVM_MagTransPower": "2.5",
    "PVM_MagTransPulse1Enum": "<bp32>",
    "PVM_MagTransPulse1": "(4000, 0.2, 321873.3, \nNo, 3, 1280, 1, 1, 0, 50, 0.03, <bp32.exc>)",
    "PVM_MagTransInterDelay": "0.01",
    "PVM_MagTransPulsNumb": "1",
    "PVM_MagTransFL": "( 4 )\n-30000 -1050 \n0 1050",
}


def array_of(values: Sequence[float]) -> str:
    """Text of an array of numbers, wrapped as ParaVision does it."""
    lines = [" ".join(f"{value:.10g}" for value in values[i : i + 9]) for i in range(0, len(values), 9)]
    return f"( {len(values)} )\n" + " \n".join(lines)


def write_parameters(path: Path, values: Mapping[str, str]) -> None:
    """Write a parameter file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = "".join(f"##${name}={value}\n" for name, value in values.items())
    path.write_text(
        f"##TITLE=Parameter List\n##JCAMPDX=4.24\n$$ 2022-03-16 a comment\n{records}$$ @vis= Method\n##END=\n",
        encoding="utf-8",
    )


def visu_parameters(
    stored: np.ndarray, *, rotation: np.ndarray | None = None, slope: float = 0.5, offset: float = 0.0
) -> dict[str, str]:
    """Parameters of 2-D frames (measurement, slice, Y, X): voxels of 0.5 x 0.25 mm, slices 2 mm apart from -3 mm on."""
    measurements, slices, rows, columns = stored.shape
    axes = np.eye(3) if rotation is None else rotation
    frames = measurements * slices
    positions = [axes.T @ np.array([-4.0, -2.0, -3.0 + 2.0 * k]) for k in range(slices)]
    groups = [f"({slices}, <FG_SLICE>, <>, 0, 2)"] * (slices > 1) + [f"({measurements}, <FG_CYCLE>, <>, 2, 0)"]
    return {
        "VisuVersion": "3",
        "VisuCoreFrameCount": str(frames),
        "VisuCoreDim": "2",
        "VisuCoreSize": f"( 2 )\n{columns} {rows}",
        "VisuCoreDimDesc": "( 2 )\nspatial spatial",
        "VisuCoreExtent": f"( 2 )\n{columns * 0.5:g} {rows * 0.25:g}",
        "VisuCoreFrameThickness": "( 1 )\n1.5",
        "VisuCoreUnits": "( 2, 65 )\n<mm> <mm>",
        "VisuCoreOrientation": f"( {slices}, 9 )\n" + " ".join(f"{v:.10g}" for v in np.tile(axes.ravel(), slices)),
        "VisuCorePosition": f"( {slices}, 3 )\n" + " \n".join(f"{v:.10g}" for p in positions for v in p),
        "VisuCoreDataOffs": f"( {frames} )\n@{frames}*({offset:g})",
        "VisuCoreDataSlope": array_of([slope * (1 + i) for i in range(frames)]),
        "VisuCoreFrameType": "( 1 )\nMAGNITUDE_IMAGE",
        "VisuCoreWordType": "_16BIT_SGN_INT",
        "VisuCoreByteOrder": "littleEndian",
        "VisuFGOrderDescDim": str(len(groups)),
        "VisuFGOrderDesc": f"( {len(groups)} )\n" + " ".join(groups),
        "VisuSeriesComment": "( 65 )\n<Z-spectrum>",
    }


def stored_frames(measurements: int = 4, slices: int = 2, rows: int = 6, columns: int = 5) -> np.ndarray:
    """Stored numbers (measurement, slice, Y, X)."""
    return np.random.default_rng(3).integers(1, 1000, (measurements, slices, rows, columns)).astype("<i2")


def write_scan(
    folder: Path,
    stored: np.ndarray | None = None,
    *,
    method: Mapping[str, str | None] | None = None,
    visu: Mapping[str, str | None] | None = None,
) -> Path:
    """Write a scan folder; given parameters replace those of the standard scan, and None leaves one out."""
    stored = stored_frames() if stored is None else stored

    def with_changes(values: Mapping[str, str], changes: Mapping[str, str | None] | None) -> dict[str, str]:
        merged = {**values, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}

    write_parameters(folder / "method", with_changes(METHOD, method))
    write_parameters(folder / "acqp", {"BF1": "300", "NR": str(len(stored))})
    write_parameters(folder / "pdata" / "1" / "visu_pars", with_changes(visu_parameters(stored), visu))
    (folder / "pdata" / "1" / "2dseq").write_bytes(stored.tobytes())
    return folder
