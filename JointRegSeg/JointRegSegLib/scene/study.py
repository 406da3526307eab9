"""A visit read from the scene: volumes, brain mask and tumour segmentation as images in world coordinates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry, world_transform
from NeuroCESTLib.scene.segmentations import masks_on
from NeuroCESTLib.scene.volumes import volume_array

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..images.study import StudyImages

_WORDS = {
    1: ("necrotic", "necrosis", "ncr", "net", "nonenhancing", "core"),
    2: ("oedema", "edema", "ed", "flair", "snfh"),
    3: ("enhancing", "enhancement", "et"),
}
"""Words in the names of segments by class: first those that this module writes, then those of BraTS and other tools."""


def study_of(
    nodes: Mapping[str, Any] | Sequence[Any], mask: Any, tumor: Any, name: str
) -> tuple[StudyImages, dict[str, Any]]:
    """Read a study from its nodes.

    Args:
        nodes: Volume nodes by modality (synonyms such as 't1gd' are known), or a list in the order T1, T1ce, T2, FLAIR
            with None for each modality that is missing. Linear parent transforms are applied.
        mask: Node of the brain mask, or None.
        tumor: Segmentation or label map with the tumour classes, or None.
        name: Name of the study in messages.

    Returns:
        The images of the study, and its volume nodes by modality.

    Raises:
        ValueError: A node cannot be used; one sentence that names it.
    """
    from ..images.study import BRAIN_MASK, TUMOR, StudyImages, input_title

    chosen = _by_modality(nodes, name)
    given = {**chosen, BRAIN_MASK: mask, TUMOR: tumor}
    sources = {role: node.GetName() for role, node in given.items() if node is not None}
    titles = {role: input_title(role, name, source) for role, source in sources.items()}
    images = {modality: image_of(node, title=titles[modality]) for modality, node in chosen.items()}
    grid = Geometry.of(next(iter(chosen.values())))
    brain = None if mask is None else _mask_image(mask, grid, titles[BRAIN_MASK])
    labels = None if tumor is None else _tumor_image(tumor, grid, titles[TUMOR], f"{TUMOR} of the {name} study")
    return StudyImages(images, brain, labels, name, sources), chosen


def image_of(node: Any, array: np.ndarray | None = None, title: str | None = None) -> sitk.Image:
    """Convert a volume node to an image in world coordinates (LPS mm).

    Args:
        node: Volume node.
        array: Voxels (K, J, I) to use instead of those of the node.
        title: Name of the image in messages; None for the name of the node.

    Raises:
        ValueError: The node has no image or several values per voxel, is under a transform that is not linear, or its
            axes are not perpendicular.
    """
    geometry = Geometry.of(node)
    voxels = volume_array(node) if array is None else array
    return _sitk_image(voxels, geometry, title or f"'{node.GetName()}'")


def _sitk_image(voxels: np.ndarray, geometry: Geometry, title: str) -> sitk.Image:
    from ..images.study import check_axes

    check_axes(geometry.direction, title)
    return geometry.to_sitk(np.ascontiguousarray(voxels))


def _by_modality(nodes: Mapping[str, Any] | Sequence[Any], name: str) -> dict[str, Any]:
    """Volume nodes by modality, in the order of ``MODALITIES``."""
    from ..images.modalities import MODALITIES, TITLES, modality

    if isinstance(nodes, Mapping):
        given: dict[str, Any] = {}
        for key, node in nodes.items():
            if modality(key) in given:
                raise ValueError(
                    f"the {name} study has two images for {TITLES[modality(key)]}: give one image per modality"
                )
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
    for (first, node), (second, other) in combinations(chosen.items(), 2):
        if node.GetID() == other.GetID():
            raise ValueError(
                f"'{node.GetName()}' is given for {TITLES[first]} and for {TITLES[second]} of the {name} study: give "
                "it for one of them"
            )
    for node in chosen.values():
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            raise ValueError(f"'{node.GetName()}' is not a scalar volume: the {name} study needs 3-D images")
    return chosen


def _mask_image(node: Any, grid: Geometry, title: str) -> sitk.Image:
    """Brain mask (uint8) on its own grid; that of a segmentation is the union of its segments on ``grid``."""
    from ..images.study import empty_mask

    if node.IsA("vtkMRMLSegmentationNode"):
        world_transform(node)  # refuses transforms that are not linear
        voxels = np.zeros(grid.shape, bool)
        for mask in masks_on(node, grid).values():
            voxels |= mask
        image = grid.to_sitk(voxels.astype(np.uint8))
    else:
        array = volume_array(node)
        voxels = np.isfinite(array) & (array != 0)
        image = _sitk_image(voxels.astype(np.uint8), Geometry.of(node), title)
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
        return _sitk_image(classes, Geometry.of(node), title)
    world_transform(node)  # refuses transforms that are not linear
    labels = np.zeros(grid.shape, np.uint8)
    for name, mask in masks_on(node, grid).items():
        number = class_of_segment(name)
        if number is None:
            raise ValueError(
                f"{role}: the segment '{name}' of '{node.GetName()}' is not a known compartment: call the segments "
                "'Necrotic core', 'Oedema' and 'Enhancing tumour', and remove others"
            )
        labels[mask & (labels < number)] = number  # where segments overlap, the higher class wins
    return grid.to_sitk(labels)


def class_of_segment(name: str) -> int | None:
    """Return the class, 1 to 3, that a segment's name such as 'Oedema' or 'ET' stands for; None if it is unknown."""
    words = re.findall(r"[a-z]+", name.lower().replace("non-enhancing", "nonenhancing"))
    for number, known in _WORDS.items():
        if any(word in known for word in words):
            return number
    return None
