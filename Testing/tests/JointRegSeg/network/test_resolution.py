"""Lower and higher resolution: what a block of voxels keeps, where its centre lies, and the untrained network."""

from __future__ import annotations

import pytest
import torch

from JointRegSegLib.network.resolution import degrade, enlarge, shuffled, standardize


def ramp(shape: tuple[int, int, int]) -> torch.Tensor:
    """Images (1, 3, D, H, W) whose values are the positions along each axis."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]


@pytest.mark.parametrize("blur", ["gaussian", "box"])
@pytest.mark.parametrize("factor", [(4, 4, 4), (5, 1, 1), (3, 2, 1)])
def test_a_block_has_its_centre_half_a_voxel_away_where_the_factor_is_even(
    blur: str, factor: tuple[int, int, int]
) -> None:
    shape = (60, 60, 60)
    low = degrade(ramp(shape) + 1, factor, blur) - 1
    for axis, each in enumerate(factor):
        line = low[0, axis].movedim(axis, 0).flatten(1)[:, low[0, 0].numel() // low.shape[2 + axis] // 2]
        expected = torch.arange(shape[axis] // each) * each + (each - 1) / 2
        assert torch.allclose(line[3:-3], expected[3:-3], atol=1e-3)


def test_enlarged_images_lie_where_the_fine_voxels_do() -> None:
    factor = (4, 5, 2)
    fine = enlarge(degrade(ramp((40, 40, 40)) + 1, factor, "box") - 1, factor)
    inner = (slice(None), slice(None), *(slice(8, -8),) * 3)
    assert torch.allclose(fine[inner], ramp((40, 40, 40))[inner], atol=1e-3)


def test_the_gaussian_profile_has_the_width_of_the_large_voxel() -> None:
    line = torch.ones(1, 1, 90, 4, 4)
    line[0, 0, 37:52] = 2.0  # its blurred edge is the integral of the profile
    line[..., 3] = 0.0  # the background
    sampled = torch.stack([degrade(line.roll(shift, 2), (5, 1, 1), "gaussian") for shift in range(5)])
    profile = sampled[:, 0, 0, :, 0, 0].flip(0).T.flatten()
    edge = profile.diff()[: profile.argmax()].clamp_min(0)
    place = torch.arange(len(edge), dtype=torch.float32)
    mean = (edge * place).sum() / edge.sum()
    sd = ((edge * (place - mean) ** 2).sum() / edge.sum()).sqrt()
    assert sd * 2.355 == pytest.approx(24**0.5, rel=0.08)


def test_the_background_stays_exact_and_the_brain_gets_unit_variance() -> None:
    images = torch.full((1, 2, 16, 16, 16), -3.0)
    images[:, 0, 4:12, 4:12, 4:12] = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0))
    low = degrade(images, (2, 2, 2), "box")
    assert (low[0, 0] == -3).sum() == 8**3 - 4**3
    assert (low[0, 1] == -3).all()
    found, sd = standardize(images)
    inside = found[0, 0, 4:12, 4:12, 4:12]
    assert abs(float(inside.mean())) < 0.01
    assert float(inside.std()) == pytest.approx(1, abs=0.01)
    assert float(sd[0, 0]) == pytest.approx(float(images[0, 0, 4:12, 4:12, 4:12].std()), rel=0.01)
    assert (found[0, 1] == -3).all()


def test_channels_become_the_fine_voxels_of_a_block() -> None:
    values = torch.arange(2 * 6 * 2, dtype=torch.float32).view(1, 12, 2, 1, 1)
    fine = shuffled(values, (3, 2, 1))
    assert fine.shape == (1, 2, 6, 2, 1)
    assert fine[0, 0, :3, :, 0].flatten().tolist() == values[0, :6, 0, 0, 0].tolist()
