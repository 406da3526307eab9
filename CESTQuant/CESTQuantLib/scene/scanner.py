"""Scanner files into the scene: a sequence with geometry and offsets, and the protocol as far as the files tell it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.scene import display, volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence, read_sequence, sequence_to_array
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .study import PROTOCOL_ATTRIBUTE, carried_protocol

if TYPE_CHECKING:
    from ..formats.scanner.scan import Scan
    from ..formats.scanner.sources import Offsets

_IMAGES = (".nii", ".nii.gz", ".hdr", ".img")
OPEN_PROTOCOL_ATTRIBUTE = "NeuroCEST.openProtocol"
"""Attribute of a node with a protocol that lacks offsets or field strength, which no method can use."""
APTW = "aptw"
"""Name of a finished map of APT weighting."""
_APTW_WINDOW = (-5.0, 5.0)


@dataclass(frozen=True)
class ImportedScan:
    """What an import has put into the scene.

    Attributes:
        node: Sequence node of the measurements, or the volume node of a scan of one image.
        protocol: Keys of a ``protocol.json``, null for what the files do not say; None for a scan without saturation.
        open: What is to be filled in: the meaning of every key that is null, by the key.
        report: Numbers for ``report.json``.
        warnings: Sentences for the user.
        files: Files that were read.
    """

    node: Any
    protocol: dict[str, Any] | None
    open: dict[str, str]
    report: dict[str, Any]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]


def import_scan(
    source: str | Path, scan: str | int | None, offsets: Offsets | None, name: str, progress: Progress
) -> ImportedScan:
    """Read a scan into the scene; after an error the scene is as it was.

    Args:
        source: Folder of a ParaVision study, scan or reconstruction; folder or file of DICOM images; or a NIfTI file
            with its JSON file (or given offsets), or a folder with such files.
        scan: Number of the scan or series, or name of a NIfTI file; None for the only one that can be meant.
        offsets: Offsets in ppm, or a file of them, instead of those that the files list.
        name: Name of the node; empty for that of the scan.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: There is no such scan, or a file is damaged; the message names the file.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            imported = _read_into_scene(source, scan, offsets, name, progress)
    except ValueError:
        for warning in caught:  # they may explain what is wrong
            warnings.warn(warning.message, stacklevel=2)
        raise
    told = [" ".join(str(warning.message).split()) for warning in caught if warning.category is UserWarning]
    return replace(imported, warnings=(*told, *imported.warnings))


def _read_into_scene(
    source: str | Path, scan: str | int | None, offsets: Offsets | None, name: str, progress: Progress
) -> ImportedScan:
    from ..formats.scanner.sources import image_in

    is_image = Path(source).name.lower().endswith(_IMAGES)
    image = Path(source) if is_image else image_in(source, None if scan is None else str(scan))
    if image is not None:
        with scene_unchanged_on_error():
            return _nifti_into_scene(image, offsets, name)

    def read(report: Progress) -> tuple[Scan, tuple[str, ...]]:
        from ..formats.scanner.sources import read_source

        report(0.1, "reading scanner files")
        return read_source(source, None if scan is None else str(scan), offsets)

    found, chosen = in_background(read, progress)
    with scene_unchanged_on_error():
        return _into_scene(found, chosen, name or (APTW if found.is_aptw_percent else f"scan {found.name}"))


def _into_scene(found: Scan, chosen: tuple[str, ...], name: str) -> ImportedScan:
    array, protocol = found.images.array, found.protocol
    converted: tuple[str, ...] = ()
    index: list[float] | None = None
    if protocol is not None:
        protocol, index, converted = _in_ppm(protocol)
    shape = array.shape[1:]
    geometry = Geometry.from_lps(shape, found.images.ijk_to_lps)
    node = _node(array, geometry, name, index)
    if found.is_aptw_percent:
        display.show_map(node, "%", "rainbow", _APTW_WINDOW)
    report = {
        "scan": found.description,
        "loops": [
            {"name": group.name, "comment": group.comment, "count": group.count} for group in found.images.groups
        ],
        "repetitions": found.repetitions,
    }
    return _imported(node, geometry, len(array), protocol, report, (*chosen, *found.notes, *converted), found.files)


