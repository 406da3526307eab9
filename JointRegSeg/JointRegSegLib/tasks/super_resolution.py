"""The task of finding the detail that an acquisition with larger voxels has lost; the image is its own target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from ..network.configuration import NetworkConfig
from ..network.resolution import BLURS, UPSAMPLINGS, DetailHead, degrade, enlarge
from .image_target import ImageTarget, coronal, masked_mean, mean_scores, similarity
from .study_task import StudyTask, require_number

MOST = 8
"""Largest factor of an axis."""


@dataclass(frozen=True, kw_only=True)
class SuperResolution(StudyTask):
    """Smaller voxels, trained with images that are degraded.

    Attributes:
        factor: Fine voxels in a coarse one along left-right, posterior-anterior and inferior-superior.
        blur: Profile of the coarse voxels: ``gaussian`` (full width at half maximum of a coarse voxel) or ``box``.
        up: Decoder: ``subpixel`` or ``trilinear``.
        gradient_weight: Weight of the absolute differences of neighbouring voxels beside those of the voxels.
    """

    kind: ClassVar[str] = "super_resolution"
    title: ClassVar[str] = "Super-resolution"
    quality_name: ClassVar[str] = "PSNR in dB"
    from_image: ClassVar[bool] = True

    factor: tuple[int, int, int] = (4, 4, 4)
    blur: str = "gaussian"
    up: str = "subpixel"
    gradient_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        factor = tuple(self.factor) if isinstance(self.factor, list | tuple) else ()
        if len(factor) != 3 or not all(type(n) is int and 1 <= n <= MOST for n in factor) or max(factor) == 1:
            raise ValueError(
                f"factor is {self.factor!r} but must be three whole numbers from 1 to {MOST} (left-right, "
                "posterior-anterior, inferior-superior), not all of them 1"
            )
        object.__setattr__(self, "factor", factor)
        for name, known in (("blur", BLURS), ("up", UPSAMPLINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r} but must be one of {', '.join(known)}")
        require_number(self, "gradient_weight", 0)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """The factor along (D, H, W)."""
        x, y, z = self.factor
        return z, y, x

    @property
    def offer(self) -> str:
        """The factor."""
        return f"voxels divided by {_times(self.factor)} (left-right, posterior-anterior, inferior-superior)"

    @property
    def main_score(self) -> tuple[str, str]:
        """Peak signal-to-noise ratio."""
        return "psnr", "PSNR in dB"

    def grid_problem(self, shape: tuple[int, int, int], network: NetworkConfig) -> str:
        """Say why a grid (D, H, W) cannot be divided into enough coarse voxels; empty if it can."""
        if any(n % f for n, f in zip(shape, self.blocks, strict=True)):
            return (
                f"the grid of {_times(shape[::-1])} voxels cannot be divided by the factor {_times(self.factor)}: "
                "change extent_mm, multiple_of or the patch, or choose another factor"
            )
        return self.coarse_problem(tuple(n // f for n, f in zip(shape, self.blocks, strict=True)), network)

    def coarse_problem(self, shape: tuple[int, ...], network: NetworkConfig) -> str:
        """Say why the network cannot work on coarse voxels (d, h, w), and what to change; empty if it can."""
        if min(shape) < network.multiple:
            return (
                f"the low-resolution image of {_times(shape[::-1])} voxels is smaller than the network "
                f"'{network.name}' with its {network.levels} levels needs ({network.multiple} along each axis): use "
                "a larger image, or train a network with fewer levels"
            )
        return ""

    def view(self, images: Tensor) -> Tensor:
        """Degrade images (B, C, D, H, W)."""
        return degrade(images.float(), self.blocks, self.blur)

    def fitted(self, targets: Sequence[Any], source: str) -> SuperResolution:
        """Return the task itself, which learns nothing from the targets."""
        return self

    def head(self, network: NetworkConfig) -> nn.Module:
        """Build the decoder of the detail."""
        return DetailHead(network, self.blocks, self.up)

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute the mean absolute difference in the brain, with that of the gradients where it has a weight."""
        total = output.new_zeros(())
        for n in target.present:
            difference = output[0, n] - target.images[n]
            total = total + masked_mean(difference.abs(), mask)
            if self.gradient_weight:
                steps = [masked_mean(difference.diff(dim=a).abs(), _both(mask, a)) for a in range(3)]
                total = total + self.gradient_weight * torch.stack(steps).mean()
        return total / max(len(target.present), 1)

    def decode(self, output: Any) -> np.ndarray:
        """Return the images (C, D, H, W) float32."""
        return output[0].float().cpu().numpy()

    def compact(self, prediction: Any, target: Any) -> dict[str, Any]:
        """Return the scores, and slices for pictures."""
        slices = {
            "linear": coronal(self.linear(target), target),
            "predicted": coronal(prediction, target),
            "true": coronal(target.images.cpu(), target),
        }
        return similarity(prediction, target) | {"slices": slices}

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Return the peak signal-to-noise ratio in dB."""
        return float(prediction["psnr"])

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Average peak signal-to-noise ratio and structural similarity."""
        return mean_scores(predictions, ("psnr", "ssim"))

    def linear(self, target: ImageTarget) -> np.ndarray:
        """Interpolate the degraded images (C, D, H, W) linearly."""
        return enlarge(self.view(target.images[None].cpu()), self.blocks)[0].numpy()

    def bspline(self, target: ImageTarget) -> np.ndarray:
        """Interpolate the degraded images (C, D, H, W) by cubic B-splines."""
        coarse = self.view(target.images[None].cpu())[0].numpy()
        return np.stack([sitk.GetArrayFromImage(refined(sitk.GetImageFromArray(one), self.factor)) for one in coarse])


def refined(image: sitk.Image, factor: Sequence[int], interpolator: int = sitk.sitkBSpline) -> sitk.Image:
    """Interpolate an image on the grid whose voxels divide its own, which cover the same space.

    Args:
        image: Image.
        factor: Fine voxels in one of the image along (i, j, k).
        interpolator: Interpolator of SimpleITK.

    Returns:
        Image in single precision; its first voxel centre lies half a coarse minus half a fine voxel outside the first
        one of the given image.
    """
    grid = sitk.Image([n * f for n, f in zip(image.GetSize(), factor, strict=True)], sitk.sitkUInt8)
    grid.SetDirection(image.GetDirection())
    grid.SetSpacing([s / f for s, f in zip(image.GetSpacing(), factor, strict=True)])
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([(1 / f - 1) / 2 for f in factor]))
    # Continued by its outermost voxels, so that the half voxels at the border are inside.
    padded = sitk.ZeroFluxNeumannPad(sitk.Cast(image, sitk.sitkFloat32), [1] * 3, [1] * 3)
    return sitk.Resample(padded, grid, sitk.Transform(3, sitk.sitkIdentity), interpolator, 0.0, sitk.sitkFloat32)


def _both(mask: Tensor, axis: int) -> Tensor:
    """Whether two neighbours along an axis lie in a mask (D, H, W)."""
    length = mask.shape[axis] - 1
    return mask.narrow(axis, 0, length) & mask.narrow(axis, 1, length)


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))
