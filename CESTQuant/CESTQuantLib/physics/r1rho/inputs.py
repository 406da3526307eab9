"""The inputs of a saturation block by name.

The classes hold one entry for each input: its value, its derivative, whether a derivative is needed, or its place among
the tensors that the autograd function takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

Entry = TypeVar("Entry", covariant=True)
Item = TypeVar("Item")


@dataclass(frozen=True)
class SoluteInputs(Generic[Entry]):
    """One entry for each quantity of a solute pool.

    Attributes:
        fraction: Proton fraction (water = 1).
        k: Exchange rate to water in 1/s.
        R2: Transverse relaxation rate in 1/s.
        dw: Chemical shift from water in rad/s.
    """

    fraction: Entry
    k: Entry
    R2: Entry
    dw: Entry

    def flat(self) -> tuple[Entry, Entry, Entry, Entry]:
        """Return the entries in the order of the attributes."""
        return self.fraction, self.k, self.R2, self.dw


@dataclass(frozen=True)
class SemisolidInputs(Generic[Entry]):
    """One entry for each quantity of a z-only semisolid pool.

    Attributes:
        fraction: Proton fraction (water = 1).
        k: Exchange rate to water in 1/s.
        R1: Longitudinal relaxation rate in 1/s.
        saturation_rate: Rate in 1/s at which the RF saturates the pool.
    """

    fraction: Entry
    k: Entry
    R1: Entry
    saturation_rate: Entry

    def flat(self) -> tuple[Entry, Entry, Entry, Entry]:
        """Return the entries in the order of the attributes."""
        return self.fraction, self.k, self.R1, self.saturation_rate


@dataclass(frozen=True)
class BlockInputs(Generic[Entry]):
    """One entry for each input of a saturation block.

    Attributes:
        w1: RF amplitude as an angular frequency in rad/s.
        offset: Offset of water from the RF in rad/s.
        duration: Duration in s.
        z0: Longitudinal magnetisation of water before the block (equilibrium 1).
        c0: Longitudinal magnetisation of the semisolid pool before the block (equilibrium: its fraction).
        R1: Longitudinal relaxation rate of water in 1/s.
        R2: Transverse relaxation rate of water in 1/s.
        solutes: Quantities of the solute pools.
        semisolid: Quantities of the semisolid pool; None without one.
    """

    w1: Entry
    offset: Entry
    duration: Entry
    z0: Entry
    c0: Entry
    R1: Entry
    R2: Entry
    solutes: tuple[SoluteInputs[Entry], ...] = ()
    semisolid: SemisolidInputs[Entry] | None = None

    def flat(self) -> list[Entry]:
        """Return all entries in the order of the attributes."""
        entries = [self.w1, self.offset, self.duration, self.z0, self.c0, self.R1, self.R2]
        for solute in self.solutes:
            entries += solute.flat()
        if self.semisolid is not None:
            entries += self.semisolid.flat()
        return entries

    @staticmethod
    def from_flat(entries: Sequence[Item], solutes: int) -> BlockInputs[Item]:
        """Return the inputs from a sequence as :meth:`flat` gives it.

        Args:
            entries: One entry for each input.
            solutes: Number of solute pools; what is left after them belongs to the semisolid pool.
        """
        w1, offset, duration, z0, c0, R1, R2, *rest = entries
        size = len(fields(SoluteInputs))
        pools = [rest[first : first + size] for first in range(0, len(rest), size)]
        return BlockInputs(
            w1=w1,
            offset=offset,
            duration=duration,
            z0=z0,
            c0=c0,
            R1=R1,
            R2=R2,
            solutes=tuple(SoluteInputs(*pool) for pool in pools[:solutes]),
            semisolid=SemisolidInputs(*pools[solutes]) if len(pools) > solutes else None,
        )
