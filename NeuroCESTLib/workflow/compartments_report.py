"""What the report of ``cestquant compartments`` says of a visit: volumes, and checksums of the tables beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.checksum import sha256
from NeuroCESTLib.core.labels.conventions import LABELS

REMEDY = "remove its folder and run again"
COMPARTMENTS, CHANGES = "compartments.csv", "changes.csv"
_OF_TUMOR = (*LABELS[1:], "tumor_core", "whole_tumor")
"""Regions of the tumour by their names."""


def read_summary(folder: Path) -> Mapping[str, Any]:
    """Read the summary in the report of a finished stage, and check the tables beside it against their checksums.

    Reports of earlier versions have no checksums.

    Args:
        folder: Folder of the stage.

    Raises:
        ValueError: The report is damaged, or a table is missing or is not the one that was written; the message names
            it.
    """
    path = folder / "report.json"
    try:
        content = read_json(path)
    except ValueError:
        content = None
    summary = content.get("summary") if isinstance(content, dict) else None
    checksums = summary.get("checksums", {}) if isinstance(summary, dict) else None
    if not isinstance(summary, dict) or not isinstance(checksums, dict):
        raise ValueError(f"'{path}' is a damaged report: {REMEDY}")
    for table in (folder / name for name in (COMPARTMENTS, CHANGES) if name in checksums):
        if not table.is_file():
            raise ValueError(f"'{table}' is missing: {REMEDY}")
        if sha256(table) != checksums[table.name]:
            raise ValueError(f"'{table}' is a damaged table, not the one that was written: {REMEDY}")
    return summary


def read_volumes(folder: Path, visits: Sequence[str]) -> dict[str, dict[str, tuple[float, bool]]]:
    """Read the volume in ml of each compartment of the tumour at each visit, and whether it is only the least one.

    It is the least one where the anatomical images do not show all of the compartment. Reports of earlier versions do
    not tell which regions belong to the tumour; then their names do.

    Args:
        folder: Folder of the stage.
        visits: Names of the visits.

    Raises:
        ValueError: The report or a table beside it is damaged, see ``read_summary``.
    """
    summary, found = read_summary(folder), {}
    try:
        for visit in visits:
            regions = summary["visits"][visit]["regions"].items()
            found[visit] = {
                name: (float(region["volume_ml"]), bool(region.get("at_least")))
                for name, region in regions
                if region.get("kind", "tumor" if name in _OF_TUMOR else "") == "tumor"
            }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"'{folder / 'report.json'}' is a damaged report, in which volumes are missing: {REMEDY}"
        ) from None
    return found
