"""Frames of a DICOM series arranged as volumes of one voxel grid, in the order of the acquisition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from NeuroCESTLib.core.headers.dicom_frames import SAME_PLACE_MM, Frame, even_step, is_tilted, scale_of, stored_values

from ..scan import FrameGroup, ScannedImages

_LARGEST_SHIFT = 0.1
"""Largest distance of images that count as one slice, relative to the smallest side of a voxel."""


def arrange(frames: Sequence[Frame], quantitative: bool = True) -> ScannedImages:
    """Arrange frames as volumes, in the order of the acquisition.

    Images at the same place belong to different volumes. Their order is that of the temporal positions, acquisition
    numbers or echo times where each volume has one of its own, otherwise that of the image numbers or acquisition
    times where these differ between the images of every place.

    Args:
        frames: Magnitude images of one series, in any order.
        quantitative: Whether values of different images have to be comparable: the scaling of each image for display,
            which Philips applies, is then undone.

    Raises:
        ValueError: The frames do not fill one regular voxel grid, or nothing tells their order; the message says why.
    """
    first = frames[0]
    where = f"'{first.file.path.parent}'"
    other = next((frame for frame in frames if not frame.has_axes_of(first)), None)
    if other is not None:
        raise ValueError(
            f"'{first.file.path}' and '{other.file.path}' have different orientations or voxel sizes: leave out the "
            "series that does not belong to the acquisition"
        )
    places = _places(frames)
    stacks = [
        [frame for frame, k in zip(frames, places, strict=True) if k == place] for place in range(max(places) + 1)
    ]
    count = len(stacks[0])
    if any(len(stack) != count for stack in stacks):
        raise ValueError(
            f"{where} is incomplete: its {len(stacks)} slices have {min(map(len, stacks))} to "
            f"{max(map(len, stacks))} images, because some are missing or belong to another series"
        )
    key, told = _order(stacks, where)
    stacks = [sorted(stack, key=key) for stack in stacks]
    array = np.stack([np.stack([stack[m] for stack in _pixels(stacks, quantitative)]) for m in range(count)])
    groups = (FrameGroup("measurement", told, count),) if count > 1 else ()
    return ScannedImages(array, _matrix(stacks, where), groups, (*_shifts(stacks, where), *_echo_times(stacks[0])))


def images_at_a_place(frames: Sequence[Frame]) -> int:
    """Return how many images there are of the slice of which there are most, which is the number of volumes."""
    return int(np.bincount(_places(frames)).max())


def _places(frames: Sequence[Frame]) -> np.ndarray:
    """Numbers of the slices that the frames show, along their normal."""
    normal = np.cross(*frames[0].axes)
    return clusters(np.array([frame.position @ normal for frame in frames]), SAME_PLACE_MM)


def clusters(values: np.ndarray, distance: float) -> np.ndarray:
    """Return the number of the group that every value belongs to; groups are more than a distance apart.

    Args:
        values: Values (n,).
        distance: Largest distance of neighbouring values of a group.

    Returns:
        Numbers (n,) from 0, in the order of the values.
    """
    order = np.argsort(values, kind="stable")
    labels = np.zeros(len(values), int)
    labels[order[1:]] = np.cumsum(np.diff(values[order]) > distance)
    return labels


def _order(stacks: list[list[Frame]], where: str) -> tuple[Callable[[Frame], Any], str]:
    """By what the images of a place are put in order, and its name."""

    def by_temporal(frame: Frame) -> tuple[float, ...]:
        return (-1.0 if frame.temporal is None else frame.temporal,)

    def by_acquisition(frame: Frame) -> tuple[float, ...]:
        return (-1.0 if frame.acquisition is None else frame.acquisition,)

    def by_echo_time(frame: Frame) -> tuple[float, ...]:
        return (-1.0 if frame.echo_time_ms is None else frame.echo_time_ms,)

    for key, name in (
        (by_temporal, "temporal position"),
        (by_acquisition, "acquisition number"),
        (by_echo_time, "echo time"),
    ):
        found = [sorted(map(key, stack)) for stack in stacks]
        if len(set(found[0])) == len(stacks[0]) and all(values == found[0] for values in found):
            return key, f"in the order of the {name}"
    for of_image, name in ((attrgetter("order"), "image numbers"), (attrgetter("acquired"), "acquisition times")):
        if all(len(set(map(of_image, stack))) == len(stack) for stack in stacks):
            return of_image, f"in the order of the {name}"
    raise ValueError(
        f"{where} has {len(stacks[0])} images of every slice and nothing that tells their order, because their image "
        "numbers and acquisition times are missing or repeat: export the series with its image numbers "
        "(InstanceNumber) or acquisition times (AcquisitionTime)"
    )


def _shifts(stacks: list[list[Frame]], where: str) -> tuple[str, ...]:
    """A sentence where images of a slice lie apart, by less than what an analysis could notice."""
    first = stacks[0][0]
    shift = max(float(np.linalg.norm(frame.position - stack[0].position)) for stack in stacks for frame in stack)
    if shift <= SAME_PLACE_MM:
        return ()
    if shift > _LARGEST_SHIFT * min(*first.spacing, first.thickness):
        raise ValueError(f"{where} has images of a slice that are shifted against each other by up to {shift:.3g} mm")
    return (f"images of a slice lie up to {shift:.2g} mm apart and are taken as being at the place of the first one",)


def _echo_times(stack: list[Frame]) -> tuple[str, ...]:
    """The echo times of the volumes, where they differ."""
    times = [frame.echo_time_ms for frame in stack]
    if None in times or len(set(times)) == 1:
        return ()
    return (f"the echo times in ms are {' '.join(f'{time:g}' for time in times)}",)


def _matrix(stacks: list[list[Frame]], where: str) -> np.ndarray:
    """Matrix (4, 4) from voxel index to LPS."""
    first = stacks[0][0]
    positions = np.array([stack[0].position for stack in stacks])
    step = np.cross(*first.axes) * first.thickness if len(stacks) == 1 else even_step(positions)
    if step is None:
        raise ValueError(f"{where}: the slices do not have equal distances, or some are missing")
    if is_tilted(step, first):
        raise ValueError(
            f"{where}: the slices are sheared, because each lies beside the normal of the one before it: resample them "
            "to perpendicular axes"
        )
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([first.axes[0] * first.spacing[0], first.axes[1] * first.spacing[1], step], axis=1)
    matrix[:3, 3] = positions[0]
    return matrix


def _pixels(stacks: list[list[Frame]], quantitative: bool) -> list[list[np.ndarray]]:
    """Values (row, column) of the frames, slice by slice."""
    cache: dict[int, np.ndarray] = {}

    def values(frame: Frame) -> np.ndarray:
        key = id(frame.file)
        if key not in cache:
            cache[key] = stored_values(frame.file)
        slope, intercept = scale_of(frame, quantitative)
        return (cache[key][frame.number] * slope + intercept).astype(np.float32)

    found = [[values(frame) for frame in stack] for stack in stacks]
    if len({image.shape for stack in found for image in stack}) > 1:
        raise ValueError(f"'{stacks[0][0].file.path.parent}' has images of several sizes in one series")
    return found
