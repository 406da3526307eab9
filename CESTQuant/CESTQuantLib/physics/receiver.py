"""What stands between the signal of the physics and the measured one: a scale, and the noise floor of magnitudes.

Magnitudes of complex signals with noise have the mean square ``(s Z)^2 + n^2``, with the scale s and the noise floor n
(n^2 is twice the noise variance of one channel; Gudbjartsson and Patz, Magn Reson Med 1995;34:910).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .pools import Scalar


def measured_signal(signal: Tensor, scale: Scalar | None, floor: Scalar | None) -> Tensor:
    """Return the measured signal.

    Args:
        signal: Signal Z of the physics (measurement, voxel).
        scale: s, a number or (voxel,); None for one.
        floor: n, a number or (voxel,); None for signals with a sign and no floor.

    Returns:
        s Z, or ``sqrt((s Z)^2 + n^2)`` with a floor; (measurement, voxel).
    """
    scaled = signal if scale is None else scale * signal
    return scaled if floor is None else torch.sqrt(scaled.square() + floor * floor)


def measured_signal_slopes(
    signal: Tensor, scale: Scalar | None, floor: Scalar | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the measured signal and its derivatives by Z, s and n; arguments as in ``measured_signal``."""
    factor = torch.ones_like(signal) if scale is None else torch.ones_like(signal) * scale
    if floor is None:
        return factor * signal, factor, signal, torch.zeros_like(signal)
    measured = measured_signal(signal, factor, floor)
    inverse = 1 / measured.clamp_min(torch.finfo(measured.dtype).tiny)
    return measured, factor.square() * signal * inverse, factor * signal.square() * inverse, floor * inverse
