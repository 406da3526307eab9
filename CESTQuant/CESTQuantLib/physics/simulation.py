"""Signals of a tissue under a protocol, by either engine."""

from __future__ import annotations

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .bloch_mcconnell.sequence import bloch_mcconnell_signal
from .pools import Scalar, Tissue
from .protocol import Protocol
from .r1rho.sequence import r1rho_signal

SPECTRAL_POINTS_A_CHUNK = 2**13
"""Measurements x voxels at a time where no derivatives are asked for: the work then stays in the L2 cache."""
SMALLEST_SHARE = 16
"""Measurements of one spectrum that are worth a thread."""
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
    fields = {"b0_shift_ppm": b0_shift_ppm, "b1_relative": b1_relative}
    if differentiable or like.device.type != "cpu":
        return ENGINES[engine](tissue, protocol, **fields, like=like).T
    chunk = max(1, SPECTRAL_POINTS_A_CHUNK // protocol.measurement_count)
    several_rows = any(v.ndim > 1 for v in scalars)
    measurements = [slice(None)] if several_rows else _measurement_parts(protocol, voxels)

    @torch.no_grad()
    def compute(part: tuple[slice, slice]) -> Tensor:
        of_voxels, of_measurements = part
        own = {name: _voxels(value, of_voxels) for name, value in fields.items()}
        some = protocol if len(measurements) == 1 else protocol.select(of_measurements)
        signal = ENGINES[engine](tissue.voxels(of_voxels), some, **own, like=like)
        return signal.T.expand(min(of_voxels.stop, voxels) - of_voxels.start, -1)

    parts = [(slice(v, v + chunk), m) for v in range(0, voxels, chunk) for m in measurements]
    found = in_threads(compute, parts)
    return torch.cat(found, 0 if len(measurements) == 1 else 1)


def _measurement_parts(protocol: Protocol, voxels: int) -> list[slice]:
    """Measurements in a share a processor where they are independent and there is one chunk of voxels; else all."""
    count = protocol.measurement_count
    together = protocol.magnetisation_carried_over or protocol.signal_normalisation == "l2"
    if together or voxels * count > SPECTRAL_POINTS_A_CHUNK or count < SMALLEST_SHARE:
        return [slice(None)]
    size = max(SMALLEST_SHARE, -(-count // torch.get_num_threads()))
    return [slice(first, first + size) for first in range(0, count, size)]


def _voxels(value: Scalar, part: slice) -> Scalar:
    return value[..., part] if isinstance(value, Tensor) and value.numel() > 1 else value
