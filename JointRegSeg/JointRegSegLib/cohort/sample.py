"""One study as the network sees it: what every source of training data yields, two at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTSIDE = -3.0
"""Value of normalised images outside of the brain, and of a modality that is absent everywhere."""


@dataclass(frozen=True)
class StudySample:
    """A preprocessed study.

    images: (C, D, H, W) float32, one channel a modality, normalised in the brain; each has one value elsewhere and an
        absent modality has it everywhere (``OUTSIDE`` where the brain is z-scored).
    labels: (D, H, W) uint8 classes, or None where the study is not labelled.
    mask: (D, H, W) bool, the brain.
    name: subject and visit, for messages.
    """

    images: Tensor
    labels: Tensor | None
    mask: Tensor
    name: str

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(f"study '{self.name}': images have the shape {tuple(self.images.shape)}, not (C, D, H, W)")
        for what, tensor in (("labels", self.labels), ("mask", self.mask)):
            if tensor is not None and tensor.shape != self.images.shape[1:]:
                raise ValueError(
                    f"study '{self.name}': {what} have the shape {tuple(tensor.shape)} but the images "
                    f"{tuple(self.images.shape[1:])}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid (D, H, W)."""
        return tuple(self.images.shape[1:])

    @property
    def present(self) -> Tensor:
        """(C,) bool: the modalities that are there, which is those that vary."""
        images = self.images.flatten(1)
        return (images != images[:, :1]).any(1)

    @property
    def outside(self) -> Tensor:
        """(C,) value of each image outside of the brain; ``OUTSIDE`` where the brain fills the grid."""
        beyond = ~self.mask.flatten()
        if not bool(beyond.any()):
            return torch.full((len(self.images),), OUTSIDE, device=self.images.device)
        return self.images.flatten(1)[:, int(beyond.to(torch.uint8).argmax())]

    def to(self, device: torch.device | str) -> StudySample:
        """The same sample on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return StudySample(self.images.to(device), labels, self.mask.to(device), self.name)


Pair = tuple[StudySample, StudySample]
"""Fixed and moving study."""
