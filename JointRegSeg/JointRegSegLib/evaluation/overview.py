"""Picture of an evaluation: every case as a dot, by score and by set of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.pictures import save_figure

from ..images.compartments import title_of
from ..images.labels import REGIONS
from ..metrics.surface_distance import HD95_ONE_EMPTY_MM
from ..pictures.canvas import optional_figure
from .summary import numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#0072B2", "#009E73", "#AA4499", "#E69F00", "#000000", "#882255", "#999933")
"""Colours of the sets of weights; none of them is the colour of a compartment."""
_SIDES = ("fixed", "moving")
_STAGES = ("before", "affine", "after")


@dataclass(frozen=True)
class _Panel:
    """One score.

    Attributes:
        label: Label of the vertical axis.
        groups: Columns of the case table by the name of the group of dots that they make.
        limits: Ends of the vertical axis; None for an axis from 0 to the largest value.
        largest: Values from this one on stand for cases without a distance.
    """

    label: str
    groups: Mapping[str, Sequence[str]]
    limits: tuple[float, float] | None = None
    largest: float = math.inf


_PANELS = (
    _Panel("Dice", {title_of(name): [f"{side}_dice_{name}" for side in _SIDES] for name in REGIONS}, (0, 1)),
    _Panel(
        "HD95 (mm)",
        {title_of(name): [f"{side}_hd95_mm_{name}" for side in _SIDES] for name in REGIONS},
        largest=HD95_ONE_EMPTY_MM,
    ),
    _Panel("Dice after warp", {title_of(name): [f"warped_dice_{name}"] for name in REGIONS}, (0, 1)),
    _Panel("landmark error, median (mm)", {stage: [f"landmark_error_mm_median_{stage}"] for stage in _STAGES}),
)


def draw_overview(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, title: str = "") -> None:
    """Draw dots and medians of the cases: Dice, HD95 and landmark errors, as far as they are known.

    Where exactly one of prediction and reference is empty there is no distance, only the number that BraTS gives it:
    such cases are counted by a cross above the dots, and the median leaves them out. Nothing is drawn without any
    score, or without matplotlib (with a warning).

    Args:
        rows: Rows of the cases that did not fail, by the name of the weights.
        path: PNG file to write.
        title: Headline.

    Raises:
        ValueError: The file cannot be written.
    """
    panels = [
        panel
        for panel in _PANELS
        if any(_values(some, columns) for some in rows.values() for columns in panel.groups.values())
    ]
    figure = optional_figure((4.2 * len(panels), 4)) if panels else None
    if figure is None:
        return
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, rows)
    if len(rows) > 1:
        axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_panel(axis: Axes, panel: _Panel, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    without_distance = False
    for number, (name, some) in enumerate(rows.items()):
        color = _COLORS[number % len(_COLORS)]
        shift = (number - (len(rows) - 1) / 2) * 0.7 / len(rows)
        for place, columns in enumerate(panel.groups.values()):
            values = _values(some, columns)
            known = [value for value in values if value < panel.largest]
            _dots(axis, place + shift, known, color, name if place == 0 else None)
            _crosses(axis, place + shift, len(values) - len(known), color)
            without_distance |= len(known) < len(values)
    count = len(panel.groups)
    axis.set(ylabel=panel.label, xticks=range(count), xlim=(-0.6, count - 0.4), ylim=panel.limits or (0, None))
    axis.set_xticklabels(list(panel.groups), rotation=15)
    axis.grid(axis="y", alpha=0.2)
    if without_distance:
        axis.set_title("×: cases without a distance, because one segmentation is empty", fontsize=8, pad=24)


def _values(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[float]:
    """The finite numbers in some columns of the case table; a study counts once, as in the summary."""
    return [value for name in columns for value in numbers_of(rows, name)]


def _dots(axis: Axes, place: float, values: Sequence[float], color: str, label: str | None) -> None:
    """Draw the cases side by side around a place on the horizontal axis, and their median as a bar."""
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(len(values))
    axis.plot(place + spread, values, "o", color=color, markersize=3.5, alpha=0.6, label=label)
    if values:
        axis.plot([place - 0.12, place + 0.12], [np.median(values)] * 2, color=color, linewidth=2)


def _crosses(axis: Axes, place: float, count: int, color: str) -> None:
    """Mark the number of cases without a distance above the axis."""
    if count:
        above = axis.get_xaxis_transform()
        axis.plot([place], [1.03], "x", color=color, markersize=6, transform=above, clip_on=False)
        axis.text(place, 1.06, str(count), transform=above, ha="center", va="bottom", fontsize=7, color=color)
