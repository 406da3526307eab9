"""``jointregseg manifest``: the manifest of a folder of studies."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.core.output.lock import only_run
from NeuroCESTLib.core.whole_files import write_text

from .options import add_labels

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser

    from ..cohort.studies import Cohort


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "manifest",
        help="write the manifest of a data set that is found by the names of its files and folders: BraTS, BraTS-Reg, "
        "BIDS, Decathlon, nnU-Net, UPENN, UCSF, UCSD, RHUH, MU-Glioma-Post, LUMIERE, and folders by visit",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder with studies, at any depth")
    parser.add_argument("--output", required=True, metavar="COHORT.csv", help="manifest to write")
    parser.add_argument(
        "--validation", type=float, default=0.0, metavar="FRACTION", help="fraction of the subjects to validate on"
    )
    parser.add_argument(
        "--test", type=float, default=0.0, metavar="FRACTION", help="fraction of the subjects to test on"
    )
    add_labels(parser, "that the manifest declares, where the names of the files do not tell it")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random division of the subjects")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``jointregseg manifest``, unless another run writes the same manifest."""
    if Path(options.output).suffix.lower() != ".csv":
        raise ValueError(f"cannot write '{options.output}': the name of a manifest must end in .csv")
    with only_run(options.output):
        _write_manifest(options)


def _require_no_data(output: Path, cohort: Cohort) -> None:
    """Check that the manifest replaces no file of the data set."""
    found = [file for study in cohort.studies for file in study.files.values()]
    if output.resolve() in {Path(file).resolve() for file in (*found, *(file for file, _ in cohort.ignored))}:
        raise ValueError(f"'{output}' is a file of the data set and would be replaced: choose another --output")


def _write_manifest(options: Namespace) -> None:
    from ..cohort.division import divide
    from ..cohort.folders import cohort_of_folder
    from ..cohort.manifest import manifest_text

    found = cohort_of_folder(options.folder).with_convention(options.labels)
    cohort = divide(found, options.validation, options.test, options.seed)
    output = Path(options.output)
    _require_no_data(output, cohort)
    write_text(manifest_text(cohort, output.absolute().parent), output)
    splits = Counter(study.split for study in cohort.studies)
    by_split = ", ".join(f"{count} in '{split}'" for split, count in splits.items())
    for line in ignored_lines(cohort):
        print(line, file=sys.stderr)
    labeled = sum(study.label is not None for study in cohort.studies)
    subjects = len(cohort.visits())
    studies = f"{len(cohort)} {'study' if len(cohort) == 1 else 'studies'}"
    print(
        f"{output}: {studies} of {subjects} subject{'s' * (subjects > 1)} ({by_split}), {labeled} labelled",
        file=sys.stderr,
    )


def ignored_lines(cohort: Cohort) -> list[str]:
    """List the image files that a cohort does not take: a line for each kind of name, with its number and a reason.

    Files whose names differ in numbers alone are of one kind.
    """
    kinds: dict[tuple[str, str], list[Path]] = {}
    for file, reason in cohort.ignored:
        kinds.setdefault((re.sub(r"\d+", "#", file.name), reason), []).append(file)
    lines = []
    for (_, reason), files in sorted(kinds.items()):
        count = f" and {len(files) - 1} like it" if len(files) > 1 else ""
        lines.append(f"ignored: '{os.path.relpath(files[0], cohort.source)}'{count} ({reason})")
    return lines
