"""Picture of a training: losses and scores by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from NeuroCESTLib.core.pictures import save_figure

from ..images.compartments import COMPARTMENTS, title_of
from ..images.labels import REGIONS
from .canvas import optional_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, float]
"""Numbers of one epoch by column, as ``training.log`` has them."""

REGION_COLORS: dict[str, str | tuple[float, float, float]] = {
    "whole_tumor": "#0072B2",
    "tumor_core": "#AA4499",
    "enhancing_tumor": COMPARTMENTS[3].color,
}
"""Colours of the regions' curves; only the enhancing tumour, itself a compartment, has the colour of a compartment."""


def draw_curves(
    rows: Sequence[Row], path: str | Path, title: str = "", scores: Mapping[str, str] | None = None
) -> None:
    """Draw the losses and, where segmentations were scored, the Dice of the regions by step.

    Nothing is drawn without matplotlib (with a warning).

    Args:
        rows: Rows of the log, one per epoch.
        path: PNG file to write.
        title: Title above the losses.
        scores: Title of each score that is drawn in a panel of its own, by the name of its column; None for the Dice of
            the regions.

    Raises:
        ValueError: The file cannot be written.
    """
    scored = scores is None and any("val_dice" in row or "val_warped_dice" in row for row in rows)
    own = {name: text for name, text in (scores or {}).items() if any(name in row for row in rows)}
    panels = 1 + scored + len(own)
    figure = optional_figure((1 + 5 * panels, 3.8))
    if figure is None:
        return
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_losses(axes[0], rows, title)
    if scored:
        _draw_scores(axes[1], rows)
    for axis, (name, text) in zip(axes[1 + scored :], own.items(), strict=True):
        _curve(axis, rows, name, "#0072B2", text)
        axis.set(xlabel="step", ylabel=f"{text} (validation)")
    for axis in axes:
        axis.grid(alpha=0.2)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    save_figure(figure, path)


def _draw_losses(axis: Axes, rows: Sequence[Row], title: str) -> None:
    _curve(axis, rows, "loss", "black", "training")
    _curve(axis, rows, "val_loss", "#009E73", "validation")
    positive = all(row.get(name, 1) > 0 for row in rows for name in ("loss", "val_loss"))
    axis.set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear", title=title)


def _draw_scores(axis: Axes, rows: Sequence[Row]) -> None:
    for name in REGIONS:
        _curve(axis, rows, f"val_dice_{name}", REGION_COLORS[name], title_of(name))
    _curve(axis, rows, "val_warped_dice", "0.4", "Whole tumour after warp")
    axis.set(xlabel="step", ylabel="Dice (validation)", ylim=(0, 1), title="")


def _curve(axis: Axes, rows: Sequence[Row], name: str, color: str | tuple[float, float, float], label: str) -> None:
    """Draw a column of the log, with a thin dark rim so that light colours can be seen on white."""
    from matplotlib.patheffects import withStroke

    steps = [row["step"] for row in rows]
    values = [row.get(name, math.nan) for row in rows]
    if any(math.isfinite(value) for value in values):
        style = "-o" if len(rows) < 40 else "-"
        rim = [withStroke(linewidth=1.9, foreground="0.35")]
        axis.plot(steps, values, style, color=color, label=label, markersize=2.5, path_effects=rim)
