"""Names of outputs as in BIDS derivatives: ``sub-01_ses-visit1_desc-regions_dseg.seg.nrrd``."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.whole_files import write_text
from NeuroCESTLib.report.record import versions

from ..compartments.nodes import file_name

_NAMES = {
    "compartments.csv": "desc-compartments_stats.tsv",
    "changes.csv": "desc-changes_stats.tsv",
    "report.html": "desc-compartments_report.html",
    "transitions.nii.gz": "desc-transitions_dseg.nii.gz",
}


def bids_label(text: str) -> str:
    """Return a text as a label of BIDS, which has letters and digits only.

    Raises:
        ValueError: Nothing is left of it.
    """
    label = re.sub(r"[^A-Za-z0-9]", "", text)
    if not label:
        raise InputError("bids-names", f"'{text}' is no name for BIDS, which allows letters and digits only")
    return label


def bids_name(name: str, subject: str, visits: Sequence[str]) -> str | None:
    """Return the name of an output as in BIDS derivatives; None for one that keeps its name.

    Args:
        name: Name of the file, such as ``visit_1_regions.seg.nrrd``.
        subject: Label of the patient.
        visits: Names of the visits.
    """
    start = f"sub-{bids_label(subject)}"
    if name in _NAMES:
        return f"{start}_{_NAMES[name]}"
    for visit in visits:
        if name == f"{file_name(visit)}_regions.seg.nrrd":
            return f"{start}_ses-{bids_label(visit)}_desc-regions_dseg.seg.nrrd"
    if name.startswith("change_") and name.endswith(".nii.gz"):
        quantity = _quantity_label(name.removeprefix("change_").removesuffix(".nii.gz"))
        return f"{start}_ses-{bids_label(visits[-1])}_desc-change{quantity}_map.nii.gz"
    return None


def _quantity_label(quantity: str) -> str:
    """The name of a map as a part of a label: ``mtr_asym_-3.5ppm`` becomes ``MtrAsymMinus3p5ppm``."""
    spelled = re.sub(r"(?<=\d)\.(?=\d)", "p", re.sub(r"-(?=[\d.])", "minus", quantity))
    words = [re.sub(r"[^A-Za-z0-9]", "", word) for word in spelled.split("_")]
    return "".join(word.capitalize() for word in words)


def rename_as_bids(folder: Path, subject: str, visits: Sequence[str]) -> None:
    """Rename the outputs in a folder, turn tables into tab-separated ones, and write ``dataset_description.json``.

    ``report.json`` and ``scene.mrb`` keep their names. Outputs that differ only in characters that BIDS does not allow
    are numbered.

    Args:
        folder: Folder of the outputs.
        subject: Label of the patient, with or without ``sub-``.
        visits: Names of the visits.

    Raises:
        ValueError: The label has neither letters nor digits, or a file cannot be written.
    """
    subject = subject.removeprefix("sub-")
    files = sorted(folder.iterdir())
    wanted = {file: name for file in files if (name := bids_name(file.name, subject, visits)) is not None}
    for file, name in _numbered(wanted).items():
        if name.endswith(".tsv"):
            write_text(_tab_separated(file.read_text(encoding="utf-8")), folder / name)
            file.unlink()
        else:
            file.rename(folder / name)
    program = {"Name": "NeuroCEST", "Version": versions().get("neurocest", "unknown")}
    description = {
        "Name": "CEST of tumour compartments",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [program],
    }
    write_text(json.dumps(description, indent=2) + "\n", folder / "dataset_description.json")


def _numbered(names: Mapping[Path, str]) -> dict[Path, str]:
    """Return names of which no two are the same, also where a disk does not tell upper and lower case apart."""
    found: dict[Path, str] = {}
    taken: set[str] = set()
    for file, name in names.items():
        label, ending = name.rsplit("_", 1)
        numbered = (f"{label}{number}_{ending}" for number in itertools.count(2))
        found[file] = next(each for each in itertools.chain([name], numbered) if each.casefold() not in taken)
        taken.add(found[file].casefold())
    return found


def _tab_separated(text: str) -> str:
    """Return a comma-separated table as BIDS wants it: with tabs, and n/a for what is missing."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter="\t", lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        writer.writerow(cell or "n/a" for cell in row)
    return written.getvalue()
