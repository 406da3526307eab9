"""Visits of a patient in the scene as inputs of an analysis of compartments."""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.headers.library_messages import library_lines_caught
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.output.hidden import temporary_folder
from NeuroCESTLib.scene import volumes
from NeuroCESTLib.scene.geometry import Geometry, matrix_to_world
from NeuroCESTLib.scene.messages import called, comes_from, files_of_nodes
from NeuroCESTLib.scene.segmentations import grid_of, masks_on
from NeuroCESTLib.scene.sequences import sequence_to_array

from ...compartments.anatomy.segment_names import compartment_of, is_background, named_labels
from ...compartments.grid import Grid
from ...compartments.inputs import Acquisition, CestMaps, Image, Masks, VisitInput
from ...methods.registry import quantity_named

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ...methods.base import Settings as MethodSettings
    from ..study import Study


_KIND = re.compile(rb"[A-Za-z0-9]+_(?:double|float)_\d+_\d+")
"""Kind of a transform, as it stands in text, HDF5 and MATLAB files of ITK before its numbers."""
_LONGEST_READING_S = 15
_SLOWEST_READING_BYTES_PER_S = 1_000_000
"""How much processor time a sound transform may take to be read, by its size."""
_LONGEST_WAIT_S = 300.0
"""How long to wait for it on a busy machine."""
_READING = """
import sys
try:
    import resource
except ImportError:  # not on Windows
    pass
else:
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
import SimpleITK
SimpleITK.ReadTransform(sys.argv[1])
"""
"""Program of the process that tries to read a transform."""


@dataclass(frozen=True)
class CompartmentVisit:
    """One visit as nodes of the scene.

    Attributes:
        name: Name of the visit.
        maps: Volume nodes by quantity, as ``CESTQuantResult.nodes``; empty for a visit without CEST.
        segmentation: Segmentation or label-map node in the space of the anatomy.
        anatomy: Volume nodes of T1, T2 and further images on which the segmentation was made.
        toAnatomy: Linear transform node that moves the CEST images onto the anatomy, or path of such a file (as a
            transform of ITK it maps points of the anatomy to the CEST image). None for the scanner's coordinates.
        register: Whether to find that transform by registration.
        unsaturated: Volume node of M0 on the grid of the maps, for the registration; by default that of the signal.
        fit: Arguments of :meth:`CESTQuantLogic.fit` that made the maps (``signalNode``, ``protocol``, ``method`` and
            others), for the fits of the mean spectra; None for none.
        labels: Names of the numbers of a label map, by number, or the name of one of the ``CONVENTIONS``, such as
            ``brats2023``, whose numbers are then all that there may be.
        notes: Sentences for the user about what was read.
    """

    name: str = ""
    maps: Mapping[str, Any] = field(default_factory=dict)
    segmentation: Any = None
    anatomy: Sequence[Any] = ()
    toAnatomy: Any = None
    register: bool = False
    unsaturated: Any = None
    fit: Mapping[str, Any] | None = None
    labels: Mapping[int, str] | str = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def visit_input(visit: CompartmentVisit, name: str, prepared: tuple[Study, MethodSettings, Any] | None) -> VisitInput:
    """Take a visit from the scene.

    Args:
        visit: The nodes.
        name: Name of a visit that has none.
        prepared: Acquisition, settings of the method and spectra with their maps, or None.

    Raises:
        ValueError: A node cannot be used; the message names it.
    """
    notes = list(visit.notes)
    masks = _masks(visit)
    if masks is not None and masks.masks and all(_number(segment) >= 0 for segment in masks.masks):
        of_a_command = files_of_nodes.get() is not None
        remedy = (
            "say what they mean, as in --labels brats2023 or --labels 1=core,2=oedema,3=enhancing"
            if of_a_command
            else "import it into a segmentation and name its segments"
        )
        notes.append(
            f"the labels of {called(visit.segmentation)} have no names, so that no compartment is known: {remedy}"
        )
    return VisitInput(
        visit.name or name,
        _cest(visit, prepared, notes),
        masks,
        tuple(_image(node) for node in visit.anatomy),
        None if visit.toAnatomy is None else linear_transform(visit.toAnatomy),
        visit.register,
        tuple(notes),
    )


