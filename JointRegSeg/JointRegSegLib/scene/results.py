"""Results into the scene: segmentations, transform, warped volumes, maps and a table, in one folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.tables import add_table
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error
from NeuroCESTLib.scene.volumes import add_volume

from ..images.compartments import COMPARTMENTS
from ..images.modalities import TITLES

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..images.study import StudyImages
    from ..inference.result import JointResult

JACOBIAN_REACH = 0.5
"""The Jacobian map is shown from 1 - this to 1 + this: from half the volume to one and a half times it."""


@dataclass
class JointRegSegResult:
    """Nodes of a run and the subject-hierarchy folder that holds them.

    fixedSegmentation, movingSegmentation: of each visit, on the grid of its first image; None where there was neither
        a network nor a given segmentation. warpedSegmentation: the moving one on the fixed study.
    transform: the moving study's nodes put under it lie on the fixed study; it can be hardened and inverted.
    warped: images of the moving study on the fixed study's grid, by modality. carried: what else was brought along.
    jacobian: local change of volume from the fixed to the moving study (1: none). uncertainty: by study.
    volumes, changes: tables. report: numbers. warnings: sentences. joint: the same results as images and transforms.
    """

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
    folderItemID: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    joint: JointResult | None = None
    studies: dict[str, StudyImages] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Any]:
        """All nodes, in the order of the folder."""
        single = (self.fixedSegmentation, self.movingSegmentation, self.warpedSegmentation, self.transform)
        last = (self.jacobian, *self.uncertainty.values(), self.volumes, self.changes)
        return [n for n in (*single, *self.warped.values(), *self.carried, *last) if n is not None]


def into_scene(
    joint: JointResult, studies: Mapping[str, StudyImages], sources: Mapping[str, Any], carried: list, folder: str
) -> JointRegSegResult:
    """Results as nodes in one folder; after an error the scene is as it was.

    studies: images of 'fixed' and 'moving'. sources: nodes of the moving study by modality, whose window the warped
    images take. carried: pairs of node and what to add for it, see ``carrying.carried_along``.
    """
    with scene_unchanged_on_error():
        result = JointRegSegResult(joint=joint, studies=dict(studies))
        result.fixedSegmentation = add_tumor(joint.fixed_labels, "fixed segmentation")
        result.movingSegmentation = add_tumor(joint.moving_labels, "moving segmentation")
        result.warpedSegmentation = add_tumor(joint.warped_labels, "moving segmentation on fixed")
        result.transform = add_transform(joint.moving_to_fixed, "moving to fixed")
        for modality, image in joint.warped.items():
            result.warped[modality] = _warped_volume(image, f"{TITLES[modality]} warped", sources[modality])
        result.carried = [add() for add in carried]
        result.jacobian = _add_image(joint.jacobian, "Jacobian determinant")
        window = (1 - JACOBIAN_REACH, 1 + JACOBIAN_REACH)
        display.show_map(result.jacobian, "", "diverging", window)
        for which, image in (("fixed", joint.fixed_uncertainty), ("moving", joint.moving_uncertainty)):
            if image is not None:
                result.uncertainty[which] = _add_image(image, f"{which} uncertainty")
                display.show_map(result.uncertainty[which], "", "inferno", (0.0, 1.0))
        if joint.volumes:
            result.volumes = add_table(volume_columns(joint), "volumes")
            result.changes = add_table(change_columns(joint), "changes")
        result.warnings = list(joint.warnings)
        result.report = dict(joint.summary)
        result.folderItemID = hierarchy.make_folder(folder)
        hierarchy.put(result.nodes, result.folderItemID)
        return result


def add_tumor(labels: sitk.Image | None, name: str) -> Any:
    """Segmentation node of classes: a segment for each compartment, empty ones too; None for None."""
    if labels is None:
        return None
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(labels)
    masks = {compartment.name: voxels == number for number, compartment in COMPARTMENTS.items()}
    node = add_segmentation(masks, Geometry.from_sitk(labels), name)
    style_tumor(node)
    return node


def style_tumor(node: Any) -> None:
    """Colours and terminology of the compartments, by the names of the segments."""
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
    """Transform node of a map from points of the fixed to points of the moving space (LPS mm).

    Slicer applies the opposite direction to nodes, as it does with transform files of ITK: what is put under the node
    moves from the moving to the fixed space.
    """
    import slicer

    with tempfile.TemporaryDirectory(prefix="neurocest-") as folder:
        # Slicer's own reader, so that the node is what a user gets who loads the file
        path = Path(folder) / "transform.h5"
        write_transform(transform, path)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
        storage = slicer.vtkMRMLTransformStorageNode()
        storage.SetScene(slicer.mrmlScene)
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            raise RuntimeError("Slicer's reader refused the transform between the studies")
    # as ITK and the warped images have it; Slicer's own choice, cubic, differs between the points of a rough field
    for part in (node.GetTransformToParent(), node.GetTransformFromParent()):
        for number in range(part.GetNumberOfConcatenatedTransforms() if part.IsA("vtkGeneralTransform") else 0):
            grid = part.GetConcatenatedTransform(number)
            if grid.IsA("vtkGridTransform"):
                grid.SetInterpolationModeToLinear()
    return node


def write_transform(transform: sitk.Transform, path: Path) -> None:
    """Write a transform (.h5), whole or not at all."""
    import SimpleITK as sitk

    from NeuroCESTLib.core.whole_files import whole_file

    with whole_file(path) as temporary:
        sitk.WriteTransform(transform, str(temporary))


def volume_columns(joint: JointResult) -> dict[str, list]:
    """Volumes as columns: study, region, ml and interval (empty interval: NaN)."""
    rows = joint.volumes
    return {
        "study": [row.study for row in rows],
        "region": [row.region for row in rows],
        "volume_ml": [row.volume_ml for row in rows],
        "low_ml": [_number(row.low_ml) for row in rows],
        "high_ml": [_number(row.high_ml) for row in rows],
    }


def change_columns(joint: JointResult) -> dict[str, list]:
    """Changes from the fixed to the moving study as columns; what is not known is NaN."""
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
        **{name: [_number(getattr(row, name)) for row in rows] for name in names},
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _add_image(image: sitk.Image, name: str) -> Any:
    import SimpleITK as sitk

    return add_volume(sitk.GetArrayFromImage(image), Geometry.from_sitk(image), name)


def _warped_volume(image: sitk.Image, name: str, source: Any) -> Any:
    """Volume node shown in the window of the image that it was warped from."""
    import slicer

    node = _add_image(image, name)
    shown = source.GetScalarVolumeDisplayNode() if source is not None else None
    grey = slicer.mrmlScene.GetNodeByID("vtkMRMLColorTableNodeGrey")
    node.CreateDefaultDisplayNodes()
    if grey is not None:
        node.GetScalarVolumeDisplayNode().SetAndObserveColorNodeID(grey.GetID())
    low, high = display.robust_window(slicer.util.arrayFromVolume(node)[::2, ::2, ::2], (1.0, 99.5))
    if shown is not None and not shown.GetAutoWindowLevel():
        low, high = shown.GetWindowLevelMin(), shown.GetWindowLevelMax()
    if np.isfinite([low, high]).all() and high > low:
        display.set_window(node, low, high)
    return node
