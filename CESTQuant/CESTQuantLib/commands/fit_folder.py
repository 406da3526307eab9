"""The output folder of ``cestquant fit``: its maps as nodes, and the acquisition and settings that made them."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.checked_json import read_json, shortened
from NeuroCESTLib.core.headers.limits import quoted
from NeuroCESTLib.core.headers.parts import image_checksum
from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.whole_files import hide_path, keep_words, written_as
from NeuroCESTLib.scene.image_files import existing_file
from NeuroCESTLib.scene.volumes import read_volume

from .acquisition import read_images

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
    "quass": "quass",
    "noise_sd": "noise_sd",
    "motion_correct": "motionCorrection",
    "denoise": "denoising",
    "smooth_spectra": "smoothing_ppm",
}
"""Settings of ``cestquant fit`` by their name in its report, with their names in ``CESTQuantLogic.fit``."""
_FILES = {
    "protocol": "protocol",
    "model": "model",
    "network": "network",
    "config": "config",
    "calibration": "calibration",
    "lorentzian": "lorentzianPreset",
}
_NODES = ("reference", "mask", "b0", "b1", "t1")
_FORMS: Mapping[str, Any] = {
    **dict.fromkeys((*_FIT_ARGUMENTS, *_FILES), (None, str)),
    **dict.fromkeys(("signal", *_NODES), (None, str, [str])),
    **dict.fromkeys(("power", "field_strength", "noise_sd", "smooth_spectra"), (None, float)),
    **dict.fromkeys(("motion_correct", "denoise"), (None, bool)),
    "asymmetry_offset": (None, [float]),
}
"""Forms of the settings in a report, see ``stored_values``."""


@dataclass(frozen=True)
class FitFolder:
    """What a folder of maps holds.

    Attributes:
        nodes: Volume nodes by quantity.
        fit: Arguments of ``CESTQuantLogic.fit`` that made the maps; None where the acquisition is unknown.
        notes: Sentences for the user, such as why it is unknown.
        reference: Files of the M0 image of the acquisition, where that was asked for alone.
    """

    nodes: dict[str, Any]
    fit: dict[str, Any] | None
    notes: tuple[str, ...]
    reference: tuple[Path, ...] = ()


def read_fit_folder(
    folder: str,
    overrides: Mapping[str, Any],
    report: Report,
    end: str = "",
    spectra: bool = True,
    reference: bool = False,
    register: bool = False,
) -> FitFolder:
    """Read maps, and where it is still there the acquisition that they come from.

    Args:
        folder: Output folder of ``cestquant fit``.
        overrides: Files and settings to use instead of those in the folder's ``report.json``: ``signal``,
            ``reference``, ``protocol``, ``method`` and ``model``; None for what the report says. ``files`` are files
            that are recognised by the checksums in the report.
        report: Report to record the files in.
        end: Ending of the roles of the files in the report.
        spectra: Whether to read the acquisition.
        reference: Whether to find its M0 image where the acquisition is not read.
        register: Whether that image is needed for a registration; otherwise a missing one is told in the notes.

    Raises:
        ValueError: The folder holds no maps, or a file is missing or unusable; the message names it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"'{folder}' is no folder: give the output folder of 'cestquant fit'")
    source = _Source.of(path, {name: value for name, value in overrides.items() if value is not None})
    present = sorted(path.glob(f"*{_MAP_ENDING}"))
    images = [file for file in present if source.outputs is None or file.name in source.outputs]
    if not images:
        raise ValueError(f"'{folder}' holds no maps (*{_MAP_ENDING}): give the output folder of 'cestquant fit'")
    nodes = {}
    for file in images:
        report.add_input(f"map{end}", file)
        node, name = read_volume(file), _name_of(file, source)
        if name != file.name.removesuffix(_MAP_ENDING):
            node.SetName(name)
        nodes[name] = node
    told: tuple[str, ...] = ()
    if others := [file for file in present if file not in images]:
        for file in others:
            hide_path(file)
        listed = ", ".join(file.name for file in others)
        told = (f"'{folder}' has maps that the last run did not write, which are not read: {listed}",)
    if not spectra:
        files = source.paths("reference") if reference else []
        if not source.missing:
            return FitFolder(nodes, None, told, tuple(files))
        why = "; ".join(source.missing).replace("--reference", f"--reference{end}")
        if register:
            raise ValueError(f"the registration needs the M0 image of '{source.folder}': {why}")
        return FitFolder(nodes, None, (*told, f"the alignment of CEST and anatomy is not checked: {why}"))
    fit = _fit_arguments(source, report, end)
    if fit is None:
        why = "; ".join(source.missing) or f"'{folder}' has no report.json of 'cestquant fit'"
        return FitFolder(nodes, None, (*told, f"the mean spectra of the regions are not fitted: {why}"))
    return FitFolder(nodes, fit, (*told, *source.notes))