def _nifti_into_scene(path: Path, offsets: Offsets | None, name: str) -> ImportedScan:
    from ..formats.offset_lists import read_offsets
    from ..formats.scanner.repetitions import repeated
    from ..formats.scanner.sidecar import protocol_of_sidecar, sidecar_of, unknown_protocol

    sidecar = sidecar_of(path)
    has_sidecar = offsets is None or sidecar.exists()
    protocol = protocol_of_sidecar(sidecar) if has_sidecar else unknown_protocol()
    read = read_sequence(path, name or None)
    array, geometry, _ = sequence_to_array(read)
    read_name = read.GetName()
    volumes.remove(read)
    told: tuple[str, ...] = ()
    if offsets is not None:
        if isinstance(offsets, str | Path):
            given, listed_in = read_offsets(offsets, protocol["field_strength_T"]).tolist(), f"'{offsets}'"
        else:
            given, listed_in = list(offsets), "the given list"
        protocol["offsets_ppm"], told = repeated(given, len(array), listed_in, f"'{path}'")
    protocol, index, converted = _in_ppm(protocol)
    listed = protocol["offsets_ppm"]
    if listed is not None and len(listed) != len(array):
        raise ValueError(f"'{sidecar}' gives {len(listed)} offsets but '{path}' has {len(array)} measurements")
    node = _node(array, geometry, read_name, index)
    files = (path, sidecar) if has_sidecar else (path,)
    return _imported(node, geometry, len(array), protocol, {"scan": path.name}, (*told, *converted), files)


def _in_ppm(protocol: dict[str, Any]) -> tuple[dict[str, Any], list[float] | None, tuple[str, ...]]:
    """The protocol with its offsets in ppm where they can only be in Hz, the offsets in ppm, and what is to be told.

    Offsets in Hz of an unknown field stay as they are, and are None in ppm: methods ask for the field.
    """
    import torch

    from ..formats.protocol_files import ASSUMED_FIELD_T
    from ..physics.protocol import Protocol
    from ..preprocessing.magnitudes import offsets_in_ppm

    listed, field_T = protocol.get("offsets_ppm"), protocol.get("field_strength_T")
    if not listed:
        return protocol, listed, ()
    offsets = torch.tensor(listed, dtype=torch.float64)
    nothing = torch.zeros_like(offsets)
    read = Protocol(
        field_T or ASSUMED_FIELD_T,
        offsets,
        b1_uT=nothing,
        saturation_time_s=nothing,
        larmor_frequency_MHz=protocol.get("larmor_frequency_MHz"),
    )
    converted, told = offsets_in_ppm(read, True, "the scan")
    if not told:
        return protocol, listed, ()
    if not field_T:
        found = f"the offsets of the scan ({min(listed):g} to {max(listed):g}) look like Hz, not ppm"
        return protocol, None, (f"{found}: they are converted as soon as field_strength_T is filled in",)
    in_ppm = converted.offsets_ppm.tolist()
    return {**protocol, "offsets_ppm": in_ppm}, in_ppm, tuple(told)


def _imported(
    node: Any,
    geometry: Geometry,
    measurements: int,
    protocol: dict[str, Any] | None,
    report: dict[str, Any],
    warnings: tuple[str, ...],
    files: tuple[Path, ...],
) -> ImportedScan:
    from ..formats.scanner.saturation import ASSUMPTIONS

    open_: dict[str, str] = {}
    if protocol is not None:
        open_ = {key: ASSUMPTIONS[key] for key, value in protocol.items() if value is None and key in ASSUMPTIONS}
        keep_protocol(node, protocol)
    summary = {
        **report,
        "measurements": measurements,
        "matrix": list(reversed(geometry.shape)),
        "spacing_mm": geometry.spacing.round(6).tolist(),
        "to_fill_in": open_,
    }
    return ImportedScan(node, protocol, open_, summary, warnings, files)


def keep_protocol(node: Any, protocol: dict[str, Any]) -> None:
    """Let a node keep what is known of its protocol; methods use it as soon as offsets and field strength are there.

    Args:
        node: Node of an imported scan.
        protocol: Keys of a ``protocol.json``, null for what is not known yet.
    """
    usable = protocol.get("offsets_ppm") is not None and protocol.get("field_strength_T") is not None
    for attribute, holds in ((PROTOCOL_ATTRIBUTE, usable), (OPEN_PROTOCOL_ATTRIBUTE, not usable)):
        if holds:
            node.SetAttribute(attribute, json.dumps(protocol))
        else:
            node.RemoveAttribute(attribute)


def kept_protocol(node: Any) -> dict[str, Any] | None:
    """Return what is known of the protocol of a node, with null for what is not; None without a protocol.

    Raises:
        ValueError: What the node carries is no JSON object.
    """
    text = node.GetAttribute(OPEN_PROTOCOL_ATTRIBUTE)
    return json.loads(text) if text else carried_protocol(node)


def _node(array: np.ndarray, geometry: Geometry, name: str, offsets_ppm: list[float] | None) -> Any:
    """Add a volume node of one image, or a sequence node of several, by their offsets or their numbers."""
    if offsets_ppm is not None:
        return array_to_sequence(array, geometry, name, offsets_ppm)
    if len(array) == 1:
        return volumes.add_volume(array[0], geometry, name)
    return array_to_sequence(array, geometry, name, range(1, len(array) + 1), "measurement", "")
