"""The output folder of ``cestquant fit``: its maps as nodes, and the acquisition and settings that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.scene.volumes import read_volume

if TYPE_CHECKING:
    from NeuroCESTLib.report.record import Report

_MAP_ENDING = ".nii.gz"
_FIT_ARGUMENTS = {
    "method": "method",
    "asymmetry_offset": "asymmetryOffset_ppm",
    "power": "power_uT",
    "normalisation": "signalNormalisation",
    "m0_over_time": "m0OverTime",
    "field_strength": "fieldStrength_T",
}
"""Settings of ``cestquant fit`` by their name in its report, with their names in ``CESTQuantLogic.fit``."""
_FILES = {
    "protocol": "protocol",
    "model": "model",
    "network": "network",
    "config": "config",
    "lorentzian": "lorentzianPreset",
}
_NODES = ("reference", "mask", "b0", "b1", "t1")


@dataclass(frozen=True)
class FitFolder:
    """What a folder of maps holds.

    Attributes:
        nodes: Volume nodes by quantity.
        fit: Arguments of ``CESTQuantLogic.fit`` that made the maps; None where the acquisition is unknown.
        notes: Sentences for the user, such as why it is unknown.
    """

    nodes: dict[str, Any]
    fit: dict[str, Any] | None
    notes: tuple[str, ...]


def read_fit_folder(
    folder: str, overrides: Mapping[str, Any], report: Report, end: str = "", spectra: bool = True
) -> FitFolder:
    """Read maps, and where it is still there the acquisition that they come from.

    Args:
        folder: Output folder of ``cestquant fit``.
        overrides: Files and settings to use instead of those in the folder's ``report.json``: ``signal``,
            ``reference``, ``protocol``, ``method`` and ``model``; None for what the report says.
        report: Report to record the files in.
        end: Ending of the roles of the files in the report.
        spectra: Whether to read the acquisition.

    Raises:
        ValueError: The folder holds no maps, or a file is missing or unusable; the message names it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"'{folder}' is no folder: give the output folder of 'cestquant fit'")
    files = sorted(path.glob(f"*{_MAP_ENDING}"))
    if not files:
        raise ValueError(f"'{folder}' holds no maps (*{_MAP_ENDING}): give the output folder of 'cestquant fit'")
    nodes = {}
    for file in files:
        report.add_input(f"map{end}", file)
        nodes[file.name.removesuffix(_MAP_ENDING)] = read_volume(file)
    return FitFolder(nodes, None, ())
