"""Tissue as proton pools in exchange: water, solutes and an optional semisolid pool.

Every scalar is a number, or a tensor that broadcasts against (measurement, voxel); most have the shape (voxel,). A
numpy array or a list of numbers becomes a tensor. The fields are named as in the model file (``T1_s``, ``k_Hz``, ...).
Fractions are proton fractions with water = 1, and exchange rates are those from the pool to water (McConnell, J Chem
Phys 1958;28:430).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .lineshapes import lineshape_named

Scalar = float | Tensor
COUPLINGS = ("z-only", "xyz")
BROAD_T2_S = 1e-3
"""A pool with a shorter T2 is semisolid: its transverse magnetisation ends by dephasing, not by exchange, and an
excitation does not turn it."""


@dataclass(frozen=True)
class Water:
    """Free water; its fraction is 1 and its chemical shift 0 ppm.

    Attributes:
        T1_s: Longitudinal relaxation time in s.
        T2_s: Transverse relaxation time in s.
    """

    T1_s: Scalar
    T2_s: Scalar

    def __post_init__(self) -> None:
        _make_scalars(self, "water")
        _require_positive(self, "water", "T1_s", "T2_s")


@dataclass(frozen=True)
class Pool:
    """A solute pool with transverse and longitudinal magnetisation, in exchange with water.

    Attributes:
        name: Name of the pool, unique within a tissue.
        fraction: Proton fraction (water = 1).
        k_Hz: Exchange rate from the pool to water in 1/s.
        T1_s: Longitudinal relaxation time in s.
        T2_s: Transverse relaxation time in s.
        dw_ppm: Chemical shift from water in ppm.
        protons: Exchangeable protons per molecule, from which a concentration follows; None where it is unknown.
    """

    name: str
    fraction: Scalar
    k_Hz: Scalar
    T1_s: Scalar
    T2_s: Scalar
    dw_ppm: Scalar
    protons: float | None = None

    def __post_init__(self) -> None:
        _make_scalars(self, f"pool '{self.name}':")
        _require_positive(self, f"pool '{self.name}':", "T1_s", "T2_s")
        _require_not_negative(self, f"pool '{self.name}':", "fraction", "k_Hz")


@dataclass(frozen=True)
class Semisolid:
    """The semisolid (magnetisation transfer) pool.

    With the coupling ``"z-only"`` it has longitudinal magnetisation only, which RF saturates at the rate w1^2 pi g of
    its lineshape. With ``"xyz"`` it is a full pool with transverse magnetisation, whose line is Lorentzian by nature.
    The two are not interchangeable: fitted fractions differ by up to 30 % and fitted rates by up to 50 %.

    Attributes:
        fraction: Proton fraction (water = 1).
        k_Hz: Exchange rate from the pool to water in 1/s.
        T1_s: Longitudinal relaxation time in s.
        T2_s: Transverse relaxation time in s.
        dw_ppm: Chemical shift from water in ppm.
        lineshape: Name in :data:`.LINESHAPES`.
        coupling: ``"z-only"`` or ``"xyz"``.
        bridge_ppm: Half-width in ppm of the gap around the centre of a singular lineshape that is bridged, see
            :func:`.super_lorentzian`. The default keeps the exact lineshape everywhere but at its very
            centre; 1 ppm, as in the simulators of the pulseq-cest community, avoids the narrow dip that tissue does
            not show.
    """

    fraction: Scalar
    k_Hz: Scalar
    T1_s: Scalar
    T2_s: Scalar
    dw_ppm: Scalar = 0.0
    lineshape: str = "lorentzian"
    coupling: str = "z-only"
    bridge_ppm: float = 0.05

    def __post_init__(self) -> None:
        _make_scalars(self, "semisolid")
        _require_positive(self, "semisolid", "T1_s", "T2_s", "bridge_ppm")
        _require_not_negative(self, "semisolid", "fraction", "k_Hz")
        lineshape_named(self.lineshape)
        if self.coupling not in COUPLINGS:
            raise ValueError(f"semisolid coupling '{self.coupling}' is unknown; use one of {', '.join(COUPLINGS)}")
        if self.coupling == "xyz" and self.lineshape != "lorentzian":
            raise ValueError("a semisolid pool with xyz coupling is Lorentzian; use coupling 'z-only' for others")


AnyPool = TypeVar("AnyPool", Water, Pool, Semisolid)


@dataclass(frozen=True)
class Tissue:
    """Water with its solutes and an optional semisolid pool.

    Attributes:
        water: The free water.
        solutes: Solute pools with different names.
        semisolid: The semisolid pool, or None.
    """

    water: Water
    solutes: tuple[Pool, ...] = ()
    semisolid: Semisolid | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.solutes, list | tuple):
            raise ValueError("solutes must be a tuple of pools, such as (amide,) for a single one")
        object.__setattr__(self, "solutes", tuple(self.solutes))
        names = [pool.name for pool in self.solutes]
        if len(set(names)) != len(names):
            raise ValueError(f"pool names must differ, got {', '.join(names)}")

    @property
    def transverse_pools(self) -> tuple[Pool, ...]:
        """All pools beside water that have x, y and z components (a semisolid pool with xyz coupling included)."""
        if self.semisolid is None or self.semisolid.coupling == "z-only":
            return self.solutes
        s = self.semisolid
        return (*self.solutes, Pool("semisolid", s.fraction, s.k_Hz, s.T1_s, s.T2_s, s.dw_ppm))

    @property
    def z_only_pool(self) -> Semisolid | None:
        """The semisolid pool if it has longitudinal magnetisation only, else None."""
        return self.semisolid if self.semisolid is not None and self.semisolid.coupling == "z-only" else None

    def voxels(self, part: slice | Tensor) -> Tissue:
        """Return the tissue of some of the voxels, the last axis of its tensors: a range, or their indices (n,)."""

        def select(pool: AnyPool) -> AnyPool:
            values = {field.name: getattr(pool, field.name) for field in fields(pool)}
            # Any, because the names of the fields are known only when it runs
            several: dict[str, Any] = {
                name: value[..., part]
                for name, value in values.items()
                if isinstance(value, Tensor) and value.ndim and value.shape[-1] > 1
            }
            return replace(pool, **several)

        semisolid = None if self.semisolid is None else select(self.semisolid)
        return Tissue(select(self.water), tuple(select(pool) for pool in self.solutes), semisolid)

    def scalars(self) -> list[Scalar]:
        """Return every physical value of every pool, from which the common shape, dtype and device follow."""
        return [value for _, value in self.named_scalars()]

    def named_scalars(self) -> list[tuple[str, Scalar]]:
        """Return every physical value of every pool with its path, such as ``amide.fraction``."""
        pools: list[tuple[str, Water | Pool | Semisolid]] = [("water", self.water)]
        pools += [(pool.name, pool) for pool in self.solutes]
        if self.semisolid is not None:
            pools.append(("semisolid", self.semisolid))
        return [(f"{owner}.{name}", getattr(pool, name)) for owner, pool in pools for name in _scalar_fields(pool)]


def as_scalar(value: object, name: str) -> Scalar:
    """Return a value of the voxels as a number or a tensor; tensors of floating point are returned as they are.

    Args:
        value: A number, a tensor, a numpy array, or a list of numbers.
        name: Name of the value, with which the message begins.

    Raises:
        ValueError: The value is something else.
    """
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else value.to(torch.float64)
    if isinstance(value, Real):
        return float(value)
    try:
        array = np.array(value)
    except (ValueError, RuntimeError):  # lists of unequal length, or of tensors with gradients
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be a number, or a tensor, an array or a list of numbers")
    return torch.from_numpy(array.astype(np.float64))


def _scalar_fields(pool: Water | Pool | Semisolid) -> list[str]:
    """Names of the fields of a pool that hold its physical values."""
    return [field.name for field in fields(pool) if field.name.endswith(("_s", "_Hz", "_ppm", "fraction"))]


def _make_scalars(pool: Water | Pool | Semisolid, owner: str) -> None:
    for name in _scalar_fields(pool):
        object.__setattr__(pool, name, as_scalar(getattr(pool, name), f"{owner} {name}"))


def _require_positive(pool: Water | Pool | Semisolid, owner: str, *names: str) -> None:
    for name in names:
        value = torch.as_tensor(getattr(pool, name)).detach()
        _refuse_where(value <= 0, value, f"{owner} {name}", "greater than 0")


def _require_not_negative(pool: Water | Pool | Semisolid, owner: str, *names: str) -> None:
    for name in names:
        value = torch.as_tensor(getattr(pool, name)).detach()
        _refuse_where(value < 0, value, f"{owner} {name}", "at least 0")


def _refuse_where(bad: Tensor, value: Tensor, what: str, required: str) -> None:
    """Raise ValueError with the first finite value that is ``bad``; NaN and infinity pass."""
    if not bool(bad.any()):
        return
    bad = bad & torch.isfinite(value)
    if bool(bad.any()):
        raise ValueError(f"{what} is {float(value[bad].flatten()[0]):g} but must be {required}")
