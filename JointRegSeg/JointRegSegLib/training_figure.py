"""Pictures of a training: curves of losses and scores, and validation cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic_files import whole_file
from .labels import REGIONS, region
from .modalities import MODALITIES, TITLES

if TYPE_CHECKING:
    from .training_log import Row
    from .validation import ValidationCase

COLORS = {"whole_tumor": "#E69F00", "tumor_core": "#D55E00", "enhancing_tumor": "#56B4E9"}
"""Of the regions' outlines and curves; told apart by colour-blind readers too."""
_SHOWN = ("flair", "t1ce", "t2", "t1")  # the first that is there is shown
_TILES = 8


def draw_curves(rows: Sequence[Row], path: str | Path, title: str = "") -> None:
    """Losses, Dice and learning rate by step (PNG); nothing where matplotlib is missing."""
    pyplot = pyplot_or_none()
    if pyplot is None:
        return
    scored = any("val_dice" in row or "val_warped_dice" in row for row in rows)
    figure, axes = pyplot.subplots(
        1, 2 if scored else 1, figsize=(11 if scored else 6, 3.8), layout="constrained", squeeze=False
    )
    try:
        steps = [row["step"] for row in rows]
        _curve(axes[0, 0], steps, rows, "loss", "#0072B2", "training")
        _curve(axes[0, 0], steps, rows, "val_loss", "#D55E00", "validation")
        positive = all(row.get(name, 1) > 0 for row in rows for name in ("loss", "val_loss"))
        axes[0, 0].set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear", title=title)
        if scored:
            for name in REGIONS:
                _curve(axes[0, 1], steps, rows, f"val_dice_{name}", COLORS[name], name.replace("_", " "))
            _curve(axes[0, 1], steps, rows, "val_warped_dice", "0.4", "tumour after warp")
            axes[0, 1].set(xlabel="step", ylabel="Dice (validation)", ylim=(0, 1), title="")
        for axis in axes[0]:
            axis.grid(alpha=0.2)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(frameon=False)
        save(figure, path)
    finally:
        pyplot.close(figure)


def draw_validation(cases: Sequence[ValidationCase], path: str | Path, title: str = "") -> None:
    """A row a case in radiological view: outlines of expected and predicted tumour, checkerboards of both studies
    before and after the warp, Jacobian determinant (PNG); nothing where matplotlib is missing."""
    pyplot = pyplot_or_none()
    if pyplot is None or not cases:
        return
    figure, axes = pyplot.subplots(len(cases), 4, figsize=(13, 3.6 * len(cases)), layout="constrained", squeeze=False)
    try:
        for row, case in zip(axes, cases, strict=True):
            _draw_case(figure, row, case)
        figure.suptitle(title)
        save(figure, path)
    finally:
        pyplot.close(figure)


def outline(axis: Any, classes: np.ndarray, style: str) -> None:
    """Outlines of the regions in a slice of classes."""
    for name in REGIONS:
        mask = region(classes, name)
        if mask.any() and not mask.all():
            axis.contour(mask.astype(float), levels=[0.5], colors=COLORS[name], linewidths=1.1, linestyles=style)


def checkerboard(a: np.ndarray, b: np.ndarray, tiles: int = _TILES) -> np.ndarray:
    """Tiles of two pictures (rows, columns) in turn, ``tiles`` along the longer side."""
    size = max(-(-max(a.shape) // tiles), 1)
    rows, columns = np.indices(a.shape) // size
    return np.where((rows + columns) % 2 == 0, a, b)


def axial(volume: np.ndarray, index: int) -> np.ndarray:
    """Axial slice of (D, H, W) to superior, anterior, right: anterior at the top, the patient's right on the left."""
    return volume[index, ::-1, ::-1]


def fullest_slice(labels: np.ndarray | None, brain: np.ndarray) -> int:
    """Axial slice with the most tumour, or brain where there is none."""
    area = np.zeros(len(brain)) if labels is None else (labels > 0).sum((1, 2))
    return int(np.argmax(area if area.any() else brain.sum((1, 2))))


def pyplot_or_none() -> Any:
    """matplotlib.pyplot for files; None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_case(figure: Any, row: Sequence[Any], case: ValidationCase) -> None:
    channel = _channel(case.fixed)
    brain = case.fixed[channel] > case.fixed[channel].min()
    index = fullest_slice(case.labels if case.labels is not None else case.predicted, brain)
    fixed = axial(case.fixed[channel], index)
    low, high = float(fixed.min()), float(np.percentile(fixed, 99.8))
    grey = {"cmap": "gray", "vmin": max(low, -2.5), "vmax": max(high, low + 1e-3), "interpolation": "nearest"}
    row[0].imshow(fixed, **grey)
    for classes, style in ((case.labels, "dashed"), (case.predicted, "solid")):
        if classes is not None:
            outline(row[0], axial(classes, index), style)
    name = TITLES[MODALITIES[channel]] if channel < len(MODALITIES) else ""
    row[0].set_title(f"{case.fixed_name}\n{name}: expected dashed, predicted solid", fontsize=8)
    if case.moving is not None:
        row[1].imshow(checkerboard(fixed, axial(case.moving[channel], index)), **grey)
        row[1].set_title(f"fixed / moving\n{case.moving_name}", fontsize=8)
    if case.warped is not None:
        row[2].imshow(checkerboard(fixed, axial(case.warped[channel], index)), **grey)
        row[2].set_title("fixed / warped", fontsize=8)
    if case.jacobian is not None:
        image = row[3].imshow(axial(case.jacobian, index), cmap="PuOr", vmin=0, vmax=2, interpolation="nearest")
        row[3].set_title("Jacobian determinant", fontsize=8)
        figure.colorbar(image, ax=row[3], shrink=0.8)
    for axis in row:
        axis.set_axis_off()


def _channel(images: np.ndarray) -> int:
    """The channel to show: the most telling modality that is there."""
    order = [MODALITIES.index(name) for name in _SHOWN]
    there = [c for c in order if c < len(images) and images[c].max() > images[c].min()]
    return there[0] if there else 0


def _curve(axis: Any, steps: Sequence[float], rows: Sequence[Row], name: str, color: str, label: str) -> None:
    values = [row.get(name, math.nan) for row in rows]
    if any(math.isfinite(value) for value in values):
        axis.plot(steps, values, "-o" if len(rows) < 40 else "-", color=color, label=label, markersize=2.5)
