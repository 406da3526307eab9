"""What a polynomial and Lorentzian line-shape fit (PLOF) fits: its peaks with their ranges, and its background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from NeuroCESTLib.core.checked_json import check_keys, number, read_json, require_file_name

from ...formats.presets import FOLDER as PRESETS
from ..lorentzian_model import DESCRIPTION_KEYS, Range, range_from_json

PLOF_KEYS = ("peaks", "polynomial_degree", "water_term")
PEAK_KEYS = ("name", "position_ppm", "width_ppm", "window_ppm", "peak_ppm")
HIGHEST_DEGREE = 5


@dataclass(frozen=True)
class Peak:
    """A peak of R1rho above a smooth background.

    Attributes:
        name: Name, from which maps are named.
        position_ppm: Range of its distance from water.
        width_ppm: Range of its full width at half maximum.
        window_ppm: Lowest and highest offset from water that is fitted.
        peak_ppm: Lowest and highest offset of the peak, which the fit of the background leaves out.

    Raises:
        ValueError: The ranges do not lie within each other.
    """

    name: str
    position_ppm: Range
    width_ppm: Range
    window_ppm: tuple[float, float]
    peak_ppm: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.peak_ppm
        if not self.window_ppm[0] < low < high < self.window_ppm[1]:
            raise ValueError(f"peak '{self.name}': peak_ppm must lie within window_ppm")
        if not low <= self.position_ppm.lower <= self.position_ppm.upper <= high:
            raise ValueError(f"peak '{self.name}': the bounds of position_ppm must lie within peak_ppm")
        if not self.width_ppm.lower > 0:
            raise ValueError(f"peak '{self.name}': width_ppm must be above 0")
        if self.window_ppm[0] < 0 < self.window_ppm[1]:
            raise ValueError(f"peak '{self.name}': window_ppm must lie on one side of water")


@dataclass(frozen=True)
class PlofModel:
    """The peaks of a PLOF analysis, each fitted by itself.

    Attributes:
        peaks: Peaks with the ranges of their parameters.
        polynomial_degree: Degree of the polynomial in the background of R1rho.
        water_term: Whether the background also has a term for the direct saturation of water.

    Raises:
        ValueError: There is no peak, two have the same name, or the degree is out of range.
    """

    peaks: tuple[Peak, ...]
    polynomial_degree: int = 2
    water_term: bool = True

    def __post_init__(self) -> None:
        names = [peak.name for peak in self.peaks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"peaks must be at least one, with different names, not: {', '.join(names) or 'none'}")
        if not 0 <= self.polynomial_degree <= HIGHEST_DEGREE:
            raise ValueError(f"polynomial_degree must be from 0 to {HIGHEST_DEGREE}, not {self.polynomial_degree}")

    @classmethod
    def preset(cls, name: str = "lorentzian_plof_3T") -> PlofModel:
        """Read the model of ``presets/<name>.json``."""
        path = PRESETS / f"{name}.json"
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, description: Any, source: str = "pool description") -> PlofModel:
        """Build a model from the content of its file, in which a range is [lower, start, upper].

        Args:
            description: Object with the keys ``peaks``, ``polynomial_degree`` and ``water_term``.
            source: What messages call it, usually the file.

        Raises:
            ValueError: The object describes no model; the message names ``source`` and the key.
        """
        values = check_keys(description, PLOF_KEYS, source, also=DESCRIPTION_KEYS)
        peaks = values.get("peaks")
        if not isinstance(peaks, list):
            raise ValueError(f"{source}: peaks must be a list of objects with the keys {', '.join(PEAK_KEYS)}")
        degree = number(values.get("polynomial_degree", 2), f"{source}: polynomial_degree")
        if degree != int(degree):
            raise ValueError(f"{source}: polynomial_degree must be a whole number, not {degree:g}")
        water_term = values.get("water_term", True)
        if not isinstance(water_term, bool):
            raise ValueError(f"{source}: water_term must be true or false")
        try:
            return cls(tuple(_peak(peak, i, source) for i, peak in enumerate(peaks, start=1)), int(degree), water_term)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text.startswith(source) else f"{source}: {text}") from None


def _peak(description: Any, place: int, source: str) -> Peak:
    where = f"{source}: peak {place}"
    values = check_keys(description, PEAK_KEYS, where, also=("note",))
    name = str(values.get("name", f"peak{place}"))
    require_file_name(name, f"{where}: name")
    position, width = (range_from_json(values, key, where) for key in ("position_ppm", "width_ppm"))
    return Peak(name, position, width, _ends(values, "window_ppm", where), _ends(values, "peak_ppm", where))


def _ends(values: dict[str, Any], key: str, where: str) -> tuple[float, float]:
    ends = values.get(key)
    if not isinstance(ends, list) or len(ends) != 2:
        raise ValueError(f"{where}: {key} must be two offsets in ppm, the lower first")
    low, high = (number(end, f"{where}: {key}") for end in ends)
    return low, high
