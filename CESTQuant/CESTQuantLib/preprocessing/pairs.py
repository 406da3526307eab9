"""Pairs of label and reference measurements at opposite offsets."""

from __future__ import annotations

from NeuroCESTLib.core.messages.input_errors import InputError

from ..physics.protocol import Protocol

OFFSET_TOLERANCE_PPM = 0.05
POWER_TOLERANCE_UT = 1e-3
TIME_TOLERANCE_S = 1e-6
LEAST_PAIRS = 2


def label_reference_pairs(protocol: Protocol, dw_ppm: float) -> list[tuple[list[int], list[int]]]:
    """Find the saturated measurements at an offset and their references on the other side of water.

    Where measurements are repeated there are as many pairs as repetitions. Where labels outnumber their references or
    the other way round, those that are left over are to be averaged with the first ones, so that every measurement
    counts once and the pairs have independent noise.

    Args:
        protocol: Protocol of the measurements.
        dw_ppm: Offset of the exchanging protons from water in ppm.

    Returns:
        For every pair the indices of the labels at +dw_ppm, which are to be averaged, and those of the references at
        -dw_ppm with the same B1 and duration.

    Raises:
        ValueError: There are fewer than two pairs, or all have the same B1.
    """
    offsets, b1_uT = protocol.offsets_ppm.tolist(), protocol.b1_uT.tolist()
    duration_s = protocol.saturation_time_s.tolist()

    def alike(i: int, j: int) -> bool:
        return abs(b1_uT[j] - b1_uT[i]) < POWER_TOLERANCE_UT and abs(duration_s[j] - duration_s[i]) < TIME_TOLERANCE_S

    def at(offset_ppm: float) -> list[int]:
        return [
            i
            for i in range(protocol.measurement_count)
            if abs(offsets[i] - offset_ppm) <= OFFSET_TOLERANCE_PPM and b1_uT[i] > 0
        ]

    pairs = []
    left, references = at(dw_ppm), at(-dw_ppm)
    while left:
        first = left[0]
        of_labels = [i for i in left if alike(first, i)]
        of_references = [j for j in references if alike(first, j)]
        left = [i for i in left if i not in of_labels]
        count = min(len(of_labels), len(of_references))
        pairs += [(of_labels[n::count], of_references[n::count]) for n in range(count)]
    if len(pairs) < LEAST_PAIRS:
        raise InputError(
            "protocol",
            f"the method needs at least two pairs of measurements at +{dw_ppm:g} and -{dw_ppm:g} ppm with equal B1 and "
            f"duration, found {len(pairs)}",
        )
    powers_uT = [b1_uT[labels[0]] for labels, _ in pairs]
    if max(powers_uT) - min(powers_uT) < POWER_TOLERANCE_UT:
        raise InputError(
            "protocol",
            f"the method needs pairs at two or more powers, but all {len(pairs)} are at {powers_uT[0]:g} uT: repeats "
            "and saturation times at one power do not tell a small fraction with fast exchange from a large one with "
            "slow exchange",
        )
    return pairs
