"""Saturation offsets of the measurements of a pulseq file."""

from __future__ import annotations

import numpy as np

from ..protocol_json import SAME_OFFSET_PPM
from .sequence import PlayedSequence

_M0_OFFSET_PPM = -300.0
"""Offset in ppm of an M0 image without RF whose offset the file does not say."""


def played_offsets(sequence: PlayedSequence, notes: list[str]) -> list[float]:
    """Return the offsets in ppm at which is played longest; those of the definitions only where this is open."""
    stated = _stated_offsets(sequence)
    offsets, differing = [], []
    scale = 1.0 if sequence.from_protocol else sequence.scale_of_field()
    for m, saturation in enumerate(sequence.saturations):
        frequencies = sequence.events.longest_Hz(m)
        played = [frequency / sequence.hz_per_ppm for frequency in frequencies]
        if stated is not None and (not played or len(played) > 1):
            offsets.append(stated[m])
            continue
        offsets.append(played[0] if played else _m0_offset_ppm(sequence))
        if stated is None:
            continue
        every = [play.frequency_Hz / sequence.hz_per_ppm for play in saturation.plays]
        nearest = min(every, key=lambda offset: abs(offset * scale - stated[m]))
        if abs(nearest * scale - stated[m]) <= max(SAME_OFFSET_PPM, 1e-3 * abs(stated[m])):
            offsets[m] = nearest  # not the offset of a preparation that takes longer
        else:
            differing.append(m)
    if stated is not None and differing:
        m = differing[0]
        where = "" if scale == 1 else f" at {sequence.field_T / scale:g} T"
        notes.append(
            f"measurement {m + 1} plays {offsets[m] * scale:.4g} ppm{where} but offsets_ppm says {stated[m]:.4g}; "
            "what is played counts"
        )
    if stated is None and sequence.silent.any():
        numbers = ", ".join(str(m + 1) for m in np.flatnonzero(sequence.silent))
        notes.append(
            f"no offset is known of the measurements without RF ({numbers}), which are taken for M0 images at "
            f"{_m0_offset_ppm(sequence):g} ppm; add the definition offsets_ppm or M0_offset"
        )
    return offsets


def _m0_offset_ppm(sequence: PlayedSequence) -> float:
    """Offset of M0 images without RF that offsets_ppm does not list."""
    stated = sequence.definitions.number("M0_offset")
    return _M0_OFFSET_PPM if stated is None else stated


def _stated_offsets(sequence: PlayedSequence) -> list[float] | None:
    """The offsets of the definitions; None where they do not belong to the measurements.

    The list may be played several times, and measurements without RF that are not in it are M0 images.
    """
    stated = sequence.definitions.numbers("offsets_ppm")
    if stated is None:
        return None
    unsaturated = _m0_offset_ppm(sequence)
    if len(stated) + 1 == len(sequence.saturations) and sequence.silent.sum() == 1:
        stated.insert(int(sequence.silent.argmax()), unsaturated)
    passes, over = divmod(len(sequence.saturations), len(stated))
    if not over:
        return stated * passes
    for m in range(len(stated), len(sequence.saturations)):
        played = sequence.events.longest_Hz(m)
        stated.append(played[0] / sequence.hz_per_ppm * sequence.scale_of_field() if played else unsaturated)
    return stated if len(stated) == len(sequence.saturations) else None
