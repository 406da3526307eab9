"""Further images and segmentations of the moving visit, such as CEST maps, brought onto the fixed study."""

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
    """Check that a node can be brought onto the fixed study.

    Raises:
        ValueError: The node is neither an image nor a segmentation, or is under a transform that is not linear.
    """
    if not (node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLScalarVolumeNode")):
        raise ValueError(
            f"'{node.GetName()}' is neither an image nor a segmentation, so it cannot be carried along: choose a "
            "volume, label map or segmentation"
        )
    world_transform(node)


def carried_along(node: Any, transform: sitk.Transform, fixed: sitk.Image, moving: sitk.Image) -> Callable[[], Any]:
    """Resample a node of the moving visit onto the fixed study.

    Volumes are interpolated linearly and label maps by the nearest voxel. The segments of a segmentation are sampled on
    the grid of ``moving`` and interpolated linearly; a voxel belongs to a segment that fills at least half of it.

    Args:
        node: Volume, label map or segmentation.
        transform: Maps points of the fixed space to points of the moving space (LPS mm).
        fixed: Image whose grid the result has.
        moving: Image of the moving study.

    Returns:
        A function that adds the resampled node to the scene and returns it. Voxels outside of the field of view are NaN
        in volumes and 0 in label maps.
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

    interpolator = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    floating = image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
    outside = float("nan") if floating and linear else 0.0
    return sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, interpolator, outside))


def _add_volume(array: np.ndarray, geometry: Geometry, name: str, source: Any, label: bool) -> Any:
    """Add a volume node with the unit, colours and window of its source."""
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
    """Add a segmentation node with the colours and terminology of its source."""
    node = add_segmentation(masks, geometry, name)
    copy_segment_styles(source, node)
    return node
