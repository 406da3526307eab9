"""The result of an analysis of compartments as nodes: tables, segmentations, change maps, one folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from ...compartments.grid import Grid
from ...compartments.results.analysis import Analysis, Between
from ...compartments.results.change import Change
from ...compartments.results.statistics import Statistics
from ...compartments.results.visit import Visit
from ...methods.registry import quantity_named
from ..naming import folder_of_run
from ..results import STATUS

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ...compartments.inputs import VisitInput


@dataclass
class CompartmentsResult:
    """What an analysis has put into the scene.

    Attributes:
        analysis: The numbers and images.
        table: Table node of the regions, quantities and visits.
        changes: Table node of the changes, or None.
        segmentations: Segmentation nodes of the regions, by visit.
        changeMaps: Volume nodes of the change, by quantity.
        transitions: Label-map node of the tissue that changed its compartment, or None.
        folderItemID: Their folder in the subject hierarchy.
        inputs: What the analysis started from, for the report.
        between: Transform from the first to the second visit, LPS mm, or None.
        names: What the report writes instead of the names of the nodes and files that were given.
    """

    analysis: Analysis
    table: Any
    changes: Any = None
    segmentations: dict[str, Any] = field(default_factory=dict)
    changeMaps: dict[str, Any] = field(default_factory=dict)
    transitions: Any = None
    folderItemID: int = 0
    inputs: tuple[VisitInput, ...] = ()
    between: sitk.Transform | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def into_scene(analysis: Analysis, folder: str) -> CompartmentsResult:
    """Put a result into one folder of the scene; after an error the scene is as it was.

    Args:
        analysis: The result.
        folder: Name of the folder.
    """
    with scene_unchanged_on_error():
        rows = [row for visit in analysis.visits for row in visit.statistics]
        result = CompartmentsResult(analysis, add_table(_columns(Statistics, rows), "compartments"))
        for visit in analysis.visits:
            if visit.regions and visit.mask_grid is not None:
                result.segmentations[visit.name] = _segmentation(visit)
        if analysis.between is not None:
            _add_between(analysis.between, analysis.visits[0], result)
        result.folderItemID = hierarchy.make_folder(folder)
        nodes = [result.table, result.changes, result.transitions]
        nodes += [*result.segmentations.values(), *result.changeMaps.values()]
        hierarchy.put([node for node in nodes if node is not None], result.folderItemID)
        return result


def maps_beside(node: Any) -> dict[str, Any]:
    """Return all maps of a run by quantity, given one of them: those in its folder on the same voxel grid.

    A label map, such as a mask, is none of them, except for the status of the fits.

    Args:
        node: Volume node of a map.
    """
    folder = folder_of_run(node)
    nodes = hierarchy.nodes_in(folder, below=True) if folder else [node]
    geometry = Geometry.of(node)
    images = (each for each in nodes if each.IsA("vtkMRMLScalarVolumeNode") and folder_of_run(each) == folder)
    maps = [each for each in images if not _is_label_map(each) and Geometry.of(each).matches(geometry)]
    return {each.GetName(): each for each in [*maps, node]}


def _is_label_map(node: Any) -> bool:
    """Tell whether a volume node holds labels other than the status of the fits, and so no quantity."""
    return bool(node.IsA("vtkMRMLLabelMapVolumeNode")) and node.GetName() != STATUS


def file_name(visit: str) -> str:
    """Return the name of a visit as a part of file names."""
    return re.sub(r"[^\w-]+", "_", visit).strip("_") or "visit"


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """Return the numbers of an analysis beside its tables, for ``report.json``.

    Args:
        analysis: The result.
    """
    visits = {visit.name: _summary_of_visit(visit) for visit in analysis.visits}
    found: dict[str, Any] = {"settings": dict(analysis.settings), "visits": visits}
    if (between := analysis.between) is not None:
        found["between"] = {
            "response": None if between.response is None else asdict(between.response),
            "transitions": [asdict(each) for each in between.transitions],
            "jacobian": [asdict(each) for each in between.jacobian],
            "registration": dict(between.registration),
        }
    return found


def _summary_of_visit(visit: Visit) -> dict[str, Any]:
    return {
        "regions": {
            region.name: {
                "kind": region.kind,
                "volume_ml": region.volume_ml,
                "at_least": region.at_least,
                "covered_ml": region.covered_ml,
                "coverage": region.coverage,
            }
            for region in visit.regions
        },
        "alignment": None if visit.alignment is None else asdict(visit.alignment),
        "midplane": None if visit.midplane is None else asdict(visit.midplane),
        "lesions": None
        if visit.lesions is None
        else [{**asdict(lesion), "product_mm2": lesion.product_mm2} for lesion in visit.lesions],
    }


def _columns(kind: type, rows: list[Any]) -> dict[str, list[Any]]:
    records = [asdict(row) for row in rows]
    return {each.name: [record[each.name] for record in records] for each in fields(kind)}


def geometry_of(grid: Grid) -> Geometry:
    """Return a grid as the geometry of a node."""
    return Geometry(grid.shape, grid.ijk_to_ras)


def _segmentation(visit: Visit) -> Any:
    if visit.mask_grid is None:
        raise ValueError(f"the visit '{visit.name}' has no segmentation")
    masks = {region.title: region.mask for region in visit.regions}
    node = add_segmentation(masks, geometry_of(visit.mask_grid), f"{visit.name} regions")
    for number, region in enumerate(visit.regions):
        segment = node.GetSegmentation().GetNthSegment(number)
        segment.SetColor(*region.color)
        segment.SetColorAutoGenerated(False)
    return node


def _add_between(between: Between, first: Visit, result: CompartmentsResult) -> None:
    result.changes = add_table(_columns(Change, list(between.changes)), "changes")
    if first.grid is not None:
        for name, array in between.change_maps.items():
            node = volumes.add_volume(array, geometry_of(first.grid), f"change of {name}")
            low, high = display.robust_window(array)
            reach = max(abs(low), abs(high))
            display.show_map(node, quantity_named(name).unit, "diverging", (-reach, reach))
            result.changeMaps[name] = node
    if between.transition_labels is not None and between.transition_grid is not None:
        geometry = geometry_of(between.transition_grid)
        result.transitions = volumes.add_volume(between.transition_labels, geometry, "transitions", label=True)
