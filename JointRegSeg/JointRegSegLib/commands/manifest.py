"""``jointregseg manifest``: the manifest of a folder of studies."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.core.whole_files import write_text

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "manifest",
        help="write the manifest of a folder whose files are named as in BraTS 2018 to 2023, or as synthesize does",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder with studies, at any depth")
    parser.add_argument("--output", required=True, metavar="COHORT.csv", help="manifest to write")
    parser.add_argument(
        "--validation", type=float, default=0.0, metavar="FRACTION", help="fraction of the subjects to validate on"
    )
    parser.add_argument(
        "--test", type=float, default=0.0, metavar="FRACTION", help="fraction of the subjects to test on"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random division of the subjects")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg manifest``."""
    from ..cohort.folders import cohort_of_folder, divide
    from ..cohort.manifest import manifest_text

    cohort = divide(cohort_of_folder(options.folder), options.validation, options.test, options.seed)
    output = Path(options.output)
    write_text(manifest_text(cohort, output.absolute().parent), output)
    splits = Counter(study.split for study in cohort.studies)
    by_split = ", ".join(f"{count} in '{split}'" for split, count in splits.items())
    labeled = sum(study.label is not None for study in cohort.studies)
    subjects = len(cohort.visits())
    studies = f"{len(cohort)} {'study' if len(cohort) == 1 else 'studies'}"
    print(
        f"{output}: {studies} of {subjects} subject{'s' * (subjects > 1)} ({by_split}), {labeled} labelled",
        file=sys.stderr,
    )
