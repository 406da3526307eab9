"""A plot of the spectrum under the mouse, which follows the crosshair of the slice views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import qt
import slicer
from slicer.util import VTKObservationMixin

from NeuroCESTLib.scene.plots import Curve, PlotLayout, SpectrumChart

REST_MS = 200
"""Time in ms for which the mouse must rest before the spectrum is fitted."""
# Okabe and Ito's palette: a colour for each power
_COLORS = ((0.0, 0.45, 0.7), (0.84, 0.37, 0.0), (0.0, 0.62, 0.45), (0.8, 0.47, 0.65), (0.9, 0.62, 0.0))
_POOL_COLOR = (0.6, 0.6, 0.6)
_PIN_COLORS = ((0.4, 0.2, 0.0), (0.35, 0.7, 0.9), (0.5, 0.0, 0.5), (0.75, 0.7, 0.1), (0.0, 0.35, 0.2), (0.3, 0.3, 0.3))


class LiveSpectrum(VTKObservationMixin):
    """Follows the crosshair: measured points at once, and the fit as soon as the mouse rests.

    Args:
        measured: Function of a place (RAS, mm) that returns its spectrum without a fit. It may raise ValueError.
        fitted: The same with the fit; it may return None where there is nothing to fit with.
        say: Function that shows a text to the user.
        pinned: Function that returns the spectra that stay in the plot for comparison. It may raise ValueError.
    """

    def __init__(
        self,
        measured: Callable[[tuple[float, ...]], Any],
        fitted: Callable[[tuple[float, ...]], Any],
        say: Callable[[str], None],
        pinned: Callable[[], list[Any]] = list,
    ) -> None:
        VTKObservationMixin.__init__(self)
        self._measured, self._fitted, self._say, self._pinned = measured, fitted, say, pinned
        self.following = False
        self._place: tuple[float, ...] | None = None
        self._layout = PlotLayout()
        self.chart = SpectrumChart("Z-spectrum")
        self.rest = qt.QTimer()
        self.rest.setSingleShot(True)
        self.rest.setInterval(REST_MS)
        self.rest.connect("timeout()", self.fit)

    def start(self) -> None:
        """Show the plot beside the slices and follow the crosshair."""
        crosshair = self._crosshair()
        if crosshair is not None and not self.hasObserver(crosshair, self._event(), self.onCursorMoved):
            self.addObserver(crosshair, self._event(), self.onCursorMoved)
        self.following = True
        self._layout.show(self.chart.node)
        self.refresh()

    def refresh(self) -> None:
        """Show the pinned spectra as they are now, with the one at the last place of the mouse."""
        if not self.following:
            return
        if self._place is not None:
            self._show(self._measured)
            self.rest.start()
            return
        try:
            pins = self._pinned()
        except ValueError as error:
            self._say(str(error))
            return
        if pins:
            self.chart.show("", curves_of_pins(pins), offsets_to_show(pins[0].offsets_ppm))

    def stop(self) -> None:
        """Follow the crosshair no longer, and go back to the earlier layout."""
        self.following = False
        self.rest.stop()
        self.removeObservers()
        self._layout.leave()

    def onCursorMoved(self, caller: Any, event: Any) -> None:
        """Show the measured points under the mouse."""
        place = [0.0, 0.0, 0.0]
        if not caller.GetCursorPositionRAS(place):
            return
        self._place = tuple(place)
        if self._show(self._measured):
            self.rest.start()
        else:
            self.rest.stop()

    def fit(self) -> None:
        """Show the fit at the place where the mouse rests."""
        if self._place is not None:
            self._show(self._fitted)

    def _show(self, spectrum_at: Callable[[tuple[float, ...]], Any]) -> bool:
        assert self._place is not None
        try:
            spectrum = spectrum_at(self._place)
            pins = self._pinned() if spectrum is not None else []
        except ValueError as error:
            self._say(str(error))
            return False
        if spectrum is not None:
            curves = [*curves_of(spectrum), *curves_of_pins(pins)]
            self.chart.show(spectrum.name, curves, offsets_to_show(spectrum.offsets_ppm))
            self._say(values_of(spectrum))
        return True

    def _crosshair(self) -> Any:
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")

    def _event(self) -> int:
        return slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent


def curves_of(spectrum: Any) -> list[Curve]:
    """Return the curves of a spectrum: points, fit and residual of each power, and the lines of single pools."""
    curves = []
    powers = spectrum.powers()
    for number, (power, rows) in enumerate(powers):
        color = _COLORS[number % len(_COLORS)]
        at = f" at {power:g} µT" if len(powers) > 1 else ""
        offsets = spectrum.offsets_ppm[rows]
        curves.append(Curve(f"measured{at}", offsets, spectrum.signal[rows], color, points=True))
        if spectrum.fit is not None and np.isfinite(spectrum.fit[rows]).any():
            curves.append(Curve(f"fit{at}", offsets, spectrum.fit[rows], color))
            curves.append(Curve(f"residual{at}", offsets, spectrum.residual[rows], color, dashed=True))
            curves += [Curve(pool, offsets, line[rows], _POOL_COLOR) for pool, line in spectrum.pools.items()]
    return curves


def curves_of_pins(spectra: list[Any]) -> list[Curve]:
    """Return the curves of pinned spectra: a line for each power, and dashed lines one standard deviation around it."""
    curves = []
    for number, spectrum in enumerate(spectra):
        color = _PIN_COLORS[number % len(_PIN_COLORS)]
        powers = spectrum.powers()
        for power, rows in powers:
            at = f" at {power:g} µT" if len(powers) > 1 else ""
            offsets, mean = spectrum.offsets_ppm[rows], spectrum.signal[rows]
            curves.append(Curve(f"{spectrum.name}{at}", offsets, mean, color))
            if spectrum.sd is not None:
                sd = spectrum.sd[rows]
                curves.append(Curve(f"{spectrum.name}{at} + SD", offsets, mean + sd, color, dashed=True))
                curves.append(Curve(f"{spectrum.name}{at} - SD", offsets, mean - sd, color, dashed=True))
    return curves


def offsets_to_show(offsets_ppm: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest offset to show: all but far-off references, which would compress the rest."""
    limit = max(5 * float(np.median(np.abs(offsets_ppm))), 1.0)
    near = offsets_ppm[np.abs(offsets_ppm) <= limit]
    return float(near.min()), float(near.max())


def values_of(spectrum: Any) -> str:
    """Return the values of a fit with their standard errors, one in a line; the name of the place without a fit."""
    lines = [spectrum.name]
    for name, (value, error) in spectrum.values.items():
        lines.append(f"{name}: {value:.4g}" + (f" ± {error:.2g}" if np.isfinite(error) else ""))
    return "\n".join([*lines, *spectrum.warnings])
