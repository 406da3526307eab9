"""The pair of images of the registration benchmark: a template, and the same deformed, brightened and noisy.

The true deformation is known: the flow of a smooth random velocity. ``build`` is deterministic for a seed.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "JointRegSeg"))

from JointRegSegLib.registration.deformation import integrate_velocity, resize_displacement, warp, warp_labels

TISSUES = ("CSF", "GM", "WM")
_BOX = (slice(0, 160), slice(22, 214), slice(18, 178))
"""The brain in the template's array: 160 x 192 x 160 voxels of 1 mm."""
_MEAN_MM, _SMOOTHNESS_MM, _LOCAL_SHARE, _UNEVENNESS = 3.5, (20.0, 8.0), 0.5, 0.4


@dataclass(frozen=True)
class Pair:
    """Images (1, 1, D, H, W), labels 1 CSF, 2 GM, 3 WM, and the true map from fixed to moving grid in voxels."""

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor
    moving_labels: Tensor
    displacement: Tensor
    spacing_mm: float

    @property
    def brain(self) -> Tensor:
        return self.fixed_labels > 0


def build(seed: int = 1, spacing_mm: int = 1) -> Pair:
    """The pair on a grid of 160 x 192 x 160 voxels of 1 mm, or of half as many of 2 mm."""
    t1, grey, white = (_template(name) for name in ("t1", "gm", "wm"))
    brain = t1 > 0
    shares = torch.cat([(255 - grey - white).clamp_min(0) * brain, grey, white], 1)
    labels = (shares.argmax(1, keepdim=True) + 1).to(torch.uint8) * brain
    generator = torch.Generator().manual_seed(seed)
    velocity = _velocity(tuple(t1.shape[2:]), generator)
    scale = 1.0
    for _ in range(4):  # until the mean length of the displacement in the brain is as wanted
        coarse = integrate_velocity(scale * velocity, 7)
        displacement = resize_displacement(coarse, t1.shape[2:])
        scale *= _MEAN_MM / float(displacement.norm(dim=1, keepdim=True)[brain].mean())
    displacement = resize_displacement(integrate_velocity(scale * velocity, 7), t1.shape[2:])
    inverse = resize_displacement(integrate_velocity(-scale * velocity, 7), t1.shape[2:])
    moving = (warp(t1, inverse) / 255).clamp(0, 1) ** 0.8 * _linear_bias(t1.shape[2:])
    fixed = t1 / 255
    fixed, moving = (
        (image + 0.015 * torch.randn(image.shape, generator=generator)) * (image > 0.02) for image in (fixed, moving)
    )
    moving_labels = warp_labels(labels, inverse, 4)
    if spacing_mm != 1:
        pool = torch.nn.AvgPool3d(spacing_mm)
        centre = (slice(None), slice(None), *[slice(spacing_mm // 2, None, spacing_mm)] * 3)
        fixed, moving, displacement = pool(fixed), pool(moving), pool(displacement) / spacing_mm
        labels, moving_labels = labels[centre], moving_labels[centre]
    return Pair(fixed, moving, labels, moving_labels, displacement, float(spacing_mm))


def dice(labels: Tensor, warped: Tensor) -> float:
    """Mean overlap of the three tissues."""
    scores = []
    for value in range(1, len(TISSUES) + 1):
        one, other = labels == value, warped == value
        scores.append(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
    return float(np.mean(scores))


def normalised(image: Tensor) -> Tensor:
    """z-scores of a stripped image (1, 1, D, H, W) in −3 … 6, and −3 outside of the brain."""
    brain = image > 0
    values = image[brain]
    return torch.where(brain, (image - values.mean()) / values.std(), -3.0).clamp(-3, 6)


def to_image(tensor: Tensor, spacing_mm: float) -> sitk.Image:
    """(1, 1, D, H, W) as an image in LPS at the origin; array order is kept."""
    image = sitk.GetImageFromArray(tensor[0, 0].numpy())
    image.SetSpacing((spacing_mm,) * 3)
    return image


def _template(name: str) -> Tensor:
    folder = Path(importlib.util.find_spec("nilearn").origin).parent / "datasets" / "data"
    file = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return torch.from_numpy(np.ascontiguousarray(array[_BOX])).float()[None, None]


def _velocity(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Two scales of smooth noise, stronger in some places than in others; on a 2 mm grid, of no particular size."""
    coarse = tuple(n // 2 for n in shape)
    (large, small), (uneven,) = (
        [_smooth_noise(channels, coarse, mm / 2, generator) for mm in scales]
        for channels, scales in ((3, _SMOOTHNESS_MM), (1, _SMOOTHNESS_MM[:1]))
    )
    return ((1 - _LOCAL_SHARE) * large + _LOCAL_SHARE * small) * torch.exp(_UNEVENNESS * uneven)


def _smooth_noise(channels: int, shape: tuple[int, ...], smoothness: float, generator: torch.Generator) -> Tensor:
    """White noise (1, channels, *shape) after a Gaussian of ``smoothness`` voxels, periodic, of unit variance."""
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n) for n in shape), indexing="ij")
    gaussian = torch.exp(-2 * (torch.pi * smoothness) ** 2 * sum(f.square() for f in frequencies))
    noise = torch.fft.fftn(torch.randn((1, channels, *shape), generator=generator), dim=(2, 3, 4))
    field = torch.fft.ifftn(noise * gaussian, dim=(2, 3, 4)).real
    return field / field.std()


def _linear_bias(shape: torch.Size) -> Tensor:
    """0.8 to 1.2 from corner to corner."""
    ramps = [torch.linspace(-1, 1, n).view([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    return (1 + 0.2 * (ramps[0] - ramps[1] + ramps[2]) / 3)[None, None]
