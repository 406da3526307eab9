"""Methods that need no tissue model: asymmetry, Lorentzian lines, MTR_Rex and AREX."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..fitting.marquardt import Status
from ..physics.protocol import Protocol
from ..preprocessing.fields import estimate_b0_shift, interpolate_b1, shift_spectra
from ..tissue.contrasts import arex, mtr_asym, mtr_rex
from ..tissue.lorentzian import LorentzianFit, LorentzianModel, fit_lorentzian
from .registry import Quantification, Task

_POWER_TOLERANCE_UT = 1e-3


def mtr_asym_method(task: Task) -> Quantification:
    """MTRasym at the chosen offsets; B0 from the map, or from the water line where none is given."""
    wanted = tuple(dict.fromkeys(task.settings.asymmetry_offsets_ppm))
    if not all(0 < offset < float("inf") for offset in wanted):
        raise ValueError(f"the offset of MTRasym must be a positive number of ppm, not {min(wanted):g}")
    signal, protocol = _one_power(task)
    offsets = protocol.offsets_ppm.to(signal.device)
    quantities, warnings = {}, _unused_b1(task)
    shift = task.b0_shift_ppm
    if shift is None:
        shift = estimate_b0_shift(signal, offsets, progress=task.progress)
        if bool(torch.isfinite(shift).any()):
            quantities["b0_shift_ppm"] = shift
        else:
            shift = None
            warnings.append("no B0 map, and the spectra show no water line: the asymmetry is not corrected for B0")
    values = mtr_asym(signal, offsets, signal.new_tensor(wanted), shift)
    for i, offset in enumerate(wanted):
        if not bool(torch.isfinite(values[:, i]).any()) and bool(torch.isfinite(signal).any()):
            raise ValueError(
                f"MTRasym needs measurements on both sides of water at ±{offset:g} ppm; "
                f"the offsets span {float(offsets.min()):g} to {float(offsets.max()):g} ppm"
            )
        quantities[f"mtr_asym_{offset:g}ppm"] = values[:, i]
    found = torch.isfinite(values).all(1)
    unusable = ~torch.isfinite(signal).all(1)
    if task.b0_shift_ppm is not None:
        unusable |= ~torch.isfinite(task.b0_shift_ppm)
    status = torch.where(found, Status.CONVERGED, torch.where(unusable, Status.INVALID_DATA, Status.FAILED))
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
    valid, shift = None, task.b0_shift_ppm
    if shift is not None:
        complete = torch.isfinite(signal).all(1, keepdim=True)
        signal = shift_spectra(signal, protocol.offsets_ppm.to(signal.device), shift)
        # shifting loses the ends of a spectrum; a voxel that was acquired with NaN is left to the fitter to refuse
        signal = torch.where(complete, signal, torch.nan)
        valid = torch.isfinite(signal) | ~complete
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
            fit,
            baseline=fit.baseline[voxels],
            amplitude=fit.amplitude[voxels],
            width_ppm=fit.width_ppm[voxels],
            position_ppm=fit.position_ppm[voxels],
        )
        return chosen.spectrum(offsets)

    return Quantification(
        quantities,
        fit.status,
        signal,
        protocol,
        predict,
        {"median_rmse": float(fit.rmse.nanmedian())},
        tuple(_unused_b1(task)),
    )


def _one_power(task: Task) -> tuple[Tensor, Protocol]:
    """The spectrum at one power: chosen, or interpolated to it with a B1 map; all there is if only one was acquired."""
    protocol, wanted = task.protocol, task.settings.power_uT
    powers = torch.unique(torch.round(protocol.b1_uT, decimals=3))
    listed = ", ".join(f"{p:g}" for p in powers.tolist())
    if len(powers) == 1:
        if wanted is not None and float(powers) > 0 and abs(float(powers) - wanted) >= _POWER_TOLERANCE_UT:
            raise ValueError(f"no measurement at {wanted:g} uT; the only power is {listed} uT")
        return task.signal, protocol
    if wanted is None:
        raise ValueError(f"the protocol has {len(powers)} powers ({listed} uT); choose one for the contrast (--power)")
    members = [(protocol.b1_uT - p).abs() < _POWER_TOLERANCE_UT for p in powers]
    if task.b1_relative is None:
        for power, member in zip(powers, members, strict=True):
            if abs(float(power) - wanted) < _POWER_TOLERANCE_UT:
                return task.signal[:, member], protocol.select(member)
        raise ValueError(f"no measurement at {wanted:g} uT; the powers are {listed} uT")
    return _interpolated(task, powers, members, wanted)


def _unused_b1(task: Task) -> list[str]:
    """A sentence where a B1 map was given and cannot correct a contrast."""
    if task.b1_relative is None or len(torch.unique(torch.round(task.protocol.b1_uT, decimals=3))) > 1:
        return []
    return ["the B1 map is not used: with a single power the contrast cannot be corrected for B1"]


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
