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

MIXED = "mixed"
"""Instead of a split: patients of all splits."""


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
        choices=("train", "val", "test", MIXED),
        default="train",
        help=f"split that the manifest gives for the patients; '{MIXED}' for 60 %% train, 15 %% val and 25 %% test",
    )
    parser.add_argument(
        "--regions",
        action="store_true",
        help="also write VISIT_regions.nii.gz, the label map on which 'cestquant phantom --regions' simulates CEST: 1 "
        "white matter, 2 grey matter, 3 cerebrospinal fluid, 4 oedema, 5 enhancing tumour, 6 necrotic core",
    )
    parser.add_argument(
        "--cavity",
        action="store_true",
        help="label resection cavities with 4 (default: they are background); the manifest declares the convention "
        "brats2024 either way",
    )
    parser.add_argument(
        "--resected",
        type=float,
        metavar="SHARE",
        help="share of patients whose tumour is resected at one of the visits, 0 to 1 (default: 0.25)",
    )
    parser.add_argument(
        "--targets",
        action="store_true",
        help="write subjects with one visit and the targets of tasks on single studies instead: tissue map, age (it "
        "widens ventricles and sulci), sex (it changes size and proportions of the head), and the best predictions "
        "that images allow in ceilings.csv",
    )
    parser.add_argument(
        "--tumours",
        dest="tumors",
        type=float,
        metavar="SHARE",
        help="with --targets: share of subjects with a tumour, 0 to 1 (default: 0)",
    )
    parser.add_argument(
        "--low-resolution",
        type=int,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="with --targets: also write MODALITY_low.nii.gz, averaged over blocks of so many voxels along left-right, "
        "posterior-anterior and inferior-superior",
    )
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg synthesize``."""
    from ..cohort.manifest import manifest_text
    from ..cohort.studies import Cohort
    from ..synthesis.files import CONVENTION, write_patient
    from ..synthesis.random_fields import LARGEST_SEED
    from ..synthesis.templates import load_templates
    from ..synthesis.tumor import RESECTED_SHARE

    if options.patients < 1:
        raise ValueError(f"--patients is {options.patients}; give at least 1")
    most = LARGEST_SEED + 1 - options.patients
    if not 0 <= options.seed <= most:
        raise ValueError(f"--seed is {options.seed}; give a whole number from 0 to {most}")
    if not 0.5 <= options.spacing <= 4:
        raise ValueError(f"--spacing is {options.spacing:g} mm; give 0.5 to 4 mm")
    if options.targets:
        _subjects(options)
        return
    for name, value in (("--tumours", options.tumors), ("--low-resolution", options.low_resolution)):
        if value is not None:
            raise ValueError(f"{name} belongs to --targets: add it, or leave {name} out")
    resected = RESECTED_SHARE if options.resected is None else options.resected
    if not 0 <= resected <= 1:
        raise ValueError(f"--resected is {resected:g}; give a share from 0 to 1")
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
                    templates,
                    seed,
                    options.spacing,
                    place,
                    _split(options.split, number, options.patients),
                    regions=options.regions,
                    cavity=options.cavity,
                    resected_share=resected,
                )
        write_text(
            manifest_text(Cohort("cohort.csv", tuple(studies)).with_convention(CONVENTION), folder),
            folder / "cohort.csv",
        )
        report.summary = {"templates": [t.name for t in templates], "patients": options.patients}
        report.write(folder)
    print(f"{Path(options.output) / 'cohort.csv'}: {options.patients} patients, two visits each", file=sys.stderr)


def _subjects(options: Namespace) -> None:
    """Write subjects with one visit and the targets of tasks on single studies."""
    from NeuroCESTLib.core.whole_files import write_rows

    from ..cohort.manifest import manifest_text
    from ..cohort.studies import Cohort
    from ..synthesis.subject_files import CEILINGS, ceilings, write_subject
    from ..synthesis.templates import load_templates

    tumors = options.tumors or 0.0
    if not 0 <= tumors <= 1:
        raise ValueError(f"--tumours is {tumors:g}; give a share from 0 to 1")
    for name, value in (
        ("--regions", options.regions),
        ("--cavity", options.cavity),
        ("--resected", options.resected is not None),
    ):
        if value:
            raise ValueError(f"{name} belongs to patients with two visits: leave it or --targets out")
    if options.low_resolution is not None and not all(1 <= factor <= 16 for factor in options.low_resolution):
        raise ValueError(f"--low-resolution is {options.low_resolution}; give three whole numbers from 1 to 16")
    low = None if options.low_resolution is None else tuple(options.low_resolution)
    count = options.patients
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("jointregseg synthesize", settings_of(options))
        progress(0.0, "reading templates")
        templates = [template.at(options.spacing) for template in load_templates(options.templates)]
        records, rows = [], []
        with report.timed("generating"):
            for number in range(count):
                seed = options.seed + number
                progress(number / count, f"subject {number + 1} of {count}")
                place = folder / f"subject{seed:06d}"
                place.mkdir()
                split = _split(options.split, number, count)
                record, row = write_subject(templates, seed, options.spacing, place, split, tumors, low)
                records.append(record)
                rows.append(row)
        write_text(manifest_text(Cohort("cohort.csv", tuple(records)), folder), folder / "cohort.csv")
        write_rows(rows, folder / CEILINGS)
        report.summary = {
            "templates": [t.name for t in templates],
            "subjects": count,
            "ceilings": ceilings(records, rows),
        }
        report.write(folder)
    print(f"{Path(options.output) / 'cohort.csv'}: {count} subjects with targets", file=sys.stderr)


def _split(wanted: str, number: int, count: int) -> str:
    """Split of a patient by its number."""
    if wanted != MIXED:
        return wanted
    place = (number + 0.5) / count
    return "train" if place < 0.6 else "val" if place < 0.75 else "test"
