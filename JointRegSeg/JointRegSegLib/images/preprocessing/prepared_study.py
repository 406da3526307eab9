"""A study on a working grid, as the networks and the registration get it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import SimpleITK as sitk
import torch
from torch import Tensor

from ..grid import WorkingGrid
from ..modalities import MODALITIES


@dataclass(frozen=True)
class PreparedStudy:
    """A study on a working grid.

    Attributes:
        images: Normalised images (modality, D, H, W), float32, in the order of ``MODALITIES``; absent ones have the
            background value.
        mask: Brain (D, H, W), boolean.
        grid: The working grid.
        present: Modalities that were given.
        transform: Map from points of the grid to points of the study's own space (LPS mm); None for the identity.
        name: Name of the study in messages.
        seen: Voxels that each image shows (modality, D, H, W), boolean, in the order of ``MODALITIES``; False for
            absent ones. None if every present image shows the whole grid.
        beyond: Voxels (D, H, W), boolean, just behind the planes at which images cut the brain off; None if the brain
            is whole.
        bias_corrected: Whether the bias fields of the images were corrected.
        uncorrected: The images without that correction, normalised likewise; None where there was none.
    """

    images: Tensor
    mask: Tensor
    grid: WorkingGrid
    present: tuple[str, ...]
    transform: sitk.Transform | None = None
    name: str = "study"
    seen: Tensor | None = None
    beyond: Tensor | None = None
    bias_corrected: bool = False
    uncorrected: Tensor | None = None

    def shown(self, modalities: Iterable[str]) -> Tensor:
        """Return the voxels (D, H, W), boolean, that an image of at least one of these modalities shows."""
        channels = [MODALITIES.index(m) for m in modalities if m in self.present]
        if not channels:
            return torch.zeros_like(self.mask)
        return torch.ones_like(self.mask) if self.seen is None else self.seen[channels].any(0)

    def outside(self, background: float) -> list[float]:
        """Return the value of each image outside the brain; ``background`` where the brain fills the grid."""
        beyond = torch.nonzero(~self.mask.flatten())
        if not len(beyond):
            return [background] * len(self.images)
        return [float(value) for value in self.images.flatten(1)[:, int(beyond[0])]]

    @property
    def voxel_ml(self) -> float:
        """Volume in ml of a voxel of the grid in the study's own space."""
        return self.grid.voxel_ml(self.transform)

    @property
    def extent(self) -> Tensor:
        """Brain (D, H, W), boolean, with the parts just behind the planes at which images cut it off."""
        return self.mask if self.beyond is None else self.mask | self.beyond
