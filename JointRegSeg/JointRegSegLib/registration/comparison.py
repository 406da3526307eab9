"""Parts common to all similarity measures: the protocol of a prepared comparison, and checks of the images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Comparison(Protocol):
    """A fixed image and its mask, prepared once and then compared with many moving images."""

    @property
    def structured_share(self) -> float:
        """Fraction (0 to 1) of the positions averaged by the similarity that hold more structure than noise.

        The refinement divides by it, so that empty background does not weaken the similarity relative to the
        regulariser.
        """

    def similarity(self, moving: Tensor) -> Tensor:
        """Compare the fixed image with a moving image on the same grid.

        Args:
            moving: Image of shape (B, C, D, H, W), with the shape and dtype of the fixed one.

        Returns:
            A scalar, larger for images that are more alike, with a gradient with respect to ``moving``.
        """


def varying_channels(images: Tensor) -> Tensor:
    """Find the channels that hold an image; channels of absent modalities are constant.

    Args:
        images: Images of shape (B, C, D, H, W).

    Returns:
        Booleans of shape (B, C, 1, 1, 1).
    """
    flat = images.detach().flatten(2)
    return (flat.amax(2) > flat.amin(2)).view(*images.shape[:2], 1, 1, 1)


def check_comparable(fixed: Tensor, moving: Tensor) -> None:
    """Check that two images have the same shape.

    Raises:
        ValueError: The shapes differ; the message gives both.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"images of shapes {tuple(fixed.shape)} and {tuple(moving.shape)} cannot be compared")


def at_least_float32(image: Tensor) -> Tensor:
    """Return a float64 image as it is, and any other image as float32."""
    return image if image.dtype == torch.float64 else image.float()
