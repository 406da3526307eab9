"""Pairs of measurements at opposite offsets."""

from __future__ import annotations

import pytest

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.pairs import label_reference_pairs


def test_pairs_have_opposite_offsets_and_the_same_saturation() -> None:
    offsets = [3.0, -3.0, 3.0, -3.0, 3.0, 0.0]
    powers = [1.0, 2.0, 2.0, 1.0, 3.0, 1.0]
    pairs = label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 3.0)
    assert pairs == [([0], [3]), ([2], [1])]  # nothing mirrors the power of 3 uT
    with pytest.raises(ValueError, match=r"at least two pairs of measurements at \+2 and -2 ppm .*, found 0"):
        label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 2.0)


def test_repeated_measurements_make_a_pair_each() -> None:
    offsets, powers = [3.0] * 4 + [-3.0] * 4, [1.0, 1.0, 2.0, 2.0] * 2
    pairs = label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 3.0)
    assert pairs == [([0], [4]), ([1], [5]), ([2], [6]), ([3], [7])]


@pytest.mark.parametrize("sign", [1, -1])
def test_every_measurement_counts_once_where_one_side_was_repeated_more_often(sign: int) -> None:
    offsets, powers = [sign * 3.0] * 4 + [-sign * 3.0] * 3, [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 2.0]
    pairs = label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 3.0)
    assert [pair[::sign] for pair in pairs] == [([0, 2], [4]), ([1], [5]), ([3], [6])]


@pytest.mark.parametrize("times_s", [4.0, [4.0] * 4 + [2.0] * 4], ids=["repeats", "saturation times"])
def test_pairs_at_one_power_do_not_determine_fraction_and_rate(times_s: float | list[float]) -> None:
    with pytest.raises(ValueError, match="pairs at two or more powers, but all 4 are at 2 uT"):
        label_reference_pairs(Protocol(7.0, [3.0, -3.0] * 4, 2.0, times_s), 3.0)
