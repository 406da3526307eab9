"""Reconstructed images of ParaVision: ``2dseq`` with the ``visu_pars`` that describe it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.limits import quoted

from .parameters import ParameterFile
from .placement import Placement, placement_of
from .scan import FrameGroup, ScannedImages

_WORD_TYPES = {
    "_8BIT_UNSGN_INT": "u1",
    "_16BIT_SGN_INT": "i2",
    "_32BIT_SGN_INT": "i4",
    "_32BIT_FLOAT": "f4",
}
_BYTE_ORDERS = {"littleEndian": "<", "bigEndian": ">"}
_SLICES = "FG_SLICE"
_ECHOES = "FG_ECHO"


def read_images(folder: str | Path) -> ScannedImages:
    """Read the images of a reconstruction.

    Args:
        folder: Folder ``pdata/N`` with ``2dseq`` and ``visu_pars``.

    Returns:
        Magnitude images with their geometry, in the order in which they were acquired.

    Raises:
        ValueError: A file is missing, damaged or contradicts the other one, or the images are no magnitude images on
            one voxel grid; the message names the file.
    """
    folder = Path(folder)
    visu = ParameterFile.read(folder / "visu_pars")
    size = _size(visu)
    groups = _frame_groups(visu)
    frames = _scaled(visu, _stored(visu, folder / "2dseq", size))
    frames, groups, kept = _magnitudes(visu, frames, groups)
    frames, kept = _slices_last(frames, kept, groups)  # (measurement, slice, Z, Y, X)
    notes: tuple[str, ...] = ()
    if visu.text("VisuCoreDiskSliceOrder") == "disk_reverse_slice_order" and len(size) == 3:
        frames = frames[:, :, ::-1]
        notes = (f"'{visu.path}': the slices are stored in reverse order and were put in order",)
    placement: Placement = placement_of(visu, size, kept[0])
    loops = tuple(group for group in groups if group.name != _SLICES and group.count > 1)
    array = np.ascontiguousarray(frames.reshape(len(frames), -1, *frames.shape[3:]))
    return ScannedImages(array, placement.ijk_to_lps, loops, (*notes, *placement.notes))


def first_echo(images: ScannedImages) -> ScannedImages:
    """Return the images of the first echo; all of them where there is one echo."""
    loop = next((i for i, group in enumerate(images.groups) if group.name == _ECHOES), None)
    if loop is None:
        return images
    echoes = images.groups[loop].count
    inner = math.prod(group.count for group in images.groups[:loop])
    first = np.arange(len(images.array)) // inner % echoes == 0
    told = f"every measurement has {echoes} echoes: the first one was taken, and the others were left out"
    groups = images.groups[:loop] + images.groups[loop + 1 :]
    return ScannedImages(images.array[first], images.ijk_to_lps, groups, (*images.notes, told))


def _size(visu: ParameterFile) -> list[int]:
    """Number of voxels (x, y) or (x, y, z) of a frame."""
    dimension = visu.positive_integers("VisuCoreDim", 1)[0]
    if dimension not in (2, 3) or any(word != "spatial" for word in visu.structure("VisuCoreDimDesc")):
        raise ValueError(f"'{visu.path}' describes no images: only 2-D and 3-D images can be imported, not spectra")
    return visu.positive_integers("VisuCoreSize", dimension)


def _is_count(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and value >= 1  # infinity is no integer


def _frame_groups(visu: ParameterFile) -> list[FrameGroup]:
    """Loops over the frames, the fastest first."""
    frames = visu.positive_integers("VisuCoreFrameCount", 1)[0]
    if "VisuFGOrderDesc" not in visu:
        return [FrameGroup("FG_CYCLE", "", frames)]
    groups = []
    for described in visu.structure("VisuFGOrderDesc"):
        if not isinstance(described, list) or len(described) < 3 or not _is_count(described[0]):
            raise ValueError(f"'{visu.path}': VisuFGOrderDesc is damaged")
        groups.append(FrameGroup(str(described[1]).strip("<>"), str(described[2]).strip("<>"), int(described[0])))
    if math.prod(group.count for group in groups) != frames:
        raise ValueError(
            f"'{visu.path}' contradicts itself: VisuCoreFrameCount is {frames} but the frame groups have "
            f"{math.prod(group.count for group in groups)} frames"
        )
    return groups


def _stored(visu: ParameterFile, path: Path, size: list[int]) -> np.ndarray:
    """Stored numbers (frame, Z, Y, X)."""
    word, order = visu.text("VisuCoreWordType"), visu.text("VisuCoreByteOrder")
    if word not in _WORD_TYPES or order not in _BYTE_ORDERS:
        raise ValueError(f"'{visu.path}': word type {quoted(word)} or byte order {quoted(order)} is unknown")
    dtype = np.dtype(_BYTE_ORDERS[order] + _WORD_TYPES[word])
    frames = visu.positive_integers("VisuCoreFrameCount", 1)[0]
    expected = frames * math.prod(size) * dtype.itemsize
    try:
        found = path.stat().st_size
    except OSError:
        raise ValueError(f"'{path}' is missing or cannot be read: copy the whole scan folder") from None
    if found != expected:
        problem = "is cut off" if found < expected else "is too long"
        raise ValueError(
            f"'{path}' {problem}: it has {found} bytes but '{visu.path.name}' describes {frames} frames of "
            f"{' x '.join(map(str, size))} voxels, {expected} bytes"
        )
    return np.fromfile(path, dtype).reshape(frames, *([1] if len(size) == 2 else []), *reversed(size))


def _scaled(visu: ParameterFile, stored: np.ndarray) -> np.ndarray:
    """Values from the stored numbers: each frame has its slope and offset."""

    def of_frames(name: str, default: float) -> np.ndarray:
        values = np.array(visu.numbers(name) if name in visu else [default])
        if len(values) not in (1, len(stored)):
            raise ValueError(f"'{visu.path}': {name} has {len(values)} numbers for {len(stored)} frames")
        return values.reshape(-1, 1, 1, 1)

    slope, offset = of_frames("VisuCoreDataSlope", 1.0), of_frames("VisuCoreDataOffs", 0.0)
    if not slope.all():
        raise ValueError(f"'{visu.path}': VisuCoreDataSlope has a slope of 0")
    return (stored * slope + offset).astype(np.float32)


def _magnitudes(
    visu: ParameterFile, frames: np.ndarray, groups: list[FrameGroup]
) -> tuple[np.ndarray, list[FrameGroup], np.ndarray]:
    """The magnitude images among the frames, their loops, and the numbers of these frames."""
    types = [str(word) for word in visu.structure("VisuCoreFrameType")] or [visu.text("VisuCoreFrameType")]
    number = np.arange(len(frames))
    if set(types) <= {"", "MAGNITUDE_IMAGE"}:
        return frames, groups, number
    loop = next((i for i, group in enumerate(groups) if group.name == "FG_COMPLEX"), None)
    if "MAGNITUDE_IMAGE" not in types or loop is None or len(types) != groups[loop].count:
        raise ValueError(
            f"'{visu.path}' describes images of the type {quoted(', '.join(sorted(set(types))), 80)}: "
            "reconstruct magnitude images"
        )
    inner = math.prod(group.count for group in groups[:loop])
    magnitude = number // inner % groups[loop].count == types.index("MAGNITUDE_IMAGE")
    return frames[magnitude], groups[:loop] + groups[loop + 1 :], number[magnitude]


def _slices_last(frames: np.ndarray, number: np.ndarray, groups: list[FrameGroup]) -> tuple[np.ndarray, np.ndarray]:
    """Frames as (measurement, slice, Z, Y, X), and their numbers as (measurement, slice)."""
    counts = [group.count for group in reversed(groups)]
    loop = next((i for i, group in enumerate(reversed(groups)) if group.name == _SLICES), None)
    arranged, numbers = frames.reshape(*counts, *frames.shape[1:]), number.reshape(counts)
    if loop is None:
        return arranged.reshape(-1, 1, *frames.shape[1:]), numbers.reshape(-1, 1)
    last = len(counts) - 1
    arranged, numbers = np.moveaxis(arranged, loop, last), np.moveaxis(numbers, loop, last)
    return arranged.reshape(-1, counts[loop], *frames.shape[1:]), numbers.reshape(-1, counts[loop])
