"""Contrasts of Lorentzian fits: what the description of the saturation does to them."""

from __future__ import annotations

import math

import pytest
import torch

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.events import Event, EventPulse, Events, Play, Sample, Wait
from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel
from CESTQuantLib.tissue.lorentzian_two_step import TwoStepModel
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.linspace(-10, 10, 61, dtype=torch.float64)
TRAIN = PulseTrain(10, 0.05, 0.05, PulseShape.named("block"))


def spectra(protocol: Protocol) -> ZSpectra:
    def line(amplitude: float, width: float, position: float) -> torch.Tensor:
        return amplitude / (1 + (2 * (OFFSETS - position) / width) ** 2)

    z = 1 - line(0.8, 2, 0) - line(0.1, 60, -2.5) - line(0.05, 2, 3.5) - line(0.06, 4, -3.5)
    return ZSpectra(z[None], protocol, t1_s=torch.tensor([1.3], dtype=torch.float64))


def played(gaps_s: list[float]) -> Protocol:
    """A train of ten pulses of alternating phase, with a gap of its own length at every offset; then the excitation."""
    measurements = []
    for offset, gap_s in zip(OFFSETS.tolist(), gaps_s, strict=True):
        events: list[Event] = [Wait(2.0)]
        for n in range(TRAIN.n_pulses):
            events += [Play(0, offset * 128.0, math.pi * (n % 2)), Wait(gap_s if n < TRAIN.n_pulses - 1 else 0.01)]
        measurements.append((*events, Play(1, 0.0, 0.0), Wait(0.002), Sample(transverse=True)))
    pulses = (EventPulse((2 * 2**0.5,), (0.0,), (TRAIN.duration_s,)), EventPulse((5.0,), (0.0,), (1e-3,)))
    return Protocol(3.0, OFFSETS, 2.0, TRAIN.total_time_s, events=Events(pulses, tuple(measurements)))


def test_arex_is_the_same_for_a_train_and_for_its_single_events() -> None:
    train = quantify(spectra(Protocol(3.0, OFFSETS, 2.0, TRAIN.total_time_s, TRAIN)), "mtr-rex").quantities
    events = quantify(spectra(played([TRAIN.delay_s] * len(OFFSETS))), "mtr-rex").quantities
    torch.testing.assert_close(events["arex_amide"], train["arex_amide"])
    assert float(train["arex_amide"]) == pytest.approx(float(train["mtr_rex_amide"]) / 1.3 / 0.5, rel=1e-6)


def test_arex_is_not_given_where_the_duty_cycle_varies() -> None:
    found = quantify(spectra(played([0.05] * 30 + [0.03] * 31)), "mtr-rex")
    assert not [name for name in found.quantities if name.startswith("arex")]
    assert "mtr_rex_amide" in found.quantities
    assert any("AREX is not given: the duty cycle of the saturation varies between" in w for w in found.warnings)


def test_a_b0_map_leaves_the_lines_as_they_are_where_water_was_not_acquired() -> None:
    """Values that were interpolated across the water changed the amide line by 30 %."""
    half = torch.arange(2.0, 8.1, 0.5, dtype=torch.float64)
    offsets, shift = torch.cat((-half.flip(0), half)), torch.tensor([0.0, 0.2, -0.4], dtype=torch.float64)
    distance = offsets - shift[:, None]

    def line(amplitude: float, width: float, position: float) -> torch.Tensor:
        return amplitude / (1 + (2 * (distance - position) / width) ** 2)

    z = 1 - line(0.85, 2.5, 0) - line(0.05, 2, 3.5) - line(0.08, 3, -3.5) - line(0.1, 40, -2.5)
    found = quantify(ZSpectra(z, Protocol(3.0, offsets, 1.0, 2.0), b0_shift_ppm=shift), "lorentzian")
    assert found.quantities["amide_amplitude"].numpy() == pytest.approx(0.05, abs=2.5e-3)
    assert found.quantities["noe_amplitude"].numpy() == pytest.approx(0.08, abs=5e-3)


@pytest.mark.parametrize("passes", [1, 4])
@pytest.mark.parametrize("method", ["lorentzian", "mtr-rex"])
def test_fewer_different_offsets_than_free_values_are_refused_however_often_they_are_repeated(
    method: str, passes: int
) -> None:
    """Four passes over six offsets gave maps, some of them converged."""
    offsets = torch.tensor([-4.0, -3.5, -3.0, 3.0, 3.5, 4.0], dtype=torch.float64).repeat(passes)
    study = ZSpectra(torch.full((2, len(offsets)), 0.8).double(), Protocol(3.0, offsets, 1.0, 2.0))
    with pytest.raises(ValueError, match=r"6 different offsets do not determine the 10 free values .* describe fewer"):
        quantify(study, method)


def water_line(offsets: torch.Tensor, position_ppm: torch.Tensor) -> torch.Tensor:
    return 0.95 - 0.8 / (1 + (2 * (offsets - position_ppm[:, None]) / 2.5) ** 2)


@pytest.mark.parametrize("lines", [LorentzianModel.preset("lorentzian_3T"), TwoStepModel.preset()])
def test_a_voxel_that_a_b0_shift_leaves_with_too_few_different_offsets_is_not_fitted(
    lines: LorentzianModel | TwoStepModel,
) -> None:
    """Three passes over what was left of the list counted three times and gave a fit that nothing determined."""
    once = torch.tensor([-12.0, -10.0, -9.0, -3.5, -1.0, 0.0, 1.0, 3.5, 10.0, 12.0], dtype=torch.float64)
    offsets, shift = once.repeat(3), torch.tensor([0.0, 3.5], dtype=torch.float64)
    z = water_line(offsets, shift)
    study = ZSpectra(z, Protocol(3.0, offsets, 1.0, 2.0), b0_shift_ppm=shift)
    found = quantify(study, "lorentzian", Settings(lorentzian=lines))
    assert found.status[0] not in (Status.NOT_ENOUGH_POINTS, Status.INVALID_DATA)
    assert found.status[1] == Status.NOT_ENOUGH_POINTS
    assert found.quantities["amide_amplitude"].isnan().tolist() == [False, True]


def test_values_that_are_fixed_need_no_offsets_of_their_own() -> None:
    """Offsets for the free values alone ended with the advice to check the maps, the mask and the protocol."""
    offsets = torch.tensor([-4.0, -1.5, -0.5, 0.5, 1.5, 4.0], dtype=torch.float64)
    description = {
        "baseline": [0.95, 0.95, 0.95],
        "pools": [
            {"name": "water", "amplitude": [0, 0.5, 1], "width_ppm": [0.5, 2, 5], "position_ppm": [-1, 0, 1]},
            {"name": "amide", "amplitude": [0, 0.01, 0.3], "width_ppm": [2, 2, 2], "position_ppm": [3.5, 3.5, 3.5]},
        ],
    }
    study = ZSpectra(water_line(offsets, torch.zeros(1)), Protocol(3.0, offsets, 1.0, 2.0))
    found = quantify(study, "lorentzian", Settings(lorentzian=LorentzianModel.from_dict(description)))
    assert float(found.quantities["water_width_ppm"]) == pytest.approx(2.5, abs=1e-3)
