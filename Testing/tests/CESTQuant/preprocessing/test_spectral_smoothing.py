"""Smoothing along the offsets: what is averaged, and what must not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.spectral_smoothing import smoothing_matrix
from CESTQuantLib.scene.preparation import prepare
from CESTQuantLib.scene.study import Study
from NeuroCESTLib.scene.geometry import Geometry

OFFSETS = torch.tensor([-300.0, 3.0, -4.0, 0.0, 0.5, 1.0, 1.5, 3.0], dtype=torch.float64)
LINE = torch.linspace(-5, 5, 41, dtype=torch.float64)


def protocol(offsets_ppm: torch.Tensor, b1_uT: Any = 2.0, saturation_time_s: Any = 1.0, **more: Any) -> Protocol:
    return Protocol(3.0, offsets_ppm, b1_uT, saturation_time_s, **more)


def test_smoothing_keeps_straight_lines_and_the_measurements_that_are_named() -> None:
    kept = OFFSETS.abs() > 100
    weights = smoothing_matrix(protocol(OFFSETS), 1.0, kept)
    for spectrum in (torch.ones_like(OFFSETS), OFFSETS):
        torch.testing.assert_close(weights @ spectrum, spectrum)
    assert torch.equal(weights[0], torch.eye(8, dtype=torch.float64)[0])
    assert float(weights[1:, 0].abs().max()) == 0
    assert float(weights[1, 7]) == float(weights[1, 1])  # repeated offsets are averaged


def test_smoothing_lowers_noise() -> None:
    weights = smoothing_matrix(protocol(LINE), 1.0)
    assert float(weights.pow(2).sum(1).sqrt()[10:-10].max()) < 0.55  # standard deviation of smoothed unit noise


@pytest.mark.parametrize(
    "setting",
    ["b1_uT", "saturation_time_s", "post_delay_s", "recovery_time_s", "readout_flip_angle_deg", "initial_recovery_s"],
)
def test_measurements_that_differ_in_more_than_their_offset_are_not_mixed(setting: str) -> None:
    two = 1.0 + torch.arange(41, dtype=torch.float64) % 2
    weights = smoothing_matrix(protocol(LINE, **{setting: two}), 1.0)
    assert float(weights[::2, 1::2].abs().max()) == 0
    assert float(weights[2, 4]) > 0.01
    rounded = smoothing_matrix(protocol(LINE, **{setting: 1.0 + 1e-4 * (two - 1)}), 1.0)
    torch.testing.assert_close(rounded, smoothing_matrix(protocol(LINE, **{setting: 1.0}), 1.0))


def test_an_unusable_width_is_refused() -> None:
    with pytest.raises(ValueError, match="positive number of ppm, not 0"):
        smoothing_matrix(protocol(OFFSETS), 0.0)


def prepared(offsets: torch.Tensor, signal: torch.Tensor, **settings: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    raw = signal.numpy()[:, None, None, None] * np.ones((1, 1, 2, 2))
    study = Study(
        "cest",
        "'cest'",
        raw,
        Geometry.from_lps((1, 2, 2), np.eye(4)),
        protocol(offsets, **settings),
        None,
        np.arange(4),
    )
    ready = prepare(study, smoothing_ppm=0.2)
    return ready.study.raw[:, 0, 0, 0], ready.warnings


def test_saturation_times_of_one_offset_stay_as_they_are_which_is_told() -> None:
    times = torch.tensor([0.5, 1.0, 2.0, 4.0, 6.0], dtype=torch.float64)
    offsets = torch.tensor([300.0] + [1.9] * 5 + [-1.9] * 5, dtype=torch.float64)
    every = torch.cat([times[1:2], times, times])
    signal = torch.exp(-0.1 * every) * 1000
    found, warnings = prepared(offsets, signal, saturation_time_s=every)
    assert found.tolist() == signal.tolist()
    assert warnings == (
        "the spectra of 'cest' were not smoothed: no offsets within the width of 0.2 ppm were measured with the same "
        "power, times and flip angle",
    )


def test_smoothing_of_magnetisation_that_is_carried_over_is_told() -> None:
    offsets = torch.tensor([300.0, 2.0, 2.1, 2.2], dtype=torch.float64)
    found, warnings = prepared(
        offsets, 1000 - offsets.square(), magnetisation_carried_over=True, signal_normalisation="m0"
    )
    assert found[0] == 1000 - 300.0**2
    assert found[2] != 1000 - 2.1**2
    assert "'cest' start from what the one before has left" in warnings[0]
    assert prepared(offsets, 1000 - offsets.square())[1] == ()
