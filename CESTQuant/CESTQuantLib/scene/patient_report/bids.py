"""Names of outputs as in BIDS derivatives: ``sub-01_ses-visit1_desc-regions_dseg.seg.nrrd``."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
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
        words = name.removeprefix("change_").removesuffix(".nii.gz").split("_")
        quantity = "".join(bids_label(word).capitalize() for word in words)
        return f"{start}_ses-{bids_label(visits[-1])}_desc-change{quantity}_map.nii.gz"
    return None


def rename_as_bids(folder: Path, subject: str, visits: Sequence[str]) -> None:
    """Rename the outputs in a folder, turn tables into tab-separated ones, and write ``dataset_description.json``.

    ``report.json`` and ``scene.mrb`` keep their names.

    Args:
        folder: Folder of the outputs.
        subject: Label of the patient, with or without ``sub-``.
        visits: Names of the visits.

    Raises:
        ValueError: The label has neither letters nor digits, or a file cannot be written.
    """
    subject = subject.removeprefix("sub-")
    for file in sorted(folder.iterdir()):
        name = bids_name(file.name, subject, visits)
        if name is None:
            continue
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


def _tab_separated(text: str) -> str:
    """Return a comma-separated table as BIDS wants it: with tabs, and n/a for what is missing."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter="\t", lineterminator="\n")
    for row in csv.reader(io.StringIO(text)):
        writer.writerow(cell or "n/a" for cell in row)
    return written.getvalue()
