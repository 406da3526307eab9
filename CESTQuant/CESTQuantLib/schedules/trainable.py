"""A schedule whose acquisition parameters are trained, and which keeps its limits whatever the parameters are.

Every trained value is its minimum plus a sigmoid share of its range. Times share the budget, and B1 the power that
is allowed on average, by a smooth factor that approaches but never exceeds what is left: nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..physics.protocol import Protocol
from .limits import TIMES, TRAINABLE, Limits, b1_rms_uT, scan_time_s

LOGIT_PER_RAW = 50.0
"""Steepness of the sigmoid, such that RMSprop at 1e-4, which moves a raw parameter by about 1e-4 a step, crosses a
range in some thousand steps."""
SHARPNESS = 12
"""Of the smooth cap: at 80 % of a shared limit it costs 0.6 %, at the limit itself 5.6 %."""
_EDGE = 0.005
_FULLEST = 0.995
_EQUAL = 1e-9
"""Relative difference below which two times are the same but for rounding."""


class TrainableSchedule(nn.Module):
    """A protocol as a function of unconstrained parameters.

        schedule = TrainableSchedule(protocol, ["offsets_ppm", "b1_uT"], {"b1_peak_uT": 6, "total_time_s": 35})
        loss(simulate(tissue, schedule.protocol())).backward()

    protocol: where to start; values at or beyond a limit are moved inside. trainable: names of TRAINABLE, or a mapping
    from name to true or to an object with ``tie`` ("all", or a label per measurement: equal labels share a value)
    and ``fixed`` (indices of measurements that keep their value). limits: see :class:`schedule_limits.Limits`.

    Raises ValueError with one sentence for limits that no schedule can keep.
    """

    def __init__(
        self, protocol: Protocol, trainable: Sequence[str] | Mapping, limits: Limits | Mapping | None = None
    ) -> None:
        super().__init__()
        given = limits if isinstance(limits, Limits) else Limits.from_dict(limits)
        self.limits = given.for_protocol(protocol)
        self.base = _detached(protocol)
        options = _options(trainable, protocol)
        self.raw = nn.ParameterDict()
        for name, option in options.items():
            groups = _groups(name, option, protocol.measurement_count)
            self.register_buffer(f"_group_{name}", groups, persistent=False)
            count = int(groups.max()) + 1
            self.raw[name] = nn.Parameter(torch.zeros(count, dtype=torch.float64))
        _check_feasible(self)
        self._start_from(self.base)
        self.start = _detached(self.protocol())

    @property
    def names(self) -> list[str]:
        """Names of the trained quantities."""
        return list(self.raw.keys())

    @property
    def is_finite(self) -> bool:
        """Whether all raw parameters are numbers."""
        return all(bool(torch.isfinite(raw).all()) for raw in self.raw.values())

    def values(self) -> dict[str, Tensor]:
        """Every trained quantity, (measurement,) float64, with gradients."""
        shares = {name: torch.sigmoid(LOGIT_PER_RAW * raw) for name, raw in self.raw.items()}
        spans = {name: self._span(name, share) for name, share in shares.items()}
        result = {name: self.floor(name) + spans[name] for name in self.names if name not in (*TIMES, "b1_uT")}
        times = [name for name in TIMES if name in spans]
        factor = 1.0
        if times and self.limits.total_time_s is not None:
            factor = smooth_cap(sum(spans[name].sum() for name in times), self.spare_time_s())
        result |= {name: self.floor(name) + factor * spans[name] for name in times}
        if "b1_uT" in spans:
            result["b1_uT"] = self.floor("b1_uT") + self._power_factor(spans["b1_uT"], result) * spans["b1_uT"]
        return result

    def protocol(self) -> Protocol:
        """The protocol; its tensors carry the gradients of the raw parameters."""
        return replace(self.base, **self.values())

    def floor(self, name: str) -> Tensor:
        """(measurement,) lowest value of every measurement: the minimum where it is trained, its value where fixed."""
        value = getattr(self.base, name)
        if name not in self.raw:
            return value
        low = torch.full_like(value, self.limits.bounds[name][0])
        return torch.where(self._groups_of(name) >= 0, low, value)

    def spare_time_s(self) -> float:
        """What the budget leaves beyond the shortest possible schedule."""
        shortest = replace(self.base, **{name: self.floor(name) for name in TIMES})
        return self.limits.total_time_s - float(scan_time_s(shortest))

    def _groups_of(self, name: str) -> Tensor:
        return getattr(self, f"_group_{name}")

    def _span(self, name: str, share: Tensor) -> Tensor:
        """(measurement,) distance from the floor that the sigmoid shares of the groups ask for."""
        groups = self._groups_of(name)
        low, high = self.limits.bounds[name]
        return torch.where(groups >= 0, (high - low) * share[groups.clamp_min(0)], 0.0)

    def _power_factor(self, span: Tensor, times: Mapping[str, Tensor]) -> Tensor | float:
        """By the triangle inequality of the root mean square, floor and scaled span together keep the limit."""
        if self.limits.b1_rms_uT is None:
            return 1.0
        timed = replace(self.base, **{name: times[name] for name in TIMES if name in times})
        room = self.limits.b1_rms_uT - b1_rms_uT(replace(timed, b1_uT=self.floor("b1_uT") + 1e-12))
        return smooth_cap(b1_rms_uT(replace(timed, b1_uT=span + 1e-12)), room)

    @torch.no_grad()
    def _start_from(self, protocol: Protocol) -> None:
        """Raw parameters whose schedule is the given one, or the nearest inside the limits."""
        wanted = {}
        for name in self.names:
            groups = self._groups_of(name)
            span = (getattr(protocol, name) - self.floor(name)).clamp_min(0)
            sums = torch.zeros_like(self.raw[name]).index_add_(0, groups[groups >= 0], span[groups >= 0])
            wanted[name] = sums / torch.bincount(groups[groups >= 0])
        for together in ([n for n in self.names if n in TIMES], [n for n in self.names if n == "b1_uT"]):
            for name in together:
                self._set_share(name, wanted[name])
            # the cap shrinks what the shares ask for: ask for as much more, a few times since the ranges end
            for _ in range(8 if together else 0):
                values = self.values()
                for name in together:
                    got = (values[name] - self.floor(name))[self._groups_of(name) >= 0].mean()
                    ratio = float(wanted[name].mean() / got.clamp_min(1e-12))
                    if ratio > 1.001:
                        low, high = self.limits.bounds[name]
                        share = torch.sigmoid(LOGIT_PER_RAW * self.raw[name])
                        self._set_share(name, share * (high - low) * min(ratio, 1.2))
        for name in self.names:
            if name not in (*TIMES, "b1_uT"):
                self._set_share(name, wanted[name])

    def _set_share(self, name: str, span: Tensor) -> None:
        low, high = self.limits.bounds[name]
        share = (span / (high - low)).clamp(_EDGE, 1 - _EDGE)
        self.raw[name].copy_(torch.logit(share) / LOGIT_PER_RAW)


def smooth_cap(total: Tensor, room: Tensor | float) -> Tensor:
    """Factor f of about min(1, room / total), smooth, with f < 1 and f total < room."""
    return (1 + (total / room) ** SHARPNESS) ** (-1 / SHARPNESS)


def _detached(protocol: Protocol) -> Protocol:
    names = (*TRAINABLE, "post_delay_s")
    values = {n: getattr(protocol, n) for n in names if getattr(protocol, n) is not None}
    return replace(protocol, **{n: v.detach().double().clone() for n, v in values.items()})


def _options(trainable: Sequence[str] | Mapping, protocol: Protocol) -> dict[str, dict]:
    if isinstance(trainable, str):
        trainable = [trainable]
    options = dict(trainable) if isinstance(trainable, Mapping) else dict.fromkeys(trainable, True)
    options = {name: {} if option is True else option for name, option in options.items() if option is not False}
    unknown = sorted(set(options) - set(TRAINABLE))
    if unknown:
        raise ValueError(f"trainable: unknown quantities {', '.join(unknown)}; use {', '.join(TRAINABLE)}")
    if not options:
        raise ValueError(f"trainable names no quantity; use some of {', '.join(TRAINABLE)}")
    for name, option in options.items():
        if not isinstance(option, Mapping) or set(option) - {"tie", "fixed"}:
            raise ValueError(f"trainable: {name} is true or an object with the keys tie and fixed")
    if "readout_flip_angle_deg" in options and protocol.readout_flip_angle_deg is None:
        raise ValueError("trainable: readout_flip_angle_deg needs a protocol with an excitation, this one has none")
    if "recovery_time_s" in options and not protocol.magnetisation_carried_over:
        raise ValueError("trainable: recovery_time_s has no effect unless magnetisation_carried_over is true")
    if "saturation_time_s" in options and protocol.pulses is not None:
        raise ValueError("trainable: the saturation_time_s of a pulse train follows from its pulses")
    return options


def _groups(name: str, option: Mapping, count: int) -> Tensor:
    """(measurement,) index of the parameter of every measurement, -1 where it is fixed."""
    tie = option.get("tie", list(range(count)))
    labels = ["all"] * count if tie == "all" else list(tie)
    if len(labels) != count:
        raise ValueError(f"trainable: the tie of {name} has {len(labels)} labels for {count} measurements")
    fixed = {int(index) for index in option.get("fixed", [])}
    if any(not 0 <= index < count for index in fixed):
        raise ValueError(f"trainable: fixed measurements of {name} are counted from 0 to {count - 1}")
    order: dict = {}
    groups = [-1 if m in fixed else order.setdefault(str(label), len(order)) for m, label in enumerate(labels)]
    if not order:
        raise ValueError(f"trainable: every measurement of {name} is fixed")
    return torch.tensor(groups)


def _check_time(schedule: TrainableSchedule, limit: float) -> None:
    """A budget must hold the shortest schedule, and leave something over where times are trained."""
    spare, count = schedule.spare_time_s(), schedule.base.measurement_count
    if abs(spare) <= _EQUAL * limit:
        if any(name in schedule.raw for name in TIMES):
            raise ValueError(
                f"limits: total_time_s is {limit:.9g} s, which is just what {count} measurements take with these "
                "minima and fixed times, so no time is left to train; raise it, or train no times"
            )
    elif spare < 0:
        raise ValueError(
            f"limits: total_time_s is {limit:.9g} s but {count} measurements take at least {limit - spare:.9g} s "
            "with these minima and fixed times"
        )


def _check_feasible(schedule: TrainableSchedule) -> None:
    limits, base = schedule.limits, schedule.base
    if limits.total_time_s is not None:
        _check_time(schedule, limits.total_time_s)
    floor = schedule.floor("b1_uT")
    if limits.b1_peak_uT is not None and float(floor.max()) > limits.bounds["b1_uT"][1] * (1 + 1e-9):
        raise ValueError(f"limits: a fixed b1_uT of {float(floor.max()):g} exceeds b1_peak_uT")
    if limits.b1_rms_uT is None:
        return
    longest = {n: limits.bounds[n][1] if n in schedule.raw else schedule.floor(n) for n in TIMES}
    least_pause = replace(
        base, saturation_time_s=longest["saturation_time_s"], recovery_time_s=schedule.floor("recovery_time_s")
    )
    constant = "saturation_time_s" not in schedule.raw
    worst = b1_rms_uT(replace(least_pause, b1_uT=floor if constant else floor.max()))
    if float(worst) >= limits.b1_rms_uT:
        raise ValueError(
            f"limits: b1_rms_uT is {limits.b1_rms_uT:g} uT but fixed values or minima alone reach {float(worst):g} uT"
        )
