"""Run every command on a full disk and in a read-only folder: one sentence, nothing half written, nothing lost.

Each command runs on tiny inputs in a file system of its own in memory (tmpfs), in which an earlier result lies. The
free space is a share of what the result needs; then the file system is made read-only. Where mounting is not
permitted, the largest size of a file is limited instead, and the read-only folder is left out and said so. (Root may
write into folders without permission to write, so that a mode alone would prove nothing.)

    python Testing/reliability/full_disk.py [--only NAME …]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny_runs import TinyRun, contents, differences, preload, tiny_runs, wait

SHARES = (0.0, 0.6)
"""Free space as a share of the size of the result."""
CHECKPOINTS = ".out.training"
"""Hidden folder from which an optimisation of a schedule goes on when it is repeated; it stays on purpose."""
PROGRESS = ("last.pt", "best.pt", "log.csv", "times.csv", "curves.png", "validation.png", "tensorboard")
"""Files in which a training shows how far it is, before it has a result; they stay, too."""
BOOKS = (".neurocest", ".snakemake", ".snakemake_timestamp", "logs")
"""Folders and files in which the run of a cohort keeps its books, and goes on from when it is repeated."""
PAGE = 4096
INSIDE = "NEUROCEST_MOUNTS_ARE_PRIVATE"
"""Set where this process has mounts of its own, which vanish with it."""


def with_private_mounts() -> bool:
    """Start this program anew where it may mount, as far as that is permitted; returns whether it may."""
    if os.environ.get(INSIDE):
        return os.environ[INSIDE] == "yes"
    unshare = shutil.which("unshare")
    mounts = 'mount -t tmpfs none "$d" && mount -o remount,ro "$d" && umount "$d"'
    trial = f'd=$(mktemp -d) || exit 1; {mounts}; s=$?; rmdir "$d"; exit $s'
    prefix = [str(unshare), "--mount", "--propagation", "private"]
    if not unshare or subprocess.run([*prefix, "sh", "-c", trial], capture_output=True, check=False).returncode:
        return False
    os.environ[INSIDE] = "yes"
    os.execv(str(unshare), [*prefix, sys.executable, *sys.argv])


def mounted(place: Path, size: int) -> None:
    """Mount an empty file system of ``size`` bytes at a new folder."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, PAGE)}", "none", str(place)], check=True)


def pages(folder: Path) -> int:
    """Return the space in bytes that the files of a folder take."""
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in folder.rglob("*") if file.is_file())


def earlier_result(run: TinyRun, place: Path) -> dict[str, str]:
    """Write an earlier result into the output folder of a run; returns the checksums of its files."""
    if run.begun is not None:
        shutil.copytree(run.begun, place / "out")
        return contents(place)
    (place / "out").mkdir()
    for name in ("report.json", "network.pt", "rmse.nii.gz"):
        (place / "out" / name).write_text('{"earlier": true}')
    return contents(place)


def limited_run(run: TinyRun, place: Path, largest: int) -> int:
    """Run where no file may be larger than a number of bytes; the log, which is a file too, is written afterwards."""
    read, write = os.pipe()

    def limit() -> None:
        for stream in (1, 2):
            os.dup2(write, stream)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    status = wait(run.start(place, before=limit))
    os.close(write)
    with open(read, "rb") as printed:
        place.with_suffix(".log").write_bytes(printed.read())
    return status


def judged(run: TinyRun, place: Path, before: dict[str, str], status: int) -> list[str]:
    """Return what is wrong with how a run ended that could not write.

    The run of a cohort keeps its books and the stages that it has finished, tells the failed one in a line of its own
    and writes the table of the cohort; nothing that lay there before may have changed.
    """
    staged = run.staged and run.begun is None
    shown = BOOKS if staged else PROGRESS if run.resumed else ()
    lines = [line for line in place.with_suffix(".log").read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error: ", "failed: ") if staged else "error: ")]
    problems = []
    if status not in (1, 2):
        problems.append(f"it ended with status {status}")
    if len(errors) != 1 or (lines[-1:] != errors and not staged):
        problems.append(f"it said {lines[-3:]}")
    elif "full" not in errors[0] and "read-only" not in errors[0]:
        problems.append(f"it did not say why: {errors[0]}")
    if any("Traceback" in line for line in lines):
        problems.append("it printed a traceback")
    after = {name: sum_ for name, sum_ in contents(place).items() if not set(Path(name).parts) & set(shown)}
    visible = [name for name in after if "/." not in f"/{name}" and not staged]
    if changed := [name for name in differences(before, after) if name in before or name in visible]:
        problems.append(f"changed or left: {', '.join(changed)}")
    new = [name for name in differences(before, after) if name not in changed]
    if hidden := [name for name in new if CHECKPOINTS not in name and "/." in f"/{name}"]:
        problems.append(f"hidden files are left: {', '.join(hidden)}")
    return problems


def tried(run: TinyRun, place: Path, mounts: bool) -> tuple[int, list[str]]:
    """Run a command in all the places that cannot be written.

    Args:
        run: The command.
        place: New folder to work in.
        mounts: Whether file systems may be mounted.

    Returns:
        Number of runs, and what was wrong.
    """
    whole = place / "whole" / "k"
    run.prepare(whole)
    begun = pages(whole)
    run.run(whole)
    needed, largest = pages(whole) - begun, max(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    problems: list[str] = []
    count = 0
    for share in SHARES:
        target = place / f"full{share}" / "k"
        if mounts:
            mounted(target, 3 * PAGE + begun + int(share * needed) // PAGE * PAGE)
        else:
            target.mkdir(parents=True)
        before = earlier_result(run, target)
        status = wait(run.start(target)) if mounts else limited_run(run, target, int(share * largest))
        found = judged(run, target, before, status)
        problems += [f"{run.name}, {share:.0%} of the space: {problem}" for problem in found]
        count += 1
    if mounts:
        target = place / "readonly" / "k"
        mounted(target, 1 << 24)
        before = earlier_result(run, target)
        subprocess.run(["mount", "-o", "remount,ro", str(target)], check=True)
        found = judged(run, target, before, wait(run.start(target)))
        problems += [f"{run.name}, read-only: {problem}" for problem in found]
        count += 1
    return count, problems


def main() -> int:
    """Run the trial; returns 1 where a command did harm or did not say why it failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of runs, such as 'fit quesp'")
    options = parser.parse_args()
    mounts = with_private_mounts()
    preload()
    work = Path(tempfile.mkdtemp(prefix="neurocest-full-"))
    problems: list[str] = []
    count = 0
    runs = tiny_runs(work / "inputs", options.only)
    try:
        for number, run in enumerate(runs):
            tries, found = tried(run, work / f"run{number}", mounts)
            count += tries
            problems += found
            print(f"{run.name}: {'; '.join(found) or 'good'}", flush=True)
    finally:
        for place in work.glob("run*/*/k"):
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)
    way = "full and read-only file systems" if mounts else "limited files; read-only not tried, as mounting is refused"
    print(f"{count} runs of {len(runs)} commands ({way}); {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
