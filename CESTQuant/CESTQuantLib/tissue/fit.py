"""Voxelwise fits of tissue models with the R1rho or Bloch-McConnell engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fitting.least_squares import FitResult, finite_difference_model, levenberg_marquardt
from ..physics.protocol import Protocol
from ..physics.simulation import ENGINES
from ..physics.units import concentration_mM
from .model import TissueModel
from .r1rho_jacobian import analytic_model, has_analytic_jacobian

DAMPING_FROM_START = 0.1
DAMPING_NEAR_SOLUTION = 1e-4
PROPAGATORS_A_CHUNK = 2**13
"""Measurements x voxels x perturbed copies at a time: their matrices then stay in the L2 cache."""
PROPAGATORS_A_CHUNK_CARRIED_OVER = 2**15
"""Larger where measurements are stepped through one by one, so that each step is long enough to be worth a call."""


@dataclass(frozen=True)
class ModelFit:
    """Result of a fit with the model's own predictions.

    quantities: name -> (voxel,), as written to maps (``<pool>_fraction``, ``<pool>_exchange_rate_Hz``,
    ``<pool>_r2_Hz``, ``<pool>_concentration_mM``, each with ``<same>_sd``, and ``rmse``); NaN where not fitted.
    """

    result: FitResult
    quantities: dict[str, Tensor]
    model: TissueModel
    protocol: Protocol
    engine: str
    maps: dict[str, Tensor]
    b0_shift_ppm: Tensor | None
    b1_relative: Tensor | None

    def predict(self, voxels: Tensor, protocol: Protocol | None = None) -> Tensor:
        """Fitted signal (voxel, measurement) of chosen voxels, under another protocol if one is given."""
        arguments = {n: v[voxels] for n, v in self.maps.items()}
        for name, value in (("b0_shift_ppm", self.b0_shift_ppm), ("b1_relative", self.b1_relative)):
            if value is not None:
                arguments[name] = value[voxels]
        values = _values(self.model, self.result.parameters[voxels].T, arguments)
        return _predict(self.model, protocol or self.protocol, self.engine, values, self.result.parameters).T

    def median_correlation(self) -> dict[str, float]:
        """Median over fitted voxels of the correlation of every pair of fitted parameters, by 'a, b'."""
        paths = [p.path for p in self.model.parameters]
        return {
            f"{paths[i]}, {paths[j]}": float(self.result.correlation[:, i, j].nanmedian())
            for i in range(len(paths))
            for j in range(i)
        }


def fit_tissue_model(
    signal: Tensor,
    protocol: Protocol,
    model: TissueModel,
    *,
    engine: str = "r1rho",
    maps: Mapping[str, Tensor] | None = None,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
    valid: Tensor | None = None,
    max_iterations: int = 60,
    progress: Callable[[float, str], None] | None = None,
) -> ModelFit:
    """Fit a tissue model to every voxel.

    signal: (voxel, measurement), normalised as ``protocol.signal_normalisation`` says. maps: (voxel,) by the names
    that the model refers to. b0_shift_ppm, b1_relative: (voxel,) local fields. valid: (voxel, measurement) bool.
    The R1rho engine fits in float32 with analytic derivatives where they exist; otherwise, and for Bloch-McConnell,
    in float64 with finite differences. For independent CW measurements, Bloch-McConnell starts from the R1rho fit.

    Raises ValueError for a model without fitted values or a map that is missing.
    """
    if not model.parameters:
        raise ValueError('the model has no fitted value; give at least one as {"fit": true, …}')
    missing = [n for n in model.map_names if n not in (maps or {})]
    if missing:
        raise ValueError(f"the model refers to the map '{missing[0]}', which is not given")
    _require_physical(protocol)
    task = _Task(signal, protocol, model, dict(maps or {}), b0_shift_ppm, b1_relative, valid, max_iterations, progress)
    if engine == "r1rho":
        result = task.fit_r1rho()
    elif engine == "bloch-mcconnell":
        result = task.fit_bloch_mcconnell()
    else:
        raise ValueError(f"engine '{engine}' is unknown; use one of {', '.join(ENGINES)}")
    quantities = physical_quantities(model, result)
    return ModelFit(result, quantities, model, protocol, engine, task.maps, b0_shift_ppm, b1_relative)


@dataclass(frozen=True)
class _Task:
    signal: Tensor
    protocol: Protocol
    model: TissueModel
    maps: dict[str, Tensor]
    b0_shift_ppm: Tensor | None
    b1_relative: Tensor | None
    valid: Tensor | None
    max_iterations: int
    progress: Callable[[float, str], None] | None

    def fit_r1rho(self) -> FitResult:
        if has_analytic_jacobian(self.model, self.protocol):
            evaluate = analytic_model(self.model, self.protocol, self._unpack)
            return self._fit(evaluate, torch.float32, None, None, self.progress)
        return self._fit(self._differences("r1rho"), torch.float64, None, None, self.progress)

    def fit_bloch_mcconnell(self) -> FitResult:
        start = None
        cw = self.protocol.pulses is None and not self.protocol.magnetisation_carried_over
        if cw and has_analytic_jacobian(self.model, self.protocol):
            start = replace(self, progress=None).fit_r1rho().parameters.double()
        copies = len(self.model.parameters) + 1
        carried_over = self.protocol.magnetisation_carried_over
        propagators = PROPAGATORS_A_CHUNK_CARRIED_OVER if carried_over else PROPAGATORS_A_CHUNK
        chunk = max(1, propagators // (self.protocol.measurement_count * copies))
        return self._fit(self._differences("bloch-mcconnell"), torch.float64, start, chunk, self.progress)

    def _arguments(self) -> dict[str, Tensor]:
        arguments = {n: self.maps[n] for n in self.model.map_names}
        for name, value in (("b0_shift_ppm", self.b0_shift_ppm), ("b1_relative", self.b1_relative)):
            if value is not None and name not in self.model.entries:
                arguments[name] = value
        return arguments

    def _unpack(self, parameters: Tensor, *arguments: Tensor) -> dict[str, float | Tensor]:
        return _values(self.model, parameters, dict(zip(self._arguments(), arguments, strict=True)))

    def _differences(self, engine: str):
        def predict(parameters: Tensor, *arguments: Tensor) -> Tensor:
            values = self._unpack(parameters, *arguments)
            return _predict(self.model, self.protocol, engine, values, parameters)

        scale = torch.tensor([max(abs(p.lower), abs(p.upper)) for p in self.model.parameters], dtype=torch.float64)
        return finite_difference_model(predict, scale=scale)

    def _fit(self, evaluate, dtype: torch.dtype, start: Tensor | None, chunk: int | None, progress) -> FitResult:
        parameters = self.model.parameters
        default = torch.tensor([p.start for p in parameters], dtype=dtype, device=self.signal.device)
        if start is not None:
            start = torch.where(torch.isfinite(start), start, default)
        priors = {}
        if any(p.prior for p in parameters):
            priors = {
                "prior_mean": torch.tensor([p.prior[0] if p.prior else 0.0 for p in parameters], dtype=dtype),
                "prior_sd": torch.tensor([p.prior[1] if p.prior else torch.inf for p in parameters], dtype=dtype),
            }
        return levenberg_marquardt(
            evaluate,
            self.signal.to(dtype),
            default if start is None else start,
            torch.tensor([p.lower for p in parameters], dtype=dtype),
            torch.tensor([p.upper for p in parameters], dtype=dtype),
            arguments=tuple(self._arguments().values()),
            valid=self.valid,
            max_iterations=self.max_iterations,
            chunk_voxels=chunk,
            start_damping=DAMPING_FROM_START if start is None else DAMPING_NEAR_SOLUTION,
            progress=progress,
            **priors,
        )


def _values(model: TissueModel, parameters: Tensor, arguments: Mapping[str, Tensor]) -> dict[str, float | Tensor]:
    fitted = {p.path: parameters[i] for i, p in enumerate(model.parameters)}
    arguments = {n: a.to(parameters.dtype) for n, a in arguments.items()}
    fields = {
        "b0_shift_ppm": arguments.get("b0_shift_ppm", 0.0),
        "b1_relative": arguments.get("b1_relative", 1.0),
    }
    return fields | model.values(fitted, arguments)


def _predict(
    model: TissueModel, protocol: Protocol, engine: str, values: Mapping[str, float | Tensor], like: Tensor
) -> Tensor:
    return ENGINES[engine](
        model.tissue(values),
        protocol,
        b0_shift_ppm=values["b0_shift_ppm"],
        b1_relative=values["b1_relative"],
        like=like.new_empty(0),
    )


def _require_physical(protocol: Protocol) -> None:
    if not bool((protocol.saturation_time_s > 0).any()):
        raise ValueError("the protocol gives no saturation time and B1; a physical model needs a protocol.json or .seq")


_NAMES = {"fraction": "fraction", "k_Hz": "exchange_rate_Hz", "dw_ppm": "dw_ppm", "T1_s": "t1_s"}


def physical_names(path: str) -> str:
    """Name of the map of an entry by its path; that of a T2 is the name of R2 = 1/T2."""
    owner, _, key = path.rpartition(".")
    if key == "T2_s":
        return f"{owner}_r2_Hz"
    return f"{owner}_{_NAMES[key]}" if owner else key


def physical_quantities(model: TissueModel, result: FitResult) -> dict[str, Tensor]:
    """Maps of a fit by name, with standard errors as ``<name>_sd``; T2 is reported as R2 = 1/T2 in 1/s."""
    maps: dict[str, Tensor] = {}
    for i, p in enumerate(model.parameters):
        value, error = result.parameters[:, i], result.standard_errors[:, i]
        owner, _, key = p.path.rpartition(".")
        name = physical_names(p.path)
        if key == "T2_s":
            value, error = 1 / value, error / value**2
        maps[name], maps[f"{name}_sd"] = value, error
        if key == "fraction" and owner in model.protons:
            name = f"{owner}_concentration_mM"
            maps[name] = concentration_mM(value, model.protons[owner])
            maps[f"{name}_sd"] = concentration_mM(error, model.protons[owner])
    maps["rmse"] = result.rmse
    return maps
