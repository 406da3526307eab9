"""Smoothing of spectra along their offsets, by a straight line fitted around each of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

_SAME_POWER_UT = 1e-3


def smoothing_matrix(offsets_ppm: Tensor, b1_uT: Tensor, width_ppm: float, kept: Tensor | None = None) -> Tensor:
    """Return the weights (measurement, measurement) that smooth spectra: a local straight line with Gaussian weights.

    Constant and linear spectra stay as they are. A feature narrower than the width is broadened, the water dip too.
    Measurements of different powers are not mixed.

    Args:
        offsets_ppm: (measurement,), in any order, also repeated.
        b1_uT: (measurement,).
        width_ppm: Full width of the weights at half maximum.
        kept: Mask (measurement,) of measurements that neither change nor contribute, such as M0; None for none.

    Raises:
        ValueError: The width is not a positive number.
    """
    if not 0 < width_ppm < math.inf:
        raise InputError(
            "smooth-spectra", f"the width of the smoothing must be a positive number of ppm, not {width_ppm:g}"
        )
    offsets = offsets_ppm.double()
    sigma = width_ppm / math.sqrt(8 * math.log(2))
    distance = offsets[None, :] - offsets[:, None]
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    together = (b1_uT[:, None] - b1_uT[None, :]).abs() < _SAME_POWER_UT
    if kept is not None:
        together &= ~(kept[:, None] | kept[None, :])
    together |= torch.eye(len(offsets), dtype=torch.bool)
    weights = torch.where(together, weights, 0.0)
    mean = (weights * distance).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    spread = (weights * (distance - mean) ** 2).sum(1, keepdim=True)
    slope = torch.where(spread > 1e-9 * sigma**2, -mean / spread.clamp_min(1e-300), 0.0)
    return weights * (1 / weights.sum(1, keepdim=True) + slope * (distance - mean))
