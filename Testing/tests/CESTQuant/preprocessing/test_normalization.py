"""Normalisation of raw signals by their references."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from CESTQuantLib.physics.events import Events, Sample, Wait
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.preprocessing.initial_z import initial_z
from CESTQuantLib.preprocessing.normalization import normalize
from CESTQuantLib.preprocessing.reference import gap_warnings, m0_measurements, shared_noise, step_warnings
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = [-3.5, -1.0, 0.0, 1.0, 3.5]
Z = torch.tensor([[0.8, 0.5, 0.1, 0.6, 0.7], [0.9, 0.6, 0.2, 0.5, 0.8]], dtype=torch.float64)
M0 = torch.tensor([700.0, 1200.0], dtype=torch.float64)


def protocol(offsets=OFFSETS, normalisation: str = "m0") -> Protocol:
    return Protocol(3.0, offsets, 1.0, 1.0, signal_normalisation=normalisation)


def same(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12, equal_nan=True)


def test_a_single_reference_divides_all_measurements():
    spectra = normalize(Z * M0[:, None], protocol(), M0)
    same(spectra.signal, Z)


def test_a_reference_per_offset_follows_the_drift():
    drift = torch.linspace(1.0, 0.8, 5, dtype=torch.float64)
    reference = M0[:, None] * drift
    same(normalize(Z * reference, protocol(), reference).signal, Z)


def test_interleaved_references_are_interpolated_in_time():
    drift = torch.linspace(1.0, 0.8, 5, dtype=torch.float64)
    several = M0[:, None] * drift[[0, 2, 4]]
    same(normalize(Z * M0[:, None] * drift, protocol(), several).signal, Z)


def test_far_off_resonance_measurements_serve_as_reference_and_leave_the_spectra():
    drift = torch.linspace(1.0, 0.7, 7, dtype=torch.float64)
    raw = torch.cat([torch.ones(2, 1, dtype=torch.float64), Z, torch.ones(2, 1, dtype=torch.float64)], 1)
    spectra = normalize(raw * M0[:, None] * drift, protocol([-300.0, *OFFSETS, 300.0]), None)
    same(spectra.signal, Z)
    assert spectra.protocol.offsets_ppm.tolist() == OFFSETS


def test_interleaved_far_off_resonance_reference():
    offsets = [-300.0, -3.5, -1.0, 300.0, 0.0, 1.0, 3.5, -300.0]
    drift = 1 - 0.03 * torch.arange(8, dtype=torch.float64)
    one = torch.ones(2, 1, dtype=torch.float64)
    raw = torch.cat([one, Z[:, :2], one, Z[:, 2:], one], 1) * M0[:, None] * drift
    spectra = normalize(raw, protocol(offsets), None)
    same(spectra.signal, Z)


def test_only_the_farthest_measurements_are_the_reference():
    offsets = [-300.0, -20.0, *OFFSETS, 20.0]
    one = torch.ones(2, 1, dtype=torch.float64)
    raw = torch.cat([one, 0.9 * one, Z, 0.9 * one], 1) * M0[:, None]
    spectra = normalize(raw, protocol(offsets), None)
    same(spectra.signal[:, 1:-1], Z)
    assert spectra.protocol.offsets_ppm.tolist() == offsets[1:]
    (warning,) = m0_measurements(protocol(offsets)).warnings
    assert warning.startswith("only the farthest measurements (-300 ppm) serve as M0 reference; those at -20, 20 ppm")


def test_the_protocol_may_name_its_reference():
    one = torch.ones(2, 1, dtype=torch.float64)
    raw = torch.cat([3 * one, Z[:, :2], one, Z[:, 2:]], 1) * M0[:, None]
    named = replace(protocol([-300.0, *OFFSETS[:2], 15.0, *OFFSETS[2:]]), m0_measurements=(4,))
    spectra = normalize(raw, named, None)
    same(spectra.signal[:, 1:], Z)
    assert spectra.protocol.offsets_ppm.tolist() == [-300.0, *OFFSETS]
    assert spectra.protocol.m0_measurements == ()
    assert m0_measurements(named).warnings == ()
    with pytest.raises(ValueError, match="m0_measurements must be different numbers of measurements from 1 to 7"):
        replace(named, m0_measurements=(8,))


def test_a_reference_near_water_is_told():
    chosen = m0_measurements(protocol([*OFFSETS, 25.0]))
    assert chosen.index.tolist() == [5]
    assert "where tissue is saturated already" in chosen.warnings[0]


def test_several_references_can_be_averaged():
    one = torch.ones(2, 1, dtype=torch.float64)
    raw = torch.cat([0.9 * one, Z, 1.1 * one], 1) * M0[:, None]
    same(normalize(raw, protocol([-300.0, *OFFSETS, -300.0]), None, over_time="mean").signal, Z)
    several = M0[:, None] * torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)
    same(normalize(Z * M0[:, None], protocol(), several, over_time="mean").signal, Z)
    with pytest.raises(ValueError, match="use one of interpolated, mean"):
        normalize(raw, protocol([-300.0, *OFFSETS, -300.0]), None, over_time="last")


def two_powers(gain: float, b1_uT: tuple[float, float] = (1.0, 2.0)) -> tuple[torch.Tensor, Protocol, torch.Tensor]:
    """Two acquisitions with a leading M0 each, the second with another gain; and the numbers of their M0."""
    raw = torch.cat([torch.ones(2, 1, dtype=torch.float64), Z], 1) * M0[:, None]
    powers = torch.tensor(b1_uT, dtype=torch.float64).repeat_interleave(6)
    return torch.cat([raw, gain * raw], 1), Protocol(3.0, [-300.0, *OFFSETS] * 2, powers, 1.0), torch.tensor([0, 6])


def test_acquisitions_of_another_gain_are_divided_by_their_own_reference():
    raw, both, index = two_powers(2.0)
    for over_time in ("interpolated", "mean"):
        spectra = normalize(raw, both, None, over_time=over_time)
        same(spectra.signal, torch.cat([Z, Z], 1))
        assert spectra.reference_noise == pytest.approx(0.5)
        (warning,) = step_warnings(raw[:, index], index, both, over_time, "'mz.nii'")
        assert warning.startswith("M0 of 'mz.nii' changes by a factor of 2 between parts")


def test_a_step_that_the_protocol_does_not_explain_is_told():
    raw, both, index = two_powers(0.5, (1.0, 1.0))
    (warning,) = step_warnings(raw[:, index], index, both, "interpolated", "'mz.nii'")
    assert warning.startswith("neighbouring M0 of 'mz.nii' differ by a factor of 2 and are interpolated in time")
    several = M0[:, None] * torch.tensor([1.0, 1.0, 1.3], dtype=torch.float64)
    (warning,) = step_warnings(several, None, both, "mean", "'mz.nii'")
    assert "factor of 1.3 and are averaged" in warning
    every = M0[:, None] * torch.linspace(1.0, 9.0, 12, dtype=torch.float64)
    assert step_warnings(every, None, both, "interpolated", "'mz.nii'") == ()  # nothing lies between them


def test_a_step_before_the_steady_state_is_told_only_where_it_acts():
    offsets = [-300.0, -300.0, -300.0, *OFFSETS]
    index, three = torch.arange(3), M0[:, None] * torch.tensor([1.3, 1.0, 1.0], dtype=torch.float64)
    raw = torch.cat([three, Z * M0[:, None]], 1)
    same(normalize(raw, protocol(offsets), None).signal, Z)
    assert step_warnings(three, index, protocol(offsets), "interpolated", "'mz.nii'") == ()
    (warning,) = step_warnings(three, index, protocol(offsets), "mean", "'mz.nii'")
    assert "factor of 1.3 and are averaged" in warning
    assert "not yet in steady state" in warning


def test_a_drift_between_the_references_of_several_powers_is_still_interpolated():
    raw, both, index = two_powers(1.0)
    drift = torch.linspace(1.0, 0.9, 12, dtype=torch.float64)
    drift[7:] = drift[6]
    same(normalize(raw * drift, both, None).signal, torch.cat([Z, Z], 1))
    assert step_warnings((raw * drift)[:, index], index, both, "interpolated", "'mz.nii'") == ()


def test_one_reference_at_the_start_is_used_for_all():
    raw = torch.cat([torch.ones(2, 1, dtype=torch.float64), Z], 1) * M0[:, None]
    same(normalize(raw, protocol([-300.0, *OFFSETS]), None).signal, Z)


def test_zero_and_nan_references_give_nan_in_their_voxel_only():
    raw = Z * M0[:, None]
    for bad in (0.0, math.nan, math.inf):
        spectra = normalize(raw, protocol(), torch.tensor([bad, 1200.0]))
        assert bool(spectra.signal[0].isnan().all())
        same(spectra.signal[1], Z[1])


def test_a_bad_interleaved_reference_is_not_filled():
    reference = (M0[:, None] * torch.ones(5, dtype=torch.float64)).clone()
    reference[0, 3] = 0
    spectra = normalize(Z * M0[:, None], protocol(), reference)
    assert spectra.signal[0].isnan().tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("over_time", ["interpolated", "mean"])
def test_references_that_act_over_time_take_the_place_of_one_that_is_empty(bad, over_time):
    one = torch.ones(2, 1, dtype=torch.float64)
    offsets = [-300.0, *OFFSETS[:2], -300.0, *OFFSETS[2:], -300.0]
    raw = torch.cat([one, Z[:, :2], one, Z[:, 2:], one], 1) * M0[:, None]
    for empty in ([0], [3], [7], [0, 3], [3, 7]):
        some = raw.clone()
        some[0, empty] = bad
        same(normalize(some, protocol(offsets), None, over_time=over_time).signal, Z)
        images = M0[:, None] * torch.ones(2, 3, dtype=torch.float64)
        images[0, [{0: 0, 3: 1, 7: 2}[number] for number in empty]] = bad
        same(normalize(Z * M0[:, None], protocol(), images, over_time=over_time).signal, Z)
    raw[0, [0, 3, 7]] = bad
    signal = normalize(raw, protocol(offsets), None, over_time=over_time).signal
    assert bool(signal[0].isnan().all())
    same(signal[1], Z[1])


def test_the_drift_is_interpolated_across_an_empty_reference():
    drift = torch.linspace(1.0, 0.8, 5, dtype=torch.float64)
    several = M0[:, None] * drift[[0, 2, 4]]
    several[0, 1] = 0
    same(normalize(Z * M0[:, None] * drift, protocol(), several).signal, Z)


def test_an_empty_reference_of_tissue_is_told():
    references = M0[:, None] * torch.ones(2, 3, dtype=torch.float64)
    index = torch.tensor([0, 4, 8])
    assert gap_warnings(references, index, "'mz.nii'") == ()
    references[0, 1] = 0
    (warning,) = gap_warnings(references, index, "'mz.nii'")
    assert warning.startswith("M0 measurement 5 of 'mz.nii' has no positive value in 1 of 2 voxels of tissue")
    references[1, 2] = math.nan
    (warning,) = gap_warnings(references, None, "'mz.nii'")
    assert warning.startswith("M0 images 2, 3 of 'mz.nii' have no positive value in 2 of 2 voxels of tissue")
    air = torch.tensor([[1000.0, 1000.0], [1.0, 0.0], [0.0, 0.0]])
    assert gap_warnings(air, index[:2], "'mz.nii'") == ()


def test_a_step_is_found_across_an_empty_reference():
    raw, _both, _index = two_powers(2.0)
    raw = torch.cat([raw[:, :6], 0 * raw[:, :1], raw[:, 6:]], 1)
    both = Protocol(3.0, [-300.0, *OFFSETS, -300.0, -300.0, *OFFSETS], [1.0] * 7 + [2.0] * 6, 1.0)
    same(normalize(raw, both, None).signal, torch.cat([Z, Z], 1))


def test_nan_of_the_signal_stays_nan():
    raw = Z * M0[:, None]
    raw[1, 2] = math.nan
    assert int(normalize(raw, protocol(), M0).signal.isnan().sum()) == 1


def test_l2_makes_unit_spectra():
    spectra = normalize(Z * M0[:, None], protocol(normalisation="l2"), None)
    same(spectra.signal.square().sum(1), torch.ones(2, dtype=torch.float64))
    same(spectra.signal, Z / Z.norm(dim=1, keepdim=True))


def test_l2_of_a_zero_voxel_is_nan():
    assert bool(normalize(0 * Z, protocol(normalisation="l2"), None).signal.isnan().all())


def test_none_leaves_the_signal_as_it_is():
    same(normalize(Z, protocol(normalisation="none"), None).signal, Z)


def test_a_missing_reference_says_what_to_do():
    with pytest.raises(ValueError, match=r"no M0 reference for 'mz.nii': give an M0 image"):
        normalize(Z, protocol(), None, where="'mz.nii'")


def test_wrong_count_names_both_numbers():
    with pytest.raises(ValueError, match=r"the protocol has 4 offsets but 'mz.nii' has 5 measurements"):
        normalize(Z, protocol(OFFSETS[:4]), M0, where="'mz.nii'")


def test_the_noise_of_m0_that_all_measurements_share() -> None:
    at, times = torch.tensor([0.0, 4.0]), torch.arange(5, dtype=torch.float64)
    assert shared_noise(at[:1], times) == 1
    assert shared_noise(at, times, "mean") == 0.5
    assert shared_noise(at, times) == pytest.approx(0.5)  # both count alike over the whole acquisition
    assert shared_noise(at, times[:3]) > 0.5  # near the first one it counts more
    assert shared_noise(times, times) == pytest.approx(0.2)  # a reference for every measurement
    assert normalize(Z * M0[:, None], protocol(), M0).reference_noise == 1
    assert ZSpectra(Z, protocol()).reference_noise == 0


@pytest.mark.parametrize("over_time", ["interpolated", "mean"])
def test_a_reference_that_is_empty_everywhere_does_not_lower_the_noise_of_m0(over_time: str) -> None:
    references = M0[:, None] * torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    raw = Z * M0[:, None]
    single = normalize(raw, protocol(), references[:, 1:], over_time=over_time)
    same(single.signal, Z)
    assert single.reference_noise == 1
    assert normalize(raw, protocol(), references, over_time=over_time).reference_noise > 0.49
    references[0, 2] = M0[0]  # one voxel has it
    assert normalize(raw, protocol(), references, over_time=over_time).reference_noise < 0.45
    scan = Protocol(3.0, [-300.0, *OFFSETS, -300.0], 1.0, 1.0)
    measured = torch.cat((M0[:, None], raw, 0 * M0[:, None]), 1)
    assert normalize(measured, scan, None, over_time=over_time).reference_noise == 1


def carried_over(offsets: list[float], angle_deg: float) -> Protocol:
    return Protocol(
        3.0,
        offsets,
        1.0,
        1.5,
        recovery_time_s=2.0,
        readout_flip_angle_deg=angle_deg,
        magnetisation_carried_over=True,
        signal_normalisation="m0",
    )


@pytest.mark.parametrize("angle_deg", [30.0, 90.0])
@pytest.mark.parametrize("engine", ["r1rho", "bloch-mcconnell"])
def test_the_first_offset_starts_from_what_the_reference_before_it_has_left(angle_deg: float, engine: str):
    tissue = Tissue(Water(1.5, 0.1), (Pool("amide", 1e-3, 30.0, 1.5, 0.03, 3.5),))

    def sampled(played: Protocol) -> torch.Tensor:
        """Magnetisation along z before each readout, (1, measurement)."""
        signal = simulate(tissue, replace(played, signal_normalisation="none"), engine=engine)
        return signal.reshape(1, -1) / math.sin(math.radians(angle_deg))

    whole = carried_over([1000.0, *OFFSETS], angle_deg)
    raw = sampled(whole)
    found = sampled(normalize(raw, whole, None).protocol)
    torch.testing.assert_close(found, raw[:, 1:], rtol=0, atol=2e-3)
    unaware = sampled(carried_over(OFFSETS, angle_deg))
    assert float((unaware[0, 0] - raw[0, 1]).abs()) > 5e-3


def test_methods_that_let_every_saturation_start_alike_start_it_from_what_the_reference_leaves():
    relaxed = replace(carried_over([1000.0, *OFFSETS], 90.0), recovery_time_s=torch.full((6,), 15.0).double())
    kept = normalize(torch.ones(1, 6), relaxed, None).protocol
    start = initial_z(kept, torch.tensor([1.5]))
    torch.testing.assert_close(start, torch.ones_like(start), rtol=0, atol=1e-4)


def test_references_between_the_measurements_that_leave_magnetisation_are_told():
    offsets = [1000.0, -3.5, -1.0, 1000.0, 1.0, 3.5]
    assert "leave magnetisation" in m0_measurements(carried_over(offsets, 30.0)).warnings[-1]
    unexcited = replace(carried_over(offsets, 30.0), readout_flip_angle_deg=None)
    assert "leave magnetisation" in m0_measurements(unexcited).warnings[-1]
    assert not any("leave magnetisation" in w for w in m0_measurements(carried_over(offsets, 90.0)).warnings)
    assert not any("leave magnetisation" in w for w in m0_measurements(carried_over([1000.0, *OFFSETS], 30.0)).warnings)


@pytest.mark.parametrize(("offsets", "told"), [([1000.0, *OFFSETS], True), ([*OFFSETS, 1000.0], False)])
def test_references_of_a_played_sequence_are_told_where_others_follow(offsets: list[float], told: bool):
    events = Events((), tuple((Wait(1.0), Sample()) for _ in offsets))
    played = replace(carried_over(offsets, 90.0), events=events)
    assert any("left out of the sequence" in warning for warning in m0_measurements(played).warnings) == told
    apart = replace(played, magnetisation_carried_over=False)
    assert not any("left out of the sequence" in warning for warning in m0_measurements(apart).warnings)
