"""A toy training: tumours of three shells in noise, and a network of a few hundred weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from JointRegSegLib.cohort.sample import OUTSIDE, Pair, StudySample
from JointRegSegLib.training.config import TrainingConfig, config_from_dict

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
    """``length`` pairs of studies on a grid of ``size``³; from pair ``broken`` on (in the order of use) all is NaN."""

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
        return tuple(self._study(generator, f"{index} {visit}") for visit in ("a", "b"))

    def _study(self, generator: torch.Generator, name: str) -> StudySample:
        centre = self.size / 4 + self.size / 2 * torch.rand(3, generator=generator)
        axes = torch.meshgrid(*[torch.arange(self.size).float()] * 3, indexing="ij")
        distance = (torch.stack(axes) - centre.view(3, 1, 1, 1)).norm(dim=0)
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
    """Validation pairs."""
    source = Shells(count, seed=9)
    return [source[index] for index in range(count)]
