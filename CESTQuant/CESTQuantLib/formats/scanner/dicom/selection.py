"""Which images of a DICOM series are read: each of them once, magnitudes only, and their echoes apart."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from NeuroCESTLib.core.headers.dicom_elements import DicomFile
from NeuroCESTLib.core.headers.dicom_frames import Frame, stored_values

from .volumes import clusters, images_at_a_place

_UID = (0x0008, 0x0018)
_DISTINCTIVE = (
    *((0x0020, 0x0012), (0x0020, 0x0013), (0x0020, 0x0032)),
    *((0x0020, 0x0100), (0x0018, 0x0081), (0x0008, 0x0032)),
)
"""Numbers of acquisition and image, position, temporal position, echo time and time of the acquisition.

They differ between images that an anonymiser gave the same UID, and are kept where it gave copies UIDs of their own.
"""
_NO_MAGNITUDES = {"P", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "R", "I"}
_SAME_ECHO_MS = 0.01


def without_copies(files: Sequence[DicomFile]) -> tuple[list[DicomFile], list[tuple[DicomFile, DicomFile]]]:
    """Return the files without repeated ones, and each of these with the one that it repeats.

    A file repeats another one that has the same numbers, place and time of the image, and the same UID or pixels.
    """
    described = [tuple(file.text(tag) for tag in _DISTINCTIVE) for file in files]
    alike = Counter(described)
    first: dict[tuple[tuple[str, ...], str], DicomFile] = {}
    kept, copies = [], []
    for file, image in zip(files, described, strict=True):
        names = [file.text(_UID), _digest(file)] if alike[image] > 1 else []
        known = [(image, name) for name in names if name]
        original = next((first[key] for key in known if key in first), None)
        if original is None:
            kept.append(file)
        else:
            copies.append((file, original))
        for key in known:
            first.setdefault(key, original or file)
    return kept, copies


def _digest(file: DicomFile) -> str:
    """Digest of the pixels as they are stored."""
    assert file.pixels is not None
    return hashlib.sha256(file.path.read_bytes()[file.pixels[1] :]).hexdigest()


def require_same_pixels(copies: Sequence[tuple[DicomFile, DicomFile]]) -> None:
    """Refuse repeated files that show something else.

    Raises:
        ValueError: Two files of the same image have different pixels; the message names them.
    """
    for copy, original in copies:
        if not np.array_equal(stored_values(copy), stored_values(original)):
            raise ValueError(
                f"'{original.path}' and '{copy.path}' say that they are the same image but have different pixels: "
                "leave out the wrong one"
            )


def magnitudes(frames: Sequence[Frame]) -> tuple[list[Frame], tuple[str, ...]]:
    """Return the frames without phase, real and imaginary images, and a sentence where there were some.

    Raises:
        ValueError: There are no magnitude images, or slices in a mosaic; the message names the file or folder.
    """
    if any("MOSAIC" in frame.words for frame in frames):
        raise ValueError(f"'{frames[0].file.path}' is a mosaic of slices: export the series without mosaic")
    kept = [frame for frame in frames if not frame.words & _NO_MAGNITUDES]
    if not kept:
        raise ValueError(
            f"'{frames[0].file.path.parent}' has phase, real or imaginary images only: export the magnitude images"
        )
    left_out = len(frames) - len(kept)
    return kept, (f"{left_out} phase, real or imaginary images were left out",) if left_out else ()


def echoes_of(frames: Sequence[Frame]) -> tuple[list[list[Frame]], tuple[str, ...]]:
    """Return the frames of every echo, the first echo first, and a sentence where it is unclear what are echoes.

    Echoes have different echo times or, where these are unknown, different echo numbers, and equally many images.
    """
    times, numbers = [frame.echo_time_ms for frame in frames], [frame.echo for frame in frames]
    timed = None not in times
    values = times if timed else numbers
    if None in values:
        return [list(frames)], ()
    labels = clusters(np.array(values, float), _SAME_ECHO_MS)
    groups = [
        [frame for frame, label in zip(frames, labels, strict=True) if label == e] for e in range(max(labels) + 1)
    ]
    if len(groups) == 1:
        several = len(set(numbers)) > 1
        told = "the images have several echo numbers but the same echo time: they are taken as measurements of one echo"
        return groups, (told,) if several else ()
    if len({len(group) for group in groups}) > 1:
        counts = ", ".join(f"{_echo_name(group[0], timed)} ({len(group)} images)" for group in groups)
        return [list(frames)], (
            f"the echoes have unequal numbers of images, so all are taken as measurements: {counts}",
        )
    return groups, ()


def _echo_name(frame: Frame, timed: bool) -> str:
    return f"{frame.echo_time_ms:g} ms" if timed else f"echo {frame.echo:g}"


def first_echo(echoes: Sequence[Sequence[Frame]]) -> tuple[list[Frame], str]:
    """Return the frames of the first of several echoes, and a sentence about the others."""
    timed = echoes[0][0].echo_time_ms is not None
    listed = ", ".join(_echo_name(echo[0], timed) for echo in echoes)
    left_out = sum(map(len, echoes[1:]))
    return list(echoes[0]), (
        f"every measurement has {len(echoes)} echoes ({listed}): the first one was taken, and {left_out} images of the "
        "others were left out"
    )


def are_measured_once(echoes: Sequence[Sequence[Frame]]) -> bool:
    """Whether there are several echoes with one volume each, as in a measurement of T2."""
    return len(echoes) > 1 and images_at_a_place(echoes[0]) == 1
