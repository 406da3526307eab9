"""R1rho prediction with analytic Jacobian, for fits: the derivatives of the saturation block mapped to parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..physics.r1rho.saturation import C0, FIXED_INPUTS, OFFSET, R1, R2, SEMISOLID_INPUTS, SOLUTE_INPUTS, W1, Z0, Block
from ..physics.r1rho.sequence import block_inputs, flip_angle_rad, with_z_only_semisolid
from .model import TissueModel

_SOLUTE_PLACES = {"fraction": 0, "k_Hz": 1, "T2_s": 2, "dw_ppm": 3}
_SEMISOLID_PLACES = {"fraction": 0, "k_Hz": 1, "T1_s": 2}


def has_analytic_jacobian(model: TissueModel, protocol: Protocol) -> bool:
    """Whether every fitted value enters the block through inputs with hand-derived derivatives."""
    if protocol.magnetisation_carried_over:
        return False
    if protocol.initial_magnetisation != 1 and bool(protocol.initial_recovery_s.any()):
        return False
    paths = {p.path for p in model.parameters}
    excited = protocol.readout_flip_angle_deg is not None and protocol.signal_normalisation != "m0"
    if excited and "b1_relative" in paths:  # B1 acts through the flip angle too
        return False
    if protocol.signal_normalisation == "none" and protocol.echo_time_s > 0:  # and T2 through the decay to the echo
        return False
    if model.semisolid_kind is not None:
        through_lineshape = {"semisolid.T2_s", "semisolid.dw_ppm", "b0_shift_ppm", "b1_relative"}
        return model.semisolid_kind.coupling == "z-only" and not paths & through_lineshape
    tissue = model.tissue(model.start_values())
    return with_z_only_semisolid(tissue) is tissue


def prediction_and_jacobian(
    model: TissueModel, protocol: Protocol, values: Mapping[str, float | Tensor], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Signal (measurement, voxel) and its derivatives (parameter, measurement, voxel).

    values: every entry of the model by path, and the fields 'b0_shift_ppm' and 'b1_relative'; tensors are (voxel,).
    """
    tissue = model.tissue(values)
    solutes = len(tissue.solutes)
    inputs = block_inputs(
        tissue, protocol, b0_shift_ppm=values["b0_shift_ppm"], b1_relative=values["b1_relative"], like=like
    )
    slots = [_slot(p.path, model, protocol, values, like) for p in model.parameters]
    needed = [False] * len(inputs)
    needed[Z0] = needed[C0] = True
    for slot, _ in slots:
        if slot is not None:
            needed[slot] = True
    block = Block.solve(solutes, inputs)
    z, gz, gc, late = _after_delay(block, protocol, inputs, solutes, like)
    gradients = block.gradients(gz, gc, needed)
    for slot, gradient in late.items():
        if needed[slot]:
            gradients[slot] = gradients[slot] + gradient
    jacobian = []
    for p, (slot, factor) in zip(model.parameters, slots, strict=True):
        column = torch.zeros_like(z) if slot is None else gradients[slot] * factor
        if p.path == "semisolid.fraction":
            column = column + gradients[C0] * protocol.initial_magnetisation
        jacobian.append(column.expand(z.shape))
    return _normalised(z, torch.stack(jacobian), protocol, flip_angle_rad(protocol, values["b1_relative"], like))


def _slot(
    path: str, model: TissueModel, protocol: Protocol, values: Mapping[str, float | Tensor], like: Tensor
) -> tuple[int | None, float | Tensor]:
    """The block input through which a parameter acts, and the input's derivative with respect to it."""
    if path == "b0_shift_ppm":
        return OFFSET, protocol.rad_per_s_per_ppm
    if path == "b1_relative":
        return W1, protocol.gamma_rad_per_s_per_uT * protocol.b1_uT.to(like)[:, None]
    owner, key = path.rsplit(".", 1)
    inverse = key in ("T1_s", "T2_s")
    factor: float | Tensor = -1 / values[path] ** 2 if inverse else 1.0
    if key == "dw_ppm":
        factor = protocol.rad_per_s_per_ppm
    if owner == "water":
        return {"T1_s": R1, "T2_s": R2}[key], factor
    if owner == "semisolid":
        return FIXED_INPUTS + SOLUTE_INPUTS * len(model.solute_names) + _SEMISOLID_PLACES[key], factor
    first = FIXED_INPUTS + SOLUTE_INPUTS * model.solute_names.index(owner)
    return (first + _SOLUTE_PLACES[key], factor) if key in _SOLUTE_PLACES else (None, factor)


def _after_delay(
    block: Block, protocol: Protocol, inputs: list[Tensor], solutes: int, like: Tensor
) -> tuple[Tensor, Tensor | float, Tensor | float, dict[int, Tensor]]:
    """Signal after the post-delay, its derivatives with respect to z and c before it, and those acting during it."""
    delay = protocol.post_delay_s.to(like)[:, None]
    if not bool(delay.any()):
        return block.z, 1.0, 0.0, {}
    zero = torch.zeros_like(delay)
    free = [zero, zero, delay, block.z, block.c, inputs[R1], inputs[R2]]
    first = FIXED_INPUTS + SOLUTE_INPUTS * solutes
    semisolid = inputs[first:]
    if semisolid:
        free += [*semisolid[: SEMISOLID_INPUTS - 1], zero]
    recovery = Block.solve(0, free)
    gradients = recovery.gradients(1.0, 0.0, [True] * len(free))
    late = {R1: gradients[R1]}
    for place in range(SEMISOLID_INPUTS - 1 if semisolid else 0):
        late[first + place] = gradients[FIXED_INPUTS + place]
    return recovery.z, gradients[Z0], gradients[C0], late


def _normalised(z: Tensor, jacobian: Tensor, protocol: Protocol, angle: Tensor | None) -> tuple[Tensor, Tensor]:
    if angle is not None and protocol.signal_normalisation != "m0":
        excitation = torch.sin(angle)
        z, jacobian = z * excitation, jacobian * excitation
    if protocol.signal_normalisation != "l2":
        return z, jacobian
    norm = torch.linalg.vector_norm(z, dim=0)
    unit = z / norm
    return unit, (jacobian - unit * (unit * jacobian).sum(1, keepdim=True)) / norm


def analytic_model(
    model: TissueModel, protocol: Protocol, unpack: Callable[..., Mapping[str, float | Tensor]]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A fitter's model: (parameters (p, voxel), *arguments) -> prediction, Jacobian; ``unpack`` names the values."""

    def evaluate(parameters: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        return prediction_and_jacobian(model, protocol, unpack(parameters, *arguments), parameters)

    return evaluate
