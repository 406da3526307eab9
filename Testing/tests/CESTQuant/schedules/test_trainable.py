"""Trainable schedules: limits hold for any parameters, gradients pass, impossible limits are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from CESTQuantLib.physics.protocol import Protocol, PulseTrain
from CESTQuantLib.physics.pulse_shapes import PulseShape
from CESTQuantLib.schedules.limits import TRAINABLE, Limits, b1_rms_uT, playable, scan_time_s
from CESTQuantLib.schedules.trainable import TrainableSchedule

LIMITS = {
    "b1_peak_uT": 6.0,
    "b1_rms_uT": 2.0,
    "total_time_s": 9.0,
    "offsets_ppm": [1.0, 5.0],
    "saturation_time_s": [0.1, 3.0],
    "minima": {"recovery_time_s": 0.05, "readout_flip_angle_deg": 10},
    "maxima": {"recovery_time_s": 2.0, "readout_flip_angle_deg": 90},
}


def protocol(**changes) -> Protocol:
    values = {
        "offsets_ppm": torch.linspace(2.0, 4.0, 6, dtype=torch.float64),
        "b1_uT": torch.linspace(0.5, 3.0, 6, dtype=torch.float64),
        "saturation_time_s": 0.8,
        "recovery_time_s": 0.5,
        "readout_flip_angle_deg": 60.0,
        "readout_pulse_s": 0.01,
        "post_delay_s": 0.005,
        "magnetisation_carried_over": True,
        "signal_normalisation": "l2",
    }
    return Protocol(9.4, **{**values, **changes})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=30, max_size=30), st.sampled_from([0.01, 0.3, 1.0]))
def test_every_limit_holds_for_any_parameters(numbers: list[float], size: float) -> None:
    schedule = TrainableSchedule(protocol(), TRAINABLE, LIMITS)
    with torch.no_grad():
        rows = torch.tensor(numbers, dtype=torch.float64).reshape(5, 6)
        for row, raw in zip(rows, schedule.raw.values(), strict=True):
            raw.copy_(size * row)
        found = schedule.protocol()
    assert schedule.limits.violations(found, tolerance=1e-12) == []
    assert Limits.from_dict(LIMITS).violations(playable(found, schedule.limits, schedule.trained), tolerance=1e-9) == []


def test_rounding_for_a_scanner_leaves_untrained_values_and_the_echo() -> None:
    start = protocol(recovery_time_s=0.02055, echo_time_s=0.02055, offsets_ppm=torch.linspace(2.00004, 4, 6))
    for trainable in ({"b1_uT": True}, {"recovery_time_s": True}):
        schedule = TrainableSchedule(start, trainable, {"recovery_time_s": [0.01, 0.03]})
        with torch.no_grad():
            for raw in schedule.raw.values():
                raw -= 10.0  # as low as it can be
            found = playable(schedule.protocol(), schedule.limits, schedule.trained)
        assert found.recovery_time_s.tolist() == [0.02055] * 6
        assert found.offsets_ppm.tolist() == start.offsets_ppm.tolist()


def test_rounding_for_a_scanner_keeps_the_average_power_by_the_trained_powers_alone() -> None:
    start = protocol(b1_uT=torch.tensor([1.99999, 2, 3, 3, 2, 1], dtype=torch.float64), recovery_time_s=0.05009)
    limits = Limits.from_dict({"b1_rms_uT": float(b1_rms_uT(start))})
    trained = {"b1_uT": torch.arange(6) > 0, "recovery_time_s": torch.ones(6, dtype=torch.bool)}
    found = playable(start, limits.for_protocol(start), trained)
    assert float(found.b1_uT[0]) == 1.99999
    assert float(b1_rms_uT(found)) <= limits.b1_rms_uT


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12))
def test_minima_and_fixed_powers_count_towards_the_average_power(numbers: list[float]) -> None:
    limits = {"b1_peak_uT": 6.0, "b1_rms_uT": 2.2, "b1_uT": [1.0, 6.0], "saturation_time_s": [0.1, 1.0]}
    start = protocol(b1_uT=torch.tensor([1.0, 2.0, 3.0, 3.0, 2.0, 1.9], dtype=torch.float64))
    schedule = TrainableSchedule(start, {"b1_uT": {"fixed": [5]}, "saturation_time_s": True}, limits)
    raw = torch.tensor(numbers, dtype=torch.float64)
    with torch.no_grad():
        schedule.raw["b1_uT"].copy_(raw[:5])
        schedule.raw["saturation_time_s"].copy_(raw[5:11])
        found = schedule.protocol()
    assert float(b1_rms_uT(found)) <= 2.2
    assert float(found.b1_uT.min()) >= 1.0
    assert float(found.b1_uT[5]) == 1.9


def test_a_schedule_within_its_limits_starts_as_it_is_given() -> None:
    schedule = TrainableSchedule(protocol(), TRAINABLE, LIMITS)
    for name in TRAINABLE:
        torch.testing.assert_close(getattr(schedule.start, name), getattr(protocol(), name), rtol=0.01, atol=0.001)


def test_a_schedule_beyond_its_limits_starts_inside_near_them() -> None:
    schedule = TrainableSchedule(protocol(saturation_time_s=2.0), TRAINABLE, LIMITS)
    assert 0.9 * 9.0 < float(scan_time_s(schedule.start)) < 9.0


def test_bounds_without_a_name_hold_only_where_a_quantity_is_trained() -> None:
    offsets = torch.tensor([50.0, 3.0, 3.5, 2.0, 4.0, -20.0], dtype=torch.float64)
    start = protocol(offsets_ppm=offsets, b1_uT=torch.tensor([7.0, 1, 2, 3, 2, 7], dtype=torch.float64))
    schedule = TrainableSchedule(start, {"b1_uT": {"fixed": [0]}}, {})
    assert schedule.start.offsets_ppm.tolist() == offsets.tolist()
    assert float(schedule.start.b1_uT[0]) == 7.0
    assert float(schedule.start.b1_uT[5]) < 6.0
    assert schedule.limits.violations(start, trained=schedule.trained) == ["b1_uT runs from 1 to 7, outside 0 to 6"]
    still = TrainableSchedule(start, {"b1_uT": {"fixed": [0, 5]}}, {})
    assert still.limits.violations(start, trained=still.trained) == []


def test_tied_measurements_move_together_and_fixed_ones_stay() -> None:
    ties = {"offsets_ppm": {"tie": [0, 0, 1, 1, 2, 2]}, "saturation_time_s": {"tie": "all"}, "b1_uT": {"fixed": [0, 3]}}
    schedule = TrainableSchedule(protocol(), ties, {"b1_peak_uT": 6})
    assert {name: len(raw) for name, raw in schedule.raw.items()} == {
        "offsets_ppm": 3,
        "saturation_time_s": 1,
        "b1_uT": 4,
    }
    with torch.no_grad():
        for raw in schedule.raw.values():
            raw += 0.02 * torch.arange(1.0, len(raw) + 1)
    found = schedule.protocol()
    assert found.offsets_ppm.detach()[0] == found.offsets_ppm.detach()[1] != schedule.start.offsets_ppm[0]
    assert len(set(found.saturation_time_s.tolist())) == 1
    assert found.b1_uT.tolist()[0] == 0.5
    assert found.b1_uT.tolist()[3] == pytest.approx(2.0)


def test_m0_measurements_keep_their_values_without_being_named_as_fixed() -> None:
    offsets = torch.tensor([-300.0, 2, 2.5, 3, 3.5, 4], dtype=torch.float64)
    powers = torch.tensor([0.0, 1, 2, 3, 2, 1], dtype=torch.float64)
    start = protocol(offsets_ppm=offsets, b1_uT=powers, m0_measurements=(1,))
    schedule = TrainableSchedule(start, {"offsets_ppm": True, "b1_uT": True, "saturation_time_s": {"tie": "all"}}, {})
    assert schedule.limits.violations(start, trained=schedule.trained) == []
    with torch.no_grad():
        for raw in schedule.raw.values():
            raw += 0.02
        found = schedule.protocol()
    assert (float(found.offsets_ppm[0]), float(found.b1_uT[0]), float(found.saturation_time_s[0])) == (-300.0, 0.0, 0.8)
    assert bool((found.b1_uT[1:] > powers[1:]).all())
    assert len(set(found.saturation_time_s[1:].tolist())) == 1


def m0_between(**changes) -> Protocol:
    """A protocol whose fourth measurement is M0, before which magnetisation recovers for long."""
    return protocol(
        offsets_ppm=torch.tensor([2.0, 2.5, 3, -300, 3.5, 4], dtype=torch.float64),
        b1_uT=torch.tensor([1.0, 2, 3, 0, 2, 1], dtype=torch.float64),
        recovery_time_s=torch.tensor([1.0, 1, 10, 2, 1, 1], dtype=torch.float64),
        m0_measurements=(4,),
        **changes,
    )


def test_magnetisation_that_is_carried_over_recovers_for_as_long_as_given_before_m0() -> None:
    schedule = TrainableSchedule(m0_between(), ["recovery_time_s", "b1_uT"], {"total_time_s": 21})
    assert schedule.trained["recovery_time_s"].tolist() == [True, True, False, False, True, True]
    assert schedule.trained["b1_uT"].tolist() == [True, True, True, False, True, True]
    with torch.no_grad():
        for raw in schedule.raw.values():
            raw -= 1.0
    assert schedule.protocol().recovery_time_s.tolist()[2:4] == [10.0, 2.0]


def test_the_recovery_before_m0_need_not_keep_the_bounds_of_the_others() -> None:
    schedule = TrainableSchedule(m0_between(), ["recovery_time_s"], {"recovery_time_s": [0.05, 3.0]})
    assert schedule.start.recovery_time_s.tolist()[2] == 10.0


def test_where_every_recovery_belongs_to_m0_none_can_be_trained() -> None:
    alternating = protocol(m0_measurements=(2, 4, 6))
    with pytest.raises(ValueError, match="every measurement of recovery_time_s is fixed; M0 measurements, and the rec"):
        TrainableSchedule(alternating, ["recovery_time_s"])


def test_gradients_reach_every_parameter_and_are_exact() -> None:
    schedule = TrainableSchedule(protocol(), TRAINABLE, LIMITS)
    weights = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)

    def mixture(*raws: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(
            _Values(schedule), {f"schedule.raw.{n}": r for n, r in zip(schedule.raw, raws, strict=True)}, ()
        )
        return torch.stack([(w * found[n]).sum() for w, n in zip(weights, TRAINABLE, strict=True)])

    raws = [raw.detach().clone().requires_grad_() for raw in schedule.raw.values()]
    assert torch.autograd.gradcheck(mixture, raws, eps=1e-7, atol=1e-5)
    gradients = torch.autograd.grad(mixture(*raws).sum(), raws)
    assert all(bool((g != 0).all()) for g in gradients)


class _Values(torch.nn.Module):
    def __init__(self, schedule: TrainableSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self) -> dict[str, torch.Tensor]:
        return self.schedule.values()


def test_the_peak_limit_holds_for_the_peak_of_a_shaped_pulse() -> None:
    train = PulseTrain(10, 0.05, 0.05, PulseShape.named("gaussian"))
    pulsed = protocol(pulses=train, saturation_time_s=train.total_time_s, b1_uT=1.0)
    schedule = TrainableSchedule(pulsed, ["b1_uT"], {"b1_peak_uT": 5.0})
    with torch.no_grad():
        schedule.raw["b1_uT"].fill_(10.0)
    highest = float(schedule.protocol().b1_uT.detach().max()) / train.rms_of_unit_peak
    assert highest * float(train.shape.amplitude.max()) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("trainable", "limits", "sentence"),
    [
        (["saturation_time_s"], {"total_time_s": 2.0}, r"total_time_s is 2 s but 6 measurements take at least 3\.2"),
        (["b1_uT"], {"b1_rms_uT": 0.5, "minima": {"b1_uT": 1.0}}, "b1_rms_uT is 0.5 uT but fixed values or minima"),
        (["offsets_ppm"], {"b1_rms_uT": 0.5}, "b1_rms_uT is 0.5 uT but fixed values"),
        (["b1_uT"], {"b1_peak_uT": 1.0, "minima": {"b1_uT": 2.0}}, "minimum of b1_uT, 2, is not below its maximum, 1"),
        (["b1_uT"], {"b1_peak_uT": -1}, "b1_peak_uT is -1 but must be positive"),
        (["b1_uT"], {"total_time_s": "long"}, "total_time_s is 'long', which is not a number"),
        (["b1_uT"], {"speed": 1}, "unknown keys speed"),
        (
            ["b1_uT"],
            {"saturation_time_s": [0.1, 0.7]},
            r"saturation_time_s runs from 0.8 to 0.8 where it is not trained, outside 0.1 to 0.7; train it, or change",
        ),
        (
            ["b1_uT"],
            {"maxima": {"offsets_ppm": 3.9}},
            "offsets_ppm runs from 2 to 4 where it is not trained, outside -inf",
        ),
        ({"b1_uT": {"fixed": [0]}}, {"minima": {"b1_uT": 0.6}}, "b1_uT runs from 0.5 to 0.5 where it is not trained"),
        (["b1"], {}, "unknown quantities b1"),
        ([], {}, "names no quantity"),
        ({"b1_uT": {"tie": [1, 2]}}, {}, "2 labels for 6 measurements"),
        ({"b1_uT": {"fixed": [9]}}, {}, "counted from 0 to 5"),
        ({"b1_uT": {"fixed": range(6)}}, {}, "every measurement of b1_uT is fixed"),
    ],
)
def test_impossible_limits_are_one_clear_sentence(trainable, limits: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainableSchedule(protocol(), trainable, limits)


@pytest.mark.parametrize(
    "m0",
    [
        {"b1_uT": 0.0, "saturation_time_s": 0.8},
        {"b1_uT": 2.0, "saturation_time_s": 0.0},
        {"b1_uT": 0.2, "saturation_time_s": 0.8, "m0_measurements": (1,)},
    ],
)
def test_a_fixed_m0_measurement_or_one_without_rf_need_not_keep_the_bounds(m0: dict) -> None:
    start = protocol(
        offsets_ppm=torch.tensor([-300.0, 2, 2.5, 3, 3.5, 4], dtype=torch.float64),
        b1_uT=torch.tensor([m0["b1_uT"], 1, 2, 3, 2, 1], dtype=torch.float64),
        saturation_time_s=torch.tensor([m0["saturation_time_s"], *[0.8] * 5], dtype=torch.float64),
        m0_measurements=m0.get("m0_measurements", ()),
    )
    limits = {"offsets_ppm": [1.0, 5.0], "b1_uT": [0.5, 5.0], "saturation_time_s": [0.1, 3.0]}
    schedule = TrainableSchedule(start, {"offsets_ppm": {"fixed": [0]}, "b1_uT": {"fixed": [0]}}, limits)
    assert float(schedule.start.offsets_ppm[0]) == -300.0
    assert float(schedule.start.b1_uT[0]) == m0["b1_uT"]


def test_a_budget_that_is_just_the_minimum_serves_where_no_time_is_trained() -> None:
    minimum = float(scan_time_s(protocol()))
    for limit in (minimum, minimum * (1 - 1e-15)):
        schedule = TrainableSchedule(protocol(), ["b1_uT"], {"total_time_s": limit})
        assert float(scan_time_s(schedule.start)) == pytest.approx(limit)
    with pytest.raises(ValueError, match=r"is 7\.8899 s but 6 measurements take at least 7\.89 s"):
        TrainableSchedule(protocol(), ["b1_uT"], {"total_time_s": minimum - 1e-4})
    with pytest.raises(ValueError, match=r"is 7\.88999999 s but 6 measurements take at least 7\.89 s"):
        TrainableSchedule(protocol(), ["b1_uT"], {"total_time_s": minimum - 1e-8})


def test_a_budget_that_is_just_the_minimum_leaves_no_time_to_train() -> None:
    limits = {"total_time_s": 1.44, "minima": {"saturation_time_s": 0.2, "recovery_time_s": 0.025}}
    with pytest.raises(ValueError, match=r"is 1\.44 s, which is just what 6 measurements take .* raise it, or"):
        TrainableSchedule(protocol(), ["saturation_time_s", "recovery_time_s"], limits)


def test_quantities_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a protocol with an excitation"):
        TrainableSchedule(protocol(readout_flip_angle_deg=None), ["readout_flip_angle_deg"])
    with pytest.raises(ValueError, match="no effect unless magnetisation_carried_over"):
        TrainableSchedule(protocol(magnetisation_carried_over=False), ["recovery_time_s"])


def test_the_average_power_counts_the_recovery_before_the_saturation() -> None:
    """Saturation recovery: 2 uT for 2 s after 3.5 s each time."""
    found = Protocol(3.0, [-3.5, 3.5, 3.0], 2.0, 2.0, initial_magnetisation=0.0, initial_recovery_s=3.5)
    assert float(scan_time_s(found)) == pytest.approx(16.5)
    assert float(b1_rms_uT(found)) == pytest.approx((4 * 2 / 5.5) ** 0.5)


@pytest.mark.parametrize("count", [1, 10])
def test_the_average_power_of_a_train_is_that_of_its_pulses(count: int) -> None:
    """Block pulses of 3 uT for half of the time: one gap more than the train lasts belongs to its mean B1."""
    train = PulseTrain(count, 0.05, 0.05, PulseShape.named("block"))
    found = Protocol(3.0, [3.5], 3.0 * 0.5**0.5, train.total_time_s, pulses=train, recovery_time_s=1.0)
    pulses_uT2_s = 9.0 * count * 0.05
    assert float(b1_rms_uT(found)) == pytest.approx((pulses_uT2_s / (train.total_time_s + 1.0)) ** 0.5)


@pytest.mark.parametrize(
    ("tie", "values", "m0"),
    [
        (["a", "b", "b", "b", "b", "b"], [2.0, 1, 1, 1, 1, 1], ()),
        (["a", "a", "a", "b", "b", "b"], [0.0, 2, 2, 1, 1, 1], (1,)),
    ],
)
def test_groups_of_different_sizes_start_from_the_given_schedule(tie: list[str], values: list[float], m0) -> None:
    given = torch.tensor(values, dtype=torch.float64)
    start = protocol(b1_uT=given, saturation_time_s=given, m0_measurements=m0)
    schedule = TrainableSchedule(start, {"b1_uT": {"tie": tie}, "saturation_time_s": {"tie": tie}}, {})
    assert schedule.start.b1_uT.tolist() == pytest.approx(values, rel=1e-3)
    assert schedule.start.saturation_time_s.tolist() == pytest.approx(values, rel=1e-3)
