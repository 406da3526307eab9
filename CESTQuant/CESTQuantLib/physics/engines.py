"""The registry of engines: the ways to compute the signal of a tissue under a protocol.

The command line, configurations, network files and fits take the names of engines from here. The module loads neither
torch nor the engines, so that command lines and panels can list the names at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol as Interface

if TYPE_CHECKING:
    from torch import Tensor

    from .pools import Scalar, Tissue
    from .protocol import Protocol


class SignalFunction(Interface):
    """The function with which an engine computes signals."""

    def __call__(
        self,
        tissue: Tissue,
        protocol: Protocol,
        *,
        b0_shift_ppm: Scalar = 0.0,
        b1_relative: Scalar = 1.0,
        like: Tensor,
    ) -> Tensor:
        """Compute the signal.

        Args:
            tissue: Pools whose values broadcast against (measurement, voxel).
            protocol: Acquisition, on the device of ``like``.
            b0_shift_ppm: Local B0 shift in ppm, which moves all pools together; broadcasts like the tissue.
            b1_relative: RF amplitude relative to the nominal one; broadcasts like the tissue.
            like: Tensor that gives dtype and device of the result.

        Returns:
            Signal of shape (measurement, voxel), normalised as ``protocol.signal_normalisation`` says.
        """


@dataclass(frozen=True)
class Engine:
    """A way to compute signals; call it as a :class:`SignalFunction`.

    Attributes:
        title: Name in text.
        load: Imports the engine and returns its function.
    """

    title: str
    load: Callable[[], SignalFunction]

    def __call__(
        self,
        tissue: Tissue,
        protocol: Protocol,
        *,
        b0_shift_ppm: Scalar = 0.0,
        b1_relative: Scalar = 1.0,
        like: Tensor,
    ) -> Tensor:
        """Compute the signal (measurement, voxel); see :class:`SignalFunction`."""
        return self.load()(tissue, protocol, b0_shift_ppm=b0_shift_ppm, b1_relative=b1_relative, like=like)


def _bloch_mcconnell() -> SignalFunction:
    from .bloch_mcconnell.sequence import bloch_mcconnell_signal

    return bloch_mcconnell_signal


def _r1rho() -> SignalFunction:
    from .r1rho.sequence import r1rho_signal

    return r1rho_signal


ENGINES: dict[str, Engine] = {
    "bloch-mcconnell": Engine("numerical Bloch-McConnell equations", _bloch_mcconnell),
    "r1rho": Engine("analytic R1rho solution", _r1rho),
}
"""Engines by name."""


def engine_named(name: str) -> Engine:
    """Return an engine by its name in ``ENGINES``.

    Raises:
        ValueError: There is no such engine; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise ValueError(f"engine '{name}' is unknown; use one of {', '.join(ENGINES)}")
    return ENGINES[name]
