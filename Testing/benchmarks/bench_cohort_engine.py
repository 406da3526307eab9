"""What the engine of ``neurocest run`` costs per subject, measured without the work of the commands.

Tiny synthetic subjects with two visits run with stand-ins for the commands, which only start and write a file. Printed
are the processor time of the engine for each subject (all processes, less what the stand-ins take by themselves), the
time of a second run that finds nothing to do, files and disk; and for larger cohorts the time and memory of planning.

    python Testing/benchmarks/bench_cohort_engine.py --subjects 200 --plan 1000 4000
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from cohorts import StandIns, write_cohort  # noqa: E402

STAGES = 4
"""Jobs of a subject with two visits: two fits, a registration, the compartments."""


def children_s() -> float:
    """Return the processor time of all child processes so far, in s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, int]:
    """Run a command; wall time and processor time in s, and its exit status."""
    before, start = children_s(), time.perf_counter()
    status = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    return time.perf_counter() - start, children_s() - before, status


def stand_in_s(stand_ins: StandIns, folder: Path, count: int = 10) -> float:
    """Return the processor time of one stand-in by itself, with the shell that starts it, in s."""
    before = children_s()
    for number in range(count):
        command = f"{sys.executable} -m CESTQuantLib.batch fit --output {folder / str(number)} > /dev/null 2>&1"
        subprocess.run(["bash", "-c", command], env=stand_ins.environment(), check=True)
    return (children_s() - before) / count


def measure_runs(subjects: int, folder: Path) -> None:
    """Run a cohort twice and print what it costs."""
    stand_ins = StandIns(folder / "stand_ins")
    alone = stand_in_s(stand_ins, folder / "alone")
    manifest = write_cohort(folder / "cohort", subjects)
    out = folder / "out"
    command = [sys.executable, "-m", "NeuroCESTLib.workflow.batch", "run", str(manifest), "--output", str(out)]
    wall, used, status = timed([*command, "--cores", "2"], stand_ins.environment())
    again_wall, again_used, _ = timed([*command, "--cores", "2"], stand_ins.environment())
    state = [file for file in (out / ".snakemake").rglob("*") if file.is_file()]
    engine = (used - STAGES * subjects * alone) / subjects
    print(
        f"{subjects} subjects, {STAGES * subjects} jobs, exit status {status}: {wall:.0f} s, {used:.0f} s of processor"
    )
    print(f"  stand-in alone: {1000 * alone:.0f} ms; engine: {1000 * engine:.0f} ms of processor per subject")
    print(f"  again, nothing to do: {again_wall:.1f} s, {again_used:.1f} s of processor")
    print(f"  files of Snakemake: {len(state)}, {sum(file.stat().st_size for file in state) / 1e6:.1f} MB")
    print(f"  cohort.csv: {(out / 'cohort.csv').stat().st_size / 1e6:.2f} MB")


def measure_plan(subjects: int, folder: Path) -> None:
    """List the jobs of a cohort and print time and memory."""
    stand_ins = StandIns(folder / "stand_ins")
    manifest = write_cohort(folder / "cohort", subjects)
    command = [
        sys.executable,
        "-m",
        "NeuroCESTLib.workflow.batch",
        "run",
        str(manifest),
        "--output",
        str(folder / "out"),
    ]
    wall, used, status = timed([*command, "--cores", "2", "--dry-run"], stand_ins.environment())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"planning {subjects} subjects, exit status {status}: {wall:.0f} s, {used:.0f} s of processor, {peak:.0f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=200, help="subjects of the run")
    parser.add_argument(
        "--plan", type=int, nargs="*", default=[], help="cohorts that are only planned, the smallest first"
    )
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for subjects in options.plan:
        with tempfile.TemporaryDirectory() as folder:
            measure_plan(subjects, Path(folder))
    if options.subjects:
        with tempfile.TemporaryDirectory() as folder:
            measure_runs(options.subjects, Path(folder))


if __name__ == "__main__":
    main()
