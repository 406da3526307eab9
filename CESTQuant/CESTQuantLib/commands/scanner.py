"""``cestquant import``: scanner files as signal, protocol and report."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


_ROLES = {
    **dict.fromkeys((".nii", ".gz", ".hdr", ".img"), "image"),
    ".json": "sidecar",
    **dict.fromkeys((".txt", ".seq"), "offsets"),
}
"""What the files of an import are by their ending; DICOM images have any, and parameters of ParaVision none."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "import",
        help="scanner files as signal and protocol",
        description="Read a scan of Bruker ParaVision 5, 6 or 360, a series of DICOM images, or a NIfTI file with its "
        "JSON file: DIR gets signal.seq.nrrd (with geometry and offsets), protocol.json (null for what the files do "
        "not say) and report.json. A scan without saturation becomes image.nii.gz or image.seq.nrrd, and a finished "
        "map of APT weighting aptw.nii.gz, in percent.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="ParaVision study, scan or reconstruction (pdata/N); folder or file of DICOM images; NIfTI file, or a "
        "folder of such files",
    )
    parser.add_argument(
        "--scan",
        metavar="N",
        help="number of scan or series, or of DICOM series to join, as 5-35, or name of a NIfTI file (default: the "
        "only one of CEST)",
    )
    parser.add_argument("--list", action="store_true", help="print the scans of SOURCE, one a line, and write nothing")
    parser.add_argument(
        "--offsets",
        metavar="FILE",
        help="text file of offsets in ppm, or in Hz by its header, of one repetition; of DICOM also the pulseq .seq "
        "that was played (default: what the files say, or a .seq or offsets.txt beside DICOM images)",
    )
    parser.add_argument("--output", metavar="DIR", help="folder for signal, protocol and report")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant import``."""
    if options.list:
        _print_scans(options.source)
    elif options.output is None:
        raise ValueError("give the folder for the results with --output DIR, or --list to see the scans")
    else:
        _import(options)


def _print_scans(source: str) -> None:
    from ..formats.scanner.sources import describe_scans

    for description in describe_scans(source):
        print(description)


def _role(path: Path) -> str:
    """What a file of a scan is, without its name, which may be that of the patient."""
    if path.name in ("method", "acqp", "visu_pars", "2dseq"):
        return path.name
    return _ROLES.get(path.suffix.lower(), "dicom")


def _import(options: Namespace) -> None:
    from NeuroCESTLib.core.whole_files import write_text
    from NeuroCESTLib.report.record import Report
    from NeuroCESTLib.scene import host
    from NeuroCESTLib.scene.writing import write_node, write_volume

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant import", settings_of(options))
        report.require_folder(options.output)
        host.attach()
        from ..logic import CESTQuantLogic
        from ..scene.scanner import APTW

        with report.timed("reading"):
            imported = CESTQuantLogic().importScan(
                options.source, scan=options.scan, offsets=options.offsets, progress=progress
            )
        for path in imported.files:
            report.add_input(_role(path), path)
        if options.offsets and Path(options.offsets) not in imported.files:
            report.add_input("offsets", options.offsets)
        with report.timed("writing"):
            if imported.node.IsA("vtkMRMLSequenceNode"):
                write_node(imported.node, folder / f"{'image' if imported.protocol is None else 'signal'}.seq.nrrd")
            else:
                name = APTW if imported.node.GetName() == APTW else "image"
                write_volume(imported.node, folder / f"{name}.nii.gz")
            if imported.protocol is not None:
                write_text(json.dumps(imported.protocol, indent=1) + "\n", folder / "protocol.json")
        report.summary |= imported.report
        report.warnings += imported.warnings
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for key, meaning in imported.open.items():
        print(f"to fill in: {key}, {meaning}", file=sys.stderr)
