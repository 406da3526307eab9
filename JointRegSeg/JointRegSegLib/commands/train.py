"""``jointregseg train``: a network trained on a cohort or on synthetic patients."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.output.lock import only_run
from NeuroCESTLib.core.progress import Cancelled, Progress, terminal_progress
from NeuroCESTLib.core.whole_files import write_errors
from NeuroCESTLib.report.record import Report, plain_values, versions

from .options import add_labels
from .train_tasks import RESULTS, train_on_cohort

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.core.processes import Processes

    from ..multitask.config import MultiTaskConfig
    from ..network.joint import JointNetwork
    from ..training.config import TrainingConfig
    from ..training.data import TrainingData
    from ..training.state import TrainingResult

LICENSE = "MIT"
"""Licence of the weights."""


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train", help="train a network on a cohort or on synthetic patients; can be started by torchrun"
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="CONFIG.json",
        help="configuration of network, data, loss and training, or the name of a bundled network or recipe; with a "
        "list of tasks, such as tissue or regression, it trains them on single studies",
    )
    parser.add_argument("--manifest", metavar="COHORT.csv", help="studies; not needed for synthetic patients")
    add_labels(parser, "in the manifest, where its column 'convention' says nothing")
    parser.add_argument("--output", required=True, metavar="RUN", help="folder for weights, checkpoints, log, pictures")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the training in RUN from its last checkpoint; a damaged one is put aside, and the training "
        "starts from the beginning, for which it needs the file of its initial weights",
    )
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Run ``jointregseg train``."""
    from NeuroCESTLib.core.processes import processes

    from ..multitask.config import is_multitask, read_multitask
    from ..training.checkpoints import LAST
    from ..training.config_files import config_by_name

    config: TrainingConfig | MultiTaskConfig
    config = read_multitask(options.config) if is_multitask(options.config) else config_by_name(options.config)
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to '{folder}': it is a file, not a folder")
    if (folder / LAST).exists() and not options.resume:
        raise ValueError(f"'{folder}' holds a training: add --resume to continue it, or choose another folder")
    if options.resume and not (folder / LAST).exists():
        raise ValueError(f"'{folder}' holds no checkpoint to resume from; leave out --resume to start a training")
    with write_errors(folder / LAST):
        folder.mkdir(parents=True, exist_ok=True)
    with processes(config.training.device) as these, terminal_progress(visible=these.writes) as progress:
        try:
            if not these.writes:
                return _train(options, config, folder, these, progress)
            with only_run(folder):
                return _train(options, config, folder, these, progress)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()  # succeeds only for an empty folder, in which nothing was trained
            raise


def _train(
    options: Namespace,
    config: TrainingConfig | MultiTaskConfig,
    folder: Path,
    processes: Processes,
    progress: Progress,
) -> int:
    from ..multitask.config import MultiTaskConfig
    from ..training.checkpoints import LAST, is_sound
    from ..training.data import open_data
    from ..training.initial import new_network
    from ..training.loop import train

    if isinstance(config, MultiTaskConfig):
        return train_on_cohort(options, config, folder, processes, progress)
    report = Report("jointregseg train", settings_of(options) | {"configuration": config.to_dict()})
    report.device = str(processes.device(config.training.device))
    for role, path in (("config", options.config), ("manifest", options.manifest)):
        if path is not None and Path(path).is_file() and processes.writes:
            report.add_input(role, path)
    require_inputs_kept(folder, lambda place: place.name in RESULTS)
    with report.warned():  # before the data, for which the checkpoint has settings, and so that lacks are told at once
        resume = options.resume and is_sound(folder, processes, config.initial_weights)
        network = new_network(config, resume)
    with report.timed("data"), report.warned():
        data = open_data(config, options.manifest, folder, progress, options.labels)
        config = data.config  # with the values that were learned from the data
        report.settings["configuration"] = config.to_dict()
    try:
        with report.timed("training"), report.warned():
            result = train(
                config,
                network,
                data.source,
                data.validation,
                folder,
                augmentation=data.augmentation,
                resume=resume,
                processes=processes,
                progress=progress,
                studies=data.studies,
            )
    except (Cancelled, KeyboardInterrupt):
        if not (folder / LAST).exists():  # interrupted at once, in the first step
            raise
        if processes.writes:
            print(f"interrupted: '{folder / LAST}' is written; continue with --resume", file=sys.stderr)
        return FAILURE
    if processes.writes:
        _write(result, network, config, data, folder, report)
        progress(1.0, f"{result.stopped}: best at step {result.best_step}")
    return SUCCESS


def _write(
    result: TrainingResult,
    network: JointNetwork,
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    report: Report,
) -> None:
    """Write the weights with what is known of their training, the curves and the report, all of them or none."""
    from ..network.weights import save_weights
    from ..pictures.curves import draw_curves

    best = next((row for row in result.rows if row["step"] == result.best_step), {})
    summary = {
        "steps": result.steps,
        "stopped": result.stopped,
        "best_step": result.best_step,
        "validation": {name.removeprefix("val_"): value for name, value in best.items() if name.startswith("val_")},
        "training_pairs": len(data.source),
        "validation_pairs": len(data.validation),
        "data": data.description,
        **({"labels": data.labels} if data.labels else {}),
    }
    metadata = {
        "preprocessing": data.preprocessing,
        "brain_share": config.training.brain_share or _brain_share(result, config),
        "training": summary,
        "configuration": config.to_dict(),
        "versions": versions(),
        "licence": LICENSE,
        "notice": "research use only, not for clinical use",
    }
    report.add_times({"all sessions": result.seconds})
    with OutputFolder(folder, lock=False) as place:
        save_weights(place / "weights.pt", network, plain_values(metadata))
        draw_curves(result.rows, place / "curves.png", config.network.name)
        report.summary |= summary | {"parameters": network.parameter_count}
        report.write(place)


def _brain_share(result: TrainingResult, config: TrainingConfig) -> float | None:
    """Mean fraction of brain in the patches, of which inference shows a network with instance normalisation as much."""
    if config.network.normalisation != "instance":
        return None
    shares = [row["brain_share"] for row in result.rows if "brain_share" in row]
    return sum(shares) / len(shares) if shares else None
