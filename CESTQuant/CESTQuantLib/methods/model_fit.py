"""Fits of a tissue model to the spectra, with the analytic R1rho solution or the Bloch-McConnell equations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from warnings import warn

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, B1_RELATIVE, CHI_SQUARE, POOL_QUANTITIES, RMSE, Quantity

if TYPE_CHECKING:
    from NeuroCESTLib.core.progress import Progress

    from ..fitting.spatial.neighbors import Neighbors
    from ..physics.protocol import Protocol
    from ..tissue.fit import ModelFit
    from ..tissue.model import TissueModel
    from ..tissue.spectra import ZSpectra

ENGINE_BIAS = "engine_bias_in_standard_errors "
"""How the report calls the shift of a fitted value by an approximate solution; the path of its entry follows."""


def fit_r1rho(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit the tissue model with the analytic R1rho solution."""
    assert settings.model is not None  # Method.needs
    return _fit(spectra, settings, "r1rho", analytic_warnings(spectra.protocol, settings.model), progress)


def fit_bloch_mcconnell(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Fit the tissue model with the numerical solution of the Bloch-McConnell equations."""
    assert settings.model is not None  # Method.needs
    return _fit(spectra, settings, "bloch-mcconnell", (), progress)


def fit(
    spectra: ZSpectra,
    model: TissueModel,
    *,
    engine: str = "r1rho",
    noise_sd: float | None = None,
    max_iterations: int = 60,
    neighbors: Neighbors | None = None,
    progress: Progress | None = None,
) -> ModelFit:
    """Fit a tissue model to every voxel, and warn where the analytic solution cannot be trusted.

    Arguments, result and errors are those of :func:`.tissue.fit.fit_tissue_model`. The fit is within the reach of the
    analytic solution (``r1rho``, the default) for continuous-wave saturation that is long against T2 of water.
    """
    from ..tissue.engine_error import EXACT_ENGINE, estimate_engine_error
    from ..tissue.fit import fit_tissue_model

    found = fit_tissue_model(
        spectra,
        model,
        engine=engine,
        noise_sd=noise_sd,
        max_iterations=max_iterations,
        neighbors=neighbors,
        progress=progress,
    )
    if engine != EXACT_ENGINE:
        error = estimate_engine_error(found)
        noted = None if error is None else error.warning(engine)
        for warning in (*analytic_warnings(spectra.protocol, model), *([] if noted is None else [noted])):
            warn(warning, stacklevel=2)
    return found


def analytic_warnings(protocol: Protocol, model: TissueModel) -> tuple[str, ...]:
    """Name the measurements for which the analytic solution cannot be trusted, see ``physics/r1rho/regime.py``."""
    from ..physics.r1rho.regime import regime_warnings
    from ..tissue.model import FitParameter

    entry = model.entries["water.T2_s"]
    T2_s = entry.upper if isinstance(entry, FitParameter) else entry if isinstance(entry, float) else 0.1
    return regime_warnings(protocol, T2_s)


def _fit(
    spectra: ZSpectra, settings: Settings, engine: str, warnings: tuple[str, ...], progress: Progress
) -> Quantification:
    from ..fitting.statistics import noise_warnings
    from ..preprocessing.repeats import noise_of_repeats, repeated_measurements, typical_noise
    from ..tissue.confidence.identifiability import identifiability_warnings
    from ..tissue.confidence.limits import confidence_of
    from ..tissue.engine_error import EXACT_ENGINE, estimate_engine_error
    from ..tissue.fit import fit_tissue_model

    model = settings.model
    assert model is not None  # Method.needs
    repeats = sum(len(group) - 1 for group in repeated_measurements(spectra.protocol))
    measurements = spectra.protocol.measurement_count - repeats
    if len(model.parameters) > measurements + sum(p.prior is not None for p in model.parameters):
        raise InputError(
            "model", f"{measurements} different measurements do not determine {len(model.parameters)} fitted values"
        )
    noise_sd = noise_of_repeats(spectra) if settings.noise_sd is None else settings.noise_sd
    physical = _physical(model, spectra)
    fit = fit_tissue_model(
        physical, model, engine=engine, noise_sd=settings.noise_sd, neighbors=settings.neighbors, progress=progress
    )
    summary: dict[str, float | int | str | None] = {"median_rmse": float(fit.result.rmse.nanmedian())}
    summary |= {f"median_correlation {pair}": value for pair, value in fit.median_correlation().items()}
    if fit.spatial is not None:
        summary |= fit.spatial.summary([parameter.path for parameter in model.parameters])
    if engine != EXACT_ENGINE and (error := estimate_engine_error(fit)) is not None:
        summary["largest_engine_error"] = error.largest
        summary |= {f"{ENGINE_BIAS}{path}": value for path, value in error.bias.items()}
        noted = error.warning(engine)
        warnings = warnings if noted is None else (*warnings, noted)
    warnings = (*warnings, *identifiability_warnings(fit, noise_sd))
    quantities, explained = fit.quantities, noise_sd is not None or bool(model.deviations)
    if explained or spectra.reference_noise > 0:
        confidence = confidence_of(fit, noise_sd, physical.valid, spectra.reference_noise)
        quantities = confidence.quantities(fit, with_limits=explained)
        if explained:
            typical = None if noise_sd is None else typical_noise(noise_sd, spectra)
            summary |= {"noise_sd": typical, **confidence.summary()}
            if typical is not None and confidence.chi_square is not None:
                warnings = (*warnings, *noise_warnings(confidence.chi_square, typical))
    return Quantification(
        quantities, fit.result.status, spectra.signal, spectra.protocol, fit.predict, summary, warnings
    )


def _physical(model: TissueModel, spectra: ZSpectra) -> ZSpectra:
    """Replace values of maps that are not physical by NaN, which the fit flags voxel by voxel.

    These are times and relative B1 that are not positive, and amounts and rates that are negative.
    """
    import torch

    from ..tissue.model import MapReference

    t1 = {} if spectra.t1_s is None else {"t1": spectra.t1_s}
    maps = {**t1, **spectra.maps}
    for path, entry in model.entries.items():
        if isinstance(entry, MapReference) and entry.name in maps:
            values, key = maps[entry.name], path.rpartition(".")[2]
            if key in ("T1_s", "T2_s", "b1_relative"):
                maps[entry.name] = torch.where(values > 0, values, torch.nan)
            elif key in ("fraction", "k_Hz"):
                maps[entry.name] = torch.where(values >= 0, values, torch.nan)
    b1 = spectra.b1_relative
    return replace(spectra, maps=maps, b1_relative=None if b1 is None else torch.where(b1 > 0, b1, torch.nan))


_TAKES = (Input.B0, Input.B1, Input.T1)
_QUANTITIES = (
    Quantity("*_limit", color_map="viridis", rank=8, window=(1.0, 3.0), quality=True),
    *POOL_QUANTITIES,
    B0_SHIFT,
    B1_RELATIVE,
    RMSE,
    CHI_SQUARE,
    Quantity("signal_scale", rank=5),
    Quantity("noise_floor", rank=5),
)

METHODS = (
    Method(
        "r1rho",
        "R1rho model fit (analytic)",
        "Fit of a tissue model with the analytic R1rho solution: fast, for saturation that is long against T2.",
        fit_r1rho,
        needs=(Input.MODEL,),
        takes=_TAKES,
        physical=True,
        spatial=True,
        quantities=_QUANTITIES,
        publications=(
            "Trott and Palmer, J Magn Reson 2002;154:157",
            "Zaiss and Bachert, NMR Biomed 2013;26:507",
        ),
    ),
    Method(
        "bloch-mcconnell",
        "Bloch-McConnell model fit (numerical)",
        "Fit of a tissue model with the numerical Bloch-McConnell equations: for every protocol, and slower.",
        fit_bloch_mcconnell,
        needs=(Input.MODEL,),
        takes=_TAKES,
        physical=True,
        spatial=True,
        quantities=_QUANTITIES,
        publications=("McConnell, J Chem Phys 1958;28:430", "Woessner et al., Magn Reson Med 2005;53:790"),
    ),
)
