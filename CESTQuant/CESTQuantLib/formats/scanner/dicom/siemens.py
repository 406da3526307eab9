"""What Siemens writes into private elements: the measurement protocol as text, and the offsets of WIP sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from NeuroCESTLib.core.headers.dicom_elements import DicomFile, Element, Elements

_BEGIN, _END = b"### ASCCONV BEGIN", b"### ASCCONV END ###"
_M0_PPM = -300.0
_REGULAR, _ALTERNATING, _LIST, _SINGLE = 1, 2, 3, 4
_PLACES = ((7, 9), (8, 10))
"""Places of the kind of sampling and of the number of measurements in ``alFree``, which differ by revision."""


def measurement_protocol(file: DicomFile) -> dict[str, str]:
    """Return the measurement protocol by name, such as ``sWipMemBlock.alFree[7]``; empty where there is none."""
    for element in _elements(file, file.elements):
        begin = element.content.find(_BEGIN)
        end = element.content.find(_END, begin)
        if begin < 0 or end < 0:
            continue
        text = element.content[begin:end].decode("latin-1")
        lines = re.findall(r"^\s*([\w.\[\]]+)\s*=\s*(.*?)\s*$", text, flags=re.MULTILINE)
        return {
            re.sub("swipmemblock", "sWipMemBlock", name, flags=re.IGNORECASE): value.strip('"') for name, value in lines
        }
    return {}


def _elements(file: DicomFile, elements: Elements) -> Iterator[Element]:
    """All elements that may hold text, those of sequences included."""
    for tag, element in elements.items():
        if element.items is not None or element.kind == b"SQ":
            for item in file.sequence(tag, elements):
                yield from _elements(file, item)
        else:
            yield element


def wip_offsets(protocol: dict[str, str], measurements: int, listed: Iterable[float] | None) -> list[float] | None:
    """Return the offsets in ppm of the CEST sequence of the DKFZ (``CEST_Rev…``), or None for other sequences.

    The first measurement is M0 at -300 ppm; the others are spread regularly between minus and plus the offset.

    Args:
        protocol: Measurement protocol.
        measurements: Number of volumes of the series.
        listed: Offsets of a file ``LIST.txt`` beside the images, which the sequence may have played, or None.
    """
    if "CEST_Rev" not in protocol.get("tSequenceFileName", ""):
        return None
    for sampling_place, count_place in _PLACES:
        sampling = _number(protocol, f"sWipMemBlock.alFree[{sampling_place}]")
        if sampling == _LIST and listed is not None:
            return list(listed)
        if _number(protocol, f"sWipMemBlock.alFree[{count_place}]") != measurements or measurements < 3:
            continue
        largest = _number(protocol, "sWipMemBlock.adFree[1]")
        if largest is None or sampling not in (_REGULAR, _ALTERNATING, _SINGLE):
            continue
        regular = [-largest + 2 * step * largest / (measurements - 2) for step in range(measurements - 1)]
        if sampling == _ALTERNATING:
            outside_in = sorted((abs(offset) for offset in regular), reverse=True)
            regular = [(-1) ** place * offset for place, offset in enumerate(outside_in)]
        if sampling == _SINGLE:
            regular = [largest] * (measurements - 1)
        return [_M0_PPM, *(round(offset, 6) for offset in regular)]
    return None


def _number(protocol: dict[str, str], name: str) -> float | None:
    try:
        return float(protocol[name])
    except (KeyError, ValueError):
        return None
