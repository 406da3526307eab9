"""Further images and segmentations of the moving visit, such as CEST maps, brought onto the fixed study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene import display
from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.segmentations import add_segmentation, copy_segment_styles, grid_holding, grid_of, masks_on
from NeuroCESTLib.scene.volumes import add_volume, volume_array

from ..images.modalities import TITLES
from ..images.study import StudyImages, check_axes
from ..inference.coregistration import image_of_grid
from .study import image_of

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..findings.result import JointResult


_LEAST_LOST_ML = 0.05
"""Smallest volume beyond the fixed image that is told."""
_MOST_LABELS = 300
"""Number of distinct values above which a volume is no label map; brain parcellations have some 200."""
_FEW_LABELS = 16
"""Number of distinct values up to which whole numbers are labels, however small their patches are."""
_LEAST_EQUAL = 0.6
"""Share of equal neighbours inside the labels above which a volume is a label map."""


def require_carryable(node: Any) -> None:
    """Check that a node can be brought onto the fixed study.

    Raises:
        ValueError: The node is neither an image nor a segmentation, is empty or skewed, or is under a transform that
            is not linear.
    """
    if not (node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLScalarVolumeNode")):
        raise ValueError(
            f"{called(node)} is neither an image nor a segmentation, so it cannot be carried along: choose a "
            "volume, label map or segmentation"
        )
    world_transform(node)
    if node.IsA("vtkMRMLSegmentationNode"):
        if not node.GetSegmentation().GetNumberOfSegments():
            raise ValueError(f"{called(node)} has no segment: draw one, or do not carry it along")
        return
    volume_array(node)  # its messages tell what is wrong
    check_axes(Geometry.of(node).direction, called(node))


def holds_labels(node: Any) -> bool:
    """Return whether a node is a label map, or a volume that holds labels: few whole numbers in large patches.

    The intensities of an image change from voxel to voxel even where they are whole numbers. A volume with a unit or
    with negative values is a map.
    """
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return True
    if not node.IsA("vtkMRMLScalarVolumeNode") or display.unit_of(node):
        return False
    voxels = volume_array(node)
    if not voxels.size or float(voxels.min()) < 0:
        return False
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        return False
    values, counts = np.unique(voxels, return_counts=True)
    if len(values) > _MOST_LABELS or len(values) <= _FEW_LABELS:
        return len(values) <= _FEW_LABELS
    background = values[counts.argmax()]
    equal = pairs = 0
    for axis in range(3):
        first, second = (np.moveaxis(voxels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        inside = (first != background) | (second != background)
        pairs += int(inside.sum())
        equal += int((inside & (first == second)).sum())
    return pairs > 0 and equal > _LEAST_EQUAL * pairs


def carrying_transforms(
    node: Any, given: StudyImages, joint: JointResult
) -> tuple[sitk.Transform, sitk.Transform, list[str]]:
    """Return the transforms with which a node of the moving visit is brought onto the fixed study.

    A node on the grid of an image that was aligned within its visit is moved with it. One on the grid of no image may
    belong to any of them: it stays with the reference, which is told.

    Args:
        node: Volume, label map or segmentation.
        given: The moving visit as it was given.
        joint: Results of the pair.

    Returns:
        Map of points of the fixed space to points of the node, its inverse (LPS mm), and sentences for the user.
    """
    import SimpleITK as sitk

    forth, back, positions = joint.moving_to_fixed, joint.fixed_to_moving, joint.positions.get("moving", {})
    if not positions:
        return forth, back, []
    moved = joint.positioned["moving"]
    grid = _own_grid(node)
    modality = None if grid is None else image_of_grid(grid.to_sitk(np.zeros(grid.shape, np.uint8)), given, moved)
    if modality is not None and (position := positions.get(modality)) is not None:
        both = sitk.CompositeTransform([position, forth]), sitk.CompositeTransform([back, position.GetInverse()])
        return *both, []
    if modality is not None:
        return forth, back, []
    reference = TITLES[moved.reference_modality]
    images = " and ".join(TITLES[name] for name in positions)
    files = " or ".join(f"moving_{name}_position.tfm" for name in positions)
    return (
        forth,
        back,
        [
            f"{called(node)} is taken to lie with the {reference} image of the moving study, with which {images} had "
            f"to be aligned: if it was acquired in the position of {images}, move it first by the inverse of {files}"
        ],
    )


def _own_grid(node: Any) -> Geometry | None:
    if not node.IsA("vtkMRMLSegmentationNode"):
        return Geometry.of(node)
    try:
        return grid_of(node)
    except ValueError:  # it was made without an image
        return None


def lost_beyond(node: Any, back: sitk.Transform, fixed: sitk.Image, moving: sitk.Image) -> list[str]:
    """Return a sentence where a part of a segmentation or label map lies beyond the fixed image.

    Args:
        node: Segmentation, or volume of labels.
        back: Maps points of the node to points of the fixed space (LPS mm).
        fixed: Image onto whose grid it is brought.
        moving: Image of the moving study, whose grid serves a segmentation without its own.
    """
    if node.IsA("vtkMRMLSegmentationNode"):
        grid = grid_holding(node, Geometry.from_sitk(moving))
        filled = np.any(list(masks_on(node, grid).values()), axis=0)
    else:
        grid, filled = Geometry.of(node), volume_array(node) != 0
    shown = Geometry.from_sitk(fixed)
    everywhere = shown.to_sitk(np.ones(shown.shape, np.uint8))
    seen = _resampled(everywhere, grid.to_sitk(filled.astype(np.uint8)), back, linear=False) > 0
    lost_ml = float((filled & ~seen).sum()) * grid.voxel_volume_mm3 / 1000
    if lost_ml < _LEAST_LOST_ML:
        return []
    whole_ml = float(filled.sum()) * grid.voxel_volume_mm3 / 1000
    return [
        f"{called(node)} reaches beyond the fixed image: {lost_ml:.1f} of its {whole_ml:.1f} ml are not in its copy on "
        "the fixed study"
    ]


def carried_along(
    node: Any, transform: sitk.Transform, fixed: sitk.Image, moving: sitk.Image, labels: bool = False
) -> Callable[[], Any]:
    """Resample a node of the moving visit onto the fixed study.

    Volumes are interpolated linearly and labels by the nearest voxel. The segments of a segmentation are sampled on
    its own grid and interpolated linearly; a voxel belongs to a segment that fills more than half of it.

    Args:
        node: Volume, label map or segmentation.
        transform: Maps points of the fixed space to points of the node (LPS mm).
        fixed: Image whose grid the result has.
        moving: Image of the moving study, whose grid serves a segmentation without its own.
        labels: Whether the node holds labels, see ``holds_labels``.

    Returns:
        A function that adds the resampled node to the scene and returns it. Voxels outside of the field of view are NaN
        in volumes and 0 in labels.
    """
    name, geometry = f"{node.GetName()} on fixed", Geometry.from_sitk(fixed)
    if node.IsA("vtkMRMLSegmentationNode"):
        from ..images.preprocessing.resampling import nudged

        grid = grid_holding(node, Geometry.from_sitk(moving))
        masks = {
            segment: _resampled(nudged(grid.to_sitk(mask.astype(np.float32))), fixed, transform) > 0.5
            for segment, mask in masks_on(node, grid).items()
        }
        return lambda: _add_segmentation(masks, geometry, name, node)
    voxels = volume_array(node)
    if not labels:
        voxels = voxels.astype(np.result_type(voxels.dtype, np.float32))
    array = _resampled(image_of(node, voxels), fixed, transform, linear=not labels)
    return lambda: _add_volume(array, geometry, name, node, node.IsA("vtkMRMLLabelMapVolumeNode"))


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
