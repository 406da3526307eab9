"""Methods that give fraction and exchange rate of one target pool: QUESP, omega plot and QUCESOP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import POOL_QUANTITIES, RMSE

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..physics.protocol import Protocol
    from ..tissue.model import TissueModel
    from ..tissue.qucesop import QucesopFit
    from ..tissue.quesp import ExchangeFit
    from ..tissue.spectra import ZSpectra

QUCESOP_WINDOW_PPM = 1.5
"""Half-width around the target in which the background of R1rho is taken as linear in the offset."""


def quesp(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit QUESP/QUEST in the inverse form to label and reference pairs at several powers."""
    from ..preprocessing.initial_z import carried_over_warnings, initial_z
    from ..tissue.quesp import EXCHANGE_RATE_BOUNDS_HZ, FRACTION_BOUNDS, fit_quesp

    target, pairs, t1_s = _pairs_of_target(spectra, settings)
    fit = fit_quesp(
        pairs.label,
        pairs.reference,
        pairs.protocol,
        t1_s,
        r2_Hz=target.r2_Hz,
        initial_z=initial_z(pairs.protocol, t1_s),
        b1_relative=spectra.b1_relative,
        fraction_bounds=target.bounds("fraction", FRACTION_BOUNDS),
        exchange_rate_bounds_Hz=target.bounds("k_Hz", EXCHANGE_RATE_BOUNDS_HZ),
        progress=progress,
    )
    quantities = _exchange_quantities(fit, target) | {"rmse": fit.rmse}
    warnings = (*target.warnings, *carried_over_warnings(spectra.protocol))
    return Quantification(quantities, fit.status, spectra.signal, spectra.protocol, warnings=warnings)


