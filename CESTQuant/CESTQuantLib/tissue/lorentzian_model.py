"""The sum-of-Lorentzians model of a Z-spectrum: its pools, bounds, prediction and analytic Jacobian.

Z(D) = Zi - sum_i A_i (G_i/2)^2 / ((G_i/2)^2 + (D - d_i)^2) at the offset D, with the baseline Zi, the amplitudes A, the
full widths at half maximum G and the positions d, these two in ppm (Zaiss et al., J Magn Reson 2011;211:149; Windschuh
et al., NMR Biomed 2015;28:529).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, number, read_json, require_file_name
from NeuroCESTLib.core.messages.input_errors import InputError

from ..formats.presets import FOLDER as PRESETS

MODEL_KEYS = ("pools", "baseline")
POOL_KEYS = ("name", "amplitude", "width_ppm", "position_ppm", "offset_from_water_ppm")
DESCRIPTION_KEYS = ("name", "note", "source", "field_strength_T", "columns")
"""Keys of a model file that only inform its reader."""
MOST_POOLS = 6


@dataclass(frozen=True)
class Range:
    """Bounds and start value of a parameter.

    Raises:
        ValueError: The start lies outside the bounds.
    """

    lower: float
    start: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.start <= self.upper:
            raise ValueError(f"the start {self.start} must lie within [{self.lower}, {self.upper}]")


@dataclass(frozen=True)
class LorentzianPool:
    """One line, whose position is either fitted or tied to that of the water at a fixed distance.

    Attributes:
        name: Name, from which maps are named.
        amplitude: Range of the depth of the line in units of Z.
        width_ppm: Range of the full width at half maximum.
        position_ppm: Range of a fitted position; None for a tied one.
        offset_from_water_ppm: Distance of a tied position from the fitted position of the water; None for a fitted one.

    Raises:
        ValueError: Both or neither of the two kinds of position are given.
    """

    name: str
    amplitude: Range
    width_ppm: Range
    position_ppm: Range | None = None
    offset_from_water_ppm: float | None = None

    def __post_init__(self) -> None:
        if (self.position_ppm is None) == (self.offset_from_water_ppm is None):
            raise ValueError(f"pool '{self.name}' needs either position_ppm or offset_from_water_ppm")


@dataclass(frozen=True)
class LorentzianModel:
    """One to six pools, the water first; the parameters are Zi, the amplitudes, the widths and the fitted positions.

    Attributes:
        pools: Lines, the water first.
        baseline: Range of Zi.
        source: Where the bounds come from.

    Raises:
        ValueError: There are too many pools or none, two have the same name, or the position of the water is tied.
    """

    pools: tuple[LorentzianPool, ...]
    baseline: Range = Range(0.5, 1.0, 1.0)
    source: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.pools) <= MOST_POOLS:
            raise ValueError(f"a Lorentzian model has 1 to {MOST_POOLS} pools, not {len(self.pools)}")
        if len(set(self.names)) != len(self.pools):
            raise ValueError(f"pool names must differ: {', '.join(self.names)}")
        if self.pools[0].position_ppm is None:
            raise ValueError(f"the first pool ('{self.pools[0].name}') is the water and needs position_ppm")

    @classmethod
    def preset(cls, name: str) -> LorentzianModel:
        """Read the model of ``presets/<name>.json``, such as ``lorentzian_3T`` or ``lorentzian_7T``.

        Raises:
            ValueError: There is no such preset; the message lists the known ones.
        """
        path = PRESETS / f"{name}.json"
        if not path.is_file():
            known = ", ".join(sorted(found.stem for found in PRESETS.glob("lorentzian_*.json")))
            raise InputError("lorentzian", f"Lorentzian preset '{name}' is unknown; use one of {known}")
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, description: Any, source: str = "pool description") -> LorentzianModel:
        """Build a model from the content of its file, in which a range is [lower, start, upper].

        Args:
            description: Object with the keys ``pools`` and ``baseline``.
            source: What messages call it, usually the file.

        Raises:
            ValueError: The object describes no model; the message names ``source`` and the key.
        """
        values = check_keys(description, MODEL_KEYS, source, also=DESCRIPTION_KEYS)
        if not isinstance(values.get("pools"), list):
            raise ValueError(f"{source}: pools must be a list of objects with the keys {', '.join(POOL_KEYS)}")
        pools = tuple(_pool(pool, place, source) for place, pool in enumerate(values["pools"], start=1))
        baseline = range_from_json(values, "baseline", source)
        try:
            return cls(pools, baseline, str(values.get("source", "")))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pools."""
        return tuple(pool.name for pool in self.pools)

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameters, in their order, such as ``amide_width_ppm``."""
        kinds = {"amplitude": self.names, "width_ppm": self.names}
        kinds["position_ppm"] = tuple(self.names[place] for place in self.fitted_positions)
        return ["baseline", *(f"{pool}_{kind}" for kind, pools in kinds.items() for pool in pools)]

    @property
    def fitted_positions(self) -> list[int]:
        """Indices of the pools whose position is fitted."""
        return [index for index, pool in enumerate(self.pools) if pool.position_ppm is not None]

    def tied(self) -> LorentzianModel:
        """Return the same pools with all positions tied to the water, at the distances of their start values."""
        water = self.pools[0]

        def tie(pool: LorentzianPool) -> LorentzianPool:
            if pool is water or pool.position_ppm is None or water.position_ppm is None:
                return pool
            distance = pool.position_ppm.start - water.position_ppm.start
            return replace(pool, position_ppm=None, offset_from_water_ppm=distance)

        return replace(self, pools=tuple(tie(pool) for pool in self.pools))

    def only(self, *names: str) -> LorentzianModel:
        """Return the same model with some of its pools.

        Raises:
            ValueError: The model has no such pool.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise InputError(
                "lorentzian", f"the model has no pool {', '.join(unknown)} (it has {', '.join(self.names)})"
            )
        return replace(self, pools=tuple(pool for pool in self.pools if pool.name in names))

    def limits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return start, lower and upper bound of every parameter; (p,) float64 each."""
        ranges = [self.baseline]
        ranges += [pool.amplitude for pool in self.pools]
        ranges += [pool.width_ppm for pool in self.pools]
        ranges += [pool.position_ppm for pool in self.pools if pool.position_ppm is not None]
        columns = [[getattr(each, field) for each in ranges] for field in ("start", "lower", "upper")]
        start, lower, upper = torch.tensor(columns, dtype=torch.float64)
        return start, lower, upper

    def positions(self, parameters: Tensor) -> Tensor:
        """Return the position of every pool in ppm; parameters (p, voxel) -> (pool, voxel)."""
        fitted = iter(parameters[1 + 2 * len(self.pools) :])
        rows: list[Tensor] = []
        for pool in self.pools:
            tied = pool.offset_from_water_ppm
            rows.append(next(fitted) if tied is None else rows[0] + tied)
        return torch.stack(rows)

    def predict(self, parameters: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the spectrum and its derivatives with respect to the parameters.

        Args:
            parameters: (p, voxel).
            offsets_ppm: (offset, 1) or (offset, voxel).

        Returns:
            The spectrum (offset, voxel) and the Jacobian (p, offset, voxel).
        """
        count = len(self.pools)
        measurements = offsets_ppm.shape[0]
        # The memory is (voxel, parameter, offset), which makes the normal matrices one batched product.
        amplitude = parameters[1 : 1 + count].T.unsqueeze(2)
        width = parameters[1 + count : 1 + 2 * count].T.unsqueeze(2)
        distance = offsets_ppm.T.unsqueeze(1) - self.positions(parameters).T.unsqueeze(2)
        quarter = width.square() / 4
        inverse = torch.addcmul(quarter, distance, distance).reciprocal_()

        jacobian = inverse.new_empty(len(inverse), len(parameters), measurements)
        jacobian[:, 0] = 1
        # The derivative with respect to A is minus the line s of amplitude one.
        shape = torch.mul(inverse, -quarter, out=jacobian[:, 1 : 1 + count])
        prediction = (shape * amplitude).sum(1).add_(parameters[0].unsqueeze(1))
        # Those of the line L = A s are dL/dG = A (G/2) u (1 - s) with respect to its width and
        # dL/dd = 2 A s u (D - d) with respect to its position, with u = 1/((G/2)^2 + (D - d)^2) and s = (G/2)^2 u.
        width_rows = jacobian[:, 1 + count : 1 + 2 * count]
        torch.addcmul(inverse, inverse, shape, out=width_rows).mul_(amplitude * width * -0.5)
        slope = inverse.mul_(shape).mul_(distance).mul_(2 * amplitude)
        position_rows = jacobian[:, 1 + 2 * count :]
        if position_rows.shape[1] == count:
            position_rows.copy_(slope)
        else:  # a tied line moves with the water
            position_rows.zero_()
            row = {pool: place for place, pool in enumerate(self.fitted_positions)}
            for pool in range(count):
                position_rows[:, row.get(pool, 0)] += slope[:, pool]
        return prediction.T, jacobian.permute(1, 2, 0)


