"""Hand-derived derivatives of the saturation block against plain autograd and finite differences."""

from __future__ import annotations

import pytest
import torch
from finite_differences import check_derivatives

from CESTQuantLib.physics.r1rho.block import Block
from CESTQuantLib.physics.r1rho.inputs import BlockInputs, SemisolidInputs, SoluteInputs
from CESTQuantLib.physics.r1rho.saturation import POINTS_PER_CHUNK, saturate


def block_inputs(solutes: int, semisolid: bool, measurements: int = 3, voxels: int = 2) -> BlockInputs[torch.Tensor]:
    """Inputs of a saturation block, (measurement, 1) or (voxel,)."""
    generator = torch.Generator().manual_seed(3)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        values = low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    def solute() -> SoluteInputs[torch.Tensor]:
        return SoluteInputs(
            fraction=between(1e-3, 2e-2, voxels),
            k=between(50, 800, voxels),
            R2=between(8, 30, voxels),
            dw=between(1500, 3000, voxels),
        )

    return BlockInputs(
        w1=between(150, 600, measurements, 1),
        offset=between(-3000, 3000, measurements, 1),
        duration=between(0.3, 1.5, measurements, 1),
        z0=between(0.2, 1.0, voxels),
        c0=between(0.02, 0.1, voxels),
        R1=between(0.5, 1.0, voxels),
        R2=between(5, 15, voxels),
        solutes=tuple(solute() for _ in range(solutes)),
        semisolid=SemisolidInputs(
            fraction=between(0.05, 0.15, voxels),
            k=between(20, 60, voxels),
            R1=between(0.8, 1.2, voxels),
            saturation_rate=between(2, 40, measurements, voxels),
        )
        if semisolid
        else None,
    )


@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("solutes", [0, 1, 3])
def test_inputs_come_back_from_their_flat_sequence(solutes: int, semisolid: bool) -> None:
    inputs = block_inputs(solutes, semisolid)
    assert BlockInputs.from_flat(inputs.flat(), solutes) == inputs
    places = BlockInputs.from_flat(range(len(inputs.flat())), solutes)
    assert inputs.flat()[places.duration] is inputs.duration
    for place, solute in zip(places.solutes, inputs.solutes, strict=True):
        assert inputs.flat()[place.k] is solute.k
    if inputs.semisolid is not None and places.semisolid is not None:
        assert inputs.flat()[places.semisolid.saturation_rate] is inputs.semisolid.saturation_rate


@pytest.mark.parametrize("voxels", [2, POINTS_PER_CHUNK], ids=["at once", "in chunks"])
@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("solutes", [0, 1, 3])
def test_hand_derived_backward_equals_plain_autograd(solutes: int, semisolid: bool, voxels: int) -> None:
    inputs = block_inputs(solutes, semisolid, voxels=voxels)
    block = Block.solve(inputs)
    z, c = saturate(inputs)
    torch.testing.assert_close(z, block.z, rtol=0, atol=1e-15)
    weight_z = torch.linspace(-1, 1, 3 * voxels, dtype=torch.float64).reshape(3, voxels)
    weight_c = torch.linspace(1, 2, voxels, dtype=torch.float64)
    plain = torch.autograd.grad((weight_z * block.z).sum() + (weight_c * block.c).sum(), inputs.flat())
    by_hand = torch.autograd.grad((weight_z * z).sum() + (weight_c * c).sum(), inputs.flat())
    for mine, automatic in zip(by_hand, plain, strict=True):
        torch.testing.assert_close(mine, automatic, rtol=1e-9, atol=1e-13 * voxels / 2)


@pytest.mark.parametrize("semisolid", [False, True])
@pytest.mark.parametrize("solutes", [0, 2])
def test_hand_derived_backward_agrees_with_finite_differences(solutes: int, semisolid: bool) -> None:
    def block(*values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return saturate(BlockInputs.from_flat(values, solutes))

    check_derivatives(block, block_inputs(solutes, semisolid).flat())


def test_backward_computes_only_what_is_asked_for() -> None:
    inputs = BlockInputs.from_flat([value.detach() for value in block_inputs(1, True).flat()], 1)
    inputs.solutes[0].k.requires_grad_()
    z, _ = saturate(inputs)
    z.sum().backward()
    assert [value.grad is not None for value in inputs.flat()].count(True) == 1
    assert inputs.solutes[0].k.grad is not None
