"""The quantities that methods give: their units, and how their maps are shown."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Quantity:
    """A kind of map, recognised by its name.

    Attributes:
        pattern: Name of the map, with ``*`` for what varies, such as the name of a pool.
        unit: Unit as shown to users; empty for a dimensionless quantity.
        color_map: One of ``NeuroCESTLib.scene.display.COLOR_MAPS``.
        centered: Whether the display window is symmetric about 0.
        rank: Order of importance in the report picture; 0 is shown first.
        window: Fixed display window (lowest, highest value), or None for one that follows the values.
        quality: Whether it says how far another map can be trusted, instead of something about the tissue.
    """

    pattern: str
    unit: str = ""
    color_map: str = "viridis"
    centered: bool = False
    rank: int = 5
    window: tuple[float, float] | None = None
    quality: bool = False

    def of_standard_error(self) -> Quantity:
        """Return the quantity's standard error: the same unit, shown last and in other colours."""
        return replace(self, color_map="inferno", centered=False, rank=9, window=None, quality=True)


B0_SHIFT = Quantity("b0_shift_ppm", "ppm", "diverging", centered=True, rank=3)
B1_RELATIVE = Quantity("b1_relative", rank=3)
CHI_SQUARE = Quantity("chi2_reduced", color_map="inferno", rank=4, window=(0.0, 4.0), quality=True)
RMSE = Quantity("rmse*", color_map="inferno", rank=4, quality=True)

POOL_QUANTITIES = (
    Quantity("*_concentration_mM", "mM", rank=0),
    Quantity("*_exchange_rate_Hz", "Hz", "inferno", rank=1),
    Quantity("*_fraction", rank=1),
    Quantity("*_r2_Hz", "Hz", rank=2),
    Quantity("*_t1_s", "s", rank=2),
    Quantity("*_dw_ppm", "ppm", "diverging", rank=3),
)
"""What methods with a tissue model give for each pool."""
