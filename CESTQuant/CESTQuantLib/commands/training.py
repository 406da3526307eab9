"""``cestquant dataset`` and ``train``: simulated data sets, and networks that learn from them or from a scan."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.output.lock import only_run
from NeuroCESTLib.core.progress import terminal_progress
from NeuroCESTLib.core.whole_files import write_errors

from .acquisition import add_images, read_images

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from torch import Tensor

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.report.record import Report

    from ..networks.config import TrainingConfig
    from ..networks.files import NetworkFile
    from ..networks.training import TrainingResult
    from ..tissue.spectra import ZSpectra

SUFFIX = ".pt"
REPORT = "report.json"


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser("dataset", help="simulated data set: spectra and their tissue parameters, in shards")
    parser.add_argument("config", metavar="CONFIG.json", help="protocol, tissue, noise_sd (of M0), samples, seed")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the shards and report")
    parser.set_defaults(command=run_dataset)

    parser = commands.add_parser("train", help="reconstruction network for a fixed protocol; also under torchrun")
    parser.add_argument("config", metavar="CONFIG.json", help="a file, or the name of a bundled configuration")
    parser.add_argument(
        "--output", required=True, metavar="NETWORK.pt", help="file to write; a killed run continues when repeated"
    )
    parser.add_argument("--dataset", metavar="DIR", help="train on this data set of 'cestquant dataset'")
    parser.add_argument("--self-supervised", action="store_true", help="train on the scan given by --signal instead")
    add_images(parser, required=False)
    parser.set_defaults(command=run_train)


def run_dataset(options: Namespace) -> None:
    """Run ``cestquant dataset``."""
    from ..networks.shards import MANIFEST, is_shard, write_dataset

    for name in (MANIFEST, REPORT):
        _refuse_to_replace_config(options, Path(options.output) / name)
    config, report = _config(options, "cestquant dataset")
    require_inputs_kept(options.output, lambda place: str(place) in (MANIFEST, REPORT))
    with (
        terminal_progress() as progress,
        OutputFolder(options.output, replaced=is_shard) as folder,
    ):
        with report.timed("simulation"):
            data = config.simulate(progress=progress)
        with report.timed("writing"), write_errors(Path(options.output) / "dataset.json"):
            manifest = write_dataset(folder, data, config.tissue, config.protocol, config.settings.seed, config.engine)
        report.summary |= {key: getattr(manifest, key) for key in ("samples", "shards", "measurements")}
        report.write(folder)
    _print_warnings(report)


def run_train(options: Namespace) -> None:
    """Run ``cestquant train``."""
    from NeuroCESTLib.core.processes import processes

    from ..networks.fixed_protocol import train_from_config
    from ..networks.self_supervised import train_on_scan

    output = _network_file(options)
    config, report = _config(options, "cestquant train")
    config = _with_dataset(options, config, report)
    require_inputs_kept(output.parent, lambda place: str(place) in (output.name, REPORT))
    with write_errors(output):
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with processes() as these:
        if these.count > 1 and options.self_supervised:
            raise ValueError("--self-supervised runs as one process, not under torchrun")
        scan = None
        if options.self_supervised:
            spectra = _scan(options, config, report)
            # The spectra start from what leading M0 measurements leave.
            scan, config = spectra.signal, replace(config, protocol=spectra.protocol)
        checkpoint = output.absolute().parent / f".{output.name}.{_fingerprint(config, scan)}.checkpoint"
        if not these.writes:
            train_from_config(config, checkpoint=checkpoint, processes=these)
            return
        with only_run(output), terminal_progress() as progress:
            if scan is not None:
                file, result = train_on_scan(config, scan, progress, checkpoint)
            else:
                file, result = train_from_config(config, progress, checkpoint, processes=these)
            _write_training(output, checkpoint.name, file, result, report)
    _print_warnings(report)


def _write_training(output: Path, checkpoint: str, file: NetworkFile, result: TrainingResult, report: Report) -> None:
    """Write the network, its picture and its report, all of them or none, and remove the checkpoint."""
    from NeuroCESTLib.core.packages import left_out_without_its_package

    from ..networks.figure import draw_training
    from ..networks.files import save_network
    from ..networks.reconstruction import weak_output_warnings

    picture = output.with_suffix(".png").name
    own = (output.name, picture, REPORT)
    # The folder is the user's; it is exchanged where it holds this network alone.
    folder_of_network = OutputFolder(
        output.parent,
        name=output.name,
        belongs=lambda name: name in own or name.startswith(f".{output.name}."),
        replaced=lambda name: name == checkpoint,
        lock=False,
    )
    with folder_of_network as folder:
        save_network(file, folder / output.name)
        with left_out_without_its_package(picture, report.warnings.append):
            draw_training(result, folder / picture, output.name)
        report.add_times(result.times_s)
        report.summary |= {key: value for key, value in file.training.items() if key not in ("loss", "validation_loss")}
        report.warnings += weak_output_warnings(file.training.get("held_out", {}))
        report.summary["loss"] = result.loss[-1]
        report.summary["validation_loss"] = result.validation_loss[-1] if result.validation_loss else None
        if file.calibration is not None:
            report.summary["misfit_threshold"] = file.calibration.threshold
            report.summary["false_alarm_rate"] = file.calibration.false_alarm_rate
        report.write(folder)
    output.with_name(checkpoint).unlink(missing_ok=True)


def _network_file(options: Namespace) -> Path:
    """Check the options of ``train`` that do not need the configuration, and return the file to write."""
    if options.self_supervised != bool(options.signal):
        raise ValueError("--self-supervised and --signal belong together: the network is trained on that scan")
    if options.self_supervised and options.dataset:
        raise ValueError("--dataset does not go with --self-supervised, which trains on the scan itself")
    output = Path(options.output)
    if output.suffix != SUFFIX:
        raise ValueError(f"cannot write '{output}': the name of a network file must end in {SUFFIX}")
    _refuse_to_replace_config(options, output.parent / REPORT)
    if output.is_dir():
        raise ValueError(f"cannot write '{output}': it is a folder")
    return output


def _with_dataset(options: Namespace, config: TrainingConfig, report: Report) -> TrainingConfig:
    """Use the data set of ``--dataset``, and record the one that is used."""
    from ..networks.shards import MANIFEST, read_dataset

    if options.dataset:
        config = replace(config, dataset=Path(options.dataset))
    if config.dataset and not options.self_supervised:
        report.add_input("dataset", config.dataset / MANIFEST)
        report.warnings += _unused_samples(options, config, len(read_dataset(config.dataset)))
    return config


def _config(options: Namespace, command: str) -> tuple[TrainingConfig, Report]:
    """Read the configuration, and start a report that names it and has the warnings of its reader."""
    from NeuroCESTLib.report.record import Report

    from ..networks.config import files_of_config, read_config

    report = Report(command, settings_of(options))
    report.add_input("config", _config_file(options))
    for file in files_of_config(options.config):
        report.add_input("protocol", file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = read_config(options.config)
    report.warnings += [str(warning.message) for warning in caught]
    return config, report


def _refuse_to_replace_config(options: Namespace, output: Path) -> None:
    if output.exists() and output.samefile(_config_file(options)):
        raise ValueError(f"cannot write '{output}': it is the configuration; choose another folder")


def _config_file(options: Namespace) -> Path:
    from ..networks.config import config_file

    return config_file(options.config)


def _unused_samples(options: Namespace, config: TrainingConfig, count: int) -> list[str]:
    """Warn where the configuration asks for another number of samples than the data set has."""
    from NeuroCESTLib.core.checked_json import read_json

    if config.samples == count or "samples" not in read_json(_config_file(options)):
        return []
    return [
        f"{config.dataset}: all {count} samples of the data set are used, not the {config.samples} "
        "that the configuration names"
    ]


def _fingerprint(config: TrainingConfig, scan: Tensor | None) -> str:
    """Return a name shared by trainings that can continue each other: learning rates and epochs may differ."""
    from ..formats.protocol_json import protocol_to_dict

    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "acquisition"}
    values |= {"protocol": protocol_to_dict(config.protocol), "settings": config.settings.lasting()}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    if scan is not None:
        digest.update(scan.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _scan(options: Namespace, config: TrainingConfig, report: Report) -> ZSpectra:
    """Read the normalised spectra of the scan to train on."""
    from NeuroCESTLib.scene import host

    host.attach()
    from ..methods.simulated import as_simulated
    from ..scene.study import Study

    nodes = read_images(options, report)
    study = Study.of(
        nodes["signal"], config.acquisition or config.protocol, nodes.get("reference"), nodes.get("mask"), None
    )
    spectra, noted = study.spectra()
    report.warnings += [*study.warnings, *noted]
    return as_simulated(spectra, config.protocol)


def _print_warnings(report: Report) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
