"""The digital brain phantom as nodes: the module's sample data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.progress import Progress, part
from NeuroCESTLib.scene import display, hierarchy, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .study import PROTOCOL_ATTRIBUTE

if TYPE_CHECKING:
    from ..tissue.phantom import Phantom

NAME = "CEST phantom"
SLICE_TILT_DEG = 12.0
"""Angle between the slices and the axial plane, as brain slices are planned."""


def add_phantom(seed: int, noise_sd: float, progress: Progress) -> dict[str, Any]:
    """Simulate the phantom and add it to the scene.

    Args:
        seed: Seed of the noise and of the biological spread.
        noise_sd: Standard deviation of the noise relative to M0 of white matter.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Nodes in one folder: ``signal``, ``m0``, ``b0`` (ppm), ``b1`` (relative), ``t1`` (s), ``mask`` and
        ``segmentation``. The signal carries its protocol.
    """

    def compute(report: Progress) -> Phantom:
        from ..tissue.phantom import make_phantom  # here, because it loads torch, which takes seconds

        return make_phantom(noise_sd=noise_sd, seed=seed, progress=part(report, 0.0, 0.98))

    phantom = in_background(compute, progress)
    with scene_unchanged_on_error():
        return _add_nodes(phantom)


def _add_nodes(phantom: Phantom) -> dict[str, Any]:
    from ..formats.protocol_json import protocol_to_dict
    from ..tissue.phantom import REGIONS

    geometry = phantom_geometry()
    offsets = phantom.protocol.offsets_ppm.tolist()
    nodes = {
        "signal": array_to_sequence(phantom.signal, geometry, NAME, offsets),
        "m0": volumes.add_volume(phantom.m0, geometry, f"{NAME} M0"),
        "b0": volumes.add_volume(phantom.b0_shift_ppm, geometry, f"{NAME} B0"),
        "b1": volumes.add_volume(phantom.b1_relative, geometry, f"{NAME} B1"),
        "t1": volumes.add_volume(phantom.t1_s, geometry, f"{NAME} T1"),
        "mask": volumes.add_volume(phantom.labels > 0, geometry, f"{NAME} mask", label=True),
    }
    nodes["signal"].SetAttribute(PROTOCOL_ATTRIBUTE, json.dumps(protocol_to_dict(phantom.protocol)))
    masks = {name: phantom.labels == label for label, (name, _) in REGIONS.items()}
    nodes["segmentation"] = add_segmentation(masks, geometry, f"{NAME} regions")
    display.outline(nodes["segmentation"])
    for name, unit, color_map in (("b0", "ppm", "diverging"), ("b1", "", "viridis"), ("t1", "s", "viridis")):
        display.show_map(nodes[name], unit, color_map)
    hierarchy.put(nodes.values(), hierarchy.make_folder(NAME))
    return nodes


def phantom_geometry() -> Geometry:
    """Return the oblique voxel grid of the phantom, centred on the origin."""
    from ..tissue.phantom import SHAPE, SPACING_MM

    angle = np.deg2rad(SLICE_TILT_DEG)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(SPACING_MM)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(SHAPE[::-1]) - 1) / 2
    return Geometry(SHAPE, matrix)
