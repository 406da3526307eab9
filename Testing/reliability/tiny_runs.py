"""Every command on inputs so small that it ends within seconds, and a way to start it that can be killed.

The commands run in processes forked from this one, which has loaded the libraries already: a run that is to be killed
at a random moment then spends its time on its work and not on importing torch.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT / "Testing" / "tests", ROOT / "CESTQuant", ROOT / "JointRegSeg", ROOT):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

CLOCK_KEYS = ("started", "timings_s")
"""Keys of ``report.json`` that hold times; all others, and all other files, are the same in every run."""
LONGEST_S = 600.0
"""No tiny run takes this long, even on a busy machine."""


@dataclass(frozen=True)
class TinyRun:
    """A command with its arguments; it runs in a folder of its own, in which its output is called ``out``.

    Attributes:
        name: Name of the run.
        batch: Module whose ``main`` runs the command.
        arguments: Arguments; the output is a path relative to the folder.
        resumed: Arguments that a repetition needs in addition where a killed run left a checkpoint.
        staged: Whether it writes one result after another, each of them whole, and a repetition goes on from there.
        begun: Folder of results that the command completes; it lies in ``out`` before the run.
    """

    name: str
    batch: str
    arguments: tuple[str, ...]
    resumed: tuple[str, ...] = ()
    staged: bool = False
    begun: Path | None = None

    def prepare(self, folder: Path) -> None:
        """Make the folder of the run, with the folder that commands that write a single file need."""
        folder.mkdir(parents=True)
        if self.begun is None:
            (folder / "out").mkdir()
        else:
            shutil.copytree(self.begun, folder / "out")

    def start(
        self, folder: Path, threads: int = 1, extra: Sequence[str] = (), before: Callable[[], None] | None = None
    ) -> int:
        """Start the run in a process of its own.

        Args:
            folder: Existing folder to run in; what the command prints goes to a file beside it.
            threads: Number of threads that torch uses.
            extra: Further arguments.
            before: Called in the process before the command.

        Returns:
            Number of the process.
        """
        process = os.fork()
        if process:
            return process
        status = 70
        try:
            os.setpgid(0, 0)  # its own processes are killed with it
            _redirect(folder.with_suffix(".log"))
            os.chdir(folder)
            if before is not None:
                before()
            status = self._main(threads, extra)
        finally:
            os._exit(status)

    def run(self, folder: Path, threads: int = 1, extra: Sequence[str] = ()) -> float:
        """Run to the end; returns the time in s.

        Raises:
            RuntimeError: The run failed; the message has what it printed.
        """
        begin = time.perf_counter()
        if not folder.exists():
            self.prepare(folder)
        status = wait(self.start(folder, threads, extra))
        if status != 0:
            printed = folder.with_suffix(".log").read_text(errors="replace").strip()
            raise RuntimeError(f"{self.name} ended with status {status}: {printed[-2000:]}")
        return time.perf_counter() - begin

    def run_afresh(self, folder: Path) -> None:
        """Run to the end in a process that starts Python anew, with its own order of sets and addresses.

        Raises:
            RuntimeError: The run failed; the message has what it printed.
        """
        command = [sys.executable, "-m", self.batch, *self.arguments]
        paths = os.pathsep.join(str(ROOT / place) for place in (".", "CESTQuant", "JointRegSeg"))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} ended with status {done.returncode}: {done.stderr[-2000:]}")

    def _main(self, threads: int, extra: Sequence[str]) -> int:
        import torch

        from NeuroCESTLib.core.output import hidden

        atexit._clear()  # what the trial has registered is not for its runs
        hidden.tidy_up.cache_clear()
        torch.set_num_threads(threads)
        status = int(importlib.import_module(self.batch).main([*self.arguments, *extra]))
        atexit._run_exitfuncs()
        return status


def wait(process: int, longest_s: float = LONGEST_S) -> int:
    """Wait for a process that was started here; returns its exit status, negative for the signal that ended it."""
    end = time.monotonic() + longest_s
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    kill(process)
    raise RuntimeError(f"the run did not end within {longest_s:g} s")


def kill(process: int) -> int:
    """Kill a process that was started here, and those that it started, as by ``kill -9``; returns its exit status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


_WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "shutil.rmtree")
"""Events of Python that change files or folders; files that are opened for writing are counted too."""


def kill_at_write(run: TinyRun, folder: Path, number: int) -> int:
    """Start a run that kills itself when it changes its output for the ``number``-th time; 0 lets it end.

    How often it did so is written to a file beside the folder where it ends.

    Returns:
        Number of the process.
    """
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setpgid(0, 0)
        count = 0

        def counted(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event == "open":
                writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
                writes = writes or bool(isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
                if not writes or str(arguments[0]).startswith(("/dev", "/proc")):
                    return
            elif event not in _WRITING:
                return
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        _redirect(folder.with_suffix(".log"))
        os.chdir(folder)
        sys.addaudithook(counted)
        status = run._main(1, ())
        written = count
        folder.with_suffix(".writes").write_text(str(written))
    finally:
        os._exit(status)


def preload() -> None:
    """Import what the commands use, so that forked runs need not do so."""
    import matplotlib
    import slicer  # noqa: F401
    import torch
    import vtk  # noqa: F401

    import NeuroCESTLib.report.maps  # noqa: F401

    matplotlib.use("Agg")
    torch.set_num_threads(1)


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, hidden ones included; of reports without their times."""
    found = {}
    for file in sorted(file for file in folder.rglob("*") if not file.is_dir()):
        data = file.read_bytes()
        if file.name == "report.json":
            values = {key: value for key, value in json.loads(data).items() if key not in CLOCK_KEYS}
            if isinstance(values.get("settings"), dict):
                values["settings"].pop("resume", None)  # a resumed training says that it is one
            data = json.dumps(values).encode()
        found[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the names of the files that only one of two folders has, or that differ."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def tiny_runs(folder: Path, only: Sequence[str] | None = None) -> list[TinyRun]:
    """Write the inputs into a folder, and return the runs that use them.

    Args:
        folder: Folder for the inputs.
        only: Names of the runs that are wanted; None for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = [*_cest_runs(folder / "cest"), *_joint_runs(folder / "joint")]
    for further in (lambda: _task_runs(folder / "tasks"), lambda: _cohort_runs(folder)):
        if only is None or set(only) - {run.name for run in runs}:  # these inputs take a training and a cohort
            runs += further()
    if unknown := set(only or ()) - {run.name for run in runs}:
        raise SystemExit(f"unknown runs {', '.join(sorted(unknown))}; there are {', '.join(run.name for run in runs)}")
    return [run for run in runs if only is None or run.name in only]


def _words(options: dict[str, Any]) -> Iterator[str]:
    """Words of the command line for options; True makes a flag."""
    for name, value in options.items():
        yield "--" + name.replace("_", "-")
        yield from (str(item) for item in (value if isinstance(value, list) else [value]) if item is not True)


def _cest_runs(folder: Path) -> list[TinyRun]:
    import torch
    from paravision import write_scan
    from pool_files import POOLS
    from schedule_configs import SCHEDULE_CONFIG
    from sequence_files import SequenceText
    from studies import (
        AMIDE_SCENARIO,
        acquire,
        amine_model,
        fit,
        pairs_protocol,
        spectrum_protocol,
        write_image,
        write_json,
        write_series,
    )
    from training_configs import SCAN_CONFIG, amide_tissue, protocol_7T

    from CESTQuantLib.physics.protocol import Protocol

    folder.mkdir()
    offsets = torch.linspace(-5, 5, 21, dtype=torch.float64)
    near = torch.linspace(1.5, 4.5, 13, dtype=torch.float64)
    powers = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    slow = {"amine_k_Hz": (80.0, 250.0), "amine_fraction": (0.0005, 0.002)}
    places = {
        "spectrum": acquire(spectrum_protocol(count=21), b0_ppm=0.1),
        "pairs": acquire(pairs_protocol(times_s=(8.0, 12.0)), **slow),
        "omega": acquire(pairs_protocol(times_s=(12.0,)), **slow),
        "near": acquire(Protocol(7.0, near.repeat(3), powers.repeat_interleave(13), 8.0), b0_ppm=0.1, **slow),
        "powers": acquire(
            Protocol(3.0, offsets.repeat(2), torch.tensor([0.8, 2.0]).double().repeat_interleave(21), 3.0), b0_ppm=0.1
        ),
        "wassr": acquire(Protocol(3.0, torch.linspace(-1.5, 1.5, 21, dtype=torch.float64), 0.2, 0.5), b0_ppm=0.2),
        "wasabi": acquire(Protocol(3.0, torch.linspace(-2, 2, 21, dtype=torch.float64), 3.7, 0.005), b0_ppm=0.2),
        "scan": acquire(
            Protocol(
                7.0, torch.tensor([-3.5, 0.8, 2.0, 3.0, 3.5, 4.0, 3.5]).double(), torch.tensor([1.0] * 6 + [2.0]), 2.0
            )
        ),
    }
    for name, acquisition in places.items():
        acquisition.write(folder / name)
    write_json(amine_model(T2_s=0.04), folder / "model.json")
    write_json(amine_model(dw_ppm=fit(3.0, 2.5, 3.5)), folder / "wide.json")
    write_json(AMIDE_SCENARIO, folder / "scenario.json")
    training = {
        "protocol": protocol_7T([-3.5, 0.8, 2.0, 3.0, 3.5, 4.0, 3.5], [1, 1, 1, 1, 1, 1, 2]),
        "tissue": amide_tissue(),
        "targets": ["amide.fraction"],
        "samples": 2000,
        "epochs": 4,
        "seed": 4,
        "network": {"width": 24},
    }
    write_json(training, folder / "training.json")
    write_json(SCAN_CONFIG | {"protocol": training["protocol"], "samples": 2000, "epochs": 3}, folder / "scan.json")
    write_json(SCHEDULE_CONFIG | {"epochs": 2, "crlb": {"steps": 6, "starts": 1, "voxels": 32}}, folder / "plan.json")
    write_scan(folder / "study" / "10")
    grid = places["spectrum"].geometry
    times_s = torch.tensor([0.05, 0.2, 0.5, 1.0, 2.0, 4.0]).reshape(-1, 1, 1, 1)
    recovery = (100 - 190 * torch.exp(-times_s / 1.2)).abs().expand(-1, *grid.shape).numpy()
    write_series(recovery, grid, folder / "recovery.nii.gz")
    labels = torch.zeros(grid.shape, dtype=torch.uint8)
    labels[1:3, 1:4, 1:5] = 2
    labels[1:3, 1:3, 1:4] = 3
    write_image(labels.numpy(), grid, folder / "tumour.nii.gz")
    batch = "CESTQuantLib.batch"

    def of(place: str, **options: Any) -> tuple[str, ...]:
        files = {name: folder / place / file for name, file in _ACQUISITION.items()}
        return tuple(_words({**files, **options, "output": "out"}))

    def fitted(method: str, place: str, *maps: str, variant: str = "", **options: Any) -> TinyRun:
        options = {"method": method, **{name: folder / place / f"{name}.nii.gz" for name in maps}, **options}
        return TinyRun(f"fit {method} {variant}".strip(), batch, ("fit", *of(place, **options)))

    (folder / "pools.yaml").write_text(POOLS)
    sequence = SequenceText(4, offsets_ppm="3.5", B0="3")
    sequence.pulse(1.0, 0.02, 3.5, shape=(0.2, 1.0, 0.2))
    sequence.sample()
    seq = {"pools": folder / "pools.yaml", "sequence": sequence.write(folder, "prep.seq")}
    model = {"model": folder / "model.json"}
    network = folder / "network" / "network.pt"
    train = TinyRun("train", batch, ("train", str(folder / "training.json"), "--output", "out/network.pt"))
    train.run(network.parent)
    os.rename(network.parent / "out" / "network.pt", network)
    maps = TinyRun("maps", batch, ("fit", *of("spectrum", method="mtrasym", b0=folder / "spectrum" / "b0.nii.gz")))
    maps.run(folder / "maps")
    recovered = {"signal": folder / "recovery.nii.gz", "kind": "inversion-recovery", "output": "out"}
    regions = {
        "maps": folder / "maps" / "out",
        "segmentation": folder / "tumour.nii.gz",
        "labels": "1=core,2=oedema,3=enhancing",
        "draws": 50,
        "output": "out",
    }
    return [
        TinyRun("import", batch, ("import", str(folder / "study"), "--output", "out")),
        TinyRun(
            "relaxation",
            batch,
            ("relaxation", *_words({**recovered, "times_ms": [50, 200, 500, 1000, 2000, 4000]})),
        ),
        TinyRun("compartments", batch, ("compartments", *_words(regions))),
        TinyRun("compartments scene", batch, ("compartments", *_words({**regions, "scene": True, "bids_names": "1"}))),
        TinyRun("simulate", batch, ("simulate", str(folder / "scenario.json"), "--output", "out/z.csv")),
        TinyRun("simulate pools", batch, ("simulate", *_words({**seq, "output": "out/z.csv"}))),
        fitted("mtrasym", "spectrum", "b0", scene=True, segmentation=folder / "spectrum" / "mask.nii.gz"),
        fitted("lorentzian", "spectrum", lorentzian="3T"),
        fitted(
            "lorentzian",
            "spectrum",
            spatial_prior=True,
            segmentation=folder / "spectrum" / "mask.nii.gz",
            variant="of neighbours",
        ),
        fitted("mplf", "powers", "b0", "t1"),
        fitted("mtr-rex", "spectrum", "t1"),
        fitted("quesp", "pairs", "t1", **model),
        fitted("omega-plot", "omega", "t1", **model),
        fitted("qucesop", "near", "b0", "t1", **model),
        fitted("r1rho", "powers", "b0", "t1", **model),
        fitted("bloch-mcconnell", "powers", "b0", "t1", **model, scene=True),
        fitted(
            "r1rho",
            "powers",
            "b0",
            "t1",
            **model,
            posterior=True,
            segmentation=folder / "powers" / "mask.nii.gz",
            variant="and posterior",
        ),
        fitted("network", "scan", "t1", network=network, normalisation="m0"),
        fitted("dictionary", "scan", config=folder / "training.json", normalisation="m0"),
        TinyRun("wasabi", batch, ("wasabi", *of("wasabi"))),
        TinyRun("wassr", batch, ("wassr", *of("wassr"))),
        TinyRun("phantom", batch, ("phantom", "--output", "out")),
        TinyRun("dataset", batch, ("dataset", str(folder / "training.json"), "--output", "out")),
        train,
        TinyRun(
            "train self-supervised",
            batch,
            (
                *("train", str(folder / "scan.json"), "--self-supervised", "--output", "out/network.pt"),
                *_words({name: folder / "scan" / f for name, f in _ACQUISITION.items() if name != "protocol"}),
            ),
        ),
        TinyRun("optimize-schedule", batch, ("optimize-schedule", str(folder / "plan.json"), "--output", "out")),
    ]


_ACQUISITION = {"signal": "signal.nii.gz", "reference": "m0.nii.gz", "protocol": "protocol.json"}


def _joint_runs(folder: Path) -> list[TinyRun]:
    from joint_cohorts import small_cohort
    from joint_studies import HeadStudy, small_weights
    from joint_training_cases import TINY

    folder.mkdir()
    HeadStudy.of("left-handed oblique").write(folder / "first")
    HeadStudy.of("LPS", second=True).write(folder / "second")
    small_weights(folder / "small.pt")
    small_cohort(folder)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "network": TINY,
                "loss": {"window": 3},
                "data": {
                    "path": "memory",
                    "preprocessing": {
                        "spacing_mm": 4,
                        "multiple_of": 2,
                        "extent_mm": [64, 64, 64],
                        "align": "none",
                    },
                },
                "training": {"epochs": 2, "validate_every_batches": 2},
            }
        )
    )
    batch = "JointRegSegLib.batch"

    def images(visit: str) -> list[Any]:
        return [folder / visit / "t1.nii.gz", "-", "-", folder / visit / "flair.nii.gz"]

    cohort, weights = folder / "cohort.csv", {"weights": folder / "small.pt", "output": "out", "device": "cpu"}
    pair = {"fixed": images("first"), "moving": images("second"), **weights, "refine": 3, "no_flips": True}
    return [
        TinyRun("apply", batch, ("apply", *_words({**pair, "affine": "rigid", "scene": True}))),
        TinyRun(
            "apply visits",
            batch,
            (
                *("apply", "--visit", *map(str, images("first")), "--visit", *map(str, images("second"))),
                *_words({**weights, "refine": 3, "no_flips": True}),
            ),
        ),
        TinyRun("segment", batch, ("segment", *_words({"images": images("first"), **weights}))),
        TinyRun(
            "evaluate", batch, ("evaluate", *_words({"manifest": cohort, **weights, "refine": 3, "no_flips": True}))
        ),
        TinyRun("manifest", batch, ("manifest", str(folder), "--output", "out/cohort.csv")),
        TinyRun("synthesize", batch, ("synthesize", "--output", "out", "--spacing", "4", "--seed", "5")),
        TinyRun(
            "train joint",
            batch,
            ("train", "--manifest", str(cohort), "--config", str(folder / "config.json"), "--output", "out"),
            resumed=("--resume",),
        ),
    ]


