"""The magnetisation of water with which a saturation starts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..physics.protocol import Protocol


def initial_z(protocol: Protocol, t1_s: Tensor) -> Tensor:
    """Return z of water before the saturation, relative to equilibrium: (voxel, measurement), float64.

    It recovers from ``initial_magnetisation`` for ``initial_recovery_s``. What a measurement leaves to the next one
    does not count, see :func:`carried_over_warnings`.

    Args:
        protocol: Protocol of the measurements.
        t1_s: T1 of water in s, (voxel,).
    """
    r1 = torch.where(t1_s > 0, 1 / t1_s, torch.nan).double().unsqueeze(1)
    recovered = 1 - (1 - protocol.initial_magnetisation) * torch.exp(-r1 * protocol.initial_recovery_s.to(r1))
    if protocol.initial_magnetisation == 1:  # also where T1 is not known
        recovered = torch.ones_like(recovered)
    return recovered.expand(len(r1), protocol.measurement_count)


def carried_over_warnings(protocol: Protocol) -> tuple[str, ...]:
    """Return a sentence for the user where a method cannot know with which magnetisation a saturation starts."""
    if not protocol.magnetisation_carried_over:
        return ()
    return (
        "this method lets every saturation start from the same magnetisation, but in this protocol it starts from what "
        "the measurement before has left (magnetisation_carried_over): unless that recovers fully, fit r1rho or "
        "bloch-mcconnell instead, or correct the spectra by QUASS",
    )
