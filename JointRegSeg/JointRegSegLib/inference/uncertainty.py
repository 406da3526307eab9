"""Segmentation averaged over variants of a study, mirrored or with fewer images, and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..images.grid import VoxelBlock
from ..images.labels import CAVITY, classes_of_probabilities

FRONT_BACK, LEFT_RIGHT = -2, -1
"""Axes of tensors (…, D, H, W) on the working grid."""
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Variant:
    """A way to show a study to the network.

    Attributes:
        mirrored: Axes along which the study is mirrored; none for the study itself.
        hidden: Modalities that the network is not shown.
    """

    mirrored: tuple[int, ...] = ()
    hidden: tuple[str, ...] = ()

    def apply(self, study: Tensor) -> Tensor:
        """Mirror a study (…, D, H, W)."""
        return study.flip(self.mirrored) if self.mirrored else study

    def undo(self, result: Tensor) -> Tensor:
        """Mirror the network's result (…, D, H, W) back, so that it fits the study."""
        return self.apply(result)


MIRRORED = (Variant(), Variant((LEFT_RIGHT,)), Variant((FRONT_BACK,)), Variant((FRONT_BACK, LEFT_RIGHT)))
"""The study itself and its mirrored copies. The network was never trained on heads mirrored front to back, but a tumour
looks the same either way: what the network takes for tumour in both is more likely to be one."""
_TELLING = ("t1ce", "flair")
"""Modalities that show a tumour by themselves."""


def variants_of(modalities: Collection[str], hides: bool) -> tuple[Variant, ...]:
    """Return the variants of a study over which its segmentation is averaged, itself first.

    Args:
        modalities: Modalities that the network is shown.
        hides: Whether the network can do without a modality. A study of T1 with contrast agent, FLAIR and more is then
            mirrored only with these two, which takes half the time: what both views of it call tumour is more likely to
            be one than what four mirrored copies do.
    """
    others = tuple(m for m in modalities if m not in _TELLING)
    if hides and others and set(_TELLING) <= set(modalities):
        return Variant(), Variant((LEFT_RIGHT,), others)
    return MIRRORED


@dataclass(frozen=True)
class Segmentation:
    """A segmentation averaged over variants.

    Attributes:
        probabilities: Class probabilities (class, D, H, W), the mean over the variants; they sum to 1.
        counts: Number of voxels (variant, class) that each variant assigns to each class.
        removed: Voxels (D, H, W), bool, that the network took for tumour and that were left out, because they are not
            bright on FLAIR or not seen in all views; None if there are none.
    """

    probabilities: Tensor
    counts: Tensor
    removed: Tensor | None = None

    @property
    def labels(self) -> Tensor:
        """Class of every voxel, (D, H, W) uint8, see ``images.labels.classes_of_probabilities``."""
        return classes_of_probabilities(self.probabilities)

    def with_probabilities(self, probabilities: Tensor) -> Segmentation:
        """Return the segmentation with other probabilities, whose volumes vary over the variants as these do."""
        counts = self.counts.double()
        voxels = torch.bincount(classes_of_probabilities(probabilities).flatten(), minlength=len(probabilities))
        share = counts / counts.mean(0).clamp(min=1)
        counts = torch.where(counts.mean(0) > 0, share * voxels, voxels).round().long()
        return replace(self, probabilities=probabilities, counts=counts)

    def placed(self, block: VoxelBlock, shape: tuple[int, ...]) -> Segmentation:
        """Place this segmentation of a block on the whole grid of ``shape`` (D, H, W), with background elsewhere."""
        whole = torch.cat([block.put(p[None], shape, float(c == 0)) for c, p in enumerate(self.probabilities)])
        counts = self.counts.clone()
        counts[:, 0] += math.prod(shape) - self.probabilities[0].numel()
        return replace(self, probabilities=whole, counts=counts)


class MeanSegmentation:
    """Mean of the segmentations of one study, collected variant by variant.

    All variants say how probable tumour is at a voxel. What part of it each compartment is, is told by those variants
    alone that show all images, because these tell core from oedema better than two of them.
    """

    def __init__(self, brain: Tensor) -> None:
        """Start with no variant; outside of ``brain`` (D, H, W), bool, everything is background."""
        self._brain = brain
        self._complete: Tensor | None = None
        self._partial: Tensor | None = None
        self._counts: list[Tensor] = []

    def add(self, variant: Variant, logits: Tensor) -> None:
        """Add the network's logits (1, class, D, H, W) for a variant of the study."""
        probabilities = variant.undo(logits)[0].float().softmax(0) * self._brain
        probabilities[0] += ~self._brain
        self._counts.append(
            torch.bincount(classes_of_probabilities(probabilities).flatten(), minlength=len(probabilities)).cpu()
        )
        if variant.hidden:
            self._partial = _sum(self._partial, probabilities)
        else:
            self._complete = _sum(self._complete, probabilities)

    def result(self) -> Segmentation:
        """Return the mean over the variants that were added, at least one of which shows all images."""
        assert self._complete is not None, "no variant with all images was added"
        mean = (self._complete if self._partial is None else self._complete + self._partial) / len(self._counts)
        if self._partial is not None:
            mean[1:CAVITY] = _divided(mean[1:CAVITY], self._complete[1:CAVITY])
        return Segmentation(mean.cpu(), torch.stack(self._counts))


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of class probabilities at each voxel, relative to its largest value.

    Args:
        probabilities: Class probabilities (class, D, H, W).

    Returns:
        Entropy (D, H, W), from 0 (certain) to 1 (all classes equally probable).
    """
    return torch.special.entr(probabilities).sum(0).div_(math.log(len(probabilities)))


def _sum(total: Tensor | None, values: Tensor) -> Tensor:
    """Sum of tensors, the first of which may be None."""
    return values if total is None else total.add_(values)


def _divided(tumor: Tensor, like: Tensor) -> Tensor:
    """Divide the tumour into compartments (class, D, H, W) like another segmentation of it."""
    like = like + _LEAST_SHARE * tumor  # where the other one has no tumour, the division stays as it is
    return tumor.sum(0) * like / like.sum(0).clamp_min(torch.finfo(like.dtype).tiny)
