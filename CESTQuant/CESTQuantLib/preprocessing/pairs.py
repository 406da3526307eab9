"""Pairs of label and reference measurements at opposite offsets."""

from __future__ import annotations

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..physics.protocol import Protocol

OFFSET_TOLERANCE_PPM = 0.05
POWER_TOLERANCE_UT = 1e-3
TIME_TOLERANCE_S = 1e-6
LEAST_PAIRS = 2


def label_reference_pairs(protocol: Protocol, dw_ppm: float) -> tuple[Tensor, Tensor]:
    """Find the saturated measurements at an offset and their references on the other side of water.

    Args:
        protocol: Protocol of the measurements.
        dw_ppm: Offset of the exchanging protons from water in ppm.

    Returns:
        Indices (pair,) of the labels at +dw_ppm, and of the references at -dw_ppm with the same B1 and duration.

    Raises:
        ValueError: There are fewer than two pairs.
    """
    offsets, b1_uT = protocol.offsets_ppm.tolist(), protocol.b1_uT.tolist()
    duration_s = protocol.saturation_time_s.tolist()
    labels, references = [], []
    for i in range(protocol.measurement_count):
        if abs(offsets[i] - dw_ppm) > OFFSET_TOLERANCE_PPM or b1_uT[i] == 0:
            continue
        for j in range(protocol.measurement_count):
            same = (
                abs(offsets[j] + dw_ppm) <= OFFSET_TOLERANCE_PPM
                and abs(b1_uT[j] - b1_uT[i]) < POWER_TOLERANCE_UT
                and abs(duration_s[j] - duration_s[i]) < TIME_TOLERANCE_S
            )
            if same:
                labels.append(i)
                references.append(j)
                break
    if len(labels) < LEAST_PAIRS:
        raise InputError(
            "protocol",
            f"the method needs at least two pairs of measurements at +{dw_ppm:g} and -{dw_ppm:g} ppm with equal B1 and "
            f"duration, found {len(labels)}",
        )
    return torch.tensor(labels), torch.tensor(references)
