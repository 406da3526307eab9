"""Results of a run put into the scene: segmentations, transform, warped volumes, maps and tables in one folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, show_segmentation
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error
from NeuroCESTLib.scene.volumes import add_volume

from ..images.compartments import COMPARTMENTS, shown_compartments
from ..images.modalities import TITLES
from ..pictures.cases import JACOBIAN_WINDOW
from .files import write_transform

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..findings.result import JointResult, RegionVolume
    from ..images.study import StudyImages

WARPED_PERCENTILES = (1.0, 99.5)
"""Percentiles between which warped images are shown."""
RESULT_MARK = "NeuroCEST.result"
"""Mark of the nodes of a run, which says what they were called at first, such as 'fixed segmentation'."""


@dataclass
class JointRegSegResult:
    """Nodes of a run, and the subject-hierarchy folder that holds them.

    Attributes:
        joint: The same results as images and transforms.
        studies: Images that were processed, by study ('fixed', 'moving').
        fixedSegmentation: Segmentation of the fixed visit on the grid of its reference; None if no network segmented
            it and no segmentation was given.
        movingSegmentation: The same for the moving visit.
        warpedSegmentation: Segmentation of the moving visit on the fixed study.
        transform: Nodes of the moving study that are put under this transform lie on the fixed study. It can be
            hardened and inverted.
        warped: Images of the moving study on the grid of the fixed one, by modality.
        carried: Further nodes of the moving visit that were brought along.
        jacobian: Local volume of the moving relative to the fixed study; 1 is no change.
        uncertainty: Entropy of the predicted classes, 0 to 1, by study.
        volumes: Table of the volumes.
        changes: Table of their changes.
        lesions: Table of the single lesions and their changes; None unless both visits have a segmentation.
        folderItemID: Subject-hierarchy item of the folder.
        report: Numbers for the report.
        warnings: Sentences for the user.
        positions: For the images that lay apart within a visit and were aligned, in the order of their visits and
            modalities: nodes that belong to such an image lie with the others under its transform.
    """

    joint: JointResult
    studies: dict[str, StudyImages]
    fixedSegmentation: Any = None
    movingSegmentation: Any = None
    warpedSegmentation: Any = None
    transform: Any = None
    warped: dict[str, Any] = field(default_factory=dict)
    carried: list[Any] = field(default_factory=list)
    jacobian: Any = None
    uncertainty: dict[str, Any] = field(default_factory=dict)
    volumes: Any = None
    changes: Any = None
    lesions: Any = None
    folderItemID: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)

    @property
    def nodes(self) -> list[Any]:
        """All nodes, in the order of the folder."""
        first = (self.fixedSegmentation, self.movingSegmentation, self.warpedSegmentation, self.transform)
        last = (self.jacobian, *self.uncertainty.values(), self.volumes, self.changes, self.lesions)
        return [n for n in (*first, *self.positions, *self.warped.values(), *self.carried, *last) if n is not None]


def into_scene(
    joint: JointResult,
    studies: Mapping[str, StudyImages],
    sources: Mapping[str, Any],
    carried: Sequence[Callable[[], Any]],
    folder: str,
) -> JointRegSegResult:
    """Add the results of a run to the scene as nodes in one folder; after an error the scene is as it was.

    Args:
        joint: Results to add.
        studies: Images of 'fixed' and 'moving'. The result holds those of the run, in one position, where it has them.
        sources: Nodes of the moving study by modality; the warped volumes are shown in their windows.
        carried: Functions that add further nodes, see ``carrying.carried_along``.
        folder: Name of the subject-hierarchy folder.
    """
    with scene_unchanged_on_error():
        result = JointRegSegResult(joint, {**studies, **joint.positioned})
        known = {which: study.given_compartments for which, study in result.studies.items()}
        result.fixedSegmentation = _add_if_segmented(joint.fixed_labels, "fixed segmentation", known["fixed"])
        result.movingSegmentation = _add_if_segmented(joint.moving_labels, "moving segmentation", known["moving"])
        result.warpedSegmentation = _add_if_segmented(
            joint.warped_labels, "moving segmentation on fixed", known["moving"]
        )
        result.transform = add_transform(joint.moving_to_fixed, "moving to fixed")
        result.positions = [
            add_transform(position, position_name(which, modality))
            for which, found in joint.positions.items()
            for modality, position in found.items()
        ]
        for modality, image in joint.warped.items():
            result.warped[modality] = _warped_volume(image, f"{TITLES[modality]} warped", sources[modality])
        result.carried = [add() for add in carried]
        result.jacobian = add_image(joint.jacobian, "Jacobian determinant")
        display.show_map(result.jacobian, "", "diverging", JACOBIAN_WINDOW)
        for which, image in (("fixed", joint.fixed_uncertainty), ("moving", joint.moving_uncertainty)):
            if image is not None:
                result.uncertainty[which] = add_image(image, f"{which} uncertainty")
                display.show_map(result.uncertainty[which], "", "inferno", (0.0, 1.0))
        if joint.volumes:
            result.volumes = add_table(volume_columns(joint.volumes), "volumes")
            result.changes = add_table(change_columns(joint), "changes")
        if joint.fixed_labels is not None and joint.moving_labels is not None:
            result.lesions = add_table(lesion_columns(joint), "lesions")
        _show_what_lies_on_fixed(result)
        result.warnings = list(joint.warnings)
        result.report = dict(joint.summary)
        result.folderItemID = hierarchy.make_folder(folder)
        hierarchy.put(result.nodes, result.folderItemID)
        for node in result.nodes:
            hierarchy.mark(node, RESULT_MARK, node.GetName())
        return result


def results_in(folder: int) -> dict[str, Any]:
    """Return the nodes in a folder by their names, and those of a run by what the run called them.

    The user may have renamed the nodes of a run, or have put copies beside them. Only scenes of earlier versions do not
    tell what a run made, and there the names decide.

    Args:
        folder: Item ID of the folder.
    """
    nodes = hierarchy.nodes_in(folder)
    by_mark = {hierarchy.marked(node, RESULT_MARK): node for node in nodes}
    return {node.GetName(): node for node in nodes} | {name: node for name, node in by_mark.items() if name}


def _show_what_lies_on_fixed(result: JointRegSegResult) -> None:
    """Show the segmentation of the fixed visit, filled, and that of the moving visit on it, as outlines."""
    if result.movingSegmentation is not None:
        show_segmentation(result.movingSegmentation, False)
    if result.warpedSegmentation is not None:
        show_segmentation(result.warpedSegmentation, True, filled=False)


def tell_label_readings(result: JointRegSegResult) -> None:
    """Add to the report and to the warnings how the given segmentations were understood."""
    readings = {which: study.label_reading for which, study in result.studies.items()}
    known = {which: reading for which, reading in readings.items() if reading is not None}
    if not known:
        return
    result.report["labels"] = {which: reading.to_dict() for which, reading in known.items()}
    for which, reading in known.items():
        result.warnings += reading.warnings
        if result.studies[which].left_out is not None and not reading.warnings:
            result.warnings.append(
                f"'{reading.source}' is a plain mask: the registration leaves out what it covers, but it names no "
                f"compartment and so is no segmentation of the {which} study"
            )


def _add_if_segmented(labels: sitk.Image | None, name: str, known: Collection[int] | None) -> Any:
    return None if labels is None else add_tumor(labels, name, known)


def add_tumor(labels: sitk.Image, name: str, known: Collection[int] | None = None) -> Any:
    """Add a segmentation node with one segment per compartment.

    An empty segment says that there is none, and so a compartment that the classes cannot have gets no segment. The
    others have the numbers of their classes in files.

    Args:
        labels: Tumour classes.
        name: Name of the node.
        known: Numbers that the classes can have; None for all of the tumour, and a cavity where there is one.
    """
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(labels)
    masks = {compartment.name: voxels == number for number, compartment in COMPARTMENTS.items()}
    node = add_segmentation(masks, Geometry.from_sitk(labels), name)
    segmentation = node.GetSegmentation()
    segmentation.CollapseBinaryLabelmaps(False)  # into one map with the numbers of the classes, which are then kept
    for compartment in {*COMPARTMENTS.values()}.difference(shown_compartments(voxels, known).values()):
        segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName(compartment.name))
    style_tumor(node)
    return node


def style_tumor(node: Any) -> None:
    """Give the segments that are named as compartments their colours and terminology."""
    segmentation = node.GetSegmentation()
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        for compartment in COMPARTMENTS.values():
            if segment.GetName() == compartment.name:
                segment.SetTag(segment.GetTerminologyEntryTagName(), compartment.terminology)
                segment.SetColor(*compartment.color)
                segment.SetNameAutoGenerated(False)
                segment.SetColorAutoGenerated(False)


def add_transform(transform: sitk.Transform, name: str) -> Any:
    """Add a transform node.

    Slicer moves nodes in the opposite direction, as it does with transform files of ITK: a node that is put under the
    transform node moves from the moving to the fixed space.

    Args:
        transform: Map from points of the fixed space to points of the moving space (LPS mm).
        name: Name of the node.
    """
    import slicer

    with temporary_folder() as folder:
        # Through a file, so that the node is the same as a user gets who loads the transform file.
        path = Path(folder) / "transform.h5"
        write_transform(transform, path)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
        storage = slicer.vtkMRMLTransformStorageNode()
        storage.SetScene(slicer.mrmlScene)
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            raise RuntimeError("Slicer's reader refused the transform between the studies")
    # ITK and the warped images interpolate the field linearly. Slicer's default is cubic, which gives other values
    # between the grid points of a rough field.
    for part in (node.GetTransformToParent(), node.GetTransformFromParent()):
        for number in range(part.GetNumberOfConcatenatedTransforms() if part.IsA("vtkGeneralTransform") else 0):
            grid = part.GetConcatenatedTransform(number)
            if grid.IsA("vtkGridTransform"):
                grid.SetInterpolationModeToLinear()
    return node


def position_name(study: str, modality: str) -> str:
    """Return the name of the transform node that brings an image into the position of the others of its visit."""
    return f"{study} {TITLES[modality]} position"


def volume_columns(rows: Sequence[RegionVolume]) -> dict[str, list]:
    """Return the columns of the table of volumes; NaN without interval, and see ``RegionVolume``."""
    return {
        "study": [row.study for row in rows],
        "region": [row.region for row in rows],
        "volume_ml": [row.volume_ml for row in rows],
        "low_ml": [number_or_nan(row.low_ml) for row in rows],
        "high_ml": [number_or_nan(row.high_ml) for row in rows],
        "bound": [bound(row.at_least) for row in rows],
        "seen_share": [row.seen_share for row in rows],
    }


def change_columns(joint: JointResult) -> dict[str, list]:
    """Return the columns of the table of changes, see ``VolumeChange``; NaN for what is not known."""
    names = (
        "fixed_ml",
        "moving_ml",
        "change_ml",
        "change_percent",
        "low_ml",
        "high_ml",
        "moving_warped_ml",
        "fixed_deformed_ml",
    )
    rows = joint.changes
    return {
        "region": [row.region for row in rows],
        **{name: [number_or_nan(getattr(row, name)) for row in rows] for name in names},
        "fixed_bound": [bound(row.fixed_at_least) for row in rows],
        "moving_bound": [bound(row.moving_at_least) for row in rows],
    }


def bound(at_least: bool) -> str:
    """Return the text of a table for a volume that is only the least one, or for any other."""
    return "at least" if at_least else ""


def lesion_columns(joint: JointResult) -> dict[str, list]:
    """Return the columns of the table of lesions, see ``LesionChange``; NaN for a change that is not known."""
    rows = joint.lesions
    return {
        "region": [row.region for row in rows],
        "lesion": [row.number for row in rows],
        "status": [row.status for row in rows],
        "fixed_ml": [row.fixed_ml for row in rows],
        "moving_ml": [row.moving_ml for row in rows],
        "change_ml": [number_or_nan(row.change_ml) for row in rows],
        "change_percent": [number_or_nan(row.change_percent) for row in rows],
        **{
            f"{axis}_mm": [row.center_ras_mm[n] for row in rows]
            for n, axis in enumerate(("right", "anterior", "superior"))
        },
        "fixed_bound": [bound(row.fixed_at_least) for row in rows],
        "moving_bound": [bound(row.moving_at_least) for row in rows],
    }


def number_or_nan(value: float | None) -> float:
    """Return a number, or NaN for one that is not known."""
    return float("nan") if value is None else float(value)


def add_image(image: sitk.Image, name: str) -> Any:
    """Add a volume node of an image."""
    import SimpleITK as sitk

    return add_volume(sitk.GetArrayFromImage(image), Geometry.from_sitk(image), name)


def _warped_volume(image: sitk.Image, name: str, source: Any) -> Any:
    """Add a volume node that is shown in the window of the volume that it was warped from."""
    import slicer

    node = add_image(image, name)
    shown = source.GetScalarVolumeDisplayNode() if source is not None else None
    gray = slicer.mrmlScene.GetNodeByID("vtkMRMLColorTableNodeGrey")
    node.CreateDefaultDisplayNodes()
    if gray is not None:
        node.GetScalarVolumeDisplayNode().SetAndObserveColorNodeID(gray.GetID())
    low, high = display.robust_window(slicer.util.arrayFromVolume(node)[::2, ::2, ::2], WARPED_PERCENTILES)
    if shown is not None and not shown.GetAutoWindowLevel():
        low, high = shown.GetWindowLevelMin(), shown.GetWindowLevelMax()
    if np.isfinite([low, high]).all() and high > low:
        display.set_window(node, low, high)
    return node
