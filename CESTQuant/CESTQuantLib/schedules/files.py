"""Files and numbers of an optimised schedule: protocol as JSON, CSV and pulseq, network, picture, summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.packages import left_out_without_its_package
from NeuroCESTLib.core.whole_files import write_csv, write_text

from ..formats.protocol_json import protocol_to_dict
from ..formats.pulseq.write import write_seq
from ..networks.files import NetworkFile, save_network
from ..networks.reliability import calibrate
from ..physics.protocol import PER_MEASUREMENT, Protocol
from ..preprocessing.normalization import spectrum_protocol
from .design import Design
from .evaluation import EvaluatedSchedule
from .figure import draw_design
from .limits import b1_rms_uT, scan_time_s
from .optimization import DesignResult

RESULTS = ("protocol.json", "protocol.csv", "protocol.seq", "network.pt", "report.png")
"""Files that :func:`write_design` writes."""


def write_design(design: Design, result: DesignResult, tissue: dict[str, Any], folder: Path, title: str = "") -> None:
    """Write ``protocol.json``, ``protocol.csv``, ``protocol.seq``, ``network.pt`` and ``report.png``.

    Without pypulseq or matplotlib, ``protocol.seq`` or ``report.png`` is left out, with a warning.

    Args:
        design: What was optimised.
        result: Result of the optimisation.
        tissue: Distribution of the tissues as in the configuration, for the network file.
        folder: Existing folder to write into.
        title: Headline of the picture.

    Raises:
        ValueError: A file cannot be written.
        TrainingDiverged: The network does not give finite numbers for simulated tissues.
    """
    protocol = result.optimized.protocol
    write_text(json.dumps(protocol_to_dict(protocol), indent=1), folder / "protocol.json")
    _write_protocol_csv(protocol, folder / "protocol.csv")
    with left_out_without_its_package("protocol.seq"):
        write_seq(protocol, folder / "protocol.seq")
    file = _network_file(design, result.optimized, tissue)
    calibration, _ = calibrate(file, design.false_alarm_rate, seed=design.training.seed + 1)
    save_network(replace(file, calibration=calibration), folder / "network.pt")
    with left_out_without_its_package("report.png"):
        draw_design(result, folder / "report.png", design.problem.tissue.structure.protons, title)


def summarize(design: Design, result: DesignResult) -> dict[str, Any]:
    """Return the numbers of the report.

    Args:
        design: What was optimised.
        result: Result of the optimisation.

    Returns:
        Scan time in s, average power and held-out errors of the start and the optimised schedule, the ratios of their
        errors, and the course of the optimisation; the keys are those of ``report.json``.
    """
    protons = design.problem.tissue.structure.protons
    before, after = (schedule.held_out.errors(protons) for schedule in (result.start, result.optimized))
    return {
        "objective": list(design.objective),
        "kept": result.kept,
        "start_schedule": _summary(result.start, before),
        "optimised_schedule": _summary(result.optimized, after),
        "error_ratio": {name: before[name]["mae"] / after[name]["mae"] for name in before},
        "evolution": result.evolution,
    }


def _summary(schedule: EvaluatedSchedule, errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "measurements": schedule.protocol.measurement_count,
        "scan_time_s": float(scan_time_s(schedule.protocol)),
        "b1_rms_uT": float(b1_rms_uT(schedule.protocol)),
        "held_out": errors,
        "epochs": len(schedule.training.loss),
        "stopped": schedule.training.stopped,
    }


def _write_protocol_csv(protocol: Protocol, path: Path) -> None:
    """Write one row per measurement: its number, from 1, and the quantities that the protocol has."""
    quantities = {name: getattr(protocol, name) for name in PER_MEASUREMENT}
    columns = {name: value.detach().tolist() for name, value in quantities.items() if value is not None}
    rows = zip(*columns.values(), strict=True)
    write_csv(
        ["measurement", *columns],
        ([str(number), *(f"{value:.6g}" for value in row)] for number, row in enumerate(rows, start=1)),
        path,
    )


def _network_file(design: Design, schedule: EvaluatedSchedule, tissue: dict[str, Any]) -> NetworkFile:
    return NetworkFile(
        network=schedule.network,
        protocol=spectrum_protocol(schedule.protocol),
        tissue=tissue,
        targets=design.problem.targets,
        outputs=design.problem.outputs,
        engine=design.problem.engine,
        noise_sd=design.problem.noise_sd,
        training={
            "loss": schedule.training.loss,
            "validation_loss": schedule.training.validation_loss,
            "best_epoch": schedule.training.best_epoch,
            "samples_an_epoch": design.samples,
            "mean_norm": schedule.mean_norm,
            "seed": design.training.seed,
            "held_out": schedule.held_out.errors(design.problem.tissue.structure.protons),
        },
    )
