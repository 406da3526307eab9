"""The CEST phantom of a patient as nodes: a slab through the tumour of a label map, slightly out of place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.messages import called
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .study import PROTOCOL_ATTRIBUTE

if TYPE_CHECKING:
    from ..phantoms.patient import PatientPhantom

NAME = "CEST patient"
SLICE_TILT_DEG = 8.0
"""Angle between the slices and those of the label map, as brain slices are planned."""
_SUB_VOXEL_MM = 1.0
"""Distance of the points at which a voxel is divided into tissues."""


@dataclass(frozen=True)
class Slab:
    """Where and how a patient is measured.

    Attributes:
        voxel_mm: Voxel size within the slices in mm.
        slices: Number of slices.
        thickness_mm: Thickness of the slices in mm, without gaps.
        rotation_deg: Angle by which the header of the images is off.
        shift_mm: Distance by which it is off.

    Raises:
        ValueError: A value is impossible.
    """

    voxel_mm: float = 3.0
    slices: int = 3
    thickness_mm: float = 5.0
    rotation_deg: float = 0.0
    shift_mm: float = 0.0

    def __post_init__(self) -> None:
        for role, name in (("voxel-size", "voxel_mm"), ("slice-thickness", "thickness_mm")):
            if not 0.5 <= getattr(self, name) <= 20:
                raise InputError(role, f"{name} is {getattr(self, name):g}, but must lie between 0.5 and 20")
        if not 1 <= self.slices <= 100:
            raise InputError("slices", f"slices is {self.slices}, but must lie between 1 and 100")
        if not (0 <= self.rotation_deg <= 30 and 0 <= self.shift_mm <= 50):
            raise InputError("misalignment", "the slab may be off by 0 to 30 degrees and 0 to 50 mm")


@dataclass(frozen=True)
class PatientNodes:
    """The phantom in the scene.

    Attributes:
        nodes: ``signal``, ``m0``, ``b0`` (ppm), ``b1`` (relative), ``t1`` (s), ``mask`` and ``segmentation``.
        truth: Rows of true values, see ``phantoms.patient.true_values``.
        cest_to_anatomy: Matrix (4, 4) that maps points of the CEST images, as their headers say, to the anatomy; LPS
            in mm.
    """

    nodes: dict[str, Any]
    truth: list[dict[str, str | float]]
    cest_to_anatomy: np.ndarray


def add_patient_phantom(
    regions: Any, changes: Mapping[str, Any] | None, slab: Slab, seed: int, noise_sd: float, progress: Progress
) -> PatientNodes:
    """Simulate CEST on a label map and add it to the scene.

    Args:
        regions: Volume node with the values of ``phantoms.patient.REGIONS``.
        changes: Values by tissue and path that replace the usual ones, see ``phantoms.patient.region_values``.
        slab: Where and how to measure. The slab is centred on the tumour, or on the brain where there is none.
        seed: Seed of the noise, of the biological spread and of the direction in which the slab is off.
        noise_sd: Standard deviation of the noise relative to M0 of white matter.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Nodes in one folder and the truth.

    Raises:
        ValueError: The label map holds no tissue or other values, or a change is unknown.
    """
    from ..phantoms.patient import region_values, simulate_patient, true_values

    values = region_values(changes)
    labels, grid = _labels(regions), Geometry.of(regions)
    place = _slab_geometry(labels, grid, slab)
    shares = _shares(labels, grid, place)
    center = _center(labels > 0, grid)

    def compute(report: Progress) -> PatientPhantom:
        return simulate_patient(
            shares,
            _points(place) - center,
            values,
            noise_sd=noise_sd,
            seed=seed,
            progress=part(report, 0.0, 0.98),
        )

    phantom = in_background(compute, progress)
    off = _displacement(place, slab, seed)
    with scene_unchanged_on_error():
        nodes = _add_nodes(phantom, Geometry(place.shape, off @ place.ijk_to_ras))
    ras_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return PatientNodes(
        nodes, true_values(values, shares, place.voxel_volume_mm3 / 1000), ras_to_lps @ np.linalg.inv(off) @ ras_to_lps
    )


def _labels(node: Any) -> np.ndarray:
    """The label map of a node, checked."""
    from ..phantoms.patient import REGIONS

    array = volumes.volume_array(node)
    labels = np.rint(array).astype(np.uint8)
    known = ", ".join(f"{value} {name.replace('_', ' ')}" for value, name in REGIONS.items())
    if array.min() < 0 or array.max() > max(REGIONS) or not np.array_equal(labels, array):
        raise ValueError(f"{called(node)} is not a label map of tissues: its values may be 0 air, {known}")
    if not labels.any():
        raise ValueError(f"{called(node)} holds no tissue: its values may be {known}")
    return labels


def _center(mask: np.ndarray, grid: Geometry) -> np.ndarray:
    """Centre of a mask, RAS in mm."""
    index = np.argwhere(mask).mean(0)[::-1]
    return grid.ijk_to_ras[:3, :3] @ index + grid.ijk_to_ras[:3, 3]


def _slab_geometry(labels: np.ndarray, grid: Geometry, slab: Slab) -> Geometry:
    """The grid of the slab: around the tumour, tilted about the axis i of the label map, wide enough for the head."""
    from ..phantoms.patient import TUMOR

    tumor = np.isin(labels, TUMOR)
    center = _center(tumor if tumor.any() else labels > 0, grid)
    angle = np.deg2rad(SLICE_TILT_DEG)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    axes = grid.direction @ tilt
    brain = np.argwhere(labels > 0)[:, ::-1] @ grid.ijk_to_ras[:3, :3].T + grid.ijk_to_ras[:3, 3] - center
    along = brain @ axes
    voxel = np.abs(axes[:, 2] @ grid.ijk_to_ras[:3, :3]).sum()  # along the normal of the slab, which may be thinner
    near = along[np.abs(along[:, 2]) <= max(slab.slices * slab.thickness_mm, voxel) / 2]
    low, high = near[:, :2].min(0) - 2 * slab.voxel_mm, near[:, :2].max(0) + 2 * slab.voxel_mm
    columns, rows = (int(n) for n in np.ceil((high - low) / slab.voxel_mm))
    spacing = (slab.voxel_mm, slab.voxel_mm, slab.thickness_mm)
    first = np.array([*(low + slab.voxel_mm / 2), -(slab.slices - 1) / 2 * slab.thickness_mm])
    origin = center + axes @ first
    return Geometry.from_spacing((slab.slices, rows, columns), spacing, tuple(origin), axes)


def _shares(labels: np.ndarray, grid: Geometry, place: Geometry) -> np.ndarray:
    """Share of each voxel that each tissue fills, (tissue, K, J, I), from points spread evenly over it."""
    from ..phantoms.patient import REGIONS

    parts = np.maximum(np.ceil(place.spacing / _SUB_VOXEL_MM), 1).astype(int)  # along (i, j, k)
    scale = np.eye(4)
    scale[:3, :3] = np.diag(1 / parts)
    scale[:3, 3] = (1 - parts) / (2 * parts)
    shape = tuple(int(n * p) for n, p in zip(place.shape, parts[::-1], strict=True))
    fine = Geometry((shape[0], shape[1], shape[2]), place.ijk_to_ras @ scale).resample(labels, grid, linear=False)
    k, j, i = place.shape
    blocks = fine.reshape(k, parts[2], j, parts[1], i, parts[0])
    return np.stack([(blocks == label).mean((1, 3, 5)) for label in REGIONS])


def _points(place: Geometry) -> np.ndarray:
    """Centres of the voxels (K, J, I, 3), RAS in mm."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in place.shape), indexing="ij")
    return np.stack([i, j, k], -1) @ place.ijk_to_ras[:3, :3].T + place.ijk_to_ras[:3, 3]