def _cest(
    visit: CompartmentVisit, prepared: tuple[Study, MethodSettings, Any] | None, notes: list[str]
) -> CestMaps | None:
    if not visit.maps:
        return None
    geometry = Geometry.of(next(iter(visit.maps.values())))
    maps = {name: volumes.array_on(node, geometry, strict=True) for name, node in visit.maps.items()}
    maps = _usable(maps, notes)
    notes += [
        f"the map {called(visit.maps[name])} has no value anywhere (NaN), so that there are no numbers of {name}"
        for name, array in maps.items()
        if not name.endswith("_sd") and not np.isfinite(array).any()
    ]
    unsaturated = None if visit.unsaturated is None else _mean_image(visit.unsaturated, geometry)
    acquisition = None
    if prepared is not None:
        study, settings, spectra = prepared
        if difference := geometry.difference(study.geometry):
            notes.append(f"the spectra of {study.title} are on another grid than the maps ({difference}): not fitted")
        else:
            acquisition = Acquisition(spectra, study.voxels, str((visit.fit or {}).get("method", "")), settings)
            unsaturated = _unsaturated(study) if unsaturated is None else unsaturated
    return CestMaps(
        visit.name,
        Grid(geometry.shape, geometry.ijk_to_ras),
        {name: array.astype(np.float32) for name, array in maps.items()},
        {name: quantity_named(name).unit for name in maps},
        unsaturated,
        acquisition,
    )


