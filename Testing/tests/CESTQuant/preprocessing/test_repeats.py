"""The noise of an acquisition from repeated measurements."""

from __future__ import annotations

import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.repeats import noise_of_repeats
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = [3.5] * 4 + [-3.5] * 4
NOISE = 0.01


def acquired(tissue: int, air: int) -> ZSpectra:
    """Voxels with M0 = 100 and noise of 1, and voxels of noise alone."""
    random = torch.Generator().manual_seed(3)
    level = torch.cat([torch.full((tissue,), 100.0), torch.zeros(air)]).double()[:, None]
    raw = (0.7 * level + torch.randn(tissue + air, 8, generator=random, dtype=torch.float64)).abs()
    m0 = (level + torch.randn(tissue + air, 1, generator=random, dtype=torch.float64)).abs()
    return ZSpectra(raw / m0, Protocol(3.0, OFFSETS, 1.0, 1.0), brightness=raw.amax(1))


def test_the_noise_is_that_of_repeats() -> None:
    assert abs(noise_of_repeats(acquired(2000, 0)) / NOISE - 1) < 0.05


def test_air_does_not_count_where_there_is_no_mask() -> None:
    """Relative to M0, which is noise there too, its noise is a hundred times as large."""
    assert abs(noise_of_repeats(acquired(1000, 3000)) / NOISE - 1) < 0.05


def test_too_few_repeats_tell_nothing() -> None:
    spectra = acquired(10, 0)
    assert noise_of_repeats(spectra.select(torch.tensor([0, 1, 4, 5]))) is None