def _task_runs(folder: Path) -> list[TinyRun]:
    """Tasks on single studies: their targets, training, scores and use."""
    from task_cohorts import AGE, SEX, TISSUE, write_cohort, write_config

    folder.mkdir()
    cohort = write_cohort(folder, 14)
    config = write_config(folder, [TISSUE, AGE, SEX], steps=4, validate_every_batches=2)
    batch, weights = "JointRegSegLib.batch", folder / "trained" / "out" / "weights.pt"
    arguments = ("train", *_words({"manifest": cohort, "config": config, "output": "out"}))
    train = TinyRun("train tasks", batch, arguments, resumed=("--resume",))
    train.run(folder / "trained")
    study = {"images": folder / "13_t1.nii.gz", "mask": folder / "13_mask.nii.gz"}
    targets = {"targets": True, "patients": 1, "spacing": 4, "seed": 5, "tumours": 1, "output": "out"}
    return [
        train,
        TinyRun("predict", batch, ("predict", *_words({**study, "weights": weights, "output": "out"}))),
        TinyRun(
            "evaluate tasks", batch, ("evaluate", *_words({"manifest": cohort, "weights": weights, "output": "out"}))
        ),
        TinyRun("synthesize targets", batch, ("synthesize", *_words(targets))),
    ]


