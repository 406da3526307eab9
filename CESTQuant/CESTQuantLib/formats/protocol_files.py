"""Protocols from files: ``protocol.json``, pulseq ``.seq`` or a text file of offsets."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from NeuroCESTLib.core.checked_json import read_json

from ..physics.protocol import Protocol
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .offset_lists import REMEDY, read_offsets
from .protocol_json import protocol_from_dict
from .pulseq.field import field_of_definitions
from .pulseq.read import protocol_of_file
from .pulseq.text import read_sequence_file

ASSUMED_FIELD_T = 3.0
"""Static field of a protocol that gives only offsets; methods that work with offsets alone do not use it."""


def gives_field(path: str | Path) -> bool:
    """Whether the protocol in a file has a field strength; a text file of offsets has none."""
    return Path(path).suffix.lower() in (".json", ".seq")


def read_protocol(path: str | Path, field_strength_T: float | None = None) -> Protocol:
    """Read a protocol from ``.json``, pulseq ``.seq`` or a text file of offsets.

    Args:
        path: File. A text file does not give B1 and durations: they are set to 0, which suffices for contrasts and
            Lorentzian fits and is refused by the physical models. The same holds, with a warning, for a ``.seq`` that
            says its offsets but cannot be played.
        field_strength_T: Static field in T of a text file; without it, 3 T is assumed.

    Raises:
        ValueError: The file cannot be read or used; the message names it.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return protocol_from_dict(read_json(path, REMEDY), str(path))
    if path.suffix.lower() == ".seq":
        return _protocol_of_sequence(path)
    nothing = torch.zeros(1, dtype=torch.float64)
    field_T = ASSUMED_FIELD_T if field_strength_T is None else field_strength_T
    return Protocol(field_T, read_offsets(path, field_strength_T), b1_uT=nothing, saturation_time_s=nothing)


def _protocol_of_sequence(path: Path) -> Protocol:
    """The protocol of a pulseq file, or its offsets alone where it cannot be played."""
    file = read_sequence_file(path)
    try:
        return protocol_of_file(file, path)
    except ValueError as error:
        offsets = file.definitions.numbers("offsets_ppm")
        if offsets is None:
            raise
        field = field_of_definitions(file.definitions, GAMMA_RAD_PER_S_PER_UT)
        warnings.warn(f"{error}; only its offsets are used", stacklevel=3)
    nothing = torch.zeros(1, dtype=torch.float64)
    return Protocol(field or ASSUMED_FIELD_T, torch.tensor(offsets, dtype=torch.float64), nothing, nothing)
