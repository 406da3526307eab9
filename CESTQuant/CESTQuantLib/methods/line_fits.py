"""Methods that look at single lines over a background: Lorentzian difference and PLOF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, RMSE, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..tissue.line_fits.plof import Saturation
    from ..tissue.spectra import ZSpectra


def lorentzian_difference(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute LD = Z_background - Z at the chosen offsets, which may be on both sides of water.

    The background, lines of water and semisolid, is fitted to the offsets outside the excluded ranges of a two-step
    pool description (by default that for 3 T). Offsets are counted from the fitted water.
    """
    import torch

    from ..preprocessing.fields import centered_on_water
    from ..preprocessing.powers import at_one_power, b1_warnings
    from ..tissue.contrasts import z_at
    from ..tissue.lorentzian_two_step import TwoStepModel, fit_background
    from .asymmetry import water_gap_warnings

    model = settings.lorentzian or TwoStepModel.preset()
    if not isinstance(model, TwoStepModel):
        raise InputError(
            "lorentzian",
            "the Lorentzian difference needs a pool description with excluded_from_background_ppm: choose 3T_two_step "
            "or a file like it (--lorentzian)",
        )
    warnings = b1_warnings(spectra, settings.power_uT)
    acquired = at_one_power(spectra, settings.power_uT)
    used = centered_on_water(acquired)
    signal, offsets = used.signal.float(), used.protocol.offsets_ppm.to(used.signal.device).float()
    fit = fit_background(signal, offsets, model, valid=used.valid, progress=progress)
    water = fit.position_ppm[:, 0]
    at = signal.new_tensor(tuple(dict.fromkeys(settings.asymmetry_offsets_ppm)))
    shift = water if acquired.b0_shift_ppm is None else water + acquired.b0_shift_ppm.to(water)
    difference = fit.spectrum(at + water.unsqueeze(1)) - z_at(acquired.signal.float(), offsets, at, shift)
    quantities = {}
    for i, offset in enumerate(at.tolist()):
        warnings += water_gap_warnings(acquired, (offset,), shift, f"LD at {offset:g} ppm")
        if not bool(torch.isfinite(difference[:, i]).any()) and bool(torch.isfinite(signal).any()):
            low, high = float(offsets.min()), float(offsets.max())
            raise InputError(
                "protocol", f"no measurement at {offset:g} ppm from water: the offsets span {low:g} to {high:g} ppm"
            )
        quantities[f"ld_{offset:g}ppm"] = difference[:, i]
    if used.b0_shift_ppm is None:
        quantities["b0_shift_ppm"] = water
    quantities["rmse"] = fit.rmse
    summary = {"median_rmse": float(fit.rmse.nanmedian())}

    def predict(voxels: Tensor) -> Tensor:
        return fit.of_voxels(voxels).spectrum(offsets)

    return Quantification(quantities, fit.status, used.signal, used.protocol, predict, summary, tuple(warnings))


