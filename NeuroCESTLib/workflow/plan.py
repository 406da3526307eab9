"""What has to be done for each visit: the inputs and the arguments of every stage.

The plan is a JSON file in the output folder, which the rules of the workflow read. The first visit of a subject is its
reference: each later one is registered to it and compared with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.batch.frame import ANONYMOUS
from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.headers.limits import quoted
from NeuroCESTLib.core.headers.parts import files_of_image
from NeuroCESTLib.core.stored_values import check_stored
from NeuroCESTLib.core.whole_files import write_text

from .label_volumes import labels_of, require_known_labels
from .programs import options
from .settings import Settings
from .visits import MODALITIES, CohortManifest, Visit

STAGES = ("import", "fields", "fit", "segmentation", "registration", "compartments")
"""Stages in the order of work; their names are those of the rules."""
_VISIT: dict[str, Any] = {"subject": str, "name": str, "files": {}, "attributes": {}}
"""Form of a visit in the file, see ``stored_values``."""
FOLDERS = {"import": "import", "fields": "fields", "fit": "maps"} | {name: name for name in STAGES[3:]}
"""Folder of each stage in that of its visit."""


@dataclass(frozen=True)
class Job:
    """One stage of one visit.

    Attributes:
        inputs: Files and folders that it reads; those of other stages are relative to the output folder.
        arguments: Arguments of the command, its name first and without its output folder.
    """

    inputs: tuple[str, ...]
    arguments: tuple[str, ...]


class Plan:
    """The stages of a cohort.

    Args:
        visits: Visits of each subject, in the order of time.
        settings: What holds for all of them.
    """

    def __init__(self, visits: Mapping[str, list[Visit]], settings: Settings) -> None:
        self.visits = dict(visits)
        self.settings = settings

    @classmethod
    def of(cls, manifest: CohortManifest, settings: Settings) -> Plan:
        """Plan a cohort.

        Raises:
            ValueError: Nothing says which compartments the numbers of a single visit's label volume are.
        """
        visits = manifest.subjects()
        require_known_labels([group[0] for group in visits.values() if len(group) == 1], settings)
        return cls(visits, settings)

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan that ``write`` has written.

        Raises:
            ValueError: The file is damaged; the message names it.
        """
        content = read_json(path)
        known = asdict(Settings())
        form = {"settings": {key: _form(value) for key, value in known.items()}, "visits": {}}
        check_stored(content, form, f"'{path}' is a damaged plan")
        check_stored(list(content["visits"].values()), [[_VISIT]], f"'{path}' is a damaged plan")
        every = [visit for group in content["visits"].values() for visit in group]
        texts = [text for visit in every for part in ("files", "attributes") for text in visit[part].values()]
        check_stored(texts, [str], f"'{path}' is a damaged plan")
        unknown = {*content["settings"]} - {*known} or {key for visit in every for key in visit} - {*_VISIT}
        if unknown:
            raise ValueError(f"'{path}' is a damaged plan: the key {quoted(min(unknown))} is unknown")
        visits = {subject: [Visit(**visit) for visit in group] for subject, group in content["visits"].items()}
        values = content["settings"].items()
        settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values}
        return cls(visits, Settings(**settings))

    def write(self, path: str | Path) -> Path:
        """Write the plan as JSON."""
        visits = {subject: [asdict(visit) for visit in group] for subject, group in self.visits.items()}
        return write_text(json.dumps({"settings": asdict(self.settings), "visits": visits}, indent=1) + "\n", path)

    def results(self, subject: str) -> list[str]:
        """Return the folders of a subject's results, relative to the output folder: one for each later visit."""
        visits = self.visits[subject]
        return [_folder(visit, "compartments") for visit in (visits[1:] if len(visits) > 1 else visits)]

    def stages(self, subject: str) -> list[tuple[str, Visit]]:
        """Return the stages of a subject with their visit, in the order of work."""
        found = []
        for stage in STAGES:
            found += [(stage, visit) for visit in self.visits[subject] if self._is_needed(stage, visit)]
        return found

    def job(self, stage: str, subject: str, visit: str) -> Job:
        """Return the inputs and arguments of a stage.

        Args:
            stage: One of ``STAGES``.
            subject: Name of the subject.
            visit: Name of the visit.

        Raises:
            KeyError: The visit does not have this stage.
        """
        found = next((v for v in self.visits.get(subject, ()) if v.name == visit), None)
        if found is None or not self._is_needed(stage, found):
            raise KeyError(f"{subject} {visit} has no stage {stage}")
        make = {
            "import": self._import,
            "fields": self._fields,
            "fit": self._fit,
            "segmentation": self._segmentation,
            "registration": self._registration,
            "compartments": self._compartments,
        }[stage]
        inputs, arguments = make(found)
        inputs = [file for name in [*inputs, *_files_named(arguments)] for file in _with_data(name)]
        if self.settings.anonymous:
            arguments = [*arguments, ANONYMOUS]
        return Job(tuple(dict.fromkeys(inputs)), tuple(arguments))

    def _is_needed(self, stage: str, visit: Visit) -> bool:
        first = self.visits[visit.subject][0]
        alone = len(self.visits[visit.subject]) == 1
        return {
            "import": visit.has_cest and _is_folder(visit),
            "fields": "wasabi" in visit.files or "wassr" in visit.files,
            "fit": visit.has_cest,
            "segmentation": alone and "segmentation" not in visit.files,
            "registration": visit is not first,
            "compartments": alone or visit is not first,
        }[stage]

    def _import(self, visit: Visit) -> tuple[list[str], list[str]]:
        folder = visit.files["cest"]
        return _files_below(folder) or [folder], ["import", folder]

    def _fields(self, visit: Visit) -> tuple[list[str], list[str]]:
        kind = "wasabi" if "wasabi" in visit.files else "wassr"
        signal, protocol = visit.files[kind], visit.files[f"{kind}_protocol"]
        mask = visit.files.get("cest_mask")
        given = options({"--signal": signal, "--protocol": protocol, "--mask": mask})
        return [file for file in (signal, protocol, mask) if file], [kind, *given, *self.settings.fields]

    def _fit(self, visit: Visit) -> tuple[list[str], list[str]]:
        inputs, given = self._files_of_fit(visit)
        # What other stages made is known by their folders.
        inputs += [file for file in given.values() if file and not file.startswith(f"{visit.subject}/")]
        return inputs, ["fit", *options({"--method": self.settings.method, **given}), *self.settings.fit]

    def _files_of_fit(self, visit: Visit) -> tuple[list[str], dict[str, str | None]]:
        """Folders of the stages before a fit, and its files by their options."""
        files, inputs = dict(visit.files), []
        if _is_folder(visit):
            imported = _folder(visit, "import")
            inputs.append(imported)
            files["cest"] = f"{imported}/signal.seq.nrrd"
            files.setdefault("protocol", f"{imported}/protocol.json")
        if self._is_needed("fields", visit):
            made = _folder(visit, "fields")
            inputs.append(made)
            files["b0"] = f"{made}/b0_shift_ppm.nii.gz"
            if "wasabi" in files:
                files["b1"] = f"{made}/b1_relative.nii.gz"
        columns = {
            "--signal": "cest",
            "--protocol": "protocol",
            "--reference": "m0",
            "--mask": "cest_mask",
            "--b0": "b0",
            "--b1": "b1",
            "--t1": "t1_map",
        }
        given = {option: files.get(column) for option, column in columns.items()}
        return inputs, {"--model": self.settings.model, **given}

    def _segmentation(self, visit: Visit) -> tuple[list[str], list[str]]:
        mask = visit.files.get("brain_mask")
        arguments = ["segment", "--images", *_images(visit), *options({"--mask": mask}), *self.settings.segmentation]
        return [*_anatomy(visit), *([mask] if mask else [])], arguments

    def _registration(self, visit: Visit) -> tuple[list[str], list[str]]:
        first = self.visits[visit.subject][0]
        given = {
            "--fixed-mask": first.files.get("brain_mask"),
            "--moving-mask": visit.files.get("brain_mask"),
            "--fixed-tumor": first.files.get("segmentation"),
            "--moving-tumor": visit.files.get("segmentation"),
        }
        inputs = [*_anatomy(first), *_anatomy(visit), *(file for file in given.values() if file)]
        images = ["--fixed", *_images(first), "--moving", *_images(visit)]
        return inputs, ["apply", *images, *options(given), *self.settings.registration]

    def _compartments(self, visit: Visit) -> tuple[list[str], list[str]]:
        first = self.visits[visit.subject][0]
        visits = [first] if visit is first else [first, visit]
        inputs: list[str] = []
        given: dict[str, object] = {}
        for end, one in zip(("", "2"), visits, strict=False):
            if one.has_cest:
                given[f"--maps{end}"] = _folder(one, "fit")
                inputs.append(_folder(one, "fit"))
                if self.settings.anonymous:  # the report of the fit does not say where its files are
                    given[f"--files{end}"] = [file for file in self._files_of_fit(one)[1].values() if file]
            given[f"--anatomy{end}"] = _anatomy(one)
            given[f"--to-anatomy{end}"] = one.files.get("to_anatomy")
            inputs += [*_anatomy(one), *([one.files["to_anatomy"]] if "to_anatomy" in one.files else [])]
        if visit is first:
            given["--labels"] = labels_of(visit, self.settings)
            made = visit.files.get("segmentation") or f"{_folder(visit, 'segmentation')}/segmentation.seg.nrrd"
            inputs.append(visit.files.get("segmentation") or _folder(visit, "segmentation"))
            given["--segmentation"] = made
        else:
            registered = _folder(visit, "registration")
            inputs.append(registered)
            given["--segmentation"] = f"{registered}/fixed_segmentation.seg.nrrd"
            given["--segmentation2"] = f"{registered}/moving_segmentation.seg.nrrd"
            given["--between"] = f"{registered}/moving_to_fixed.h5"
        given["--visits"] = [one.name for one in visits]
        register = ["--register"] if self.settings.register and not any("to_anatomy" in v.files for v in visits) else []
        return inputs, ["compartments", *options(given), *register, *self.settings.compartments]


