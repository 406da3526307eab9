"""Commands in processes of their own: several that train together, and one that is killed before it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from paths import LIBRARIES, ROOT

_KILLED = """
import importlib, os, signal, sys

module, name, call = sys.argv[1], sys.argv[2], int(sys.argv[3])
from {batch} import main

owner = importlib.import_module(module)
function, calls = getattr(owner, name), []

def counted(*arguments, **options):
    calls.append(name)
    if len(calls) == call:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return function(*arguments, **options)

setattr(owner, name, counted)
sys.exit(main(sys.argv[4:]))
"""


def environment() -> dict[str, str]:
    """Environment in which the libraries of this checkout are imported."""
    folders = [str(ROOT / folder) for folder in LIBRARIES.values()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def run_under_torchrun(batch: str, arguments: Sequence[object], count: int = 2) -> None:
    """Run a command, given by its batch module, in several processes that torchrun starts; it must succeed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]
    done = subprocess.run(
        [*launcher, "-m", batch, *(str(argument) for argument in arguments)],
        env={**environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_killed(batch: str, arguments: Sequence[object], module: str, function: str, call: int) -> None:
    """Run a command in a process that is killed, as by SIGKILL, when it calls a function for the ``call``-th time.

    So the moment does not depend on how fast the machine is.
    """
    code = _KILLED.format(batch=batch)
    done = subprocess.run(
        [sys.executable, "-c", code, module, function, str(call), *(str(argument) for argument in arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, 1, 2), done.stderr  # it neither finished nor failed
