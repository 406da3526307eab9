"""Results into the scene: volume nodes with unit, colours and window, a table of regions, one folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.core.whole_files import keep_words
from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from ..methods.registry import quantity_named, words_of
from .naming import QUALITY_FOLDER
from .regions import region_columns
from .study import Study

if TYPE_CHECKING:
    import torch

    from ..methods.base import Method, Quantification


MOST_FAILURES = 0.1
"""Share of failed voxels from which a run warns."""
STATUS = "status"
"""Name of the map that says how the fit of each voxel has ended."""


@dataclass(frozen=True)
class Drawing:
    """What the report picture shows.

    Attributes:
        geometry: Voxel grid.
        anatomy: Image (K, J, I) under the maps.
        voxels: Flat indices of the voxels that were quantified.
        regions: Boolean masks (K, J, I) by name.
        quantification: Result over these voxels.
        maps: Maps (K, J, I) by name.
    """

    geometry: Geometry
    anatomy: np.ndarray
    voxels: np.ndarray
    regions: dict[str, np.ndarray]
    quantification: Quantification
    maps: dict[str, np.ndarray]


@dataclass(frozen=True)
class CESTQuantResult:
    """What a run has put into the scene.

    Attributes:
        nodes: Volume nodes by quantity, and ``status``.
        folderItemID: Their folder in the subject hierarchy.
        table: Table node of the regions, or None.
        report: Numbers for ``report.json``: voxels by status, medians, the method's summary and publications; and the
            ``warnings``, sentences for the user.
        drawing: What the report picture shows.
        posterior: Table node of the posteriors of the regions, or None.
    """

    nodes: dict[str, Any]
    folderItemID: int
    table: Any
    report: dict[str, Any]
    drawing: Drawing
    posterior: Any = None

    @property
    def mainMap(self) -> Any:
        """Volume node of the most important map that has a value anywhere; of equal ones the first."""
        maps = self.drawing.maps
        shown = [name for name in maps if np.isfinite(maps[name]).any()]
        return self.nodes[min(shown or maps, key=lambda name: quantity_named(name).rank)]


def require_result(study: Study, result: Quantification) -> None:
    """Check that at least one voxel has a result.

    Raises:
        ValueError: No voxel has one; the message says how many voxels failed for which reason.
    """
    from ..fitting.marquardt import Status

    reasons = {
        Status.INVALID_DATA: "with unusable signal, M0 or maps",
        Status.NOT_ENOUGH_POINTS: "with too few different measurements",
        Status.FAILED: "where the method gives no value",
    }
    counts = {reason: int((result.status == status).sum()) for status, reason in reasons.items()}
    if sum(counts.values()) == len(result.status):
        found = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        raise ValueError(f"no voxel of {study.title} could be quantified ({found}): check the maps, mask and protocol")


def failure_warnings(study: Study, result: Quantification) -> list[str]:
    """Return a sentence where more than a tenth of the voxels with a signal have no usable result, otherwise nothing.

    Args:
        study: Acquisition that was quantified.
        result: What the method returned.
    """
    raw = study.raw.reshape(len(study.raw), -1)[:, study.voxels]
    with_signal = (np.nan_to_num(raw) != 0).any(0)
    return unusable_warnings(result.status.cpu().numpy(), with_signal, "mask, M0, maps and protocol")


def unusable_warnings(status: np.ndarray, with_signal: np.ndarray, check: str, limits: str = "") -> list[str]:
    """Return a sentence where more than a tenth of the voxels with a signal have no usable result, otherwise nothing.

    Args:
        status: Status (voxel,).
        with_signal: Which of the voxels have a signal.
        check: What the user should check.
        limits: Range of a search, for messages; with it, voxels at a bound have no usable result either.
    """
    from ..fitting.marquardt import Status

    at_limit = with_signal & (status == Status.AT_BOUND) & bool(limits)
    failed = with_signal & is_unusable(status, of_a_search=bool(limits))
    if failed.sum() <= MOST_FAILURES * with_signal.sum():
        return []
    of_these = f", {at_limit.sum()} of them at the limit of the search ({limits})" if at_limit.any() else ""
    return [
        f"{failed.sum()} of {with_signal.sum()} voxels with a signal have no usable result (see the status map)"
        f"{of_these}: check {check}"
    ]


def voxels_by_status(status: torch.Tensor, masked: int) -> dict[str, int]:
    """Return the numbers of voxels by their status (voxel,), and of those that were not fitted."""
    from ..fitting.marquardt import Status

    counts = {outcome.name.lower(): int((status == outcome).sum()) for outcome in Status}
    counts["masked"] += masked
    return counts


def region_warnings(study: Study, regions: dict[str, np.ndarray]) -> list[str]:
    """Return a sentence for every region without a voxel that is quantified.

    Args:
        study: Acquisition that was quantified.
        regions: Boolean masks (K, J, I) by name.
    """
    quantified = np.zeros(study.raw[0].size, dtype=bool)
    quantified[study.voxels] = True
    return [
        f"the region '{name}' has no voxel in {study.title}"
        + (" (it lies outside of the mask)" if mask.any() else "")
        + ": check that the segmentation and the images lie in the same place"
        for name, mask in regions.items()
        if not mask.ravel()[quantified].any()
    ]


def is_unusable(status: np.ndarray, of_a_search: bool = False) -> np.ndarray:
    """Whether voxels have no values, or values that are not estimates, by their status of any shape.

    Args:
        status: Status of the voxels.
        of_a_search: Whether voxels at a bound, which is the limit of a search, have no estimate either.
    """
    from ..fitting.marquardt import UNUSABLE, Status

    outcomes = (*UNUSABLE, Status.AT_BOUND) if of_a_search else UNUSABLE
    return np.isin(status, [int(outcome) for outcome in outcomes])


def into_scene(
    study: Study,
    method: Method,
    result: Quantification,
    *,
    warnings: tuple[str, ...],
    regions: dict[str, np.ndarray],
    folder: str,
    progress: Progress = silent,
) -> CESTQuantResult:
    """Put maps, status and table of a run into one folder of the scene; after an error the scene is as it was.

    Standard errors and the maps of the quality of a fit are in a folder of their own below it.

    Args:
        study: Acquisition that was quantified.
        method: Method that was used.
        result: What it returned.
        warnings: Sentences for the user.
        regions: Boolean masks (K, J, I) by name; with any, there is a table.
        folder: Name of the folder.
        progress: Called with the fraction done and a message; may raise to cancel.
    """
    keep_words(method.name, STATUS, *result.quantities, *words_of(result.quantities))
    with scene_unchanged_on_error():
        maps, nodes = {}, {}
        for count, (name, values) in enumerate(result.quantities.items()):
            progress(count / len(result.quantities), "writing maps into the scene")
            maps[name] = _on_grid(study, values.detach().cpu().numpy().astype(np.float32), np.nan)
            nodes[name] = _map_node(name, maps[name], study.geometry)
        status = _on_grid(study, result.status.cpu().numpy().astype(np.uint8), 0)
        nodes[STATUS] = volumes.add_volume(status, study.geometry, STATUS, label=True)
        table = add_table(region_columns(maps, regions, ~is_unusable(status)), "regions") if regions else None
        item = hierarchy.make_folder(folder)
        quality = {name for name in nodes if name == STATUS or quantity_named(name).quality}
        tables = [] if table is None else [table]
        hierarchy.put([*(node for name, node in nodes.items() if name not in quality), *tables], item)
        hierarchy.put((nodes[name] for name in nodes if name in quality), hierarchy.make_folder(QUALITY_FOLDER, item))
        progress(1.0, "writing maps into the scene")
        images = study.raw if study.reference is None else study.reference
        anatomy = np.nan_to_num(images.mean(0)).astype(np.float32)
        drawing = Drawing(study.geometry, anatomy, study.voxels, regions, result, maps)
        report = _report(study, method, result) | {"warnings": list(warnings)}
        return CESTQuantResult(nodes, item, table, report, drawing)


def _on_grid(study: Study, values: np.ndarray, elsewhere: float) -> np.ndarray:
    """Return an array (K, J, I) of the values (voxel,), with another value at the voxels that were not quantified."""
    full = np.full(study.raw[0].size, elsewhere, dtype=values.dtype)
    full[study.voxels] = values
    return full.reshape(study.geometry.shape)


def _map_node(name: str, array: np.ndarray, geometry: Geometry) -> Any:
    quantity = quantity_named(name)
    window = quantity.window
    if window is None:
        window = display.robust_window(array)
        reach = max(abs(window[0]), abs(window[1]))
        window = (-reach, reach) if quantity.centered else window
    node = volumes.add_volume(array, geometry, name)
    display.show_map(node, quantity.unit, quantity.color_map, window)
    return node


def _report(study: Study, method: Method, result: Quantification) -> dict[str, Any]:
    medians = {name: float(values.nanmedian()) for name, values in result.quantities.items()}
    return {
        "voxels": voxels_by_status(result.status, study.raw[0].size - len(study.voxels)),
        "m0": study.m0_record(),
        "medians": medians,
        **result.summary,
        "publications": list(method.publications),
    }
