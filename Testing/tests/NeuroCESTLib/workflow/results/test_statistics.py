"""Statistics of cohorts against SciPy, and by what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from NeuroCESTLib.workflow.results.statistics import (
    compare_paired,
    compare_unpaired,
    false_discovery_rate,
    holm,
    small_sample_correction,
    t_quantile,
    t_two_sided,
)

FIRST = [3.1, 2.7, 4.0, 3.3, 2.9]
SECOND = [4.2, 3.9, 5.1, 4.4, 3.0]
OTHERS = [5.0, 6.2, 4.1]


@pytest.mark.parametrize("freedom", [1.0, 2.7, 10.0, 300.0])
@pytest.mark.parametrize("t", [0.0, 0.3, 2.0, 9.0, -40.0])
def test_probabilities_of_student_are_those_of_scipy(t: float, freedom: float) -> None:
    assert t_two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("freedom", [1.0, 3.0, 57.3])
def test_quantiles_of_student_are_those_of_scipy(freedom: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_unpaired_groups_are_compared_as_by_scipy() -> None:
    done = compare_unpaired(FIRST, OTHERS)
    peer = stats.ttest_ind(OTHERS, FIRST, equal_var=False)
    interval = peer.confidence_interval(0.95)
    assert done is not None
    assert (done.p, done.lower, done.upper) == pytest.approx((peer.pvalue, interval.low, interval.high))
    assert done.difference == pytest.approx(np.mean(OTHERS) - np.mean(FIRST))
    assert done.effect_lower < done.effect < done.effect_upper


def test_pairs_are_compared_as_by_scipy() -> None:
    done = compare_paired(FIRST, SECOND)
    peer = stats.ttest_rel(SECOND, FIRST)
    interval = peer.confidence_interval(0.95)
    assert done is not None
    assert (done.p, done.lower, done.upper) == pytest.approx((peer.pvalue, interval.low, interval.high))


def test_the_effect_size_is_unbiased_in_small_groups() -> None:
    draw = np.random.default_rng(1)
    effects = [
        done.effect
        for _ in range(1500)
        if (done := compare_unpaired(draw.standard_normal(4).tolist(), (1 + draw.standard_normal(4)).tolist()))
    ]
    assert np.mean(effects) == pytest.approx(1.0, abs=0.05)
    assert small_sample_correction(6) == pytest.approx(0.869, abs=1e-3)  # table of Hedges 1981


def test_the_interval_of_the_effect_size_covers_the_truth() -> None:
    draw = np.random.default_rng(2)
    covered = 0
    for _ in range(600):
        done = compare_unpaired(draw.standard_normal(10).tolist(), (0.8 + draw.standard_normal(10)).tolist())
        covered += done is not None and done.effect_lower <= 0.8 <= done.effect_upper
    assert 0.93 <= covered / 600 <= 0.98


def test_corrections_for_several_comparisons() -> None:
    p = [0.01, math.nan, 0.04, 0.03, 0.005]
    assert holm(p)[::2] == pytest.approx([0.03, 0.06, 0.02])
    assert math.isnan(holm(p)[1])
    peer = stats.false_discovery_control([0.01, 0.04, 0.03, 0.005])
    assert [q for q in false_discovery_rate(p) if q == q] == pytest.approx(list(peer))


def test_too_few_values_or_values_without_spread_have_no_test() -> None:
    assert compare_unpaired([1.0], FIRST) is None
    assert compare_paired([1.0], [2.0]) is None
    done = compare_paired([1.0, 2.0], [2.0, 3.0])
    assert done is not None
    assert (done.difference, math.isnan(done.p)) == (1.0, True)


@pytest.mark.parametrize(("first", "second"), [([1.1, 2.3], [1.4, 2.6]), ([0.512, 1.024], [0.52, 1.032])])
def test_pairs_that_differ_alike_but_for_rounding_are_not_tested(first: list[float], second: list[float]) -> None:
    done = compare_paired(first, second)
    assert done is not None
    assert done.difference == pytest.approx(second[0] - first[0])
    assert math.isnan(done.p)
    assert math.isnan(done.effect)


def test_groups_without_spread_but_for_rounding_are_not_tested() -> None:
    done = compare_unpaired([0.1 + 0.2, 0.3], [0.4, 0.4])
    assert done is not None
    assert math.isnan(done.p)
