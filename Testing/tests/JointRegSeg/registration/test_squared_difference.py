"""Mean squared difference: masks, gradients and absent modalities."""

from __future__ import annotations

import torch

from JointRegSegLib.registration.squared_difference import relaxed_mse


def test_relaxed_similarity_leaves_the_fixed_tumour_out_and_has_no_gradient_there() -> None:
    torch.manual_seed(0)
    fixed, warped = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    healthy = torch.ones(1, 1, 4, 4, 4)
    healthy[..., 2:] = 0
    loss = relaxed_mse(fixed, warped, healthy)
    assert torch.allclose(loss, ((fixed - warped)[..., :2] ** 2).sum() / fixed.numel())
    loss.backward()
    assert warped.grad[..., 2:].abs().max() == 0
    assert warped.grad[..., :2].abs().min() > 0


def test_absent_modalities_do_not_count() -> None:
    torch.manual_seed(0)
    fixed, warped = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4)
    absent = fixed.clone()
    absent[:, 1] = -3.0
    assert torch.allclose(relaxed_mse(absent, warped), relaxed_mse(fixed[:, :1], warped[:, :1]))
    assert relaxed_mse(torch.zeros_like(fixed), warped) == 0
