"""``cestquant optimize-schedule``: acquisition protocol and reconstruction network, optimised as one."""

from __future__ import annotations

import shutil
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.output.inputs import require_inputs_kept
from NeuroCESTLib.core.progress import terminal_progress

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "optimize-schedule", help="acquisition protocol and network optimised as one; also under torchrun"
    )
    parser.add_argument("config", metavar="CONFIG.json", help="a file, or the name of a bundled configuration")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder; a killed run continues when repeated")
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant optimize-schedule``."""
    from NeuroCESTLib.core.checked_json import read_json
    from NeuroCESTLib.core.processes import processes
    from NeuroCESTLib.report.record import Report

    from ..networks.config import config_file, engine_warnings, files_of_config, m0_warnings
    from ..networks.reconstruction import weak_output_warnings
    from ..schedules.config import read_design
    from ..schedules.files import RESULTS, summarize, write_design
    from ..schedules.optimization import optimize
    from ..schedules.progress_file import training_folder

    config = config_file(options.config)
    report = Report("cestquant optimize-schedule", settings_of(options))
    report.add_input("config", config)
    for file in files_of_config(config):
        report.add_input("protocol", file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        design = read_design(config)
    report.warnings += [str(warning.message) for warning in caught]
    require_inputs_kept(options.output, lambda place: str(place) in (*RESULTS, "report.json"))
    output = Path(options.output)
    training = training_folder(output)
    checkpoints = training / design.fingerprint()
    with processes() as these:
        if not these.writes:
            these.wait()
            optimize(design, checkpoints=checkpoints, processes=these)
            return
        with terminal_progress() as progress, OutputFolder(output) as folder:
            checkpoints.mkdir(parents=True, exist_ok=True)
            these.wait()
            result = optimize(design, checkpoints=checkpoints, processes=these, progress=progress)
            write_design(design, result, read_json(config)["tissue"], folder, config.stem)
            violated = design.limits.violations(design.protocol, trained=design.schedule().trained)
            if violated:
                report.warnings.append(f"the start was moved inside the limits: {'; '.join(violated)}")
            report.summary |= summarize(design, result)
            for warnings_of in (m0_warnings, engine_warnings):
                found = warnings_of(result.optimized.protocol, design.problem.tissue, design.problem.engine)
                report.warnings += [f"the optimised schedule: {warning}" for warning in found]
            report.warnings += weak_output_warnings(report.summary["optimised_schedule"]["held_out"])
            report.add_times(result.seconds)
            report.write(folder)
        shutil.rmtree(training, ignore_errors=True)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
