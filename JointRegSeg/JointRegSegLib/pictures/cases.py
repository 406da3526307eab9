"""Pictures of registered and segmented cases, a row per case: outlines, checkerboards and the Jacobian map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.pictures import save_figure

from .canvas import optional_figure
from .compartments import compartment_handles, outline
from .slices import axial, checkerboard, fullest_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SHOWN_MODALITIES = ("flair", "t1ce", "t2", "t1")
"""Modalities in order of preference: the first one that is present is shown."""
JACOBIAN_COLORS = "coolwarm"
"""Matplotlib's name for Moreland's blue-white-red, the colours of Jacobian maps in scenes too; growth is red."""
JACOBIAN_WINDOW = (0.5, 1.5)
JACOBIAN_TITLE = "Jacobian determinant (red: growth)"


@dataclass(frozen=True)
class CasePicture:
    """What the picture of one case shows, on one grid whose axes run to superior, anterior and right.

    Attributes:
        fixed_name: Name of the fixed study.
        moving_name: Name of the moving study.
        modality: Title of the modality that is shown, such as ``FLAIR``.
        fixed: Image (D, H, W) of the fixed study; its lowest value is background.
        moving: Image (D, H, W) of the moving study before the deformation, or None.
        warped: Image (D, H, W) of the moving study after the deformation, or None.
        labels: Expected classes (D, H, W) of the fixed study, or None.
        predicted: Predicted classes (D, H, W) of the fixed study, or None.
        jacobian: Jacobian determinant (D, H, W) of the deformation, NaN where it is unknown, or None.
    """

    fixed_name: str
    moving_name: str
    modality: str
    fixed: np.ndarray
    moving: np.ndarray | None = None
    warped: np.ndarray | None = None
    labels: np.ndarray | None = None
    predicted: np.ndarray | None = None
    jacobian: np.ndarray | None = None


def draw_cases(cases: Sequence[CasePicture], path: str | Path, title: str = "") -> None:
    """Draw a row per case in radiological view.

    The columns show outlines of expected and predicted compartments, checkerboards of both studies before and after
    the warp, and the Jacobian determinant. Nothing is drawn without cases, or without matplotlib (with a warning).

    Args:
        cases: What to show.
        path: PNG file to write.
        title: Headline.

    Raises:
        ValueError: The file cannot be written.
    """
    figure = optional_figure((13, 3.6 * len(cases))) if cases else None
    if figure is None:
        return
    axes = figure.subplots(len(cases), 4, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        _draw_case(figure, row, case)
    _add_legend(figure, cases)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_case(figure: Figure, row: Sequence[Axes], case: CasePicture) -> None:
    brain = case.fixed > case.fixed.min()
    index = fullest_slice(_slice_labels(case), brain)
    fixed = axial(case.fixed, index)
    low, high = float(fixed.min()), float(np.percentile(fixed, 99.8))
    window = (max(low, -2.5), max(high, low + 1e-3))
    _show(row[0], fixed, window)
    for classes, style in ((case.labels, "dashed"), (case.predicted, "solid")):
        if classes is not None:
            outline(row[0], axial(classes, index), style)
    row[0].set_title(f"{case.fixed_name}\nfixed, {case.modality}", fontsize=8)
    if case.moving is not None:
        _show(row[1], checkerboard(fixed, axial(case.moving, index)), window)
        row[1].set_title(f"fixed / moving\n{case.moving_name}", fontsize=8)
    if case.warped is not None:
        _show(row[2], checkerboard(fixed, axial(case.warped, index)), window)
        row[2].set_title("fixed / warped", fontsize=8)
    if case.jacobian is not None:
        _show(row[3], fixed, window)
        _draw_jacobian(figure, row[3], case.jacobian, brain, index)
    for axis in row:
        axis.set_axis_off()


def _show(axis: Axes, picture: np.ndarray, window: tuple[float, float]) -> None:
    axis.imshow(picture, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")


def _draw_jacobian(figure: Figure, axis: Axes, jacobian: np.ndarray, brain: np.ndarray, index: int) -> None:
    """Lay the Jacobian map over the slice; a map that is finite everywhere is cut to the brain."""
    known = np.where(brain, jacobian, np.nan) if np.isfinite(jacobian).all() else jacobian
    low, high = JACOBIAN_WINDOW
    image = axis.imshow(axial(known, index), cmap=JACOBIAN_COLORS, vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(JACOBIAN_TITLE, fontsize=8)
    figure.colorbar(image, ax=axis, shrink=0.8, extend="both")


def _add_legend(figure: Figure, cases: Sequence[CasePicture]) -> None:
    """Explain the outlines below the pictures, where there are any."""
    expected = any(case.labels is not None for case in cases)
    predicted = any(case.predicted is not None for case in cases)
    if not (expected or predicted):
        return
    handles: list[Any] = [*compartment_handles(*(labels for case in cases for labels in (case.labels, case.predicted)))]
    handles += [_line("dashed", "expected")] * expected + [_line("solid", "predicted")] * predicted
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def _slice_labels(case: CasePicture) -> np.ndarray | None:
    """The classes that decide which slice is shown: the expected ones, or else the predicted ones."""
    known = [classes for classes in (case.labels, case.predicted) if classes is not None and classes.any()]
    return known[0] if known else None


def _line(style: str, label: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.4", linestyle=style, linewidth=1.1, label=label)
