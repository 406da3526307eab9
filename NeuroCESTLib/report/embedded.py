"""Matplotlib figures as pictures that are embedded in pages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from NeuroCESTLib.core.pictures import STYLE, file_pyplot, new_figure
from NeuroCESTLib.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110
"""Resolution of embedded pictures: sharp on paper, and a page with twenty of them can still be sent by mail."""


def embedded_picture(
    draw: Callable[[Figure], None], size_inches: tuple[float, float], alt: str, caption: str = ""
) -> Picture:
    """Draw a figure and return it as a picture for a page.

    Args:
        draw: Function that draws into an empty figure.
        size_inches: Width and height of the figure.
        alt: Description for readers who do not see the picture.
        caption: Sentence below the picture.

    Raises:
        MissingPackage: Matplotlib is not installed.
    """
    pyplot = file_pyplot()
    with pyplot.rc_context(STYLE):
        figure = new_figure(size_inches)
        try:
            draw(figure)
            content = io.BytesIO()
            with warnings.catch_warnings():
                # Letters that the font lacks are drawn as boxes; the user cannot do anything about it.
                warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
                figure.savefig(content, dpi=DOTS_PER_INCH, format="png", metadata={"Software": None})
        finally:
            pyplot.close(figure)
    return Picture(content.getvalue(), alt, caption, width_inches=size_inches[0] * 1.15)
