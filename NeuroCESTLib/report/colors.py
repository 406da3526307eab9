"""Colours of regions in outlines and spectra."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

Color = str | tuple[float, float, float]
"""A hexadecimal code, or red, green and blue from 0 to 1."""

TUMOR_COLORS = {
    "necrotic core": (0.84, 0.37, 0.0),
    "oedema": (0.34, 0.71, 0.91),
    "enhancing tumour": (0.94, 0.89, 0.26),
    "resection cavity": (0.8, 0.47, 0.65),
}
"""Colours of the tumour compartments, by name in lower case; JointRegSeg gives its segments the same ones."""

# Okabe and Ito's palette, whose colours can also be told apart by colour-blind readers.
_REGION_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999933")
# The part of it that stays clear of the tumour compartments' colours.
_COLORS_BESIDE_A_TUMOR = ("#0072B2", "#009E73", "#E69F00", "#999933")


def region_colors(names: Iterable[str]) -> dict[str, Color]:
    """Return a colour for each region.

    Args:
        names: Names of the regions. Tumour compartments get their fixed colours, in whatever case they are written;
            the others get colours from a palette in turn.

    Returns:
        Colour of each different name.
    """
    names = list(dict.fromkeys(names))
    fixed = {name: TUMOR_COLORS[name.lower()] for name in names if name.lower() in TUMOR_COLORS}
    palette = itertools.cycle(_COLORS_BESIDE_A_TUMOR if fixed else _REGION_COLORS)
    return {name: fixed.get(name) or next(palette) for name in names}
