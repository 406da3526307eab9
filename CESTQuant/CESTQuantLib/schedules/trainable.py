"""A schedule whose acquisition parameters are trained, and which keeps its limits for any values of its parameters.

Every trained value is its minimum plus a sigmoid share of its range. Times share the scan time, and B1 shares the
average power that is allowed, by a smooth factor that approaches but never exceeds what is left: nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from ..physics.protocol import Protocol
from .limits import TIMES, TRAINABLE, Limits, b1_rms_uT, scan_time_s, with_quantities
from .quantities import kept_for_m0, trained_quantities

LOGIT_PER_RAW = 50.0
"""Steepness of the sigmoid. RMSprop at a rate of 1e-4 moves a raw parameter by about 1e-4 in a step, so that it crosses
a range in some thousand steps."""
SHARPNESS = 12
"""Exponent of the smooth cap: at 80 % of a shared limit it costs 0.6 %, at the limit itself 5.6 %."""
_EDGE = 0.005
"""Distance of the initial sigmoid shares from 0 and 1, where there would be no gradient."""
_EQUAL = 1e-9
"""Relative difference up to which two times differ by rounding alone."""
_SEARCHES = 8


class Moment(TypedDict, total=False):
    """A recorded moment of the optimisation of a schedule; the keys are those of ``report.json``.

    Attributes:
        phase: ``start``, or the objective that is being optimised.
        step: Step of the phase, or epoch of a joint training.
        loss: Value of the objective.
        schedule: Values of every trained quantity by name.
    """

    phase: str
    step: int
    loss: float
    schedule: dict[str, list[float]]


class TrainableSchedule(nn.Module):
    """A protocol as a function of unconstrained parameters.

        schedule = TrainableSchedule(protocol, ["offsets_ppm", "b1_uT"], {"b1_peak_uT": 6, "total_time_s": 35})
        loss(simulate(tissue, schedule.protocol())).backward()

    Args:
        protocol: Where to start; values at or beyond a limit are moved inside.
        trainable: Names of ``TRAINABLE``, or a mapping from name to true or to an object with ``tie`` and ``fixed``;
            see :class:`quantities.TrainedQuantity`.
        limits: Limits, or the values of a configuration's ``limits``.

    Attributes:
        limits: Limits as they apply to the protocol.
        base: Protocol without gradients that the trained quantities replace values of.
        start: Schedule at its start, inside the limits.
        raw: Unconstrained parameters of every trained quantity by name.

    Raises:
        ValueError: No schedule can keep the limits, or a quantity cannot be trained.
    """

    def __init__(
        self, protocol: Protocol, trainable: Sequence[str] | Mapping[str, Any], limits: Limits | Any = None
    ) -> None:
        super().__init__()
        given = limits if isinstance(limits, Limits) else Limits.from_dict(limits)
        self.limits = given.for_protocol(protocol)
        self.base = _detached(protocol)
        self.raw = nn.ParameterDict()
        for name, quantity in trained_quantities(trainable, protocol).items():
            groups = quantity.groups(name, protocol.measurement_count)
            self.register_buffer(f"_group_{name}", groups, persistent=False)
            self.raw[name] = nn.Parameter(torch.zeros(int(groups.max()) + 1, dtype=torch.float64))
        _require_feasible(self)
        self._start_from(self.base)
        self.start = _detached(self.protocol())

    @property
    def names(self) -> list[str]:
        """Names of the trained quantities."""
        return list(self.raw.keys())

    @property
    def trained(self) -> dict[str, Tensor]:
        """Measurements (measurement,), boolean, whose value is trained, by the name of the quantity."""
        return {name: self._groups_of(name) >= 0 for name in self.names}

    @property
    def is_finite(self) -> bool:
        """Whether all raw parameters are numbers."""
        return all(bool(torch.isfinite(raw).all()) for raw in self.raw.values())

    def values(self) -> dict[str, Tensor]:
        """Return every trained quantity by name, (measurement,) float64, with gradients."""
        shares = {name: torch.sigmoid(LOGIT_PER_RAW * raw) for name, raw in self.raw.items()}
        spans = {name: self._span(name, share) for name, share in shares.items()}
        result = {name: self.floor(name) + spans[name] for name in self.names if name not in (*TIMES, "b1_uT")}
        times = {name: spans[name] for name in TIMES if name in spans}
        if times:
            factor = self._time_factor(times)
            result |= {name: self.floor(name) + factor * span for name, span in times.items()}
        if "b1_uT" in spans:
            result["b1_uT"] = self.floor("b1_uT") + self._power_factor(spans["b1_uT"], result) * spans["b1_uT"]
        return result

    def plain_values(self) -> dict[str, list[float]]:
        """Return every trained quantity by name as a list of numbers, one per measurement."""
        return {name: value.detach().tolist() for name, value in self.values().items()}

    def protocol(self) -> Protocol:
        """Return the protocol; its tensors carry the gradients of the raw parameters."""
        return with_quantities(self.base, self.values())

    def floor(self, name: str) -> Tensor:
        """Return the lowest value of every measurement, (measurement,): the minimum, or the value where it is fixed."""
        value = getattr(self.base, name)
        if name not in self.raw:
            return value
        low = torch.full_like(value, self.limits.bounds[name][0])
        return torch.where(self._groups_of(name) >= 0, low, value)

    def shortest_time_s(self) -> float:
        """Return the scan time in s of the shortest schedule that keeps the minima and fixed times."""
        return float(scan_time_s(with_quantities(self.base, {name: self.floor(name) for name in TIMES})))

    def _groups_of(self, name: str) -> Tensor:
        return getattr(self, f"_group_{name}")

    def _span(self, name: str, share: Tensor) -> Tensor:
        """Distance from the floor, (measurement,), that the sigmoid shares of the groups ask for."""
        groups = self._groups_of(name)
        low, high = self.limits.bounds[name]
        return torch.where(groups >= 0, (high - low) * share[groups.clamp_min(0)], 0.0)

    def _time_factor(self, spans: Mapping[str, Tensor]) -> Tensor | float:
        """Factor by which the trained times are shortened to fit into the scan time."""
        if self.limits.total_time_s is None:
            return 1.0
        wanted = torch.stack([span.sum() for span in spans.values()]).sum()
        return smooth_cap(wanted, self.limits.total_time_s - self.shortest_time_s())

    def _power_factor(self, span: Tensor, times: Mapping[str, Tensor]) -> Tensor | float:
        """Factor by which B1 is lowered to keep the average power.

        By the triangle inequality of the root mean square, floor and scaled span together keep the limit.
        """
        if self.limits.b1_rms_uT is None:
            return 1.0
        timed = with_quantities(self.base, {name: times[name] for name in TIMES if name in times})
        floor = with_quantities(timed, {"b1_uT": self.floor("b1_uT") + 1e-12})
        room = self.limits.b1_rms_uT - b1_rms_uT(floor)
        return smooth_cap(b1_rms_uT(with_quantities(timed, {"b1_uT": span + 1e-12})), room)

    @torch.no_grad()
    def _start_from(self, protocol: Protocol) -> None:
        """Set raw parameters whose schedule is the given one, or the nearest inside the limits."""
        wanted = {}
        for name in self.names:
            groups = self._groups_of(name)
            span = (getattr(protocol, name) - self.floor(name)).clamp_min(0)
            sums = torch.zeros_like(self.raw[name]).index_add_(0, groups[groups >= 0], span[groups >= 0])
            wanted[name] = sums / torch.bincount(groups[groups >= 0])
        for name in self.names:
            self._set_share(name, wanted[name])
        for together in ([n for n in self.names if n in TIMES], [n for n in self.names if n == "b1_uT"]):
            self._undo_cap(together, wanted)

    def _undo_cap(self, together: Sequence[str], wanted: Mapping[str, Tensor]) -> None:
        """Ask for more of quantities that share a limit, since the cap shrinks what the shares ask for.

        Several times, because the shares end at their ranges.
        """
        for _ in range(_SEARCHES if together else 0):
            values = self.values()
            for name in together:
                groups = self._groups_of(name)
                trained = groups >= 0
                got = (values[name] - self.floor(name))[trained].mean()
                ratio = float(wanted[name][groups[trained]].mean() / got.clamp_min(1e-12))
                if ratio > 1.001:
                    low, high = self.limits.bounds[name]
                    share = torch.sigmoid(LOGIT_PER_RAW * self.raw[name])
                    self._set_share(name, share * (high - low) * min(ratio, 1.2))

    def _set_share(self, name: str, span: Tensor) -> None:
        low, high = self.limits.bounds[name]
        share = (span / (high - low)).clamp(_EDGE, 1 - _EDGE)
        self.raw[name].copy_(torch.logit(share) / LOGIT_PER_RAW)


def smooth_cap(total: Tensor, room: Tensor | float) -> Tensor:
    """Return a factor f of about min(1, room / total) that is smooth, with f < 1 and f total < room."""
    return (1 + (total / room) ** SHARPNESS) ** (-1 / SHARPNESS)


def _detached(protocol: Protocol) -> Protocol:
    values = {name: getattr(protocol, name) for name in (*TRAINABLE, "post_delay_s")}
    return with_quantities(
        protocol, {name: value.detach().double().clone() for name, value in values.items() if value is not None}
    )


def _require_feasible(schedule: TrainableSchedule) -> None:
    """Check that some schedule keeps the limits.

    Raises:
        ValueError: None does.
    """
    _require_untrained_within_limits(schedule)
    _require_feasible_time(schedule)
    limits, floor = schedule.limits, schedule.floor("b1_uT")
    if limits.b1_peak_uT is not None and float(floor.max()) > limits.bounds["b1_uT"][1] * (1 + 1e-9):
        raise ValueError(f"limits: a fixed b1_uT of {float(floor.max()):g} exceeds b1_peak_uT")
    if limits.b1_rms_uT is None:
        return
    worst = _highest_unavoidable_rms_uT(schedule, floor)
    if worst >= limits.b1_rms_uT:
        raise ValueError(
            f"limits: b1_rms_uT is {limits.b1_rms_uT:g} uT but fixed values or minima alone reach {worst:g} uT"
        )


def _require_untrained_within_limits(schedule: TrainableSchedule) -> None:
    """Check that values that are not trained keep the bounds that were given for them.

    The bounds are those of saturated measurements: an M0 measurement, or another one without RF, need not keep them,
    nor need the recovery that belongs to M0.
    """
    trained = schedule.trained
    for name, (low, high) in schedule.limits.given.items():
        value = getattr(schedule.base, name)
        if value is None:
            continue
        bounded = _has_rf(schedule.base)
        bounded[list(kept_for_m0(name, schedule.base))] = False
        value = value[bounded & ~trained[name] if name in trained else bounded]
        slack = _EQUAL * (1 + value.abs())
        if bool(((value < low - slack) | (value > high + slack)).any()):
            raise ValueError(
                f"limits: {name} runs from {float(value.min()):g} to {float(value.max()):g} where it is not trained, "
                f"outside {low:g} to {high:g}; train it, or change the protocol or the limit"
            )


def _has_rf(protocol: Protocol) -> Tensor:
    """Measurements (measurement,), boolean, with RF in their saturation."""
    return (protocol.b1_uT > 0) & (protocol.saturation_time_s > 0)


def _require_feasible_time(schedule: TrainableSchedule) -> None:
    """Check that the scan time suffices for the shortest schedule, and leaves some time where times are trained."""
    limit = schedule.limits.total_time_s
    if limit is None:
        return
    shortest, count = schedule.shortest_time_s(), schedule.base.measurement_count
    spare = limit - shortest
    if abs(spare) <= _EQUAL * limit:
        if any(name in schedule.raw for name in TIMES):
            raise ValueError(
                f"limits: total_time_s is {limit:.9g} s, which is just what {count} measurements take with these "
                "minima and fixed times, so no time is left to train; raise it, or train no times"
            )
    elif spare < 0:
        raise ValueError(
            f"limits: total_time_s is {limit:.9g} s but {count} measurements take at least {shortest:.9g} s "
            "with these minima and fixed times"
        )


def _highest_unavoidable_rms_uT(schedule: TrainableSchedule, floor: Tensor) -> float:
    """Highest average power, in uT, that fixed values and minima can reach with the longest saturation."""
    trained_time = "saturation_time_s" in schedule.raw
    saturation = schedule.floor("saturation_time_s")
    worst = {
        "saturation_time_s": torch.full_like(saturation, schedule.limits.bounds["saturation_time_s"][1])
        if trained_time
        else saturation,
        "recovery_time_s": schedule.floor("recovery_time_s"),
        "b1_uT": torch.full_like(floor, float(floor.max())) if trained_time else floor,
    }
    return float(b1_rms_uT(with_quantities(schedule.base, worst)))
