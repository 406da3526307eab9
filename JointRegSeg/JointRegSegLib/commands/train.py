"""The command ``jointregseg train``."""

from __future__ import annotations

import contextlib
import io
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import FAILURE, SUCCESS, settings_of
from NeuroCESTLib.core.progress import Cancelled, TerminalProgress, terminal_progress
from NeuroCESTLib.core.whole_files import write_errors
from NeuroCESTLib.report.record import Report, versions

if TYPE_CHECKING:
    from ..training.config import TrainingConfig
    from ..training.data import TrainingData
    from ..training.loop import TrainingResult

LICENCE = "MIT"


def add_train(commands) -> None:
    parser = commands.add_parser("train", help="train a network on a cohort or on synthetic patients; also by torchrun")
    parser.add_argument(
        "--config", required=True, metavar="CONFIG.json", help="network, data, loss, training; or a network's name"
    )
    parser.add_argument("--manifest", metavar="COHORT.csv", help="studies; not needed for synthetic patients")
    parser.add_argument("--output", required=True, metavar="RUN", help="folder for weights, checkpoints, log, pictures")
    parser.add_argument("--resume", action="store_true", help="continue the training in RUN from its last checkpoint")
    parser.set_defaults(command=train_command)


def train_command(options: Namespace) -> int:
    """``jointregseg train``."""
    from NeuroCESTLib.core.processes import processes

    from ..training.checkpoints import LAST
    from ..training.config import config_by_name

    config = config_by_name(options.config)
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write to '{folder}': it is a file, not a folder")
    if (folder / LAST).exists() and not options.resume:
        raise ValueError(f"'{folder}' holds a training: add --resume to continue it, or choose another folder")
    if options.resume and not (folder / LAST).exists():
        raise ValueError(f"'{folder}' holds no checkpoint to resume from; leave out --resume to start a training")
    with write_errors(folder / LAST):
        folder.mkdir(parents=True, exist_ok=True)
    with processes(config.training.device) as these, terminal_progress() as progress:
        if not these.writes:
            progress = _silenced(progress)
        try:
            return _train(options, config, folder, these, progress)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty one: nothing was trained
            raise


def _train(options: Namespace, config: TrainingConfig, folder: Path, processes: Any, progress: Any) -> int:
    from ..training.checkpoints import LAST
    from ..training.data import open_data
    from ..training.loop import new_network, train

    report = Report("jointregseg train", settings_of(options) | {"configuration": config.to_dict()})
    report.device = str(processes.device(config.training.device))
    for role, path in (("config", options.config), ("manifest", options.manifest)):
        if path is not None and Path(path).is_file() and processes.writes:
            report.add_input(role, path)
    with report.timed("data"):
        data = open_data(config, options.manifest, folder, progress)
        config = data.config  # with what was learned from the data
        report.settings["configuration"] = config.to_dict()
        network = new_network(config)
    try:
        with report.timed("training"):
            result = train(
                config,
                network,
                data.source,
                data.validation,
                folder,
                augmentation=data.augmentation,
                resume=options.resume,
                processes=processes,
                progress=progress,
            )
    except (Cancelled, KeyboardInterrupt):
        if processes.writes:
            print(f"interrupted: '{folder / LAST}' is written; continue with --resume", file=sys.stderr)
        return FAILURE
    if processes.writes:
        _write(result, config, data, folder, report)
        progress(1.0, f"{result.stopped}: best at step {result.best_step}")
    return SUCCESS


def _write(result: TrainingResult, config: TrainingConfig, data: TrainingData, folder: Path, report: Report) -> None:
    from ..network.weights import save_weights
    from ..training.curves import draw_curves

    best = next((row for row in result.rows if row["step"] == result.best_step), {})
    summary = {
        "steps": result.steps,
        "minutes": round(result.seconds / 60, 2),
        "stopped": result.stopped,
        "best_step": result.best_step,
        "validation": {k[4:]: v for k, v in best.items() if k.startswith("val_")},
        "training_pairs": len(data.source),
        "validation_pairs": len(data.validation),
        "data": data.description,
    }
    metadata = {
        "preprocessing": data.preprocessing,
        "brain_share": config.training.brain_share or _brain_share(result),
        "training": summary,
        "configuration": config.to_dict(),
        "versions": versions(),
        "licence": LICENCE,
        "notice": "research use only, not for clinical use",
    }
    save_weights(folder / "weights.pt", result.network, _finite(metadata))
    draw_curves(result.rows, folder / "curves.png", config.network.name)
    report.summary |= summary | {"parameters": result.network.parameter_count}
    report.write(folder)


def _brain_share(result: TrainingResult) -> float | None:
    """Part of the training's patches that is brain: inference shows the network as much background."""
    shares = [row["brain_share"] for row in result.rows if "brain_share" in row]
    return sum(shares) / len(shares) if shares else None


def _finite(value: Any) -> Any:
    """``value`` with NaN and infinity as null, as the metadata of weights must be."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _silenced(progress: TerminalProgress) -> TerminalProgress:
    """The same progress, still to be cancelled, with nothing shown: rank 0 speaks for all."""
    with contextlib.suppress(AttributeError):
        progress._stream, progress._terminal = io.StringIO(), False
    return progress
