"""Protocol of a DICOM series: what its elements say, and what is given or lies beside the images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.headers.dicom_elements import DicomFile, first_number

from ...offset_lists import read_offsets
from ...protocol_files import read_protocol
from ...protocol_json import SAME_MAGNET, protocol_to_dict
from ...pulseq.field import STRONGEST_T
from ..repetitions import repeated
from ..saturation import field_of_larmor
from .series import Series, dicom_files, has_dicom
from .siemens import measurement_protocol, wip_offsets

_FIELD, _FREQUENCIES = (0x0018, 0x0087), ((0x0018, 0x0084), (0x0018, 0x9098))
_SAME_FIELD = 0.01
"""Largest relative difference of two fields that count as the same."""
_WEAKEST_T = 0.1
"""Weakest field in T that a number in a wrong unit is converted to."""
_LISTS = ("LIST.txt", "offsets.txt", "offsets_ppm.txt")
"""Text files of offsets that are looked for beside the images."""
_REMEDY = "give the one of this series with --offsets"


def protocol_of_series(
    series: Series, source: Path, offsets: Sequence[float] | str | Path | None, count: int
) -> tuple[dict[str, Any], list[str], list[Path]]:
    """Return what is known of the protocol of a series.

    Args:
        series: The series.
        source: Folder or file where pulseq file and list are looked for.
        offsets: Offsets in ppm of one repetition, or a ``.seq`` or text file of them; None to look for them.
        count: Number of its volumes.

    Returns:
        Keys of a ``protocol.json``, None for what nothing says; sentences for the user; and the files that were read
        beside the images.

    Raises:
        ValueError: A file is damaged, several could be meant, or offsets and volumes differ in number; the message
            names it.
    """
    magnet, magnet_told = _open_protocol(series.files[0])
    protocol, told, used = _with_saturation(magnet, series, source, offsets, count)
    return protocol, [*magnet_told, *told], used


def _open_protocol(file: DicomFile) -> tuple[dict[str, Any], list[str]]:
    """Keys of a protocol with what a DICOM file says of it, field and frequency, and sentences for the user."""
    given_larmor, given_field = first_number(file, *_FREQUENCIES), first_number(file, _FIELD)
    larmor, larmor_told = _of_a_magnet(given_larmor, "ImagingFrequency", "MHz", field_of_larmor(1.0), ("Hz", 1e6))
    field, field_told = _of_a_magnet(given_field, "MagneticFieldStrength", "T", 1.0, ("gauss", 1e4))
    told = [f"'{file.path}': {sentence}" for sentence in (*larmor_told, *field_told)]
    if larmor is not None:
        of_larmor = field_of_larmor(larmor)
        if field is not None and not math.isclose(of_larmor, field, rel_tol=SAME_MAGNET):
            told.append(
                f"'{file.path}': ImagingFrequency is that of {of_larmor:.4g} T but MagneticFieldStrength is "
                f"{field:.4g} T; the frequency counts, so check field_strength_T"
            )
        field = of_larmor
    return {
        "field_strength_T": field,
        "larmor_frequency_MHz": larmor,
        **dict.fromkeys(("offsets_ppm", "b1_uT", "saturation_type", "saturation_time_s", "post_delay_s")),
        **dict.fromkeys(("magnetisation_carried_over", "recovery_time_s", "readout_flip_angle_deg")),
        "signal_normalisation": "m0",
    }, told


def _of_a_magnet(
    value: float | None, name: str, unit: str, field_T: float, other: tuple[str, float]
) -> tuple[float | None, list[str]]:
    """A positive value of an element in its unit, and a sentence where it is converted to it or not used.

    Args:
        value: Value of the element.
        name: Name of the element.
        unit: Unit that DICOM prescribes.
        field_T: Field in T of a value of 1.
        other: Unit that some scanners and converters write instead, and how many of it are one of the prescribed.
    """
    if value is None or value <= 0:
        return None, []
    if value * field_T <= STRONGEST_T:
        return value, []
    shown = f"{name} is {value:.12g}, which no magnet has in {unit}"
    converted = value / other[1]
    if _WEAKEST_T <= converted * field_T <= STRONGEST_T:
        return converted, [f"{shown}: it is taken to be in {other[0]}, {converted:g} {unit}"]
    return None, [f"{shown}, and is not used: fill in field_strength_T if it is open"]


def _with_saturation(
    protocol: dict[str, Any], series: Series, source: Path, offsets: Sequence[float] | str | Path | None, count: int
) -> tuple[dict[str, Any], list[str], list[Path]]:
    """A protocol with what is known of the saturation, sentences for the user, and the files it comes from."""
    siemens = measurement_protocol(series.files[0])
    folder = source if source.is_dir() else source.parent
    if isinstance(offsets, str | Path):
        return _of_file(Path(offsets), protocol, count)
    if offsets is not None:
        given, told = repeated(list(offsets), count, "the given list", "the series")
        return {**protocol, "offsets_ppm": given}, [*told], []
    sequences, lists, unused = _described_in(series, folder)
    if len(sequences) > 1:
        raise ValueError(f"'{folder}' has several pulseq files ({_named(sequences, folder)}): {_REMEDY}")
    if sequences:
        return _of_file(sequences[0], protocol, count)
    values = read_offsets(lists[0], protocol["field_strength_T"]).tolist() if len(lists) == 1 else None
    private = wip_offsets(siemens, count, values)
    if private is not None and len(private) == count:
        note = f"the offsets are those of the private elements of the sequence '{siemens['tSequenceFileName']}'"
        if values == private:
            return {**protocol, "offsets_ppm": private}, [note], lists
        if lists:
            note += f", and {_named(lists, folder)} is not used: give it with --offsets if it is the right one"
        return {**protocol, "offsets_ppm": private}, [note], []
    if len(lists) > 1:
        raise ValueError(f"'{folder}' has several lists of offsets ({_named(lists, folder)}): {_REMEDY}")
    if values is not None:
        return _of_file(lists[0], protocol, count)
    if count == 1:
        return protocol, ["no saturation was found, so this is an image: with --offsets it becomes a CEST signal"], []
    played = next((value for value in siemens.values() if value.lower().endswith(".seq")), "")
    other = f"; beside images of other series, and not used: {_named(unused, folder)}" if unused else ""
    note = (
        "no file says the offsets: fill in offsets_ppm, or give them with --offsets"
        f"{f' ({played})' if played else ''}{other}"
    )
    return protocol, [note], []


def _described_in(series: Series, folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Pulseq files and lists of offsets nearest to the images of a series, and files that belong to other series.

    The folders of the images come first, then those around them up to ``folder``, then all others below it.
    """
    candidates = [path for path in sorted(folder.rglob("*")) if _may_say_offsets(path)]
    own = {file.path.parent for file in (*series.files, *(copy for copy, _ in series.copies))}
    level, around = own, set(own)
    of_others: list[Path] = []
    while level:
        found = [path for path in candidates if path.parent in level]
        usable = [path for path in found if path.parent in own or not _holds_images(path.parent)]
        if usable:
            return *_by_kind(usable), of_others
        of_others += found
        level = {place.parent for place in level if folder in place.parents}
        around |= level
    elsewhere = [path for path in candidates if path.parent not in around]
    of_others += [path for path in elsewhere if has_dicom(path.parent)]
    return *_by_kind([path for path in elsewhere if path not in of_others]), of_others


