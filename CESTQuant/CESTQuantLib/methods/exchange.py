"""Methods that give fractions and exchange rates: model fits, QUESP, omega plot and QUCESOP."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..physics.units import concentration_mM
from ..tissue.fit import fit_tissue_model
from ..tissue.model import FitParameter, MapReference, TissueModel
from ..tissue.qucesop import fit_qucesop, r1rho_from_z
from ..tissue.quesp import ExchangeFit, fit_quesp, omega_plot
from .registry import Quantification, Task

QUCESOP_WINDOW_PPM = 1.5
"""Half-width around the target in which the background of R1rho is taken as linear in the offset."""
_NEAR_WATER_PPM = 1.0
_LONG_AGAINST_T2 = 10.0


def r1rho_method(task: Task) -> Quantification:
    """Fit of the tissue model with the analytic R1rho solution."""
    warning = near_water_warning(task.protocol, _model(task, "r1rho"))
    return _model_fit(task, "r1rho", warning)


def bloch_mcconnell_method(task: Task) -> Quantification:
    """Fit of the tissue model with the numerical Bloch-McConnell equations."""
    _model(task, "bloch-mcconnell")
    return _model_fit(task, "bloch-mcconnell", ())


def near_water_warning(protocol: Protocol, model: TissueModel) -> tuple[str, ...]:
    """Sentences that name measurements where the analytic solution is not to be trusted, see :mod:`saturation`."""
    warnings = []
    T2_s = model.entries["water.T2_s"]
    T2_s = T2_s.upper if isinstance(T2_s, FitParameter) else T2_s if isinstance(T2_s, float) else 0.1
    near = (protocol.offsets_ppm.abs() < _NEAR_WATER_PPM) & (protocol.saturation_time_s < _LONG_AGAINST_T2 * T2_s)
    if protocol.pulses is not None:
        warnings.append(
            "pulse trains enter R1rho as continuous wave of equal power (0.04 to 0.12 in Z): prefer bloch-mcconnell"
        )
    if bool(near.any()):
        warnings.append(
            f"{int(near.sum())} measurements lie within {_NEAR_WATER_PPM:g} ppm of water, saturated for less than "
            f"{_LONG_AGAINST_T2:g} T2 (T2 up to {T2_s:g} s): the analytic solution fails there, prefer bloch-mcconnell"
        )
    if protocol.readout_pulse_s > 0:
        warnings.append("R1rho takes the readout as spoiled, this protocol does not spoil: prefer bloch-mcconnell")
    return tuple(warnings)


def _model(task: Task, method: str) -> TissueModel:
    if task.settings.model is None:
        raise ValueError(f"the method {method} needs a tissue model file")
    return task.settings.model


def _model_fit(task: Task, engine: str, warnings: tuple[str, ...]) -> Quantification:
    model, measurements = task.settings.model, task.protocol.measurement_count
    if len(model.parameters) > measurements + sum(p.prior is not None for p in model.parameters):
        raise ValueError(f"{measurements} measurements do not determine {len(model.parameters)} fitted values")
    maps = dict(task.settings.maps)
    if task.t1_s is not None:
        maps.setdefault("t1", task.t1_s)
    b1 = task.b1_relative
    b1 = None if b1 is None else torch.where(b1 > 0, b1, torch.nan)
    spectra = replace(task.spectra, b0_shift_ppm=task.b0_shift_ppm, b1_relative=b1, maps=_physical(model, maps))
    fit = fit_tissue_model(spectra, model, engine=engine, progress=task.progress)
    summary = {"median_rmse": float(fit.result.rmse.nanmedian())}
    summary |= {f"median_correlation {pair}": value for pair, value in fit.median_correlation().items()}
    return Quantification(fit.quantities, fit.result.status, task.signal, task.protocol, fit.predict, summary, warnings)


def _physical(model: TissueModel, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps with NaN, which the fit flags voxel by voxel, where a time is not positive or an amount negative."""
    maps = dict(maps)
    for path, entry in model.entries.items():
        if isinstance(entry, MapReference) and entry.name in maps:
            values, key = maps[entry.name], path.rpartition(".")[2]
            if key in ("T1_s", "T2_s", "b1_relative"):
                maps[entry.name] = torch.where(values > 0, values, torch.nan)
            elif key in ("fraction", "k_Hz"):
                maps[entry.name] = torch.where(values >= 0, values, torch.nan)
    return maps


@dataclass(frozen=True)
class _Target:
    name: str
    dw_ppm: float
    r2_Hz: float | None
    protons: float | None


def quesp_method(task: Task) -> Quantification:
    """QUESP/QUEST in the inverse form from label and reference pairs at several powers or times."""
    return _from_pairs(task, steady_state=False)


def omega_plot_method(task: Task) -> Quantification:
    """Omega plot from label and reference pairs at several powers."""
    return _from_pairs(task, steady_state=True)


def _from_pairs(task: Task, *, steady_state: bool) -> Quantification:
    _require_cw(task.protocol)
    target = _target(task)
    signal, protocol = _with_b0(task)
    label, reference = _pairs(protocol, target.dw_ppm)
    chosen = protocol.select(label).to(signal.device)
    common = {"r2_Hz": target.r2_Hz or 0.0, "b1_relative": task.b1_relative}
    if steady_state:
        fit = omega_plot(signal[:, label], signal[:, reference], chosen.b1_uT, _t1(task), **common)
    else:
        fit = fit_quesp(
            signal[:, label],
            signal[:, reference],
            chosen.b1_uT,
            chosen.saturation_time_s,
            _t1(task),
            initial_z=protocol.initial_magnetisation,
            progress=task.progress,
            **common,
        )
    return Quantification(_exchange_quantities(fit, target), fit.status, task.signal, task.protocol)


