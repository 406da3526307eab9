"""Protocols of saturation-transfer preparations from pulseq sequence files (.seq)."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from ...physics.protocol import Protocol
from ...physics.units import GAMMA_RAD_PER_S_PER_UT
from .events import played_events
from .field import SAME_FIELD, field_of_definitions
from .protocol import protocol_of
from .rules import RULES
from .sequence import PlayedSequence
from .text import Definitions, SequenceFile, read_sequence_file


def read_seq(
    path: str | Path,
    gamma_rad_per_s_per_uT: float | None = None,
    field_strength_T: float | None = None,
    *,
    rules: str = RULES[0],
    carried_over: bool | None = None,
) -> Protocol:
    """Read the protocol of a pulseq file, which is played as it is written.

    A file whose measurements are equal trains, or single blocks, becomes a protocol of offsets, B1 and durations. That
    is checked of every pulse: envelope, amplitude, frequency, phase and the gaps around it. Everything else becomes a
    protocol with :attr:`.Protocol.events`. What is guessed or left out, and contradictions within the file or between
    the file and the arguments, are named in warnings.

    Where the samples follow an excitation, the magnetisation is carried over; otherwise every measurement starts at
    equilibrium, as in the pulseq-cest library.

    Args:
        path: pulseq file.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT), which converts the Hz of the file into uT and ppm; by
            default the definition in the file, or that of the proton.
        field_strength_T: Static field in T at which the file is played; by default the definition ``B0`` of the file
            in any case, or its ``FREQ`` in MHz.
        rules: ``"pulseq-cest"`` or ``"pulseq"``, see :func:`.played_events`.
        carried_over: Whether a measurement starts from what the last one left; None decides as above.

    Raises:
        ValueError: The file cannot be read or played; the message names the file.
    """
    path = Path(path)
    file = read_sequence_file(path)
    return protocol_of_file(
        file, path, gamma_rad_per_s_per_uT, field_strength_T, rules=rules, carried_over=carried_over
    )


def protocol_of_file(
    file: SequenceFile,
    path: Path,
    gamma_rad_per_s_per_uT: float | None = None,
    field_strength_T: float | None = None,
    *,
    rules: str = RULES[0],
    carried_over: bool | None = None,
) -> Protocol:
    """Return the protocol of a file that has been read; the arguments are those of :func:`read_seq`.

    Raises:
        ValueError: The file cannot be played; the message names ``path``.
    """
    notes: list[str] = []
    try:
        gamma = gamma_rad_per_s_per_uT or file.definitions.number("gamma_rad_per_s_per_uT") or GAMMA_RAD_PER_S_PER_UT
        field = _field(file.definitions, gamma, field_strength_T, notes)
        played = played_events(file, field, gamma, rules)
        notes += played.notes
        sequence = PlayedSequence(file.definitions, played.events, field, gamma, carried_over)
        protocol = protocol_of(sequence, notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    return protocol


def _field(definitions: Definitions, gamma: float, wanted: float | None, notes: list[str]) -> float:
    stated = field_of_definitions(definitions, gamma, notes)
    if wanted is None:
        if stated is None:
            raise ValueError("the definition B0 is missing; add it to the file or give a protocol.json")
        return stated
    if stated is not None and not math.isclose(stated, wanted, rel_tol=SAME_FIELD):
        notes.append(
            f"the file is made for {stated:g} T but is played at {wanted:g} T, where its frequencies in Hz are other "
            "offsets in ppm; make the two fields equal"
        )
    return wanted
