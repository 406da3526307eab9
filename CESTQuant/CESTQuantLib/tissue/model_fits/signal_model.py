"""The signal of a tissue model as a function of its fitted values and of maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...fitting.least_squares import Model, finite_difference_model
from ...physics.engines import engine_named
from ...physics.pools import Scalar
from ...physics.protocol import Protocol
from ...physics.receiver import measured_signal
from ..model import TissueModel
from ..r1rho_jacobian import analytic_model
from ..spectra import ZSpectra


@dataclass(frozen=True)
class SignalModel:
    """The signal of a voxel as a function of its fitted values and maps.

    Where the model has a ``signal_scale`` s or a ``noise_floor`` n, the measured signal is s Z, or the magnitude
    ``sqrt((s Z)^2 + n^2)``, of the signal Z of the engine.

    Attributes:
        tissue: Tissue model.
        protocol: Acquisition.
        engine: Name of the engine that computes the signal.
        map_names: Names of the maps, in the order in which they are passed.
        noise_sd: Standard deviation of a measurement; None where it is not known.
    """

    tissue: TissueModel
    protocol: Protocol
    engine: str
    map_names: tuple[str, ...] = ()
    noise_sd: float | None = None

    def values(self, parameters: Tensor, *maps: Tensor) -> dict[str, Scalar]:
        """Resolve the entries of the tissue model and the fields.

        Args:
            parameters: (p, voxel) fitted values.
            maps: Tensors (voxel,).

        Returns:
            Values by path, ``b0_shift_ppm`` and ``b1_relative`` among them.
        """
        fitted = {parameter.path: parameters[i] for i, parameter in enumerate(self.tissue.parameters)}
        by_name = {name: values.to(parameters.dtype) for name, values in zip(self.map_names, maps, strict=True)}
        fields: dict[str, Scalar] = {
            "b0_shift_ppm": by_name.get("b0_shift_ppm", 0.0),
            "b1_relative": by_name.get("b1_relative", 1.0),
        }
        return fields | self.tissue.values(fitted, by_name)

    def predict(self, parameters: Tensor, *maps: Tensor) -> Tensor:
        """Compute the signal (measurement, voxel); arguments as in ``values``."""
        values = self.values(parameters, *maps)
        signal = engine_named(self.engine)(
            self.tissue.tissue(values),
            self.protocol,
            b0_shift_ppm=values["b0_shift_ppm"],
            b1_relative=values["b1_relative"],
            like=parameters.new_empty(0),
        )
        return measured_signal(signal, values.get("signal_scale"), values.get("noise_floor"))

    def with_finite_differences(self) -> Model:
        """Return prediction and Jacobian by forward differences, with steps relative to the bounds."""
        largest = [max(abs(parameter.lower), abs(parameter.upper)) for parameter in self.tissue.parameters]
        return finite_difference_model(self.predict, scale=torch.tensor(largest, dtype=torch.float64))

    def with_analytic_jacobian(self) -> Model:
        """Return the prediction of the R1rho engine and its analytic Jacobian, see ``has_analytic_jacobian``."""
        return analytic_model(self.tissue, self.protocol, self.values)


def available_maps(spectra: ZSpectra) -> dict[str, Tensor]:
    """Return the maps that a model may refer to, by name; T1 under ``t1`` unless that is a map of its own."""
    return dict(spectra.maps) if spectra.t1_s is None else {"t1": spectra.t1_s, **spectra.maps}


def maps_of_model(spectra: ZSpectra, model: TissueModel) -> dict[str, Tensor]:
    """Return the maps that the model refers to, and the field maps unless the model has fields of its own."""
    available = available_maps(spectra)
    maps = {name: available[name] for name in model.map_names}
    fields = {"b0_shift_ppm": spectra.b0_shift_ppm, "b1_relative": spectra.b1_relative}
    return maps | {n: values for n, values in fields.items() if values is not None and n not in model.entries}
