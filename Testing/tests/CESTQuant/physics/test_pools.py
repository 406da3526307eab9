"""Pools and tissues: values that are refused, and parts of a tissue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water

AMIDE = Pool("amide", torch.tensor([1e-3, 2e-3, 3e-3]), 30.0, 1.0, 0.1, 3.5)
SEMISOLID = Semisolid(torch.tensor([0.1, 0.2, 0.3]), 30.0, 1.0, 1e-5, -2.4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"T1_s": 0.0}, "pool 'amide': T1_s is 0 but must be greater than 0"),
        ({"T2_s": torch.tensor([0.1, -0.2])}, "pool 'amide': T2_s is -0.2 but must be greater than 0"),
        ({"fraction": -1e-3}, "pool 'amide': fraction is -0.001 but must be at least 0"),
        ({"k_Hz": torch.tensor([[-5.0]])}, "pool 'amide': k_Hz is -5 but must be at least 0"),
    ],
)
def test_impossible_values_are_refused_by_name(values: dict, words: str) -> None:
    given = {"fraction": 1e-3, "k_Hz": 30.0, "T1_s": 1.0, "T2_s": 0.1, "dw_ppm": 3.5}
    with pytest.raises(ValueError, match=words):
        Pool("amide", **given | values)


@pytest.mark.parametrize("value", [[1e-3, 2e-3], np.array([1e-3, 2e-3]), np.array([2e-3, 1e-3])[::-1]])
def test_lists_and_arrays_of_the_voxels_become_tensors(value: object) -> None:
    fraction = Pool("amide", value, 30.0, 1.0, 0.1, 3.5).fraction
    torch.testing.assert_close(fraction, torch.tensor([1e-3, 2e-3], dtype=torch.float64))


def test_floating_point_tensors_are_kept_and_others_become_floating_point() -> None:
    given = torch.ones(2, dtype=torch.float32, requires_grad=True)
    assert Water(given, torch.tensor([1, 2])).T1_s is given
    assert Water(given, torch.tensor([1, 2])).T2_s.dtype == torch.float64
    assert type(Water(np.float64(1.0), 1).T1_s) is float


@pytest.mark.parametrize(
    "value", [None, "fast", [1.0, [2.0]], np.array([1.0, None]), [torch.ones((), requires_grad=True)]]
)
def test_what_is_no_value_of_the_voxels_is_refused_by_name(value: object) -> None:
    with pytest.raises(
        ValueError, match="pool 'amide': k_Hz must be a number, or a tensor, an array or a list of numbers"
    ):
        Pool("amide", 1e-3, value, 1.0, 0.1, 3.5)


def test_the_solutes_are_several_pools() -> None:
    assert Tissue(Water(1.0, 0.1), [AMIDE]).solutes == (AMIDE,)
    with pytest.raises(ValueError, match="solutes must be a tuple of pools"):
        Tissue(Water(1.0, 0.1), AMIDE)


def test_values_that_are_not_finite_pass() -> None:
    assert Water(torch.tensor([1.0, torch.nan]), torch.inf).T2_s == torch.inf


def test_unknown_couplings_are_refused_with_the_list_of_the_known_ones() -> None:
    with pytest.raises(ValueError, match="coupling 'xy' is unknown; use one of z-only, xyz"):
        Semisolid(0.1, 30.0, 1.0, 1e-5, coupling="xy")


def test_solutes_have_different_names() -> None:
    with pytest.raises(ValueError, match="pool names must differ, got amide, amide"):
        Tissue(Water(1.0, 0.1), (AMIDE, AMIDE))


def test_a_semisolid_pool_is_either_longitudinal_only_or_one_more_pool() -> None:
    z_only = Tissue(Water(1.0, 0.1), (AMIDE,), SEMISOLID)
    assert z_only.z_only_pool is SEMISOLID
    assert [pool.name for pool in z_only.transverse_pools] == ["amide"]
    full = Tissue(Water(1.0, 0.1), (AMIDE,), Semisolid(0.1, 30.0, 1.0, 1e-5, coupling="xyz"))
    assert full.z_only_pool is None
    assert [pool.name for pool in full.transverse_pools] == ["amide", "semisolid"]


def test_the_tissue_of_some_voxels_keeps_what_all_voxels_share() -> None:
    part = Tissue(Water(torch.tensor([1.0, 1.1, 1.2]), 0.1), (AMIDE,), SEMISOLID).voxels(slice(1, 3))
    assert part.water.T1_s.tolist() == pytest.approx([1.1, 1.2])
    assert part.water.T2_s == 0.1
    assert part.solutes[0].fraction.tolist() == pytest.approx([2e-3, 3e-3])
    assert part.solutes[0].name == "amide"
    assert part.semisolid.fraction.tolist() == pytest.approx([0.2, 0.3])


def test_the_scalars_of_a_tissue_are_its_physical_values() -> None:
    tissue = Tissue(Water(1.0, 0.1), (Pool("amide", 1e-3, 30.0, 1.5, 0.2, 3.5, protons=3),), SEMISOLID)
    scalars = tissue.scalars()
    assert scalars[:7] == [1.0, 0.1, 1e-3, 30.0, 1.5, 0.2, 3.5]
    assert scalars[7] is SEMISOLID.fraction
    assert 3 not in scalars[:7]
