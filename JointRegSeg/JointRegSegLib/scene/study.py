"""A visit read from the scene: volumes, brain mask and tumour segmentation as images in world coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.messages import called, check_node
from NeuroCESTLib.scene.segmentations import continued_for, grid_holding, masks_on
from NeuroCESTLib.scene.volumes import array_on, volume_array

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..images.label_maps import LabelReading
    from ..images.study import StudyImages


def study_of(
    nodes: Mapping[str, Any] | Sequence[Any], mask: Any, tumor: Any, name: str, labels: str | None = None
) -> tuple[StudyImages, dict[str, Any]]:
    """Read a study from its nodes.

    Args:
        nodes: Volume nodes by modality (synonyms such as 't1gd' are known), or a list in the order T1, T1ce, T2, FLAIR
            with None for each modality that is missing. Linear parent transforms are applied.
        mask: Node of the brain mask, or None.
        tumor: Segmentation or label map of the tumour, or None.
        name: Name of the study in messages.
        labels: Declared convention of the numbers of a label map, see ``images.label_conventions``; None to recognize
            it. Segmentations are understood by the names of their segments.

    Returns:
        The images of the study, and its volume nodes by modality.

    Raises:
        ValueError: A node cannot be used; one sentence that names it.
    """
    from ..images.study import BRAIN_MASK, TUMOR, StudyImages, input_title

    chosen = _by_modality(nodes, name)
    for node in (mask, tumor):
        if node is not None:
            check_node(node)
    given = {**chosen, BRAIN_MASK: mask, TUMOR: tumor}
    sources = {role: node.GetName() for role, node in given.items() if node is not None}
    titles = {role: input_title(role, name, source) for role, source in sources.items()}
    images = {modality: image_of(node, title=titles[modality]) for modality, node in chosen.items()}
    grid = Geometry.of(next(iter(chosen.values())))
    brain = None if mask is None else _mask_image(mask, grid, titles[BRAIN_MASK])
    study = StudyImages(images, brain, None, name, sources)
    if tumor is None:
        return study, chosen
    read = _tumor_of(tumor, grid, chosen.get("t1ce"), labels, titles[TUMOR], f"{TUMOR} of the {name} study")
    study = replace(study, label_reading=read.reading)
    if read.plain:
        return replace(study, left_out=read.image), chosen
    return replace(study, tumor_labels=read.image), chosen


def misplaced_images(nodes: Mapping[str, Any], name: str) -> list[str]:
    """Return a sentence for each volume whose own name says that it is another image than it is given for.

    Args:
        nodes: Volume nodes by modality.
        name: Name of the study.
    """
    from ..images.modalities import MODALITIES, TITLES, role_of_file

    found = []
    for modality, node in nodes.items():
        for own in _names_of(node):
            role = role_of_file(own) or role_of_file(f"{own}.nii.gz")
            if role is None:
                continue
            if role != modality:
                title = TITLES.get(role, "brain mask" if role == "mask" else "segmentation")
                found.append(
                    f"'{own}' is given as the {TITLES[modality]} of the {name} study, but its name says {title}: check "
                    f"the order {', '.join(TITLES[each] for each in MODALITIES)}"
                )
            break
    return found


def image_of(node: Any, title: str | None = None) -> sitk.Image:
    """Convert a volume node to an image in world coordinates (LPS mm).

    Args:
        node: Volume node.
        title: Name of the image in messages; None for the name of the node.

    Raises:
        ValueError: The node has no image or several values per voxel, is under a transform that is not linear, or its
            axes are not perpendicular.
    """
    return _sitk_image(volume_array(node), Geometry.of(node), title or called(node))


def _sitk_image(voxels: np.ndarray, geometry: Geometry, title: str) -> sitk.Image:
    from ..images.study import check_axes

    check_axes(geometry.direction, title)
    return geometry.to_sitk(np.ascontiguousarray(voxels))


def _by_modality(nodes: Mapping[str, Any] | Sequence[Any], name: str) -> dict[str, Any]:
    """Volume nodes by modality, in the order of ``MODALITIES``."""
    from ..images.modalities import MODALITIES, TITLES, modality

    if isinstance(nodes, str) or hasattr(nodes, "IsA"):
        raise ValueError(
            f"the {name} study is given as one {'name' if isinstance(nodes, str) else 'node'}: give its nodes by "
            "modality, such as {'t1': node}, or as a list in the order " + ", ".join(TITLES[m] for m in MODALITIES)
        )
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
    for node in chosen.values():
        check_node(node)
    for (first, node), (second, other) in combinations(chosen.items(), 2):
        if node.GetID() == other.GetID():
            raise ValueError(
                f"{called(node)} is given for {TITLES[first]} and for {TITLES[second]} of the {name} study: give "
                "it for one of them"
            )
    for node in chosen.values():
        if not node.IsA("vtkMRMLScalarVolumeNode"):
            raise ValueError(f"{called(node)} is not a scalar volume: the {name} study needs 3-D images")
    return chosen


def _mask_image(node: Any, grid: Geometry, title: str) -> sitk.Image:
    """Brain mask on its own grid, to be checked; that of a segmentation (uint8) is the union of its segments."""
    from ..images.study import empty_mask

    if node.IsA("vtkMRMLSegmentationNode"):
        grid = _grid_for(node, grid)
        voxels = np.zeros(grid.shape, bool)
        for mask in masks_on(node, grid).values():
            voxels |= mask
        image = grid.to_sitk(voxels.astype(np.uint8))
    else:
        voxels = volume_array(node)
        image = _sitk_image(voxels, Geometry.of(node), title)
    if not (np.isfinite(voxels) & (voxels != 0)).any():
        raise ValueError(empty_mask(title))
    return image


def _grid_for(node: Any, grid: Geometry) -> Geometry:
    """Grid that holds a segmentation: its own one or, if that is not rectangular or too small for a brain, ``grid``."""
    from ..images.study import SMALLEST_EXTENT_MM, SMALLEST_VOXELS, are_perpendicular

    own = grid_holding(node, grid)
    size = np.array(own.shape[::-1])
    is_small = size.min() < SMALLEST_VOXELS or (size * own.spacing).min() < SMALLEST_EXTENT_MM
    return own if are_perpendicular(own.direction) and not is_small else continued_for(node, grid)


@dataclass(frozen=True)
class _Tumor:
    """A tumour segmentation: classes, or a plain mask, on its own grid."""

    image: sitk.Image
    plain: bool
    reading: LabelReading


def _tumor_of(node: Any, grid: Geometry, t1ce: Any, labels: str | None, title: str, role: str) -> _Tumor:
    """Read a tumour segmentation on its own grid.

    Args:
        node: Label map or segmentation.
        grid: Grid of the study's first image, which serves a segmentation without its own.
        t1ce: Volume node of T1 with contrast agent that may help to recognize the convention, or None.
        labels: Declared convention of the numbers, or None.
        title: Name of the input in messages.
        role: Its role in messages.
    """
    from ..images.label_conventions import declared_convention
    from ..images.label_maps import classes_of_map, classes_of_masks

    named = node.IsA("vtkMRMLSegmentationNode")
    geometry = _grid_for(node, grid) if named else Geometry.of(node)
    convention = None if labels is None else declared_convention(labels)

    def bright() -> np.ndarray | None:
        return None if t1ce is None else array_on(t1ce, geometry)

    try:
        if named:
            read = classes_of_masks(masks_on(node, geometry), node.GetName())
        else:
            read = classes_of_map(volume_array(node), node.GetName(), convention, _names_of(node), bright)
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from None
    return _Tumor(_sitk_image(read.classes, geometry, title), read.plain, read.reading)


def _names_of(node: Any) -> list[str]:
    """Names that may tell the convention of a label map: those of its file and of the node."""
    storage = node.GetStorageNode()
    file = storage.GetFileName() if storage is not None else None
    return [name for name in (file, node.GetName()) if name]
