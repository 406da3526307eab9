"""Acquisition protocol: what the scanner did for every measurement of a saturation-transfer study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import numbers

from .pulse_shapes import PulseTrain
from .units import GAMMA_RAD_PER_S_PER_UT, rad_per_s_per_ppm, rad_per_s_per_ppm_from_larmor

SATURATION_TYPES = ("cw", "pulse_train")
NORMALISATIONS = ("m0", "l2", "none")
PER_MEASUREMENT = (
    "offsets_ppm",
    "b1_uT",
    "saturation_time_s",
    "post_delay_s",
    "recovery_time_s",
    "readout_flip_angle_deg",
    "initial_recovery_s",
)
_NOT_NEGATIVE = ("b1_uT", "saturation_time_s", "post_delay_s", "recovery_time_s", "initial_recovery_s")


@dataclass(frozen=True)
class Protocol:
    """A saturation-transfer protocol of ``measurement_count`` measurements.

    Per-measurement quantities are float64 tensors of shape ``(measurement,)``; they may carry gradients.

    field_strength_T: static field in T.
    offsets_ppm: RF offset from water, positive towards higher ppm.
    b1_uT: RF amplitude of a CW block; for a pulse train the root mean square over pulses and the gaps between
        them (continuous-wave power equivalent).
    saturation_time_s: duration of a CW block; of a train, derived from its pulses.
    pulses: number of pulses, duration and gap in s, and shape of a train; None for CW.
    post_delay_s: free evolution between saturation and readout.
    recovery_time_s: from the end of the excitation (or the sample, without excitation) to the next saturation;
        matters only where the magnetisation is carried over, otherwise every measurement starts anew.
    initial_magnetisation, initial_recovery_s: every measurement (carried over: the first) starts with this share of
        the equilibrium magnetisation of all pools, and evolves freely for this time before its saturation.
    readout_flip_angle_deg: excitation; None where the longitudinal magnetisation is sampled without one.
    readout_pulse_s, echo_time_s: a real block pulse after which nothing is spoiled and the signal is the transverse
        water magnetisation at the echo (counted from the end of the pulse); 0 and 0 mean an ideal spoiled excitation.
    """

    field_strength_T: float
    offsets_ppm: Tensor
    b1_uT: Tensor
    saturation_time_s: Tensor
    pulses: PulseTrain | None = None
    post_delay_s: Tensor | None = None
    recovery_time_s: Tensor | None = None
    readout_flip_angle_deg: Tensor | None = None
    readout_pulse_s: float = 0.0
    echo_time_s: float = 0.0
    magnetisation_carried_over: bool = False
    initial_magnetisation: float = 1.0
    initial_recovery_s: Tensor | None = None
    signal_normalisation: str = "m0"
    larmor_frequency_MHz: float | None = None
    gamma_rad_per_s_per_uT: float = GAMMA_RAD_PER_S_PER_UT

    def __post_init__(self) -> None:
        offsets = numbers(self.offsets_ppm, "offsets_ppm")
        object.__setattr__(self, "offsets_ppm", offsets)
        for name in PER_MEASUREMENT[1:]:
            value = getattr(self, name)
            if value is None and name in ("post_delay_s", "recovery_time_s", "initial_recovery_s"):
                value = 0.0
            if value is not None or name != "readout_flip_angle_deg":
                object.__setattr__(self, name, _per_measurement(value, name, len(offsets)))
        _validate(self)

    @property
    def measurement_count(self) -> int:
        return len(self.offsets_ppm)

    @property
    def rad_per_s_per_ppm(self) -> float:
        """Angular frequency of one ppm; from the measured Larmor frequency where it is known."""
        if self.larmor_frequency_MHz is not None:
            return rad_per_s_per_ppm_from_larmor(self.larmor_frequency_MHz)
        return rad_per_s_per_ppm(self.field_strength_T, self.gamma_rad_per_s_per_uT)

    @property
    def duty_cycle(self) -> float:
        """Fraction of the saturation during which RF is on (1 for CW)."""
        return 1.0 if self.pulses is None else self.pulses.duty_cycle

    def tensors(self) -> list[Tensor]:
        """The per-measurement quantities that are set."""
        return [value for value in (getattr(self, n) for n in PER_MEASUREMENT) if value is not None]

    def select(self, index: Tensor) -> Protocol:
        """The protocol of a subset of measurements (indices or a boolean mask of shape (measurement,))."""
        return replace(self, **{n: getattr(self, n)[index] for n in PER_MEASUREMENT if getattr(self, n) is not None})

    def to(self, device: torch.device | str) -> Protocol:
        """The protocol with its tensors on a device."""
        return replace(
            self, **{n: getattr(self, n).to(device) for n in PER_MEASUREMENT if getattr(self, n) is not None}
        )


def _per_measurement(value, name: str, count: int) -> Tensor:
    tensor = numbers(value, name)
    if len(tensor) == 1:
        return tensor.expand(count)
    if len(tensor) != count:
        raise ValueError(f"{name} has {len(tensor)} values but offsets_ppm has {count}; give one value or {count}")
    return tensor


def _validate(protocol: Protocol) -> None:
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
    if protocol.signal_normalisation not in NORMALISATIONS:
        raise ValueError(
            f"signal_normalisation '{protocol.signal_normalisation}' is unknown; use one of {', '.join(NORMALISATIONS)}"
        )
    carried = protocol.magnetisation_carried_over and protocol.recovery_time_s is not None
    if carried and bool((protocol.recovery_time_s < protocol.echo_time_s).any()):
        raise ValueError("recovery_time_s counts from the excitation and must not be shorter than echo_time_s")
