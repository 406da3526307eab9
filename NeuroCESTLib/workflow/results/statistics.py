"""Comparison of groups and of visits: Welch's and the paired t-test, effect sizes with intervals, several comparisons.

Student's distribution comes from the continued fraction of the incomplete beta function (Press et al., Numerical
Recipes, 3rd ed., 6.4), so that nothing but the standard library is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
"""Level of all intervals."""
_NAN = float("nan")
_NO_SPREAD = 1e-9
"""Spread relative to the largest value that is rounding and nothing else."""


@dataclass(frozen=True)
class Comparison:
    """A difference of two means.

    Attributes:
        n_first: Number of values of the first group, or of pairs.
        n_second: Number of values of the second group, or of pairs.
        first: Mean of the first group.
        second: Mean of the second group.
        difference: Second minus first mean.
        lower: Lower limit of the 95 % interval of the difference.
        upper: Upper limit.
        effect: Difference in standard deviations, corrected for small samples (Hedges' g; of the differences for
            pairs).
        effect_lower: Lower limit of its 95 % interval.
        effect_upper: Upper limit.
        p: Two-sided p-value of the t-test.
    """

    n_first: int
    n_second: int
    first: float
    second: float
    difference: float
    lower: float
    upper: float
    effect: float
    effect_lower: float
    effect_upper: float
    p: float


def compare_unpaired(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """Compare the means of two groups of different subjects by Welch's t-test, for unequal variances.

    The interval of the effect size uses its normal approximation (Hedges & Olkin 1985, p. 86).

    Args:
        first: Values of the first group.
        second: Values of the second group.

    Returns:
        The comparison, or None where a group has fewer than two values.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return None
    a, b = _variance(first), _variance(second)
    difference = _mean(second) - _mean(first)
    error = math.sqrt(a / n + b / m)
    if error <= _NO_SPREAD * max(map(abs, (*first, *second))):
        return _without_spread(n, m, _mean(first), _mean(second))
    freedom = (a / n + b / m) ** 2 / ((a / n) ** 2 / (n - 1) + (b / m) ** 2 / (m - 1))
    pooled = math.sqrt(((n - 1) * a + (m - 1) * b) / (n + m - 2))
    effect = small_sample_correction(n + m - 2) * difference / pooled
    spread = math.sqrt((n + m) / (n * m) + effect**2 / (2 * (n + m)))
    return _comparison(n, m, _mean(first), _mean(second), error, freedom, effect, spread)


def compare_paired(first: Sequence[float], second: Sequence[float]) -> Comparison | None:
    """Compare two values of the same subjects by the paired t-test.

    Args:
        first: First value of each subject.
        second: Second value of each subject, in the same order.

    Returns:
        The comparison, or None where there are fewer than two pairs. The effect size is that of the differences.
    """
    n = len(first)
    if n < 2:
        return None
    differences = [b - a for a, b in zip(first, second, strict=True)]
    sd = math.sqrt(_variance(differences))
    if sd <= _NO_SPREAD * max(map(abs, (*first, *second))):
        return _without_spread(n, n, _mean(first), _mean(second))
    effect = small_sample_correction(n - 1) * _mean(differences) / sd
    spread = math.sqrt(1 / n + effect**2 / (2 * n))
    return _comparison(n, n, _mean(first), _mean(second), sd / math.sqrt(n), n - 1, effect, spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for several comparisons by Holm's method, which controls the family-wise error.

    Args:
        p_values: P-values; NaN for tests that were not possible, which do not count.

    Returns:
        Corrected p-values in the same order.
    """
    order = sorted((i for i, p in enumerate(p_values) if p == p), key=lambda i: p_values[i])
    corrected = [_NAN] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def false_discovery_rate(p_values: Sequence[float]) -> list[float]:
    """Return q-values: p-values corrected by Benjamini and Hochberg, who control the false discovery rate.

    Args:
        p_values: P-values; NaN for tests that were not possible, which do not count.

    Returns:
        Corrected p-values in the same order.
    """
    order = sorted((i for i, p in enumerate(p_values) if p == p), key=lambda i: p_values[i], reverse=True)
    corrected = [_NAN] * len(p_values)
    smallest = 1.0
    for rank, index in enumerate(order):
        smallest = min(smallest, p_values[index] * len(order) / (len(order) - rank))
        corrected[index] = smallest
    return corrected


def small_sample_correction(freedom: float) -> float:
    """Return the factor that makes a standardized difference unbiased (Hedges 1981, exact form)."""
    if freedom <= 1:
        return _NAN
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def t_two_sided(t: float, freedom: float) -> float:
    """Return the probability that Student's t is further from 0 than ``t``."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def t_quantile(level: float, freedom: float) -> float:
    """Return the t within which, on both sides of 0, Student's t lies with a probability of ``level``."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    t = 0.0
    # The probability is convex in t, so that Newton's steps from 0 approach the solution from one side.
    for _ in range(200):
        density = math.exp(log_scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (t_two_sided(t, freedom) - (1 - level)) / (2 * density)
        t += step
        if abs(step) < 1e-12 * t:
            break
    return t


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _continued_fraction(a, b, x) / a


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Lentz's method for the continued fraction of the incomplete beta function."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _comparison(
    n: int, m: int, first: float, second: float, error: float, freedom: float, effect: float, spread: float
) -> Comparison:
    difference = second - first
    reach = t_quantile(LEVEL, freedom) * error
    normal = 1.959963984540054 * spread
    p = t_two_sided(difference / error, freedom)
    return Comparison(
        *(n, m, first, second, difference, difference - reach, difference + reach),
        *(effect, effect - normal, effect + normal, p),
    )


def _without_spread(n: int, m: int, first: float, second: float) -> Comparison:
    """Values without any spread: there is a difference, but neither interval nor test."""
    return Comparison(n, m, first, second, second - first, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
