"""Methods that fit a sum of Lorentzian lines to the Z-spectrum: the lines themselves, MTR_Rex and AREX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, CHI_SQUARE, RMSE, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..fitting.least_squares import FitResult
    from ..tissue.lorentzian import LorentzianFit
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.lorentzian_two_step import TwoStepModel
    from ..tissue.spectra import ZSpectra

DEFAULT_PRESET = "lorentzian_3T"
UNCERTAIN_WIDTH = 0.1
"""Standard error of a width, as a share of it, from which the likelihood is skewed if only the top of a line shows."""
SKEWED_WIDTH = 0.2
"""Standard error of the width of a wide line, as a share of it, from which the spatial prior leaves a bias."""


def lorentzian_lines(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit amplitude, width and position of every line."""
    fit, acquired, used, warnings = _fit(spectra, settings, progress)
    quantities = {"baseline": fit.baseline, "baseline_sd": fit.baseline_sd}
    for i, pool in enumerate(fit.model.names):
        for name in ("amplitude", "width_ppm", "position_ppm"):
            quantities[f"{pool}_{name}"] = getattr(fit, name)[:, i]
            quantities[f"{pool}_{name}_sd"] = getattr(fit, f"{name}_sd")[:, i]
    return _result(fit, acquired, used, quantities, warnings, settings)


