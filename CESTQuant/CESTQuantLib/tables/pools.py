"""Models as tables: pools are rows, parameters are columns, and every change gives a new model.

A model is the content of its file: ``model.json`` for :class:`TissueTable`, a description of Lorentzian pools for
:class:`LorentzianTable`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from NeuroCESTLib.core.checked_json import require_file_name

from .cells import FITTED, FIXED, MAP, TIED, WORD, Cell, cell_of_entry, cell_of_text

LINESHAPE_COLUMN = "lineshape"


@dataclass(frozen=True)
class Column:
    """A parameter of pools.

    Attributes:
        key: Key in the model file.
        title: Heading with the unit.
        description: What it is, for the tool tip.
        signed: Whether values may be negative.
        kinds: Kinds of values that it may have.
        optional: Whether it may be empty.
    """

    key: str
    title: str
    description: str
    signed: bool = False
    kinds: tuple[str, ...] = (FIXED, FITTED, MAP)
    optional: bool = False


class PoolTable:
    """A model as a table; models are never changed in place.

    Attributes:
        COLUMNS: Parameters.
    """

    COLUMNS: tuple[Column, ...] = ()

    def rows(self, model: Mapping[str, Any]) -> list[str]:
        """Return the names of the rows."""
        raise NotImplementedError

    def is_pool(self, model: Mapping[str, Any], row: str) -> bool:
        """Whether a row is a pool that can be renamed."""
        raise NotImplementedError

    def column(self, key: str) -> Column:
        """Return the column of a key."""
        return next(column for column in self.COLUMNS if column.key == key)

    def cell(self, model: Mapping[str, Any], row: str, key: str) -> Cell | None:
        """Return a value; None where it is not given."""
        raise NotImplementedError

    def applies(self, model: Mapping[str, Any], row: str, key: str) -> bool:
        """Whether a row has a parameter."""
        raise NotImplementedError

    def text(self, model: Mapping[str, Any], row: str, key: str) -> str:
        """Return the text of a cell; empty where there is no value."""
        cell = self.cell(model, row, key)
        return "" if cell is None else cell.text()

    def with_text(self, model: Mapping[str, Any], row: str, key: str, text: str) -> dict[str, Any]:
        """Return the model with another value, as typed.

        Raises:
            ValueError: The text is no value of this parameter; the message names row and column.
        """
        column = self.column(key)
        try:
            if not text.strip() and column.optional:
                return self.with_cell(model, row, key, None)
            return self.with_cell(model, row, key, cell_of_text(text, column.kinds))
        except ValueError as error:
            raise ValueError(f"{row}, {column.title}: {error}") from None

    def with_cell(self, model: Mapping[str, Any], row: str, key: str, cell: Cell | None) -> dict[str, Any]:
        """Return the model with another value; None leaves an optional one out.

        Raises:
            ValueError: The value cannot be used; the message says why.
        """
        column = self.column(key)
        lowest = None if cell is None else cell.bounds[0] if cell.kind == FITTED else cell.value
        if lowest is not None and lowest < 0 and not column.signed:
            raise ValueError(f"{lowest:g} is negative")
        changed = copy.deepcopy(dict(model))
        self._set(changed, row, key, cell)
        return changed

    def _set(self, model: dict[str, Any], row: str, key: str, cell: Cell | None) -> None:
        raise NotImplementedError

    def _pools(self, model: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """Return the lists in which a model has its pools."""
        raise NotImplementedError

    def _named(self, model: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        return next((pool for pools in self._pools(model) for pool in pools if pool.get("name") == name), None)

    def _pool(self, model: Mapping[str, Any], name: str) -> dict[str, Any]:
        pool = self._named(model, name)
        if pool is None:
            raise ValueError(f"the model has no pool '{name}'")
        return pool

    def renamed(self, model: Mapping[str, Any], row: str, name: str) -> dict[str, Any]:
        """Return the model with another name of a pool.

        Raises:
            ValueError: The name is used already, or cannot be part of a file name.
        """
        name = name.strip()
        require_file_name(name, "the name")
        if name != row and name in [*self.rows(model), "water", "semisolid"]:
            raise ValueError(f"the name '{name}' is used already; choose another one")
        changed = copy.deepcopy(dict(model))
        pool = self._named(changed, row)
        if pool is None:
            raise ValueError(f"'{row}' cannot be renamed")
        pool["name"] = name
        return changed

    def without(self, model: Mapping[str, Any], row: str) -> dict[str, Any]:
        """Return the model without a pool.

        Raises:
            ValueError: The row is no pool that can be left out.
        """
        changed = copy.deepcopy(dict(model))
        for pools in self._pools(changed):
            kept = [pool for pool in pools if pool.get("name") != row]
            if len(kept) < len(pools) and self._can_leave_out(row):
                pools[:] = kept
                return changed
        raise ValueError(f"'{row}' cannot be removed")

    def _can_leave_out(self, row: str) -> bool:
        return row != "water"

    def new_name(self, model: Mapping[str, Any]) -> str:
        """Return a name for a further pool."""
        taken = self.rows(model)
        return next(name for number in range(1, 100) if (name := f"pool{number}") not in taken)


class TissueTable(PoolTable):
    """Tissue model: water, solutes, semisolid, the fields, and scale and noise floor of the measured signal."""

    COLUMNS = (
        Column(
            "fraction",
            "Fraction",
            "Proton fraction, with water = 1; for relative B1, actual over nominal B1; for scale and noise floor "
            "of the signal, in units of M0.",
        ),
        Column("k_Hz", "Rate (Hz)", "Exchange rate from the pool to the water in Hz (1/s)."),
        Column("T1_s", "T1 (s)", "Longitudinal relaxation time in s."),
        Column("T2_s", "T2 (s)", "Transverse relaxation time in s."),
        Column(
            "dw_ppm",
            "Shift (ppm)",
            "Chemical shift from the water in ppm; for the B0 row, the shift of the water.",
            True,
        ),
        Column(
            "protons",
            "Protons",
            "Exchangeable protons per molecule, for concentrations.",
            kinds=(FIXED,),
            optional=True,
        ),
        Column(LINESHAPE_COLUMN, "Lineshape", "Lineshape of the semisolid pool.", kinds=(WORD,)),
    )
    SEMISOLID = "semisolid"
    FIELDS = {  # noqa: RUF012
        "B0 shift": ("dw_ppm", "b0_shift_ppm"),
        "relative B1": ("fraction", "b1_relative"),
        "signal scale": ("fraction", "signal_scale"),
        "noise floor": ("fraction", "noise_floor"),
    }
    _POOL_KEYS = ("fraction", "k_Hz", "T1_s", "T2_s", "dw_ppm")

    def rows(self, model: Mapping[str, Any]) -> list[str]:
        semisolid = [self.SEMISOLID] if model.get("semisolid") else []
        return ["water", *(str(pool["name"]) for pool in self._solutes(model)), *semisolid, *self.FIELDS]

    def is_pool(self, model: Mapping[str, Any], row: str) -> bool:
        return self._named(model, row) is not None

    def applies(self, model: Mapping[str, Any], row: str, key: str) -> bool:
        if row in self.FIELDS:
            return self.FIELDS[row][0] == key
        if row == "water":
            return key in ("T1_s", "T2_s")
        return key in self._POOL_KEYS or key == (LINESHAPE_COLUMN if row == self.SEMISOLID else "protons")

    def cell(self, model: Mapping[str, Any], row: str, key: str) -> Cell | None:
        owner, name = self._place(model, row, key)
        defaults = {"dw_ppm": 0.0, LINESHAPE_COLUMN: "lorentzian"} if row == self.SEMISOLID else {}
        entry = owner.get(name, defaults.get(key))
        return None if entry is None or not self.applies(model, row, key) else cell_of_entry(entry)

    def with_text(self, model: Mapping[str, Any], row: str, key: str, text: str) -> dict[str, Any]:
        """Return the model with another value; a field may be empty, and then comes from its map or is nominal."""
        if row in self.FIELDS and not text.strip():
            return self.with_cell(model, row, key, None)
        return super().with_text(model, row, key, text)

    def _set(self, model: dict[str, Any], row: str, key: str, cell: Cell | None) -> None:
        owner, name = self._place(model, row, key)
        if cell is None:
            owner.pop(name, None)
        else:
            owner[name] = cell.entry()

    def _place(self, model: Any, row: str, key: str) -> tuple[dict[str, Any], str]:
        """Return the object of the model that holds a value, and the key there."""
        if row in self.FIELDS:
            return model, self.FIELDS[row][1]
        if row in ("water", self.SEMISOLID):
            return model[row], key
        return self._pool(model, row), key

    def _solutes(self, model: Mapping[str, Any]) -> list[dict[str, Any]]:
        solutes = model.get("solutes") or []
        for number, pool in enumerate(solutes, start=1):
            pool.setdefault("name", f"solute{number}")
        return solutes

    def _pools(self, model: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        return [self._solutes(model)]

    def without(self, model: Mapping[str, Any], row: str) -> dict[str, Any]:
        if row == self.SEMISOLID:
            return {**copy.deepcopy(dict(model)), "semisolid": None}
        return super().without(model, row)

    def with_pool(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model with a further solute, whose fraction and exchange rate are fitted."""
        changed = copy.deepcopy(dict(model))
        pool = {
            "name": self.new_name(model),
            "fraction": Cell(FITTED, 0.001, (0.0, 0.01)).entry(),
            "k_Hz": Cell(FITTED, 100.0, (5.0, 2000.0)).entry(),
            "T1_s": 1.0,
            "T2_s": 0.1,
            "dw_ppm": 2.0,
        }
        changed["solutes"] = [*(changed.get("solutes") or []), pool]
        return changed

    def with_semisolid(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model with a semisolid pool as in white matter, whose fraction is fitted."""
        from ..formats.presets import tissue_values

        values = {**tissue_values("white matter 3T")["semisolid"], "fraction": Cell(FITTED, 0.1, (0.0, 0.3)).entry()}
        return {**copy.deepcopy(dict(model)), "semisolid": values}


class LorentzianTable(PoolTable):
    """Lorentzian pools: every value is fitted, and the position of a line may be tied to that of the water."""

    COLUMNS = (
        Column("amplitude", "Amplitude", "Depth of the line in units of Z.", kinds=(FITTED,)),
        Column("width_ppm", "Width (ppm)", "Full width at half maximum in ppm.", kinds=(FITTED,)),
        Column(
            "position_ppm",
            "Position (ppm)",
            "Position of the line in ppm, or its distance from the water.",
            True,
            (FITTED, TIED),
        ),
    )
    BASELINE = "baseline"

    def rows(self, model: Mapping[str, Any]) -> list[str]:
        return [*(str(pool["name"]) for pools in self._pools(model) for pool in pools), self.BASELINE]

    def is_pool(self, model: Mapping[str, Any], row: str) -> bool:
        return row not in (self.BASELINE, "water")

    def applies(self, model: Mapping[str, Any], row: str, key: str) -> bool:
        return row != self.BASELINE or key == "amplitude"

    def cell(self, model: Mapping[str, Any], row: str, key: str) -> Cell | None:
        if row == self.BASELINE:
            return cell_of_range(model["baseline"]) if key == "amplitude" else None
        pool = self._pool(model, row)
        if key == "position_ppm" and pool.get("offset_from_water_ppm") is not None:
            return Cell(TIED, float(pool["offset_from_water_ppm"]))
        return cell_of_range(pool[key])

    def _set(self, model: dict[str, Any], row: str, key: str, cell: Cell | None) -> None:
        if cell is None:
            raise ValueError("a value is needed")
        if cell.prior is not None:
            raise ValueError("Lorentzian fits take no prior")
        limits = [cell.bounds[0], cell.value, cell.bounds[1]]
        if row == self.BASELINE:
            model["baseline"] = limits
            return
        if key == "width_ppm" and not cell.bounds[0] > 0:
            raise ValueError("the lower bound of a width must be above 0")
        pool = self._pool(model, row)
        if key == "position_ppm":
            if row == self.rows(model)[0] and cell.kind == TIED:
                raise ValueError("the position of the water itself is fitted: give its start and bounds")
            pool.pop("offset_from_water_ppm", None)
            pool.pop("position_ppm", None)
            pool["offset_from_water_ppm" if cell.kind == TIED else key] = cell.value if cell.kind == TIED else limits
        else:
            pool[key] = limits

    def _pools(self, model: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        return [model["pools"], *([model["residual_pools"]] if model.get("residual_pools") else [])]

    def with_pool(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model with a further line, tied to the water at 2 ppm."""
        changed = copy.deepcopy(dict(model))
        pool = {"name": self.new_name(model), "amplitude": [0.0, 0.02, 0.3], "width_ppm": [0.3, 1.5, 8.0]}
        self._pools(changed)[-1].append({**pool, "offset_from_water_ppm": 2.0})
        return changed


def cell_of_range(limits: Any) -> Cell:
    """Return the cell of a range of a file, [lower, start, upper].

    Raises:
        ValueError: It is no such range.
    """
    try:
        low, start, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        raise ValueError(f"{str(limits)[:60]} is no range [lower, start, upper]") from None
    return Cell(FITTED, start, (low, high))


def readable_model(table: PoolTable, model: Any, source: str) -> dict[str, Any]:
    """Return a model that a table can show.

    Args:
        table: Table that is to show it.
        model: Content of a model file.
        source: File, with which the message begins.

    Raises:
        ValueError: The content is no such model.
    """
    try:
        shown = copy.deepcopy(dict(model))
        for kind in ("solute", "peak"):  # as their readers name them
            for number, pool in enumerate(shown.get(f"{kind}s") or [], start=1):
                pool["name"] = str(pool.get("name", f"{kind}{number}"))
        for row in table.rows(shown):
            for column in table.COLUMNS:
                table.text(shown, row, column.key)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{source}: this is not a model of this kind") from None
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return shown


def model_text(model: Mapping[str, Any]) -> str:
    """Return the text of a model file."""
    return json.dumps(model, indent=1, ensure_ascii=False) + "\n"
