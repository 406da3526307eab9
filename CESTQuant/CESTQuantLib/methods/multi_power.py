"""Multi-power Lorentzian fit (MPLF): the lines of spectra at several B1, fitted together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .lorentzian import chosen_lines, goodness_of_fit
from .quantities import B0_SHIFT, CHI_SQUARE, POOL_QUANTITIES, RMSE, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..tissue.line_fits.multi_power import MultiPowerFit
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.spectra import ZSpectra

MOST_AT_BOUNDS = 0.5
"""Share of the values of a map at a bound from which a warning names it."""


def multi_power_lorentzian(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit lines with shared positions and with an amplitude and a width per power; see ``line_fits/multi_power.py``.

    With a T1 map, lines on the side of positive offsets also give fraction and exchange rate.
    """
    from ..fitting.interpolation import distinct_offsets
    from ..preprocessing.powers import by_power
    from ..tissue.contrasts import mtr_rex
    from ..tissue.line_fits.multi_power import MultiPowerModel, fit_multi_power

    lines = _lines(settings)
    used, powers, indices = by_power(spectra)
    if len(powers) < 2:
        raise InputError(
            "protocol",
            "the multi-power Lorentzian fit needs spectra at two or more powers, but b1_uT of the protocol has "
            f"{len(powers)}: use the method lorentzian, or join the acquisitions of all powers in one sequence",
        )
    device = used.signal.device
    members = tuple(index.to(device) for index in indices)
    for power, member in zip(powers.tolist(), members, strict=True):
        different = len(distinct_offsets(used.protocol.offsets_ppm[member.cpu()]))
        if different <= 2 * len(lines.pools):
            raise InputError(
                "protocol",
                f"{different} different offsets at {power:g} uT are too few for {len(lines.pools)} lines: acquire more "
                f"than {2 * len(lines.pools)} at every power, or describe fewer lines (--lorentzian)",
            )
    offsets = used.protocol.offsets_ppm.to(device).float()
    if used.b0_shift_ppm is not None:
        offsets = offsets - used.b0_shift_ppm.to(offsets).unsqueeze(1)
    fit = fit_multi_power(
        used.signal.float(),
        offsets,
        MultiPowerModel(lines, members),
        valid=used.valid,
        reference_noise=used.reference_noise,
        progress=progress,
    )
    first = fit.powers[0]
    quantities: dict[str, Tensor] = {"baseline": first.baseline, "baseline_sd": first.baseline_sd}
    for i, pool in enumerate(lines.names):
        quantities[f"{pool}_position_ppm"] = first.position_ppm[:, i]
        quantities[f"{pool}_position_ppm_sd"] = first.position_ppm_sd[:, i]
        at = first.position_ppm[:, i : i + 1]
        for power, of_power in zip(powers.tolist(), fit.powers, strict=True):
            for name in ("amplitude", "width_ppm"):
                quantities[f"{pool}_{name}_{power:g}uT"] = getattr(of_power, name)[:, i]
                quantities[f"{pool}_{name}_{power:g}uT_sd"] = getattr(of_power, f"{name}_sd")[:, i]
            if i > 0:
                label, reference = of_power.spectrum(at)[:, 0], of_power.spectrum(at, without=[pool])[:, 0]
                quantities[f"mtr_rex_{pool}_{power:g}uT"] = mtr_rex(label, reference)
    warnings: tuple[str, ...] = ()
    reason = _why_no_exchange(used)
    if reason:
        warnings = (f"fraction and exchange rate are not given: {reason}",)
    else:
        maps, warnings = _exchange(used, fit, members, offsets)
        quantities |= maps
    maps, summary, noted = goodness_of_fit(fit.fit, first.position_ppm[:, 0], used, used, settings)
    quantities |= maps
    summary["powers_uT"] = ", ".join(f"{power:g}" for power in powers.tolist())

    def predict(voxels: Tensor) -> Tensor:
        return fit.spectra(voxels, offsets)

    warnings = (*_bound_warnings(fit, powers.tolist()), *warnings, *noted)
    return Quantification(quantities, fit.fit.status, used.signal, used.protocol, predict, summary, warnings)


def _bound_warnings(fit: MultiPowerFit, powers_uT: list[float]) -> tuple[str, ...]:
    """Return a sentence that names the maps of which most values lie at a bound of the pool description."""
    fitted = fit.fit.parameters.isfinite().all(1)
    shares = fit.at_bounds()[fitted].double().mean(0).tolist()
    columns = [fit.model.columns(power) for power in range(len(powers_uT))]
    shared = set(columns[0]) & set(columns[1])
    held = {
        name if column in shared else f"{name}_{power:g}uT": shares[column]
        for power, of_power in zip(powers_uT, columns, strict=True)
        for column, name in zip(of_power, fit.model.lines.parameter_names, strict=True)
        if shares[column] > MOST_AT_BOUNDS
    }
    if not held:
        return ()
    listed = ", ".join(f"{name} in {100 * share:.0f} %" for name, share in held.items())
    return (
        f"values lie at a bound of the pool description and are no estimates: {listed} of the voxels; the bounds hold "
        "at every power, so widen them in a pool description of your own (--lorentzian), or leave out the line",
    )


