"""Fits of a tissue model to every voxel, with the analytic R1rho solution or the Bloch-McConnell equations."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..fitting.least_squares import FitResult
from ..fitting.spatial.neighbors import Neighbors
from ..fitting.spatial.prior import SpatialFit
from ..physics.protocol import Protocol
from .model import SIGNAL_KEYS, TissueModel
from .model_fits.bloch_mcconnell import fit_bloch_mcconnell
from .model_fits.r1rho import fit_r1rho
from .model_fits.signal_model import SignalModel, available_maps, maps_of_model
from .model_fits.spatial import fit_under_spatial_prior
from .quantities import named_quantities
from .spectra import ZSpectra


@dataclass(frozen=True)
class ModelFit:
    """Result of a fit, with the model's own predictions.

    Attributes:
        result: Parameters in the order of the model file, with standard errors and status.
        quantities: Maps (voxel,) by the names of their files: ``<pool>_fraction``, ``<pool>_exchange_rate_Hz``,
            ``<pool>_r2_Hz``, ``<pool>_concentration_mM``, each with ``<same>_sd``, and ``rmse``; NaN where not fitted.
        signal_model: What was fitted.
        maps: Maps (voxel,) that the signal model takes, in its order.
        spatial: The fit under the spatial prior, of which ``result`` is the result; None without one.
        valid: (voxel, measurement) bool, the measurements that were used; None for all.
    """

    result: FitResult
    quantities: dict[str, Tensor]
    signal_model: SignalModel
    maps: tuple[Tensor, ...]
    spatial: SpatialFit | None = None
    valid: Tensor | None = None

    def predict(self, voxels: Tensor, protocol: Protocol | None = None) -> Tensor:
        """Compute the fitted signal of some voxels.

        Args:
            voxels: (n,) indices.
            protocol: Another protocol than the fitted one.

        Returns:
            (n, measurement).
        """
        signal_model = self.signal_model
        if protocol is not None:
            signal_model = replace(signal_model, protocol=protocol)
        return signal_model.predict(self.result.parameters[voxels].T, *(values[voxels] for values in self.maps)).T

    def median_correlation(self) -> dict[str, float]:
        """Return the median over fitted voxels of the correlation of every pair of fitted values, by 'a, b'."""
        paths = [parameter.path for parameter in self.signal_model.tissue.parameters]
        correlation = self.result.correlation
        if correlation is None:
            return {}
        return {
            f"{paths[i]}, {paths[j]}": float(correlation[:, i, j].nanmedian())
            for i in range(len(paths))
            for j in range(i)
        }


def fit_tissue_model(
    spectra: ZSpectra,
    model: TissueModel,
    *,
    engine: str = "r1rho",
    noise_sd: float | None = None,
    max_iterations: int = 60,
    neighbors: Neighbors | None = None,
    progress: Progress | None = None,
) -> ModelFit:
    """Fit a tissue model to every voxel.

    The R1rho engine fits in float32 with analytic derivatives where these exist. Otherwise, and for Bloch-McConnell,
    the fit runs in float64 with finite differences. For independent measurements after continuous-wave saturation,
    Bloch-McConnell starts from the R1rho fit. Where an exchange rate may lie anywhere over more than three orders of
    magnitude, the fit starts from several rates and keeps the best minimum of each voxel.

    Args:
        spectra: Signals with their protocol, fields, and the maps that the model refers to.
        model: Tissue model with at least one fitted value.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        noise_sd: Standard deviation of a measurement, the weight of the data against priors and the scale of the
            standard errors; None to estimate it from the residual.
        max_iterations: Limit for each voxel.
        neighbors: Neighbouring voxels, for a fit under the spatial prior that starts from the voxels' own fits; None
            for the latter alone.
        progress: Called with the share of voxels that are fitted.

    Raises:
        ValueError: The model has no fitted value, a map or the saturation is missing, the engine is unknown, or the
            model has priors and neither ``noise_sd`` nor a residual tells how they weigh.
    """
    fits = {"r1rho": fit_r1rho, "bloch-mcconnell": fit_bloch_mcconnell}
    if engine not in fits:
        raise ValueError(f"engine '{engine}' is unknown; use one of {', '.join(fits)}")
    if not model.parameters:
        raise InputError("model", 'the model has no fitted value; give at least one as {"fit": true, …}')
    if missing := [name for name in model.map_names if name not in available_maps(spectra)]:
        raise InputError("model", f"the model refers to the map '{missing[0]}', which is not given")
    spectra.protocol.require_known("a physical model")
    if spectra.protocol.signal_normalisation == "l2" and (told := [key for key in SIGNAL_KEYS if key in model.entries]):
        raise InputError(
            "model", f"the model has a {told[0]}, but signals normalised to length one (l2) have lost their scale"
        )
    if noise_sd is None:
        _require_residual(spectra, model)
    maps = maps_of_model(spectra, model)
    signal_model = SignalModel(model, spectra.protocol, engine, tuple(maps), noise_sd)
    progress = progress or silent
    share = progress if neighbors is None else part(progress, 0.0, 0.5)
    result, spatial = fits[engine](spectra, signal_model, max_iterations, share), None
    if neighbors is not None:
        spatial = fit_under_spatial_prior(result, spectra, signal_model, neighbors, part(progress, 0.5, 1.0))
        result = spatial.result
    return ModelFit(result, _named_maps(model, result), signal_model, tuple(maps.values()), spatial, spectra.valid)


def _require_residual(spectra: ZSpectra, model: TissueModel) -> None:
    """Check that the residual can tell the noise, which weighs the signals against the priors of a model.

    Raises:
        ValueError: The model has priors, and no voxel has more measurements than fitted values.
    """
    count, most = len(model.parameters), spectra.protocol.measurement_count
    if spectra.valid is not None and len(spectra.valid):
        most = int(spectra.valid.sum(1).max())
    if most <= count and any(parameter.prior is not None for parameter in model.parameters):
        raise InputError(
            "noise-sd",
            f"the model has priors, which need the noise of the signal, and {most} measurements of {count} fitted "
            "values leave no residual to tell it: give it (noise_sd), or fit fewer values",
        )


def _named_maps(model: TissueModel, result: FitResult) -> dict[str, Tensor]:
    """Return the maps of a fit by the names of their files, see ``ModelFit.quantities``."""
    values = {p.path: result.parameters[:, i] for i, p in enumerate(model.parameters)}
    errors = {p.path: result.standard_errors[:, i] for i, p in enumerate(model.parameters)}
    return named_quantities(values, errors, model.protons) | {"rmse": result.rmse}
