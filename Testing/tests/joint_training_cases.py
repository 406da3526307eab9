"""A toy training: tumours of three shells in noise, and a network with a few hundred weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.cohort.sample import OUTSIDE, Pair, StudySample
from JointRegSegLib.training.config import TrainingConfig
from JointRegSegLib.training.config_files import config_from_dict
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.loop import train
from JointRegSegLib.training.state import TrainingResult
from NeuroCESTLib.core.processes import Processes
from NeuroCESTLib.core.progress import Progress

TINY = {
    "base": "neurocest",
    "name": "tiny",
    "channels": [4, 8],
    "encoder_convolutions": [1, 1],
    "decoder_convolutions": [1],
    "registration_level": 0,
    "auxiliary": 0,
    "stride": 1,
}


@dataclass
class Shells:
    """Pairs of studies with a tumour of three shells in noise.

    Attributes:
        length: Number of pairs.
        size: Edge of the grid in voxels.
        seed: Seed of the studies.
        broken: Number of pairs, in the order of use, after which all images are NaN; None for never.
        epoch: Epoch, on which the studies depend.
        used: Number of pairs used so far.
    """

    length: int = 6
    size: int = 16
    seed: int = 0
    broken: int | None = None
    epoch: int = 0
    used: int = 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Pair:
        generator = torch.Generator().manual_seed(self.seed * 10_000 + self.epoch * self.length + index)
        self.used += 1
        return self._study(generator, f"{index} a"), self._study(generator, f"{index} b")

    def _study(self, generator: torch.Generator, name: str) -> StudySample:
        center = self.size / 4 + self.size / 2 * torch.rand(3, generator=generator)
        axes = torch.meshgrid(*[torch.arange(self.size).float()] * 3, indexing="ij")
        distance = (torch.stack(axes) - center.view(3, 1, 1, 1)).norm(dim=0)
        labels = torch.zeros(distance.shape, dtype=torch.uint8)
        for number, radius in ((2, 5.0), (3, 3.5), (1, 2.0)):
            labels[distance < radius] = number
        contrast = torch.tensor([0.3, 1.0, 0.5, 0.8]).view(4, 1, 1, 1)
        images = contrast * labels + 0.3 * torch.randn(4, *labels.shape, generator=generator)
        if self.broken is not None and self.used > self.broken:
            images *= torch.nan
        mask = torch.ones(labels.shape, dtype=torch.bool)
        mask[0] = False
        images[:, ~mask] = OUTSIDE
        return StudySample(images, labels, mask, name)


def toy_config(training: dict[str, Any] | None = None, **sections: Any) -> TrainingConfig:
    """Configuration for ``Shells``: 8 epochs of 3 steps with 2 pairs each."""
    settings = {
        "epochs": 8,
        "validate_every_batches": 3,
        "learning_rate": 1e-2,
        "precision": "float32",
        "pictures": 0,
        **(training or {}),
    }
    values = {"network": TINY, "loss": {"window": 3}, "data": {"path": "synthetic"}, "training": settings, **sections}
    return config_from_dict(values)


def held_out(count: int = 2) -> list[Pair]:
    """Pairs for validation."""
    source = Shells(count, seed=9)
    return [source[index] for index in range(count)]


PREPROCESSING = {"spacing_mm": 4, "multiple_of": 2, "extent_mm": [64, 64, 64], "align": "none"}
"""Preparation of the studies of ``write_shells``."""


def write_shells(folder: Path, splits: Sequence[str], visits: int = 2, unlabelled: Sequence[int] = ()) -> Path:
    """Write a subject of ``Shells`` for each split, on grids of 4 mm, and their manifest.

    Args:
        folder: Folder to write to.
        splits: Split of each subject.
        visits: Visits of each subject, 1 or 2.
        unlabelled: Numbers of the subjects without labels.
    """
    rows = ["subject,visit,flair,t1,label,mask,split"]
    source = Shells(len(splits), size=16, seed=5)
    for subject, split in enumerate(splits):
        for number, study in enumerate(source[subject][:visits], start=1):
            volumes = {"flair": study.images[3], "t1": study.images[0], "label": study.labels, "mask": study.mask}
            if subject in unlabelled:
                del volumes["label"]
            files = {}
            for name, volume in volumes.items():
                array = volume.numpy().astype(np.uint8 if name in ("label", "mask") else np.float32)
                image = sitk.GetImageFromArray(array)
                image.SetSpacing((4, 4, 4))
                files[name] = f"s{subject}-{number}_{name}.nii.gz"
                sitk.WriteImage(image, str(folder / files[name]))
            columns = ",".join(files.get(name, "") for name in ("flair", "t1", "label", "mask"))
            rows.append(f"s{subject},{number},{columns},{split}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def toy_training(config: TrainingConfig, folder: Path, source: Shells | None = None, **options: Any) -> TrainingResult:
    """Train the network of a configuration on ``Shells``."""
    folder.mkdir(exist_ok=True)
    return train(config, new_network(config), source or Shells(), held_out(), folder, **options)


class _Exchange:
    """Where ranks in threads meet."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.values: list[list[torch.Tensor]] = [[]] * count


@dataclass(frozen=True)
class RankInThread(Processes):
    """A rank that is a thread of this process instead of a process of its own."""

    exchange: _Exchange | None = None

    @torch.no_grad()
    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        if not tensors:
            return
        self._exchange.values[self.rank] = [tensor.detach().double() for tensor in tensors]
        self.wait()
        means = [torch.stack(each).mean(0) for each in zip(*self._exchange.values, strict=True)]
        self.wait()
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean)

    def share(self, tensors: Sequence[torch.Tensor]) -> None:
        """Keep the tensors, which are the same in all threads of a process."""

    def wait(self) -> None:
        self._exchange.barrier.wait()

    @property
    def _exchange(self) -> _Exchange:
        assert self.exchange is not None
        return self.exchange


def train_in_two_ranks(train_rank: Callable[[Processes], TrainingResult]) -> list[TrainingResult]:
    """Run a training in two ranks, which are threads; where one fails, the other does not wait for it.

    The threads share torch's random numbers: networks are to be made beforehand.
    """
    exchange = _Exchange(2)

    def run(rank: int) -> TrainingResult:
        try:
            return train_rank(RankInThread(rank, 2, 0, exchange))
        except BaseException:
            exchange.barrier.abort()
            raise

    with ThreadPoolExecutor(2) as threads:
        ranks = [threads.submit(run, rank) for rank in range(2)]
    errors = [error for error in (rank.exception() for rank in ranks) if error is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [rank.result() for rank in ranks]


class KilledError(Exception):
    """What ``kill_after`` raises."""


def kill_after(steps: int) -> Progress:
    """Progress that interrupts a training after so many steps."""
    calls: list[str] = []

    def progress(fraction: float, message: str = "") -> None:
        calls.append(message)
        if len(calls) == steps:
            raise KilledError

    return progress


@dataclass
class SteppedClock:
    """A clock, and a progress that advances it by ``step_seconds``: a training in which every step takes that long."""

    step_seconds: float
    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def progress(self, fraction: float, message: str = "") -> None:
        self.now += self.step_seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
