"""How good a segmentation, a deformation and their combination are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..images.labels import REGIONS, region
from .surface_distance import hd95

LANDMARK_SYSTEMS = ("LPS", "RAS")
_COORDINATES = (("x", "y", "z"), ("l", "p", "s"), ("r", "a", "s"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap 2|a ∩ b| / (|a| + |b|) of two masks; 1 where both are empty, 0 where one is (as in BraTS)."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    if a.shape != b.shape:
        raise ValueError(f"masks have the shapes {a.shape} and {b.shape}; both must be the same")
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def region_scores(
    predicted: np.ndarray, expected: np.ndarray, spacing_mm: Sequence[float], distances: bool = True
) -> dict[str, float]:
    """Dice and HD95 (mm) of whole tumour, core and enhancing tumour, as ``dice_<region>`` and ``hd95_mm_<region>``.

    predicted, expected: classes (D, H, W). spacing_mm: of the array's axes (k, j, i).
    """
    scores = {}
    for name in REGIONS:
        a, b = region(np.asarray(predicted), name), region(np.asarray(expected), name)
        scores[f"dice_{name}"] = dice(a, b)
        if distances:
            scores[f"hd95_mm_{name}"] = hd95(a, b, spacing_mm)
    return scores


def volume_ratios(before: np.ndarray, after: np.ndarray, voxel_ratio: float = 1.0) -> dict[str, float]:
    """Volume of each region after the warp relative to before it, as ``volume_ratio_<region>``; NaN without any before.

    voxel_ratio: volume of a voxel after relative to one before. 1 means that the warp neither shrank nor blew up the
    tumour.
    """
    ratios = {}
    for name in REGIONS:
        count = int(region(np.asarray(before), name).sum())
        after_count = int(region(np.asarray(after), name).sum())
        ratios[f"volume_ratio_{name}"] = after_count * voxel_ratio / count if count else float("nan")
    return ratios


def jacobian_statistics(determinant: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """Of a map of Jacobian determinants: the share of folded voxels (≤ 0 or not finite) and the standard deviation of
    the logarithm elsewhere, as ``folded_fraction`` and ``sd_log_jacobian``; NaN for an empty mask."""
    values = np.asarray(determinant, float)
    values = values[np.asarray(mask, bool)] if mask is not None else values.ravel()
    if not values.size:
        return {"folded_fraction": float("nan"), "sd_log_jacobian": float("nan")}
    good = values > 0
    good &= np.isfinite(values)
    spread = float(np.log(values[good]).std()) if good.any() else float("nan")
    return {"folded_fraction": float(1 - good.mean()), "sd_log_jacobian": spread}


def inverse_consistency(
    forward: sitk.Transform, inverse: sitk.Transform, reference: sitk.Image, mask: np.ndarray, count: int = 5000
) -> dict[str, float]:
    """How far points of a mask on the reference image's grid come back from where they went, mm.

    Mean and largest |inverse(forward(x)) − x| over at most ``count`` evenly chosen voxel centres, as
    ``inverse_error_mean_mm`` and ``inverse_error_max_mm``; points that leave the field of view count too.
    """
    indices = np.argwhere(np.asarray(mask, bool))[:, ::-1]
    if not len(indices):
        return {"inverse_error_mean_mm": float("nan"), "inverse_error_max_mm": float("nan")}
    indices = indices[:: max(len(indices) // count, 1)][:count]
    points = [reference.TransformIndexToPhysicalPoint([int(i) for i in index]) for index in indices]
    back = np.array([inverse.TransformPoint(forward.TransformPoint(point)) for point in points])
    error = np.linalg.norm(back - np.array(points), axis=1)
    return {"inverse_error_mean_mm": float(error.mean()), "inverse_error_max_mm": float(error.max())}


@dataclass(frozen=True)
class Landmarks:
    """Points of a study: name → (x, y, z) in LPS mm."""

    points: dict[str, tuple[float, float, float]]
    path: str = ""


def read_landmarks(path: str | Path) -> Landmarks:
    """Points of a CSV file or of a Slicer markups table (``.csv``, ``.fcsv``).

    Columns ``x, y, z`` in mm with an optional name (``name``, ``label`` or ``landmark``; else the number of the row).
    The system is LPS unless the columns are called ``r, a, s``, or a comment line ``# CoordinateSystem = RAS`` (or 0)
    says otherwise; ``l, p, s`` is LPS.

    Raises:
        ValueError: names the file and what is missing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"landmarks '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from None
    system, header, rows = "LPS", None, []
    for line in lines:
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").partition("=")
            if key.strip().lower() == "coordinatesystem":
                system = {"0": "RAS", "1": "LPS"}.get(value.strip(), value.strip().upper())
            elif key.strip().lower() == "columns":
                header = [name.strip().lower() for name in value.split(",")]
        elif line.strip():
            rows.append(line)
    table = list(csv.reader(rows))
    if header is None and table:
        header = [name.strip().lower() for name in table.pop(0)]
    columns = next((names for names in _COORDINATES if set(names) <= set(header or ())), None)
    if columns is None:
        raise ValueError(f"landmarks '{path}' need the columns x, y, z (LPS mm), or r, a, s (RAS mm)")
    system = {"l": "LPS", "r": "RAS"}.get(columns[0], system)
    if system not in LANDMARK_SYSTEMS:
        raise ValueError(f"landmarks '{path}': the coordinate system '{system}' is unknown; use LPS or RAS")
    return Landmarks(_points(table, header, columns, -1 if system == "RAS" else 1, path), str(path))


def landmark_errors(fixed: Landmarks, moving: Landmarks, moving_to_fixed: sitk.Transform | None) -> np.ndarray:
    """Distance (mm) of each landmark's place, carried from the fixed study to the moving one, from its true place.

    moving_to_fixed: maps points of the fixed space to the moving space; None for the identity, the error before.

    Raises:
        ValueError: the studies have no landmark in common.
    """
    common = [name for name in fixed.points if name in moving.points]
    if not common:
        raise ValueError(f"the landmarks of '{fixed.path}' and '{moving.path}' have no name in common")
    carried = [
        fixed.points[name] if moving_to_fixed is None else moving_to_fixed.TransformPoint(fixed.points[name])
        for name in common
    ]
    return np.linalg.norm(np.array(carried) - np.array([moving.points[name] for name in common]), axis=1)


def _points(
    table: list[list[str]], header: list[str], columns: tuple[str, ...], sign: int, path: str | Path
) -> dict[str, tuple[float, float, float]]:
    places = [header.index(name) for name in columns]
    naming = next((header.index(name) for name in ("name", "label", "landmark") if name in header), None)
    points = {}
    for number, row in enumerate(table, start=1):
        try:
            x, y, z = (float(row[place]) for place in places)
        except (ValueError, IndexError):
            raise ValueError(f"landmarks '{path}': row {number} has no three numbers in {', '.join(columns)}") from None
        if not np.isfinite([x, y, z]).all():
            raise ValueError(f"landmarks '{path}': row {number} is not finite")
        name = row[naming].strip() if naming is not None and naming < len(row) else ""
        name = name or str(number)
        if name in points:
            raise ValueError(f"landmarks '{path}': the name '{name}' occurs twice")
        points[name] = (sign * x, sign * y, z)
    if not points:
        raise ValueError(f"landmarks '{path}' hold no point")
    return points
