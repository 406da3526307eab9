"""Matplotlib figures for PNG files; matplotlib does not come with Slicer, so it is imported where it is used."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.packages import MissingPackage
from NeuroCESTLib.core.whole_files import whole_file, written_as

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
"""Matplotlib settings that all report pictures share."""


def file_pyplot() -> Any:
    """Return ``matplotlib.pyplot`` drawing to files, so that it needs no window system.

    Raises:
        MissingPackage: Matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingPackage("matplotlib", "pictures need") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def new_figure(size_inches: tuple[float, float], title: str = "") -> Figure:
    """Make an empty figure in the common style.

    Args:
        size_inches: Width and height.
        title: Headline of the whole figure.

    Raises:
        MissingPackage: Matplotlib is not installed.
    """
    pyplot = file_pyplot()
    with pyplot.rc_context(STYLE):
        figure = pyplot.figure(figsize=size_inches, layout="constrained")
        if title:
            figure.suptitle(title, fontweight="bold")
    return figure


def number_whole(axis: Axis) -> None:
    """Let the ticks of an axis be whole numbers, as for epochs."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))


def write_letters(axis: Axes, letters: tuple[str, str, str, str]) -> None:
    """Mark the patient's side at the left, right, top and bottom of a picture."""
    from matplotlib.patheffects import withStroke

    left, right, top, bottom = letters
    places = ((left, 0.02, 0.5), (right, 0.98, 0.5), (top, 0.5, 0.97), (bottom, 0.5, 0.03))
    for letter, x, y in places:
        text = axis.text(x, y, letter, transform=axis.transAxes, color="white", fontsize=8)
        text.set(ha="center", va="center", path_effects=[withStroke(linewidth=2, foreground="black")])


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all, and close it.

    Raises:
        ValueError: The file cannot be written; the message names it.
    """
    from matplotlib import pyplot
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if (shown := written_as.get()(text.get_text())) != text.get_text():
            text.set_text(shown)
    try:
        with whole_file(path) as temporary, warnings.catch_warnings():
            # Letters that the font lacks are drawn as boxes; the user cannot do anything about it.
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
            figure.savefig(temporary, dpi=150, format="png")
    finally:
        pyplot.close(figure)