def _lines(settings: Settings) -> LorentzianModel:
    from ..tissue.lorentzian_two_step import TwoStepModel

    lines = chosen_lines(settings)
    if isinstance(lines, TwoStepModel):
        raise InputError(
            "lorentzian",
            "the multi-power Lorentzian fit needs lines that are fitted in one step: choose 3T, 7T or a file like "
            "them (--lorentzian)",
        )
    return lines


def _why_no_exchange(spectra: ZSpectra) -> str | None:
    """Return what keeps the labelling efficiency from giving exchange rates; None if nothing does."""
    from .exchange import require_cw

    if spectra.t1_s is None:
        return "they need a T1 map (--t1)"
    try:
        spectra.protocol.require_known("mplf")
        require_cw(spectra.protocol)
    except ValueError as error:
        return str(error)
    return None


def _exchange(
    spectra: ZSpectra, fit: MultiPowerFit, members: tuple[Tensor, ...], offsets_ppm: Tensor
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return fraction and exchange rate of the lines at positive distances from water, and warnings."""
    import torch

    from ..fitting.marquardt import Status
    from ..preprocessing.initial_z import carried_over_warnings, initial_z
    from ..tissue.line_fits.multi_power import LEAST_RESOLUTION, exchange_of_line, resolution_of_line
    from ..tissue.quantities import named_quantities
    from ..tissue.quesp import EXCHANGE_RATE_BOUNDS_HZ, FRACTION_BOUNDS

    assert spectra.t1_s is not None  # _why_no_exchange
    start, _, _ = fit.model.lines.limits()
    positions = fit.model.lines.positions(start.unsqueeze(1))[:, 0]
    first = [int(member[0]) for member in members]
    of_powers = spectra.protocol.select(torch.tensor(first))
    start = initial_z(spectra.protocol, spectra.t1_s)[:, first]
    maps: dict[str, Tensor] = {}
    warnings: list[str] = list(carried_over_warnings(spectra.protocol))
    for pool, distance in zip(fit.model.lines.names, (positions - positions[0]).tolist(), strict=True):
        if distance > 0:
            found = exchange_of_line(
                fit,
                pool,
                of_powers,
                spectra.t1_s,
                initial_z=start,
                b1_relative=spectra.b1_relative,
            )
            fraction, rate = f"{pool}.fraction", f"{pool}.k_Hz"
            named = named_quantities(
                {fraction: found.fraction, rate: found.exchange_rate_Hz},
                {fraction: found.fraction_sd, rate: found.exchange_rate_Hz_sd},
                {},
            )
            relative = 1.0 if spectra.b1_relative is None else spectra.b1_relative.double()
            w1 = of_powers.w1_rad_per_s.to(offsets_ppm.device).unsqueeze(1) * relative
            resolution = resolution_of_line(
                fit, pool, offsets_ppm, w1, found.exchange_rate_Hz, spectra.protocol.rad_per_s_per_ppm
            )
            unresolved = resolution < LEAST_RESOLUTION
            undetermined = (found.status == Status.AT_BOUND) & ~unresolved
            maps |= {name: values.masked_fill(unresolved | undetermined, math.nan) for name, values in named.items()}
            for left_out, reason in (
                (
                    unresolved,
                    f"the line at the lowest power is narrower than {LEAST_RESOLUTION:g} times the distance of the "
                    "offsets around it, so that its depth is too small and the rate too large: acquire denser offsets "
                    "or higher powers",
                ),
                (
                    undetermined,
                    "they lie at a limit of their search (fraction {:g} to {:g}, rate {:g} to {:g} Hz), so that the "
                    "change of the line with the power does not determine them: check the fitted lines, and acquire "
                    "more powers or a wider range of them".format(*FRACTION_BOUNDS, *EXCHANGE_RATE_BOUNDS_HZ),
                ),
            ):
                if bool(left_out.any()):
                    share = 100 * float(left_out.double().mean())
                    warnings.append(
                        f"fraction and exchange rate of {pool} are not given in {share:.3g} % of the voxels, because "
                        f"{reason}"
                    )
    return maps, tuple(warnings)


METHODS = (
    Method(
        "mplf",
        "Multi-power Lorentzian fit",
        "Lorentzian lines of spectra at several powers with shared positions; with a T1 map, exchange rates.",
        multi_power_lorentzian,
        takes=(Input.LORENTZIAN, Input.B0, Input.B1, Input.T1),
        pool_presets=("3T", "7T"),
        quantities=(
            *POOL_QUANTITIES,
            Quantity("mtr_rex_*", rank=1),
            Quantity("*_amplitude_*uT", rank=3),
            Quantity("*_width_ppm_*uT", "ppm", rank=6),
            Quantity("*_position_ppm", "ppm", "diverging", rank=6),
            B0_SHIFT,
            RMSE,
            CHI_SQUARE,
        ),
        publications=(
            "Windschuh et al., NMR Biomed 2015;28:529",
            "Zaiss & Bachert, NMR Biomed 2013;26:507",
            "Zaiss et al., Magn Reson Med 2018;79:1708",
        ),
    ),
)