def omega_plot(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Draw the omega plot through label and reference pairs at several powers."""
    from ..fitting.marquardt import Status
    from ..tissue.omega_plot import omega_plot as fit_omega_plot

    target, pairs, t1_s = _pairs_of_target(spectra, settings)
    fit = fit_omega_plot(
        pairs.label,
        pairs.reference,
        pairs.protocol,
        t1_s,
        r2_Hz=target.r2_Hz,
        b1_relative=spectra.b1_relative,
    )
    quantities = _exchange_quantities(fit, target) | {"rmse": fit.rmse}
    status = fit.status.clone()
    for key, values in (("fraction", fit.fraction), ("k_Hz", fit.exchange_rate_Hz)):
        lower, upper = target.bounds(key, (0.0, math.inf))
        status[(values < lower) | (values > upper)] = Status.AT_BOUND  # a line has no bounds: it may lie beyond them
    return Quantification(quantities, status, spectra.signal, spectra.protocol, warnings=target.warnings)


def qucesop(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit QUCESOP, or gQUCESOP where the model fits the target's T2."""
    from ..preprocessing.initial_z import carried_over_warnings, initial_z
    from ..tissue.qucesop import LIMITS, fit_qucesop, r1rho_from_z

    require_cw(spectra.protocol)
    target = _target(spectra.protocol, settings.model)
    near = (spectra.protocol.offsets_ppm - target.dw_ppm).abs() <= QUCESOP_WINDOW_PPM
    if not bool(near.any()):
        raise InputError(
            "protocol", f"no measurement within {QUCESOP_WINDOW_PPM:g} ppm of the target at {target.dw_ppm:g} ppm"
        )
    used = spectra.select(near)
    protocol = used.protocol.to(used.signal.device)
    t1_s = _t1(spectra, settings.model)
    r1rho, noise = r1rho_from_z(
        used.signal,
        protocol,
        t1_s,
        initial_z=initial_z(protocol, t1_s).to(used.signal),
        b0_shift_ppm=used.b0_shift_ppm,
        b1_relative=used.b1_relative,
    )
    fit = fit_qucesop(
        r1rho,
        protocol,
        target.dw_ppm,
        r2_Hz=None if target.fits_r2 else target.r2_Hz,
        noise=noise,
        limits=[target.limits.get(key, default) for key, default in LIMITS.items()],
        b0_shift_ppm=used.b0_shift_ppm,
        b1_relative=used.b1_relative,
        progress=progress,
    )
    quantities = _exchange_quantities(fit, target) | {"rmse": fit.rmse_Hz}
    if target.fits_r2:
        quantities[f"{target.name}_r2_Hz"], quantities[f"{target.name}_r2_Hz_sd"] = fit.r2_Hz, fit.r2_Hz_sd
    warnings = (*target.warnings, *carried_over_warnings(spectra.protocol))
    return Quantification(quantities, fit.status, spectra.signal, spectra.protocol, warnings=warnings)


@dataclass(frozen=True)
class _Target:
    """The exchanging pool.

    Attributes:
        name: Its name.
        dw_ppm: Its offset from water.
        r2_Hz: Its R2, at its start where the model fits it.
        protons: Number of protons, if known.
        limits: Start, lower and upper bound of the fitted fraction, rate (``k_Hz``) and R2 (``r2_Hz``), as far as the
            model gives them.
        warnings: Sentences for the user about values of the model that are not used.
        fits_r2: Whether the model fits its T2.
    """

    name: str
    dw_ppm: float
    r2_Hz: float
    protons: float | None
    limits: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fits_r2: bool = False

    def bounds(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        """Return lower and upper bound of a fitted value."""
        return self.limits[key][1:] if key in self.limits else default


@dataclass(frozen=True)
class _Pairs:
    """Signals (voxel, pair) at the offset of the target and at its mirror image, and the protocol of the former.

    Signals of measurements that share a pair are averaged.
    """

    label: Tensor
    reference: Tensor
    protocol: Protocol


def _pairs_of_target(spectra: ZSpectra, settings: Settings) -> tuple[_Target, _Pairs, Tensor]:
    """Return the target, its pairs of measurements and the T1 of water (voxel,) in s."""
    import torch

    from ..preprocessing.pairs import label_reference_pairs

    require_cw(spectra.protocol)
    target = _target(spectra.protocol, settings.model)
    if target.fits_r2:
        told = f"{target.name}.T2_s of the model is not fitted by this method, which takes its start, "
        target = replace(target, warnings=(*target.warnings, f"{told}{1 / target.r2_Hz:g} s"))
    if spectra.b0_shift_ppm is not None and float(spectra.b0_shift_ppm.nan_to_num().abs().max()) > 0:
        raise InputError(
            "b0", "pairs of single offsets cannot be shifted by a B0 map; correct the spectra first or use r1rho"
        )
    pairs = label_reference_pairs(spectra.protocol, target.dw_ppm)
    label, reference = (
        torch.stack([spectra.signal[:, measurements].mean(1) for measurements in side], 1)
        for side in zip(*pairs, strict=True)
    )
    protocol = spectra.protocol.select(torch.tensor([labels[0] for labels, _ in pairs])).to(spectra.signal.device)
    return target, _Pairs(label, reference, protocol), _t1(spectra, settings.model)


def _target(protocol: Protocol, model: TissueModel | None) -> _Target:
    """Return the first solute of the model; without a model, a narrow line at the only positive offset."""
    import torch

    from ..tissue.model import FitParameter, MapReference

    if model is None:
        positive = protocol.offsets_ppm[protocol.offsets_ppm > 0]
        if len(torch.unique(torch.round(positive, decimals=3))) != 1:
            raise InputError(
                "protocol", "several offsets were acquired; give a model file that names the target solute"
            )
        return _Target("solute", float(positive[0]), 1.0, None)
    if not model.solute_names:
        raise InputError("model", "the model has no solute to be the target")
    name = model.solute_names[0]
    dw_ppm, T2_s = model.entries[f"{name}.dw_ppm"], model.entries[f"{name}.T2_s"]
    if not isinstance(dw_ppm, float):
        raise InputError("model", f"the target's {name}.dw_ppm must be a number for this method")
    if isinstance(T2_s, MapReference):
        raise InputError("model", f"the target's {name}.T2_s must be a number or fitted for this method, not a map")
    fits_r2 = isinstance(T2_s, FitParameter)
    r2_Hz = 1 / (T2_s.start if isinstance(T2_s, FitParameter) else T2_s)
    limits: dict[str, tuple[float, float, float]] = {}
    warnings = []
    for key in ("fraction", "k_Hz"):
        entry = model.entries[f"{name}.{key}"]
        if isinstance(entry, FitParameter):
            limits[key] = (entry.start, entry.lower, entry.upper)
        else:
            warnings.append(f"{name}.{key} of the model is not used: this method fits fraction and rate of its target")
    if isinstance(T2_s, FitParameter) and T2_s.lower > 0:
        limits["r2_Hz"] = (1 / T2_s.start, 1 / T2_s.upper, 1 / T2_s.lower)
    return _Target(name, dw_ppm, r2_Hz, model.protons.get(name), limits, tuple(warnings), fits_r2)


def _t1(spectra: ZSpectra, model: TissueModel | None) -> Tensor:
    """Return the T1 of water (voxel,) in s from the map or else from the model; NaN where it is not positive."""
    import torch

    if spectra.t1_s is not None:
        return torch.where(spectra.t1_s > 0, spectra.t1_s, torch.nan).double()
    value = model.entries["water.T1_s"] if model else None
    if not isinstance(value, float):
        raise ValueError(
            "this method needs the T1 of water: give a T1 map (--t1), or a model with water T1_s as a number (--model)"
        )
    return torch.full((spectra.voxel_count,), value, dtype=torch.float64, device=spectra.signal.device)


def require_cw(protocol: Protocol) -> None:
    """Check that the saturation is continuous.

    Raises:
        ValueError: It is a pulse train or a sequence of several pulses.
    """
    if protocol.pulses is not None:
        raise InputError(
            "protocol", "this method holds for continuous-wave saturation, but the protocol has pulse trains"
        )
    if protocol.events is not None and not protocol.events.only_blocks:
        raise InputError(
            "protocol", "this method holds for continuous-wave saturation, but the sequence plays several pulses"
        )


def _exchange_quantities(fit: ExchangeFit | QucesopFit, target: _Target) -> dict[str, Tensor]:
    from ..tissue.quantities import named_quantities

    fraction, rate = f"{target.name}.fraction", f"{target.name}.k_Hz"
    return named_quantities(
        {fraction: fit.fraction, rate: fit.exchange_rate_Hz},
        {fraction: fit.fraction_sd, rate: fit.exchange_rate_Hz_sd},
        {} if target.protons is None else {target.name: target.protons},
    )


_QUANTITIES = (*POOL_QUANTITIES, RMSE)

METHODS = (
    Method(
        "quesp",
        "QUESP / QUEST",
        "Fraction and exchange rate from label and reference pairs at several powers.",
        quesp,
        takes=(Input.MODEL, Input.B1, Input.T1),
        physical=True,
        quantities=_QUANTITIES,
        publications=("McMahon et al., Magn Reson Med 2006;55:836", "Zaiss et al., Magn Reson Med 2018;79:1708"),
    ),
    Method(
        "omega-plot",
        "Omega plot",
        "Fraction and exchange rate from the straight line of 1/MTR_Rex against 1/B1 squared (steady state).",
        omega_plot,
        takes=(Input.MODEL, Input.B1, Input.T1),
        physical=True,
        quantities=_QUANTITIES,
        publications=("Dixon et al., Magn Reson Med 2010;63:625",),
    ),
    Method(
        "qucesop",
        "QUCESOP",
        "Fraction and exchange rate from R1rho around the target at several powers, above a linear background.",
        qucesop,
        takes=(Input.MODEL, Input.B0, Input.B1, Input.T1),
        physical=True,
        quantities=_QUANTITIES,
        publications=(
            "Wang et al., Magn Reson Med 2021, 10.1002/mrm.28436",
            "Wang et al., NMR Biomed 2024;37:e5098",
        ),
    ),
)
