"""Uncertainty of a segmentation from test-time variants: mirrored copies of a study."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.grid import Block

FRONT_BACK, LEFT_RIGHT = -2, -1
"""Axes of tensors (…, D, H, W) on the working grid."""


@dataclass(frozen=True)
class Variant:
    """One way to show a study to the network: mirrored along axes."""

    mirrored: tuple[int, ...] = ()

    def apply(self, study: Tensor) -> Tensor:
        """The variant of a study (…, D, H, W)."""
        return study.flip(self.mirrored) if self.mirrored else study

    def undo(self, result: Tensor) -> Tensor:
        """The network's result (…, D, H, W) for the variant, as it lies on the study."""
        return self.apply(result)


VARIANTS = (Variant(), Variant((LEFT_RIGHT,)), Variant((FRONT_BACK,)), Variant((FRONT_BACK, LEFT_RIGHT)))
"""The study as it is and its test-time variants. The network was trained on no head turned back to front, but tumours
look the same: what it takes for tumour both ways is more likely to be one."""


@dataclass(frozen=True)
class Segmentation:
    """probabilities: (class, D, H, W), the mean over the variants, sums to 1. counts: (variant, class), voxels at which
    each class wins in each variant."""

    probabilities: Tensor
    counts: Tensor

    @property
    def labels(self) -> Tensor:
        """The class with the largest probability, (D, H, W) uint8."""
        return self.probabilities.argmax(0).to(torch.uint8)

    def placed(self, block: Block, shape: tuple[int, ...]) -> Segmentation:
        """This segmentation of a block around the brain on the whole grid of ``shape``, background elsewhere."""
        whole = torch.cat([block.put(p[None], shape, float(c == 0)) for c, p in enumerate(self.probabilities)])
        counts = self.counts.clone()
        counts[:, 0] += math.prod(shape) - self.probabilities[0].numel()
        return Segmentation(whole, counts)


class MeanSegmentation:
    """Collects the logits of one study variant by variant. Outside of the brain (D, H, W) there is no tumour."""

    def __init__(self, brain: Tensor) -> None:
        self._brain = brain
        self._total: Tensor | None = None
        self._counts: list[Tensor] = []

    def add(self, variant: Variant, logits: Tensor) -> None:
        """Take the network's logits (1, class, D, H, W) for a variant of the study."""
        shares = variant.undo(logits)[0].float().softmax(0) * self._brain
        shares[0] += ~self._brain
        self._counts.append(torch.bincount(shares.argmax(0).flatten(), minlength=len(shares)).cpu())
        self._total = shares if self._total is None else self._total.add_(shares)

    def result(self) -> Segmentation:
        """Mean over the variants so far."""
        assert self._total is not None
        return Segmentation((self._total / len(self._counts)).cpu(), torch.stack(self._counts))


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of the classes at each voxel, 0 (certain) … 1 (all alike); (class, D, H, W) to (D, H, W)."""
    return torch.special.entr(probabilities).sum(0).div_(math.log(len(probabilities)))
