"""Scans of a ParaVision study: which there are, and one of them with its images and what its files say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..offset_lists import read_offsets
from .images import first_echo, read_images
from .parameters import ParameterFile
from .saturation import field_of_larmor, fits_offsets, is_saturated, larmor_frequency_MHz, saturation_of
from .scan import Scan

_FILES = ("method", "acqp")


@dataclass(frozen=True)
class ScanFolder:
    """Folder of a scan.

    Attributes:
        path: Folder with ``method``, ``acqp`` and ``pdata``.
        reconstruction: Folder ``pdata/N`` with the images.
    """

    path: Path
    reconstruction: Path

    @property
    def name(self) -> str:
        """Name of the folder, which is the number of the scan."""
        return self.path.name

    def description(self) -> str:
        """Return number, method, protocol and images of the scan in words; damage is part of them."""
        try:
            method = ParameterFile.read(self.path / "method")
            kind = "CEST" if is_saturated(method) else "no saturation offsets"
            name = method.text("Method").removeprefix("User:").removeprefix("Bruker:")
        except ValueError as error:
            return f"{self.name}: damaged ({error})"
        try:
            visu = ParameterFile.read(self.reconstruction / "visu_pars")
            frames = f"{visu.positive_integers('VisuCoreFrameCount', 1)[0]} images"
            protocol = visu.text("VisuSeriesComment") or visu.text("VisuAcquisitionProtocol")
        except ValueError:
            frames, protocol = "no images", ""
        return f"{self.name}: {name}{f' {protocol}' if protocol else ''} ({kind}, {frames})"

    def is_saturated(self) -> bool:
        """Whether the scan lists saturation offsets; a damaged method file does not."""
        try:
            return is_saturated(ParameterFile.read(self.path / "method"))
        except ValueError:
            return False


def is_paravision(source: str | Path) -> bool:
    """Whether a folder is a ParaVision study, scan or reconstruction."""
    return bool(scan_folders(source))


def scan_folders(source: str | Path) -> list[ScanFolder]:
    """Return the scans of a study in the order of their numbers.

    Args:
        source: Folder of a study, of a scan, or of a reconstruction (``pdata/N``), or the file ``2dseq`` in it.

    Returns:
        One entry for every scan, with its first reconstruction; none where the folder is something else.
    """
    source = Path(source)
    if source.name == "2dseq":
        source = source.parent
    if source.parent.name == "pdata":
        return [ScanFolder(source.parent.parent, source)]
    if _is_scan(source):
        return [_scan_folder(source)]
    if not source.is_dir():
        return []
    found = [folder for folder in source.iterdir() if folder.is_dir() and _is_scan(folder)]
    return [_scan_folder(folder) for folder in sorted(found, key=lambda folder: (_number(folder), folder.name))]


def _is_scan(folder: Path) -> bool:
    return (folder / "method").is_file() or ((folder / "acqp").is_file() and (folder / "pdata").is_dir())


def _scan_folder(folder: Path) -> ScanFolder:
    reconstructions = [item for item in (folder / "pdata").glob("*") if item.is_dir()]
    first = min(reconstructions, key=lambda item: (_number(item), item.name), default=folder / "pdata" / "1")
    return ScanFolder(folder, first)


def _number(folder: Path) -> float:
    return float(folder.name) if folder.name.isdecimal() else float("inf")


def choose_scan(source: str | Path, scan: str | None) -> tuple[ScanFolder, tuple[str, ...]]:
    """Find the scan that is meant.

    Args:
        source: As for :func:`scan_folders`.
        scan: Number of the scan; None for the only one, or the only one with saturation offsets.

    Returns:
        The scan, and a sentence for the user where it was chosen among others.

    Raises:
        ValueError: There is no such scan, or several could be meant; the message lists what is there.
    """
    folders = scan_folders(source)
    if not folders:
        raise ValueError(f"'{source}' is no ParaVision study: it has no scan folders with a method file")
    listed = "; ".join(folder.description() for folder in folders)
    if scan is not None:
        for folder in folders:
            if folder.name == str(scan):
                return folder, ()
        raise ValueError(f"'{source}' has no scan {scan}; its scans are {listed}")
    if len(folders) == 1:
        return folders[0], ()
    saturated = [folder for folder in folders if folder.is_saturated()]
    if len(saturated) == 1:
        return saturated[0], (f"scan {saturated[0].name} is the only one with saturation offsets among {listed}",)
    raise ValueError(f"'{source}' has {len(folders)} scans; choose one with --scan: {listed}")


def read_scan(folder: ScanFolder, offsets: Sequence[float] | str | Path | None = None) -> Scan:
    """Read the images of a scan and what its files say of the saturation.

    Args:
        folder: Where it lies.
        offsets: Offsets in ppm, one for every measurement or one list for all repetitions, instead of those that the
            method lists; or a text file of them.

    Raises:
        ValueError: A file is missing, damaged or contradicts another one; the message names it.
    """
    method = ParameterFile.read(folder.path / "method")
    acqp = ParameterFile.read(folder.path / "acqp") if (folder.path / "acqp").exists() else None
    images = read_images(folder.reconstruction)
    visu = ParameterFile.read(folder.reconstruction / "visu_pars")
    larmor = larmor_frequency_MHz(method, acqp, visu)
    if isinstance(offsets, str | Path):
        offsets = read_offsets(offsets, None if larmor is None else field_of_larmor(larmor)).tolist()
    one_echo = first_echo(images)
    if fits_offsets(method, larmor, len(one_echo.array), offsets):
        images = one_echo
    saturation = saturation_of(method, larmor, len(images.array), offsets, images.groups)
    notes = [*images.notes, *saturation.notes, *_weightings(visu)]
    if acqp is None:
        notes.append(f"'{folder.path / 'acqp'}' is missing; its values are not needed where the method has them")
    if saturation.protocol["offsets_ppm"] is None:
        notes.append(f"scan {folder.name} has no saturation offsets: it is imported without protocol")
    files = [folder.path / name for name in _FILES if (folder.path / name).exists()]
    files += [folder.reconstruction / name for name in ("visu_pars", "2dseq")]
    return Scan(
        folder.name,
        folder.description(),
        images,
        None if saturation.protocol["offsets_ppm"] is None else saturation.protocol,
        tuple(files),
        saturation.repetitions,
        tuple(notes),
    )


def _weightings(visu: ParameterFile) -> list[str]:
    """Sentences about echo, repetition and inversion times, where a scan has several."""
    names = {
        "VisuAcqEchoTime": "echo",
        "VisuAcqRepetitionTime": "repetition",
        "VisuAcqInversionTime": "inversion",
    }
    told = []
    for name, kind in names.items():
        if name in visu and len(set(values := visu.numbers(name))) > 1:
            told.append(f"the {kind} times in ms are {' '.join(f'{value:g}' for value in values)}")
    return told
