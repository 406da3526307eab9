"""What all similarity measures share: the protocol of a prepared comparison, and the handling of absent modalities."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Comparison(Protocol):
    """A fixed image and its mask, prepared once and then compared with many moving images."""

    @property
    def structured_share(self) -> float:
        """Share (0 to 1) of what the similarity averages over that holds more structure than noise.

        The refinement divides by it, so that empty background does not weaken the similarity against the regularizer.
        """

    def similarity(self, moving: Tensor) -> Tensor:
        """Compare with a moving image on the grid of the fixed one.

        Args:
            moving: Image of shape (B, C, D, H, W), of the shape and dtype of the fixed one.

        Returns:
            A scalar, larger for images that are more alike, with a gradient with respect to ``moving``.
        """


def varying_channels(images: Tensor) -> Tensor:
    """Find the channels that hold an image; those of absent modalities are constant.

    Args:
        images: Images of shape (B, C, D, H, W).

    Returns:
        Booleans of shape (B, C, 1, 1, 1), without a gradient.
    """
    flat = images.detach().flatten(2)
    return (flat.amax(2) > flat.amin(2)).view(*images.shape[:2], 1, 1, 1)


def check_comparable(fixed: Tensor, moving: Tensor) -> None:
    """Check that two images have the same shape.

    Raises:
        ValueError: They have not; the message gives both shapes.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"images of shapes {tuple(fixed.shape)} and {tuple(moving.shape)} cannot be compared")


def at_least_float32(image: Tensor) -> Tensor:
    """Return an image in float64 if it is in float64, else in float32."""
    return image if image.dtype == torch.float64 else image.float()
