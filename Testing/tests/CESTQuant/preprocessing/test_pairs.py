"""Pairs of measurements at opposite offsets."""

from __future__ import annotations

import pytest

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.pairs import label_reference_pairs


def test_pairs_have_opposite_offsets_and_the_same_saturation() -> None:
    offsets = [3.0, -3.0, 3.0, -3.0, 3.0, 0.0]
    powers = [1.0, 2.0, 2.0, 1.0, 3.0, 1.0]
    labels, references = label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 3.0)
    assert (labels.tolist(), references.tolist()) == ([0, 2], [3, 1])  # nothing mirrors the power of 3 uT
    with pytest.raises(ValueError, match=r"at least two pairs of measurements at \+2 and -2 ppm .*, found 0"):
        label_reference_pairs(Protocol(7.0, offsets, powers, 4.0), 2.0)