def _name_of(file: Path, source: _Source) -> str:
    """Name of a map by its file, which takes the place of one that may tell more than the quantity.

    With ``--anonymous``, words of the program are what its report lists as its outputs, and what says nothing but a
    known quantity of a pool of the presets.
    """
    from ..formats.presets import pool_names
    from ..methods.registry import is_quantity_of, words_of

    name = file.name.removesuffix(_MAP_ENDING)
    if source.lists_own_maps or name == "status" or is_quantity_of(name, pool_names()):
        keep_words(name, *words_of([name]))
        return name
    quantity = file.with_name(f"{name.removesuffix('_sd')}{_MAP_ENDING}")
    if name.endswith("_sd") and quantity.exists():
        return f"{_name_of(quantity, source)}_sd"
    return written_as.get()(file.name).removesuffix(_MAP_ENDING)


@dataclass
class _Source:
    """Where the files of a fit are now, and what was found about them."""

    folder: Path
    settings: Mapping[str, Any]
    checksums: Mapping[str, str]  # by the path in the report
    given: Mapping[str, Path]  # further files by their checksum
    overrides: Mapping[str, Any]
    missing: list[str]
    notes: list[str]
    outputs: list[str] | None = None  # names of the maps; None where the report does not say them
    command: str = ""  # which wrote the report

    @property
    def lists_own_maps(self) -> bool:
        """Whether the report is of a command of this program and lists the maps, whose names are then its own."""
        return self.outputs is not None and self.command.startswith("cestquant ")

    @classmethod
    def of(cls, folder: Path, overrides: Mapping[str, Any]) -> _Source:
        file = folder / "report.json"
        content = read_json(file) if file.exists() else {}
        report = content if isinstance(content, Mapping) else {}
        record = report if report.get("command") == "cestquant fit" else {}
        settings, inputs = record.get("settings"), record.get("inputs")
        sums = {}
        for entry in inputs if isinstance(inputs, list) else []:
            if isinstance(entry, Mapping) and {"path", "sha256"} <= set(entry):
                sums[str(entry["path"])] = str(entry["sha256"])
        settings = settings if isinstance(settings, Mapping) else {}
        check_stored(
            settings,
            {name: form for name, form in _FORMS.items() if name in settings},
            f"'{file}' is damaged: in its settings",
        )
        _check_values(settings, f"'{file}' is damaged: in its settings")
        given = {image_checksum(existing_file(file)): Path(file) for file in overrides.get("files", ())}
        outputs = report.get("outputs")  # of whatever command
        check_stored({"outputs": outputs}, {"outputs": (None, [str])}, f"'{file}' is damaged")
        return cls(folder, settings, sums, given, overrides, [], [], outputs, str(report.get("command")))

    def setting(self, name: str) -> Any:
        return self.overrides.get(name, self.settings.get(name))

    def paths(self, role: str) -> list[Path]:
        """Return the files of a role as they lie now; what is missing or was changed is noted and left out."""
        given = self.setting(role)
        names = [given] if isinstance(given, str) else list(given or [])
        if role in self.overrides:
            return [self._checked(Path(name), self._sum_like(role, number)) for number, name in enumerate(names)]
        found = []
        for name in names:
            wanted = self.checksums.get(name)
            places = (Path(name), self.folder / name, self.folder.parent / name, self.folder / Path(name).name)
            existing = [
                place for place in places if os.path.isfile(place)
            ]  # False, too, where no file can be called so
            same = [place for place in existing if wanted is None or image_checksum(place) == wanted]
            if same or wanted in self.given:
                found.append(same[0] if same else self.given[str(wanted)])
            elif existing:
                self.missing.append(f"'{existing[0]}' has changed since the maps were made")
            else:
                self.missing.append(f"{quoted(name, 200)} is not found, give it with --{role}")
        return found

    def _sum_like(self, role: str, number: int) -> str | None:
        """Checksum that the report has for a file of a role."""
        recorded = self.settings.get(role)
        names = [recorded] if isinstance(recorded, str) else list(recorded or [])
        return self.checksums.get(names[number]) if number < len(names) else None

    def _checked(self, path: Path, wanted: str | None) -> Path:
        if wanted is not None and path.exists() and image_checksum(path) != wanted:
            self.notes.append(f"'{path}' is not the file from which the maps were made (another checksum)")
        return path