def _files_below(folder: str) -> list[str]:
    """Files of a folder of scanner files, of which a change of any counts."""
    return sorted(str(file) for file in Path(folder).rglob("*") if file.is_file())


def _with_data(name: str) -> list[str]:
    """A file with the data files of its image; the folder of another stage alone."""
    return [name, *map(str, files_of_image(name)[1:])] if os.path.isabs(name) else [name]


def _files_named(arguments: Sequence[str]) -> list[str]:
    """Files among the arguments, such as weights or a calibration, also as ``--option=FILE``."""
    named = [argument.partition("=")[2] if argument.startswith("--") else argument for argument in arguments]
    return [name for name in named if os.path.isabs(name) and os.path.isfile(name)]


def _form(value: object) -> Any:
    """Form of a setting in the file, see ``stored_values``; a tuple is a list there."""
    return [str] if isinstance(value, tuple) else type(value)


def program_of(stage: str) -> str:
    """Return the command that runs a stage."""
    return "jointregseg" if stage in ("segmentation", "registration") else "cestquant"


def _folder(visit: Visit, stage: str) -> str:
    return f"{visit.subject}/{visit.name}/{FOLDERS[stage]}"


def _is_folder(visit: Visit) -> bool:
    return Path(visit.files.get("cest", "")).is_dir() and visit.has_cest


def _anatomy(visit: Visit) -> list[str]:
    """Structural images that there are."""
    return [visit.files[name] for name in MODALITIES if name in visit.files]


def _images(visit: Visit) -> list[str]:
    """Structural images in the order of ``jointregseg``, with ``-`` for missing ones."""
    return [visit.files.get(name, "-") for name in MODALITIES]
