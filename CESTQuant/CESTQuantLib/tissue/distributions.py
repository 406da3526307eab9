"""Distributions of tissue parameters, from which simulated data sets are drawn."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..physics.pools import Scalar, Tissue
from .model import FIELD_KEYS, TissueModel, tissue_model_from_dict

KINDS = ("uniform", "log_uniform", "normal")
NORMAL_REACH = 3.0
"""Normal distributions are cut at this many standard deviations, so that every range is finite."""
_SIGNED = ("dw_ppm", "b0_shift_ppm")
_NEUTRAL_FIELDS = {"b0_shift_ppm": 0.0, "b1_relative": 1.0}


@dataclass(frozen=True)
class Distribution:
    """One value: 'fixed' (first = second), 'uniform', 'log_uniform' (limits), 'normal' (mean, sd; cut at 3 sd)."""

    kind: str
    first: float
    second: float

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value that can be drawn."""
        if self.kind == "normal":
            reach = NORMAL_REACH * self.second
            return self.first - reach, self.first + reach
        return self.first, self.second

    @property
    def varies(self) -> bool:
        return self.kind != "fixed"

    def of_uniform(self, uniform: Tensor) -> Tensor:
        """Values for uniform random numbers in [0, 1), by the inverse of the cumulative distribution."""
        if self.kind == "normal":
            edge = 0.5 * math.erfc(NORMAL_REACH / math.sqrt(2))
            return self.first + self.second * torch.special.ndtri(edge + (1 - 2 * edge) * uniform)
        if self.kind == "log_uniform":
            low, high = math.log(self.first), math.log(self.second)
            return torch.exp(low + (high - low) * uniform)
        return self.first + (self.second - self.first) * uniform


@dataclass(frozen=True)
class TissueDistribution:
    """Joint distribution (independent entries) of a tissue and of the fields it is measured in.

        distribution = TissueDistribution.from_dict(config["tissue"], "config.json")
        values = distribution.sample(1000, torch.Generator().manual_seed(1))
        signal = simulate(distribution.tissue(values), protocol, b0_shift_ppm=values["b0_shift_ppm"])

    entries: distribution by path ('water.T1_s', 'amine.k_Hz', 'semisolid.fraction', 'b0_shift_ppm', 'b1_relative').
    structure: pools and their fixed properties.
    """

    entries: Mapping[str, Distribution]
    structure: TissueModel

    @classmethod
    def from_dict(cls, values: dict, source: str = "tissue") -> TissueDistribution:
        """From the keys of a model file whose scalars are numbers, {"uniform": [a, b]}, {"log_uniform": [a, b]} or
        {"normal": [mean, sd]}. Raises ValueError naming ``source`` and the entry."""
        if not isinstance(values, dict):
            raise ValueError(f"{source}: a tissue is an object with the keys water, solutes and semisolid")
        found: dict[str, Distribution] = {}
        centre = copy.deepcopy(values)
        try:
            _replace(centre, "", found)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        structure = tissue_model_from_dict(centre, source)
        if structure.parameters or structure.map_names:
            raise ValueError(f"{source}: fitted values and maps have no place here; give numbers or ranges")
        entries = {}
        for path in (*structure.entries, *(key for key in FIELD_KEYS if key not in structure.entries)):
            number = structure.entries.get(path, _NEUTRAL_FIELDS.get(path))
            entries[path] = found.get(path, Distribution("fixed", float(number), float(number)))
        return cls(entries, structure)

    @property
    def varied(self) -> list[str]:
        """Paths of the entries that vary, in the order of the file."""
        return [path for path, entry in self.entries.items() if entry.varies]

    def sample(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Every entry as (count,) float64; the varied ones are drawn one after the other from ``generator``."""
        values = {}
        for path, entry in self.entries.items():
            if entry.varies:
                values[path] = entry.of_uniform(torch.rand(count, generator=generator, dtype=torch.float64))
            else:
                values[path] = torch.full((count,), entry.first, dtype=torch.float64)
        return values

    def fixed_or(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The given values by path, completed by the numbers of the entries that do not vary."""
        fixed = {path: entry.first for path, entry in self.entries.items() if not entry.varies}
        return {**fixed, **values}

    def tissue(self, values: Mapping[str, Scalar]) -> Tissue:
        """Tissue of values by path; entries that do not vary may be left out."""
        return self.structure.tissue(self.fixed_or(values))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of every entry; equal where it does not vary."""
        return {path: entry.range for path, entry in self.entries.items()}

    def is_logarithmic(self, path: str) -> bool:
        """Whether an entry is drawn, and hence best learned, on a logarithmic scale."""
        return self.entries[path].kind == "log_uniform"


def _replace(node: dict, owner: str, found: dict[str, Distribution]) -> None:
    """Replace the distributions in a tissue description by a number inside their range, collecting them by path."""
    for key, value in node.items():
        if key in ("water", "semisolid") and isinstance(value, dict):
            _replace(value, f"{key}.", found)
        elif key == "solutes" and isinstance(value, list):
            for index, solute in enumerate(value, start=1):
                if isinstance(solute, dict):
                    _replace(solute, f"{solute.get('name', f'solute{index}')}.", found)
        elif isinstance(value, dict) and not {"fit", "map"} & set(value):
            entry = _distribution(f"{owner}{key}", value)
            found[f"{owner}{key}"] = entry
            low, high = entry.range
            node[key] = (low + high) / 2
        elif owner and isinstance(value, int | float) and not isinstance(value, bool) and key.endswith("_s"):
            _require_range(f"{owner}{key}", key, float(value), float(value))


def _distribution(path: str, value: dict) -> Distribution:
    if len(value) != 1 or next(iter(value)) not in KINDS:
        raise ValueError(
            f'{path}: use a number, {{"uniform": [a, b]}}, {{"log_uniform": [a, b]}} or {{"normal": [mean, sd]}}'
        )
    ((kind, numbers),) = value.items()
    plain = isinstance(numbers, list | tuple) and len(numbers) == 2
    if not plain or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise ValueError(f"{path}: {kind} needs two numbers, got {numbers!r}")
    first, second = float(numbers[0]), float(numbers[1])
    if kind == "normal":
        if not second > 0:
            raise ValueError(f"{path}: the standard deviation is {second:g} but must be positive")
    elif not first < second:
        raise ValueError(f"{path}: the range [{first:g}, {second:g}] is empty; give the lower limit first")
    if kind == "log_uniform" and not first > 0:
        raise ValueError(f"{path}: a log_uniform range starts above 0, not at {first:g}")
    entry = Distribution(kind, first, second)
    _require_range(path, path.rpartition(".")[2], *entry.range)
    return entry


def _require_range(path: str, key: str, low: float, high: float) -> None:
    strict = key.endswith("_s") or key == "b1_relative"
    if key not in _SIGNED and (low < 0 or (strict and low <= 0)):
        raise ValueError(f"{path}: the range [{low:g}, {high:g}] reaches below what is physically possible")
