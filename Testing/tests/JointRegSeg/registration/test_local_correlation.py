"""Local normalised cross-correlation against a direct computation of its definition."""

from __future__ import annotations

import itertools

import pytest
import torch

from JointRegSegLib.registration.local_correlation import BoxFilter, lncc

SHAPE = (6, 9, 7)


def direct(
    fixed: torch.Tensor, moving: torch.Tensor, window: int, mask: torch.Tensor | None = None, stride: int = 1
) -> float:
    """The definition, box by box in double precision; images (C, D, H, W), mask (D, H, W)."""
    weights = torch.ones(fixed.shape[1:]).double() if mask is None else mask.double()
    total = weight = 0.0
    first = [min(stride // 2, (n - 1) // 2) for n in weights.shape]
    for one, other in zip(fixed.double(), moving.double(), strict=True):
        noise = 1e-4 * one.var(correction=0), 1e-4 * other.var(correction=0)
        for z, y, x in itertools.product(*[range(f, n, stride) for f, n in zip(first, weights.shape, strict=True)]):
            box = tuple(slice(max(p - window // 2, 0), p + window // 2 + 1) for p in (z, y, x))
            w, i, j = weights[box], one[box], other[box]
            if w.sum() <= 0 or weights[z, y, x] == 0:
                continue
            i, j = i - (w * i).sum() / w.sum(), j - (w * j).sum() / w.sum()
            covariance = (w * i * j).sum() / w.sum()
            a, b = (w * i * i).sum() / w.sum() + noise[0], (w * j * j).sum() / w.sum() + noise[1]
            total += float(weights[z, y, x] * covariance**2 / (a * b))
            weight += float(weights[z, y, x])
    return total / weight


def images(channels: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.randn(1, channels, *SHAPE, generator=generator)
    return fixed, 0.5 * fixed + torch.randn(1, channels, *SHAPE, generator=generator)


def some_mask() -> torch.Tensor:
    mask = (torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(3)) > 0.3).float()
    mask[..., :3] = 0  # whole boxes without a voxel
    return mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (5, 1), (9, 1), (3, 2), (5, 4)])
def test_local_correlation_is_that_of_the_definition(window: int, stride: int, masked: bool) -> None:
    fixed, moving = images()
    mask = some_mask() if masked else None
    expected = direct(fixed[0], moving[0], window, None if mask is None else mask[0, 0], stride)
    assert lncc(fixed, moving, window, mask, stride).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_single_precision_keeps_its_digits_on_a_bright_and_flat_background(offset: float) -> None:
    fixed, moving = (0.05 * image for image in images(1))
    for image in (fixed, moving):
        image[..., 4:] = -3  # as outside of a brain
        image += offset
    expected = direct(fixed[0], moving[0], 3)
    assert lncc(fixed, moving, 3).item() == pytest.approx(expected, abs=1e-4)
    exact = torch.autograd.grad(lncc(fixed.double(), m := moving.double().requires_grad_(), 3), m)[0]
    single = torch.autograd.grad(lncc(fixed, m := moving.clone().requires_grad_(), 3), m)[0]
    assert (single - exact).abs().max() < 2e-3 * exact.abs().max()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_both_images_are_the_derivatives(masked: bool, stride: int) -> None:
    fixed, moving = (image[..., :5, :6, :4].double().requires_grad_() for image in images())
    mask = (torch.rand(1, 1, 5, 6, 4, generator=torch.Generator().manual_seed(3)) > 0.3).double() if masked else None
    # the share of the image's variance that counts as noise is held constant: 1e-4 of the derivative
    assert torch.autograd.gradcheck(lambda f, m: 100 * lncc(f, m, 3, mask, stride), (fixed, moving), atol=1e-3)


def test_result_does_not_depend_on_what_is_masked() -> None:
    fixed, moving = images()
    mask = some_mask()
    changed = torch.where(mask > 0, moving, 0.3 * torch.randn_like(moving))
    before, after = lncc(fixed, moving, 3, mask), lncc(fixed, changed, 3, mask)
    assert after.item() == pytest.approx(before.item(), abs=1e-4)
    assert abs((lncc(fixed, changed, 3) - lncc(fixed, moving, 3)).item()) > 0.01
    m = moving.clone().requires_grad_()
    lncc(fixed, m, 3, mask).backward()
    assert m.grad[(mask == 0).expand_as(m)].abs().max() == 0


def test_scale_offset_and_inversion_of_contrast_do_not_matter() -> None:
    fixed, moving = images()
    expected = lncc(fixed, moving).item()
    assert lncc(fixed, -3 * moving + 7).item() == pytest.approx(expected, rel=1e-4)
    assert lncc(100 * fixed + 1, moving).item() == pytest.approx(expected, rel=1e-4)


def test_equal_images_are_fully_correlated_and_noise_is_not() -> None:
    fixed, _ = images()
    assert lncc(fixed, 2 * fixed + 1).item() > 0.999
    assert lncc(fixed, torch.randn_like(fixed)).item() < 0.1


def test_absent_modalities_do_not_count() -> None:
    fixed, moving = images(3)
    present = lncc(fixed[:, :2], moving[:, :2]).item()
    fixed[:, 2] = -3
    assert lncc(fixed, moving).item() == pytest.approx(present)
    assert lncc(moving, fixed).item() == pytest.approx(present)
    empty = lncc(torch.full_like(fixed, -3), m := moving.requires_grad_())
    assert empty.item() == 0
    assert torch.equal(torch.autograd.grad(empty, m)[0], torch.zeros_like(moving))


def test_each_pair_of_a_batch_counts_alike() -> None:
    (a, b), (c, e) = images(seed=1), images(seed=2)
    together = lncc(torch.cat([a, c]), torch.cat([b, e]), 5)
    assert together.item() == pytest.approx((lncc(a, b, 5) + lncc(c, e, 5)).item() / 2, abs=1e-6)


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    fixed, moving = (image.bfloat16() for image in images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = lncc(fixed, moving, 3)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(lncc(fixed.float(), moving.float(), 3).item())


def test_box_filter_and_its_adjoint_are_transposes() -> None:
    box = BoxFilter.of(torch.zeros(1, 1, *SHAPE, dtype=torch.float64), 5, 2)
    x = torch.randn(2, 3, *SHAPE, dtype=torch.float64)
    y = torch.randn_like(box(x))
    torch.testing.assert_close((box(x) * y).sum(), (x * box.adjoint(y)).sum())


def test_unusable_arguments_are_refused() -> None:
    fixed, moving = images()
    with pytest.raises(ValueError, match="odd number of voxels, not 4"):
        lncc(fixed, moving, 4)
    with pytest.raises(ValueError, match="cannot be compared"):
        lncc(fixed, moving[..., 1:])
