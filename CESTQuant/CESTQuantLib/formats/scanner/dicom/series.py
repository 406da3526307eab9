"""Series of DICOM files: which there are, and one of them with its images and protocol."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from NeuroCESTLib.core.headers.dicom import is_dicom

from ...protocol_files import read_offsets, read_protocol
from ...protocol_json import SAME_MAGNET, protocol_to_dict
from ...pulseq.field import STRONGEST_T
from ..repetitions import repeated
from ..saturation import field_of_larmor
from ..scan import Scan
from .elements import DicomFile, first_number, first_text, read_elements
from .frames import Frame, frames_of
from .selection import are_measured_once, echoes_of, first_echo, magnitudes, require_same_pixels, without_copies
from .siemens import measurement_protocol, wip_offsets
from .volumes import arrange, images_at_a_place

_SERIES, _NUMBER = (0x0020, 0x000E), (0x0020, 0x0011)
_NAMES = ((0x0008, 0x103E), (0x0018, 0x1030))
_MANUFACTURER, _MODALITY = (0x0008, 0x0070), (0x0008, 0x0060)
_FIELD, _FREQUENCIES = (0x0018, 0x0087), ((0x0018, 0x0084), (0x0018, 0x9098))
_APTW = re.compile(r"apt[-_ ]?w|asymmetry|amide", re.IGNORECASE)
_CEST = re.compile(r"cest|apt|wasab|wassr|z[-_ ]?spec", re.IGNORECASE)
_SAME_FIELD = 0.01
"""Largest relative difference of two fields that count as the same."""
_WEAKEST_T = 0.1
"""Weakest field in T that a number in a wrong unit is converted to."""
_MOST_PERCENT = 100.0
"""Largest magnitude that the bulk of a map in percent can have."""
_LISTS = ("LIST.txt", "offsets.txt", "offsets_ppm.txt")
"""Text files of offsets that are looked for beside the images."""
_REMEDY = "give the one of this series with --offsets"


@dataclass(frozen=True)
class Series:
    """Files of a series.

    Attributes:
        number: Number of the series.
        name: Its description.
        manufacturer: Manufacturer of the scanner.
        files: Its files.
        frames: Number of images.
        numbers: Numbers of the series that it was joined from; empty for a single one.
        copies: Files that were left out because they repeat others, each with the one that it repeats.
    """

    number: str
    name: str
    manufacturer: str
    files: tuple[DicomFile, ...]
    frames: int
    numbers: tuple[str, ...] = ()
    copies: tuple[tuple[DicomFile, DicomFile], ...] = ()

    def description(self) -> str:
        """Return number, name, manufacturer and number of images in words."""
        scanner = self.manufacturer or "unknown scanner"
        return f"{self.number}: {self.name or 'without name'} ({scanner}, {self.frames} images)"

    def is_called_cest(self) -> bool:
        """Whether its name says that it is a CEST, WASABI or WASSR acquisition."""
        return _CEST.search(self.name) is not None


def has_dicom(source: str | Path) -> bool:
    """Whether a file is a DICOM file, or a folder holds one."""
    return next(_dicom_files(Path(source)), None) is not None


def _dicom_files(source: Path) -> Iterator[Path]:
    candidates = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return (path for path in candidates if path.name != "DICOMDIR" and is_dicom(path))


def series_in(source: str | Path) -> list[Series]:
    """Return the series of images in a folder, by their numbers.

    Raises:
        ValueError: A file is damaged; the message names it.
    """
    found: dict[str, list[DicomFile]] = {}
    for path in _dicom_files(Path(source)):
        file = read_elements(path)
        if file.pixels is not None:
            found.setdefault(file.text(_SERIES), []).append(file)
    series = [_series(files) for files in found.values()]
    return sorted(series, key=lambda one: (float(one.number) if one.number.isdecimal() else np.inf, one.name))


def _series(files: list[DicomFile]) -> Series:
    first = files[0]
    files, copies = without_copies(files)
    frames = sum(int((file.numbers((0x0028, 0x0008)) or [1])[0]) for file in files)
    name = first_text(first, *_NAMES)
    return Series(first.text(_NUMBER), name, first.text(_MANUFACTURER), tuple(files), frames, copies=tuple(copies))


def choose_series(source: str | Path, scan: str | None) -> tuple[Series, tuple[str, ...]]:
    """Find the series that is meant.

    Args:
        source: Folder or file.
        scan: Number or name of the series, or a range of numbers (``5-35``) of series to join; None for the only one,
            or the only one that is called after CEST.

    Returns:
        The series, and a sentence for the user where it was chosen among others.

    Raises:
        ValueError: There is no such series, or several could be meant; the message lists what is there.
    """
    series = series_in(source)
    if not series:
        raise ValueError(f"'{source}' has no DICOM images")
    listed = "; ".join(one.description() for one in series)
    if scan is not None:
        if joined := _joined(series, scan):
            return joined, (f"{len(joined.numbers)} series are joined in the order of their numbers: {joined.number}",)
        named = [one for one in series if scan in (one.number, one.name)]
        if len(named) == 1:
            return named[0], ()
        problem = "several series" if named else "no series"
        raise ValueError(f"'{source}' has {problem} {scan}; its series are {listed}")
    if len(series) == 1:
        return series[0], ()
    candidates = [one for one in series if one.is_called_cest()]
    if len(candidates) == 1:
        return candidates[0], (
            f"series {candidates[0].number} is the only one that is called after CEST among {listed}",
        )
    raise ValueError(f"'{source}' has {len(series)} series; choose one with --scan: {listed}")


def _joined(series: list[Series], scan: str) -> Series | None:
    """The series of a range of numbers, such as ``5-35``, as one; None where ``scan`` is no such range."""
    bounds = re.fullmatch(r"(\d+)-(\d+)", scan)
    if bounds is None:
        return None
    first, last = int(bounds[1]), int(bounds[2])
    inside = [one for one in series if one.number.isdecimal() and first <= int(one.number) <= last]
    if len(inside) < 2:
        return None
    files = tuple(file for one in inside for file in one.files)
    copies = tuple(pair for one in inside for pair in one.copies)
    numbers = tuple(one.number for one in inside)
    frames = sum(one.frames for one in inside)
    return Series(scan, inside[0].name, inside[0].manufacturer, files, frames, numbers, copies)


def read_series(series: Series, source: str | Path, offsets: Sequence[float] | str | Path | None = None) -> Scan:
    """Read the images of a series and what is known of its saturation.

    The offsets are those that are given; else those of the only pulseq file, or of a list, beside the images; else
    those of a private element of Siemens.

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
    magnet, magnet_told = _open_protocol(series.files[0])
    protocol, known, used = _protocol(series, Path(source), offsets, count, magnet)
    return Scan(
        series.number,
        series.description(),
        images,
        protocol if count > 1 or offsets is not None else None,
        (*files, *used),
        notes=(*notes, *_map_name_told(series, frames, count), *magnet_told, *known),
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


def _protocol(
    series: Series,
    source: Path,
    offsets: Sequence[float] | str | Path | None,
    count: int,
    protocol: dict[str, Any],
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
        return {**protocol, "offsets_ppm": private}, [note], lists if values == private else []
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
    return any(path.parent == folder for path in _dicom_files(folder))


def _by_kind(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Pulseq files and lists, of files with the same content the first one only."""
    first: dict[bytes, Path] = {}
    for path in paths:
        first.setdefault(path.read_bytes(), path)
    sequences = [path for path in first.values() if path.suffix.lower() == ".seq"]
    return sequences, [path for path in first.values() if path not in sequences]


def _named(paths: Sequence[Path], folder: Path) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


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
