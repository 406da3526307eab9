"""Z-spectra of regions, with their fits and the residuals below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.report.colors import Color, region_colors
from NeuroCESTLib.report.layout import MIN_COLUMNS, even_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Light colours need a rim to be visible on white.
_MARKERS = ("o", "s", "^", "D", "v")
"""Markers of the powers of a spectrum, lowest first."""
_MARKER_RIM: dict[str, Any] = {"markeredgecolor": "0.35", "markeredgewidth": 0.4}


@dataclass(frozen=True)
class Spectrum:
    """Z-spectrum of one region.

    Attributes:
        name: Region; the same name among the outlined regions gives it the same colour.
        offsets: Offsets in ppm, or measurement numbers; shape (n,).
        signal: Mean signal relative to M0; shape (n,).
        sd: Standard deviation over the region, shape (n,), or None.
        fit: Fitted signal at the same offsets, shape (n,), or None.
        power_uT: B1 in uT of each measurement, shape (n,); each power is a curve of its own, and so is each pass
            through a list of offsets that was measured several times. None for a single curve.
    """

    name: str
    offsets: np.ndarray
    signal: np.ndarray
    sd: np.ndarray | None = None
    fit: np.ndarray | None = None
    power_uT: np.ndarray | None = None

    def curves(self) -> list[tuple[str, np.ndarray]]:
        """Return the measurements of each curve, by offset, with its power and pass as text where there are several."""
        offsets = np.asarray(self.offsets)
        if self.power_uT is None:
            return [("", np.argsort(offsets, kind="stable"))]
        power = np.asarray(self.power_uT)
        found = []
        for value in np.unique(power):
            passes = _passes(offsets, np.flatnonzero(power == value))
            for number, rows in enumerate(passes, start=1):
                parts = [f"{value:g} µT"] if len(np.unique(power)) > 1 else []
                parts += [f"pass {number}"] if len(passes) > 1 else []
                found.append((", ".join(parts), rows[np.argsort(offsets[rows], kind="stable")]))
        return found


def _passes(offsets: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Divide measurements of one power by how often their offset was measured before.

    They stay together where only a few offsets, such as those of references, are measured again.
    """
    occurrence = np.array([np.count_nonzero(offsets[rows[:n]] == offsets[row]) for n, row in enumerate(rows)])
    parts = [rows[occurrence == number] for number in range(int(occurrence.max(initial=0)) + 1)]
    again = sum(len(part) for part in parts[1:])
    return parts if again >= 0.5 * len(parts[0]) else [rows]


@dataclass(frozen=True)
class AxisLabels:
    """Labels of the spectra's axes; an x label in ppm lets chemical shift run from right to left.

    Attributes:
        x: Label of the offsets or measurements.
        y: Label of the signal.
    """

    x: str = "offset (ppm)"
    y: str = "Z = M / M0"

    @property
    def in_ppm(self) -> bool:
        """Whether the x axis is a chemical shift."""
        return "ppm" in self.x


def spectra_size(count: int) -> tuple[float, float]:
    """Width and height in inches that ``count`` spectra need."""
    rows, columns = even_grid(count, MIN_COLUMNS)
    return columns * 3.6 + 0.4, rows * 3.6 + 0.3


def draw_spectra(
    figure: FigureBase, spectra: Sequence[Spectrum], labels: AxisLabels, region_names: Sequence[str] = ()
) -> None:
    """Draw spectra side by side, each with its fit and, below it, the residual.

    Args:
        figure: Empty figure or part of a figure.
        spectra: Spectra to draw.
        labels: Labels of the axes.
        region_names: Regions that are outlined elsewhere in the figure, in their order, so that colours agree.
    """
    rows, columns = even_grid(len(spectra), MIN_COLUMNS)
    any_fit = any(spectrum.fit is not None for spectrum in spectra)
    heights = (3, 1) if any_fit else (3, 0.001)
    axes = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights * rows})
    colors = region_colors([*region_names, *(spectrum.name for spectrum in spectra)])
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row][column], axes[2 * row + 1][column]
        if number >= len(spectra):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        spectrum = spectra[number]
        lower.sharex(upper)
        _draw_spectrum(upper, lower, spectrum, colors[spectrum.name], labels, first=column == 0)
        if not any_fit:
            lower.set_visible(False)
            upper.set_xlabel(labels.x)


