"""The saturation block as an autograd function that takes many voxels at little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.threads import in_threads

from .block import Block
from .inputs import BlockInputs

POINTS_PER_CHUNK = 2**14
"""Measurements x voxels solved at a time when derivatives are wanted."""

Result = TypeVar("Result")


def saturate(inputs: BlockInputs[Tensor]) -> tuple[Tensor, Tensor]:
    """Solve a saturation block, differentiably in every input.

    Args:
        inputs: Inputs of the block, tensors that broadcast against each other, usually to (measurement, voxel).

    Returns:
        Longitudinal magnetisation of water and of the semisolid pool after the block (that pool's start value where
        there is none).
    """
    z, c = _Saturation.apply(len(inputs.solutes), *inputs.flat())
    return z, c


class _Saturation(torch.autograd.Function):
    """The block, of which only the inputs are kept; the backward pass solves it again.

    That takes a quarter of the memory of plain autograd at about its speed. Both passes go through the voxels (last
    axis) in chunks, so that the intermediate values stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, solutes: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.solutes = solutes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)

        def solve(part: slice) -> tuple[Tensor, Tensor]:
            block = Block.solve(BlockInputs.from_flat([_voxels(i, part) for i in inputs], solutes))
            return block.z, block.c

        named = BlockInputs.from_flat(inputs, solutes)
        solved = _for_each(solve, _chunks(inputs))
        if len(solved) == 1:
            z, c = solved[0]
            return z, c.clone()
        z = torch.cat([z for z, _ in solved], -1)
        return z, named.c0.clone() if named.semisolid is None else torch.cat([c for _, c in solved], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gz: Tensor | None, gc: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, solutes = ctx.saved_tensors, ctx.solutes
        needed = BlockInputs.from_flat(ctx.needs_input_grad[1:], solutes)

        def derive(part: slice) -> list[Tensor | None]:
            some = [_voxels(i, part) for i in inputs]
            weight_z, weight_c = (0.0 if g is None else _voxels(g, part) for g in (gz, gc))
            gradients = Block.solve(BlockInputs.from_flat(some, solutes)).gradients(weight_z, weight_c, needed)
            return [_reduced(g, i) for g, i in zip(gradients.flat(), some, strict=True)]

        of_inputs = zip(*_for_each(derive, _chunks(inputs)), strict=True)
        return None, *(_joined(parts, i) for parts, i in zip(of_inputs, inputs, strict=True))


def _for_each(work: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    """``work`` of every part; in threads where there are several, without gradients."""
    if len(parts) > 1 and torch.get_num_threads() > 1:
        return in_threads(torch.no_grad()(work), parts)
    with torch.no_grad():
        return [work(part) for part in parts]


def _chunks(inputs: Sequence[Tensor]) -> list[slice]:
    """Slices of the last axis with about ``POINTS_PER_CHUNK`` points each; everything at once on a GPU."""
    shape = np.broadcast_shapes(*(i.shape for i in inputs))
    voxels = shape[-1] if shape else 1
    size = max(1, POINTS_PER_CHUNK * voxels // max(1, math.prod(shape)))
    if inputs[0].device.type != "cpu" or voxels < 2 * size:
        size = voxels
    return [slice(first, first + size) for first in range(0, voxels, size)]


def _voxels(tensor: Tensor, part: slice) -> Tensor:
    return tensor[..., part] if tensor.ndim and tensor.shape[-1] > 1 else tensor


def _reduced(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    """A derivative at the full broadcast shape, summed to the shape of its input."""
    return None if gradient is None else gradient.sum_to_size(like.shape)


def _joined(parts: Sequence[Tensor | None], like: Tensor) -> Tensor | None:
    """The derivative with respect to one input from those of the chunks; None where it is not needed."""
    gradients = [part for part in parts if part is not None]
    if len(gradients) <= 1:
        return gradients[0] if gradients else None
    per_voxel = like.ndim > 0 and like.shape[-1] > 1
    return torch.cat(gradients, -1) if per_voxel else torch.stack(gradients).sum(0)
