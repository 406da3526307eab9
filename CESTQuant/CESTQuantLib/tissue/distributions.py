"""Distributions of tissue parameters, from which simulated data sets are drawn."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number

from ..physics.pools import Scalar, Tissue
from .model import FIELD_KEYS, MODEL_KEYS, TissueModel, tissue_model_from_dict

KINDS = ("uniform", "log_uniform", "normal")
NORMAL_REACH = 3.0
"""Normal distributions are cut at this many standard deviations, so that every range is finite."""
_SIGNED = ("dw_ppm", "b0_shift_ppm")
"""Entries that may be negative."""
_NEUTRAL_FIELDS = {"b0_shift_ppm": 0.0, "b1_relative": 1.0}


@dataclass(frozen=True)
class Distribution:
    """Distribution of one value.

    Attributes:
        kind: ``fixed``, ``uniform``, ``log_uniform``, or ``normal``, which is cut at three standard deviations.
        first: The fixed value, the lower limit, or the mean.
        second: The fixed value, the upper limit, or the standard deviation.

    Raises:
        ValueError: The kind is unknown; the message lists the known ones.
    """

    kind: str
    first: float
    second: float

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", *KINDS):
            raise ValueError(f"distribution '{self.kind}' is unknown; use one of {', '.join(KINDS)}")

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value that can be drawn."""
        if self.kind == "normal":
            reach = NORMAL_REACH * self.second
            return self.first - reach, self.first + reach
        return self.first, self.second

    @property
    def varies(self) -> bool:
        """Whether more than one value can be drawn."""
        return self.kind != "fixed"

    def quantile(self, probability: Tensor) -> Tensor:
        """Return the values below which the distribution lies with these probabilities in [0, 1)."""
        if self.kind == "normal":
            cut = 0.5 * math.erfc(NORMAL_REACH / math.sqrt(2))
            return self.first + self.second * torch.special.ndtri(cut + (1 - 2 * cut) * probability)
        if self.kind == "log_uniform":
            low, high = math.log(self.first), math.log(self.second)
            return torch.exp(low + (high - low) * probability)
        return self.first + (self.second - self.first) * probability


