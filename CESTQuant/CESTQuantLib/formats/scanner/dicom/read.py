"""A series of DICOM files as a scan: an acquisition with its protocol, images, or a finished map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from NeuroCESTLib.core.headers.dicom_frames import Frame, frames_of

from ..scan import Scan
from .protocol import protocol_of_series
from .selection import are_measured_once, echoes_of, first_echo, magnitudes, require_same_pixels
from .series import Series
from .volumes import arrange, images_at_a_place

_APTW = re.compile(r"apt[-_ ]?w|asymmetry|amide", re.IGNORECASE)
_MOST_PERCENT = 100.0
"""Largest magnitude that the bulk of a map in percent can have."""


def read_series(series: Series, source: str | Path, offsets: Sequence[float] | str | Path | None = None) -> Scan:
    """Read the images of a series and what is known of its saturation.

    The offsets are those that are given; else those of the only pulseq file beside the images; else those of a private
    element of Siemens; else those of a list beside the images.

    Args:
        series: The series.
        source: Folder where pulseq file and list are looked for, in the folders nearest to the images first.
        offsets: Offsets in ppm of one repetition, or a ``.seq`` or text file of them; None to look for them.

    Raises:
        ValueError: A file is damaged, the images do not fill one grid, or offsets and images differ in number.
    """
    require_same_pixels(series.copies)
    frames, notes = magnitudes([frame for file in series.files for frame in frames_of(file)])
    notes = (*_copies_told(series), *notes)
    if offsets is None and _looks_like_map(series, frames):
        return _aptw_map(series, frames, notes)
    echoes, told = echoes_of(frames)
    is_image = are_measured_once(echoes) and offsets is None
    if len(echoes) > 1 and not is_image:
        frames, left_out = first_echo(echoes)
        told = (left_out,)
    images = arrange(frames)
    count = len(images.array)
    notes = (*notes, *told, *images.notes)
    if count > 1:
        notes = (f"the {count} volumes are {images.groups[0].comment}", *notes)
    files = tuple(file.path for file in series.files)
    if is_image:
        notes = (*notes, "every echo was measured once, so these are images: with --offsets they become a CEST signal")
        return Scan(series.number, series.description(), images, None, files, notes=notes)
    protocol, known, used = protocol_of_series(series, Path(source), offsets, count)
    return Scan(
        series.number,
        series.description(),
        images,
        protocol if count > 1 or offsets is not None else None,
        (*files, *used),
        notes=(*notes, *_map_name_told(series, frames, count), *known),
    )


def _copies_told(series: Series) -> tuple[str, ...]:
    if not series.copies:
        return ()
    copy, original = series.copies[0]
    return (f"{len(series.copies)} files repeat others and were left out, such as '{copy.path}' of '{original.path}'",)


def _looks_like_map(series: Series, frames: list[Frame]) -> bool:
    """Whether a series is a finished map of APT weighting: called so, and a single volume."""
    return _APTW.search(series.name) is not None and images_at_a_place(frames) == 1


def _map_name_told(series: Series, frames: list[Frame], count: int) -> tuple[str, ...]:
    """A sentence where an acquisition has the name and type of a finished map."""
    derived = any("DERIVED" in frame.words or any("APT" in word for word in frame.words) for frame in frames)
    if not derived or not _APTW.search(series.name):
        return ()
    return (
        f"'{series.name}' is derived from other images and called like a finished map, but taken as an acquisition of "
        f"{count} volumes",
    )


def _aptw_map(series: Series, frames: list[Frame], notes: tuple[str, ...]) -> Scan:
    images = arrange(frames, quantitative=False)
    largest = float(np.percentile(np.abs(images.array), 95))
    percent = largest <= _MOST_PERCENT
    note = (
        f"'{series.name}' is a finished map of {series.manufacturer or 'the scanner'} and taken as percent, as its "
        "rescaling gives it: compare a region with the scanner's display"
        if percent
        else f"'{series.name}' is a finished map, but values up to {largest:.0f} are no percent: its scale is unknown"
    )
    files = tuple(file.path for file in series.files)
    return Scan(
        series.number,
        series.description(),
        images,
        None,
        files,
        notes=(*notes, *images.notes, note),
        is_aptw_percent=percent,
    )