def qucesop_method(task: Task) -> Quantification:
    """QUCESOP; gQUCESOP where the model fits the target's T2."""
    _require_cw(task.protocol)
    target = _target(task)
    protocol = task.protocol
    near = (protocol.offsets_ppm - target.dw_ppm).abs() <= QUCESOP_WINDOW_PPM
    if not bool(near.any()):
        raise ValueError(f"no measurement within {QUCESOP_WINDOW_PPM:g} ppm of the target at {target.dw_ppm:g} ppm")
    used = protocol.select(near).to(task.signal.device)
    fields = {"b0_shift_ppm": task.b0_shift_ppm, "b1_relative": task.b1_relative}
    r1rho = r1rho_from_z(
        task.signal[:, near],
        used.offsets_ppm,
        used.b1_uT,
        used.saturation_time_s,
        _t1(task),
        protocol.field_strength_T,
        initial_z=protocol.initial_magnetisation,
        **fields,
    )
    fit = fit_qucesop(
        r1rho,
        used.offsets_ppm,
        used.b1_uT,
        target.dw_ppm,
        protocol.field_strength_T,
        r2_Hz=target.r2_Hz,
        progress=task.progress,
        **fields,
    )
    quantities = _exchange_quantities(fit, target)
    if target.r2_Hz is None:
        quantities[f"{target.name}_r2_Hz"], quantities[f"{target.name}_r2_Hz_sd"] = fit.r2_Hz, fit.r2_Hz_sd
    return Quantification(quantities, fit.status, task.signal, task.protocol)


def _exchange_quantities(fit: ExchangeFit, target: _Target) -> dict[str, Tensor]:
    quantities = {
        f"{target.name}_fraction": fit.fraction,
        f"{target.name}_fraction_sd": fit.fraction_sd,
        f"{target.name}_exchange_rate_Hz": fit.exchange_rate_Hz,
        f"{target.name}_exchange_rate_Hz_sd": fit.exchange_rate_Hz_sd,
    }
    if target.protons:
        for suffix in ("", "_sd"):
            fraction = quantities[f"{target.name}_fraction{suffix}"]
            quantities[f"{target.name}_concentration_mM{suffix}"] = concentration_mM(fraction, target.protons)
    quantities["rmse"] = fit.rmse if isinstance(fit, ExchangeFit) else fit.rmse_Hz
    return quantities


def _target(task: Task) -> _Target:
    """The first solute of the model; without a model, a narrow line at the largest positive offset."""
    model = task.settings.model
    if model is None:
        positive = task.protocol.offsets_ppm[task.protocol.offsets_ppm > 0]
        if len(torch.unique(torch.round(positive, decimals=3))) != 1:
            raise ValueError("several offsets were acquired; give a model file that names the target solute")
        return _Target("solute", float(positive[0]), 1.0, None)
    if not model.solute_names:
        raise ValueError("the model has no solute to be the target")
    name = model.solute_names[0]
    dw_ppm, T2_s = model.entries[f"{name}.dw_ppm"], model.entries[f"{name}.T2_s"]
    if not isinstance(dw_ppm, float):
        raise ValueError(f"the target's {name}.dw_ppm must be a number for this method")
    r2_Hz = 1 / T2_s if isinstance(T2_s, float) else None
    return _Target(name, dw_ppm, r2_Hz, model.protons.get(name))


def _t1(task: Task) -> Tensor:
    if task.t1_s is not None:
        return torch.where(task.t1_s > 0, task.t1_s, torch.nan).double()
    model = task.settings.model
    value = model.entries["water.T1_s"] if model else None
    if not isinstance(value, float):
        raise ValueError("this method needs the T1 of water: give a T1 map, or a model with water T1_s as a number")
    return torch.full((len(task.signal),), value, dtype=torch.float64, device=task.signal.device)


def _with_b0(task: Task) -> tuple[Tensor, Protocol]:
    if task.b0_shift_ppm is not None and float(task.b0_shift_ppm.nan_to_num().abs().max()) > 0:
        raise ValueError(
            "pairs of single offsets cannot be shifted by a B0 map; correct the spectra first or use r1rho"
        )
    return task.signal, task.protocol


def _require_cw(protocol: Protocol) -> None:
    if protocol.pulses is not None:
        raise ValueError("this method holds for continuous-wave saturation, the protocol has pulse trains")
    if not bool((protocol.saturation_time_s > 0).any()):
        raise ValueError("the protocol gives no saturation time and B1; this method needs a protocol.json or .seq")


def _pairs(protocol: Protocol, dw_ppm: float) -> tuple[Tensor, Tensor]:
    """Indices of the measurements at +dw and of those at -dw with equal B1 and duration."""
    labels, references = [], []
    for i in range(protocol.measurement_count):
        if abs(float(protocol.offsets_ppm[i]) - dw_ppm) > 0.05 or float(protocol.b1_uT[i]) == 0:
            continue
        for j in range(protocol.measurement_count):
            same = (
                abs(float(protocol.offsets_ppm[j]) + dw_ppm) <= 0.05
                and abs(float(protocol.b1_uT[j] - protocol.b1_uT[i])) < 1e-3
                and abs(float(protocol.saturation_time_s[j] - protocol.saturation_time_s[i])) < 1e-6
            )
            if same:
                labels.append(i)
                references.append(j)
                break
    if len(labels) < 2:
        raise ValueError(
            f"needs at least two pairs of measurements at +{dw_ppm:g} and -{dw_ppm:g} ppm with equal B1 and duration, "
            f"found {len(labels)}"
        )
    return torch.tensor(labels), torch.tensor(references)
