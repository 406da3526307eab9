"""The signal of the R1rho engine and its analytic derivatives with respect to the fitted values of a tissue model.

The saturation block gives the derivatives of its result with respect to its inputs, such as R2 of water. The chain rule
leads from there to the fitted values, such as T2 of water, and adds what these do outside the block: during the delay
after it, in the normalisation of the signal, and as the start of the semisolid pool at equilibrium. Fits of independent
measurements use ``prediction_and_jacobian``. ``signal_slopes`` also follows the magnetisation from one measurement to
the next; the reliability map of a network is refined with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..fitting.problem import Model
from ..physics.lineshapes import saturation_rate
from ..physics.pools import BROAD_T2_S, Scalar, Semisolid
from ..physics.protocol import Protocol
from ..physics.r1rho.block import Block
from ..physics.r1rho.inputs import BlockInputs
from ..physics.r1rho.schedule import recovery_inputs
from ..physics.r1rho.sequence import block_inputs, flip_angle_rad
from ..physics.r1rho.slopes import Direction, signal_and_slopes
from ..physics.receiver import measured_signal_slopes
from .model import FIELD_KEYS, SIGNAL_KEYS, FitParameter, MapReference, TissueModel

_DETUNING_STEP_PPM = 1e-2
"""Step of the central difference of the semisolid lineshape."""


def has_analytic_jacobian(model: TissueModel, protocol: Protocol) -> bool:
    """Tell whether every fitted value acts through inputs of the block that have hand-derived derivatives."""
    if protocol.magnetisation_carried_over or protocol.events is not None:
        return False
    if protocol.initial_magnetisation != 1 and bool(protocol.initial_recovery_s.any()):
        return False
    paths = {p.path for p in model.parameters}
    excited = protocol.readout_flip_angle_deg is not None and protocol.signal_normalisation != "m0"
    if excited and "b1_relative" in paths:  # B1 acts through the flip angle, too
        return False
    if protocol.signal_normalisation == "none" and protocol.echo_time_s > 0:  # T2 acts through the decay to the echo
        return False
    if model.semisolid_kind is not None:
        through_lineshape = {"semisolid.T2_s", "semisolid.dw_ppm", "b0_shift_ppm", "b1_relative"}
        return model.semisolid_kind.coupling == "z-only" and not paths & through_lineshape
    return _has_no_broad_solute(model, {})


def _has_no_broad_solute(model: TissueModel, ranges: Mapping[str, tuple[float, float]]) -> bool:
    """Tell whether the R1rho engine takes no solute for a semisolid pool, whatever the values are.

    Args:
        model: Model without a semisolid pool.
        ranges: Lowest and highest values by path, where they are not those of the model.
    """

    def limits(path: str) -> tuple[float, float]:
        entry = model.entries[path]
        if path in ranges:
            return ranges[path]
        if isinstance(entry, MapReference):
            return 0.0, math.inf
        return (entry.lower, entry.upper) if isinstance(entry, FitParameter) else (entry, entry)

    of_solutes = [limits(f"{name}.T2_s") for name in model.solute_names]
    never = all(lowest >= BROAD_T2_S for lowest, _ in of_solutes)
    always_several = sum(highest < BROAD_T2_S for _, highest in of_solutes) > 1
    return never or always_several


def prediction_and_jacobian(
    model: TissueModel, protocol: Protocol, values: Mapping[str, Scalar], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the signal of a tissue model and its derivatives with respect to the fitted values.

    Args:
        model: Model for which ``has_analytic_jacobian`` holds.
        protocol: Acquisition.
        values: Every entry of the model by path, and the fields ``b0_shift_ppm`` and ``b1_relative``; numbers or
            tensors of shape (voxel,).
        like: Tensor that gives dtype and device.

    Returns:
        The signal (measurement, voxel) and its Jacobian (parameter, measurement, voxel), with the parameters in the
        order of the model file.
    """
    inputs = block_inputs(
        model.tissue(values),
        protocol,
        b0_shift_ppm=values["b0_shift_ppm"],
        b1_relative=values["b1_relative"],
        like=like,
    )
    solutes, count = len(inputs.solutes), len(inputs.flat())
    places = BlockInputs.from_flat(range(count), solutes)
    actions = [_action(p.path, model, protocol, values, like, places) for p in model.parameters]
    used = {place for place, _ in actions}
    if inputs.semisolid is not None:
        used.add(places.c0)  # starts at equilibrium, which is the pool's fraction
    block = Block.solve(inputs)
    z, gz, gc, during_delay = _after_delay(block, protocol, like, places)
    needed = BlockInputs.from_flat([place in used for place in range(count)], solutes)
    gradients = block.gradients(gz, gc, needed).flat()
    jacobian = []
    for p, (place, factor) in zip(model.parameters, actions, strict=True):
        gradient = None if place is None else gradients[place]
        if place is None or gradient is None:
            column = torch.zeros_like(z)
        else:
            column = (gradient + during_delay[place] if place in during_delay else gradient) * factor
        start = gradients[places.c0]
        if p.path == "semisolid.fraction" and start is not None:
            column = column + start * protocol.initial_magnetisation
        jacobian.append(column.expand(z.shape))
    return _normalized(z, torch.stack(jacobian), protocol, flip_angle_rad(protocol, values["b1_relative"], like))


