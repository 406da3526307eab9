"""``jointregseg evaluate`` for weights of tasks on single studies."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress
from NeuroCESTLib.core.whole_files import write_rows, write_text
from NeuroCESTLib.report.record import Report, plain_values


def evaluate_on_cohort(options: Namespace) -> None:
    """Score the weights and write tables (cases, summary, comparisons), summary.json, predictions.png, report.json."""
    from NeuroCESTLib.core.device import choose_device

    from ..cohort.manifest import read_manifest
    from ..multitask.evaluation import evaluate_studies
    from ..multitask.weights import load_study_weights
    from ..pictures.predictions import draw_predictions

    if len(options.weights) > 1:
        raise ValueError("--weights names several files, but weights of tasks on single studies are scored one by one")
    for name, value in (("labels", options.labels), ("refine", options.refine), ("similarity", options.similarity)):
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
    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        with report.timed("evaluating"):
            found = evaluate_studies(weights, cohort, split, device, progress)
        write_rows(found.cases, folder / "cases.csv")
        write_rows(found.summary, folder / "summary.csv")
        if found.comparisons:
            write_rows(found.comparisons, folder / "comparisons.csv")
        summary = plain_values({"split": split, "scores": found.summary, "comparisons": found.comparisons})
        write_text(json.dumps(summary, indent=2) + "\n", folder / "summary.json")
        if not options.no_pictures:
            draw_predictions(
                weights.tasks, found.found, found.shown, folder / "predictions.png", Path(options.output).name
            )
        report.warnings += found.warnings
        report.summary |= summary
        report.write(folder)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
