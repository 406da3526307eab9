"""Normalisation of images."""

from __future__ import annotations

import numpy as np
import pytest

from JointRegSegLib.images.normalization import (
    LANDMARK_PERCENTILES,
    NORMALIZATIONS,
    background_value,
    histogram_landmarks,
    normalize,
)


def random_brain() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    values = generator.gamma(4, 50, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    return values, mask


@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_normalised_images_do_not_depend_on_the_scanners_scale(method: str) -> None:
    values, mask = random_brain()
    values = values * mask
    first, second = normalize(values, mask, method), normalize(7.5 * values, mask, method)
    assert np.allclose(first, second, atol=1e-3)
    if method != "zscore_crop":
        assert (first[~mask] == background_value(method)).all()


def test_zscores_are_clipped() -> None:
    values, mask = random_brain()
    values[10, 10, 10] = 1e6
    assert normalize(values, mask, "zscore").max() == 6


def test_percentiles_become_zero_and_one() -> None:
    values, mask = random_brain()
    found = normalize(values, mask, "percentile")
    assert (found.min(), found.max()) == (0, 1)
    assert np.isclose((found[mask] == 1).mean(), 0.01, atol=2e-3)


def test_histograms_of_different_shapes_become_equal() -> None:
    values, mask = random_brain()
    found = [normalize(v, mask, "histogram")[mask] for v in (values, np.sqrt(values), values**2)]
    quantiles = [np.percentile(f, LANDMARK_PERCENTILES) for f in found]
    assert np.allclose(quantiles[0], quantiles[1], atol=0.02)
    assert np.allclose(quantiles[0], quantiles[2], atol=0.02)


def test_histogram_landmarks_are_learned_from_a_cohort() -> None:
    values, mask = random_brain()
    learned = histogram_landmarks([values[mask], 3 * values[mask] + 5])
    found = normalize(values, mask, "histogram", learned)[mask]
    assert np.allclose(np.percentile(found, LANDMARK_PERCENTILES), learned, atol=0.02)
    assert np.allclose(found, normalize(values, mask, "zscore")[mask], atol=0.05)


def test_the_published_normalisation_includes_the_background() -> None:
    values, mask = random_brain()
    crop = np.where(mask, values, 0)
    assert np.allclose(normalize(values, mask, "zscore_crop"), (crop - crop.mean()) / crop.std(), atol=1e-4)
