"""``jointregseg evaluate`` for weights of tasks on single studies."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress
from NeuroCESTLib.core.whole_files import write_rows, write_text, written_as
from NeuroCESTLib.report.record import Report, plain_values

PARTIAL = "partial"
"""Folder within the output for a result that lacks failed cases, where an earlier result is kept."""


def move_into_partial(folder: Path) -> None:
    """Move everything that was written into a folder into ``PARTIAL`` within it."""
    written = list(folder.iterdir())
    (folder / PARTIAL).mkdir()
    for file in written:
        file.rename(folder / PARTIAL / file.name)


def failures(failed: int, count: int, output: str, keeps_earlier: bool) -> str:
    """Say how many cases failed, and where the result is without them."""
    place = Path(output) / (PARTIAL if keeps_earlier else "")
    kept = f"; the earlier result in '{output}' is kept (--overwrite replaces it)" if keeps_earlier else ""
    return f"{failed} of {cases_in_words(count)} failed, see '{place / 'cases.csv'}'{kept}"


def cases_in_words(count: int) -> str:
    """Return a number of cases in words."""
    return "1 case" if count == 1 else f"{count} cases"


def evaluate_on_cohort(options: Namespace) -> int:
    """Score the weights and write tables (cases, summary, comparisons), summary.json, predictions.png, report.json.

    Returns:
        Exit status.
    """
    from NeuroCESTLib.core.device import choose_device

    from ..cohort.manifest import read_manifest
    from ..multitask.evaluation import evaluate_studies
    from ..multitask.weights import load_study_weights
    from ..pictures.predictions import draw_predictions

    if len(options.weights) > 1:
        raise ValueError("--weights names several files, but weights of tasks on single studies are scored one by one")
    refused = {name: getattr(options, name) for name in ("labels", "refine", "similarity")}
    for name, value in (refused | {"no-coregistration": options.no_coregistration or None}).items():
        if value is not None:
            raise ValueError(
                f"--{name} belongs to segmentation and registration; leave it out for weights of other tasks"
            )
    weights = load_study_weights(options.weights[0])
    targets = {column: kind for task in weights.tasks for column, kind in task.columns.items()}
    cohort = read_manifest(options.manifest, targets)
    split = options.split or ("test" if any(study.split == "test" for study in cohort.studies) else "all")
    device = str(choose_device(options.device))
    report = Report("jointregseg evaluate", settings_of(options), device)
    report.add_input("manifest", options.manifest)
    report.add_input("weights", options.weights[0])
    earlier = (Path(options.output) / "cases.csv").exists()
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        with report.timed("evaluating"):
            found = evaluate_studies(weights, cohort, split, device, progress)
        errors = [{"study": name, "error": written_as.get()(error)} for name, error in found.failed.items()]
        write_rows([*found.cases, *errors], folder / "cases.csv")
        write_rows(found.summary, folder / "summary.csv")
        if found.comparisons:
            write_rows(found.comparisons, folder / "comparisons.csv")
        summary = plain_values(
            {"split": split, "failed": errors, "scores": found.summary, "comparisons": found.comparisons}
        )
        write_text(json.dumps(summary, indent=2) + "\n", folder / "summary.json")
        if not options.no_pictures:
            draw_predictions(
                weights.tasks, found.found, found.shown, folder / "predictions.png", Path(options.output).name
            )
        report.warnings += found.warnings
        report.summary |= summary
        report.write(folder)
        keeps_earlier = bool(errors) and earlier and not options.overwrite
        if keeps_earlier:
            move_into_partial(folder)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for name, error in found.failed.items():
        print(f"error: {name}: {error}", file=sys.stderr)
    if errors:
        count = len(cohort) if split == "all" else len(cohort.of_split(split))
        print(f"error: {failures(len(errors), count, options.output, keeps_earlier)}", file=sys.stderr)
    return FAILURE if errors else SUCCESS
