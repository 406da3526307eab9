"""Acquisition protocol: what the scanner did for every measurement of a saturation-transfer study."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import numbers
from NeuroCESTLib.core.messages.input_errors import InputError

from .events import Events
from .pulse_shapes import PulseTrain
from .units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm, rad_per_s_per_ppm_from_larmor

__all__ = ["NORMALIZATIONS", "PER_MEASUREMENT", "SATURATION_TYPES", "Protocol", "PulseTrain"]

SATURATION_TYPES = ("cw", "pulse_train")
NORMALIZATIONS = ("m0", "l2", "none")
PER_MEASUREMENT = (
    "offsets_ppm",
    "b1_uT",
    "saturation_time_s",
    "post_delay_s",
    "recovery_time_s",
    "readout_flip_angle_deg",
    "initial_recovery_s",
)
"""Quantities of a protocol that have one value per measurement."""
DUTY_CYCLE_TOLERANCE = 0.01
"""Difference between the duty cycles of measurements that is due to the rounding of their times."""
SAME_TRAIN = 0.01
"""Relative difference up to which a rounded duty cycle or saturation time is that of the pulses."""
_SMALLEST_SINE = 1e-6
"""Sine of the smallest flip angle that is an excitation; that of 180 degrees is 1e-16, in float32 1e-7."""
_NOT_NEGATIVE = ("b1_uT", "saturation_time_s", "post_delay_s", "recovery_time_s", "initial_recovery_s")
_TIMES_THAT_MAY_BE_ABSENT = ("post_delay_s", "recovery_time_s", "initial_recovery_s")


def _no_time() -> Tensor:
    return torch.zeros(1, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Protocol:
    """A saturation-transfer protocol.

    Quantities per measurement may be given as one number for all measurements, as a list or as a tensor. They become
    tensors of shape (measurement,), which keep their dtype and gradients; everything else becomes float64. A protocol
    is equal to itself only, as tensors are.

    Attributes:
        field_strength_T: Static field in T.
        offsets_ppm: RF offset from water in ppm, positive towards higher ppm, (measurement,).
        b1_uT: RF amplitude in uT, (measurement,): that of a CW block, or the root mean square over the pulses of a
            train and the gaps between them (continuous-wave power equivalent).
        saturation_time_s: Duration of the saturation in s, (measurement,); that of a train is the ``total_time_s`` of
            its pulses.
        pulses: Pulse train; None for CW.
        post_delay_s: Free evolution between saturation and readout in s, (measurement,).
        recovery_time_s: Time in s from the end of the excitation (or from the sample, without excitation) to the next
            saturation, (measurement,). It matters only where the magnetisation is carried over.
        readout_flip_angle_deg: Flip angle of the excitation in degrees, (measurement,); None where the longitudinal
            magnetisation is sampled without an excitation. Where the signals are relative to M0, none may be 0.
        readout_pulse_s: Duration in s of a real block pulse, after which nothing is spoiled and the signal is the
            transverse water magnetisation at the echo; 0 for an ideal spoiled excitation.
        echo_time_s: Time in s from the end of the readout pulse to the echo.
        magnetisation_carried_over: Whether a measurement starts from what the last one left; otherwise every
            measurement starts afresh.
        initial_magnetisation: Share of the equilibrium magnetisation of all pools with which every measurement (with
            carried-over magnetisation: the first) starts.
        initial_recovery_s: Free evolution in s between this start and the saturation, (measurement,); a part of the
            recovery of the measurement before, which lasts at least as long.
        signal_normalisation: ``"m0"`` (relative to the same readout at equilibrium), ``"l2"`` (norm 1 over the
            measurements) or ``"none"``.
        m0_measurements: Numbers, counted from 1, of the measurements that are the M0 reference of the others; empty
            where the protocol does not say which.
        larmor_frequency_MHz: Measured Larmor frequency in MHz, which replaces the nominal field in conversions of ppm;
            None where it is unknown.
        gamma_rad_per_s_per_uT: Gyromagnetic ratio in rad/(s uT).
        events: Everything that is played, for preparations that are neither CW blocks nor trains of equal pulses; the
            quantities above then describe it. The offset is the one at which is played longest, and B1 the root mean
            square from the start of the first pulse to the end of the last. None where the quantities above say
            everything.
        unknown: Names of the quantities that the file leaves open (null). They are 0 here, which suffices for contrasts
            and Lorentzian fits; physical methods refuse them with :meth:`require_known`.

    Raises:
        ValueError: A value is missing, not finite, out of its range, or has another number of values than offsets_ppm,
            the duration of the saturation is not that of the pulse train, or a flip angle excites nothing.
    """

    field_strength_T: float
    offsets_ppm: Tensor
    b1_uT: Tensor
    saturation_time_s: Tensor
    pulses: PulseTrain | None = None
    post_delay_s: Tensor = field(default_factory=_no_time)
    recovery_time_s: Tensor = field(default_factory=_no_time)
    readout_flip_angle_deg: Tensor | None = None
    readout_pulse_s: float = 0.0
    echo_time_s: float = 0.0
    magnetisation_carried_over: bool = False
    initial_magnetisation: float = 1.0
    initial_recovery_s: Tensor = field(default_factory=_no_time)
    signal_normalisation: str = "m0"
    m0_measurements: tuple[int, ...] = ()
    larmor_frequency_MHz: float | None = None
    gamma_rad_per_s_per_uT: float = GAMMA_RAD_PER_S_PER_UT
    events: Events | None = None
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        offsets = numbers(self.offsets_ppm, "offsets_ppm")
        object.__setattr__(self, "offsets_ppm", offsets)
        for name in PER_MEASUREMENT[1:]:
            value = getattr(self, name)
            if value is None and name in _TIMES_THAT_MAY_BE_ABSENT:
                value = 0.0
            if value is not None or name != "readout_flip_angle_deg":
                object.__setattr__(self, name, _one_per_measurement(value, name, len(offsets)))
        chosen = self.m0_measurements
        several = (chosen,) if isinstance(chosen, Integral) else chosen
        object.__setattr__(self, "m0_measurements", tuple(operator.index(number) for number in several))
        _validate(self)

    @property
    def measurement_count(self) -> int:
        """Number of measurements."""
        return len(self.offsets_ppm)

    @property
    def rad_per_s_per_ppm(self) -> float:
        """Angular frequency of one ppm in rad/s, from the measured Larmor frequency where it is known."""
        if self.larmor_frequency_MHz is not None:
            return rad_per_s_per_ppm_from_larmor(self.larmor_frequency_MHz)
        return rad_per_s_per_ppm(self.field_strength_T, self.gamma_rad_per_s_per_uT)

    @property
    def w1_rad_per_s(self) -> Tensor:
        """Nominal RF amplitude in rad/s, (measurement,)."""
        return self.gamma_rad_per_s_per_uT * self.b1_uT

    @property
    def lead_in_s(self) -> Tensor:
        """Free time in s before every saturation which is that of its start, (measurement,).

        Where the magnetisation is carried over, only the first measurement has one.
        """
        if not self.magnetisation_carried_over:
            return self.initial_recovery_s
        first = torch.arange(self.measurement_count, device=self.initial_recovery_s.device) == 0
        return torch.where(first, self.initial_recovery_s, 0.0)

    @property
    def duty_cycle(self) -> float:
        """Fraction of the saturation during which RF is on (1 for CW).

        Raises:
            ValueError: The measurements play trains of different duty cycles.
        """
        if self.events is None:
            return 1.0 if self.pulses is None else self.pulses.duty_cycle
        played = [self.events.duty_cycle(m) for m in range(self.measurement_count)]
        known = [duty for duty in played if duty is not None]
        if not known:
            return 1.0
        if max(known) - min(known) > DUTY_CYCLE_TOLERANCE:
            raise InputError(
                "protocol",
                f"the duty cycle of the saturation varies between the measurements ({min(known):.3g} to "
                f"{max(known):.3g})",
            )
        return math.fsum(known) / len(known)

    def require_known(self, what: str) -> None:
        """Check that the protocol says everything that the saturation is simulated from.

        Args:
            what: What needs it, such as the name of a method, for the message.

        Raises:
            ValueError: A quantity is open or there is no saturation; the message names what is to be filled in.
        """
        if self.unknown:
            verb = "is" if len(self.unknown) == 1 else "are"
            raise InputError(
                "protocol",
                f"{' and '.join(self.unknown)} {verb} null in the protocol: fill in the values that {what} needs",
            )
        if not bool((self.saturation_time_s > 0).any()):
            raise InputError(
                "protocol", f"the protocol gives no saturation time and B1; {what} needs a protocol.json or .seq"
            )

    def tensors(self) -> list[Tensor]:
        """Return the quantities per measurement that are set."""
        values = (getattr(self, name) for name in PER_MEASUREMENT)
        return [value for value in values if value is not None]

    def select(self, index: Tensor | slice) -> Protocol:
        """Return the protocol of some measurements: indices, a boolean mask of shape (measurement,), or a slice."""
        events = None if self.events is None else self.events.select(index)
        selected = self._changed(lambda value: value[index], events)
        kept = torch.arange(1, self.measurement_count + 1)[index].tolist()
        numbers_of_m0 = tuple(place for place, number in enumerate(kept, start=1) if number in self.m0_measurements)
        return replace(selected, m0_measurements=numbers_of_m0)

    def to(self, device: torch.device | str) -> Protocol:
        """Return the protocol with its tensors on a device."""
        moved = self._changed(lambda value: value.to(device), self.events)
        return replace(moved, m0_measurements=self.m0_measurements)

    def _changed(self, change: Callable[[Tensor], Tensor], events: Events | None) -> Protocol:
        """The protocol with other events, and every quantity per measurement changed in the same way."""
        angles = self.readout_flip_angle_deg
        return replace(
            self,
            offsets_ppm=change(self.offsets_ppm),
            b1_uT=change(self.b1_uT),
            saturation_time_s=change(self.saturation_time_s),
            post_delay_s=change(self.post_delay_s),
            recovery_time_s=change(self.recovery_time_s),
            readout_flip_angle_deg=None if angles is None else change(angles),
            initial_recovery_s=change(self.initial_recovery_s),
            m0_measurements=(),
            events=events,
        )


def _one_per_measurement(value: object, name: str, count: int) -> Tensor:
    tensor = numbers(value, name)
    if len(tensor) == 1:
        return tensor.expand(count)
    if len(tensor) != count:
        raise ValueError(f"{name} has {len(tensor)} values but offsets_ppm has {count}; give one value or {count}")
    return tensor


def _validate(protocol: Protocol) -> None:
    if protocol.events is not None and len(protocol.events.measurements) != protocol.measurement_count:
        raise ValueError(
            f"events has {len(protocol.events.measurements)} measurements but offsets_ppm has "
            f"{protocol.measurement_count} values"
        )
    if protocol.measurement_count == 0:
        raise ValueError("offsets_ppm is empty; a protocol needs at least one measurement")
    for name in ("field_strength_T", "gamma_rad_per_s_per_uT", "larmor_frequency_MHz"):
        value = getattr(protocol, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value:g} but must be positive")
    for name in ("readout_pulse_s", "echo_time_s"):
        if not 0 <= getattr(protocol, name) < math.inf:
            raise ValueError(f"{name} is {getattr(protocol, name):g} but must be 0 or more")
    if not math.isfinite(protocol.initial_magnetisation):
        raise ValueError("initial_magnetisation is not finite")
    for name in PER_MEASUREMENT:
        value = getattr(protocol, name)
        if value is None:
            continue
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} contains a value that is not finite")
        if name in _NOT_NEGATIVE and bool((value < 0).any()):
            raise ValueError(f"{name} contains the negative value {float(value.min()):g}; it must be 0 or more")
    _require_time_of_pulses(protocol)
    _require_excitation(protocol)
    if protocol.signal_normalisation not in NORMALIZATIONS:
        raise ValueError(
            f"signal_normalisation '{protocol.signal_normalisation}' is unknown; use one of {', '.join(NORMALIZATIONS)}"
        )
    count, chosen = protocol.measurement_count, protocol.m0_measurements
    if len(set(chosen)) < len(chosen) or not all(1 <= number <= count for number in chosen):
        raise ValueError(f"m0_measurements must be different numbers of measurements from 1 to {count}")
    if protocol.magnetisation_carried_over and bool((protocol.recovery_time_s < protocol.echo_time_s).any()):
        raise ValueError("recovery_time_s counts from the excitation and must not be shorter than echo_time_s")


def _require_time_of_pulses(protocol: Protocol) -> None:
    """Refuse durations that are not those of the train: one engine would play the pulses, another the duration."""
    if protocol.pulses is None or protocol.events is not None:
        return
    lasts = protocol.pulses.total_time_s
    other = [time for time in protocol.saturation_time_s.tolist() if not math.isclose(time, lasts, rel_tol=SAME_TRAIN)]
    if other:
        raise ValueError(
            f"saturation_time_s is {other[0]:g} but the pulse train lasts {lasts:.4g} s, without a gap after the last "
            "pulse: give the total_time_s of the pulses"
        )


def _require_excitation(protocol: Protocol) -> None:
    """Refuse flip angles that give no signal where the signals would be divided by 0.

    Relative to M0, that is the signal of the same readout; otherwise the norm of all signals. Where the protocol gives
    its events, their pulses excite.
    """
    angles, normalization = protocol.readout_flip_angle_deg, protocol.signal_normalisation
    if angles is None or normalization == "none" or protocol.events is not None:
        return
    silent = torch.sin(torch.deg2rad(angles.detach())).abs() < _SMALLEST_SINE
    if bool(silent.any() if normalization == "m0" else silent.all()):
        raise ValueError(
            f"readout_flip_angle_deg is {float(angles[silent][0]):g}, which excites nothing: leave it out where z is "
            "sampled without an excitation"
        )