def _draw_spectrum(upper: Axes, lower: Axes, spectrum: Spectrum, color: Color, labels: AxisLabels, first: bool) -> None:
    all_offsets = np.asarray(spectrum.offsets)
    near = _near_water(all_offsets) if labels.in_ppm else np.ones(len(all_offsets), bool)
    curves = [(label, rows[near[rows]]) for label, rows in spectrum.curves()]
    for number, (power, rows) in enumerate(curves):
        marker = _MARKERS[number % len(_MARKERS)]
        _draw_curve(upper, lower, spectrum, rows, color, marker, power if len(curves) > 1 or first else None)
    upper.set_title(spectrum.name, color=color, fontweight="bold", path_effects=_text_rim(color))
    upper.set_ylim(min(0.0, float(np.nanmin(np.asarray(spectrum.signal)[near], initial=0.0)) - 0.02), None)
    upper.grid(alpha=0.2)
    upper.tick_params(labelbottom=spectrum.fit is None)
    lower.axhline(0, color="0.6", linewidth=0.8)
    if spectrum.fit is not None:
        residual = 100 * (np.asarray(spectrum.signal) - np.asarray(spectrum.fit))[near]
        limit = max(1.15 * float(np.nanmax(np.abs(residual), initial=0.0)), 0.1)
        lower.set_ylim(-limit, limit)
    lower.grid(alpha=0.2)
    lower.set_xlabel(labels.x)
    if first:
        upper.set_ylabel(labels.y)
        lower.set_ylabel("residual (%)")
    if first or len(curves) > 1:
        upper.legend(loc="best", framealpha=0.7, edgecolor="none", fontsize=8)
    if labels.in_ppm:
        upper.set_xlim(all_offsets[near].max(), all_offsets[near].min())


def _draw_curve(
    upper: Axes, lower: Axes, spectrum: Spectrum, rows: np.ndarray, color: Color, marker: str, power: str | None
) -> None:
    """Draw the points, the fit and the residual of one power; ``power`` is its text for the legend, None for none."""
    offsets, signal = np.asarray(spectrum.offsets)[rows], np.asarray(spectrum.signal)[rows]
    label = power or "mean"
    if spectrum.sd is not None:
        label = power or "mean ± SD"
        sd = np.asarray(spectrum.sd)[rows]
        upper.fill_between(offsets, signal - sd, signal + sd, color=color, alpha=0.25, linewidth=0)
    legend = None if power is None else label
    upper.plot(offsets, signal, marker, markersize=3, color=color, label=legend, **_MARKER_RIM)
    if spectrum.fit is not None:
        fit = np.asarray(spectrum.fit)[rows]
        upper.plot(
            offsets, fit, "-", color="black", linewidth=1, label="fit" if legend and marker == _MARKERS[0] else None
        )
        residual = 100 * (signal - fit)
        lower.plot(offsets, residual, f"{marker}-", markersize=2, linewidth=0.8, color=color, **_MARKER_RIM)


def _text_rim(color: Color) -> list[Any]:
    """Path effects that make text of a light colour readable on white; none for other colours."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    light = np.dot(to_rgb(color), (0.30, 0.59, 0.11)) > 0.7
    return [withStroke(linewidth=1.5, foreground="0.35")] if light else []


def _near_water(offsets: np.ndarray) -> np.ndarray:
    """Select all offsets but far-off-resonance references, which would compress the rest of the spectrum."""
    limit = 5 * np.median(np.abs(offsets))
    near = np.abs(offsets) <= max(limit, 1.0)
    return near if near.sum() >= 3 else np.ones(len(offsets), bool)
