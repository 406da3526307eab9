"""The command ``jointregseg manifest``: the manifest of a folder of studies."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

from NeuroCESTLib.core.whole_files import write_text


def add_manifest(commands) -> None:
    parser = commands.add_parser(
        "manifest",
        help="write the manifest of a folder whose files are named as in BraTS 2018 to 2023, or as synthesize does",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder with studies, at any depth")
    parser.add_argument("--output", required=True, metavar="COHORT.csv", help="manifest to write")
    parser.add_argument("--validation", type=float, default=0.0, metavar="SHARE", help="subjects to validate on (0-1)")
    parser.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="subjects to test on (0-1)")
    parser.add_argument("--seed", type=int, default=0, help="of the division into splits")
    parser.set_defaults(command=manifest_command)


def manifest_command(options: Namespace) -> None:
    """``jointregseg manifest``."""
    from ..cohort.folders import cohort_of_folder, divide
    from ..cohort.manifest import manifest_text

    cohort = divide(cohort_of_folder(options.folder), options.validation, options.test, options.seed)
    output = Path(options.output)
    write_text(manifest_text(cohort, output.absolute().parent), output)
    splits = Counter(study.split for study in cohort.studies)
    shown = ", ".join(f"{count} in '{split}'" for split, count in splits.items())
    labelled = sum(study.label is not None for study in cohort.studies)
    subjects = len(cohort.visits())
    studies = f"{len(cohort)} {'study' if len(cohort) == 1 else 'studies'}"
    print(
        f"{output}: {studies} of {subjects} subject{'s' * (subjects > 1)} ({shown}), {labelled} labelled",
        file=sys.stderr,
    )
