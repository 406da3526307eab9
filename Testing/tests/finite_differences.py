"""Derivatives against finite differences, for quantities of very different sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import gradcheck


def leaf(*values: float) -> Tensor:
    """A tensor that derivatives are taken with respect to."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def in_own_units(leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Leaves divided by their own sizes, and these sizes: one step suits fractions, rates and times."""
    sizes = [value.detach().abs().max() for value in leaves]
    return [(value.detach() / size).requires_grad_() for value, size in zip(leaves, sizes, strict=True)], sizes


def check_derivatives(function: Callable[..., Tensor | tuple[Tensor, ...]], leaves: Sequence[Tensor]) -> None:
    """Compare the derivatives of a function with finite differences."""
    units, sizes = in_own_units(leaves)

    def of_units(*values: Tensor) -> Tensor | tuple[Tensor, ...]:
        return function(*(value * size for value, size in zip(values, sizes, strict=True)))

    assert gradcheck(of_units, units, eps=1e-6, atol=1e-7, rtol=1e-5)


def check_acting(function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> None:
    """Compare derivatives as :func:`check_derivatives` does, and check that every leaf acts on the result."""
    check_derivatives(function, leaves)
    for gradient in torch.autograd.grad(function(*leaves).exp().sum(), leaves):
        assert float(gradient.abs().max()) > 0
