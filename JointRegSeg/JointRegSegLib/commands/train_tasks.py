"""``jointregseg train`` for tasks on single studies."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.progress import Cancelled, Progress
from NeuroCESTLib.report.record import Report, plain_values, versions

if TYPE_CHECKING:
    from NeuroCESTLib.core.processes import Processes

    from ..multitask.config import MultiTaskConfig
    from ..multitask.training import StudyTraining

LICENSE = "MIT"
"""Licence of the weights."""
RESULTS = ("weights.pt", "curves.png", "report.json")
"""Names of the files that a training writes at its end."""


def train_on_cohort(
    options: Namespace, config: MultiTaskConfig, folder: Path, processes: Processes, progress: Progress
) -> int:
    """Train the tasks of a configuration and write the results; return the exit status."""
    from ..multitask.training import train_tasks
    from ..training.checkpoints import LAST, is_sound

    if options.manifest is None:
        raise ValueError("tasks on single studies need a cohort: give --manifest COHORT.csv")
    if options.labels is not None:
        raise ValueError("--labels is about tumour labels, which these tasks do not use; leave it out")
    report = Report("jointregseg train", settings_of(options) | {"configuration": config.to_dict()})
    report.device = str(processes.device(config.training.device))
    inputs = [("config", options.config), ("manifest", options.manifest), ("initialise", config.initial_weights)]
    for role, path in inputs:
        if Path(path).is_file() and processes.writes:
            report.add_input(role, path)
    require_inputs_kept(folder, lambda place: place.name in RESULTS)
    with report.warned():
        resume = options.resume and is_sound(folder, processes, config.initial_weights)
    try:
        with report.timed("training"), report.warned():
            training = train_tasks(
                config, options.manifest, folder, resume=resume, processes=processes, progress=progress
            )
    except (Cancelled, KeyboardInterrupt):
        if not (folder / LAST).exists():  # interrupted at once, in the first step
            raise
        if processes.writes:
            print(f"interrupted: '{folder / LAST}' is written; continue with --resume", file=sys.stderr)
        return FAILURE
    if processes.writes:
        _write(training, folder, report)
        progress(1.0, f"{training.result.stopped}: best at step {training.result.best_step}")
    return SUCCESS


def _write(training: StudyTraining, folder: Path, report: Report) -> None:
    """Write the weights with what is known of their training, the curves and the report, all of them or none."""
    from ..multitask.objective import StudyObjective
    from ..multitask.weights import save_study_weights
    from ..pictures.curves import draw_curves

    result, config = training.result, training.config
    best = next((row for row in result.rows if row["step"] == result.best_step), {})
    summary = {
        "steps": result.steps,
        "stopped": result.stopped,
        "best_step": result.best_step,
        "validation": {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")},
        "training_studies": training.training_studies,
        "validation_studies": training.validation_studies,
        "studies_with_target": training.known,
        "parameters": training.network.parameter_count,
    }
    if training.start is not None:
        start = training.start
        summary["initialised"] = {"weights": start.source, "taken": start.taken, "left_out": list(start.left_out)}
        report.warnings.append(start.sentence())
        print(start.sentence(), file=sys.stderr)
    metadata = {
        "preparation": config.data.preparation().to_dict(),
        "training": summary,
        "configuration": config.to_dict(),
        "versions": versions(),
        "licence": LICENSE,
        "notice": "research use only, not for clinical use",
    }
    report.settings["configuration"] = config.to_dict()
    report.add_times({"all sessions": result.seconds})
    with OutputFolder(folder, lock=False) as place:
        save_study_weights(place / "weights.pt", training.network, plain_values(metadata))
        draw_curves(result.rows, place / "curves.png", config.network.name, StudyObjective(config).scores)
        report.summary |= summary
        report.write(place)
