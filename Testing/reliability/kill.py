"""Kill every command at random moments, repeat it, and compare the bytes with those of an undisturbed run.

Each kill is ``kill -9`` of a run on tiny inputs, at a moment drawn from a seed: in half of the cases a share of the
time that the run takes, in the other half the n-th time that it opens, makes, renames or removes a file or folder of
its output, where a moment costs most. In half of the cases an earlier result lies in the output folder. Then

- the folder holds the earlier result, the new one, or nothing at all, but nothing of both (the run of a cohort may have
  finished some of its stages);
- the same command, repeated, succeeds and gives the bytes of the undisturbed run, which is another process;
- no hidden folder, lock or temporary file is left.

``report.json`` is compared without ``started`` and ``timings_s``; files of a training that say how long it took
(``times.csv``, ``last.pt``, ``tensorboard``) are left out.

    python Testing/reliability/kill.py [--kills 100] [--seed 1] [--only NAME …] [--output kill.json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny_runs import ROOT, TinyRun, contents, differences, kill, kill_at_write, preload, tiny_runs, wait

TIMED = ("times.csv", "last.pt", "tensorboard", ".snakemake", ".neurocest", "logs")
"""Files of a training that hold times, and those in which the run of a cohort keeps its books."""
IN_PROGRESS = ("best.pt", "log.csv", "curves.png", "validation.png")
"""Files that a training writes before it has a result."""


@dataclass
class Undisturbed:
    """A run that nothing disturbed: its files, its time, and how often it writes."""

    run: TinyRun
    files: dict[str, str]
    seconds: float
    writes: int


def result_of(folder: Path) -> dict[str, str]:
    """Return the files of a result by their checksums, without those that hold times."""
    return {name: sum_ for name, sum_ in contents(folder).items() if not any(part in name for part in TIMED)}


def visible(files: dict[str, str], trains: bool) -> dict[str, str]:
    """Return the files that a user would take for a result."""
    return {
        name: sum_
        for name, sum_ in files.items()
        if not any(part.startswith(".") for part in Path(name).parts)
        and not (trains and Path(name).name in IN_PROGRESS)
    }


def undisturbed(run: TinyRun, place: Path) -> Undisturbed:
    """Run to the end in a fresh process with another hash seed, and count the writes of a second run."""
    run.prepare(place / "a")
    run.run_afresh(place / "a")
    run.prepare(place / "b")
    begin = time.perf_counter()
    process = kill_at_write(run, place / "b", 0)
    if wait(process) != 0:
        raise RuntimeError(f"{run.name} failed: {(place / 'b.log').read_text(errors='replace')[-1000:]}")
    seconds = time.perf_counter() - begin
    writes = int((place / "b.writes").read_text())
    return Undisturbed(run, result_of(place / "a"), seconds, writes)


def killed(known: Undisturbed, place: Path, random: np.random.Generator, earlier: Path) -> tuple[str, list[str]]:
    """Kill one run, repeat it and compare.

    Returns:
        What was left by the killed run, and what was wrong, if anything.
    """
    run, problems = known.run, []
    run.prepare(place)
    before: dict[str, str] = {}
    replaces = bool(random.integers(2)) and not run.resumed and not run.staged
    if replaces:
        shutil.rmtree(place / "out")
        shutil.copytree(earlier / "out", place / "out")
        (place / "out" / "notes.txt").write_text("the user's")
        for file in (place / "out").rglob("*.json"):
            file.write_text('{"earlier": true}')
        before = result_of(place)
    if random.integers(2):
        process = kill_at_write(run, place, int(random.integers(1, known.writes + 1)))
        status = wait(process)
    else:
        process = run.start(place)
        time.sleep(float(random.uniform(0, 1.02 * known.seconds)))
        status = kill(process)
    notes = {"out/notes.txt": before["out/notes.txt"]} if before else {}
    left, wanted = visible(result_of(place), bool(run.resumed)), visible({**known.files, **notes}, bool(run.resumed))
    state = "new" if left == wanted else "earlier" if before and left == visible(before, False) else "nothing"
    if state == "nothing" and left and run.staged:
        state = "some of the stages"
    elif state == "nothing" and left:
        state = "mixed"
        problems.append(f"after the kill: {', '.join(sorted(left))}, of which new or gone: {differences(left, wanted)}")
    if status == 0:
        state = "ended before the kill"
    resumes = run.resumed if (place / "out" / "last.pt").exists() else ()
    try:
        run.run(place, extra=resumes)
    except RuntimeError as error:
        return state, [*problems, f"the repetition failed: {error}"]
    if different := differences(result_of(place), {**known.files, **notes}):
        problems.append(f"the repetition differs in {', '.join(different)}")
    return state, problems


def main() -> int:
    """Run the trial; returns 1 where a kill did harm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="number of kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of commands and moments")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of runs, such as 'fit quesp'")
    parser.add_argument("--minutes", type=float, default=600, help="no further kill after this time (min)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "kill.json", help="summary to write")
    options = parser.parse_args()
    begin = time.monotonic()
    preload()
    random = np.random.default_rng(options.seed)
    work = Path(tempfile.mkdtemp(prefix="neurocest-kill-"))
    try:
        (work / "tmp").mkdir()
        os.environ["TMPDIR"] = str(work / "tmp")
        tempfile.tempdir = None
        runs = tiny_runs(work / "inputs", options.only)
        known: dict[str, Undisturbed] = {}
        states: Counter[str] = Counter()
        kills: Counter[str] = Counter()
        problems: list[str] = []
        # Every command in turn, so that even a short trial has seen many.
        for number, index in enumerate(np.resize(random.permutation(len(runs)), options.kills)):
            if time.monotonic() - begin > 60 * options.minutes:
                break
            run, place = runs[index], work / f"kill{number}" / "k"
            if run.name not in known:
                known[run.name] = undisturbed(run, work / f"whole{index}")
            state, found = killed(known[run.name], place, random, work / f"whole{index}" / "a")
            states[state] += 1
            kills[run.name] += 1
            problems += [f"kill {number}, {run.name}: {problem}" for problem in found]
            print(f"{number + 1:3d} {run.name}: {state}{'; ' + '; '.join(found) if found else ''}", flush=True)
            shutil.rmtree(place.parent)
        left = [name for name in sorted(os.listdir(work / "tmp")) if "neurocest" in name]  # torch keeps caches there
        if left:
            problems.append(f"temporary files are left: {', '.join(left)}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    summary = {
        "kills": sum(kills.values()),
        "seed": options.seed,
        "commands": dict(sorted(kills.items())),
        "left_by_the_killed_run": dict(sorted(states.items())),
        "problems": problems,
        "minutes": round((time.monotonic() - begin) / 60, 1),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{summary['kills']} kills of {len(kills)} commands: {dict(states)}; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
