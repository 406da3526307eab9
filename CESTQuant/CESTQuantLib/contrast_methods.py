"""Methods that need no tissue model: asymmetry, Lorentzian lines, MTR_Rex and AREX."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .contrasts import arex, mtr_asym, mtr_rex
from .fields import estimate_b0_shift, interpolate_b1, shift_spectra
from .lorentzian import LorentzianFit, LorentzianModel, fit_lorentzian
from .marquardt import Status
from .protocol import Protocol
from .quantification import Quantification, Task

_POWER_TOLERANCE_UT = 1e-3


def mtr_asym_method(task: Task) -> Quantification:
    """MTRasym at the chosen offsets; B0 from the map, or from the water line where none is given."""
    signal, protocol = _one_power(task)
    offsets = protocol.offsets_ppm.to(signal.device)
    quantities, warnings = {}, []
    shift = task.b0_shift_ppm
    if shift is None:
        shift = estimate_b0_shift(signal, offsets, progress=task.progress)
        if bool(torch.isfinite(shift).any()):
            quantities["b0_shift_ppm"] = shift
        else:
            shift = None
            warnings.append("no B0 map, and the spectra show no water line: the asymmetry is not corrected for B0")
    at = signal.new_tensor(task.settings.asymmetry_offsets_ppm)
    values = mtr_asym(signal, offsets, at, shift)
    if not bool(torch.isfinite(values).any()) and bool(torch.isfinite(signal).any()):
        raise ValueError(
            f"MTRasym needs measurements on both sides of water at ±{task.settings.asymmetry_offsets_ppm[0]:g} ppm; "
            f"the offsets span {float(offsets.min()):g} to {float(offsets.max()):g} ppm"
        )
    for i, offset in enumerate(task.settings.asymmetry_offsets_ppm):
        quantities[f"mtr_asym_{offset:g}ppm"] = values[:, i]
    status = torch.where(torch.isfinite(values).all(1), Status.CONVERGED, Status.FAILED)
    status[~torch.isfinite(signal).any(1)] = Status.INVALID_DATA
    return Quantification(quantities, status.to(torch.uint8), signal, protocol, warnings=tuple(warnings))


def lorentzian_method(task: Task) -> Quantification:
    """Amplitude, width and position of every line."""
    fit, signal, protocol = _lorentzian(task)
    quantities = {"baseline": fit.baseline, "baseline_sd": fit.baseline_sd}
    for i, pool in enumerate(fit.model.names):
        for name in ("amplitude", "width_ppm", "position_ppm"):
            quantities[f"{pool}_{name}"] = getattr(fit, name)[:, i]
            quantities[f"{pool}_{name}_sd"] = getattr(fit, f"{name}_sd")[:, i]
    return _lorentzian_result(task, fit, signal, protocol, quantities)


def mtr_rex_method(task: Task) -> Quantification:
    """MTR_Rex and MTR_LD of every solute line at its position, from the fitted spectrum with and without the line.

    With a T1 map also AREX = MTR_Rex / T1 / duty cycle.
    """
    fit, signal, protocol = _lorentzian(task)
    quantities = {}
    for i, pool in enumerate(fit.model.names[1:], start=1):
        at = fit.position_ppm[:, i : i + 1]
        label, reference = fit.spectrum(at)[:, 0], fit.spectrum(at, without=[pool])[:, 0]
        rex = mtr_rex(label, reference)
        quantities[f"mtr_rex_{pool}"] = rex
        quantities[f"mtr_ld_{pool}"] = reference - label
        if task.t1_s is not None:
            quantities[f"arex_{pool}"] = arex(rex, task.t1_s.to(rex), protocol.duty_cycle)
    return _lorentzian_result(task, fit, signal, protocol, quantities)


def _lorentzian(task: Task) -> tuple[LorentzianFit, Tensor, Protocol]:
    signal, protocol = _one_power(task)
    description = task.settings.lorentzian
    if isinstance(description, str):
        model = LorentzianModel.preset(description)
    else:
        model = LorentzianModel.from_dict(description)
    shift = task.b0_shift_ppm
    if shift is not None:
        signal = shift_spectra(signal, protocol.offsets_ppm.to(signal.device), shift)
    # shifting loses the ends of a spectrum only; a voxel with NaN inside is left to the fitter to refuse
    ends_lost = torch.isnan(signal) & (shift is not None)
    valid = ~ends_lost if bool(ends_lost.any()) else None
    fit = fit_lorentzian(signal.float(), protocol.offsets_ppm.float(), model, valid=valid, progress=task.progress)
    return fit, signal, protocol


def _lorentzian_result(
    task: Task, fit: LorentzianFit, signal: Tensor, protocol: Protocol, quantities: dict[str, Tensor]
) -> Quantification:
    if task.b0_shift_ppm is None:
        quantities["b0_shift_ppm"] = fit.position_ppm[:, 0]
    quantities["rmse"] = fit.rmse
    offsets = protocol.offsets_ppm.to(signal.device).float()

    def predict(voxels: Tensor) -> Tensor:
        chosen = replace(
            fit, baseline=fit.baseline[voxels], amplitude=fit.amplitude[voxels], width_ppm=fit.width_ppm[voxels],
            position_ppm=fit.position_ppm[voxels],
        )  # fmt: skip
        return chosen.spectrum(offsets)

    return Quantification(
        quantities, fit.status, signal, protocol, predict, {"median_rmse": float(fit.rmse.nanmedian())}
    )


def _one_power(task: Task) -> tuple[Tensor, Protocol]:
    """The spectrum at one power: chosen, or interpolated to it with a B1 map; all there is if only one was acquired."""
    protocol, wanted = task.protocol, task.settings.power_uT
    powers = torch.unique(torch.round(protocol.b1_uT, decimals=3))
    if len(powers) == 1:
        return task.signal, protocol
    listed = ", ".join(f"{p:g}" for p in powers.tolist())
    if wanted is None:
        raise ValueError(f"the protocol has {len(powers)} powers ({listed} uT); choose the power of the contrast")
    members = [(protocol.b1_uT - p).abs() < _POWER_TOLERANCE_UT for p in powers]
    if task.b1_relative is None:
        for power, member in zip(powers, members, strict=True):
            if abs(float(power) - wanted) < _POWER_TOLERANCE_UT:
                return task.signal[:, member], protocol.select(member)
        raise ValueError(f"no measurement at {wanted:g} uT; the powers are {listed} uT")
    return _interpolated(task, powers, members, wanted)


def _interpolated(task: Task, powers: Tensor, members: list[Tensor], wanted: float) -> tuple[Tensor, Protocol]:
    protocol = task.protocol
    first = protocol.offsets_ppm[members[0]]
    order = torch.argsort(first)
    stack = []
    for member in members:
        offsets = protocol.offsets_ppm[member]
        own_order = torch.argsort(offsets)
        if len(offsets) != len(first) or not torch.allclose(offsets[own_order], first[order]):
            raise ValueError("interpolation in B1 needs the same offsets at every power")
        stack.append(task.signal[:, member][:, own_order])
    signal = interpolate_b1(torch.stack(stack), powers.to(task.signal.device), task.b1_relative, wanted)
    chosen = protocol.select(torch.nonzero(members[0]).flatten()[order])
    return signal, replace(chosen, b1_uT=torch.full_like(chosen.b1_uT, wanted))
