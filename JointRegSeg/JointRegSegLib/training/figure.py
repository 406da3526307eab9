"""Pictures of a training: curves of losses and scores, and validation cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.whole_files import whole_file

from ..images.compartments import COMPARTMENTS, title_of
from ..images.labels import REGIONS
from ..images.modalities import MODALITIES, TITLES

if TYPE_CHECKING:
    from .log import Row
    from .validation import ValidationCase

REGION_COLORS = {"whole_tumor": "#0072B2", "tumor_core": "#CC79A7", "enhancing_tumor": COMPARTMENTS[3].color}
"""Of the regions' curves; none is that of a compartment that it is not."""
JACOBIAN_COLORS = "coolwarm"
"""Matplotlib's name of Moreland's blue-white-red, which Jacobian maps have in scenes too: growth is red."""
JACOBIAN_WINDOW = (0.5, 1.5)
JACOBIAN_TITLE = "Jacobian determinant (red: growth)"
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
        _curve(axes[0, 0], steps, rows, "loss", "black", "training")
        _curve(axes[0, 0], steps, rows, "val_loss", "#009E73", "validation")
        positive = all(row.get(name, 1) > 0 for row in rows for name in ("loss", "val_loss"))
        axes[0, 0].set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear", title=title)
        if scored:
            for name in REGIONS:
                _curve(axes[0, 1], steps, rows, f"val_dice_{name}", REGION_COLORS[name], title_of(name))
            _curve(axes[0, 1], steps, rows, "val_warped_dice", "0.4", "Whole tumour after warp")
            axes[0, 1].set(xlabel="step", ylabel="Dice (validation)", ylim=(0, 1), title="")
        for axis in axes[0]:
            axis.grid(alpha=0.2)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(frameon=False)
        save(figure, path)
    finally:
        pyplot.close(figure)


def draw_validation(cases: Sequence[ValidationCase], path: str | Path, title: str = "") -> None:
    """A row a case in radiological view: outlines of expected and predicted compartments, checkerboards of both
    studies before and after the warp, Jacobian determinant (PNG); nothing where matplotlib is missing."""
    pyplot = pyplot_or_none()
    if pyplot is None or not cases:
        return
    figure, axes = pyplot.subplots(len(cases), 4, figsize=(13, 3.6 * len(cases)), layout="constrained", squeeze=False)
    try:
        for row, case in zip(axes, cases, strict=True):
            _draw_case(figure, row, case)
        expected, predicted = (any(getattr(c, name) is not None for c in cases) for name in ("labels", "predicted"))
        handles = compartment_handles() if expected or predicted else []
        handles += [_line("dashed", "expected")] * expected + [_line("solid", "predicted")] * predicted
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
        figure.suptitle(title)
        save(figure, path)
    finally:
        pyplot.close(figure)


def outline(axis: Any, classes: np.ndarray, style: str = "solid") -> None:
    """Outlines of the compartments in a slice (row, column) of classes."""
    for number in (2, 3, 1):  # the innermost last: neighbours share an outline
        inside = classes == number
        if inside.any() and not inside.all():
            axis.contour(inside, levels=[0.5], colors=[COMPARTMENTS[number].color], linewidths=1.1, linestyles=style)


def compartment_handles() -> list[Any]:
    """What a legend shows of the compartments."""
    from matplotlib.patches import Patch

    return [Patch(color=compartment.color, label=compartment.name) for compartment in COMPARTMENTS.values()]


def checkerboard(a: np.ndarray, b: np.ndarray, tiles: int = _TILES) -> np.ndarray:
    """Tiles of two pictures (rows, columns) in turn, ``tiles`` along the longer side."""
    size = max(-(-max(a.shape) // tiles), 1)
    rows, columns = np.indices(a.shape) // size
    return np.where((rows + columns) % 2 == 0, a, b)


def axial(volume: np.ndarray, index: int) -> np.ndarray:
    """Axial slice of (D, H, W) to superior, anterior, right: anterior at the top, the patient's right on the left."""
    return volume[index, ::-1, ::-1]


def fullest_slice(labels: np.ndarray | None, brain: np.ndarray, axis: int = 0) -> int:
    """The slice that shows most of the tumour, or of the brain where there is none.

    That is where the compartments together are largest, each relative to its own largest slice, so that a small core
    counts as much as a large oedema. labels: classes (D, H, W). axis: across the slices.
    """
    across = tuple(a for a in range(3) if a != axis)
    areas = [] if labels is None else [(labels == number).sum(across) for number in COMPARTMENTS]
    shares = [area / area.max() for area in areas if area.any()]
    return int(np.argmax(np.sum(shares, axis=0) if shares else brain.sum(across)))


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
    index = fullest_slice(_outlined(case), brain)
    fixed = axial(case.fixed[channel], index)
    low, high = float(fixed.min()), float(np.percentile(fixed, 99.8))
    grey = {"cmap": "gray", "vmin": max(low, -2.5), "vmax": max(high, low + 1e-3), "interpolation": "nearest"}
    row[0].imshow(fixed, **grey)
    for classes, style in ((case.labels, "dashed"), (case.predicted, "solid")):
        if classes is not None:
            outline(row[0], axial(classes, index), style)
    name = TITLES[MODALITIES[channel]] if channel < len(MODALITIES) else ""
    row[0].set_title(f"{case.fixed_name}\nfixed, {name}", fontsize=8)
    if case.moving is not None:
        row[1].imshow(checkerboard(fixed, axial(case.moving[channel], index)), **grey)
        row[1].set_title(f"fixed / moving\n{case.moving_name}", fontsize=8)
    if case.warped is not None:
        row[2].imshow(checkerboard(fixed, axial(case.warped[channel], index)), **grey)
        row[2].set_title("fixed / warped", fontsize=8)
    if case.jacobian is not None:
        everywhere = bool(np.isfinite(case.jacobian).all())  # else it says itself where it is not known
        values = np.where(brain, case.jacobian, np.nan) if everywhere else case.jacobian
        row[3].imshow(fixed, **grey)
        low, high = JACOBIAN_WINDOW
        image = row[3].imshow(axial(values, index), cmap=JACOBIAN_COLORS, vmin=low, vmax=high, interpolation="nearest")
        row[3].set_title(JACOBIAN_TITLE, fontsize=8)
        figure.colorbar(image, ax=row[3], shrink=0.8, extend="both")
    for axis in row:
        axis.set_axis_off()


def _outlined(case: ValidationCase) -> np.ndarray | None:
    """The classes that choose the slice: the expected ones, or those found where none are expected."""
    known = [classes for classes in (case.labels, case.predicted) if classes is not None and classes.any()]
    return known[0] if known else None


def _line(style: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.4", linestyle=style, linewidth=1.1, label=label)


def _channel(images: np.ndarray) -> int:
    """The channel to show: the most telling modality that is there."""
    order = [MODALITIES.index(name) for name in _SHOWN]
    there = [c for c in order if c < len(images) and images[c].max() > images[c].min()]
    return there[0] if there else 0


def _curve(axis: Any, steps: Sequence[float], rows: Sequence[Row], name: str, color: str, label: str) -> None:
    values = [row.get(name, math.nan) for row in rows]
    if any(math.isfinite(value) for value in values):
        axis.plot(
            steps,
            values,
            "-o" if len(rows) < 40 else "-",
            color=color,
            label=label,
            markersize=2.5,
            path_effects=[_rim()],
        )


def _rim() -> Any:
    """A thin dark rim, in which light colours can be seen on white."""
    from matplotlib.patheffects import withStroke

    return withStroke(linewidth=1.9, foreground="0.35")
