"""The pair of images of the registration benchmark: a template, and its copy deformed, brightened and with noise.

The deformation is known: it is the flow of a smooth random velocity field. ``build`` gives the same pair for a seed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import libraries  # noqa: F401  (puts the libraries on the path)
import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from JointRegSegLib.registration.deformation import integrate_velocity, resize_displacement, warp, warp_labels

TISSUES = ("CSF", "GM", "WM")
_BOX = (slice(0, 160), slice(22, 214), slice(18, 178))
"""Part of the template that contains the brain: 160 x 192 x 160 voxels of 1 mm."""
_MEAN_MM, _SMOOTHNESS_MM, _LOCAL_SHARE, _UNEVENNESS = 3.5, (20.0, 8.0), 0.5, 0.4


@dataclass(frozen=True)
class Pair:
    """Two images with their labels and the true deformation.

    Attributes:
        fixed: Fixed image (1, 1, D, H, W).
        moving: Moving image (1, 1, D, H, W).
        fixed_labels: 1 CSF, 2 grey matter, 3 white matter; of the same shape.
        moving_labels: The same for the moving image.
        displacement: True displacement (1, 3, D, H, W) in voxels from the fixed to the moving grid.
        spacing_mm: Voxel size.
    """

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor
    moving_labels: Tensor
    displacement: Tensor
    spacing_mm: float

    @property
    def brain(self) -> Tensor:
        """Voxels of the brain in the fixed image, bool."""
        return self.fixed_labels > 0


def build(seed: int = 1, spacing_mm: int = 1) -> Pair:
    """Build the pair on a grid of 160 x 192 x 160 voxels of 1 mm, or of half as many per axis of 2 mm."""
    t1, gray, white = (_template(name) for name in ("t1", "gm", "wm"))
    brain = t1 > 0
    shares = torch.cat([(255 - gray - white).clamp_min(0) * brain, gray, white], 1)
    labels = (shares.argmax(1, keepdim=True) + 1).to(torch.uint8) * brain
    generator = torch.Generator().manual_seed(seed)
    displacement, inverse = _flow(tuple(t1.shape[2:]), brain, 1.0, generator)
    moving = (warp(t1, inverse) / 255).clamp(0, 1) ** 0.8 * _linear_bias(t1.shape[2:])
    fixed = t1 / 255
    fixed, moving = (
        (image + 0.015 * torch.randn(image.shape, generator=generator)) * (image > 0.02) for image in (fixed, moving)
    )
    moving_labels = warp_labels(labels, inverse, 4)
    if spacing_mm != 1:
        pool = torch.nn.AvgPool3d(spacing_mm)
        center = (slice(None), slice(None), *[slice(spacing_mm // 2, None, spacing_mm)] * 3)
        fixed, moving, displacement = pool(fixed), pool(moving), pool(displacement) / spacing_mm
        labels, moving_labels = labels[center], moving_labels[center]
    return Pair(fixed, moving, labels, moving_labels, displacement, float(spacing_mm))


def flow(shape: tuple[int, ...], brain: Tensor, spacing_mm: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the random deformation of a seed and its inverse, (1, 3, D, H, W) in voxels.

    Args:
        shape: Voxels along (D, H, W).
        brain: Voxels (1, 1, D, H, W), bool, in which the displacement has the mean length ``_MEAN_MM``.
        spacing_mm: Voxel size.
        seed: Seed of the deformation.
    """
    return _flow(shape, brain, spacing_mm, torch.Generator().manual_seed(seed))


def dice(labels: Tensor, warped: Tensor) -> float:
    """Return the mean Dice of the three tissues."""
    scores = []
    for value in range(1, len(TISSUES) + 1):
        first, second = labels == value, warped == value
        scores.append(2 * float((first & second).sum()) / float(first.sum() + second.sum()))
    return float(np.mean(scores))


def normalized(image: Tensor) -> Tensor:
    """Return the z-scores of a skull-stripped image (1, 1, D, H, W), limited to -3 to 6; -3 outside the brain."""
    brain = image > 0
    values = image[brain]
    return torch.where(brain, (image - values.mean()) / values.std(), -3.0).clamp(-3, 6)


def to_image(tensor: Tensor, spacing_mm: float) -> sitk.Image:
    """Return a tensor (1, 1, D, H, W) as an image in LPS at the origin; the order of the voxels is kept."""
    image = sitk.GetImageFromArray(tensor[0, 0].numpy())
    image.SetSpacing((spacing_mm,) * 3)
    return image


def _template(name: str) -> Tensor:
    folder = Path(importlib.util.find_spec("nilearn").origin).parent / "datasets" / "data"
    file = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return torch.from_numpy(np.ascontiguousarray(array[_BOX])).float()[None, None]


def _flow(
    shape: tuple[int, ...], brain: Tensor, spacing_mm: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    velocity = _velocity(shape, spacing_mm, generator)
    scale = 1.0
    for _ in range(4):  # until the displacement in the brain has the mean length _MEAN_MM
        displacement = resize_displacement(integrate_velocity(scale * velocity, 7), shape)
        scale *= _MEAN_MM / (spacing_mm * float(displacement.norm(dim=1, keepdim=True)[brain].mean()))
    forward, inverse = (resize_displacement(integrate_velocity(s * velocity, 7), shape) for s in (scale, -scale))
    return forward, inverse


def _velocity(shape: tuple[int, ...], spacing_mm: float, generator: torch.Generator) -> Tensor:
    """Smooth noise of two scales on every other voxel, stronger in some places than in others, of any amplitude."""
    coarse = tuple(n // 2 for n in shape)
    (large, small), (uneven,) = (
        [_smooth_noise(channels, coarse, mm / (2 * spacing_mm), generator) for mm in scales]
        for channels, scales in ((3, _SMOOTHNESS_MM), (1, _SMOOTHNESS_MM[:1]))
    )
    return ((1 - _LOCAL_SHARE) * large + _LOCAL_SHARE * small) * torch.exp(_UNEVENNESS * uneven)


def _smooth_noise(channels: int, shape: tuple[int, ...], smoothness: float, generator: torch.Generator) -> Tensor:
    """White noise (1, channels, D, H, W) after a periodic Gaussian of ``smoothness`` voxels, of unit variance."""
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n) for n in shape), indexing="ij")
    gaussian = torch.exp(-2 * (torch.pi * smoothness) ** 2 * sum(f.square() for f in frequencies))
    noise = torch.fft.fftn(torch.randn((1, channels, *shape), generator=generator), dim=(2, 3, 4))
    field = torch.fft.ifftn(noise * gaussian, dim=(2, 3, 4)).real
    return field / field.std()


def _linear_bias(shape: torch.Size) -> Tensor:
    """Bias that rises linearly from 0.8 in one corner to 1.2 in the opposite one."""
    ramps = [torch.linspace(-1, 1, n).view([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    return (1 + 0.2 * (ramps[0] - ramps[1] + ramps[2]) / 3)[None, None]
