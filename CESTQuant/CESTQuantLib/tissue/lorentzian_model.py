"""The sum-of-Lorentzians model of a Z-spectrum: its pools, bounds, prediction and analytic Jacobian.

Z(D) = Zi - sum_i A_i (G_i/2)^2 / ((G_i/2)^2 + (D - d_i)^2), with G the full width at half maximum and d the
position, both in ppm (Zaiss et al., J Magn Reson 2011;211:149; Windschuh et al., NMR Biomed 2015;28:529).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import require_file_name

from ..formats.presets import FOLDER as PRESETS


@dataclass(frozen=True)
class Range:
    """Where a parameter starts and how far it may go."""

    lower: float
    start: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.start <= self.upper:
            raise ValueError(f"the start {self.start} must lie within [{self.lower}, {self.upper}]")


@dataclass(frozen=True)
class LorentzianPool:
    """One line; its position is free, or tied to the water's at a fixed offset (the water's is free)."""

    name: str
    amplitude: Range
    width_ppm: Range
    position_ppm: Range | None = None
    offset_from_water_ppm: float | None = None

    def __post_init__(self) -> None:
        if (self.position_ppm is None) == (self.offset_from_water_ppm is None):
            raise ValueError(f"pool '{self.name}' needs either position_ppm or offset_from_water_ppm")


def _pool(values: dict, place: int) -> LorentzianPool:
    """A line of a preset file; ValueError says what is wrong with which."""
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise ValueError(f"pool {place} must be an object with a name, amplitude, width_ppm and position_ppm")
    name, tied = values["name"], values.get("offset_from_water_ppm")
    require_file_name(name, "pool name")
    if tied is not None and (isinstance(tied, bool) or not isinstance(tied, int | float)):
        raise ValueError(f"pool '{name}': offset_from_water_ppm must be a number")
    amplitude, width = (_range(values, key, f"pool '{name}'") for key in ("amplitude", "width_ppm"))
    if not width.lower > 0:
        raise ValueError(f"pool '{name}': width_ppm must be above 0")
    position = None if values.get("position_ppm") is None else _range(values, "position_ppm", f"pool '{name}'")
    return LorentzianPool(name, amplitude, width, position, tied)


def _range(values: dict, key: str, where: str) -> Range:
    limits = values.get(key)
    numbers = isinstance(limits, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in limits)
    if not numbers or len(limits) != 3:
        raise ValueError(f"{where}: {key} must be three numbers, [lower, start, upper]")
    try:
        return Range(*(float(number) for number in limits))
    except ValueError as error:
        raise ValueError(f"{where}: {key}: {error}") from None


@dataclass(frozen=True)
class LorentzianModel:
    """One to six pools, the water first. Parameters are ordered Zi, amplitudes, widths, free positions."""

    pools: tuple[LorentzianPool, ...]
    baseline: Range = Range(0.5, 1.0, 1.0)
    source: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.pools) <= 6:
            raise ValueError(f"a Lorentzian model has 1 to 6 pools, not {len(self.pools)}")
        if len(set(self.names)) != len(self.pools):
            raise ValueError(f"pool names must differ: {', '.join(self.names)}")
        if self.pools[0].position_ppm is None:
            raise ValueError(f"the first pool ('{self.pools[0].name}') is the water and needs position_ppm")

    @classmethod
    def preset(cls, name: str) -> LorentzianModel:
        """Model of `presets/<name>.json`, such as 'lorentzian_3T' or 'lorentzian_7T'."""
        path = PRESETS / f"{name}.json"
        if not path.is_file():
            known = ", ".join(sorted(found.stem for found in PRESETS.glob("lorentzian_*.json")))
            raise ValueError(f"no Lorentzian preset '{name}' (there are: {known})")
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))

    @classmethod
    def from_dict(cls, description: dict, source: str = "pool description") -> LorentzianModel:
        """Model from the content of a preset file: [lower, start, upper] for each parameter.

        Raises ValueError naming `source` and the key that is missing or unusable.
        """
        if not isinstance(description, dict) or not isinstance(description.get("pools"), list):
            raise ValueError(f"{source}: a Lorentzian model is an object with a list of pools and a baseline")
        try:
            pools = tuple(_pool(pool, place) for place, pool in enumerate(description["pools"], start=1))
            baseline = _range(description, "baseline", "the model")
            return cls(pools, baseline, str(description.get("source", "")))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(pool.name for pool in self.pools)

    @property
    def free_positions(self) -> list[int]:
        """Indices of the pools with a position of their own."""
        return [index for index, pool in enumerate(self.pools) if pool.position_ppm is not None]

    def tied(self) -> LorentzianModel:
        """The same pools with all positions tied to the water at the distance of their starts."""
        water = self.pools[0].position_ppm.start
        return replace(
            self,
            pools=self.pools[:1]
            + tuple(
                pool
                if pool.position_ppm is None
                else replace(pool, position_ppm=None, offset_from_water_ppm=pool.position_ppm.start - water)
                for pool in self.pools[1:]
            ),
        )

    def only(self, *names: str) -> LorentzianModel:
        """The same model with some of its pools."""
        unknown = set(names) - set(self.names)
        if unknown:
            unknown_names, known = ", ".join(sorted(unknown)), ", ".join(self.names)
            raise ValueError(f"the model has no pool {unknown_names} (it has {known})")
        return replace(self, pools=tuple(pool for pool in self.pools if pool.name in names))

    def limits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Start, lower and upper bound of each parameter; (p,) float64 each."""
        ranges = [self.baseline]
        ranges += [pool.amplitude for pool in self.pools]
        ranges += [pool.width_ppm for pool in self.pools]
        ranges += [pool.position_ppm for pool in self.pools if pool.position_ppm is not None]
        columns = [[getattr(each, field) for each in ranges] for field in ("start", "lower", "upper")]
        start, lower, upper = torch.tensor(columns, dtype=torch.float64)
        return start, lower, upper

    def positions(self, parameters: Tensor) -> Tensor:
        """Position of every pool in ppm; parameters (p, voxel) -> (pool, voxel)."""
        own = iter(parameters[1 + 2 * len(self.pools) :])
        rows: list[Tensor] = []
        for pool in self.pools:
            rows.append(next(own) if pool.position_ppm is not None else rows[0] + pool.offset_from_water_ppm)
        return torch.stack(rows)

    def predict(self, parameters: Tensor, offsets_ppm: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrum and Jacobian.

        Args:
            parameters: (p, voxel).
            offsets_ppm: (offset, 1) or (offset, voxel).

        Returns:
            (offset, voxel) and (p, offset, voxel).
        """
        count = len(self.pools)
        measurements = offsets_ppm.shape[0]
        # memory is (voxel, parameter, offset), which makes the normal matrices one batched product
        amplitude = parameters[1 : 1 + count].T.unsqueeze(2)
        width = parameters[1 + count : 1 + 2 * count].T.unsqueeze(2)
        distance = offsets_ppm.T.unsqueeze(1) - self.positions(parameters).T.unsqueeze(2)
        quarter = width.square() / 4
        inverse = torch.addcmul(quarter, distance, distance).reciprocal_()

        jacobian = inverse.new_empty(len(inverse), len(parameters), measurements)
        jacobian[:, 0] = 1
        shape = torch.mul(inverse, -quarter, out=jacobian[:, 1 : 1 + count])  # minus the line of amplitude one
        prediction = (shape * amplitude).sum(1).add_(parameters[0].unsqueeze(1))
        # dL/dG = A (G/2) u (1 - s) and dL/dd = 2 A s u (D - d),
        # with u = 1/((G/2)^2 + (D - d)^2) and s = (G/2)^2 u
        by_width = jacobian[:, 1 + count : 1 + 2 * count]
        torch.addcmul(inverse, inverse, shape, out=by_width).mul_(amplitude * width * -0.5)
        slope = inverse.mul_(shape).mul_(distance).mul_(2 * amplitude)
        by_position = jacobian[:, 1 + 2 * count :]
        if by_position.shape[1] == count:
            by_position.copy_(slope)
        else:
            by_position.zero_()
            row = {pool: place for place, pool in enumerate(self.free_positions)}
            for pool in range(count):
                by_position[:, row.get(pool, 0)] += slope[:, pool]
        return prediction.T, jacobian.permute(1, 2, 0)
