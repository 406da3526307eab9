"""B0 and B1: water position, WASSR, WASABI, and the corrections, with their sign conventions."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.physics.pools import Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.preprocessing.fields import (
    centered_on_water,
    estimate_b0_shift,
    interpolate_b1,
    shift_spectra,
    shows_water,
    wassr,
)
from CESTQuantLib.preprocessing.wasabi import FieldLimits, WasabiPulse, wasabi
from CESTQuantLib.tissue.spectra import ZSpectra

PULSE = WasabiPulse()


def water(offsets, shift, width=1.6):
    distance = (offsets - shift) / (width / 2)
    return 0.97 - 0.9 / (1 + distance**2)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_water_at_plus_0p3_ppm_has_shift_plus_0p3_and_is_moved_to_zero():
    offsets = torch.linspace(-5, 5, 81, dtype=torch.float64)
    z = water(offsets, 0.3).unsqueeze(0)
    shift = estimate_b0_shift(z, offsets)
    assert shift.item() == pytest.approx(0.3, abs=1e-3)
    corrected = shift_spectra(z, offsets, shift)
    inner = offsets.abs() < 4.6
    torch.testing.assert_close(corrected[0, inner], water(offsets, 0.0)[inner], atol=5e-3, rtol=0)
    assert corrected[0, -2:].isnan().all()


def test_centering_leaves_out_offsets_that_were_not_acquired_and_keeps_bad_voxels_for_the_fit_to_refuse() -> None:
    signal = torch.tensor([[0.9, 0.1, 0.8], [0.9, torch.nan, 0.8]], dtype=torch.float64)
    shift = torch.tensor([0.5, 0.5], dtype=torch.float64)
    centered = centered_on_water(ZSpectra(signal, Protocol(3.0, [-3.0, 0.0, 3.0], 1.0, 2.0), b0_shift_ppm=shift))
    assert centered.valid.tolist() == [[True, True, False], [True, True, True]]
    assert centered.signal.isnan().tolist() == [[False, False, True], [True, True, True]]
    assert centered.b0_shift_ppm.tolist() == [0.0, 0.0]
    plain = ZSpectra(signal, Protocol(3.0, [-3.0, 0.0, 3.0], 1.0, 2.0))
    assert centered_on_water(plain) is plain


def test_centering_leaves_out_what_it_moves_onto_a_water_line_that_was_not_acquired() -> None:
    offsets = torch.cat((torch.arange(-8.0, -1.9, 0.5), torch.arange(2.0, 8.1, 0.5))).double()
    shift = torch.tensor([0.2, -0.4], dtype=torch.float64)
    signal = torch.stack([water(offsets, each) for each in shift.tolist()])
    centered = centered_on_water(ZSpectra(signal, Protocol(3.0, offsets, 1.0, 2.0), b0_shift_ppm=shift))
    at = offsets.tolist()
    left_out = [[at[i] for i in range(26) if not centered.valid[voxel, i]] for voxel in range(2)]
    assert left_out == [[-2.0, 8.0], [-8.0, 2.0]]
    for voxel in range(2):
        known = centered.valid[voxel]
        torch.testing.assert_close(centered.signal[voxel, known], water(offsets, 0.0)[known], atol=5e-3, rtol=0)


def test_centering_moves_the_mean_of_repeats_and_leaves_each_its_deviation() -> None:
    once = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)
    deviation = torch.tensor([0.01, -0.02, 0.03], dtype=torch.float64)
    mean, shift = water(once, 0.0)[None], torch.tensor([0.5], dtype=torch.float64)
    signal = torch.cat((mean + deviation, mean - deviation), 1)
    protocol = Protocol(3.0, once.repeat(2), 1.0, 2.0)
    centered = centered_on_water(ZSpectra(signal, protocol, b0_shift_ppm=shift))
    moved = shift_spectra(mean, once, shift)
    torch.testing.assert_close(
        centered.signal, torch.cat((moved + deviation, moved - deviation), 1), atol=1e-12, rtol=0, equal_nan=True
    )
    assert centered.valid.tolist() == [[True, True, False] * 2]


def test_water_position_is_found_despite_noise_and_side_lines():
    offsets = torch.linspace(-8, 8, 65, dtype=torch.float64)
    shift = -0.6 + 1.2 * rand(500, 1)
    z = water(offsets, shift) - 0.06 / (1 + ((offsets - shift - 3.5) / 0.5) ** 2)
    z = z - 0.08 / (1 + ((offsets - shift + 3.5) / 1.5) ** 2) + 0.01 * randn(500, 65)
    found = estimate_b0_shift(z, offsets)
    assert (found - shift[:, 0]).abs().median() < 0.01
    assert (found - shift[:, 0]).abs().max() < 0.1


@pytest.mark.parametrize("rounding_ppm", [0.0, 1e-3])
def test_repeats_of_one_offset_on_water_show_no_water_line(rounding_ppm):
    """They were taken for three offsets, and gave a shift of -0.2 ppm that was not there."""
    far, on_water = [-4.0, -3.5, -3.0, 3.0, 3.5, 4.0], [0.0, rounding_ppm, -rounding_ppm]
    assert not shows_water(torch.tensor([*far, *on_water]))
    assert shows_water(torch.tensor([*far, -0.5, 0.0, 0.5]))
    offsets = torch.tensor([*far, *on_water], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"at least 3 different offsets within 1\.5 ppm of 0"):
        estimate_b0_shift(water(offsets, 0.0).unsqueeze(0), offsets)
    with pytest.raises(ValueError, match=r"at least 6 different offsets near water, but there are 3"):
        few = torch.tensor([-0.5, 0.0, 0.5] * 3, dtype=torch.float64)
        wassr(water(few, 0.0).unsqueeze(0), few)


def test_repeated_offsets_have_the_water_position_of_one_pass():
    offsets = torch.arange(-3, 3.1, 0.5, dtype=torch.float64)
    shift = torch.linspace(-0.4, 0.4, 9, dtype=torch.float64)
    z = water(offsets, shift.unsqueeze(1), 1.2) - 0.05 / (1 + ((offsets - 1.5) / 0.4) ** 2)
    for estimate in (estimate_b0_shift, wassr):
        repeated = estimate(z.repeat(1, 3), offsets.repeat(3))
        torch.testing.assert_close(repeated, estimate(z, offsets), atol=1e-3, rtol=0, equal_nan=True)


def test_voxels_without_signal_have_no_shift():
    offsets = torch.linspace(-2, 2, 21, dtype=torch.float64)
    z = torch.stack((water(offsets, 0.1), torch.zeros_like(offsets), torch.full_like(offsets, torch.nan)))
    assert estimate_b0_shift(z, offsets).isnan().tolist() == [False, True, True]
    assert wassr(z, offsets).isnan().tolist() == [False, True, True]


def test_wassr_finds_the_centre_of_symmetry_of_a_line_that_is_not_lorentzian():
    offsets = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)
    shift = -0.7 + 1.4 * rand(300, 1)
    z = 1 - 0.8 * torch.exp(-((offsets - shift).abs() ** 1.5) / 0.15) + 0.01 * randn(300, 31)
    found = wassr(z, offsets)
    assert (found - shift[:, 0]).abs().median() < 0.01
    assert (found - shift[:, 0]).abs().max() < 0.06


def test_wassr_works_up_to_the_ends_of_the_offsets_and_never_converges_wrongly():
    offsets = torch.linspace(-1, 1, 41, dtype=torch.float64)
    shift = torch.linspace(-1.4, 1.4, 600, dtype=torch.float64)
    z = torch.stack([water(offsets, each) for each in shift.tolist()]) + 0.005 * randn(600, 41)
    found = wassr(
        torch.cat((z, torch.full((600, 1), 1.0, dtype=torch.float64)), 1), torch.cat((offsets, -300 + offsets[:1]))
    )
    known = found.isfinite()
    assert (found - shift)[known].abs().max() < 0.05
    assert known[shift.abs() < 0.8].all()
    assert not known[shift.abs() > 1.01].any()
    noise = wassr(0.5 + 0.1 * randn(300, 41), offsets)
    assert noise.isfinite().double().mean() < 0.05


def test_wassr_takes_offsets_of_a_second_average_that_differ_by_their_rounding():
    offsets = torch.linspace(-1, 1, 21, dtype=torch.float64)
    both = torch.cat((offsets, offsets + 1e-4))
    shift = -0.4 + 0.8 * rand(100, 1)
    found = wassr(water(both, shift, 0.6) + 0.002 * randn(100, 42), both)
    assert (found - shift[:, 0]).abs().max() < 0.01


def wasabi_data(voxels, noise=0.01, seed=0):
    offsets = torch.linspace(-2, 2, 31, dtype=torch.float64)
    uniform = rand(4, voxels, seed=seed)
    truth = torch.stack(
        (
            PULSE.b1_uT * (0.5 + 1.0 * uniform[0]),
            -0.7 + 1.4 * uniform[1],
            0.8 + 0.3 * uniform[2],
            1.4 + 0.5 * uniform[3],
        )
    )
    z = PULSE.predict(truth, offsets.unsqueeze(1))[0].T
    return z + noise * randn(voxels, 31, seed=seed + 1), offsets, truth


def test_wasabi_jacobian_matches_differences():
    _, offsets, truth = wasabi_data(20)
    step = 1e-6
    _, jacobian = PULSE.predict(truth, offsets.unsqueeze(1))
    for row in range(4):
        move = torch.zeros(4, 1, dtype=torch.float64)
        move[row] = step
        ahead, behind = (PULSE.predict(truth + sign * move, offsets.unsqueeze(1))[0] for sign in (1, -1))
        torch.testing.assert_close((ahead - behind) / (2 * step), jacobian[row], atol=2e-7, rtol=1e-5)


def test_wasabi_finds_both_fields_anywhere_in_the_plausible_range():
    z, offsets, truth = wasabi_data(3000)
    maps = wasabi(z, offsets, PULSE)
    b1_error = (maps.b1_relative - truth[0] / PULSE.b1_uT).abs()
    b0_error = (maps.b0_shift_ppm - truth[1]).abs()
    assert (b1_error < 0.05).all()
    assert (b0_error < 0.08).all()
    score = (maps.b1_relative - truth[0] / PULSE.b1_uT) / maps.b1_relative_sd
    assert (score.abs() < 2.05).double().mean().item() == pytest.approx(0.95, abs=0.02)


def test_wasabi_look_up_table_avoids_the_local_minima_of_a_single_start():
    z, offsets, truth = wasabi_data(1000)
    fixed = wasabi(z, offsets, PULSE, start=torch.tensor([3.7, -0.1, 1.0, 2.0]))
    table = wasabi(z, offsets, PULSE)
    wrong = [((maps.b1_relative - truth[0] / 3.7).abs() > 0.05).sum().item() for maps in (fixed, table)]
    assert wrong[0] > 50
    assert wrong[1] <= 1


@pytest.mark.parametrize(
    ("reach", "count", "noise"), [(2.0, 31, 0.0), (2.0, 31, 0.01), (1.5, 21, 0.01), (2.0, 25, 0.02)]
)
def test_wasabi_never_converges_to_wrong_fields(reach, count, noise):
    voxels = 750
    offsets = torch.linspace(-reach, reach, count, dtype=torch.float64)
    uniform = rand(4, voxels, seed=7)
    b0, b1 = 1.3 * reach * (2 * uniform[0] - 1), 0.4 + 1.4 * uniform[1]
    tissue = Tissue(Water(0.8 + 3 * uniform[2], 0.04 + 1.5 * uniform[3]))
    protocol = Protocol(3.0, offsets, PULSE.b1_uT, PULSE.duration_s)
    z = simulate(tissue, protocol, b0_shift_ppm=b0, b1_relative=b1).abs() + noise * randn(voxels, count, seed=8)
    maps = wasabi(z, offsets, PULSE)
    converged = maps.status == Status.CONVERGED
    assert (maps.b0_shift_ppm - b0)[converged].abs().max() < 0.1
    assert (maps.b1_relative - b1)[converged].abs().max() < 0.2
    assert converged[b0.abs() < 0.9 * reach].double().mean() > 0.95
    assert (maps.status[b0.abs() > 1.02 * reach] != Status.CONVERGED).all()


def test_wasabi_estimates_at_given_limits_are_at_bounds_and_noise_is_no_fit():
    z, offsets, truth = wasabi_data(300)
    limits = FieldLimits((-0.3, 0.3), (0.8, 1.2))
    maps = wasabi(z, offsets, PULSE, limits=limits)
    inside = (truth[1].abs() < 0.28) & ((truth[0] / PULSE.b1_uT - 1).abs() < 0.17)
    outside = (truth[1].abs() > 0.35) | ((truth[0] / PULSE.b1_uT - 1).abs() > 0.25)
    assert (maps.status[inside] == Status.CONVERGED).double().mean() > 0.98
    assert (maps.status[outside] == Status.AT_BOUND).double().mean() > 0.98
    assert not (maps.status[outside] == Status.CONVERGED).any()
    noise = wasabi(rand(200, 31, seed=3), offsets, PULSE)
    assert not (noise.status == Status.CONVERGED).any()
    with pytest.raises(ValueError, match="the limits of B0 must be two ascending numbers, not 1, -1"):
        FieldLimits((1.0, -1.0))


def test_repeats_do_not_add_offsets_to_wasabi():
    """Three offsets, four times each, gave maps of values that nothing determined, without the reason."""
    offsets = torch.tensor([-1.0, 0.0, 1.0, 1.5], dtype=torch.float64).repeat(4)
    truth = torch.tensor([[3.7, 0.1, 0.95, 1.7]], dtype=torch.float64).T
    z = PULSE.predict(truth, offsets.unsqueeze(1))[0].T + 0.01 * randn(1, 16)
    assert wasabi(z, offsets, PULSE).b1_relative.isfinite().all()
    few = offsets < 1.5
    rounded = offsets[few] + 1e-4 * rand(12)
    with pytest.raises(ValueError, match="WASABI needs at least 4 different offsets, but there are 3"):
        wasabi(z[:, few], rounded, PULSE)


def test_wasabi_works_at_seven_tesla_and_flags_empty_voxels():
    pulse = WasabiPulse(b1_uT=3.7, duration_s=0.005, field_strength_T=7.0)
    offsets = torch.linspace(-1.5, 1.5, 41, dtype=torch.float64)
    truth = torch.tensor([[3.0, 0.25, 0.95, 1.7]], dtype=torch.float64).T
    z = torch.cat((pulse.predict(truth, offsets.unsqueeze(1))[0].T, torch.zeros(1, 41, dtype=torch.float64)))
    maps = wasabi(z, offsets, pulse)
    assert maps.b0_shift_ppm[0].item() == pytest.approx(0.25, abs=1e-5)
    assert maps.b1_relative[0].item() == pytest.approx(3.0 / 3.7, abs=1e-5)
    assert maps.status[1] == Status.INVALID_DATA
    assert maps.b1_relative[1].isnan()


def saturation(b1):
    return 1 / (1 + 0.6 * b1**2)


@pytest.mark.parametrize(("powers", "tolerance"), [([1.0], 0.09), ([0.7, 1.4], 0.03), ([0.6, 0.9, 1.2, 1.5], 0.004)])
def test_b1_interpolation_approaches_the_nominal_spectrum_with_more_powers(powers, tolerance):
    nominal = torch.tensor(powers, dtype=torch.float64)
    relative = torch.tensor([0.8, 1.0, 1.2], dtype=torch.float64)
    z = saturation(nominal[:, None, None] * relative[None, :, None]).expand(-1, -1, 5)
    found = interpolate_b1(z, nominal, relative, 1.0)
    torch.testing.assert_close(found, saturation(torch.ones(3, 5, dtype=torch.float64)), atol=tolerance, rtol=0)


def test_b1_interpolation_is_exact_at_an_acquired_power_and_flags_bad_b1():
    nominal = torch.tensor([0.5, 1.0, 2.0])
    z = rand(3, 2, 4)
    found = interpolate_b1(z, nominal, torch.tensor([1.0, 0.0]), 1.0)
    torch.testing.assert_close(found[0], z[1, 0])
    assert found[1].isnan().all()
    with pytest.raises(ValueError, match="distinct"):
        interpolate_b1(z, torch.tensor([1.0, 1.0, 2.0]), torch.ones(2), 1.0)
