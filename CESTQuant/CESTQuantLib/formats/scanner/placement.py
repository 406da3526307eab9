"""Where the images of ParaVision lie: their position and orientation in patient coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from NeuroCESTLib.core.headers.limits import quoted

from .parameters import ParameterFile

_ALONG = 1e-2
"""Sine of the angle up to which slices count as stacked along their normal."""
_EVEN = 1e-2
"""Share of the distance of slices within which distances are equal."""


@dataclass(frozen=True)
class Placement:
    """Place of a voxel grid.

    Attributes:
        ijk_to_lps: Matrix (4, 4) from voxel index to patient coordinates LPS in mm.
        notes: Sentences for the user.
    """

    ijk_to_lps: np.ndarray
    notes: tuple[str, ...] = ()


def placement_of(visu: ParameterFile, size: list[int], frames: np.ndarray) -> Placement:
    """Return where images lie.

    Patient coordinates of ParaVision are those of DICOM: left, posterior, superior. The rows of
    ``VisuCoreOrientation`` are the directions of the image axes. ``VisuCorePosition`` is the corner of the first voxel
    in the image plane, and along the normal the centre of a slice; of a 3-D image it is the corner in all directions.

    Args:
        visu: The ``visu_pars`` of the images.
        size: Number of voxels (x, y) or (x, y, z) of a frame.
        frames: Numbers (slice,) of the frames of one measurement, slice by slice.

    Raises:
        ValueError: A value is missing or damaged, or the slices do not lie on one regular grid; the message names the
            file.
    """
    units = [str(unit) for unit in visu.structure("VisuCoreUnits")]
    if any(unit != "mm" for unit in units):
        raise ValueError(f"'{visu.path}': the extent is in {quoted(', '.join(units))} but must be in mm")
    extent = visu.numbers("VisuCoreExtent", len(size))
    spacing = np.array(extent) / size
    if not (spacing > 0).all():
        raise ValueError(f"'{visu.path}': VisuCoreExtent must be positive")
    axes = _of_frames(visu, "VisuCoreOrientation", 9, frames).reshape(-1, 3, 3)
    positions = _of_frames(visu, "VisuCorePosition", 3, frames)
    if not np.allclose(axes, axes[0], atol=1e-4):
        raise ValueError(
            f"'{visu.path}' has slices of several orientations: reconstruct every slice package as a scan of its own"
        )
    rotation = axes[0]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise ValueError(f"'{visu.path}': VisuCoreOrientation is no rotation")
    notes: tuple[str, ...] = ()
    if len(frames) > 1:
        positions, notes = _in_patient_coordinates(visu, rotation, positions)
        step = _step(visu, positions)
    elif len(size) == 3:
        step = rotation[2] * spacing[2]
    else:
        step = rotation[2] * visu.numbers("VisuCoreFrameThickness")[0]
    to_center = rotation[: len(size)].T @ (spacing / 2)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([rotation[0] * spacing[0], rotation[1] * spacing[1], step], axis=1)
    matrix[:3, 3] = positions[0] + to_center
    return Placement(matrix, notes)


def _of_frames(visu: ParameterFile, name: str, count: int, frames: np.ndarray) -> np.ndarray:
    """Values (slice, count) of a parameter that is given once, for every slice, or for every frame."""
    values = np.array(visu.numbers(name))
    if len(values) % count or not len(values):
        raise ValueError(f"'{visu.path}': {name} has {len(values)} numbers, which is no multiple of {count}")
    values = values.reshape(-1, count)
    total = visu.positive_integers("VisuCoreFrameCount", 1)[0]
    if len(values) == total:
        return values[frames]
    if len(values) == len(frames):
        return values
    if len(values) == 1 and (name == "VisuCoreOrientation" or len(frames) == 1):
        return values.repeat(len(frames), axis=0)
    raise ValueError(
        f"'{visu.path}' contradicts itself: {name} describes {len(values)} slices but there are {len(frames)} slices "
        f"and {total} frames"
    )


def _in_patient_coordinates(
    visu: ParameterFile, rotation: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Positions of slices that are stacked along their normal; some files give them along the image axes instead."""
    if _are_stacked(positions, rotation[2]):
        return positions, ()
    turned = positions @ rotation
    if not _are_stacked(turned, rotation[2]):
        raise ValueError(f"'{visu.path}': VisuCorePosition does not stack the slices along their normal")
    return turned, (
        f"'{visu.path}': VisuCorePosition fits VisuCoreOrientation only along the axes of the image, and is read "
        "so: check the place of the images",
    )


def _are_stacked(positions: np.ndarray, normal: np.ndarray) -> bool:
    way = positions[-1] - positions[0]
    return bool(np.linalg.norm(way) > 0 and np.linalg.norm(np.cross(way, normal)) <= _ALONG * np.linalg.norm(way))


def _step(visu: ParameterFile, positions: np.ndarray) -> np.ndarray:
    """Way from one slice to the next."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.abs(np.diff(positions, axis=0) - step).max() > _EVEN * np.linalg.norm(step):
        raise ValueError(f"'{visu.path}': the slices do not have equal distances, so they are no regular voxel grid")
    return step
