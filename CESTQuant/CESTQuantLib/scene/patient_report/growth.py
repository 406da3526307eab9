"""The picture of growth: which tissue belongs to another compartment at the second visit than at the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.pictures import write_letters
from NeuroCESTLib.report.embedded import embedded_picture
from NeuroCESTLib.report.numbers import number_text
from NeuroCESTLib.report.page import Picture
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.slices import slice_view

from ...compartments.grid import Grid
from ...compartments.results.growth import Transition
from .material import Material, region_word
from .planes import sampled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#CC79A7", "#E69F00", "#009E73", "#56B4E9", "#F0E442", "#0072B2", "#D55E00")
MOST_COLORS = 7
"""Transitions with a colour of their own; smaller ones share a grey."""


def transition_title(transition: Transition) -> str:
    """Return a transition in words, such as ``oedema → enhancing tumour``."""
    return f"{region_word(transition.first)} → {region_word(transition.second)}"


def growth_picture(material: Material) -> Picture | None:
    """Draw the tissue that changed its compartment over the anatomy of the first visit; None where it is unknown."""
    between = material.analysis.between
    if between is None or between.transition_labels is None or between.transition_grid is None:
        return None
    labels, grid = between.transition_labels, between.transition_grid
    changed = [n for n, t in enumerate(between.transitions, start=1) if t.first != t.second]
    changed = [n for n in sorted(changed, key=lambda n: -between.transitions[n - 1].volume_ml) if (labels == n).any()]
    if not changed:
        return None
    view = slice_view(Geometry(grid.shape, grid.ijk_to_ras), np.isin(labels, changed))
    picture = view.cut(labels)
    kept = None if between.kept is None else view.cut(between.kept)
    anatomy = _anatomy(material, grid)
    gray = None if anatomy is None else view.cut(anatomy)

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Patch

        axis = figure.subplots()
        if gray is not None:
            axis.imshow(
                gray,
                cmap="gray",
                interpolation="bilinear",
                aspect=view.aspect,
                vmin=0,
                vmax=float(np.percentile(gray, 99.7)) or 1,
            )
        handles = []
        for place, number in enumerate(changed):
            color = _COLORS[place] if place < MOST_COLORS else "0.6"
            _fill(axis, picture == number, color, view.aspect)
            transition = between.transitions[number - 1]
            if place < MOST_COLORS:
                title = f"{transition_title(transition)}: {number_text(transition.volume_ml)} ml"
                handles.append(Patch(color=color, label=title))
        if kept is not None and kept.any():  # on bright and on dark tissue
            axis.contour(kept, levels=[0.5], colors="black", linewidths=1.8)
            axis.contour(kept, levels=[0.5], colors="white", linewidths=1, linestyles="dotted")
        if len(changed) > MOST_COLORS:
            rest = sum(between.transitions[n - 1].volume_ml for n in changed[MOST_COLORS:])
            handles.append(Patch(color="0.6", label=f"other changes: {number_text(rest)} ml"))
        axis.set_axis_off()
        write_letters(axis, view.letters)
        figure.legend(handles=handles, loc="outside right center", frameon=False)

    rows, columns = picture.shape
    return embedded_picture(
        draw,
        (8.0, min(max(4.4 * rows * view.aspect / columns, 2.8), 5.5)),
        "Tissue that belongs to another compartment at the second visit, over the anatomy of the first visit",
        "Transitions of compartments in the space of the first visit, in the slice with most of them; the volumes are "
        "those of all slices. Dotted: the tumour tissue that kept its compartment.",
    )


def _fill(axis: object, mask: np.ndarray, color: str, aspect: float) -> None:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

    if isinstance(axis, Axes):
        shown = np.ma.masked_where(~mask, np.ones(mask.shape))
        axis.imshow(shown, cmap=ListedColormap([color]), alpha=0.75, aspect=aspect, interpolation="nearest")


def _anatomy(material: Material, grid: Grid) -> np.ndarray | None:
    """Return the anatomy of the first visit on a grid in its space."""
    source = material.visits[0].source
    if source is None or not source.anatomy:
        return None
    points = grid.points().reshape(-1, 1, 3)
    return sampled(source.anatomy[0], points).reshape(grid.shape)