def _usable(maps: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """Maps without the voxels whose fit has no usable estimate, as in the regions of a fit; a note tells how many."""
    from ...fitting.marquardt import UNUSABLE

    if "status" not in maps:
        return maps
    unusable = np.isin(maps["status"], [int(outcome) for outcome in UNUSABLE])
    known = [np.isfinite(array) for name, array in maps.items() if name != "status"]
    lost = int((np.any(known, axis=0) & unusable).sum()) if known else 0
    if not lost:
        return maps
    notes.append(f"{lost} voxels whose fit has no usable estimate (see the status map) are left out of all numbers")
    return {name: array if name == "status" else np.where(unusable, np.nan, array) for name, array in maps.items()}


def _mean_image(node: Any, geometry: Geometry) -> np.ndarray:
    """Image of a volume node, or the mean over those of a sequence node, which must lie on the grid of the maps."""
    if not node.IsA("vtkMRMLSequenceNode"):
        return volumes.array_on(node, geometry, strict=True)
    array, own, _ = sequence_to_array(node)
    if difference := geometry.difference(own):
        raise ValueError(f"{called(node)} is on another grid than the maps ({difference})")
    return np.nan_to_num(array.mean(0)).astype(np.float32)


def _unsaturated(study: Study) -> np.ndarray:
    """M0, or else the mean of the measurements farthest from the water line."""
    if study.reference is not None:
        return np.nan_to_num(study.reference.mean(0)).astype(np.float32)
    offsets = np.abs(study.protocol.offsets_ppm.detach().numpy())
    return np.nan_to_num(study.raw[offsets >= 0.999 * offsets.max()].mean(0)).astype(np.float32)


def _masks(visit: CompartmentVisit) -> Masks | None:
    node = visit.segmentation
    if node is None:
        return None
    is_label_map = not node.IsA("vtkMRMLSegmentationNode")
    labels = named_labels(visit.labels) if isinstance(visit.labels, str) else visit.labels
    geometry = Geometry.of(node) if is_label_map else grid_of(node)
    masks: dict[str, np.ndarray] = {}
    try:
        masks = masks_on(node, geometry)
    except ValueError:
        if not (is_label_map and labels):  # without a voxel or a name, nothing tells what is empty
            remedy = (
                "; if there is no tumour, say what its numbers would mean, as in --labels 1=core,2=oedema,3=enhancing"
                if is_label_map and files_of_nodes.get() is not None
                else ""
            )
            raise ValueError(f"the segmentation {called(node)} is empty: no voxel is set{remedy}") from None
    present = [number for name in masks if (number := _number(name)) >= 0]
    if isinstance(visit.labels, str):
        _require_numbers_of_convention(node, visit.labels, sorted(set(present) - set(labels)))
    _require_same_numbers(node, labels, present)
    named: dict[str, np.ndarray] = {}
    for name, mask in masks.items():  # several numbers may mean the same
        meaning = labels.get(_number(name), name)
        if not (is_label_map and is_background(meaning)):
            named[meaning] = named[meaning] | mask if meaning in named else mask
    if is_label_map:  # a compartment without a voxel is known where its number is
        for meaning in labels.values():
            if compartment_of(meaning) is not None:
                named.setdefault(meaning, np.zeros(geometry.shape, bool))
    return Masks(node.GetName(), Grid(geometry.shape, geometry.ijk_to_ras), named, called(node))


def _require_numbers_of_convention(node: Any, name: str, unknown: Sequence[int]) -> None:
    """Check that a label map has no numbers that its convention lacks."""
    if unknown:
        raise InputError(
            "labels",
            f"{called(node)} has the number{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown))}, which {name} "
            "does not have: declare another convention with --labels, or name every number, as in "
            "1=core,2=oedema,3=enhancing",
        )


def _require_same_numbers(node: Any, labels: Mapping[int, str], present: Sequence[int]) -> None:
    """Check that the meanings that are given are those of this label map.

    A number that the map lacks is fine, such as that of the enhancing tumour where nothing enhances, but not together
    with a number without a meaning, which may be the same compartment by another convention.

    Raises:
        ValueError: There are numbers of both kinds.
    """
    compartments = {number for number, meaning in labels.items() if not is_background(meaning)}
    lacking, unnamed = sorted(compartments - set(present)), sorted(set(present) - set(labels))
    if lacking and unnamed:
        raise InputError(
            "labels",
            f"the numbers of {called(node)} are not those whose meaning is given: it lacks "
            f"{', '.join(map(str, lacking))}, and has {', '.join(map(str, unnamed))} without a meaning; name every "
            "number, as in 1=core,2=oedema,4=enhancing",
        )


def _number(name: str) -> int:
    """Number of a label without a name, 'label 3'; -1 for other names."""
    word, _, number = name.partition(" ")
    return int(number) if word == "label" and number.isdigit() else -1


def _image(node: Any) -> Image:
    geometry = Geometry.of(node)
    array = np.nan_to_num(volumes.array_on(node, geometry)).astype(np.float32)
    return Image(node.GetName(), array, Grid(geometry.shape, geometry.ijk_to_ras), called(node))


def linear_transform(transform: Any) -> np.ndarray:
    """Return the matrix (4, 4) with which a transform moves nodes, RAS to RAS in mm.

    Args:
        transform: Linear transform node, or path of a transform file of ITK or Slicer.

    Raises:
        ValueError: It is not linear or cannot be read.
    """
    from NeuroCESTLib.scene.image_files import existing_file

    if isinstance(transform, str | Path):
        between_transform(transform)  # its messages name the file
        node = volumes.load(existing_file(transform), "TransformFile", {})
        comes_from(node, [transform])
        try:
            return linear_transform(node)
        finally:
            volumes.remove(node)
    matrix = matrix_to_world(transform)
    if matrix is None:
        parents = "" if transform.GetParentTransformNode() is None else ", or one of its parents is not"
        raise ValueError(
            f"the transform {called(transform)} is not linear{parents}: CEST and anatomy of one visit need a linear one"
        )
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError(f"the transform {called(transform)} is damaged: its matrix is not finite, or has no inverse")
    return matrix


def between_transform(transform: Any) -> sitk.Transform:
    """Return the transform between two visits as one of SimpleITK: it maps points of the first to the second, LPS mm.

    Args:
        transform: Transform node that moves the second visit onto the first, with its parent transforms, or path of
            such a file.

    Raises:
        ValueError: The file is missing, no transform or several, or a node holds a deformation that ITK cannot read.
    """
    import SimpleITK as sitk

    from NeuroCESTLib.scene.image_files import existing_file
    from NeuroCESTLib.scene.writing import write_node

    if not isinstance(transform, str | Path):
        with temporary_folder() as folder:
            try:
                own = between_transform(write_node(transform, Path(folder) / "between.h5"))
            except ValueError:
                raise ValueError(
                    f"the transform {called(transform)} cannot be used between visits, as one that was inverted: "
                    "convert it to a displacement field with the Transforms module first"
                ) from None
        parent = transform.GetParentTransformNode()
        return own if parent is None else sitk.CompositeTransform([own, between_transform(parent)])
    path = existing_file(transform)
    try:
        _try_elsewhere(path)
        with library_lines_caught():
            found = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError, subprocess.SubprocessError):
        raise ValueError(
            f"'{path}' is no transform, or a damaged one: give a file as 'jointregseg apply' writes it"
        ) from None
    if (count := _transforms_in(path)) > 1:
        raise ValueError(
            f"'{path}' holds {count} transforms, of which only the first would be used: save them as one composite"
        )
    if found.GetDimension() != 3:
        raise ValueError(f"'{path}' is a transform of {found.GetDimension()} dimensions: give one of 3")
    return found


def _transforms_in(path: Path) -> int:
    """Number of transforms in a file of ITK; a composite with its parts counts as one."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        kinds = _KIND.findall(content)
    return 1 if any(kind.startswith(b"Composite") for kind in kinds) else len(kinds)


def _try_elsewhere(path: Path) -> None:
    """Read a transform in another process first: where it is damaged, ITK may end the process or never return.

    Raises:
        subprocess.SubprocessError: The file cannot be read.
    """
    program = shutil.which("PythonSlicer") or sys.executable
    seconds = _LONGEST_READING_S + path.stat().st_size // _SLOWEST_READING_BYTES_PER_S
    command = [program, "-c", _READING, str(path), str(seconds)]
    subprocess.run(command, capture_output=True, check=True, timeout=_LONGEST_WAIT_S + seconds)
