"""Other images and segmentations of the moving visit, such as CEST maps, brought onto the fixed study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene import display
from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.segmentations import add_segmentation, copy_segment_styles, masks_on
from NeuroCESTLib.scene.volumes import add_volume, volume_array

from .study import image_of

if TYPE_CHECKING:
    import SimpleITK as sitk


def require_carryable(node: Any) -> None:
    """ValueError where a node is neither image nor segmentation, or under a transform that is not linear."""
    if not (node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLScalarVolumeNode")):
        raise ValueError(f"'{node.GetName()}' is neither image nor segmentation, so it cannot be carried along")
    world_transform(node)


def carried_along(node: Any, transform: sitk.Transform, fixed: sitk.Image, moving: sitk.Image) -> Callable[[], Any]:
    """What adds the node's counterpart on the grid of ``fixed`` to the scene.

    Volumes are interpolated linearly (NaN outside), label maps at the nearest voxel; of segmentations each segment is
    sampled on the grid of ``moving`` and keeps at least half a voxel. transform: points of fixed to points of moving.
    """
    name, geometry = f"{node.GetName()} on fixed", Geometry.from_sitk(fixed)
    if node.IsA("vtkMRMLSegmentationNode"):
        grid = Geometry.from_sitk(moving)
        masks = {
            segment: _resampled(grid.to_sitk(mask.astype(np.float32)), fixed, transform) >= 0.5
            for segment, mask in masks_on(node, grid).items()
        }
        return lambda: _add_segmentation(masks, geometry, name, node)
    label = node.IsA("vtkMRMLLabelMapVolumeNode")
    voxels = volume_array(node)
    if not label:
        voxels = voxels.astype(np.result_type(voxels.dtype, np.float32))
    array = _resampled(image_of(node, voxels), fixed, transform, linear=not label)
    return lambda: _add_volume(array, geometry, name, node, label)


def _resampled(image: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, linear: bool = True) -> np.ndarray:
    import SimpleITK as sitk

    method = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    real = image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
    outside = float("nan") if real and linear else 0.0
    return sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, method, outside))


def _add_volume(array: np.ndarray, geometry: Geometry, name: str, source: Any, label: bool) -> Any:
    """Volume node with unit, colours and window of its source."""
    node = add_volume(array, geometry, name, label)
    shown = source.GetDisplayNode()
    if label or shown is None:
        return node
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAndObserveColorNodeID(shown.GetColorNodeID())
    display.set_window(node, shown.GetWindowLevelMin(), shown.GetWindowLevelMax())
    if source.GetAttribute(display.UNIT_ATTRIBUTE) is not None:
        display.set_unit(node, display.unit_of(source))
    return node


def _add_segmentation(masks: dict[str, np.ndarray], geometry: Geometry, name: str, source: Any) -> Any:
    """Segmentation node with colours and terminology of its source."""
    node = add_segmentation(masks, geometry, name)
    copy_segment_styles(source, node)
    return node
