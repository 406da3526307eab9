"""Pictures of an evaluation: every case as a dot, by score and by set of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .labels import REGIONS
from .training_figure import pyplot_or_none, save

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_overview(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, title: str = "") -> None:
    """Dots and medians of the cases (PNG): Dice, HD95, landmark errors, as far as there are any.

    rows: of the cases that went well, by name of the weights. Nothing is drawn where matplotlib is missing.
    """
    pyplot = pyplot_or_none()
    if pyplot is None:
        return
    regions = [name.replace("_", " ") for name in REGIONS]
    both = ("fixed", "moving")
    panels = [
        ("Dice", regions, [[f"{side}_dice_{name}" for side in both] for name in REGIONS], (0, 1)),
        ("HD95 (mm)", regions, [[f"{side}_hd95_mm_{name}" for side in both] for name in REGIONS], None),
        ("Dice after warp", regions, [[f"warped_dice_{name}"] for name in REGIONS], (0, 1)),
        ("landmark error, median (mm)", ["before", "affine", "after"],
         [[f"landmark_error_mm_median_{stage}"] for stage in ("before", "affine", "after")], None),
    ]  # fmt: skip
    panels = [panel for panel in panels if any(_values(some, names) for some in rows.values() for names in panel[2])]
    if not panels:
        return
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4), layout="constrained", squeeze=False
    )
    try:
        for axis, (label, ticks, columns, limits) in zip(axes[0], panels, strict=True):
            for number, (name, some) in enumerate(rows.items()):
                color = _COLORS[number % len(_COLORS)]
                shift = (number - (len(rows) - 1) / 2) * 0.7 / len(rows)
                for place, names in enumerate(columns):
                    _dots(axis, place + shift, _values(some, names), color, name if place == 0 else None)
            axis.set(ylabel=label, xticks=range(len(ticks)), ylim=limits)
            axis.set_xticklabels(ticks, rotation=15)
            axis.grid(axis="y", alpha=0.2)
        if len(rows) > 1:
            axes[0, 0].legend(frameon=False, fontsize=8)
        figure.suptitle(title)
        save(figure, path)
    finally:
        pyplot.close(figure)


def _values(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[float]:
    values = [row[name] for row in rows for name in names if name in row]
    return [value for value in values if math.isfinite(value)]


def _dots(axis: Any, place: float, values: Sequence[float], color: str, label: str | None) -> None:
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(len(values))
    axis.plot(place + spread, values, "o", color=color, markersize=3.5, alpha=0.6, label=label)
    if values:
        axis.plot([place - 0.12, place + 0.12], [np.median(values)] * 2, color=color, linewidth=2)