def _cohort_runs(folder: Path) -> list[TinyRun]:
    """A cohort of one patient with one visit, whose files are those of the other runs."""
    cest = folder / "cest"
    shutil.copyfile(cest / "spectrum" / "m0.nii.gz", folder / "t1.nii.gz")
    visit = {
        "subject": "P1",
        "visit": "V1",
        "t1": folder / "t1.nii.gz",
        "segmentation": cest / "tumour.nii.gz",
        "cest": cest / "spectrum" / "signal.nii.gz",
        "protocol": cest / "spectrum" / "protocol.json",
        "m0": cest / "spectrum" / "m0.nii.gz",
        "b0": cest / "spectrum" / "b0.nii.gz",
    }
    manifest, settings = folder / "COHORT.csv", folder / "settings.json"
    manifest.write_text("\n".join([",".join(visit), ",".join(map(str, visit.values()))]) + "\n")
    more = ["--labels", "1=core,2=oedema,3=enhancing", "--draws", "50"]
    settings.write_text(json.dumps({"method": "mtrasym", "register": False, "compartments": more}))
    batch = "NeuroCESTLib.workflow.batch"
    arguments = ("run", str(manifest), "--settings", str(settings), "--output", "out", "--cores", "1")
    whole = TinyRun("neurocest run", batch, arguments, staged=True)
    whole.run(folder / "cohort")
    demo = {"patients": 1, "spacing": 4, "voxel_size": 8, "slices": 1, "output": "out"}
    return [
        whole,
        TinyRun("neurocest summarize", batch, ("summarize", "out"), staged=True, begun=folder / "cohort" / "out"),
        TinyRun("neurocest demo-cohort", batch, ("demo-cohort", *_words(demo))),
    ]


def _redirect(log: Path) -> None:
    """Send what this process prints to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
