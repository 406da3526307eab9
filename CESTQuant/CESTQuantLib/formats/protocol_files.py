"""Protocols from files: ``protocol.json``, pulseq ``.seq`` or a text file of offsets."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import read_json, read_text

from ..physics.protocol import Protocol
from .protocol_json import protocol_from_dict
from .pulseq import read_seq

_REMEDY = "give a protocol .json, a text file of offsets in ppm, or a .seq"


def read_offsets(path: str | Path) -> Tensor:
    """Read offsets in ppm from a text file.

    Args:
        path: Text file with numbers separated by line breaks, spaces or commas; blank lines and ``#`` comments are
            allowed.

    Returns:
        float64 of shape (measurement,).

    Raises:
        ValueError: The file cannot be read, or holds something else; the message names the file and the line.
    """
    path = Path(path)
    offsets = []
    for line_number, line in enumerate(read_text(path, _REMEDY).splitlines(), start=1):
        for word in line.split("#")[0].replace(",", " ").split():
            try:
                offsets.append(float(word))
            except ValueError:
                raise ValueError(f"{path}: line {line_number} holds '{word}', which is not an offset in ppm") from None
            if not math.isfinite(offsets[-1]):
                raise ValueError(f"{path}: line {line_number} holds '{word}', which is not finite")
    if not offsets:
        raise ValueError(f"{path}: no offsets found; give one number in ppm per line")
    return torch.tensor(offsets, dtype=torch.float64)


def read_protocol(path: str | Path, field_strength_T: float = 3.0) -> Protocol:
    """Read a protocol from ``.json``, pulseq ``.seq`` or a text file of offsets.

    Args:
        path: File. A text file does not give B1 and durations: they are set to 0, which suffices for contrasts and
            Lorentzian fits and is refused by the physical models.
        field_strength_T: Static field in T of a text file.

    Raises:
        ValueError: The file cannot be read or used; the message names it.
    """
    path = Path(path)
    if path.suffix == ".json":
        return protocol_from_dict(read_json(path, _REMEDY), str(path))
    if path.suffix == ".seq":
        return read_seq(path)
    nothing = torch.zeros(1, dtype=torch.float64)
    return Protocol(field_strength_T, read_offsets(path), b1_uT=nothing, saturation_time_s=nothing)
