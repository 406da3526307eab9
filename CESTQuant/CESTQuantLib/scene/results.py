"""Quantities into the scene: volume nodes with unit, colours and window, a table of regions, one folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .study import Study

if TYPE_CHECKING:
    from ..methods.registry import Quantification


@dataclass
class CESTQuantResult:
    """Nodes of a run by quantity, their subject-hierarchy folder, the table of regions, and what to report.

    ``drawing`` is what :func:`CESTQuantLib.scene.report.draw_report` needs.
    """

    nodes: dict[str, Any]
    folderItemID: int
    table: Any = None
    report: dict[str, Any] = field(default_factory=dict)
    drawing: Drawing | None = None


@dataclass(frozen=True)
class Drawing:
    """Arrays behind a report picture: (K, J, I) on ``geometry``; ``voxels`` are flat indices of the fitted ones."""

    geometry: Geometry
    anatomy: np.ndarray
    voxels: np.ndarray
    regions: dict[str, np.ndarray]
    quantification: Quantification
    maps: dict[str, np.ndarray]


def into_scene(
    study: Study, result: Quantification, warnings: tuple[str, ...], regions: dict[str, np.ndarray], folder: str
) -> CESTQuantResult:
    """Maps, status and table of a run as nodes in one folder; after an error the scene is as it was."""
    with scene_unchanged_on_error():
        return _nodes_of(study, result, warnings, regions, folder)


def _nodes_of(
    study: Study, result: Quantification, warnings: tuple[str, ...], regions: dict[str, np.ndarray], folder: str
) -> CESTQuantResult:
    from .style import style_of

    nodes, maps = {}, {}
    for name, values in result.quantities.items():
        full = np.full(study.raw[0].size, np.nan, dtype=np.float32)
        full[study.voxels] = values.detach().cpu().numpy()
        maps[name] = full.reshape(study.geometry.shape)
        nodes[name] = volumes.add_volume(maps[name], study.geometry, name)
        style = style_of(name)
        display.show_map(nodes[name], style.unit, style.color_map, style.window or _window(maps[name], style.centred))
    status = np.zeros(study.raw[0].size, dtype=np.uint8)
    status[study.voxels] = result.status.cpu().numpy()
    nodes["status"] = volumes.add_volume(status.reshape(study.geometry.shape), study.geometry, "status", label=True)
    table = add_table(_region_columns(maps, regions), "regions") if regions else None
    item = hierarchy.make_folder(folder)
    hierarchy.put([*nodes.values(), *([table] if table is not None else [])], item)
    full_reference = study.raw if study.reference is None else study.reference
    anatomy = np.nan_to_num(full_reference.mean(0)).astype(np.float32)
    drawing = Drawing(study.geometry, anatomy, study.voxels, regions, result, maps)
    report = _report(result, warnings)
    report["voxels"]["masked"] += study.raw[0].size - len(study.voxels)
    return CESTQuantResult(nodes, item, table, report, drawing)


def _window(array: np.ndarray, centred: bool) -> tuple[float, float]:
    low, high = display.robust_window(array)
    reach = max(abs(low), abs(high))
    return (-reach, reach) if centred else (low, high)


def _region_columns(maps: dict[str, np.ndarray], regions: dict[str, np.ndarray]) -> dict[str, list]:
    import torch

    from ..preprocessing.normalization import region_statistics
    from .style import style_of

    columns: dict[str, list] = {"region": [], "quantity": [], "unit": []}
    for region, mask in regions.items():
        for name, array in maps.items():
            if name.endswith("_sd"):
                continue
            statistics = region_statistics(torch.from_numpy(array[mask]))
            for key, value in {"region": region, "quantity": name, "unit": style_of(name).unit, **statistics}.items():
                columns.setdefault(key, []).append(value)
    return columns


def _report(result: Quantification, warnings: tuple[str, ...]) -> dict[str, Any]:
    from ..fitting.marquardt import Status

    counts = {status.name.lower(): int((result.status == status).sum()) for status in Status}
    medians = {n: float(v.nanmedian()) for n, v in result.quantities.items()}
    return {"voxels": counts, "medians": medians, **result.summary, "warnings": list(warnings)}
