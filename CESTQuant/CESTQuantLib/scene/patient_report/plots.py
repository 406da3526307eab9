"""Plots of regions: spectra with fits, box plots and histograms of both visits, changes with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.report.embedded import embedded_picture
from NeuroCESTLib.report.layout import even_grid
from NeuroCESTLib.report.page import Picture
from NeuroCESTLib.report.spectra import AxisLabels, Spectrum, draw_spectra, spectra_size

from ...compartments.anatomy.segment_names import CAVITY
from ...compartments.results.change import Change
from ...compartments.results.statistics import Distribution
from ...compartments.results.visit import Visit
from .material import Material, quantity_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VISIT_COLORS = ("#0072B2", "#D55E00")
"""Colours of the first and the second visit in plots; colour-blind readers can tell them apart."""
MOST_SPECTRA = 6
_WITHOUT_SPECTRUM = ("tumor_core", CAVITY)
_LEAST_OFFSETS = 5
_COLUMNS = 3


def spectra_picture(visit: Visit) -> Picture | None:
    """Draw the mean spectrum of each region with its fit; None for a visit without spectra."""
    shown = [s for s in visit.spectra if np.isfinite(s.signal).any() and s.region not in _WITHOUT_SPECTRUM]
    shown = [s for s in shown if not s.region.startswith("rim_")][:MOST_SPECTRA]
    if not shown:
        return None
    titles = {region.name: region.title for region in visit.regions}
    offsets, power = shown[0].offsets_ppm, shown[0].power_uT
    by_offset = over_offset(offsets, power)
    spectra = [
        Spectrum(
            titles.get(spectrum.region, spectrum.region),
            spectrum.offsets_ppm if by_offset else np.arange(1, len(offsets) + 1),
            spectrum.signal,
            spectrum.sd,
            spectrum.fit if spectrum.fit is not None and np.isfinite(spectrum.fit).any() else None,
            spectrum.power_uT if by_offset else None,
        )
        for spectrum in shown
    ]
    labels = AxisLabels() if by_offset else AxisLabels("measurement", "signal")
    return embedded_picture(
        lambda figure: draw_spectra(figure, spectra, labels),
        spectra_size(len(spectra)),
        f"Mean spectra of {len(spectra)} regions at {visit.name}, with fits and residuals",
        f"{visit.name}: mean spectrum of each region, weighted by partial volume (band: standard deviation over its "
        "voxels), with the fit to it and the residual in percent of M0.",
    )


def over_offset(offsets_ppm: np.ndarray, power_uT: np.ndarray) -> bool:
    """Say whether measurements are spectra, several offsets at each power; schedules are drawn in their order.

    Args:
        offsets_ppm: Offset of each measurement in ppm, shape (measurement,).
        power_uT: B1 of each measurement in uT, shape (measurement,).
    """
    return all(len(np.unique(offsets_ppm[power_uT == value])) >= _LEAST_OFFSETS for value in np.unique(power_uT))


def distribution_picture(material: Material, quantities: Sequence[str], regions: Sequence[str]) -> Picture | None:
    """Draw box plots of maps over regions at each visit; None without any values."""
    quantities = [
        q for q in quantities if any(_distribution(material, number, q, r) for number in (0, 1) for r in regions)
    ]
    if not quantities:
        return None

    def draw(figure: Figure) -> None:
        for axis, quantity in _panels(figure, quantities):
            _draw_boxes(axis, material, quantity, regions)
        handles, labels = axis.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)

    rows, columns = even_grid(len(quantities), _COLUMNS)
    return embedded_picture(
        draw,
        (3.2 * max(columns, 2), 2.9 * rows),
        "Box plots of " + ", ".join(map(quantity_title, quantities)) + " in each region and visit",
        "Box plots: median, quartiles, and 5th to 95th percentile of the voxels, weighted by partial volume.",
    )


def histogram_picture(material: Material, quantities: Sequence[str], regions: Sequence[str]) -> Picture | None:
    """Draw histograms of maps over a few regions at each visit; None without any values."""
    quantities = [
        q for q in quantities if any(_distribution(material, number, q, r) for number in (0, 1) for r in regions)
    ]
    if not quantities:
        return None

    def draw(figure: Figure) -> None:
        for axis, quantity in _panels(figure, quantities):
            for number, visit in enumerate(material.visits):
                for region, line in zip(regions, ("solid", "dashed"), strict=False):
                    found = _distribution(material, number, quantity, region)
                    if found is not None:
                        label = f"{material.region_title(region)}, {visit.visit.name}"
                        color = VISIT_COLORS[number % 2]
                        axis.stairs(
                            100 * found.share,
                            material.factor(quantity) * found.edges,
                            color=color,
                            ls=line,
                            lw=1.3,
                            label=label,
                        )
            axis.set_xlabel(material.with_unit(quantity))
            axis.set_ylabel("share of the region (%)")
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)

    rows, columns = even_grid(len(quantities), _COLUMNS)
    return embedded_picture(
        draw,
        (3.2 * max(columns, 2), 2.3 * rows + 0.5),
        "Histograms of " + ", ".join(map(quantity_title, quantities)),
        f"Histograms of {' and '.join(material.region_title(region).lower() for region in regions)}.",
    )


def changes_picture(material: Material, quantities: Sequence[str]) -> Picture | None:
    """Draw the change of each region's mean with its interval; None without changes."""
    between = material.analysis.between
    if between is None:
        return None
    rows = {
        quantity: [
            material.scaled(change)
            for change in between.changes
            if change.quantity == quantity and np.isfinite([change.change, change.lower]).all()
        ]
        for quantity in quantities
    }
    rows = {quantity: changes for quantity, changes in rows.items() if changes}
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        for axis, quantity in _panels(figure, list(rows)):
            _draw_changes(axis, material, rows[quantity])
            axis.set_xlabel(material.with_unit(quantity), fontsize=8)
            axis.locator_params(axis="x", nbins=4)

    grid = even_grid(len(rows), _COLUMNS)
    tallest = max(len(changes) for changes in rows.values())
    level = next(iter(rows.values()))[0].level
    return embedded_picture(
        draw,
        (3.3 * max(grid[1], 2), (0.27 * tallest + 0.9) * grid[0]),
        "Changes of the regional means between the visits with their confidence intervals",
        f"Change from {material.visits[0].visit.name} to {material.visits[1].visit.name} with {100 * level:g} % "
        "confidence interval; hollow where a visit does not show enough of the region.",
    )


