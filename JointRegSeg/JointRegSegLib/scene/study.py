"""A visit in the scene as images in world coordinates: volumes, brain mask and tumour, wherever their nodes lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import masks_on
from NeuroCESTLib.scene.volumes import volume_array

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..images.study import StudyImages

# Words of segment names by class: our own names first, then those of BraTS and of common tools.
_WORDS = {
    1: ("necrotic", "necrosis", "ncr", "net", "nonenhancing", "core"),
    2: ("oedema", "edema", "ed", "flair", "snfh"),
    3: ("enhancing", "enhancement", "et"),
}


def study_of(nodes: Mapping[str, Any] | Sequence[Any], mask: Any, tumor: Any, name: str) -> tuple[StudyImages, dict]:
    """Images of a study and their nodes by modality.

    nodes: volume nodes by modality (synonyms such as 't1gd' too), or a list in the order T1, T1ce, T2, FLAIR; None for
    what is missing. mask: brain, tumor: segmentation or label map with the classes, or None. Linear parent transforms
    are applied.

    Raises:
        ValueError: one sentence that names the node.
    """
    from ..images.study import BRAIN_MASK, TUMOR, StudyImages, input_title

    chosen = _by_modality(nodes, name)
    given = {**chosen, BRAIN_MASK: mask, TUMOR: tumor}
    sources = {what: node.GetName() for what, node in given.items() if node is not None}
    titles = {what: input_title(what, name, source) for what, source in sources.items()}
    images = {modality: image_of(node, title=titles[modality]) for modality, node in chosen.items()}
    grid = Geometry.of(next(iter(chosen.values())))
    brain = None if mask is None else _mask_image(mask, grid, titles[BRAIN_MASK])
    labels = None if tumor is None else _tumor_image(tumor, grid, titles[TUMOR], f"{TUMOR} of the {name} study")
    return StudyImages(images, brain, labels, name, sources), chosen


def image_of(node: Any, array: np.ndarray | None = None, title: str | None = None) -> sitk.Image:
    """Image (LPS mm, world coordinates) of a volume node.

    array: instead of the node's voxels. title: what messages call it, instead of the node's name.

    Raises:
        ValueError: no image, several numbers a voxel, or a parent transform that is not linear.
    """
    geometry = Geometry.of(node)
    voxels = volume_array(node) if array is None else array
    return _sitk(voxels, geometry, title or f"'{node.GetName()}'")


def _sitk(voxels: np.ndarray, geometry: Geometry, title: str) -> sitk.Image:
    from ..images.study import check_axes

    check_axes(geometry.direction, title)
    return geometry.to_sitk(np.ascontiguousarray(voxels))


def _by_modality(nodes: Mapping[str, Any] | Sequence[Any], name: str) -> dict[str, Any]:
    from ..images.modalities import MODALITIES, TITLES, modality

    if isinstance(nodes, Mapping):
        given: dict[str, Any] = {}
        for key, node in nodes.items():
            if modality(key) in given:
                raise ValueError(f"the {name} study has two images for {TITLES[modality(key)]}")
            given[modality(key)] = node
    else:
        nodes = list(nodes)
        if len(nodes) > len(MODALITIES):
            raise ValueError(
                f"the {name} study has {len(nodes)} images; give at most {len(MODALITIES)}: "
                f"{', '.join(TITLES[m] for m in MODALITIES)}"
            )
        given = dict(zip(MODALITIES, nodes, strict=False))
    chosen = {m: given[m] for m in MODALITIES if given.get(m) is not None}
    if not chosen:
        raise ValueError(
            f"the {name} study has no image: choose at least one of {', '.join(TITLES[m] for m in MODALITIES)}"
        )
    for (m, node), (other, same) in combinations(chosen.items(), 2):
        if same.GetID() == node.GetID():
            both = f"{TITLES[m]} and for {TITLES[other]}"
            raise ValueError(f"'{node.GetName()}' is given for {both} of the {name} study: give it for one of them")
    for node in chosen.values():
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            raise ValueError(f"'{node.GetName()}' is no scalar volume: the {name} study needs 3-D images")
    return chosen


def _mask_image(node: Any, grid: Geometry, title: str) -> sitk.Image:
    """Mask (uint8) on its own grid; the segments of a segmentation together on ``grid``."""
    from ..images.study import empty_mask

    if node.IsA("vtkMRMLSegmentationNode"):
        _require_linear(node)
        voxels = np.zeros(grid.shape, bool)
        for mask in masks_on(node, grid).values():
            voxels |= mask
        image = grid.to_sitk(voxels.astype(np.uint8))
    else:
        array = volume_array(node)
        voxels = np.isfinite(array) & (array != 0)
        image = _sitk(voxels.astype(np.uint8), Geometry.of(node), title)
    if not voxels.any():
        raise ValueError(empty_mask(title))
    return image


def _tumor_image(node: Any, grid: Geometry, title: str, role: str) -> sitk.Image:
    """Classes (uint8) of a tumour segmentation: a label map on its own grid, a segmentation node on ``grid``."""
    from ..images.labels import to_classes

    if not node.IsA("vtkMRMLSegmentationNode"):
        try:
            classes = to_classes(volume_array(node), node.GetName())
        except ValueError as error:
            raise ValueError(f"{role}: {error}") from None
        return _sitk(classes, Geometry.of(node), title)
    _require_linear(node)
    labels = np.zeros(grid.shape, np.uint8)
    masks = masks_on(node, grid)
    classes = {name: class_of_segment(name) for name in masks}
    unknown = [name for name, number in classes.items() if number is None]
    if unknown:
        raise ValueError(
            f"{role}: the segment '{unknown[0]}' of '{node.GetName()}' is no known compartment: call the segments "
            "'Necrotic core', 'Oedema' and 'Enhancing tumour', and remove others"
        )
    for name, mask in masks.items():
        labels[mask & (labels < classes[name])] = classes[name]  # where segments overlap, the more specific one
    return grid.to_sitk(labels)


def class_of_segment(name: str) -> int | None:
    """Class 1 to 3 that the name of a segment tells, such as 'Oedema' or 'ET'; None where it does not."""
    words = re.findall(r"[a-z]+", name.lower().replace("non-enhancing", "nonenhancing"))
    for number, known in _WORDS.items():
        if any(word in known for word in words):
            return number
    return None


def _require_linear(node: Any) -> None:
    from NeuroCESTLib.scene.geometry import world_transform

    world_transform(node)