def _pool(description: Any, place: int, source: str) -> LorentzianPool:
    """Read the line at a place (from 1) of a model file."""
    values = check_keys(description, POOL_KEYS, f"{source}: pool {place}", also=("note",))
    name = values.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{source}: pool {place} needs a name")
    require_file_name(name, f"{source}: pool name")
    where = f"{source}: pool '{name}'"
    tied = values.get("offset_from_water_ppm")
    if tied is not None:
        tied = number(tied, f"{where}: offset_from_water_ppm")
    amplitude = range_from_json(values, "amplitude", where)
    width = range_from_json(values, "width_ppm", where)
    if not width.lower > 0:
        raise ValueError(f"{where}: width_ppm must be above 0")
    position = None if values.get("position_ppm") is None else range_from_json(values, "position_ppm", where)
    try:
        return LorentzianPool(name, amplitude, width, position, tied)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def range_from_json(values: dict[str, Any], key: str, where: str) -> Range:
    """Read a range that is given as [lower, start, upper].

    Raises:
        ValueError: The key does not hold three numbers in this order; the message names it and ``where``.
    """
    limits = values.get(key)
    if not isinstance(limits, list) or len(limits) != 3:
        raise ValueError(f"{where}: {key} must be three numbers, [lower, start, upper]")
    names = ("the lower bound", "the start", "the upper bound")
    lower, start, upper = (number(limit, f"{where}: {key}: {what}") for limit, what in zip(limits, names, strict=True))
    try:
        return Range(lower, start, upper)
    except ValueError as error:
        raise ValueError(f"{where}: {key}: {error}") from None
