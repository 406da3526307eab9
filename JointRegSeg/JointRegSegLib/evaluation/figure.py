"""Pictures of an evaluation: every case as a dot, by score and by set of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images.compartments import title_of
from ..images.labels import REGIONS
from ..metrics.surface_distance import HD95_ONE_EMPTY_MM
from ..training.figure import pyplot_or_none, save

_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#000000", "#882255", "#999933")
"""Of the weights; none is that of a compartment."""


_HD95 = "HD95 (mm)"


def draw_overview(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, title: str = "") -> None:
    """Dots and medians of the cases (PNG): Dice, HD95, landmark errors, as far as there are any.

    rows: of the cases that went well, by name of the weights. Where just one of prediction and truth is empty there is
    no distance, only BraTS's number for it: a cross above the others, which the median leaves out. Nothing is drawn
    where matplotlib is missing.
    """
    pyplot = pyplot_or_none()
    if pyplot is None:
        return
    regions = [title_of(name) for name in REGIONS]
    both = ("fixed", "moving")
    panels = [
        ("Dice", regions, [[f"{side}_dice_{name}" for side in both] for name in REGIONS], (0, 1)),
        (_HD95, regions, [[f"{side}_hd95_mm_{name}" for side in both] for name in REGIONS], None),
        ("Dice after warp", regions, [[f"warped_dice_{name}"] for name in REGIONS], (0, 1)),
        (
            "landmark error, median (mm)",
            ["before", "affine", "after"],
            [[f"landmark_error_mm_median_{stage}"] for stage in ("before", "affine", "after")],
            None,
        ),
    ]
    panels = [panel for panel in panels if any(_values(some, names) for some in rows.values() for names in panel[2])]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), layout="constrained", squeeze=False)
    try:
        for axis, (label, ticks, columns, limits) in zip(axes[0], panels, strict=True):
            undefined = False
            for number, (name, some) in enumerate(rows.items()):
                color = _COLORS[number % len(_COLORS)]
                shift = (number - (len(rows) - 1) / 2) * 0.7 / len(rows)
                for place, names in enumerate(columns):
                    values = _values(some, names)
                    known = [value for value in values if not (label == _HD95 and _undefined(value))]
                    _dots(axis, place + shift, known, color, name if place == 0 else None)
                    _crosses(axis, place + shift, len(values) - len(known), color)
                    undefined |= len(known) < len(values)
            axis.set(ylabel=label, xticks=range(len(ticks)), xlim=(-0.6, len(ticks) - 0.4), ylim=limits or (0, None))
            axis.set_xticklabels(ticks, rotation=15)
            axis.grid(axis="y", alpha=0.2)
            if undefined:
                axis.set_title("×: segmentations without a distance, as one is empty", fontsize=8, pad=24)
        if len(rows) > 1:
            axes[0, 0].legend(frameon=False, fontsize=8)
        figure.suptitle(title)
        save(figure, path)
    finally:
        pyplot.close(figure)


def _values(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[float]:
    values = [row[name] for row in rows for name in names if name in row]
    return [value for value in values if math.isfinite(value)]


def _undefined(distance_mm: float) -> bool:
    """Whether a distance is the number that stands for one empty segmentation."""
    return distance_mm >= HD95_ONE_EMPTY_MM


def _crosses(axis: Any, place: float, count: int, color: str) -> None:
    """Mark cases without a distance above the axis."""
    if count:
        above = axis.get_xaxis_transform()
        axis.plot([place], [1.03], "x", color=color, markersize=6, transform=above, clip_on=False)
        axis.text(place, 1.06, str(count), transform=above, ha="center", va="bottom", fontsize=7, color=color)


def _dots(axis: Any, place: float, values: Sequence[float], color: str, label: str | None) -> None:
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(len(values))
    axis.plot(place + spread, values, "o", color=color, markersize=3.5, alpha=0.6, label=label)
    if values:
        axis.plot([place - 0.12, place + 0.12], [np.median(values)] * 2, color=color, linewidth=2)
