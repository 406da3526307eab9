"""Figures that are optional: without matplotlib a picture is left out with a warning, and nothing else is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NeuroCESTLib.core import pictures
from NeuroCESTLib.core.packages import left_out_without_its_package

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def optional_figure(size_inches: tuple[float, float]) -> Figure | None:
    """Make an empty figure in the common style.

    Args:
        size_inches: Width and height.

    Returns:
        The figure; None where matplotlib is not installed, after a warning.
    """
    with left_out_without_its_package("a picture"):
        return pictures.new_figure(size_inches)
    return None
