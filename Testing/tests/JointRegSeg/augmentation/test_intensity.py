"""Intensity changes of single images: sizes in standard deviations of the brain, nothing outside the brain."""

from __future__ import annotations

import math

import pytest
import torch
from augmentation_cases import SHAPE, coordinates, generator, study

from JointRegSegLib.augmentation import intensity, spatial
from JointRegSegLib.cohort.sample import OUTSIDE


def test_noise_has_the_wanted_standard_deviation_inside_the_brain() -> None:
    sample = study()
    image = sample.images[0]
    noisy = intensity.add_noise(image, sample.mask, 0.2, generator())
    sd = float(image[sample.mask].std())
    assert float((noisy - image)[sample.mask].std()) == pytest.approx(0.2 * sd, rel=0.1)


def test_gamma_preserves_order_mean_and_standard_deviation() -> None:
    sample = study()
    inside = sample.images[0][sample.mask]
    bent = intensity.gamma(sample.images[0], sample.mask, 1.6)[sample.mask]
    assert torch.allclose(bent[inside.argsort()].diff().clamp(max=0), torch.tensor(0.0), atol=1e-5)
    assert float(bent.mean()) == pytest.approx(float(inside.mean()), abs=1e-4)
    assert float(bent.std()) == pytest.approx(float(inside.std()), rel=1e-4)
    assert float((bent - inside).abs().max()) > 0.1


def test_shift_and_contrast_have_the_wanted_size() -> None:
    sample = study()
    inside = sample.images[0][sample.mask]
    changed = intensity.shift_and_contrast(sample.images[0], sample.mask, 0.3, 1.2)[sample.mask]
    assert float(changed.std() / inside.std()) == pytest.approx(1.2, rel=1e-4)
    spread = float(inside.std(correction=0))
    assert float(changed.mean() - inside.mean()) == pytest.approx(0.3 * spread, rel=1e-3)


def test_the_bias_field_is_a_smooth_gain_on_the_intensity_above_the_background() -> None:
    sample = study()
    coefficients = (torch.rand(spatial.knots(SHAPE, 16.0), generator=generator()) * 2 - 1) * 0.4
    changed = intensity.bias_field(sample.images[0], sample.mask, coefficients, 16.0)
    gain = ((changed - OUTSIDE) / (sample.images[0] - OUTSIDE))[sample.mask]
    assert math.exp(-0.4) <= float(gain.min())
    assert float(gain.max()) <= math.exp(0.4)
    assert float(gain.max() - gain.min()) > 0.05
    steps = ((changed - OUTSIDE) / (sample.images[0] - OUTSIDE)).diff(dim=0)[sample.mask[1:] & sample.mask[:-1]]
    assert float(steps.abs().max()) < 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_lose_detail_only_along_their_axis(axis: int) -> None:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    for k in range(3):
        stripes = (coordinates()[k] % 2) * 2 - 1
        contrast = intensity.thick_slices(stripes, mask, axis, 2.0).std() / stripes.std()
        assert (float(contrast) < 0.2) == (k == axis)
