"""Training of the joint network on a GPU that is at hand for minutes, with a cross-validation in the same time.

The images are prepared beforehand, on a machine that has them; the file also holds the templates of the synthetic
patients. On the machine with the GPU nothing is read but this file::

    python Testing/gpu/train_weights.py prepare --manifest nine.csv --config adapted.json --templates colin27 \\
        --output prepared.pt
    python Testing/gpu/train_weights.py generate --prepared prepared.pt --config base.json --cache patients
    python Testing/gpu/train_weights.py train --prepared prepared.pt --config base.json --cache patients \\
        --output base --minutes 4
    python Testing/gpu/train_weights.py train --prepared prepared.pt --config adapted.json --cache patients \\
        --initial base/weights.pt --without BraTS2021_00630,BraTS2021_01479 --output fold_a --minutes 4

``generate`` fills the cache of synthetic patients with all processor cores and may run beside everything else; what a
training misses in the cache it makes itself. Several trainings may run at once. The end of a training is set in
minutes; its weights are written in half precision.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from JointRegSegLib.augmentation.config import AugmentationConfig
from JointRegSegLib.augmentation.mixture import MixedPairs, TransplantedPairs
from JointRegSegLib.augmentation.pipeline import Augmentation
from JointRegSegLib.augmentation.transplant import TransplantConfig
from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.pairing import Pairing, PairPlan
from JointRegSegLib.cohort.preparation import PreparationConfig, StudyPreparer
from JointRegSegLib.cohort.sample import PairSource, StudySample
from JointRegSegLib.cohort.sources import StudiesInMemory, StudyPairs
from JointRegSegLib.images.labels import CAVITY
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.synthesis.source import SyntheticConfig, SyntheticSource
from JointRegSegLib.synthesis.templates import Template, load_templates
from JointRegSegLib.training.config import TrainingConfig
from JointRegSegLib.training.config_files import read_config
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.loop import train
from NeuroCESTLib.core.tensor_files import load_tensors, save_tensors

_TEMPLATE_MM = 2.0
_SECONDS_BETWEEN_LINES = 10


class PreparedStudies(StudiesInMemory):
    """Studies of a prepared file, in memory."""

    def __init__(self, studies: list[dict[str, Any]]) -> None:
        self._samples = [
            StudySample(_outside_filled(s["images"], s["mask"], s["outside"]), s["labels"], s["mask"], s["name"])
            for s in studies
        ]


def _outside_filled(inside: Tensor, mask: Tensor, outside: Tensor) -> Tensor:
    """Images (C, D, H, W) of their values in the brain (C, voxel) and one value each outside."""
    images = outside.view(-1, 1, 1, 1).repeat(1, *mask.shape)
    images[:, mask] = inside.float()
    return images


def prepare(options: argparse.Namespace) -> None:
    """Write the prepared studies of a manifest and the templates of synthetic patients into one file."""
    config = read_config(options.config)
    preparation = PreparationConfig.from_dict(config.data.preprocessing, "data: preprocessing")
    preparer = StudyPreparer(read_manifest(options.manifest), preparation)
    studies = []
    for index in range(len(preparer)):
        sample = preparer(index)
        studies.append(
            {
                "images": sample.images[:, sample.mask].half(),
                "outside": sample.outside.clone(),
                "labels": sample.labels,
                "mask": sample.mask,
                "name": sample.name,
                "subject": preparer.cohort.studies[index].subject,
            }
        )
        print(sample.name)
    templates = [template.at(_TEMPLATE_MM) for template in load_templates(options.templates)]
    heads = [{"tissues": t.tissues.half(), "name": t.name} for t in templates]
    save_tensors({"studies": studies, "templates": heads}, options.output)


def _templates(prepared: dict[str, Any]) -> list[Template]:
    return [Template(head["tissues"].float(), _TEMPLATE_MM, head["name"]) for head in prepared["templates"]]


def _synthetic(config: TrainingConfig, prepared: dict[str, Any], cache: Path) -> SyntheticSource:
    cohort = PreparationConfig.from_dict(config.data.preprocessing, "data: preprocessing").preprocessing
    values = config.data.synthetic_settings(cohort.spacing_mm) | {"cache": str(cache)}
    settings = SyntheticConfig.from_dict(values, "data: synthetic")
    cavity = config.network.classes > CAVITY
    return SyntheticSource(settings, config.data.length, config.data.seed, cavity, _templates(prepared))


def generate(options: argparse.Namespace) -> None:
    """Fill the cache with the synthetic patients of a configuration."""
    length = read_config(options.config).data.length
    cores = options.processes or os.cpu_count() or 1
    with ProcessPoolExecutor(cores, initializer=_open_source, initargs=(options,)) as pool:
        for number, _ in enumerate(pool.map(_generate_one, range(length), chunksize=4), 1):
            if number % 100 == 0:
                print(f"{number} of {length} patients", flush=True)


_source: SyntheticSource | None = None
"""The synthetic patients of a process that generates them."""


def _open_source(options: argparse.Namespace) -> None:
    global _source
    torch.set_num_threads(1)
    _source = _synthetic(read_config(options.config), load_tensors(options.prepared, "prepared data"), options.cache)


def _generate_one(index: int) -> None:
    assert _source is not None
    _source[index]


def _source_of(config: TrainingConfig, prepared: dict[str, Any], options: argparse.Namespace) -> PairSource:
    """The training pairs of a configuration, as ``training.data.open_data`` makes them of a cohort."""
    synthetic = _synthetic(config, prepared, options.cache)
    data = config.data
    if data.path == "synthetic":
        return synthetic
    without = set(filter(None, options.without.split(",")))
    studies = [study for study in prepared["studies"] if study["subject"] not in without]
    if unknown := without - {study["subject"] for study in prepared["studies"]}:
        raise ValueError(f"'{options.prepared}' holds no {', '.join(sorted(unknown))}")
    print("trains on", ", ".join(study["name"] for study in studies), flush=True)
    plan = PairPlan([s["subject"] for s in studies], Pairing.of(data.pairing), None, None, data.seed)
    pairs: Any = StudyPairs(PreparedStudies(studies), plan)
    if data.transplants is not None:
        pairs = TransplantedPairs(pairs, TransplantConfig.from_dict(data.transplants), data.seed)
    return MixedPairs(pairs, synthetic, data.synthetic_share, data.seed) if data.synthetic_share else pairs


def train_one(options: argparse.Namespace) -> None:
    """Train a network and write its weights."""
    config = read_config(options.config)
    settings = replace(config.training, time_limit_minutes=options.minutes, workers=options.workers, epochs=0, steps=0)
    config = replace(config, training=settings, initial_weights=options.initial or config.initial_weights)
    source = _source_of(config, load_tensors(options.prepared, "prepared data"), options)
    changes = AugmentationConfig.from_dict(config.data.augmentation or {}, "data: augmentation")
    augmentation = Augmentation(changes, modalities=config.network.modalities)
    torch.backends.cudnn.benchmark = True  # all patches have one size
    network = new_network(config)
    metadata = dict(load_weights(options.initial).metadata) if options.initial else {}
    metadata |= {"configuration": config.to_dict(), "without": options.without}
    folder = options.output / "run"
    folder.mkdir(parents=True, exist_ok=True)
    progress = _Lines(options.output.name)
    result = train(config, network, source, [], folder, augmentation=augmentation, progress=progress)
    metadata["training"] = {"steps": result.steps, "stopped": result.stopped, "pairs": settings.batch_size}
    save_weights(options.output / "weights.pt", network, metadata, half=True)
    print(f"{options.output.name}: {result.steps} steps, {result.stopped}", flush=True)


class _Lines:
    """Progress as a line every few seconds."""

    def __init__(self, name: str) -> None:
        self._name, self._due = name, threading.Event()
        self._due.set()

    def __call__(self, share: float, message: str = "") -> None:
        if self._due.is_set():
            self._due.clear()
            timer = threading.Timer(_SECONDS_BETWEEN_LINES, self._due.set)
            timer.daemon = True
            timer.start()
            print(f"{self._name} {share:.0%} {message}", flush=True)


def main() -> int:
    """Run the command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, function in (("prepare", prepare), ("generate", generate), ("train", train_one)):
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(run=function)
        command.add_argument("--config", required=True, help="configuration of the training")
        if name == "prepare":
            command.add_argument("--manifest", required=True, help="studies")
            command.add_argument("--templates", help="folder with further templates")
            command.add_argument("--output", required=True, help="file to write")
            continue
        command.add_argument("--prepared", required=True, help="file that 'prepare' wrote")
        command.add_argument("--cache", type=Path, required=True, help="folder of the synthetic patients")
        if name == "generate":
            command.add_argument("--processes", type=int, default=0, help="processes (default: one per core)")
            continue
        command.add_argument("--output", type=Path, required=True, help="folder to write")
        command.add_argument("--minutes", type=float, required=True, help="length of the training")
        command.add_argument("--workers", type=int, default=4, help="processes that prepare pairs")
        command.add_argument("--initial", help="weights to start from")
        command.add_argument("--without", default="", metavar="SUBJECT,...", help="subjects that are left out")
    options = parser.parse_args()
    options.run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
