"""Synthetic patients as a source of training pairs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from JointRegSegLib.cohort.sample import OUTSIDE
from JointRegSegLib.synthesis.source import SyntheticConfig, SyntheticSource
from JointRegSegLib.synthesis.templates import Template

pytest.importorskip("nilearn", reason="synthetic patients are made from the template in the package nilearn")
SPACING_MM = 4.0


def test_source_yields_normalized_pairs_and_stores_them_in_a_cache(tmp_path: Path) -> None:
    config = SyntheticConfig(spacing_mm=SPACING_MM, cache=str(tmp_path))
    source = SyntheticSource(config, 2, seed=3)
    fixed, moving = source[1]
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    for sample in (fixed, moving):
        inside = sample.images[:, sample.mask]
        assert (sample.images[:, ~sample.mask] == OUTSIDE).all()
        assert float(inside.mean(1).abs().max()) < 0.1
    again = SyntheticSource(config, 2, seed=3)[1][0]
    assert torch.equal(again.images, fixed.images)
    with pytest.raises(IndexError):
        source[2]


def test_share_of_patients_without_a_tumor_leaves_the_others_as_they_were() -> None:
    plain, mixed = (SyntheticSource(SyntheticConfig(spacing_mm=SPACING_MM, tumor_free=s), 8) for s in (0.0, 0.5))
    free = 0
    for index in range(8):
        with_tumor, fixed = plain[index][0], mixed[index][0]
        assert bool(with_tumor.labels.any())
        if not bool(fixed.labels.any()):
            free += 1
        else:
            assert torch.equal(fixed.images, with_tumor.images)
    assert 0 < free < 8


def test_settings_of_the_source_are_checked() -> None:
    with pytest.raises(ValueError, match="synthetic: unknown keys spacing; use spacing_mm, templates"):
        SyntheticConfig.from_dict({"spacing": 2})
    with pytest.raises(ValueError, match="between 0\\.5 and 8"):
        SyntheticConfig(spacing_mm=20)
    with pytest.raises(ValueError, match="tumor_free is 2 but must be a share from 0 to 1"):
        SyntheticConfig(tumor_free=2)
    with pytest.raises(ValueError, match="must be a whole multiple of the 1 mm"):
        SyntheticSource(SyntheticConfig(spacing_mm=1.5), 1)


def test_a_cache_of_another_anatomy_of_the_same_name_is_not_read(tmp_path: Path) -> None:
    config = SyntheticConfig(spacing_mm=8.0, cache=str(tmp_path))
    for radius in (8.0, 5.0):
        position = torch.stack(torch.meshgrid(*[torch.arange(24) - 11.5] * 3, indexing="ij"))
        distance = position.square().sum(0).sqrt()
        edges = (0.0, radius, radius + 1.5, radius + 2.0)
        white, grey, fluid = (((distance >= a) & (distance < b)).float() for a, b in pairwise(edges))
        template = Template(torch.stack([fluid, grey, white]), 8.0, "brain")
        SyntheticSource(config, 1, templates=[template])[0]
    assert len(list(tmp_path.iterdir())) == 2
