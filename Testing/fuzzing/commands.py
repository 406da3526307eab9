"""Whole commands of the three programs, each of which is given damaged variants of one of its inputs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
from joint_cohorts import manifest_of, write_study
from joint_studies import small_weights
from joint_training_cases import TINY
from task_cohorts import AGE, SEX, TISSUE, run_training, write_cohort, write_config
from training_configs import protocol_7T

from CESTQuantLib import batch as cestquant
from JointRegSegLib import batch as jointregseg
from NeuroCESTLib.workflow import batch as neurocest
from NeuroCESTLib.workflow.plan import FOLDERS

_Main = Callable[[list[str]], int]
_PROGRAMS: dict[str, _Main] = {
    "cestquant": cestquant.main,
    "jointregseg": jointregseg.main,
    "neurocest": neurocest.main,
}
_CASE_BY_CASE = ("evaluate", "summarize")
"""Commands that end with status 1 where some of their cases fail, each of which has a sentence of its own."""
_CEST = ("signal_protocol.json", "labels.seg.nrrd", "maps", "spectrum.json", "of_network.json", "pools.yaml")
_FOUR = "fit --signal TOP/series.nii.gz"
_SPECTRA = "fit --signal TOP/spectrum.nii.gz --protocol TOP/spectrum.json"
_CONTRAST = "fit --signal VARIANT --protocol TOP/signal_protocol.json --method mtrasym --asymmetry-offset 3.5"
_COMPARTMENTS = "compartments --maps TOP/maps --draws 50 --perturbations 2 --no-spectra"
_APPLY = (
    "apply --weights none --affine rigid --refine 0 --device cpu --fixed-mask TOP/brain.nii.gz "
    "--moving-mask TOP/brain.nii.gz --moving TOP/second.nii.gz - - - --fixed VARIANT - - -"
)
_SEGMENT = "segment --images TOP/head.nii - - - --mask TOP/brain.nii.gz --no-flips --device cpu"
_PREDICT = "predict --weights TOP/run/weights.pt --images TOP/13_t1.nii.gz --device cpu"
_EVALUATE = "evaluate --manifest TOP/cohort.csv --device cpu --no-pictures"
_PAIRS = f"{_EVALUATE} --weights TOP/weights.pt --refine 0 --no-flips"
_TRAIN = "train --manifest TOP/cohort.csv --config TOP/config.json --resume --output TOP/run"
_RUN = "run TOP/COHORT.csv --settings TOP/settings.json --dry-run"
_CHECKPOINT = "checkpoint.pt"
"""Example that takes the place of the hidden checkpoint of ``cestquant train``, whose name has a checksum."""
_COMMANDS = (
    ("cestquant", "series.nii", _CONTRAST),
    ("cestquant", "series.nii.gz", _CONTRAST),
    ("cestquant", "series.seq.nrrd", _CONTRAST),
    ("cestquant", "signal_protocol.json", f"{_FOUR} --protocol VARIANT --method mtrasym --asymmetry-offset 3.5"),
    ("cestquant", "model.json", f"{_SPECTRA} --method r1rho --t1 TOP/t1.nii.gz --model VARIANT"),
    ("cestquant", "lorentzian.json", f"{_SPECTRA} --method lorentzian --lorentzian VARIANT"),
    (
        "cestquant",
        "network.pt",
        f"{_FOUR} --reference TOP/other.nii.gz --protocol TOP/of_network.json --method network --network VARIANT",
    ),
    ("cestquant", "volume.nii", f"{_SPECTRA} --method mtrasym --b0 VARIANT"),
    ("cestquant", "spectrum.nii.gz", "wassr --signal VARIANT --protocol TOP/spectrum.json"),
    ("cestquant", "series.nii", "relaxation --signal VARIANT --kind multi-echo --times-ms 10 20 40 80"),
    ("cestquant", "series.nii.gz", "relaxation --signal VARIANT --kind multi-echo --times-ms 10 20 40 80"),
    ("cestquant", "labels.seg.nrrd", f"{_COMPARTMENTS} --anatomy TOP/other.nii.gz --segmentation VARIANT"),
    ("cestquant", "volume.nii", f"{_COMPARTMENTS} --anatomy VARIANT --segmentation TOP/labels.seg.nrrd"),
    ("cestquant", "maps/report.json", "compartments --maps TOP --segmentation TOP/acquired/labels.nii.gz --draws 50"),
    ("cestquant", "scenario.json", "simulate VARIANT"),
    ("cestquant", "prep.seq", "simulate --pools TOP/pools.yaml --sequence VARIANT"),
    ("cestquant", "nifti/scan.nii.gz", "import VARIANT"),
    ("cestquant", "enhanced/scan.dcm", "import VARIANT"),
    ("cestquant", "paravision/1/method", "import TOP/1"),
    ("cestquant", f"training/{_CHECKPOINT}", "train TOP/config.json --output TOP/network.pt"),
    ("jointregseg", "head.nii", _APPLY),
    ("jointregseg", "head.nrrd", _APPLY),
    ("jointregseg", "head.mha", _APPLY),
    ("jointregseg", "weights.pt", f"{_SEGMENT} --weights VARIANT"),
    ("jointregseg", "head.nii", f"{_SEGMENT.replace('TOP/head.nii', 'VARIANT')} --weights TOP/weights.pt"),
    ("jointregseg", "tasks/13_t1.nii.gz", _PREDICT),
    ("jointregseg", "tasks/13_mask.nii.gz", f"{_PREDICT} --mask VARIANT"),
    ("jointregseg", "tasks/run/weights.pt", _PREDICT),
    ("jointregseg", "tasks/cohort.csv", f"{_EVALUATE} --weights TOP/run/weights.pt"),
    ("jointregseg", "tasks/13_t1.nii.gz", f"{_EVALUATE} --weights TOP/run/weights.pt"),
    ("jointregseg", "tasks/run/last.pt", _TRAIN),
    ("jointregseg", "tasks/run/best.pt", _TRAIN),
    ("jointregseg", "pairs/cohort.csv", _PAIRS),
    ("jointregseg", "pairs/A-1/x_t1.nii.gz", _PAIRS),
    ("jointregseg", "pairs/A-2/x_seg.nii.gz", _PAIRS),
    ("jointregseg", "pairs/weights.pt", _PAIRS),
    ("jointregseg", "pairs/run/last.pt", _TRAIN),
    ("neurocest", "cohort/COHORT.csv", _RUN),
    ("neurocest", "cohort/settings.json", _RUN),
    ("neurocest", "results/.neurocest/plan.json", "summarize TOP"),
    ("neurocest", "results/A/2/compartments/compartments.csv", "summarize TOP"),
    ("neurocest", "results/A/2/compartments/changes.csv", "summarize TOP"),
)
"""Program, example and arguments; VARIANT is the damaged file, and TOP the folder of the examples that belong to it."""


def commands() -> list[tuple[str, str, Callable[[Path], Any], tuple[str, ...]]]:
    """Return name, example, the command as a reader of a variant, and what it needs beside it, of all commands."""
    beside = (*_CEST, "weights.pt", "head.nii")
    return [
        (
            f"{program} {words.split()[0]}{_option(words)}",
            example,
            _command(_PROGRAMS[program], words, len(Path(example).parts)),
            tuple(name for name in beside if name != example) if "/" not in example else (),
        )
        for program, example, words in _COMMANDS
    ]


def _option(words: str) -> str:
    """The option that takes the variant, where the command has several."""
    before, found, _ = words.partition(" VARIANT")
    return f" {before.split()[-1]}" if found and before.split()[-1].startswith("--") else ""


def _command(main: _Main, words: str, depth: int) -> Callable[[Path], Any]:
    """The command as a reader: a ValueError with its sentence where it refuses, RuntimeError where it misbehaves."""

    def run(path: Path) -> None:
        top = path.parents[max(depth - 2, 0)]
        if path.name == _CHECKPOINT:
            path.replace(_checkpoint_in(top))
        arguments = [word.replace("VARIANT", str(path)).replace("TOP", str(top)) for word in words.split()]
        if "--output" not in arguments and arguments[0] != "summarize":
            arguments += ["--output", str(top / "out")]
        printed = io.StringIO()
        engine = _without_engine() if main is neurocest.main else contextlib.nullcontext()
        with engine, contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            status = main(arguments)
        lines = [line for line in printed.getvalue().splitlines() if line.startswith(("error: ", "failed: "))]
        by_case = status == 1 and arguments[0] in _CASE_BY_CASE
        if not ((by_case and lines) or (status in (0, 2) and len(lines) == bool(status))):
            raise RuntimeError(f"status {status}: {printed.getvalue()}")
        if lines:
            raise ValueError(lines[0].partition(": ")[2])

    return run


@contextlib.contextmanager
def _without_engine() -> Iterator[None]:
    """Keep what Snakemake, another process, prints; it is meant for the user."""
    with tempfile.TemporaryFile() as printed:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        for stream in kept:
            os.dup2(printed.fileno(), stream)
        try:
            yield
        finally:
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)


def write_command_examples(folder: Path) -> None:
    """Write what only whole commands need: cohorts with a trained network each, and the output of a cohort."""
    with contextlib.redirect_stderr(io.StringIO()):
        _write_tasks(folder / "tasks")
        _write_pairs(folder / "pairs")
        _write_training(folder / "training", folder / "dataset.json")
    _write_spectra(folder)
    _write_results(folder / "results", folder / "cohort" / "plan.json")
    shutil.copyfile(folder / "labels.nii.gz", folder / "maps" / "acquired" / "labels.nii.gz")


def _write_spectra(folder: Path) -> None:
    """Spectra of water and an amine on the grid of the other images, and the protocol of the network."""
    offsets = np.linspace(-5, 5, 21)
    z = 1 - 0.9 / (1 + (offsets / 0.7) ** 2) - 0.05 / (1 + ((offsets - 3) / 0.5) ** 2)
    like = sitk.ReadImage(str(folder / "volume.nii.gz"))
    images = [0 * like + float(value) for value in z]
    sitk.WriteImage(sitk.JoinSeries(images), str(folder / "spectrum.nii.gz"))
    sitk.WriteImage(0 * like + 2.0, str(folder / "t1.nii.gz"))
    for name, protocol in {
        "spectrum": protocol_7T(offsets.tolist(), signal_normalisation="none"),
        "of_network": protocol_7T([-3.5, 2.0, 3.0, 3.5]),
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(protocol))


def _write_tasks(folder: Path) -> None:
    """Single studies with targets, and a training on them."""
    folder.mkdir()
    cohort = write_cohort(folder, 14)
    run_training(cohort, write_config(folder, [TISSUE, AGE, SEX], steps=1, validate_every_batches=1), folder / "run")


def _write_pairs(folder: Path) -> None:
    """A patient with two visits, a network, and a training of the joint task on them."""
    for seed, visit in enumerate("12"):
        write_study(folder / f"A-{visit}", seed)
    manifest_of(folder, [("A", "1"), ("A", "2")])
    small_weights(folder / "weights.pt")
    preparation = {"spacing_mm": 4, "multiple_of": 2, "extent_mm": [64, 64, 64], "align": "none"}
    config = {
        "network": TINY,
        "loss": {"window": 3},
        "training": {"epochs": 1, "validate_every_batches": 1, "pictures": 0},
        "data": {"path": "memory", "preprocessing": preparation},
    }
    (folder / "config.json").write_text(json.dumps(config))
    run_training(folder / "cohort.csv", folder / "config.json", folder / "run")


def _write_training(folder: Path, config: Path) -> None:
    """A training of a reconstruction network that was killed: its checkpoint is there, its network is not."""
    folder.mkdir()
    shutil.copyfile(config, folder / "config.json")
    with mock.patch("CESTQuantLib.commands.training._write_training"):
        cestquant.main(["train", str(folder / "config.json"), "--output", str(folder / "network.pt")])
    shutil.copyfile(_checkpoint_in(folder), folder / _CHECKPOINT)


def _checkpoint_in(folder: Path) -> Path:
    return next(folder.glob(".network.pt.*.checkpoint"))


def _write_results(folder: Path, plan: Path) -> None:
    """The output of a cohort, as the commands leave it."""
    (folder / ".neurocest").mkdir(parents=True)
    shutil.copyfile(plan, folder / ".neurocest" / "plan.json")
    header = "visit,region,quantity,unit,n,coverage,mean,sd,median,q1,q3,fit,fit_se"
    for visit in ("A/1", "A/2", "B/1"):
        for stage in FOLDERS.values():
            (folder / visit / stage).mkdir(parents=True)
            (folder / visit / stage / "report.json").write_text("{}")
        rows = [f"{number},edema,mtr_asym_3.5ppm,%,9,0.5,{number},0.1,1.1,1,1.2,1,0.1" for number in "12"]
        volumes = {number: {"regions": {"edema": {"volume_ml": 8 + 2 * int(number)}}} for number in "12"}
        report = {"summary": {"visits": volumes}}
        (folder / visit / "compartments" / "report.json").write_text(json.dumps(report))
        (folder / visit / "compartments" / "compartments.csv").write_text("\n".join([header, *rows]) + "\n")
    header = "region,quantity,unit,first,second,change,lower,upper"
    changes = ["edema,mtr_asym_3.5ppm,%,1,2,1,0.5,1.5", "edema,volume,ml,10,12,2,1,3"]
    (folder / "A" / "2" / "compartments" / "changes.csv").write_text("\n".join([header, *changes]) + "\n")
