"""Tiny cohorts for the engine, with stand-ins for the commands that it runs.

The real commands take minutes a patient. What is tested with the stand-ins is what the engine makes of them: order,
resumption, failures and locks. They take the same arguments, write a folder with a report as the real ones do, and
refuse a file that holds the word ``bad``.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from paths import LIBRARIES, ROOT

_STAND_IN = """
import csv, hashlib, json, os, sys, time
from pathlib import Path

command, arguments = sys.argv[1], sys.argv[2:]
output = Path(arguments[arguments.index("--output") + 1])
home = Path(os.environ["COHORT_STAND_INS"])
with open(home / "calls", "a") as file:
    file.write(f"{command} {output.parent}\\n")
if (home / "stall").exists() and (home / "stall").read_text() == f"{command} {output.parent}":
    output.mkdir()
    (output / "half").write_text("half")
    (home / "begun").write_text(str(os.getpid()))
    (home / "begun").rename(home / "stalled")
    for _ in range(12000):
        if not (home / "stall").exists():
            break
        time.sleep(0.05)
    (output / "half").unlink()
    output.rmdir()
texts = []
for argument in arguments:
    path = Path(argument)
    files = sorted(path.rglob("*")) if path.is_dir() and path != output else [path]
    for file in files:
        if file.is_file():
            text = file.read_text()
            if text.startswith("bad"):
                print(f"warning: something else", file=sys.stderr)
                sys.exit(f"error: '{file.name}' is not an image: convert it")
            texts.append(text)
digest = hashlib.sha256("".join([command, *arguments, *texts]).encode()).hexdigest()
output.mkdir(parents=True)
value = int(digest[:6], 16) / 16**6
if command == "compartments":
    visits = arguments[arguments.index("--visits") + 1 : arguments.index("--visits") + 3]
    visits = [visit for visit in visits if not visit.startswith("--")]
    with open(output / "compartments.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("visit region quantity unit n coverage mean median fit fit_se mean_se".split())
        for number, visit in enumerate(visits):
            writer.writerow([visit, "edema", "apt", "%", 20, 0.8, value + number, value, "", "", 0.1])
    if len(visits) == 2:
        with open(output / "changes.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["region", "quantity", "unit", "first", "second", "change", "lower", "upper"])
            writer.writerow(["edema", "apt", "%", value, value + 1, 1, 0.5, 1.5])
            writer.writerow(["edema", "volume", "ml", 10, 12, 2, "", ""])
else:
    (output / "made").write_text(digest)
report = {"command": command}
if command == "compartments":
    volumes = {visit: {"edema": {"volume_ml": 10 + 2 * number}} for number, visit in enumerate(visits)}
    report["summary"] = {"visits": {visit: {"regions": regions} for visit, regions in volumes.items()}}
(output / "report.json").write_text(json.dumps(report))
"""


class StandIns:
    """Stand-ins for the commands, in a folder of their own.

    Args:
        folder: Folder to make them in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for library in ("CESTQuantLib", "JointRegSegLib"):
            (folder / library).mkdir(parents=True)
            (folder / library / "__init__.py").write_text("")
            stand_in = textwrap.indent(_STAND_IN, "    ")
            (folder / library / "batch.py").write_text(
                f'def check(arguments):\n    pass\n\n\nif __name__ == "__main__":\n{stand_in}', encoding="utf-8"
            )

    def environment(self) -> dict[str, str]:
        """Environment in which the stand-ins are found before the real libraries."""
        folders = [str(self.folder), *(str(ROOT / folder) for folder in LIBRARIES.values())]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "COHORT_STAND_INS": str(self.folder)}

    def calls(self) -> list[str]:
        """Commands that were run since the last time, sorted: name of the command and folder of the visit."""
        file = self.folder / "calls"
        found = sorted(file.read_text().splitlines()) if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    def stall(self, call: str) -> None:
        """Let a call, as ``calls`` names it, begin its output and then wait for ``go_on``.

        The number of its process is in the file ``stalled``.
        """
        (self.folder / "stall").write_text(call)

    def go_on(self) -> None:
        """Let all calls finish again."""
        (self.folder / "stall").unlink()
        (self.folder / "stalled").unlink(missing_ok=True)

    def start(self, *arguments: object) -> subprocess.Popen:
        """Start ``neurocest`` in a group of processes of its own, as the installed command, which knows no folder of
        the user."""
        start = "import sys; sys.path.remove(''); from NeuroCESTLib.workflow.batch import main; sys.exit(main())"
        command = [sys.executable, "-c", start, *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        """Run ``neurocest``; its exit status and what it printed to standard error."""
        process = self.start(*arguments)
        _, printed = process.communicate()
        return process.returncode, printed

    def complete(self, *arguments: object) -> str:
        """Run ``neurocest``, which must succeed; what it printed to standard error."""
        status, printed = self.run(*arguments)
        assert status == 0, printed
        return printed


def write_cohort(folder: Path, subjects: int = 2, visits: int = 2) -> Path:
    """Write the files of a cohort, each with its own name as content, and its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for subject in (f"s{number + 1:02d}" for number in range(subjects)):
        for visit in (f"v{number + 1}" for number in range(visits)):
            row = {"subject": subject, "visit": visit, "group": "odd" if int(subject[1:]) % 2 else "even"}
            for column in ("t1", "cest", "protocol"):
                name = f"{subject}_{visit}_{column}.nii"
                (folder / name).write_text(name)
                row[column] = name
            rows.append(row)
    return write_manifest(rows, folder / "COHORT.csv")


def write_manifest(rows: list[dict[str, str]], path: Path) -> Path:
    """Write a manifest with the columns of the first row."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_settings(path: Path, **settings: object) -> Path:
    """Write the settings of a run."""
    path.write_text(json.dumps(settings))
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
