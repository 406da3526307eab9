"""Matrix exponentials of many voxels at once."""

from __future__ import annotations

import math

import pytest
import torch

from CESTQuantLib.physics.bloch_mcconnell.propagators import propagator


@pytest.mark.parametrize("unusable", [math.nan, math.inf])
def test_a_generator_that_is_not_finite_leaves_the_others_exact(unusable: float) -> None:
    """Decay towards 1 at 3/s with precession at 2000 rad/s, beside the same with an unusable precession."""
    precession = torch.tensor([2000.0, unusable], dtype=torch.float64)
    decay, source = torch.full_like(precession, -3.0), torch.full_like(precession, 3.0)
    rows = [torch.stack([decay, -precession, source]), torch.stack([precession, decay, 0 * source])]
    together = propagator(torch.stack(rows), torch.tensor(0.5, dtype=torch.float64))
    turned = math.exp(-1.5) * math.cos(1000.0) - 1
    assert float(together[0, 0, 0]) == pytest.approx(turned, abs=1e-11)
    assert not bool(together[..., 1].isfinite().all())
