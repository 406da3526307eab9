"""How far an optimisation is, as a window reads it while the command runs and after it has ended."""

from __future__ import annotations

import json
import os
from pathlib import Path

from CESTQuantLib.schedules.progress_file import PROGRESS_FILE, progress_of_run, progress_record, training_folder
from CESTQuantLib.schedules.trainable import Moment

START: Moment = {"phase": "start", "schedule": {"b1_uT": [1.0, 2.0]}}
MOMENTS: list[Moment] = [
    {"phase": "crlb-a", "step": 1, "loss": 0.5, "schedule": {"b1_uT": [1.1, 2.0]}},
    {"phase": "crlb-a", "step": 9, "loss": 0.25, "schedule": {"b1_uT": [1.5, 3.0]}},
]


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def test_the_latest_record_is_shown_while_the_command_runs(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert progress_of_run(output) is None
    for number, moments in enumerate(([START], MOMENTS)):
        record = training_folder(output) / f"run{number}" / PROGRESS_FILE
        write(record, progress_record("crlb-a", START["schedule"], moments))
        os.utime(record, (number, number))
        shown = progress_of_run(output)
        assert shown is not None
        assert shown["schedule"] == moments[-1]["schedule"]
        assert shown["start"] == START["schedule"]
    assert (shown["steps"], shown["losses"]) == ([1, 9], [0.5, 0.25])


def test_the_last_phase_of_the_report_is_shown_afterwards(tmp_path: Path) -> None:
    write(tmp_path / "out" / "report.json", {"summary": {"evolution": [START, *MOMENTS]}})
    shown = progress_of_run(tmp_path / "out")
    assert shown == progress_record("crlb-a", START["schedule"], MOMENTS)


def test_a_damaged_file_shows_nothing(tmp_path: Path) -> None:
    for values in ({"summary": {}}, {"summary": {"evolution": []}}, [1], {"summary": {"evolution": [{"phase": 1}]}}):
        write(tmp_path / "out" / "report.json", values)
        assert progress_of_run(tmp_path / "out") is None
    write(training_folder(tmp_path / "out") / "run" / PROGRESS_FILE, {"phase": "crlb-a"})
    assert progress_of_run(tmp_path / "out") is None
