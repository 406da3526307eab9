"""Smoothing of spectra along their offsets, by a straight line fitted around each of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..physics.protocol import PER_MEASUREMENT, Protocol

_ROUNDING, _RELATIVE_ROUNDING = 1e-4, 1e-3
"""Differences of powers (uT), times (s) and angles (degrees) that are due to rounding."""


def smoothing_matrix(protocol: Protocol, width_ppm: float, kept: Tensor | None = None) -> Tensor:
    """Return the weights (measurement, measurement) that smooth spectra: a local straight line with Gaussian weights.

    Constant and linear spectra stay as they are. A feature narrower than the width is broadened, the water dip too.
    Only measurements that differ in nothing but their offset are mixed.

    Args:
        protocol: Protocol, whose offsets may be in any order, also repeated.
        width_ppm: Full width of the weights at half maximum.
        kept: Mask (measurement,) of measurements that neither change nor contribute, such as M0; None for none.

    Raises:
        ValueError: The width is not a positive number.
    """
    if not 0 < width_ppm < math.inf:
        raise InputError(
            "smooth-spectra", f"the width of the smoothing must be a positive number of ppm, not {width_ppm:g}"
        )
    offsets = protocol.offsets_ppm.detach().double()
    sigma = width_ppm / math.sqrt(8 * math.log(2))
    distance = offsets[None, :] - offsets[:, None]
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    together = torch.ones_like(weights, dtype=torch.bool)
    for name in PER_MEASUREMENT:
        value = getattr(protocol, name)
        if name != "offsets_ppm" and value is not None:
            value = value.detach()
            together &= torch.isclose(value[:, None], value[None, :], rtol=_RELATIVE_ROUNDING, atol=_ROUNDING)
    if kept is not None:
        together &= ~(kept[:, None] | kept[None, :])
    together |= torch.eye(len(offsets), dtype=torch.bool)
    weights = torch.where(together, weights, 0.0)
    mean = (weights * distance).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    spread = (weights * (distance - mean) ** 2).sum(1, keepdim=True)
    slope = torch.where(spread > 1e-9 * sigma**2, -mean / spread.clamp_min(1e-300), 0.0)
    return weights * (1 / weights.sum(1, keepdim=True) + slope * (distance - mean))