def _may_say_offsets(path: Path) -> bool:
    return (path.suffix.lower() == ".seq" or path.name in _LISTS) and path.is_file()


def _holds_images(folder: Path) -> bool:
    """Whether DICOM files lie in a folder itself."""
    return any(path.parent == folder for path in dicom_files(folder))


def _by_kind(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pulseq files and lists, of files with the same content the first one only."""
    first: dict[bytes, Path] = {}
    for path in paths:
        first.setdefault(path.read_bytes(), path)
    sequences = [path for path in first.values() if path.suffix.lower() == ".seq"]
    return sequences, [path for path in first.values() if path not in sequences]


def _named(paths: Sequence[Path], folder: Path) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def _of_file(path: Path, protocol: dict[str, Any], count: int) -> tuple[dict[str, Any], list[str], list[Path]]:
    """The protocol with the offsets of a text file, or with all that a pulseq file says."""
    if path.suffix.lower() != ".seq":
        offsets = read_offsets(path, protocol["field_strength_T"]).tolist()
        listed, repetitions = repeated(offsets, count, f"'{path}'", "the series")
        return {**protocol, "offsets_ppm": listed}, [f"the offsets are those of '{path}'", *repetitions], [path]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        played = protocol_to_dict(read_protocol(path))
    told = [" ".join(str(warning.message).split()) for warning in caught if warning.category is UserWarning]
    if len(played["offsets_ppm"]) != count:
        raise ValueError(
            f"'{path}' has {len(played['offsets_ppm'])} measurements but the series has {count} volumes: choose the "
            "series that was played with it, or give the offsets with --offsets"
        )
    return played, [f"the protocol is that of '{path}'", *told, *_other_field(path, protocol, played)], [path]


def _other_field(path: Path, protocol: dict[str, Any], played: dict[str, Any]) -> list[str]:
    """A sentence where the scanner's field is not that of a pulseq file."""
    scanner, nominal = protocol["field_strength_T"], played["field_strength_T"]
    if scanner is None or abs(scanner - nominal) <= _SAME_FIELD * nominal:
        return []
    larger = 100 * (nominal / scanner - 1)
    return [
        f"'{path}' was written for {nominal:g} T but the images are from a scanner of {scanner:.4g} T: if it played "
        f"the frequencies as they stand in the file, the offsets in ppm are {abs(larger):.1f} % "
        f"{'larger' if larger > 0 else 'smaller'} than the protocol says; check that the file belongs to the images"
    ]
