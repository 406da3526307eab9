"""Tumour compartments in pictures: outlines and legend, in the colours of the segmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..images.compartments import COMPARTMENTS, shown_compartments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch


def outline(axis: Axes, classes: np.ndarray, style: str = "solid") -> None:
    """Draw the outlines of the compartments.

    Args:
        axis: Axes that show the slice.
        classes: Classes (row, column) of the slice.
        style: Matplotlib's line style.
    """
    for number in (2, 3, 1, 4):  # the innermost last, because neighbours share an outline
        inside = classes == number
        if inside.any() and not inside.all():
            axis.contour(inside, levels=[0.5], colors=[COMPARTMENTS[number].color], linewidths=1.1, linestyles=style)


def compartment_handles(*labels: np.ndarray | None) -> list[Patch]:
    """Make the legend entries of the compartments; that of a cavity only where one of the label maps has it.

    Args:
        labels: Label maps that are shown.
    """
    from matplotlib.patches import Patch

    shown = {number: each for some in (None, *labels) for number, each in shown_compartments(some).items()}
    return [Patch(color=compartment.color, label=compartment.name) for compartment in shown.values()]
