"""The spectrum of a single place of an acquisition, with its fit: what a live plot shows and the console asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.messages.input_errors import naming
from NeuroCESTLib.scene.geometry import Geometry

from ..methods.fitted_spectrum import fitted_spectrum
from ..methods.registry import quantify

if TYPE_CHECKING:
    from ..methods.base import Quantification, Settings
    from ..tissue.spectra import ZSpectra
    from .study import Study


@dataclass(frozen=True)
class PlacedSpectrum:
    """A spectrum, and what a method finds in it.

    Where Lorentzian lines of one power are fitted with a B0 map, this is the spectrum of this power relative to its
    water line, which is what is fitted. Otherwise it is the spectrum as acquired.

    Attributes:
        name: Where it comes from, for titles and legends.
        offsets_ppm: Offsets in ppm, of shape (measurement,).
        power_uT: B1 in uT of each measurement, shape (measurement,).
        signal: Normalised signal, shape (measurement,); NaN marks unusable measurements.
        sd: Standard deviation over a region, shape (measurement,), or None for a single voxel.
        fit: Fitted signal, shape (measurement,), or None; NaN where the method uses no measurement.
        pools: Line of each Lorentzian pool as ``1 - line``, shape (measurement,), by name.
        values: Value and standard error (NaN where there is none) of each quantity, by name.
        warnings: Sentences for the user.
    """

    name: str
    offsets_ppm: np.ndarray
    power_uT: np.ndarray
    signal: np.ndarray
    sd: np.ndarray | None = None
    fit: np.ndarray | None = None
    pools: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, tuple[float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def residual(self) -> np.ndarray | None:
        """Signal minus fit, of shape (measurement,), or None without a fit."""
        return None if self.fit is None else self.signal - self.fit

    def powers(self) -> list[tuple[float, np.ndarray]]:
        """Return each B1 in uT, lowest first, with its measurements in the order of their offsets."""
        found = []
        for power in np.unique(self.power_uT):
            rows = np.flatnonzero(self.power_uT == power)
            found.append((float(power), rows[np.argsort(self.offsets_ppm[rows], kind="stable")]))
        return found


class SpectraOfPlaces:
    """Spectra of an acquisition at any place; made once and asked often.

    Args:
        study: The acquisition.
        spectra: Its normalised spectra with the maps of their voxels.
        names: What messages of methods call each input, by its role; the acquisition stands for all others.
    """

    def __init__(self, study: Study, spectra: ZSpectra, names: Mapping[str, str] | None = None) -> None:
        self.geometry: Geometry = study.geometry
        self._name = study.name
        self._title = study.title
        self._names = dict(names or {})
        self._spectra = spectra
        self._row = np.full(study.raw[0].size, -1)
        self._row[study.voxels] = np.arange(len(study.voxels))

    def at(
        self, position_RAS: tuple[float, float, float], method: str = "", settings: Settings | None = None
    ) -> PlacedSpectrum:
        """Return the spectrum of the voxel at a place.

        Args:
            position_RAS: Place in world coordinates, in mm.
            method: Method to fit it with; empty for the measured points alone.
            settings: Settings of the method.

        Raises:
            ValueError: The place is outside of the acquisition or of its mask, the voxel has no usable signal, or the
                method cannot work with the acquisition.
        """
        i, j, k = np.rint((np.linalg.inv(self.geometry.ijk_to_ras) @ (*position_RAS, 1.0))[:3]).astype(int)
        slices, rows, columns = self.geometry.shape
        if not (0 <= i < columns and 0 <= j < rows and 0 <= k < slices):
            raise ValueError(f"the place is outside of '{self._name}'")
        return self._of(np.array([(k * rows + j) * columns + i]), f"voxel ({i}, {j}, {k})", method, settings)

    def over(self, mask: np.ndarray, name: str, method: str = "", settings: Settings | None = None) -> PlacedSpectrum:
        """Return the mean spectrum of a region with its standard deviation, and the fit of the mean.

        Args:
            mask: Boolean (K, J, I) on the grid of the acquisition.
            name: Name of the region.
            method: Method to fit the mean with; empty for the measured points alone.
            settings: Settings of the method.

        Raises:
            ValueError: As for :meth:`at`.
        """
        return self._of(np.flatnonzero(mask), name, method, settings)

    def _of(self, voxels: np.ndarray, name: str, method: str, settings: Settings | None) -> PlacedSpectrum:
        import torch

        rows = self._row[voxels]
        chosen = self._spectra.of_voxels(torch.from_numpy(rows[rows >= 0]))
        usable = torch.isfinite(chosen.signal).any(1)
        if not bool(usable.any()):
            raise ValueError(f"{name} of '{self._name}' has no usable signal")
        chosen = chosen.of_voxels(usable.nonzero()[:, 0])
        with naming(self._names, self._title):
            chosen, warnings = _as_fitted(chosen, method, settings)
            spectrum = chosen.mean_voxel() if len(voxels) > 1 else chosen
            protocol = chosen.protocol
            deviations = torch.where(torch.isfinite(chosen.signal), chosen.signal - spectrum.signal, torch.nan)
            placed = PlacedSpectrum(
                name,
                protocol.offsets_ppm.detach().numpy(),
                protocol.b1_uT.detach().expand(protocol.measurement_count).numpy(),
                spectrum.signal[0].numpy(),
                deviations.square().nanmean(0).sqrt().numpy() if len(voxels) > 1 else None,
                warnings=tuple(warnings),
            )
            return _with_fit(placed, quantify(spectrum, method, settings)) if method else placed


def _as_fitted(spectra: ZSpectra, method: str, settings: Settings | None) -> tuple[ZSpectra, list[str]]:
    """Return spectra as a method fits them, and sentences for the user about what was done to them.

    Lorentzian lines of one power are fitted to spectra of this power that are corrected for a B0 map, where there is
    one. All others are left as they are.
    """
    from ..methods.base import Input
    from ..methods.base import Settings as Defaults
    from ..methods.registry import method_named
    from ..preprocessing.fields import centered_on_water
    from ..preprocessing.powers import at_one_power, b1_warnings, corrects_b1

    if not method or spectra.b0_shift_ppm is None:
        return spectra, []
    chosen, power_uT = method_named(method), (settings or Defaults()).power_uT
    if chosen.physical or not {Input.LORENTZIAN, Input.POWER} <= set(chosen.takes):
        return spectra, []
    centered = centered_on_water(at_one_power(spectra, power_uT))
    acquired = centered.signal.isfinite().any(0)
    if not bool(acquired.any()):
        return spectra, []
    used = replace(centered.select(acquired), valid=None)
    if not corrects_b1(spectra):
        return used, []
    return replace(used, b1_relative=None), b1_warnings(spectra, power_uT)


def _with_fit(placed: PlacedSpectrum, result: Quantification) -> PlacedSpectrum:
    """Add what a method has found, at the measurements that it used."""
    found = fitted_spectrum(result, placed.offsets_ppm, placed.power_uT)
    warnings = (*placed.warnings, *result.warnings)
    return replace(placed, fit=found.fit, pools=found.pools, values=found.values, warnings=warnings)