def _panels(figure: Figure, names: Sequence[str]) -> list[tuple[Axes, str]]:
    rows, columns = even_grid(len(names), _COLUMNS)
    axes = figure.subplots(rows, max(columns, 2), squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return list(zip(axes, names, strict=False))


def _distribution(material: Material, visit: int, quantity: str, region: str) -> Distribution | None:
    if visit >= len(material.visits):
        return None
    found = (d for d in material.visits[visit].visit.distributions if (d.quantity, d.region) == (quantity, region))
    return next((d for d in found if np.isfinite(d.whiskers).all()), None)


def _draw_boxes(axis: Axes, material: Material, quantity: str, regions: Sequence[str]) -> None:
    count = len(material.visits)
    for number, visit in enumerate(material.visits):
        boxes, places = [], []
        for place, region in enumerate(regions):
            found = _distribution(material, number, quantity, region)
            if found is not None:
                low, q1, median, q3, high = (material.factor(quantity) * value for value in found.whiskers)
                boxes.append({"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "fliers": []})
                places.append(place + (number - (count - 1) / 2) * 0.36)
        if boxes:
            color = VISIT_COLORS[number % 2]
            style = {"color": color, "linewidth": 1.2}
            axis.bxp(
                boxes,
                positions=places,
                widths=0.28,
                showfliers=False,
                manage_ticks=False,
                patch_artist=True,
                boxprops={"facecolor": color, "alpha": 0.3, "edgecolor": color},
                medianprops={"color": color, "linewidth": 2},
                whiskerprops=style,
                capprops=style,
            )
            axis.plot([], [], color=color, lw=5, alpha=0.5, label=visit.visit.name)
    axis.set_xticks(
        range(len(regions)), [material.region_title(r) for r in regions], rotation=35, ha="right", fontsize=8
    )
    axis.set_ylabel(material.with_unit(quantity))
    axis.grid(axis="y", alpha=0.25)


def _draw_changes(axis: Axes, material: Material, changes: Sequence[Change]) -> None:
    for place, change in enumerate(reversed(changes)):
        certain = change.lower > 0 or change.upper < 0
        color = "black" if certain else "0.5"
        errors = [[change.change - change.lower], [change.upper - change.change]]
        face = color if change.enough else "white"
        axis.errorbar(
            change.change, place, xerr=errors, fmt="o", color=color, mfc=face, markersize=4.5, capsize=2.5, lw=1.3
        )
    axis.axvline(0, color="0.6", lw=0.8)
    axis.set_yticks(range(len(changes)), [material.region_title(c.region) for c in reversed(changes)], fontsize=8)
    axis.set_ylim(-0.6, len(changes) - 0.4)
    axis.grid(axis="x", alpha=0.25)
