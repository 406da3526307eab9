"""Tumours of real patients that are resected at random: a cavity takes the place of most of the core.

Labelled images from after an operation are rare; with this, labelled patients from before it teach the cavity, too.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..cohort.sample import StudySample
from ..images.labels import CAVITY, ENHANCING, NECROTIC_CORE
from ..images.modalities import MODALITIES

_LEAST_VOXELS = 100
"""A smaller core is left as it is."""
_FLUID_QUANTILE = {"t1": 0.03, "t1ce": 0.03, "t2": 0.97, "flair": 0.04}
"""Quantile of the brain outside of the tumour that stands for cerebrospinal fluid."""
_BORDER_VOXELS = 1.0
"""Standard deviation of the transition from the cavity to the brain."""
_CONTENTS = {
    "fluid": {},
    "protein": {"t1": (0.0, 0.8), "t1ce": (0.0, 0.8), "t2": (-0.8, 0.3), "flair": (0.4, 3.0)},
    "blood": {"t1": (1.0, 3.5), "t1ce": (1.0, 3.5), "t2": (-2.5, 0.3), "flair": (0.8, 3.5)},
}
"""Least and greatest difference from clear fluid, in standard deviations of the brain."""
_CONTENT_SHARES = (0.6, 0.25, 0.15)


def resected(sample: StudySample, generator: torch.Generator) -> StudySample:
    """Remove most of the core of a tumour; what stays is tumour as before.

    Args:
        sample: Labelled study with a channel for each of ``MODALITIES``, normalised in the brain.
        generator: Source of the random numbers.

    Returns:
        The study with a resection cavity, or the study itself where the core is small or there are no labels.
    """
    if sample.labels is None or len(sample.images) != len(MODALITIES):
        return sample
    core = (sample.labels == NECROTIC_CORE) | (sample.labels == ENHANCING)
    if int(core.sum()) < _LEAST_VOXELS:
        return sample
    cavity = _bed(core, generator) & sample.mask
    if int(cavity.sum()) < _LEAST_VOXELS:
        return sample
    share = gaussian_smooth(cavity[None].float(), 0.7, border="zero", truncate=3)[0] * sample.mask
    normal = sample.mask & (sample.labels == 0)
    content = list(_CONTENTS)[int(torch.multinomial(torch.tensor(_CONTENT_SHARES), 1, generator=generator))]
    amount, wall = torch.rand(2, generator=generator).tolist()
    texture = _smooth_noise(sample.shape, 2.0, generator)
    clots = torch.sigmoid(3 * _smooth_noise(sample.shape, 3.0, generator) - 1)
    images = sample.images.clone()
    present, spread = sample.present.tolist(), sample.spread.tolist()
    for channel, name in enumerate(MODALITIES):
        jitter = 0.2 * float(torch.randn((), generator=generator))
        if not present[channel]:
            continue
        low, high = _CONTENTS[content].get(name, (0.0, 0.0))
        sd = spread[channel]
        level = _fluid(sample.images[channel][normal], name) + sd * (jitter + low + (high - low) * amount)
        images[channel] = images[channel] * (1 - share) + share * (level + sd * 0.12 * texture)
        if wall < 0.4 and name in ("t1", "t1ce"):  # blood, bright with and without contrast agent
            images[channel] += sd * 5 * wall * clots * 4 * share * (1 - share)
    labels = torch.where(cavity, CAVITY, sample.labels).to(sample.labels.dtype)
    return replace(sample, images=images, labels=labels, name=f"{sample.name} resected")


def _bed(core: Tensor, generator: torch.Generator) -> Tensor:
    """The part (D, H, W) of the core that is removed; pieces of different size stay."""
    soft = gaussian_smooth(core[None].float(), _BORDER_VOXELS, border="zero", truncate=3)[0]
    least, rough = torch.rand(2, generator=generator).tolist()
    d, h, w = core.shape
    uneven = _smooth_noise((d, h, w), 3.5, generator).clamp_min(0)
    return soft - 1.2 * rough * uneven > 0.25 + 0.4 * least


def _fluid(normal: Tensor, name: str) -> float:
    """Level of cerebrospinal fluid on a modality, from the brain (voxel,) outside of the tumour."""
    ordered = normal.sort().values
    return float(ordered[round(_FLUID_QUANTILE[name] * (len(ordered) - 1))]) if len(ordered) else 0.0


def _smooth_noise(shape: tuple[int, int, int], sigma_voxels: float, generator: torch.Generator) -> Tensor:
    """Smooth noise (D, H, W) of unit standard deviation."""
    noise = torch.randn((1, *shape), generator=generator)
    smooth = gaussian_smooth(noise, sigma_voxels, border="replicate", truncate=3)[0]
    return smooth / smooth.std().clamp_min(1e-6)
