"""Scanner files into the scene: a sequence with geometry and offsets, and the protocol as far as the files tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.background import in_background
from NeuroCESTLib.core.progress import Progress
from NeuroCESTLib.scene import volumes
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.transaction import scene_unchanged_on_error

from .study import PROTOCOL_ATTRIBUTE

if TYPE_CHECKING:
    from ..formats.scanner.study import Scan


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
    source: str | Path,
    scan: str | int | None,
    offsets_ppm: Sequence[float] | None,
    name: str,
    progress: Progress,
) -> ImportedScan:
    """Read a scan into the scene; after an error the scene is as it was.

    Args:
        source: Folder of a ParaVision study, scan or reconstruction.
        scan: Number of the scan in a study; None for the only one that can be meant.
        offsets_ppm: Offsets in ppm instead of those that the files list.
        name: Name of the node; empty for that of the scan.
        progress: Called with the fraction done and a message; may raise to cancel.

    Raises:
        ValueError: There is no such scan, or a file is damaged; the message names the file.
    """

    def read(report: Progress) -> tuple[Scan, tuple[str, ...]]:
        from ..formats.scanner.study import choose_scan, read_scan

        folder, chosen = choose_scan(source, None if scan is None else str(scan))
        report(0.1, f"reading scan {folder.name}")
        return read_scan(folder, offsets_ppm), chosen

    found, chosen = in_background(read, progress)
    with scene_unchanged_on_error():
        return _into_scene(found, chosen, name or f"scan {found.folder.name}")


def _into_scene(found: Scan, chosen: tuple[str, ...], name: str) -> ImportedScan:
    from ..formats.scanner.saturation import ASSUMPTIONS

    array, protocol = found.images.array, found.saturation.protocol
    geometry = Geometry.from_lps(array.shape[1:], found.images.ijk_to_lps)
    offsets = protocol["offsets_ppm"]
    if offsets is None:
        node: Any = _without_offsets(array, geometry, name)
        open_: dict[str, str] = {}
        warnings: tuple[str, ...] = (
            f"scan {found.folder.name} has no saturation offsets: it is imported without protocol",
        )
    else:
        node = array_to_sequence(array, geometry, name, offsets)
        node.SetAttribute(PROTOCOL_ATTRIBUTE, json.dumps(protocol))
        open_ = {key: ASSUMPTIONS[key] for key, value in protocol.items() if value is None}
        warnings = ()
    report = {
        "scan": found.folder.description(),
        "measurements": len(array),
        "matrix": list(reversed(geometry.shape)),
        "spacing_mm": geometry.spacing.round(6).tolist(),
        "loops": [
            {"name": group.name, "comment": group.comment, "count": group.count} for group in found.images.groups
        ],
        "repetitions": found.saturation.repetitions,
        "to_fill_in": open_,
    }
    return ImportedScan(
        node,
        None if offsets is None else protocol,
        open_,
        report,
        (*chosen, *found.notes, *warnings),
        tuple(found.files),
    )


def _without_offsets(array: np.ndarray, geometry: Geometry, name: str) -> Any:
    """Add a volume node of one image, or a sequence node of several, by their number."""
    if len(array) == 1:
        return volumes.add_volume(array[0], geometry, name)
    return array_to_sequence(array, geometry, name, range(1, len(array) + 1), "measurement", "")
