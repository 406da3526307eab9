"""Weighted statistics against those of numpy, and standard errors against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest

from CESTQuantLib.compartments.change import changes_between, student_quantile
from CESTQuantLib.compartments.inputs import Settings
from CESTQuantLib.compartments.resampling import mean_error
from CESTQuantLib.compartments.results.statistics import Statistics
from CESTQuantLib.compartments.results.visit import Visit
from CESTQuantLib.compartments.statistics import Sample, common_edges, distribution, weighted_quantiles, weighted_sd


def test_equal_weights_give_the_usual_statistics() -> None:
    values = np.random.default_rng(1).normal(3, 2, 57)
    weights = np.full(57, 0.7)
    assert weighted_sd(values, weights) == pytest.approx(values.std(ddof=1))
    np.testing.assert_allclose(
        weighted_quantiles(values, weights, (0.1, 0.5, 0.9)), np.quantile(values, [0.1, 0.5, 0.9])
    )


def test_a_heavier_value_pulls_the_quantiles() -> None:
    values, weights = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.5, 1.0])
    assert weighted_quantiles(values, weights, (0.5,))[0] > 2.0


def test_a_sample_takes_voxels_with_a_value_that_lie_at_least_half_in_the_region() -> None:
    array = np.array([[[1.0, np.nan, 3.0, 4.0]]])
    sample = Sample.of(array, np.array([[[1.0, 1.0, 0.49, 0.5]]]))
    assert sample.values.tolist() == [1.0, 4.0]


def test_histograms_hold_the_whole_region() -> None:
    values = np.random.default_rng(2).normal(size=(2, 8, 8))
    edges = common_edges([values])
    found = distribution(Sample.of(values, np.ones(values.shape)), "r", "q", edges)
    assert found.share.sum() == pytest.approx(1.0)
    assert list(found.whiskers) == sorted(found.whiskers)


@pytest.mark.parametrize("probability", [0.95, 0.975, 0.995])
@pytest.mark.parametrize("freedom", [1, 2.5, 10, 200])
def test_quantiles_of_student(probability: float, freedom: float) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    assert student_quantile(probability, freedom) == pytest.approx(scipy_stats.t.ppf(probability, freedom), rel=2e-3)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int], correlated: bool) -> np.ndarray:
    """White noise with SD 1, or noise that neighbours within a slice share."""
    white = rng.standard_normal((shape[0], shape[1] + 1, shape[2] + 1))
    if not correlated:
        return white[:, 1:, 1:]
    return (white[:, 1:, 1:] + white[:, :-1, 1:] + white[:, 1:, :-1] + white[:, :-1, :-1]) / 2


@pytest.mark.parametrize("correlated", [False, True])
def test_standard_error_of_a_mean_allows_for_noise_that_neighbours_share(correlated: bool) -> None:
    rng = np.random.default_rng(3)
    shape = (4, 16, 16)
    drawn = [Sample.of(smooth_noise(rng, shape, correlated), np.ones(shape)) for _ in range(60)]
    errors = [mean_error(sample, draws=100).se for sample in drawn]
    # Each draw of the correlated noise counts in up to four voxels: (15² · 4² + 60 · 2² + 4) / 2² in each slice.
    exact = np.sqrt(4 * 961) / 1024 if correlated else 1 / 32
    assert np.mean(errors) == pytest.approx(exact, rel=0.1)


def test_errors_of_the_fits_alone() -> None:
    shape = (1, 5, 5)
    sample = Sample.of(np.arange(25.0).reshape(shape), np.ones(shape))
    found = mean_error(sample, voxel_sd=np.full(shape, 2.0))
    assert found.fit_se >= 2.0 / 5


def visit_of(values: np.ndarray, seed: int) -> Visit:
    sample = Sample.of(values, np.ones(values.shape))
    error = mean_error(sample, draws=200, seed=seed)
    row = Statistics(
        "v", "edema", "q", "", len(sample), 1.0, float(sample.values.mean()), mean_se=error.se, blocks=error.blocks
    )
    return Visit("v", None, {}, {}, (), statistics=(row,))


def test_intervals_of_the_change_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    shape, runs, covered = (3, 12, 12), 200, 0
    for run in range(runs):
        first, second = (visit_of(level + smooth_noise(rng, shape, True), run) for level in (1.0, 1.3))
        (change,) = changes_between(first, second, Settings())
        covered += change.lower <= 0.3 <= change.upper
    assert 0.90 <= covered / runs <= 0.98
