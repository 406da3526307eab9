"""The peaks of PLOF as a table: peaks are rows, and the polynomial background is the last row."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..tissue.line_fits.plof_model import PlofModel
from .cells import FITTED, FIXED, WORD, Cell
from .pools import Column, PoolTable, cell_of_range

_ENDS = {
    "window_from": ("window_ppm", 0),
    "window_to": ("window_ppm", 1),
    "peak_from": ("peak_ppm", 0),
    "peak_to": ("peak_ppm", 1),
}
"""Key of the file and place there of the ends of ranges, by column."""
_YES_NO = {"yes": True, "no": False}


class PlofTable(PoolTable):
    """Peaks above a polynomial background (PLOF), each fitted in a window of its own."""

    COLUMNS = (
        Column("position_ppm", "Position (ppm)", "Distance of the peak from the water in ppm.", True, (FITTED,)),
        Column("width_ppm", "Width (ppm)", "Full width at half maximum in ppm.", kinds=(FITTED,)),
        Column("window_from", "Window from (ppm)", "Lowest offset from the water that is fitted.", True, (FIXED,)),
        Column("window_to", "Window to (ppm)", "Highest offset from the water that is fitted.", True, (FIXED,)),
        Column("peak_from", "Peak from (ppm)", "Lowest offset that the background leaves out.", True, (FIXED,)),
        Column("peak_to", "Peak to (ppm)", "Highest offset that the background leaves out.", True, (FIXED,)),
        Column("polynomial_degree", "Degree", "Degree of the polynomial of the background, 0 to 5.", kinds=(FIXED,)),
        Column("water_term", "Water term", "yes if the background has a term for direct saturation.", kinds=(WORD,)),
    )
    BACKGROUND = "background"
    _OF_BACKGROUND = ("polynomial_degree", "water_term")

    def rows(self, model: Mapping[str, Any]) -> list[str]:
        return [*(str(peak["name"]) for peak in model["peaks"]), self.BACKGROUND]

    def is_pool(self, model: Mapping[str, Any], row: str) -> bool:
        return row != self.BACKGROUND

    def applies(self, model: Mapping[str, Any], row: str, key: str) -> bool:
        return (key in self._OF_BACKGROUND) == (row == self.BACKGROUND)

    def cell(self, model: Mapping[str, Any], row: str, key: str) -> Cell | None:
        if not self.applies(model, row, key):
            return None
        if key == "water_term":
            return Cell(WORD, name="yes" if model.get(key, True) else "no")
        if key == "polynomial_degree":
            return Cell(FIXED, float(model.get(key, 2)))
        peak = self._pool(model, row)
        if key in _ENDS:
            name, place = _ENDS[key]
            return Cell(FIXED, float(peak[name][place]))
        return cell_of_range(peak[key])

    def _set(self, model: dict[str, Any], row: str, key: str, cell: Cell | None) -> None:
        if cell is None or cell.prior is not None or cell.sd is not None:
            raise ValueError("a value is needed" if cell is None else "PLOF takes neither priors nor uncertainties")
        if key == "water_term":
            if cell.name.lower() not in _YES_NO:
                raise ValueError("type yes or no")
            model[key] = _YES_NO[cell.name.lower()]
        elif key == "polynomial_degree":
            model[key] = cell.value
        else:
            peak = self._pool(model, row)
            if key in _ENDS:
                name, place = _ENDS[key]
                peak[name][place] = cell.value
            else:
                peak[key] = [cell.bounds[0], cell.value, cell.bounds[1]]
        PlofModel.from_dict(model, "the peaks")

    def _pools(self, model: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        return [model["peaks"]]

    def without(self, model: Mapping[str, Any], row: str) -> dict[str, Any]:
        changed = super().without(model, row)
        PlofModel.from_dict(changed, "the peaks")
        return changed

    def with_pool(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model with a further peak, at the place of guanidinium."""
        changed = copy.deepcopy(dict(model))
        changed["peaks"].append(
            {
                "name": self.new_name(model),
                "position_ppm": [1.8, 2.0, 2.2],
                "width_ppm": [0.3, 1.0, 2.0],
                "window_ppm": [1.0, 3.2],
                "peak_ppm": [1.5, 2.5],
            }
        )
        return changed
