"""Where scanner files come from: ParaVision studies and DICOM series, told apart by their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..protocol_files import read_offsets
from .dicom_series import choose_series, has_dicom, read_series, series_in
from .scan import Scan
from .study import choose_scan, read_scan, scan_folders

Offsets = Sequence[float] | str | Path
"""Offsets in ppm, or a file of them: text, or for DICOM a pulseq file."""


def describe_scans(source: str | Path) -> list[str]:
    """Return number, name and images of every scan in a folder, one sentence each.

    Raises:
        ValueError: The folder has neither ParaVision scans nor DICOM images, or a DICOM file is damaged.
    """
    if folders := scan_folders(source):
        return [folder.description() for folder in folders]
    _require_dicom(source)
    return [series.description() for series in series_in(source)]


def read_source(
    source: str | Path, scan: str | None = None, offsets: Offsets | None = None
) -> tuple[Scan, tuple[str, ...]]:
    """Read a scan.

    Args:
        source: Folder of a ParaVision study, scan or reconstruction, or folder or file of DICOM images.
        scan: Number of the scan or series; None for the only one that can be meant.
        offsets: Offsets instead of those that the files say.

    Returns:
        The scan, and sentences for the user about how it was chosen.

    Raises:
        ValueError: There is no such scan, or a file is missing, damaged or contradicts another one.
    """
    if scan_folders(source):
        folder, chosen = choose_scan(source, scan)
        return read_scan(folder, read_offsets(offsets).tolist() if isinstance(offsets, str | Path) else offsets), chosen
    _require_dicom(source)
    series, chosen = choose_series(source, scan)
    return read_series(series, source, offsets), chosen


def _require_dicom(source: str | Path) -> None:
    if not Path(source).exists():
        raise ValueError(f"'{source}' does not exist")
    if not has_dicom(source):
        raise ValueError(
            f"'{source}' has no scan: give the folder of a ParaVision study (with method files) or of DICOM images"
        )