@dataclass(frozen=True)
class TissueDistribution:
    """Distribution of a tissue and of the fields in which it is measured, with independent entries.

    For example::

        distribution = TissueDistribution.from_dict(config["tissue"], "config.json")
        values = distribution.sample(1000, torch.Generator().manual_seed(1))
        signal = simulate(distribution.tissue(values), protocol, b0_shift_ppm=values["b0_shift_ppm"])

    Attributes:
        entries: Distributions by path, such as ``water.T1_s``, ``amine.k_Hz``, ``semisolid.fraction``,
            ``b0_shift_ppm`` or ``b1_relative``.
        structure: Tissue model with the pools and their fixed properties.
    """

    entries: Mapping[str, Distribution]
    structure: TissueModel

    @classmethod
    def from_dict(cls, values: Any, source: str = "tissue") -> TissueDistribution:
        """Build the distribution from the content of a model file.

        Args:
            values: Object with the keys of a model file. Every scalar is a number, ``{"uniform": [a, b]}``,
                ``{"log_uniform": [a, b]}``, ``{"normal": [mean, sd]}`` or ``{"value": mean, "sd": sd}``.
            source: What messages call it, usually the file and the key.

        Raises:
            ValueError: The object describes no tissue, or one of impossible values; the message names ``source`` and
                the entry.
        """
        values = check_keys(values, (*MODEL_KEYS, *FIELD_KEYS), source, also=("name", "note"))
        found: dict[str, Distribution] = {}
        center = copy.deepcopy(values)
        try:
            _replace_distributions(center, "", found)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        structure = tissue_model_from_dict(center, source)
        entries: dict[str, Distribution] = {}
        for path, entry in {**structure.entries, **_missing_fields(structure)}.items():
            if not isinstance(entry, float):
                raise ValueError(f"{source}: {path}: fitted values and maps have no place here; use a number or range")
            entries[path] = found.get(path, Distribution("fixed", entry, entry))
        return cls(entries, structure)

    @property
    def varied(self) -> list[str]:
        """Paths of the entries that vary, in the order of the file."""
        return [path for path, entry in self.entries.items() if entry.varies]

    def sample(self, count: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw values of every entry.

        Args:
            count: Number of values.
            generator: Random numbers; the entries that vary are drawn from it one after the other.

        Returns:
            Values (count,) in float64 by path.
        """
        values = {}
        for path, entry in self.entries.items():
            if entry.varies:
                values[path] = entry.quantile(torch.rand(count, generator=generator, dtype=torch.float64))
            else:
                values[path] = torch.full((count,), entry.first, dtype=torch.float64)
        return values

    def fixed_or(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Complete values by path with the numbers of the entries that do not vary."""
        fixed = {path: entry.first for path, entry in self.entries.items() if not entry.varies}
        return {**fixed, **values}

    def tissue(self, values: Mapping[str, Scalar]) -> Tissue:
        """Build the tissue from values by path; entries that do not vary may be left out."""
        return self.structure.tissue(self.fixed_or(values))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the lowest and highest value of every entry by path; they are equal where it does not vary."""
        return {path: entry.range for path, entry in self.entries.items()}

    def is_logarithmic(self, path: str) -> bool:
        """Tell whether an entry is drawn, and hence best learned, on a logarithmic scale."""
        return self.entries[path].kind == "log_uniform"


def _missing_fields(structure: TissueModel) -> dict[str, float]:
    return {key: _NEUTRAL_FIELDS[key] for key in FIELD_KEYS if key not in structure.entries}


def _replace_distributions(node: dict[str, Any], owner: str, found: dict[str, Distribution]) -> None:
    """Replace the distributions in a tissue description by the centres of their ranges and collect them by path."""
    for key, value in node.items():
        if key in ("water", "semisolid") and isinstance(value, dict):
            _replace_distributions(value, f"{key}.", found)
        elif key == "solutes" and isinstance(value, list):
            for index, solute in enumerate(value, start=1):
                if isinstance(solute, dict):
                    _replace_distributions(solute, f"{solute.get('name', f'solute{index}')}.", found)
        elif isinstance(value, dict) and not {"fit", "map"} & set(value):
            entry = _distribution(f"{owner}{key}", value)
            found[f"{owner}{key}"] = entry
            low, high = entry.range
            node[key] = (low + high) / 2
        elif owner and isinstance(value, int | float) and not isinstance(value, bool) and key.endswith("_s"):
            _require_physical_range(f"{owner}{key}", float(value), float(value))


def _distribution(path: str, value: dict[str, Any]) -> Distribution:
    if set(value) == {"value", "sd"}:  # an uncertain constant, as in model files
        value = {"normal": [value["value"], value["sd"]]}
    if len(value) != 1 or next(iter(value)) not in KINDS:
        raise ValueError(
            f'{path}: use a number, {{"uniform": [a, b]}}, {{"log_uniform": [a, b]}} or {{"normal": [mean, sd]}}'
        )
    ((kind, limits),) = value.items()
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        raise ValueError(f"{path}: {kind} needs two numbers, got {limits!r}")
    first, second = (number(limit, f"{path}: a number of {kind}") for limit in limits)
    if kind == "normal":
        if not second > 0:
            raise ValueError(f"{path}: the standard deviation is {second:g} but must be positive")
    elif not first < second:
        raise ValueError(f"{path}: the range [{first:g}, {second:g}] is empty; give the lower limit first")
    if kind == "log_uniform" and not first > 0:
        raise ValueError(f"{path}: a log_uniform range starts above 0, not at {first:g}")
    entry = Distribution(kind, first, second)
    _require_physical_range(path, *entry.range)
    return entry


def _require_physical_range(path: str, low: float, high: float) -> None:
    key = path.rpartition(".")[2]
    positive = key.endswith("_s") or key == "b1_relative"
    if key not in _SIGNED and (low < 0 or (positive and low <= 0)):
        raise ValueError(f"{path}: the range [{low:g}, {high:g}] reaches below what is physically possible")
