"""``jointregseg predict``: tissues, numbers and classes of one visit by weights of tasks on single studies."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import part, terminal_progress
from NeuroCESTLib.report.record import Report

from ..multitask.shipped import shipped_in_words, weights_file
from .options import add_coregistration, add_device
from .visit_files import add_visit, files_by_modality, named_by_files, positions, read_visit, told

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "predict",
        help="tissues, numbers (such as the age), classes, smaller voxels or anomalies of one visit, by weights that "
        "'train' made",
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help=f"weights of tasks on single studies: the file (.pt), or the name of weights of the package, "
        f"{shipped_in_words()}",
    )
    add_visit(parser)
    add_coregistration(parser)
    add_device(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for predictions.csv (numbers with 95 %% intervals, classes with probabilities, volumes in ml, the "
        "code of an autoencoder), tissue.seg.nrrd, super_resolution_<modality>.nii.gz, "
        "reconstruction_<modality>.nii.gz and anomaly.nii.gz, whichever the weights can do",
    )
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg predict``; it writes all results or none."""
    paths = files_by_modality(options.images, "--images")
    weights = weights_file(options.weights)
    with terminal_progress() as progress, OutputFolder(options.output, replaced=positions()) as folder:
        from NeuroCESTLib.core.device import choose_device
        from NeuroCESTLib.scene import host
        from NeuroCESTLib.scene.tables import write_table
        from NeuroCESTLib.scene.writing import write_volume

        from ..logic import JointRegSegLogic
        from ..scene.files import write_positions, write_segmentation

        report = Report("jointregseg predict", settings_of(options), str(choose_device(options.device)))
        host.attach()
        report.add_input("weights", weights)
        with report.timed("reading"), told(report):
            study, mask, files = read_visit(paths, options.mask, report)
        with report.timed("computing"), named_by_files(files), told(report):
            result = JointRegSegLogic().predict(
                study,
                weights,
                mask=mask,
                coregister=not options.no_coregistration,
                folderName=Path(options.output).resolve().name,
                device=options.device,
                progress=part(progress, 0.0, 0.95),
            )
        progress(0.95, "writing files")
        like = paths[result.found.reference]
        if result.tissue is not None:
            write_segmentation(result.tissue, folder / "tissue.seg.nrrd", like)
        if result.table is not None:
            write_table(result.table, folder / "predictions.csv", digits=6)
        for name, node in result.volumes.items():
            write_volume(node, folder / f"{name}.nii.gz", like=paths.get(name.rpartition("_")[2], like))
        write_positions(result.found.positions, folder)
        report.warnings += result.warnings
        report.summary |= {"predictions": [{k: v for k, v in row.items() if v == v} for row in result.found.rows]}
        report.write(folder)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
