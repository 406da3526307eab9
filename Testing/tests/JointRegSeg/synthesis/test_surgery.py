"""What a resection cavity holds, and blood along its wall."""

from __future__ import annotations

import torch

from JointRegSegLib.synthesis.random_fields import Draw
from JointRegSegLib.synthesis.surgery import FILLINGS, Surgery

SHAPE = (20, 20, 20)


def cavity() -> torch.Tensor:
    field = torch.zeros(SHAPE)
    field[6:14, 6:14, 6:14] = 1
    return field


def change(seed: int, name: str) -> torch.Tensor:
    return Surgery(Draw(seed)).added(name, torch.ones(SHAPE), cavity(), 2.0) - 1


def test_the_same_seed_has_the_same_content() -> None:
    assert torch.equal(change(1, "flair"), change(1, "flair"))


def test_blood_and_protein_show_alike_on_t1_with_and_without_contrast_agent() -> None:
    for seed in range(20):
        assert torch.equal(change(seed, "t1"), change(seed, "t1ce"))


def test_some_cavities_hold_clear_fluid_and_others_do_not() -> None:
    changed = sum(bool(change(seed, "flair").abs().max() > 0.05) for seed in range(60))
    expected = 60 * (1 - FILLINGS["fluid"])
    assert abs(changed - expected) < 15


def test_brain_away_from_the_wall_stays_as_it_was() -> None:
    for seed in range(10):
        assert float(change(seed, "t1")[:2].abs().max()) < 1e-3
