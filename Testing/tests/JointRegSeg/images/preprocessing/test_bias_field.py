"""Correction of the bias field."""

from __future__ import annotations

import numpy as np

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.images.preprocessing.bias_field import correct_bias


def test_bias_correction_makes_a_tissue_more_uniform() -> None:
    grid = WorkingGrid((32, 32, 32), 4.0, (62.0, 62.0, -62.0))
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij"), -1)
    mask = np.linalg.norm(at, axis=-1) < 0.9
    tissue = np.where(np.sin(9 * at[..., 0]) * np.cos(8 * at[..., 1]) > 0, 100.0, 60.0)
    biased = (tissue * np.exp(0.4 * at[..., 2] + 0.2 * at[..., 0]) * mask).astype(np.float32)
    corrected = correct_bias(biased, mask, grid)
    bright = mask & (tissue > 80)
    before, after = (v[bright].std() / v[bright].mean() for v in (biased, corrected))
    assert after < 0.6 * before
