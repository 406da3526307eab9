"""Signals of a tissue under a protocol, by any engine."""

from __future__ import annotations

import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .engines import ENGINES, engine_named
from .pools import Scalar, Tissue, as_scalar
from .protocol import Protocol

__all__ = ["ENGINES", "simulate"]

POINTS_PER_CHUNK = 2**13
"""Measurements x voxels at a time where no derivatives are asked for: the work then stays in the L2 cache."""
POINTS_PER_CHUNK_CLOSED_FORM = 2**14
"""The same for independent measurements after continuous-wave saturation, which need no matrices."""
POINTS_PER_CHUNK_ANALYTIC = 2**15
"""The same for the R1rho solution, whose few tensors are small."""
SMALLEST_SHARE = 16
"""Measurements of one spectrum that are worth a thread."""


def simulate(
    tissue: Tissue,
    protocol: Protocol,
    *,
    engine: str = "bloch-mcconnell",
    b0_shift_ppm: Scalar = 0.0,
    b1_relative: Scalar = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Simulate the signal of a tissue under a protocol, differentiably in tissue, fields and acquisition.

    All tensors are on the protocol's device.

    Args:
        tissue: Pools whose values are numbers or tensors of shape (voxel,).
        protocol: Acquisition.
        engine: Name in :data:`.ENGINES`.
        b0_shift_ppm: Local B0 shift in ppm, which moves all pools together; a number or (voxel,).
        b1_relative: RF amplitude relative to the nominal one; a number or (voxel,).
        dtype: Floating-point type of the result.

    Returns:
        Signal of shape (voxel, measurement), normalised as the protocol says (``"m0"``, ``"l2"`` or ``"none"``).

    Raises:
        ValueError: The engine is unknown, the protocol leaves open what the saturation is simulated from, a field is
            neither a number nor numbers, or two values have different numbers of voxels.
    """
    signal_of = engine_named(engine)
    if protocol.unknown:
        protocol.require_known("a simulation")
    b0_shift_ppm, b1_relative = as_scalar(b0_shift_ppm, "b0_shift_ppm"), as_scalar(b1_relative, "b1_relative")
    like = torch.empty(0, dtype=dtype, device=protocol.offsets_ppm.device)
    scalars = [v for v in (*tissue.scalars(), b0_shift_ppm, b1_relative) if isinstance(v, Tensor)]
    voxels = _voxel_count(tissue, b0_shift_ppm, b1_relative)
    if voxels == 0:
        return like.new_empty(0, protocol.measurement_count)
    differentiable = torch.is_grad_enabled() and any(t.requires_grad for t in (*scalars, *protocol.tensors()))
    if differentiable or like.device.type != "cpu":
        return signal_of(tissue, protocol, b0_shift_ppm=b0_shift_ppm, b1_relative=b1_relative, like=like).T
    closed_form = protocol.pulses is None and protocol.events is None and not protocol.magnetisation_carried_over
    points = POINTS_PER_CHUNK_CLOSED_FORM if closed_form else POINTS_PER_CHUNK
    if engine == "r1rho":
        points = POINTS_PER_CHUNK_ANALYTIC
    chunk = max(1, points // protocol.measurement_count)
    several_rows = any(v.ndim > 1 for v in scalars)
    measurements = [slice(None)] if several_rows else _measurement_parts(protocol, voxels)

    @torch.no_grad()
    def compute(part: tuple[slice, slice]) -> Tensor:
        of_voxels, of_measurements = part
        signal = signal_of(
            tissue.voxels(of_voxels),
            protocol if len(measurements) == 1 else protocol.select(of_measurements),
            b0_shift_ppm=_voxels(b0_shift_ppm, of_voxels),
            b1_relative=_voxels(b1_relative, of_voxels),
            like=like,
        )
        return signal.T.expand(min(of_voxels.stop, voxels) - of_voxels.start, -1)

    parts = [(slice(v, v + chunk), m) for v in range(0, voxels, chunk) for m in measurements]
    signals = in_threads(compute, parts)
    return torch.cat(signals, 0 if len(measurements) == 1 else 1)


def _voxel_count(tissue: Tissue, b0_shift_ppm: Scalar, b1_relative: Scalar) -> int:
    """Number of voxels of all values that differ between voxels."""
    named = [*tissue.named_scalars(), ("b0_shift_ppm", b0_shift_ppm), ("b1_relative", b1_relative)]
    counts = {v.shape[-1]: name for name, v in named if isinstance(v, Tensor) and v.ndim and v.shape[-1] != 1}
    if len(counts) > 1:
        (one, name), (other, other_name), *_ = counts.items()
        raise ValueError(f"{name} has {one} voxels but {other_name} has {other}; give one value or one for each voxel")
    return next(iter(counts), 1)


def _measurement_parts(protocol: Protocol, voxels: int) -> list[slice]:
    """Shares of the measurements for the processors; all at once unless independent and in one chunk of voxels."""
    count = protocol.measurement_count
    together = protocol.magnetisation_carried_over or protocol.signal_normalisation == "l2"
    if together or voxels * count > POINTS_PER_CHUNK or count < SMALLEST_SHARE:
        return [slice(None)]
    size = max(SMALLEST_SHARE, -(-count // torch.get_num_threads()))
    return [slice(first, first + size) for first in range(0, count, size)]


def _voxels(value: Scalar, part: slice) -> Scalar:
    return value[..., part] if isinstance(value, Tensor) and value.ndim and value.shape[-1] > 1 else value