def mtr_rex_and_arex(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute MTR_Rex and MTR_LD of every solute line at its position, and with a T1 map AREX.

    The label is the fitted spectrum, the reference the fitted spectrum without the line.
    """
    from ..tissue.contrasts import arex, mtr_ld, mtr_rex

    fit, acquired, used, warnings = _fit(spectra, settings, progress)
    quantities, duty_cycle = {}, None
    if used.t1_s is not None:
        try:
            duty_cycle = used.protocol.duty_cycle
        except InputError as error:
            warnings.append(f"AREX is not given: {error}")
    for i, pool in enumerate(fit.model.names[1:], start=1):
        at = fit.position_ppm[:, i : i + 1]
        label, reference = fit.spectrum(at)[:, 0], fit.spectrum(at, without=[pool])[:, 0]
        rex = mtr_rex(label, reference)
        quantities[f"mtr_rex_{pool}"] = rex
        quantities[f"mtr_ld_{pool}"] = mtr_ld(label, reference)
        if used.t1_s is not None and duty_cycle is not None:
            quantities[f"arex_{pool}"] = arex(rex, used.t1_s.to(rex), duty_cycle)
    return _result(fit, acquired, used, quantities, warnings, settings)


def _fit(
    spectra: ZSpectra, settings: Settings, progress: Progress
) -> tuple[LorentzianFit, ZSpectra, ZSpectra, list[str]]:
    """Fit the lines to the spectrum of one power, with the water moved to 0 ppm where there is a B0 map.

    Returns:
        The fit, the spectra of this power as acquired and as they were fitted, and sentences for the user.
    """
    from ..preprocessing.fields import centered_on_water
    from ..preprocessing.powers import at_one_power, b1_warnings
    from ..tissue.lorentzian import fit_lorentzian, with_noise_of_m0
    from ..tissue.lorentzian_two_step import TwoStepModel, fit_lorentzian_two_step

    model = chosen_lines(settings)
    warnings = b1_warnings(spectra, settings.power_uT)
    acquired = at_one_power(spectra, settings.power_uT)
    used = centered_on_water(acquired)
    offsets = used.protocol.offsets_ppm.float()
    signal = used.signal.float()
    if isinstance(model, TwoStepModel):
        if settings.neighbors is not None:
            raise InputError(
                "lorentzian",
                "the spatial prior is for lines that are fitted in one step: choose 3T, 7T or a file like them",
            )
        steps = fit_lorentzian_two_step(
            signal, offsets, model, valid=used.valid, reference_noise=used.reference_noise, progress=progress
        )
        return steps.combined(), acquired, used, warnings
    fit = fit_lorentzian(
        signal,
        offsets,
        model,
        valid=used.valid,
        neighbors=settings.neighbors,
        noise_sd=settings.noise_sd,
        progress=progress,
    )
    fit = with_noise_of_m0(fit, offsets, used.reference_noise, used.valid)
    warnings += [*incomplete_lines(fit, offsets), *biased_lines(fit, offsets)]
    return fit, acquired, used, warnings


def incomplete_lines(fit: LorentzianFit, offsets_ppm: Tensor) -> list[str]:
    """Return a sentence for each line whose width hangs on its top alone, in most voxels that have it.

    The half width of such a line reaches beyond the farthest offset on both sides, and the standard error of the width
    is a tenth of it or more, from which the likelihood is skewed.
    """
    sentences = []
    for i, pool in enumerate(fit.model.names):
        width, position, sd = fit.width_ppm[:, i], fit.position_ppm[:, i], fit.width_ppm_sd[:, i]
        present = (fit.amplitude[:, i] > 0) & sd.isfinite()
        reach = offsets_ppm.max() - position, position - offsets_ppm.min()
        beyond = (width / 2 > reach[0]) & (width / 2 > reach[1]) & (sd > UNCERTAIN_WIDTH * width)
        count = int(present.sum())
        if count and int((beyond & present).sum()) > count / 2:
            share = 100 * int((beyond & present).sum()) / count
            sentences.append(
                f"the offsets show only the top of the line {pool}, whose half width lies beyond them in {share:.0f} % "
                "of the voxels: its amplitude and width are biased, and their standard errors do not contain this; "
                "measure farther from water, or fix the width"
            )
    return sentences


def biased_lines(fit: LorentzianFit, offsets_ppm: Tensor) -> list[str]:
    """Return a sentence for each wide line whose bias the spatial prior leaves while it lowers the noise.

    These are lines wider than half the distance of the farthest offset, of whose width the voxels' own fits have a
    standard error of a fifth or more: there the likelihood is skewed, and bounds cut it.
    """
    if fit.spatial is None:
        return []
    ratios = dict(zip(fit.model.parameter_names, fit.spatial.error_ratio.tolist(), strict=True))
    sentences = []
    for i, pool in enumerate(fit.model.names):
        width, ratio = fit.width_ppm[:, i], ratios[f"{pool}_width_ppm"]
        own_sd = float(fit.width_ppm_sd[:, i].nanmedian()) / ratio if ratio > 0 else 0.0
        reach = (offsets_ppm - fit.position_ppm[:, i].nanmedian()).abs().max()
        middle = float(width.nanmedian())
        if middle > float(reach) / 2 and own_sd > SKEWED_WIDTH * middle:
            sentences.append(
                f"the spectrum of a voxel hardly determines the width of the line {pool}: the spatial prior averages "
                "its noise but leaves its bias, so that fewer of the intervals of its amplitude and width hold than "
                "their standard deviations promise (80 instead of 95 % on a phantom); fix the width if it is known"
            )
    return sentences


def chosen_lines(settings: Settings) -> LorentzianModel | TwoStepModel:
    """Return the lines of the settings, those of the default preset without any.

    Raises:
        ValueError: The settings describe peaks of PLOF.
    """
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.lorentzian_two_step import TwoStepModel

    lines = settings.lorentzian or LorentzianModel.preset(DEFAULT_PRESET)
    if not isinstance(lines, LorentzianModel | TwoStepModel):
        raise InputError(
            "lorentzian",
            "the peaks of PLOF are no Lorentzian lines of Z: choose 3T, 7T, preclinical, 3T_two_step or a file like "
            "them",
        )
    return lines


def goodness_of_fit(
    fit: FitResult, water_ppm: Tensor, acquired: ZSpectra, used: ZSpectra, settings: Settings
) -> tuple[dict[str, Tensor], dict[str, float | int | str | None], tuple[str, ...]]:
    """Return what every fit of lines reports besides them: maps of water and residual, the summary, and warnings.

    Args:
        fit: Result of the fit.
        water_ppm: (voxel,) fitted position of the water, which is a map where no B0 map is given.
        acquired: Spectra before they were centred on water, whose repeats tell the noise.
        used: Spectra that were fitted.
        settings: Settings, of which the noise counts.
    """
    from ..fitting.statistics import noise_warnings, reduced_chi_square
    from ..preprocessing.repeats import noise_of_repeats, typical_noise

    maps = {"b0_shift_ppm": water_ppm} if used.b0_shift_ppm is None else {}
    maps["rmse"] = fit.rmse
    summary: dict[str, float | int | str | None] = {"median_rmse": float(fit.rmse.nanmedian())}
    noise_sd = noise_of_repeats(acquired) if settings.noise_sd is None else settings.noise_sd
    if noise_sd is None:
        return maps, summary, ()
    maps["chi2_reduced"] = reduced_chi_square(fit, noise_sd, used.valid, used.protocol.measurement_count)
    summary["noise_sd"] = typical = typical_noise(noise_sd, acquired)
    return maps, summary, noise_warnings(maps["chi2_reduced"], typical)


def _result(
    fit: LorentzianFit,
    acquired: ZSpectra,
    used: ZSpectra,
    quantities: dict[str, Tensor],
    warnings: list[str],
    settings: Settings,
) -> Quantification:
    maps, summary, noted = goodness_of_fit(fit.fit, fit.position_ppm[:, 0], acquired, used, settings)
    quantities |= maps
    if fit.spatial is not None:
        summary |= fit.spatial.summary(fit.model.parameter_names)
    offsets = used.protocol.offsets_ppm.to(used.signal.device).float()

    def predict(voxels: Tensor) -> Tensor:
        return fit.of_voxels(voxels).spectrum(offsets)

    return Quantification(quantities, fit.status, used.signal, used.protocol, predict, summary, (*warnings, *noted))


METHODS = (
    Method(
        "lorentzian",
        "Lorentzian fit",
        "Amplitude, width and position of Lorentzian lines of water, semisolid and CEST pools.",
        lorentzian_lines,
        takes=(Input.LORENTZIAN, Input.POWER, Input.B0, Input.B1),
        spatial=True,
        pool_presets=("3T", "7T", "preclinical", "3T_two_step"),
        quantities=(
            Quantity("*_amplitude", rank=1),
            Quantity("*_width_ppm", "ppm", rank=6),
            Quantity("*_position_ppm", "ppm", "diverging", rank=6),
            B0_SHIFT,
            RMSE,
            CHI_SQUARE,
        ),
        publications=(
            "Zaiss et al., J Magn Reson 2011;211:149",
            "Windschuh et al., NMR Biomed 2015;28:529",
        ),
    ),
    Method(
        "mtr-rex",
        "MTR_Rex and AREX",
        "Exchange-dependent relaxation from Lorentzian lines: MTR_Rex, MTR_LD and, with a T1 map, AREX.",
        mtr_rex_and_arex,
        takes=(Input.LORENTZIAN, Input.POWER, Input.B0, Input.B1, Input.T1),
        spatial=True,
        pool_presets=("3T", "7T", "preclinical", "3T_two_step"),
        quantities=(
            Quantity("arex_*", "Hz", rank=0),
            Quantity("mtr_rex_*", rank=1),
            Quantity("mtr_ld_*", rank=2),
            B0_SHIFT,
            RMSE,
            CHI_SQUARE,
        ),
        publications=("Zaiss et al., NMR Biomed 2014;27:240",),
    ),
)