def plof(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit peaks of R1rho over a polynomial background in two steps, see ``tissue/line_fits/plof.py``.

    Every peak gives its height in 1/s (``plof_<peak>``) and in units of Z (``plof_dz_<peak>``), width and position.
    """
    import torch

    from NeuroCESTLib.core.progress import part

    from ..preprocessing.fields import estimate_b0_shift
    from ..preprocessing.initial_z import carried_over_warnings
    from ..preprocessing.powers import at_one_power, b1_warnings, corrects_b1
    from ..tissue.line_fits.plof import fit_plof
    from ..tissue.line_fits.plof_model import PlofModel
    from .exchange import require_cw

    model = settings.lorentzian or PlofModel.preset()
    if not isinstance(model, PlofModel):
        raise InputError(
            "lorentzian", "PLOF needs a description of peaks: choose plof_3T or a file like it (--lorentzian)"
        )
    require_cw(spectra.protocol)
    used = at_one_power(spectra, settings.power_uT, varying=("saturation_time_s",))
    quantities: dict[str, Tensor] = {}
    shift = used.b0_shift_ppm
    if shift is None:
        shift = quantities["b0_shift_ppm"] = estimate_b0_shift(used.signal, used.protocol.offsets_ppm)
    corrected = corrects_b1(spectra)  # otherwise the map enters the saturation
    warnings = b1_warnings(spectra, settings.power_uT) if corrected else []
    saturation = _saturation(used, shift, b1_is_corrected=corrected)
    statuses, signal = [], torch.full_like(used.signal.double(), torch.nan)
    squares = torch.zeros_like(used.signal[:, 0].double())
    for i, peak in enumerate(model.peaks):
        share = part(progress, i / len(model.peaks), (i + 1) / len(model.peaks))
        fit = fit_plof(used.signal, saturation, peak, model, share)
        name = peak.name
        quantities |= {f"plof_{name}": fit.amplitude_Hz, f"plof_{name}_sd": fit.amplitude_Hz_sd}
        quantities[f"plof_dz_{name}"] = fit.difference
        for key in ("width_ppm", "position_ppm"):
            quantities |= {f"{name}_{key}": getattr(fit, key), f"{name}_{key}_sd": getattr(fit, f"{key}_sd")}
        statuses.append(fit.status)
        squares = squares + fit.rmse.square()
        signal = torch.where(fit.signal.isfinite(), fit.signal, signal)
    quantities["rmse"] = (squares / len(model.peaks)).sqrt()
    summary = {"median_rmse": float(quantities["rmse"].nanmedian())}
    return Quantification(
        quantities,
        _worst(statuses),
        used.signal,
        used.protocol,
        lambda voxels: signal[voxels],
        summary,
        (*warnings, *carried_over_warnings(used.protocol)),
    )


def _saturation(spectra: ZSpectra, shift_ppm: Tensor, b1_is_corrected: bool) -> Saturation:
    """Return the saturation at the water of every voxel."""
    from ..preprocessing.initial_z import initial_z
    from ..tissue.line_fits.plof import Saturation

    assert spectra.t1_s is not None  # Method.needs
    protocol = spectra.protocol.to(spectra.signal.device)
    w1 = (protocol.gamma_rad_per_s_per_uT * protocol.b1_uT).expand(spectra.signal.shape)
    if spectra.b1_relative is not None and not b1_is_corrected:
        w1 = w1 * spectra.b1_relative.to(w1).unsqueeze(1)
    return Saturation(
        protocol.offsets_ppm - shift_ppm.double().unsqueeze(1),
        w1,
        protocol.rad_per_s_per_ppm,
        protocol.saturation_time_s,
        spectra.t1_s,
        initial_z(protocol, spectra.t1_s),
    )


def _worst(statuses: list[Tensor]) -> Tensor:
    """Return the least favourable status of every voxel."""
    import torch

    from ..fitting.marquardt import Status

    order = (
        Status.CONVERGED,
        Status.AT_NATURAL_LIMIT,
        Status.AT_BOUND,
        Status.ITERATION_LIMIT,
        Status.FAILED,
        Status.NOT_ENOUGH_POINTS,
        Status.INVALID_DATA,
    )
    rank = torch.zeros(len(Status), dtype=torch.uint8, device=statuses[0].device)
    for place, status in enumerate(order):
        rank[int(status)] = place
    worst = torch.stack([rank[status.long()] for status in statuses]).amax(0)
    return torch.tensor([int(status) for status in order], dtype=torch.uint8, device=worst.device)[worst.long()]


METHODS = (
    Method(
        "ld",
        "Lorentzian difference",
        "Difference between a Lorentzian background (water, semisolid) and the spectrum at chosen offsets.",
        lorentzian_difference,
        takes=(Input.LORENTZIAN, Input.ASYMMETRY_OFFSET, Input.POWER, Input.B0, Input.B1),
        pool_presets=("3T_two_step",),
        quantities=(Quantity("ld_*ppm", rank=0), B0_SHIFT, RMSE),
        publications=("Jones et al., Neuroimage 2013;77:114",),
    ),
    Method(
        "plof",
        "PLOF",
        "Height of single peaks of R1rho above a polynomial background, in 1/s and in units of Z.",
        plof,
        needs=(Input.T1,),
        takes=(Input.LORENTZIAN, Input.POWER, Input.B0, Input.B1),
        pool_presets=("plof_3T",),
        physical=True,
        quantities=(
            Quantity("plof_dz_*", rank=1),
            Quantity("plof_*", "Hz", rank=0),
            Quantity("*_width_ppm", "ppm", rank=6),
            Quantity("*_position_ppm", "ppm", "diverging", rank=6),
            B0_SHIFT,
            RMSE,
        ),
        publications=("Chen et al., Magn Reson Med 2019;81:69",),
    ),
)