def _displacement(place: Geometry, slab: Slab, seed: int) -> np.ndarray:
    """Rigid matrix (4, 4) RAS that moves the slab out of its place, in a random direction."""
    generator = np.random.default_rng([seed, 1])
    axis, direction = (v / np.linalg.norm(v) for v in generator.standard_normal((2, 3)))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(slab.rotation_deg)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    center = _center(np.ones(place.shape, dtype=bool), place)
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = center - turn @ center + slab.shift_mm * direction
    return matrix


def _add_nodes(phantom: PatientPhantom, geometry: Geometry) -> dict[str, Any]:
    from ..formats.protocol_json import protocol_to_dict
    from ..phantoms.patient import REGIONS

    nodes = {
        "signal": array_to_sequence(phantom.signal, geometry, NAME, phantom.protocol.offsets_ppm.tolist()),
        "m0": volumes.add_volume(phantom.m0, geometry, f"{NAME} M0"),
        "b0": volumes.add_volume(phantom.b0_shift_ppm, geometry, f"{NAME} B0"),
        "b1": volumes.add_volume(phantom.b1_relative, geometry, f"{NAME} B1"),
        "t1": volumes.add_volume(phantom.t1_s, geometry, f"{NAME} T1"),
        "mask": volumes.add_volume(phantom.mask, geometry, f"{NAME} mask", label=True),
    }
    nodes["signal"].SetAttribute(PROTOCOL_ATTRIBUTE, json.dumps(protocol_to_dict(phantom.protocol)))
    masks = {name: phantom.labels == label for label, name in REGIONS.items() if (phantom.labels == label).any()}
    nodes["segmentation"] = add_segmentation(masks, geometry, f"{NAME} regions")
    for name, unit, color_map in (("b0", "ppm", "diverging"), ("b1", "", "viridis"), ("t1", "s", "viridis")):
        display.show_map(nodes[name], unit, color_map)
    hierarchy.put(nodes.values(), hierarchy.make_folder(NAME))
    return nodes