def _action(
    path: str,
    model: TissueModel,
    protocol: Protocol,
    values: Mapping[str, Scalar],
    like: Tensor,
    places: BlockInputs[int],
) -> tuple[int | None, float | Tensor]:
    """Find the block input through which a parameter acts.

    Returns:
        The place of the input, None if the parameter has no effect, and the derivative of the input with respect to
        the parameter.
    """
    if path == "b0_shift_ppm":
        return places.offset, protocol.rad_per_s_per_ppm
    if path == "b1_relative":
        return places.w1, protocol.gamma_rad_per_s_per_uT * protocol.b1_uT.to(like)[:, None]
    owner, key = path.rsplit(".", 1)
    factor: float | Tensor = 1.0
    if key in ("T1_s", "T2_s"):
        factor = -1 / values[path] ** 2
    elif key == "dw_ppm":
        factor = protocol.rad_per_s_per_ppm
    if owner == "water":
        return {"T1_s": places.R1, "T2_s": places.R2}[key], factor
    if owner == "semisolid" and (pool := places.semisolid) is not None:
        return {"fraction": pool.fraction, "k_Hz": pool.k, "T1_s": pool.R1}[key], factor
    solute = places.solutes[model.solute_names.index(owner)]
    named = {"fraction": solute.fraction, "k_Hz": solute.k, "T2_s": solute.R2, "dw_ppm": solute.dw}
    return named.get(key), factor


def _after_delay(
    block: Block, protocol: Protocol, like: Tensor, places: BlockInputs[int]
) -> tuple[Tensor, Tensor | float, Tensor | float, dict[int, Tensor]]:
    """Let the magnetisation recover during the delay between saturation and readout.

    Returns:
        Water z after the delay; its derivatives with respect to z of water and of the semisolid pool before the delay;
        and its derivatives with respect to what acts during the delay, by the place among the inputs of the block.
    """
    delay = protocol.post_delay_s.to(like)[:, None]
    if not bool(delay.any()):
        return block.z, 1.0, 0.0, {}
    inputs = recovery_inputs(block.inputs, delay, block.z, block.c)
    recovery = Block.solve(inputs)
    everything = BlockInputs.from_flat([True] * len(inputs.flat()), 0)
    gradients = recovery.gradients(1.0, 0.0, everything)
    acting = [(places.R1, gradients.R1)]
    if places.semisolid is not None and (pool := gradients.semisolid) is not None:
        at = places.semisolid
        acting += [(at.fraction, pool.fraction), (at.k, pool.k), (at.R1, pool.R1)]
    during = {place: gradient for place, gradient in acting if gradient is not None}
    return recovery.z, _given(gradients.z0), _given(gradients.c0), during