def _check_values(settings: Mapping[str, Any], where: str) -> None:
    """Check that the settings of a report are values that ``cestquant fit`` takes; messages open with ``where``."""
    from ..methods.registry import METHODS
    from ..physics.protocol import NORMALIZATIONS
    from ..preprocessing.quass import REFERENCES
    from ..preprocessing.reference import M0_OVER_TIME
    from ..scene.settings import LORENTZIAN_PRESETS

    choices = {"method": METHODS, "normalisation": NORMALIZATIONS, "m0_over_time": M0_OVER_TIME, "quass": REFERENCES}
    for name, known in choices.items():
        if (value := settings.get(name)) is not None and value not in known:
            raise ValueError(f"{where}: {name} is {shortened(value)} but must be one of {', '.join(known)}")
    for name in ("power", "field_strength", "noise_sd", "smooth_spectra"):
        if (value := settings.get(name)) is not None and not 0 < value < math.inf:
            raise ValueError(f"{where}: {name} is {value:g} but must be positive")
    for offset in settings.get("asymmetry_offset") or ():
        if not 0 < abs(offset) < math.inf:
            raise ValueError(f"{where}: asymmetry_offset has the value {offset:g}, which is no offset in ppm")
    preset = settings.get("lorentzian")
    if preset and not preset.lower().endswith(".json") and preset.removeprefix("lorentzian_") not in LORENTZIAN_PRESETS:
        raise ValueError(f"{where}: lorentzian is {shortened(preset)}, but there is no such preset")


def _fit_arguments(source: _Source, report: Report, end: str) -> dict[str, Any] | None:
    """Read the acquisition; return the arguments of ``CESTQuantLogic.fit``, None where something is missing."""
    if not source.setting("signal") or not source.setting("method"):
        return None
    signal = source.paths("signal")
    files = {role: source.paths(role) for role in (*_NODES, *_FILES) if _is_file(role, source.setting(role))}
    if source.missing:
        return None
    arguments = {name: source.setting(role) for role, name in _FIT_ARGUMENTS.items()}
    arguments |= {name: source.setting(role) for role, name in _FILES.items()}
    offsets = arguments.pop("asymmetryOffset_ppm")
    if offsets is not None:
        arguments["asymmetryOffset_ppm"] = tuple(offsets)
    for role, name in _FILES.items():
        for path in files.get(role, []):
            report.add_input(f"{role}{end}", path)
            arguments[name] = str(path)
    options = Namespace(
        signal=[str(path) for path in signal],
        reference=[str(path) for path in files.get("reference", [])],
        **{role: str(files[role][0]) if role in files else None for role in _NODES if role != "reference"},
    )
    nodes = read_images(options, report, ("b0", "b1", "t1"), end)
    arguments["signalNode"] = nodes.pop("signal")
    return {name: value for name, value in (arguments | nodes).items() if value is not None}


def _is_file(role: str, value: Any) -> bool:
    """Whether a setting names files, and not a preset."""
    return bool(value) and not (role in ("lorentzian", "config") and not str(value).lower().endswith(".json"))
