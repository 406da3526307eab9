"""Acquisition protocol: what the scanner did for every measurement of a saturation-transfer study."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .numbers_from_files import number, numbers
from .pulse_shapes import PulseShape, PulseTrain
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


_KNOWN_KEYS = {
    "field_strength_T", *PER_MEASUREMENT, "saturation_type", "n_pulses", "pulse_duration_s", "duty_cycle",
    "pulse_delay_s", "pulse_shape", "readout", "magnetisation_carried_over", "signal_normalisation",
    "larmor_frequency_MHz", "gamma_rad_per_s_per_uT", "note", "solute", "initial_magnetisation",
}  # fmt: skip


def protocol_from_dict(values: dict, source: str = "protocol") -> Protocol:
    """Protocol from the keys of a ``protocol.json``; unknown keys are named in a warning.

    Raises ValueError naming ``source`` and the key for values that are missing or unusable.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: a protocol is a JSON object with keys such as field_strength_T and offsets_ppm")
    unknown = sorted(set(values) - _KNOWN_KEYS)
    if unknown:
        warnings.warn(f"{source}: unknown keys are ignored: {', '.join(unknown)}", stacklevel=2)
    try:
        return _from_known(values)
    except KeyError as error:
        raise ValueError(f"{source}: the key {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None


def _from_known(values: dict) -> Protocol:
    train = _train_from(values)
    kind = values.get("saturation_type", "pulse_train" if train else "cw")
    if kind not in SATURATION_TYPES:
        raise ValueError(f"saturation_type '{kind}' is unknown; use one of {', '.join(SATURATION_TYPES)}")
    if kind == "pulse_train" and train is None:
        raise ValueError("a pulse train needs n_pulses and pulse_duration_s")
    if kind == "cw":
        train = None
    time = train.total_time_s if train else values["saturation_time_s"]
    own_amplitude = train is not None and train.shape.absolute and "b1_uT" not in values
    b1 = train.rms_of_unit_peak if own_amplitude else values["b1_uT"]
    readout = values.get("readout") or {}
    if not isinstance(readout, dict):
        raise ValueError("readout is an object with pulse_duration_s and echo_time_s")
    larmor = values.get("larmor_frequency_MHz")
    return Protocol(
        field_strength_T=number(values["field_strength_T"], "field_strength_T"),
        offsets_ppm=values["offsets_ppm"],
        b1_uT=b1,
        saturation_time_s=time,
        pulses=train,
        post_delay_s=values.get("post_delay_s"),
        recovery_time_s=values.get("recovery_time_s"),
        initial_recovery_s=values.get("initial_recovery_s"),
        readout_flip_angle_deg=values.get("readout_flip_angle_deg"),
        readout_pulse_s=number(readout.get("pulse_duration_s", 0.0), "readout: pulse_duration_s"),
        echo_time_s=number(readout.get("echo_time_s", 0.0), "readout: echo_time_s"),
        magnetisation_carried_over=bool(values.get("magnetisation_carried_over", False)),
        initial_magnetisation=number(values.get("initial_magnetisation", 1.0), "initial_magnetisation"),
        signal_normalisation=values.get("signal_normalisation", "m0"),
        larmor_frequency_MHz=None if larmor is None else number(larmor, "larmor_frequency_MHz"),
        gamma_rad_per_s_per_uT=number(
            values.get("gamma_rad_per_s_per_uT", GAMMA_RAD_PER_S_PER_UT), "gamma_rad_per_s_per_uT"
        ),
    )


def _train_from(values: dict) -> PulseTrain | None:
    if "n_pulses" not in values or "pulse_duration_s" not in values:
        return None
    duration = number(values["pulse_duration_s"], "pulse_duration_s")
    if not duration > 0:
        raise ValueError(f"pulse_duration_s is {duration:g} but must be positive")
    count = number(values["n_pulses"], "n_pulses")
    if not count.is_integer():
        raise ValueError(f"n_pulses is {count:g} but must be a whole number")
    if "pulse_delay_s" in values:
        delay = number(values["pulse_delay_s"], "pulse_delay_s")
    else:
        duty_cycle = number(values.get("duty_cycle", 1.0), "duty_cycle")
        if not 0 < duty_cycle <= 1:
            raise ValueError(f"duty_cycle is {duty_cycle:g} but must lie in (0, 1]")
        delay = duration * (1 / duty_cycle - 1)
    shape = PulseShape.from_description(values.get("pulse_shape", "gaussian"), duration)
    return PulseTrain(int(count), duration, delay, shape)


def protocol_to_dict(protocol: Protocol) -> dict:
    """The keys of a ``protocol.json`` that reads back to the same protocol."""
    values: dict = {"field_strength_T": protocol.field_strength_T}
    for name in PER_MEASUREMENT:
        value = getattr(protocol, name)
        if value is not None and not (name == "initial_recovery_s" and not value.any()):
            numbers = value.detach().cpu().tolist()
            same = name != "offsets_ppm" and len(set(numbers)) == 1
            values[name] = numbers[0] if same else numbers
    if protocol.pulses is None:
        values["saturation_type"] = "cw"
    else:
        train = protocol.pulses
        del values["saturation_time_s"]
        values.update(
            saturation_type="pulse_train", n_pulses=train.n_pulses, pulse_duration_s=train.duration_s,
            pulse_delay_s=train.delay_s, pulse_shape=train.shape.description(),
        )  # fmt: skip
    if protocol.readout_pulse_s or protocol.echo_time_s:
        values["readout"] = {
            "pulse_duration_s": protocol.readout_pulse_s,
            "echo_time_s": protocol.echo_time_s,
        }
    values["magnetisation_carried_over"] = protocol.magnetisation_carried_over
    values["initial_magnetisation"] = protocol.initial_magnetisation
    values["signal_normalisation"] = protocol.signal_normalisation
    if protocol.larmor_frequency_MHz is not None:
        values["larmor_frequency_MHz"] = protocol.larmor_frequency_MHz
    values["gamma_rad_per_s_per_uT"] = protocol.gamma_rad_per_s_per_uT
    return values


def read_offsets(path: str | Path) -> Tensor:
    """Offsets in ppm from a text file with one number a line (blank lines and ``#`` comments allowed)."""
    path = Path(path)
    offsets = []
    for line_number, line in enumerate(_read_text(path).splitlines(), start=1):
        for word in line.split("#")[0].replace(",", " ").split():
            try:
                offsets.append(float(word))
            except ValueError:
                raise ValueError(f"{path}: line {line_number} holds '{word}', which is not an offset in ppm") from None
            if not math.isfinite(offsets[-1]):
                raise ValueError(f"{path}: line {line_number} holds '{word}', which is not finite")
    if not offsets:
        raise ValueError(f"{path}: no offsets found; give one number in ppm a line")
    return torch.tensor(offsets, dtype=torch.float64)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; give a protocol .json, a text file of offsets in ppm, or a .seq"
        ) from None
    except (UnicodeDecodeError, OSError):
        raise ValueError(
            f"{path}: not a readable text file; give a protocol .json, offsets in ppm, or a .seq"
        ) from None


def read_json(path: str | Path) -> dict:
    """The object in a JSON file; ValueError naming the file and line where it is damaged."""
    text = _read_text(Path(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not usable JSON (a number too long or values nested too deep)") from None


def read_protocol(path: str | Path, field_strength_T: float = 3.0) -> Protocol:
    """Protocol from ``.json``, pulseq ``.seq`` or a text file of offsets.

    A text file says nothing of B1 and durations: they are set to 0, which suffices for contrasts and Lorentzian
    fits and is refused by the physical models.
    """
    path = Path(path)
    if path.suffix == ".json":
        return protocol_from_dict(read_json(path), str(path))
    if path.suffix == ".seq":
        from .pulseq import read_seq

        return read_seq(path)
    return Protocol(field_strength_T, read_offsets(path), b1_uT=0.0, saturation_time_s=0.0)
