"""The water line of spectra: whether there is one, and what is not taken for its absence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.water_line import water_warnings
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.tensor([-20.0, -5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 20], dtype=torch.float64)


def protocol(offsets: Tensor = OFFSETS, b1_uT: float | Tensor = 2.0) -> Protocol:
    return Protocol(3.0, offsets, b1_uT, 2.0)


def spectra(shift_ppm: float = 0.0, voxels: int = 50) -> ZSpectra:
    z = 0.9 - 0.8 / (1 + ((OFFSETS - shift_ppm) / 0.8) ** 2)
    return ZSpectra(z.expand(voxels, -1), protocol())


def noise(voxels: int = 400) -> Tensor:
    """Magnitudes of noise relative to a magnitude of noise."""
    random = torch.Generator().manual_seed(1)
    m0, signal = (torch.randn(2, voxels, n, generator=random).norm(dim=0).double() for n in (1, len(OFFSETS)))
    return signal / m0


def test_noise_is_told_once() -> None:
    (sentence,) = water_warnings(ZSpectra(noise(), protocol()))
    assert "show no water line" in sentence


def test_offsets_in_another_order_are_told() -> None:
    ordered = spectra()
    assert water_warnings(replace(ordered, protocol=protocol(OFFSETS[OFFSETS.abs().argsort()])))


@pytest.mark.parametrize("shift_ppm", [-0.7, 0.0, 0.7])
def test_a_water_line_is_not_missed(shift_ppm: float) -> None:
    assert water_warnings(spectra(shift_ppm)) == []


FINE = torch.linspace(-5, 5, 41, dtype=torch.float64)


def narrow(shift_ppm: Tensor) -> Tensor:
    """Spectra (voxel, offset) as of 0.5 uT at 9.4 T."""
    return 1 - 0.9 / (1 + ((FINE - shift_ppm[:, None]) / 0.2) ** 2)


@pytest.mark.parametrize("shift_ppm", [-1.0, 0.9])
def test_a_narrow_line_beside_0_ppm_is_not_missed(shift_ppm: float) -> None:
    z = narrow(torch.full((50,), shift_ppm, dtype=torch.float64))
    assert water_warnings(ZSpectra(z, protocol(FINE, 0.5))) == []


def test_narrow_lines_that_lie_far_from_0_ppm_are_found_by_the_b0_map() -> None:
    shift_ppm = torch.linspace(1.7, 2.3, 200, dtype=torch.float64)
    alone = ZSpectra(narrow(shift_ppm), protocol(FINE, 0.5))
    assert water_warnings(alone) != []
    assert water_warnings(replace(alone, b0_shift_ppm=shift_ppm)) == []


def test_noise_is_told_with_a_b0_map_too() -> None:
    shift_ppm = torch.linspace(-1.0, 1.0, 400, dtype=torch.float64)
    assert water_warnings(ZSpectra(noise(), protocol(), b0_shift_ppm=shift_ppm)) != []


def test_air_around_tissue_is_not_taken_for_noise() -> None:
    tissue, air = spectra().signal, noise(2000)
    brightness = torch.cat((torch.full((50,), 1000.0), torch.full((2000,), 10.0))).double()
    assert water_warnings(ZSpectra(torch.cat((tissue, air)), protocol(), brightness=brightness)) == []


def test_one_power_that_shows_water_suffices() -> None:
    unsaturated = torch.ones_like(spectra().signal)
    b1_uT = torch.tensor([2.0, 0.0]).repeat_interleave(len(OFFSETS))
    both = torch.cat((spectra().signal, unsaturated), 1)
    assert water_warnings(ZSpectra(both, protocol(OFFSETS.repeat(2), b1_uT))) == []


@pytest.mark.parametrize("offsets", [[3.5, -3.5] * 4, [-1.0, -0.5, 0.0, 0.5, 1.0], [3.0] * 30])
def test_offsets_that_say_nothing_about_water_are_let_pass(offsets: list[float]) -> None:
    flat = torch.ones(10, len(offsets), dtype=torch.float64)
    assert water_warnings(ZSpectra(flat, Protocol(3.0, offsets, 2.0, 2.0))) == []


def beside_water() -> ZSpectra:
    """Spectra of a hydroxyl phantom at low power, measured on both sides of water but not on it."""
    z = torch.tensor([1.0, 0.996, 0.992, 1.0], dtype=torch.float64)
    return ZSpectra(z.expand(50, -1), Protocol(9.4, [-5.0, -1.2, 1.2, 5.0], 0.5, 3.0))


def test_the_lowest_signal_is_not_taken_for_water_where_nothing_is_measured_on_it() -> None:
    assert water_warnings(beside_water()) == []


@pytest.mark.parametrize(("shift_ppm", "is_told"), [(0.0, False), (-0.6, False), (1.0, True)])
def test_offsets_beside_0_ppm_count_where_a_b0_map_has_water_there(shift_ppm: float, is_told: bool) -> None:
    shift = torch.full((50,), shift_ppm, dtype=torch.float64)
    assert bool(water_warnings(replace(beside_water(), b0_shift_ppm=shift))) == is_told


def test_signals_that_need_no_water_line_are_let_pass() -> None:
    for changes in (
        {"magnetisation_carried_over": True, "recovery_time_s": torch.tensor(1.0)},
        {"initial_magnetisation": -1.0},
        {"signal_normalisation": "l2"},
    ):
        assert water_warnings(ZSpectra(noise(), replace(protocol(), **changes))) == []
