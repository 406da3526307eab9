"""The spectrum of one of several powers, for contrasts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.powers import acquired_powers_uT, at_one_power, b1_warnings, corrects_b1
from CESTQuantLib.tissue.spectra import ZSpectra
from NeuroCESTLib.core.messages.input_errors import InputError

OFFSETS = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)


def spectra(*powers_uT: float, **maps: torch.Tensor) -> ZSpectra:
    """Two voxels whose signal falls linearly with B1, at three offsets per power."""
    b1 = torch.tensor(powers_uT, dtype=torch.float64).repeat_interleave(3)
    b1_relative = maps.get("b1_relative", torch.ones(2, dtype=torch.float64))
    signal = 1 - 0.1 * b1 * b1_relative.unsqueeze(1)
    return ZSpectra(signal, Protocol(3.0, OFFSETS.repeat(len(powers_uT)), b1, 2.0), **maps)


def test_the_only_power_needs_no_choice() -> None:
    one = spectra(1.0)
    assert at_one_power(one, None) is one
    assert at_one_power(one, 1.0) is one
    with pytest.raises(ValueError, match="no measurement at 2 uT; the only power is 1 uT"):
        at_one_power(one, 2.0)


@pytest.mark.parametrize("powers_uT", [(0.0, 1.0), (0.0, 1.0, 2.0)])
@pytest.mark.parametrize("mapped", [False, True])
def test_measurements_without_saturation_are_left_out(powers_uT: tuple[float, ...], mapped: bool) -> None:
    maps = {"b1_relative": torch.tensor([1.0, 0.9], dtype=torch.float64)} if mapped else {}
    chosen, expected = (at_one_power(spectra(*powers, **maps), 1.0) for powers in (powers_uT, powers_uT[1:]))
    torch.testing.assert_close(chosen.signal, expected.signal)
    assert chosen.protocol.b1_uT.tolist() == [1.0] * 3
    assert corrects_b1(spectra(*powers_uT, **maps)) == (mapped and len(powers_uT) == 3)


def test_a_measurement_whose_saturation_lasts_no_time_is_left_out() -> None:
    m0_first = ZSpectra(
        torch.ones(2, 4).double(), Protocol(3.0, torch.tensor([-300.0, *OFFSETS]), 1.0, torch.tensor([0.0, 2, 2, 2]))
    )
    assert at_one_power(m0_first, None).protocol.offsets_ppm.tolist() == OFFSETS.tolist()


@pytest.mark.parametrize("name", ["saturation_time_s", "post_delay_s"])
def test_measurements_of_several_times_at_one_power_are_not_one_spectrum(name: str) -> None:
    """Their mean was shown as the contrast: an MTRasym of 5.1 % where 0.5 s gave 3.2 % and 4 s 7.0 %."""
    times = torch.tensor([0.5, 4.0], dtype=torch.float64).repeat_interleave(3)
    one_power = spectra(1.0, 1.0)
    mixed = replace(one_power, protocol=replace(one_power.protocol, **{name: times}))
    with pytest.raises(
        InputError, match=f"not one spectrum, because {name} of the protocol varies from 0.5 to 4 s: gi"
    ):
        at_one_power(mixed, None)
    assert at_one_power(mixed, None, varying=(name,)) is mixed
    rounded = replace(one_power, protocol=replace(one_power.protocol, **{name: 2 + 1e-4 * times}))
    assert at_one_power(rounded, None) is rounded


def test_another_power_may_have_another_saturation_time_unless_it_is_interpolated() -> None:
    times = torch.tensor([0.5, 4.0], dtype=torch.float64).repeat_interleave(3)
    two_powers = spectra(0.1, 1.0)
    field_and_cest = replace(two_powers, protocol=replace(two_powers.protocol, saturation_time_s=times))
    assert at_one_power(field_and_cest, 1.0).protocol.saturation_time_s.tolist() == [4.0] * 3
    with pytest.raises(InputError, match="not one spectrum, because saturation_time_s"):
        at_one_power(replace(field_and_cest, b1_relative=torch.ones(2).double()), 1.0)


def test_spectra_of_which_no_power_is_known_keep_all_measurements() -> None:
    unknown = spectra(0.0)
    assert at_one_power(unknown, None) is unknown


def test_one_of_several_powers_is_selected() -> None:
    several = spectra(0.5, 1.0, 2.0)
    assert acquired_powers_uT(several.protocol).tolist() == [0.5, 1.0, 2.0]
    chosen = at_one_power(several, 1.0)
    assert chosen.protocol.b1_uT.tolist() == [1.0] * 3
    torch.testing.assert_close(chosen.signal, several.signal[:, 3:6])
    for power, words in ((None, r"3 powers \(0.5, 1, 2 uT\); choose one"), (1.5, "the powers are 0.5, 1, 2 uT")):
        with pytest.raises(ValueError, match=words):
            at_one_power(several, power)


def test_with_a_b1_map_spectra_are_interpolated_to_the_nominal_power() -> None:
    relative = torch.tensor([0.9, 1.1], dtype=torch.float64)
    chosen = at_one_power(spectra(0.5, 1.0, 2.0, b1_relative=relative), 1.0)
    torch.testing.assert_close(chosen.signal, torch.full((2, 3), 0.9, dtype=torch.float64))
    assert chosen.protocol.b1_uT.tolist() == [1.0] * 3
    assert chosen.b1_relative is not None
    assert torch.equal(chosen.b1_relative, relative)


def test_interpolation_needs_the_same_offsets_at_every_power() -> None:
    offsets = torch.cat((OFFSETS, OFFSETS + 0.5))
    protocol = Protocol(3.0, offsets, torch.tensor([1.0, 2.0], dtype=torch.float64).repeat_interleave(3), 2.0)
    uneven = ZSpectra(torch.ones(2, 6, dtype=torch.float64), protocol, b1_relative=torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"needs the same offsets at every power, but 2 uT lacks -3, 0, 3 ppm, which"):
        at_one_power(uneven, 1.0)
    with pytest.raises(ValueError, match=r"but 1 uT lacks 3 ppm, which 2 uT has: leave out the B1 map \(--b1\)"):
        at_one_power(spectra(1.0, 2.0, b1_relative=torch.ones(2)).select(torch.tensor([0, 1, 3, 4, 5])), 1.0)


def test_offsets_that_differ_by_their_rounding_are_the_same_at_every_power() -> None:
    rounded = spectra(1.0, 2.0, b1_relative=torch.ones(2, dtype=torch.float64))
    offsets = torch.cat((OFFSETS, OFFSETS.flip(0) + 0.001))
    chosen = at_one_power(replace(rounded, protocol=replace(rounded.protocol, offsets_ppm=offsets)), 1.5)
    torch.testing.assert_close(chosen.signal, torch.full((2, 3), 0.85, dtype=torch.float64))
    assert chosen.protocol.offsets_ppm.tolist() == OFFSETS.tolist()


def test_repeats_that_not_all_powers_have_are_averaged() -> None:
    signal = torch.tensor([[0.9, 0.5, 0.8, 0.7, 0.6, 0.2, 0.5]], dtype=torch.float64)
    protocol = Protocol(3.0, [3.0, 0.0, 3.0, -3.0, -3.0, 0.0, 3.0], [1.0] * 4 + [2.0] * 3, 2.0)
    several = ZSpectra(signal, protocol, b1_relative=torch.ones(1, dtype=torch.float64))
    for power_uT, expected in ((1.0, [0.7, 0.5, 0.85]), (2.0, [0.6, 0.2, 0.5]), (1.5, [0.65, 0.35, 0.675])):
        chosen = at_one_power(several, power_uT)
        torch.testing.assert_close(chosen.signal, torch.tensor([expected], dtype=torch.float64))
        assert chosen.protocol.offsets_ppm.tolist() == [-3.0, 0.0, 3.0]


def test_repeats_that_all_powers_have_stay_measurements_of_their_own() -> None:
    one = spectra(1.0, 2.0, b1_relative=torch.ones(2, dtype=torch.float64))
    twice = one.select(torch.tensor([0, 1, 2, 2, 3, 4, 5, 5]))
    assert at_one_power(twice, 1.0).protocol.offsets_ppm.tolist() == [-3.0, 0.0, 3.0, 3.0]


@pytest.mark.parametrize("power_uT", [0.0, -5.0, float("nan"), float("inf")])
@pytest.mark.parametrize("powers_uT", [(1.0,), (1.0, 2.0)])
def test_a_power_that_is_no_positive_number_is_refused(power_uT: float, powers_uT: tuple[float, ...]) -> None:
    for maps in ({}, {"b1_relative": torch.ones(2, dtype=torch.float64)}):
        with pytest.raises(InputError, match="must be a positive number of uT") as caught:
            at_one_power(spectra(*powers_uT, **maps), power_uT)
        assert caught.value.role == "power"


def test_a_power_far_beyond_the_acquired_ones_is_not_extrapolated() -> None:
    several = spectra(1.0, 2.0, b1_relative=torch.ones(2, dtype=torch.float64))
    for power_uT in (0.7, 2.5, 50.0):
        with pytest.raises(ValueError, match=r"too far from the acquired powers \(1, 2 uT\).*between 0.8 and 2.4 uT"):
            at_one_power(several, power_uT)
    torch.testing.assert_close(at_one_power(several, 2.2).signal, torch.full((2, 3), 0.78, dtype=torch.float64))


@pytest.mark.parametrize("powers_uT", [(0.7071, 1.4142), (0.333, 0.8), (0.1234, 2.3456), (1.5, 13.9999)])
def test_the_limits_that_a_refusal_names_are_accepted(powers_uT: tuple[float, ...]) -> None:
    several = spectra(*powers_uT, b1_relative=torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"between \S+ and \S+ uT") as caught:
        at_one_power(several, 50.0)
    low, high = re.findall(r"[\d.]+", str(caught.value))[-2:]
    for power_uT in (float(low), float(high)):
        assert at_one_power(several, power_uT).protocol.b1_uT.tolist() == [power_uT] * 3


def test_voxels_whose_actual_b1_never_reaches_the_wanted_power_are_told() -> None:
    relative = torch.tensor([0.7, 1.0], dtype=torch.float64)
    several = spectra(1.0, 2.0, b1_relative=relative)
    assert b1_warnings(several, 1.4) == []
    (warning,) = b1_warnings(several, 2.0)
    assert warning.startswith("2 uT lies beyond the actual B1 of all acquisitions in 1 of 2 voxels (50 %)")


def test_a_b1_map_that_cannot_correct_anything_is_noticed() -> None:
    relative = torch.ones(2, dtype=torch.float64)
    assert b1_warnings(spectra(1.0), None) == []
    assert b1_warnings(spectra(1.0, 2.0, b1_relative=relative), 1.0) == []
    (warning,) = b1_warnings(spectra(1.0, b1_relative=relative), None)
    assert "the B1 map is not used" in warning
