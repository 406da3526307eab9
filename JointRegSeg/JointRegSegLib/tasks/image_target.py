"""What tasks share whose target is the image itself: the target, and the comparison of an image with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metrics.image_similarity import psnr, ssim


@dataclass(frozen=True)
class ImageTarget:
    """Images of a study as a target.

    Attributes:
        images: Images (C, D, H, W) with the modalities of the network; an absent one has one value everywhere.
        mask: Brain (D, H, W) bool.
        lesions: Voxels (D, H, W) bool that are known to be abnormal; None where nothing is known.
    """

    images: Tensor
    mask: Tensor
    lesions: Tensor | None = None

    @property
    def present(self) -> list[int]:
        """Numbers of the images that are there."""
        flat = self.images.flatten(1)
        return [int(n) for n in torch.nonzero(flat.amax(1) > flat.amin(1)).flatten()]


def similarity(images: np.ndarray, target: ImageTarget) -> dict[str, float]:
    """Compare images (C, D, H, W) with the true ones in the brain: ``psnr`` in dB and ``ssim``, means over images.

    What an image shows outside the brain does not count.
    """
    mask = target.mask.cpu()
    pairs = []
    for n in target.present:
        true = target.images[n].float().cpu()
        pairs.append((torch.where(mask, torch.from_numpy(images[n]).float(), true), true))
    return {
        "psnr": float(np.mean([psnr(found, true, mask) for found, true in pairs])),
        "ssim": float(np.mean([float(ssim(found, true, mask)) for found, true in pairs])),
    }


def coronal(values: Any, target: ImageTarget) -> np.ndarray:
    """Return the middle coronal slice (D, W) of the first image among values (C, D, H, W) that is there."""
    first = np.asarray(values[target.present[0]])
    return first[:, first.shape[1] // 2].copy()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values (D, H, W) in a mask; zero where the mask is empty."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1)


def mean_scores(found: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Average scores of several studies, without those that are not finite; NaN where none is."""
    result = {}
    for name in names:
        finite = [one[name] for one in found if np.isfinite(one[name])]
        result[name] = float(np.mean(finite)) if finite else float("nan")
    return result
