"""Unit, colour map and order of importance of every quantity, from its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Unit as shown to users (empty: dimensionless) and colour map; ``centred`` windows are symmetric about 0, and a
    ``window`` is always that one."""

    unit: str
    color_map: str
    centred: bool = False
    rank: int = 5
    window: tuple[float, float] | None = None


_BY_ENDING = (
    ("_concentration_mM", Style("mM", "viridis", rank=0)),
    ("_exchange_rate_Hz", Style("Hz", "inferno", rank=1)),
    ("_fraction", Style("", "viridis", rank=1)),
    ("_amplitude", Style("", "viridis", rank=1)),
    ("_r2_Hz", Style("Hz", "viridis", rank=2)),
    ("_t1_s", Style("s", "viridis", rank=2)),
    ("_dw_ppm", Style("ppm", "diverging", rank=3)),
    ("_width_ppm", Style("ppm", "viridis", rank=6)),
    ("_position_ppm", Style("ppm", "diverging", rank=6)),
)
_BY_START = (
    ("mtr_asym_", Style("", "diverging", centred=True, rank=0)),
    ("arex_", Style("Hz", "viridis", rank=0)),
    ("mtr_rex_", Style("", "viridis", rank=1)),
    ("mtr_ld_", Style("", "viridis", rank=2)),
    ("b0_shift_ppm", Style("ppm", "diverging", centred=True, rank=3)),
    ("b1_relative", Style("", "viridis", rank=3)),
    ("rmse", Style("", "inferno", rank=4)),
    ("misfit", Style("", "inferno", rank=4)),
    ("reliable", Style("", "grey", rank=3, window=(0.0, 1.0))),
    ("dot_product", Style("", "viridis", rank=4)),
)


def style_of(name: str) -> Style:
    """Style of a quantity; standard errors (``_sd``) have the unit of what they belong to."""
    base = name.removesuffix("_sd")
    candidates = [style for start, style in _BY_START if base.startswith(start)]
    candidates += [style for ending, style in _BY_ENDING if base.endswith(ending)]
    style = candidates[0] if candidates else Style("", "viridis")
    return Style(style.unit, "inferno", rank=9) if name.endswith("_sd") else style
