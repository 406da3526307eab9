"""Where scanner files come from: ParaVision studies and DICOM series, told apart by their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .dicom.read import read_series
from .dicom.series import choose_series, has_dicom, series_in
from .scan import Scan
from .sidecar import sidecar_of
from .study import choose_scan, read_scan, scan_folders

Offsets = Sequence[float] | str | Path
"""Offsets in ppm, or a file of them: text, or for DICOM a pulseq file."""


_IMAGES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class ScanEntry:
    """A scan or series that can be imported.

    Attributes:
        source: What to import from: the folder, or the file of a NIfTI image.
        scan: Number of the scan or series in it; None for a NIfTI image.
        title: Number, name and images in words.
        is_cest: Whether it has saturation offsets or, for DICOM images, a name that says so.
        can_be_joined: Whether it can be joined with others to one acquisition, as DICOM series with numbers.
    """

    source: Path
    scan: str | None
    title: str
    is_cest: bool
    can_be_joined: bool = False


def list_scans(source: str | Path) -> list[ScanEntry]:
    """Return what can be imported from a folder: ParaVision scans, or DICOM series and NIfTI images with JSON files.

    Raises:
        ValueError: The folder has nothing of these, or a DICOM file is damaged.
    """
    path = Path(source)
    if folders := scan_folders(source):
        return [ScanEntry(path, folder.name, folder.description(), folder.is_saturated()) for folder in folders]
    images = _images_with_sidecar(path)
    if not images:
        _require_dicom(source)
    return [
        *(
            ScanEntry(path, one.number, one.description(), one.is_called_cest(), one.number.isdecimal())
            for one in series_in(source)
        ),
        *(ScanEntry(image, None, str(image.relative_to(path)), _is_called_cest(image)) for image in images),
    ]


def image_in(source: str | Path, scan: str | None = None) -> Path | None:
    """Return the NIfTI image with a JSON file that a folder is imported from; None where it is something else.

    Args:
        source: What is imported from.
        scan: Name of the image, as ``--list`` prints it; any other name is that of a DICOM series where there are
            some. None for the only image or series, or the only one called after CEST.

    Raises:
        ValueError: There are several that can be meant, or none of this name.
    """
    folder = Path(source)
    if folder.is_file() or scan_folders(source) or not (images := _images_with_sidecar(folder)):
        return None
    called = [image for image in images if _is_called_cest(image)]
    names = ", ".join(str(image.relative_to(folder)) for image in images)
    if scan is not None:
        chosen = [image for image in images if scan in (str(image.relative_to(folder)), image.name)]
        if len(chosen) == 1:
            return chosen[0]
        if scan.lower().endswith(_IMAGES) or not has_dicom(folder):
            raise ValueError(f"'{source}' has no image '{scan}'; it has {names}")
        return None
    if series := series_in(folder):
        cest = [one for one in series if one.is_called_cest()]
        if len(called) + len(cest) == 1:
            return called[0] if called else None
        listed = "; ".join([*(one.description() for one in series), *(str(i.relative_to(folder)) for i in images)])
        raise ValueError(
            f"'{source}' has {len(series)} DICOM series and {len(images)} NIfTI images; choose one with --scan: "
            f"{listed}"
        )
    chosen = images if len(images) == 1 else called
    if len(chosen) != 1:
        raise ValueError(f"'{source}' has {len(images)} images: choose one with --scan: {names}")
    return chosen[0]


def _is_called_cest(image: Path) -> bool:
    return "cest" in image.name.lower()


def _images_with_sidecar(folder: Path) -> list[Path]:
    """NIfTI images in a folder, or below it, that have a JSON file beside them."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.name.lower().endswith(_IMAGES))
    return sorted(path for path in found if sidecar_of(path).is_file())


def describe_scans(source: str | Path) -> list[str]:
    """Return number, name and images of every scan in a folder, one sentence each.

    Raises:
        ValueError: The folder has neither ParaVision scans, NIfTI images with JSON files nor DICOM images, or a DICOM
            file is damaged.
    """
    return [entry.title for entry in list_scans(source)]


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
        return read_scan(folder, offsets), chosen
    _require_dicom(source)
    series, chosen = choose_series(source, scan)
    return read_series(series, source, offsets), chosen


def _require_dicom(source: str | Path) -> None:
    if not Path(source).exists():
        raise ValueError(f"'{source}' does not exist")
    if not has_dicom(source):
        raise ValueError(
            f"'{source}' has no scan: give the folder of a ParaVision study (with method files) or of DICOM images, "
            "or a NIfTI file with its JSON file"
        )
