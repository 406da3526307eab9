"""A whole protocol through the analytic R1rho solution: the fast engine of the fits and of simulated data sets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lineshapes import saturation_rate
from ..pools import Pool, Scalar, Semisolid, Tissue, Water
from ..protocol import Protocol
from .saturation import saturate
from .schedule import carried_over

BROAD_T2_S = 1e-3
"""A solute pool with a shorter T2 is semisolid: its dwell in the transverse plane ends by dephasing, not exchange."""


def with_z_only_semisolid(tissue: Tissue) -> Tissue:
    """The tissue with one broad xyz pool replaced by the z-only pool that acts on water nearly alike.

    Transverse water that exchanges into a broad pool dephases and is lost, so water's R2 grows by f k; the pool's
    own width grows to R2 + k. On the five-pool white-matter case of the BMsim challenge (3 T, 2 uT, 2 s) this
    leaves 2e-3 of error in Z, where the pool as a solute leaves 3e-2.
    """
    semisolid, solutes = tissue.semisolid, tissue.solutes
    if semisolid is None:
        broad = [p for p in solutes if float(torch.as_tensor(p.T2_s).detach().max()) < BROAD_T2_S]
        if len(broad) != 1:
            return tissue
        semisolid, solutes = broad[0], tuple(p for p in solutes if p is not broad[0])
    elif semisolid.coupling == "z-only":
        return tissue
    return _absorbed(tissue.water, solutes, semisolid)


def _absorbed(water: Water, solutes: tuple[Pool, ...], broad: Pool | Semisolid) -> Tissue:
    T2_s = 1 / (1 / broad.T2_s + broad.k_Hz)
    z_only = Semisolid(broad.fraction, broad.k_Hz, broad.T1_s, T2_s, broad.dw_ppm)
    return Tissue(Water(water.T1_s, 1 / (1 / water.T2_s + broad.fraction * broad.k_Hz)), solutes, z_only)


def block_inputs(
    tissue: Tissue, protocol: Protocol, *, b0_shift_ppm: Scalar, b1_relative: Scalar, like: Tensor
) -> list[Tensor]:
    """Inputs of :func:`saturation.saturate` for all measurements at once; c0 and z0 are those of equilibrium.

    Measurements are the first axis (measurement, 1), voxels the last. Pulse trains enter as a CW block of the same
    length and root-mean-square B1 (measured error against the train: 0.04 to 0.12 in Z).
    """

    def tensor(value: Scalar) -> Tensor:
        return value.to(like) if isinstance(value, Tensor) else like.new_tensor(value)

    def column(value: Tensor) -> Tensor:
        return value.to(like)[:, None]

    ppm = protocol.rad_per_s_per_ppm
    offset = (tensor(b0_shift_ppm) - column(protocol.offsets_ppm)) * ppm
    w1 = protocol.gamma_rad_per_s_per_uT * column(protocol.b1_uT) * tensor(b1_relative)
    start = like.new_tensor(protocol.initial_magnetisation)
    semisolid = tissue.semisolid
    c0 = tensor(semisolid.fraction) * start if semisolid else like.new_zeros(())
    inputs = [w1, offset, column(protocol.saturation_time_s), start, c0]
    inputs += [1 / tensor(tissue.water.T1_s), 1 / tensor(tissue.water.T2_s)]
    for pool in tissue.solutes:
        inputs += [tensor(pool.fraction), tensor(pool.k_Hz), 1 / tensor(pool.T2_s), tensor(pool.dw_ppm) * ppm]
    if semisolid is not None:
        detuning = offset + tensor(semisolid.dw_ppm) * ppm
        rate = saturation_rate(semisolid.lineshape, w1, detuning, tensor(semisolid.T2_s), semisolid.bridge_ppm * ppm)
        inputs += [tensor(semisolid.fraction), tensor(semisolid.k_Hz), 1 / tensor(semisolid.T1_s), rate]
    return inputs


def r1rho_signal(
    tissue: Tissue, protocol: Protocol, *, b0_shift_ppm: Scalar = 0.0, b1_relative: Scalar = 1.0, like: Tensor
) -> Tensor:
    """Signal (measurement, voxel), normalised as the protocol says; readouts are ideal and spoiled.

    Accuracy: see :mod:`saturation`. Where nothing is spoiled between measurements use Bloch-McConnell instead.
    """
    tissue = with_z_only_semisolid(tissue)
    inputs = block_inputs(tissue, protocol, b0_shift_ppm=b0_shift_ppm, b1_relative=b1_relative, like=like)
    solutes = len(tissue.solutes)
    angle = flip_angle_rad(protocol, b1_relative, like)
    if protocol.initial_magnetisation != 1:
        first = slice(1) if protocol.magnetisation_carried_over else slice(None)
        inputs[3:5] = _recover(*inputs[3:5], inputs, solutes, _column(protocol.initial_recovery_s[first], like))
    if protocol.magnetisation_carried_over:
        z = carried_over(inputs, solutes, protocol, angle, like)
    else:
        z, c = saturate(solutes, inputs)
        z, _ = _recover(z, c, inputs, solutes, _column(protocol.post_delay_s, like))
    z = z.expand(protocol.measurement_count, -1)
    if angle is not None and protocol.signal_normalisation != "m0":
        z = z * torch.sin(angle)
    if protocol.signal_normalisation == "l2":
        return z / torch.linalg.vector_norm(z, dim=0)
    if protocol.signal_normalisation == "none" and protocol.echo_time_s > 0:
        z = z * torch.exp(-protocol.echo_time_s * inputs[6])
    return z


def flip_angle_rad(protocol: Protocol, b1_relative: Scalar, like: Tensor) -> Tensor | None:
    """Excitation angles (measurement, voxel or 1) as the relative B1 makes them; None without an excitation."""
    if protocol.readout_flip_angle_deg is None:
        return None
    relative = b1_relative.to(like) if isinstance(b1_relative, Tensor) else b1_relative
    return torch.deg2rad(_column(protocol.readout_flip_angle_deg, like)) * relative


def _column(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like)[:, None]


def _recover(z: Tensor, c: Tensor, inputs: list[Tensor], solutes: int, duration: Tensor) -> tuple[Tensor, Tensor]:
    """Free longitudinal recovery: the same 2 x 2 solution without RF (cos2 = 1, no exchange contribution)."""
    if not duration.requires_grad and not bool(duration.any()):
        return z, c
    zero = torch.zeros_like(duration)
    free = [zero, zero, duration, z, c, inputs[5], inputs[6]]
    semisolid = inputs[7 + 4 * solutes :]
    if semisolid:
        free += [*semisolid[:3], zero]
    return saturate(0, free)
