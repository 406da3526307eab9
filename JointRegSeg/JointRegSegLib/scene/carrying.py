"""Further images and segmentations of the moving visit, such as CEST maps, brought onto the fixed study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.whole_files import keep_words
from NeuroCESTLib.scene import display
from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.messages import called, check_node
from NeuroCESTLib.scene.segmentations import (
    SegmentStyle,
    add_segmentation,
    grid_holding,
    grid_of,
    masks_on,
    segment_styles,
    set_segment_styles,
)
from NeuroCESTLib.scene.volumes import add_volume, volume_array

from ..images.modalities import TITLES
from ..images.study import TUMOR, StudyImages, check_axes, overlap
from ..inference.coregistration import image_of_grid, mask_doubts
from .files import position_file
from .results import position_name

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..findings.result import JointResult


MAP = "map"
"""What is carried along besides labels."""
_LEAST_LOST_ML = 0.05
"""Smallest volume beyond the fixed image that is told."""
_LEAST_SHARE = 0.01
"""Share of the fixed brain below which a map that loses most of its values is told; a single slice has more."""
_FEW_LABELS = 16
"""Number of distinct values up to which whole numbers from 0 are labels, however small their patches are."""
_LEAST_EQUAL = 0.6
"""Share of equal neighbours inside the labels above which a volume is a label map."""


@dataclass(frozen=True)
class NodeToCarry:
    """A node of the moving visit as it was when a run began, in which it may be changed or removed.

    Attributes:
        node: Volume, label map or segmentation.
        title: Its name in messages.
        name: Its name.
        own_grid: Voxel grid that it has or on which it was made, in world coordinates; None for a segmentation that was
            made without an image.
        grid: Voxel grid of ``voxels`` and ``masks``, which holds all segments.
        labels: Whether it is a label map, or a volume that holds labels, see ``holds_labels``.
        voxels: Voxels (K, J, I) of a volume; None for a segmentation.
        masks: Voxels of each segment by its name.
        styles: Colours and terminology of the segments.
    """

    node: Any
    title: str
    name: str
    own_grid: Geometry | None
    grid: Geometry
    labels: bool = False
    voxels: np.ndarray | None = None
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    styles: Sequence[SegmentStyle] = ()

    @property
    def background(self) -> float:
        """Number of the voxels without a label: 0, or the most frequent one of a volume with negative numbers."""
        if self.voxels is None or not (self.voxels < 0).any():
            return 0.0
        values, counts = np.unique(self.voxels, return_counts=True)
        return float(values[counts.argmax()])


def node_to_carry(node: Any, otherwise: Geometry) -> NodeToCarry:
    """Read a node that is to be brought onto the fixed study.

    Args:
        node: Volume, label map or segmentation.
        otherwise: Grid that serves a segmentation without its own.

    Raises:
        ValueError: The node is neither an image nor a segmentation, is empty or skewed, or is under a transform that
            is not linear.
    """
    check_node(node)
    title = called(node)
    if not (node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLScalarVolumeNode")):
        raise ValueError(
            f"{title} is neither an image nor a segmentation, so it cannot be carried along: choose a "
            "volume, label map or segmentation"
        )
    world_transform(node)
    if node.IsA("vtkMRMLSegmentationNode"):
        if not node.GetSegmentation().GetNumberOfSegments():
            raise ValueError(f"{title} has no segment: draw one, or do not carry it along")
        grid = grid_holding(node, otherwise)
        masks, styles = masks_on(node, grid), segment_styles(node)
        return NodeToCarry(node, title, node.GetName(), _own_grid(node), grid, masks=masks, styles=styles)
    voxels = volume_array(node).copy()  # its messages tell what is wrong
    grid = Geometry.of(node)
    check_axes(grid.direction, title)
    return NodeToCarry(node, title, node.GetName(), grid, grid, holds_labels(node), voxels)


def check_place(carried: NodeToCarry, moving: StudyImages) -> None:
    """Check that an image to carry along lies where the moving visit does; segmentations are told by `lost_beyond`.

    Raises:
        ValueError: It lies elsewhere in space; the message names it.
    """
    if carried.voxels is None:
        return
    box = carried.grid.to_sitk(np.zeros(carried.grid.shape, np.uint8))
    if not any(overlap(image, box) for image in moving.images.values()):
        raise ValueError(
            f"{carried.title} lies elsewhere in space than the images of the {moving.name} study: choose an image of "
            "that visit, or correct its position"
        )


def holds_labels(node: Any) -> bool:
    """Return whether a node is a label map, or a volume that holds labels: few whole numbers, or any in large patches.

    The intensities of an image change from voxel to voxel even where they are whole numbers. A volume with a unit is a
    map. So are few whole numbers with negative ones among them, such as APTw in whole percent, unless they lie in large
    patches.
    """
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return True
    if not node.IsA("vtkMRMLScalarVolumeNode") or display.unit_of(node):
        return False
    voxels = volume_array(node)
    if voxels.dtype.kind == "f" and not (np.isfinite(voxels).all() and (voxels == np.rint(voxels)).all()):
        return False
    values, counts = np.unique(voxels, return_counts=True)
    if len(values) <= _FEW_LABELS and (voxels >= 0).all():
        return len(values) > 0
    background = values[counts.argmax()]
    equal = pairs = 0
    for axis in range(3):
        first, second = (np.moveaxis(voxels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        inside = (first != background) | (second != background)
        pairs += int(inside.sum())
        equal += int((inside & (first == second)).sum())
    return pairs > 0 and equal > _LEAST_EQUAL * pairs


def carrying_transforms(
    carried: NodeToCarry, given: StudyImages, joint: JointResult
) -> tuple[sitk.Transform, sitk.Transform, list[str]]:
    """Return the transforms with which a node of the moving visit is brought onto the fixed study.

    A node on the grid of an image that was aligned within its visit is moved with it. Where the images of that grid lay
    apart, labels are moved as the tumour is, see ``image_of_grid``, and a map with the first of them. A node on
    the grid of no image may belong to any of them, and stays with the reference. Both are told.

    Args:
        carried: The node.
        given: The moving visit as it was given.
        joint: Results of the pair.

    Returns:
        Map of points of the fixed space to points of the node, its inverse (LPS mm), and sentences for the user.
    """
    import SimpleITK as sitk

    forth, back, positions = joint.moving_to_fixed, joint.fixed_to_moving, joint.positions.get("moving", {})
    if not positions:
        return forth, back, []
    moved, grid = joint.positioned["moving"], carried.own_grid
    image = None if grid is None else grid.to_sitk(np.zeros(grid.shape, np.uint8))
    what = TUMOR if carried.labels or carried.voxels is None else MAP
    modality = None if image is None else image_of_grid(image, given, moved, what)
    if image is None or modality is None:
        return forth, back, [_of_no_image(carried, TITLES[moved.reference_modality], list(positions))]
    doubts = mask_doubts(image, what, given, moved, carried.title)
    if (position := positions.get(modality)) is None:
        return forth, back, doubts
    both = sitk.CompositeTransform([position, forth]), sitk.CompositeTransform([back, position.GetInverse()])
    return *both, doubts


def _of_no_image(carried: NodeToCarry, reference: str, moved: Sequence[str]) -> str:
    """Sentence about a node on the grid of no image, where images of the visit were moved."""
    images = " and ".join(TITLES[name] for name in moved)
    nodes = " or ".join(f"'{position_name('moving', name)}'" for name in moved)
    written = [position_file(name, "moving") for name in moved]
    keep_words(*written)
    files = " or ".join(written)
    return (
        f"{carried.title} is taken to lie with the {reference} image of the moving study, with which {images} had "
        f"to be aligned: if it was acquired in the position of {images}, put it first under the transform {nodes} of "
        f"the scene, or resample its file with {files}"
    )


def _own_grid(node: Any) -> Geometry | None:
    try:
        return grid_of(node)
    except ValueError:  # it was made without an image
        return None


def lost_beyond(carried: NodeToCarry, back: sitk.Transform, fixed: sitk.Image) -> list[str]:
    """Return a sentence where a part of a segmentation or label map lies beyond the fixed image.

    Args:
        carried: Segmentation, or volume of labels.
        back: Maps points of the node to points of the fixed space (LPS mm).
        fixed: Image onto whose grid it is brought.
    """
    grid = carried.grid
    filled = (
        np.any(list(carried.masks.values()), axis=0) if carried.voxels is None else carried.voxels != carried.background
    )
    shown = Geometry.from_sitk(fixed)
    everywhere = shown.to_sitk(np.ones(shown.shape, np.uint8))
    seen = _resampled(everywhere, grid.to_sitk(filled.astype(np.uint8)), back, linear=False) > 0
    lost_ml = float((filled & ~seen).sum()) * grid.voxel_volume_mm3 / 1000
    if lost_ml < _LEAST_LOST_ML:
        return []
    whole_ml = float(filled.sum()) * grid.voxel_volume_mm3 / 1000
    return [
        f"{carried.title} reaches beyond the fixed image: {lost_ml:.1f} of its {whole_ml:.1f} ml are not in its copy "
        "on the fixed study"
    ]


def absent_from_brain(carried: NodeToCarry, transform: sitk.Transform, brain: sitk.Image) -> list[str]:
    """Return a sentence where hardly any value of a map lies in the fixed brain.

    Args:
        carried: Volume that holds no labels.
        transform: Maps points of the fixed space to points of the node (LPS mm).
        brain: Brain of the fixed study.
    """
    import SimpleITK as sitk

    assert carried.voxels is not None
    image = carried.grid.to_sitk(carried.voxels.astype(np.float32))
    values = _resampled(image, brain, transform, outside=float("nan"))
    inside = sitk.GetArrayViewFromImage(brain) != 0
    voxel_ml = float(np.prod(brain.GetSpacing())) / 1000
    known_ml, brain_ml = float((inside & np.isfinite(values)).sum()) * voxel_ml, float(inside.sum()) * voxel_ml
    own_ml = float(np.isfinite(carried.voxels).sum()) * carried.grid.voxel_volume_mm3 / 1000
    if known_ml >= _LEAST_SHARE * brain_ml or known_ml > own_ml / 2:
        return []
    return [
        f"{carried.title} has values in only {known_ml:.1f} of the {brain_ml:.1f} ml of the fixed brain: check that it "
        "belongs to the moving visit, and its position"
    ]


def carried_along(carried: NodeToCarry, transform: sitk.Transform, fixed: sitk.Image) -> Callable[[], Any]:
    """Resample a node of the moving visit onto the fixed study.

    Volumes are interpolated linearly and labels by the nearest voxel. The segments of a segmentation are sampled on
    its own grid and interpolated linearly; a voxel belongs to a segment that fills more than half of it.

    Args:
        carried: The node.
        transform: Maps points of the fixed space to points of the node (LPS mm).
        fixed: Image whose grid the result has.

    Returns:
        A function that adds the resampled node to the scene and returns it. Voxels outside of the field of view are NaN
        in volumes and background in labels.
    """
    name, geometry, node = f"{carried.name} on fixed", Geometry.from_sitk(fixed), carried.node
    if carried.voxels is None:
        from ..images.preprocessing.resampling import nudged

        masks = {
            segment: _resampled(nudged(carried.grid.to_sitk(mask.astype(np.float32))), fixed, transform) > 0.5
            for segment, mask in carried.masks.items()
        }
        return lambda: _add_segmentation(masks, geometry, name, carried.styles)
    voxels = carried.voxels
    if not carried.labels:
        voxels = voxels.astype(np.result_type(voxels.dtype, np.float32))
    background = carried.background if carried.labels else float("nan")
    array = _resampled(carried.grid.to_sitk(voxels), fixed, transform, not carried.labels, background)
    return lambda: _add_volume(array, geometry, name, node, node.IsA("vtkMRMLLabelMapVolumeNode"))


def _resampled(
    image: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, linear: bool = True, outside: float = 0.0
) -> np.ndarray:
    import SimpleITK as sitk

    interpolator = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    return sitk.GetArrayFromImage(sitk.Resample(image, fixed, transform, interpolator, outside))


def _add_volume(array: np.ndarray, geometry: Geometry, name: str, source: Any, label: bool) -> Any:
    """Add a volume node with the unit, colours and window of its source."""
    node = add_volume(array, geometry, name, label)
    if label:
        return node
    if source.GetAttribute(display.UNIT_ATTRIBUTE) is not None:
        display.set_unit(node, display.unit_of(source))
    shown = source.GetDisplayNode()
    if shown is not None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID(shown.GetColorNodeID())
        display.set_window(node, shown.GetWindowLevelMin(), shown.GetWindowLevelMax())
    return node


def _add_segmentation(
    masks: dict[str, np.ndarray], geometry: Geometry, name: str, styles: Sequence[SegmentStyle]
) -> Any:
    """Add a segmentation node with the colours and terminology of its source."""
    node = add_segmentation(masks, geometry, name)
    set_segment_styles(node, styles)
    return node
