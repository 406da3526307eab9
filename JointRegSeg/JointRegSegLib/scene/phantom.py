"""The digital head at two visits, as nodes of the scene."""

from __future__ import annotations

from typing import Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.scene import hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import show_segmentation
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error
from NeuroCESTLib.scene.volumes import add_volume

from ..images.modalities import TITLES
from ..synthesis.phantom import RADII_MM, PhantomVisit, make_visit
from .results import add_tumor


def add_phantom(spacing_mm: float, progress: Progress) -> dict[str, dict[str, Any]]:
    """Add the digital head at two visits to the scene, see ``JointRegSegLogic.addPhantom``."""
    geometries = [_phantom_geometry(second, spacing_mm) for second in (False, True)]

    def compute(report: Progress) -> list[PhantomVisit]:
        visits = []
        for second, geometry in enumerate(geometries):
            report(second / 2, f"visit {1 + second}")
            visits.append(make_visit(geometry.shape, geometry.ijk_to_ras, bool(second)))
        return visits

    visits = in_background(compute, progress)
    with scene_unchanged_on_error():
        nodes = [
            _add_phantom_visit(visit, geometry, first)
            for first, visit, geometry in zip((True, False), visits, geometries, strict=True)
        ]
        progress(1.0, "done")
    return dict(zip(("fixed", "moving"), nodes, strict=True))


def _phantom_geometry(second: bool, spacing_mm: float) -> Geometry:
    """Return the voxel grid of a visit of the digital head."""
    angle = np.radians(8.0 if second else 0.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    spacing = spacing_mm * np.array([1.0, 1.1, 1.2] if second else [1.0, 1.0, 1.0])
    size = np.ceil(2 * (RADII_MM + 6 + 4 * second) / spacing).astype(int)
    ijk_to_ras = np.eye(4)
    ijk_to_ras[:3, :3] = turn * spacing
    ijk_to_ras[:3, 3] = -turn @ np.diag(spacing) @ ((size - 1) / 2)
    i, j, k = (int(n) for n in size)
    return Geometry((k, j, i), ijk_to_ras)


def _add_phantom_visit(visit: PhantomVisit, geometry: Geometry, first: bool) -> dict[str, Any]:
    """Add a visit of the digital head; return its nodes by modality, and its tumour, which only the first one shows."""
    name = f"phantom visit {1 if first else 2}"
    nodes = {m: add_volume(array, geometry, f"{name} {TITLES[m]}") for m, array in visit.images.items()}
    nodes["tumor"] = add_tumor(geometry.to_sitk(visit.labels), f"{name} tumour")
    show_segmentation(nodes["tumor"], first)
    hierarchy.put(nodes.values(), hierarchy.make_folder(name))
    return nodes
