"""The report of ``cestquant compartments``: ``report.html``, the verdict, and names as in BIDS derivatives."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from NeuroCESTLib.report.record import Report

    from ..scene.compartments.nodes import CompartmentsResult


def add_report(parser: ArgumentParser) -> None:
    """Add the options of the report."""
    group = parser.add_argument_group("report")
    group.add_argument(
        "--label",
        default="",
        metavar="TEXT",
        help="pseudonym of the patient for the headline of the report, which shows no other name",
    )
    group.add_argument(
        "--bids-names",
        metavar="SUBJECT",
        help="name the outputs as BIDS derivatives: sub-SUBJECT_ses-VISIT_desc-…; tables are tab-separated (.tsv)",
    )


def require_report(options: Namespace, visits: Sequence[str]) -> None:
    """Check the options of the report before anything is computed.

    Args:
        options: Arguments of the command.
        visits: Names of the visits that are analysed.

    Raises:
        ValueError: The name of the patient or of a visit is no name for BIDS, or two visits have the same one.
    """
    if options.bids_names is not None:
        from ..scene.patient_report.bids import bids_label

        bids_label(options.bids_names.removeprefix("sub-"))
        if len({bids_label(visit).casefold() for visit in visits}) < len(visits):
            raise ValueError(
                f"--visits: the names {' and '.join(map(repr, visits))} are the same as names of BIDS, in which only "
                "letters and digits count: choose names that differ in these, or leave out --bids-names"
            )


def write_report(options: Namespace, folder: Path, result: CompartmentsResult, report: Report) -> None:
    """Write ``report.html`` and record the verdict; with ``--bids-names`` rename all outputs.

    Args:
        options: Arguments of the command.
        folder: Output folder, in which everything else has been written.
        result: The analysis.
        report: Record of the run, which gets the verdict.
    """
    from NeuroCESTLib.report.page import write_page

    from ..scene.patient_report.bids import rename_as_bids
    from ..scene.patient_report.material import material_of, read_record
    from ..scene.patient_report.page import patient_page

    given = [options.maps, options.maps2][: len(result.analysis.visits)]
    fits = [read_record(maps, "cestquant fit") if maps else {} for maps in given]
    registration = read_record(Path(options.between).parent, "jointregseg apply") if options.between else {}
    material = material_of(result, options.label, fits, registration, vars(options))
    write_page(patient_page(material), folder / "report.html")
    report.verdict = {"verdict": material.verdict(), "reasons": material.warnings()}
    if options.bids_names:
        visits = [visit.name for visit in result.analysis.visits]
        rename_as_bids(folder, options.bids_names, visits)
