"""``jointregseg synthesize``: synthetic patients with two visits, labels and the true deformation."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress
from NeuroCESTLib.core.whole_files import write_text
from NeuroCESTLib.report.record import Report

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "synthesize", help="synthetic glioma patients with two visits, labels and the true deformation, as a cohort"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the patients and their manifest cohort.csv"
    )
    parser.add_argument("--patients", type=int, default=1, metavar="N", help="number of patients")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first patient; each further one has the next number"
    )
    parser.add_argument("--spacing", type=float, default=1.0, metavar="MM", help="voxel size in mm, 0.5 to 4")
    parser.add_argument(
        "--templates",
        metavar="DIR",
        help="folder of skull-stripped T1 templates (isotropic) to use besides the ICBM152 template of nilearn",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="split that the manifest gives for the patients",
    )
    parser.add_argument(
        "--regions",
        action="store_true",
        help="also write VISIT_regions.nii.gz, the label map on which 'cestquant phantom --regions' simulates CEST: 1 "
        "white matter, 2 grey matter, 3 cerebrospinal fluid, 4 oedema, 5 enhancing tumour, 6 necrotic core",
    )
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg synthesize``."""
    from ..cohort.manifest import Cohort, manifest_text
    from ..synthesis.files import CONVENTION, write_patient
    from ..synthesis.templates import load_templates

    if options.patients < 1:
        raise ValueError(f"--patients is {options.patients}; give at least 1")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; give a whole number of at least 0")
    if not 0.5 <= options.spacing <= 4:
        raise ValueError(f"--spacing is {options.spacing:g} mm; give 0.5 to 4 mm")
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("jointregseg synthesize", settings_of(options))
        progress(0.0, "reading templates")
        templates = [template.at(options.spacing) for template in load_templates(options.templates)]
        studies = []
        with report.timed("generating"):
            for number in range(options.patients):
                seed = options.seed + number
                progress(number / options.patients, f"patient {number + 1} of {options.patients}")
                place = folder / f"synthetic{seed:06d}"
                place.mkdir()
                studies += write_patient(
                    templates, seed, options.spacing, place, options.split, regions=options.regions
                )
        write_text(
            manifest_text(Cohort("cohort.csv", tuple(studies)).with_convention(CONVENTION), folder),
            folder / "cohort.csv",
        )
        report.summary = {"templates": [t.name for t in templates], "patients": options.patients}
        report.write(folder)
    print(f"{Path(options.output) / 'cohort.csv'}: {options.patients} patients, two visits each", file=sys.stderr)
