"""Signals of a tissue under a protocol, by either engine."""

from __future__ import annotations

import torch
from torch import Tensor

from .bloch_mcconnell_sequence import bloch_mcconnell_signal
from .pools import Scalar, Tissue
from .protocol import Protocol
from .r1rho_sequence import r1rho_signal
from .threads import in_threads

SPECTRAL_POINTS_A_CHUNK = 2**11
"""Measurements x voxels at a time where no derivatives are asked for: the work then stays in the L2 cache."""
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
    scalars = [v for v in (*tissue.scalars(), b0_shift_ppm, b1_relative) if isinstance(v, Tensor)]
    voxels = max((v.shape[-1] for v in scalars if v.ndim), default=1)
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (*scalars, *protocol.tensors()))
    chunk = max(1, SPECTRAL_POINTS_A_CHUNK // protocol.measurement_count)
    if differentiable or like.device.type != "cpu" or voxels <= chunk:
        fields = {"b0_shift_ppm": b0_shift_ppm, "b1_relative": b1_relative}
        return ENGINES[engine](tissue, protocol, **fields, like=like).T

    @torch.no_grad()
    def compute(first: int) -> Tensor:
        part = slice(first, first + chunk)
        fields = {"b0_shift_ppm": _voxels(b0_shift_ppm, part), "b1_relative": _voxels(b1_relative, part)}
        signal = ENGINES[engine](tissue.voxels(part), protocol, **fields, like=like)
        return signal.T.expand(min(chunk, voxels - first), -1)

    return torch.cat(in_threads(compute, range(0, voxels, chunk)))


def _voxels(value: Scalar, part: slice) -> Scalar:
    return value[..., part] if isinstance(value, Tensor) and value.numel() > 1 else value
