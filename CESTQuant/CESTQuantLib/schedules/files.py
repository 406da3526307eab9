"""Files and numbers of an optimised schedule: protocol as JSON, CSV and pulseq, network, picture, summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from NeuroCESTLib.core.whole_files import csv_text

from ..formats.protocol_json import protocol_to_dict
from ..formats.pulseq_write import write_seq
from ..networks.files import NetworkFile, save_network
from ..networks.reliability import calibrate
from ..physics.protocol import PER_MEASUREMENT, Protocol
from .design import Design, DesignResult, Reconstruction
from .figure import draw_design
from .limits import b1_rms_uT, scan_time_s

FALSE_ALARM_RATE = 0.05
"""Share of voxels that the tissue model does cover and the reliability map may reject all the same."""


def write_design(design: Design, result: DesignResult, tissue: dict, folder: Path, title: str = "") -> None:
    """Write ``protocol.json``, ``protocol.csv``, ``protocol.seq``, ``network.pt`` and ``report.png`` into a folder.

    tissue: the configuration's description of the tissue, which the network file carries. ValueError where a file
    cannot be written.
    """
    protocol = result.optimised.protocol
    try:
        (folder / "protocol.json").write_text(json.dumps(protocol_to_dict(protocol), indent=1), encoding="utf-8")
        (folder / "protocol.csv").write_text(protocol_csv(protocol), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write '{folder / 'protocol.json'}': {error.strerror or error}") from None
    write_seq(protocol, folder / "protocol.seq")
    file = _network_file(design, result.optimised, tissue)
    calibration, _ = calibrate(file, FALSE_ALARM_RATE, seed=design.training.seed + 1)
    save_network(replace(file, calibration=calibration), folder / "network.pt")
    draw_design(result, folder / "report.png", design.problem.tissue.structure.protons, title)


def protocol_csv(protocol: Protocol) -> str:
    """One row a measurement; columns ``measurement`` (from 1) and the quantities that the protocol has."""
    names = [name for name in PER_MEASUREMENT if getattr(protocol, name) is not None]
    columns = [getattr(protocol, name).detach().tolist() for name in names]
    rows = zip(*columns, strict=True)
    return csv_text(["measurement", *names], ([m, *(f"{value:.6g}" for value in row)] for m, row in enumerate(rows, 1)))


def summarise(design: Design, result: DesignResult) -> dict:
    """Numbers for the report: scan time, power and held-out errors of start and result, and their ratios."""
    protons = design.problem.tissue.structure.protons
    summary: dict = {"objective": list(design.objective), "kept": result.kept, "seconds": result.seconds}
    for name in ("start", "optimised"):
        part: Reconstruction = getattr(result, name)
        summary[f"{name}_schedule"] = {
            "measurements": part.protocol.measurement_count,
            "scan_time_s": float(scan_time_s(part.protocol)),
            "b1_rms_uT": float(b1_rms_uT(part.protocol)),
            "held_out": part.held_out.errors(protons),
            "epochs": len(part.training.loss),
            "stopped": part.training.stopped,
        }
    before, after = (summary[f"{name}_schedule"]["held_out"] for name in ("start", "optimised"))
    summary["error_ratio"] = {name: before[name]["mae"] / after[name]["mae"] for name in before}
    summary["evolution"] = result.evolution
    return summary


def _network_file(design: Design, part: Reconstruction, tissue: dict) -> NetworkFile:
    protons = design.problem.tissue.structure.protons
    training = {
        "loss": part.training.loss,
        "validation_loss": part.training.validation_loss,
        "best_epoch": part.training.best_epoch,
        "samples_an_epoch": design.samples,
        "seed": design.training.seed,
        "held_out": part.held_out.errors(protons),
    }
    return NetworkFile(
        part.network,
        part.protocol,
        tissue,
        design.problem.targets,
        design.problem.outputs,
        design.problem.engine,
        design.problem.noise_sd,
        None,
        training,
    )
