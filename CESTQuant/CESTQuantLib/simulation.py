"""Signals of a tissue under a protocol, by either engine."""

from __future__ import annotations

import torch
from torch import Tensor

from .bloch_mcconnell_sequence import bloch_mcconnell_signal
from .pools import Scalar, Tissue
from .protocol import Protocol
from .r1rho_sequence import r1rho_signal

ENGINES = {"bloch-mcconnell": bloch_mcconnell_signal, "r1rho": r1rho_signal}


def simulate(
    tissue: Tissue,
    protocol: Protocol,
    *,
    engine: str = "bloch-mcconnell",
    b0_shift_ppm: Scalar = 0.0,
    b1_relative: Scalar = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Signal (voxel, measurement), normalised as the protocol says ('m0', 'l2' or 'none').

    Tissue values, the B0 shift (ppm, moves all pools together) and the relative B1 are numbers or tensors of shape
    (voxel,), all on the protocol's device. Differentiable in all of them and in the protocol's tensors.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}' is unknown; use one of {', '.join(ENGINES)}")
    like = torch.empty(0, dtype=dtype, device=protocol.offsets_ppm.device)
    signal = ENGINES[engine](tissue, protocol, b0_shift_ppm=b0_shift_ppm, b1_relative=b1_relative, like=like)
    return signal.T
