"""Snakemake as the engine of a cohort: one run at a time in a folder, and nothing of its own besides."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from NeuroCESTLib.core.messages.input_errors import InputError

from .programs import environment

HERE = Path(__file__).resolve().parent
SNAKEFILE = HERE / "rules" / "Snakefile"
PROFILES = HERE / "profiles"
STATE = ".neurocest"
"""Folder within the output folder with the plan and the lock."""
PLAN = f"{STATE}/plan.json"
"""The plan, relative to the output folder."""
INTERRUPTED = 130
"""Exit status of a run that the user stopped."""
PLAN_VARIABLE = "NEUROCEST_PLAN"
"""Environment variable by which the rules find a plan elsewhere."""
_STOP = getattr(signal, "SIGUSR1", None)
"""Signal by which the engine is told to stop its stages; Windows has none."""
_TAKE_FOLDERS = ("--forcerun", "-R", "--until", "-U", "--omit-from", "-O", "--prioritize", "-P")
"""Options of Snakemake whose values may be folders of stages."""
_LONGEST_STOP_S = 60.0
"""How long the engine may take for it: on a cluster it cancels its jobs."""


def require_engine() -> None:
    """Check that Snakemake is installed.

    Raises:
        ValueError: It is not; the message gives the remedy.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise ValueError('Snakemake, which runs cohorts, is not installed: run pip install "snakemake>=9"')


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[int]:
    """Hold the lock of an output folder; the system releases it when the process and its engine have ended.

    Args:
        folder: Output folder; it exists.

    Yields:
        File descriptor that the engine has to inherit, so that it holds the lock, too.

    Raises:
        ValueError: Another run holds the lock.
    """
    state = folder / STATE
    state.mkdir(exist_ok=True)
    with open(state / "lock", "a", encoding="utf-8") as file:
        if not _locked(file.fileno()):
            raise ValueError(
                f"'{folder}' is in use by another 'neurocest run': wait until that one has ended, or choose another "
                "folder"
            )
        # No other run lives, so what Snakemake locked belongs to one that was killed.
        shutil.rmtree(folder / ".snakemake" / "locks", ignore_errors=True)
        yield file.fileno()


def run_engine(folder: Path, plan: Path, arguments: Sequence[str], lock: int | None = None) -> int:
    """Run the workflow.

    Args:
        folder: Output folder.
        plan: File with the plan.
        arguments: Further arguments of Snakemake.
        lock: File descriptor of the lock; None for runs that change nothing.

    Returns:
        Exit status of Snakemake; ``INTERRUPTED`` where the user stopped it.
    """
    inherited = () if lock is None or os.name == "nt" else (lock,)
    command = [*engine_command(folder), *arguments]
    with _deaf_to_interrupts():
        engine = subprocess.Popen(command, env=engine_environment(plan), pass_fds=inherited)
    with engine:
        try:
            return engine.wait()
        except KeyboardInterrupt:
            # The lock must not be released before all that writes into the folder has ended.
            try:
                print(
                    "cancelled: waiting for the stages under way, press Ctrl+C again to stop them, too", file=sys.stderr
                )
                engine.terminate()
                engine.wait()
            except KeyboardInterrupt:
                _stop(engine)
                raise
            return INTERRUPTED


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started here, and those that it starts, ignore Ctrl+C, which a terminal sends to all."""
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(engine: subprocess.Popen) -> None:
    """Stop an engine together with its stages."""
    try:
        if _STOP is not None:
            engine.send_signal(_STOP)
            engine.wait(_LONGEST_STOP_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        pass
    finally:
        engine.kill()


def stop_when_told() -> None:
    """Let the process of the engine, whose rules call this, stop its stages when it is told to."""
    if _STOP is not None and threading.current_thread() is threading.main_thread():
        signal.signal(_STOP, _stop_stages)


def _stop_stages(number: int, frame: FrameType | None) -> NoReturn:
    """Stop the stages that run on this machine, and let Snakemake end, which cancels those on a cluster."""
    import psutil  # Snakemake brings it

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    raise KeyboardInterrupt


def forcing(arguments: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return arguments of Snakemake that redo folders, besides what they redo already.

    Args:
        arguments: Arguments of Snakemake.
        folders: Folders of stages, relative to the output folder.
    """
    if not folders:
        return list(arguments)
    split = (word.split("=", 1) if word.startswith("--forcerun=") else [word] for word in arguments)
    words = [word for part in split for word in part]
    given = [place for place, word in enumerate(words) if word in ("--forcerun", "-R")]
    if not given:
        return [*words, "--forcerun", *folders]
    return [*words[: given[-1] + 1], *folders, *words[given[-1] + 1 :]]  # of several, the last one counts


def targets_of(arguments: Sequence[str]) -> list[str]:
    """Return the words among arguments of Snakemake that may name the folders of stages that are wanted.

    Args:
        arguments: Arguments of Snakemake. Values of options are among the words, except those that may be folders.
    """
    found, option = [], ""
    for word in arguments:
        if word.startswith("-"):
            option = word
        elif option not in _TAKE_FOLDERS:
            found.append(Path(os.path.normpath(word)).as_posix())
    return found


def folders_under_way(folder: Path) -> Callable[[str], bool]:
    """Return what says of a folder of a stage whether a run was killed while it made it.

    Args:
        folder: Output folder; the folders of the stages are relative to it.
    """
    marks = folder / ".snakemake" / "incomplete"
    # Long names are divided among folders, whose names begin with an @.
    names = (mark.relative_to(marks).parts for mark in marks.rglob("*") if mark.is_file())
    found = {"".join(part.removeprefix("@") for part in parts) for parts in names}
    return lambda stage: base64.urlsafe_b64encode(stage.encode()).decode() in found


def engine_command(folder: Path) -> list[str]:
    """Return how the command of Snakemake begins, for an output folder."""
    return [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(folder)]


def engine_environment(plan: Path) -> Mapping[str, str]:
    """Return the environment of Snakemake, which tells its rules where the plan is."""
    return {**environment(), PLAN_VARIABLE: str(plan.resolve())}


def states_of_logs(folder: Path) -> dict[str, int]:
    """Return the times of the logs in an output folder, which change when a job is started."""
    return {str(log): log.stat().st_mtime_ns for log in folder.glob("*/*/logs/*.log")}


def profile_folder(name: str) -> str:
    """Return the folder of a profile: a folder, or the name of one of the bundled profiles.

    Raises:
        ValueError: There is no such profile; the message lists the bundled ones.
    """
    for folder in (Path(name), PROFILES / name):
        if any(folder.glob("config*.yaml")):
            return str(folder.resolve())
    bundled = ", ".join(sorted(entry.name for entry in PROFILES.iterdir() if entry.is_dir()))
    raise InputError(
        "profile", f"'{name}' is no profile: give a folder with a config.yaml of Snakemake, or one of {bundled}"
    )


def _locked(descriptor: int) -> bool:
    """Whether the lock could be taken."""
    try:
        import fcntl
    except ImportError:  # Windows: Snakemake's own lock remains
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