def _given(gradient: Tensor | None) -> Tensor | float:
    return 0.0 if gradient is None else gradient


def _normalized(z: Tensor, jacobian: Tensor, protocol: Protocol, angle: Tensor | None) -> tuple[Tensor, Tensor]:
    """Excite and normalise the signal as the protocol says, and its derivatives with it."""
    if angle is not None and protocol.signal_normalisation != "m0":
        excitation = torch.sin(angle)
        z, jacobian = z * excitation, jacobian * excitation
    if protocol.signal_normalisation != "l2":
        return z, jacobian
    norm = torch.linalg.vector_norm(z, dim=0)
    unit = z / norm
    return unit, (jacobian - unit * (unit * jacobian).sum(1, keepdim=True)) / norm


def analytic_model(model: TissueModel, protocol: Protocol, values: Callable[..., Mapping[str, Scalar]]) -> Model:
    """Return a model for ``levenberg_marquardt``.

    Args:
        model: Model for which ``has_analytic_jacobian`` holds.
        protocol: Acquisition.
        values: Maps parameters (p, voxel) and the arguments of the fit (voxel,) to the values that
            ``prediction_and_jacobian`` takes.
    """

    physical = [i for i, p in enumerate(model.parameters) if p.path not in SIGNAL_KEYS]
    entries = {path: entry for path, entry in model.entries.items() if path not in SIGNAL_KEYS}
    inner = replace(model, entries=entries)

    def evaluate(parameters: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        resolved = values(parameters, *arguments)
        signal, jacobian = prediction_and_jacobian(inner, protocol, resolved, parameters)
        if len(entries) == len(model.entries):
            return signal, jacobian
        measured, slope, by_scale, by_floor = measured_signal_slopes(
            signal, resolved.get("signal_scale"), resolved.get("noise_floor")
        )
        rows = torch.empty(len(parameters), *measured.shape, dtype=measured.dtype, device=measured.device)
        rows[physical] = jacobian * slope
        for i, parameter in enumerate(model.parameters):
            if parameter.path in SIGNAL_KEYS:
                rows[i] = by_scale if parameter.path == "signal_scale" else by_floor
        return measured, rows

    return evaluate


def has_slopes(
    model: TissueModel,
    protocol: Protocol,
    paths: Sequence[str],
    engine: str,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> bool:
    """Tell whether ``signal_slopes`` gives the derivatives of an engine's signal with respect to the paths.

    Args:
        model: Tissue model.
        protocol: Acquisition.
        paths: Entries and fields with respect to which derivatives are wanted.
        engine: Name of the engine.
        ranges: Lowest and highest values by path of entries that vary although the model gives a number.
    """
    if engine != "r1rho" or protocol.events is not None or any(key in model.entries for key in SIGNAL_KEYS):
        return False
    if protocol.initial_magnetisation != 1 and bool(protocol.initial_recovery_s.any()):
        return False
    if protocol.signal_normalisation == "none" and protocol.echo_time_s > 0:
        return False
    if model.semisolid_kind is None:
        return _has_no_broad_solute(model, ranges or {})
    if model.semisolid_kind.coupling != "z-only":
        return False
    return not any(path.startswith("semisolid.") and path.endswith(("T2_s", "dw_ppm")) for path in paths)


def signal_slopes(
    model: TissueModel, protocol: Protocol, values: Mapping[str, Scalar], paths: Sequence[str], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute a signal and its derivatives.

    Args:
        model: Tissue model for which ``has_slopes`` holds.
        protocol: Acquisition; an L2 normalisation is not applied.
        values: Every entry of the model by path, and the fields ``b0_shift_ppm`` and ``b1_relative``; numbers or
            tensors of shape (voxel,).
        paths: Entries and fields with respect to which derivatives are wanted.
        like: Tensor that gives dtype and device.

    Returns:
        The signal (measurement, voxel) and its derivatives (path, measurement, voxel).
    """
    if protocol.signal_normalisation == "l2":
        protocol = replace(protocol, signal_normalisation="none")
    tissue = model.tissue(values)
    shift, relative = (values.get(key, default) for key, default in zip(FIELD_KEYS, (0.0, 1.0), strict=True))
    inputs = block_inputs(tissue, protocol, b0_shift_ppm=shift, b1_relative=relative, like=like)
    angle = flip_angle_rad(protocol, relative, like)
    directions = [_direction(path, model, protocol, values, inputs, tissue.semisolid) for path in paths]
    return signal_and_slopes(inputs, directions, protocol, angle)


def _direction(
    path: str,
    model: TissueModel,
    protocol: Protocol,
    values: Mapping[str, Scalar],
    inputs: BlockInputs[Tensor],
    semisolid: Semisolid | None,
) -> Direction:
    """Find out how the inputs of the block and the flip angle change with an entry."""
    entries: list[Tensor | None] = [None] * len(inputs.flat())
    places = BlockInputs.from_flat(range(len(entries)), len(inputs.solutes))
    like = inputs.w1
    one = torch.ones((), dtype=like.dtype, device=like.device)
    flip_angle = None
    if path == "b0_shift_ppm":
        entries[places.offset] = one * protocol.rad_per_s_per_ppm
        if places.semisolid is not None and semisolid is not None:
            entries[places.semisolid.saturation_rate] = _rate_slope(semisolid, protocol, inputs)
    elif path == "b1_relative":
        nominal = protocol.gamma_rad_per_s_per_uT * protocol.b1_uT.to(like)[:, None]
        entries[places.w1] = nominal
        if places.semisolid is not None and inputs.semisolid is not None:
            per_w1 = 2 * inputs.semisolid.saturation_rate / torch.where(inputs.w1 == 0, one, inputs.w1)
            entries[places.semisolid.saturation_rate] = per_w1 * nominal
        flip_angle = flip_angle_rad(protocol, 1.0, like)
    else:
        owner, key = path.rsplit(".", 1)
        factor = one
        if key in ("T1_s", "T2_s"):
            factor = -one / torch.as_tensor(values[path]).to(like) ** 2
        elif key == "dw_ppm":
            factor = one * protocol.rad_per_s_per_ppm
        if owner == "water":
            entries[{"T1_s": places.R1, "T2_s": places.R2}[key]] = factor
        elif owner == "semisolid" and (pool := places.semisolid) is not None:
            entries[{"fraction": pool.fraction, "k_Hz": pool.k, "T1_s": pool.R1}[key]] = factor
            if key == "fraction":
                entries[places.c0] = one * protocol.initial_magnetisation
        else:
            solute = places.solutes[model.solute_names.index(owner)]
            named = {"fraction": solute.fraction, "k_Hz": solute.k, "T2_s": solute.R2, "dw_ppm": solute.dw}
            if key in named:
                entries[named[key]] = factor
    return Direction(BlockInputs.from_flat(entries, len(inputs.solutes)), flip_angle)


def _rate_slope(semisolid: Semisolid, protocol: Protocol, inputs: BlockInputs[Tensor]) -> Tensor:
    """Derivative in 1/s/ppm of the rate at which the RF saturates the semisolid pool with respect to the B0 shift."""
    ppm, like = protocol.rad_per_s_per_ppm, inputs.w1
    T2_s = torch.as_tensor(semisolid.T2_s).to(like)

    def rate(step_ppm: float) -> Tensor:
        detuning = inputs.offset + torch.as_tensor(semisolid.dw_ppm).to(like) * ppm + step_ppm * ppm
        return saturation_rate(semisolid.lineshape, inputs.w1, detuning, T2_s, semisolid.bridge_ppm * ppm)

    return (rate(_DETUNING_STEP_PPM) - rate(-_DETUNING_STEP_PPM)) / (2 * _DETUNING_STEP_PPM)
