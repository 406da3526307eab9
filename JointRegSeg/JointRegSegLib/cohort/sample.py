"""One preprocessed study as the network sees it; every source of training data yields pairs of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

OUTSIDE = -3.0
"""Value of z-scored images outside the brain, and of an absent modality everywhere."""


@dataclass(frozen=True)
class StudySample:
    """A preprocessed study.

    Attributes:
        images: Images (C, D, H, W) float32, a channel per modality, normalised in the brain. Outside the brain each
            has a single value, which an absent modality has everywhere (``OUTSIDE`` where the brain is z-scored).
        labels: Classes (D, H, W) uint8; None for a study without labels.
        mask: Brain (D, H, W) bool.
        name: Subject and visit, for messages.
        background: Value outside the brain by the normalisation, for images that the brain fills.
    """

    images: Tensor
    labels: Tensor | None
    mask: Tensor
    name: str
    background: float = OUTSIDE

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
        _, d, h, w = self.images.shape
        return d, h, w

    @property
    def present(self) -> Tensor:
        """Which modalities (C,) the study has, bool: those whose image is not constant."""
        images = self.images.flatten(1)
        return (images != images[:, :1]).any(1)

    @property
    def outside(self) -> Tensor:
        """Value (C,) of each image outside the brain; ``background`` where the brain fills the grid."""
        beyond = ~self.mask.flatten()
        if not bool(beyond.any()):
            return torch.full((len(self.images),), self.background, device=self.images.device)
        return self.images.flatten(1)[:, int(beyond.to(torch.uint8).argmax())]

    @property
    def spread(self) -> Tensor:
        """Standard deviation (C,) of each image in the brain: near 1 where it is z-scored."""
        return self.images[:, self.mask].std(1, correction=0).nan_to_num()

    def to(self, device: torch.device | str) -> StudySample:
        """Return the same sample on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels, mask=self.mask.to(device))


Pair = tuple[StudySample, StudySample]
"""Fixed and moving study."""


class PairSource(Protocol):
    """Source of pairs; the pair at an index depends on the epoch and the index alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def set_epoch(self, epoch: int) -> None: ...
