"""Mean spectra of regions and their fits, by the method that made the maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .inputs import Acquisition
from .results.regions import Region
from .results.spectrum import RegionSpectrum
from .statistics import LEAST_SHARE

if TYPE_CHECKING:
    from torch import Tensor

    from ..tissue.spectra import ZSpectra


def region_spectrum(region: Region, acquisition: Acquisition) -> RegionSpectrum | None:
    """Return the mean spectrum of a region, weighted by partial volume, and the fit of the mean.

    Contrasts and Lorentzian fits average the spectra after each was centred on its own water line, so that a spread of
    B0 does not broaden the mean. Fits of a tissue model take the mean spectrum as acquired, with the mean B0 and B1.

    Args:
        region: The region with its partial volumes.
        acquisition: The spectra, and how the maps were fitted.

    Returns:
        The spectrum; its ``note`` says why it has no fit. None where no voxel of the region has a usable spectrum.
    """
    import torch

    spectra = _usable(acquisition)
    weights = torch.from_numpy(region.weights.reshape(-1)[acquisition.voxels].astype(np.float64))
    chosen = (weights >= LEAST_SHARE) & torch.isfinite(spectra.signal).any(1)
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return None
    mean, sd = _mean(spectra.of_voxels(rows), weights[rows])
    acquired = torch.isfinite(mean.signal[0])
    mean, sd = mean.select(acquired), sd[acquired]
    protocol = mean.protocol
    found = RegionSpectrum(
        region.name,
        protocol.offsets_ppm.detach().numpy(),
        protocol.b1_uT.detach().expand(protocol.measurement_count).numpy(),
        mean.signal[0].numpy(),
        sd.numpy(),
    )
    settings = acquisition.settings
    if settings.noise_sd is not None:  # that of one voxel
        share = float(weights[rows].square().sum().sqrt() / weights[rows].sum())
        settings = replace(settings, noise_sd=settings.noise_sd * share)
    return _fitted(found, mean, replace(acquisition, settings=settings), len(rows))


def _usable(acquisition: Acquisition) -> ZSpectra:
    """The spectra as they are averaged."""
    from ..methods.base import Input
    from ..methods.registry import method_named
    from ..preprocessing.fields import centered_on_water
    from ..preprocessing.powers import at_one_power

    spectra, method = acquisition.spectra, method_named(acquisition.method)
    if method.physical or spectra.b0_shift_ppm is None or Input.POWER not in method.takes:
        return spectra
    return centered_on_water(at_one_power(spectra, acquisition.settings.power_uT))


def _mean(spectra: ZSpectra, weights: Tensor) -> tuple[ZSpectra, Tensor]:
    """Weighted mean of spectra and maps as a single voxel, and the weighted standard deviation (measurement,)."""
    import torch

    def mean(values: Tensor) -> Tensor:
        known = torch.isfinite(values)
        each = weights.to(values).reshape(-1, *[1] * (values.ndim - 1)) * known
        return ((each * torch.where(known, values, 0)).sum(0) / each.sum(0))[None]

    def of(values: Tensor | None) -> Tensor | None:
        return None if values is None else mean(values)

    signal = mean(spectra.signal)
    single = replace(
        spectra,
        signal=signal,
        valid=None,
        b0_shift_ppm=of(spectra.b0_shift_ppm),
        b1_relative=of(spectra.b1_relative),
        t1_s=of(spectra.t1_s),
        maps={name: mean(values) for name, values in spectra.maps.items()},
        brightness=None,
        m0=None,
    )
    return single, mean((spectra.signal - signal).square())[0].sqrt()


def _fitted(found: RegionSpectrum, mean: ZSpectra, acquisition: Acquisition, voxels: int) -> RegionSpectrum:
    from ..fitting.marquardt import UNUSABLE
    from ..methods.fitted_spectrum import fitted_spectrum
    from ..methods.registry import quantify

    try:
        result = quantify(mean, acquisition.method, acquisition.settings)
    except ValueError as error:
        return replace(found, note=f"the mean spectrum of '{found.region}' is not fitted: {error}")
    parameters = sum(name.endswith("_sd") for name in result.quantities)
    if voxels < parameters:
        text = f"'{found.region}' has {voxels} voxels, fewer than the {parameters} fitted values"
        return replace(found, note=f"{text}: its mean spectrum is not fitted")
    if int(result.status[0]) in [int(status) for status in UNUSABLE]:
        return replace(found, note=f"the fit of the mean spectrum of '{found.region}' has failed")
    fit = fitted_spectrum(result, found.offsets_ppm, found.power_uT)
    errors = _engine_errors(result.summary, fit.values)
    return replace(found, fit=fit.fit, pools=fit.pools, values=fit.values, engine_errors=errors)


def _engine_errors(
    summary: Mapping[str, float | int | str | None], values: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Errors of an approximate solution, which the fit states in standard errors, in the units of the quantities."""
    from ..methods.model_fit import ENGINE_BIAS
    from ..tissue.quantities import map_name

    found = {}
    for key, bias in summary.items():
        name = map_name(key.removeprefix(ENGINE_BIAS)) if key.startswith(ENGINE_BIAS) else ""
        if name in values and isinstance(bias, float):
            found[name] = bias * values[name][1]
    return found
