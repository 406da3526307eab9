"""The keys of a ``protocol.json``: a protocol from them, and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from NeuroCESTLib.core.checked_json import number, numbers, shortened, whole_number

from ..physics.events import Events, Play
from ..physics.protocol import PER_MEASUREMENT, SAME_TRAIN, SATURATION_TYPES, Protocol
from ..physics.pulse_shapes import PulseShape, PulseTrain
from ..physics.units import GAMMA_RAD_PER_S_PER_UT
from .plausible import gyromagnetic_ratio, initial_magnetization
from .pulseq.field import STRONGEST_T

SAME_MAGNET = 0.05
"""Relative difference up to which a field and a Larmor frequency belong together: magnets of "3 T" have 2.89 T."""
SAME_OFFSET_PPM = 0.02
"""Least difference in ppm between an offset that is stated and one that is played."""
_LONGEST_S = {
    "saturation_time_s": 60.0,
    "post_delay_s": 60.0,
    "recovery_time_s": 600.0,
    "initial_recovery_s": 600.0,
    "readout_pulse_s": 10.0,
    "echo_time_s": 10.0,
}
"""Times that no acquisition exceeds."""
_LONGEST_PULSE_S = 10.0
_USUAL_B1_UT = (0.01, 50.0)
"""Powers that acquisitions have; 50 uT are a spin lock of 2 kHz."""
PROTOCOL_KEYS = {
    "field_strength_T",
    *PER_MEASUREMENT,
    "saturation_type",
    "n_pulses",
    "pulse_duration_s",
    "duty_cycle",
    "pulse_delay_s",
    "pulse_shape",
    "readout",
    "magnetisation_carried_over",
    "signal_normalisation",
    "m0_measurements",
    "larmor_frequency_MHz",
    "gamma_rad_per_s_per_uT",
    "note",
    "solute",
    "initial_magnetisation",
    "events",
}
"""Keys of a ``protocol.json``."""
_OPEN_FOR_CONTRASTS = (
    "b1_uT",
    "saturation_type",
    "saturation_time_s",
    "n_pulses",
    "pulse_duration_s",
    "pulse_delay_s",
    "duty_cycle",
    "pulse_shape",
)
"""Keys of the saturation that may be null until a method needs them."""
_KEYS_OF_PARTS = {
    "readout": ("pulse_duration_s", "echo_time_s"),
    "pulse_shape": ("samples_uT", "dwell_s", "phase_rad"),
}


def warn_of_unknown_keys(values: Mapping[Any, object], known: Iterable[str], source: str) -> None:
    """Name the unknown keys of a file that may come from other software in a warning, and go on without them."""
    known = set(known)
    if unknown := sorted(str(key) for key in values if key not in known):
        warnings.warn(f"{source}: unknown keys are ignored: {', '.join(unknown)}", stacklevel=4)


def protocol_from_dict(values: dict[str, Any], source: str = "protocol", *, measured: bool = True) -> Protocol:
    """Return the protocol that the keys of a ``protocol.json`` describe.

    Args:
        values: Object as read from JSON; unknown keys are named in a warning.
        source: Name of the file, which opens the messages.
        measured: Whether an acquisition has the protocol, so that times beyond those of any can only be meant in ms.
            Simulations may have longer ones, as for a steady state.

    Raises:
        ValueError: A value is missing or unusable; the message names the source and the key.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{source}: a protocol is a JSON object with keys such as field_strength_T and offsets_ppm")
    warn_of_unknown_keys(values, PROTOCOL_KEYS, source)
    _warn_of_unknown_parts(values, source)
    try:
        protocol = _from_known(values)
        if measured:
            _check_times(protocol)
        _warn_of_another_train(values, protocol, source)
    except KeyError as error:
        raise ValueError(f"{source}: the key {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
    _check_field(protocol, source)
    _warn_of_unusual_b1(protocol, source)
    _warn_of_another_frequency(protocol, source)
    return protocol


def _check_field(protocol: Protocol, source: str) -> None:
    """Refuse fields that no magnet has, and tell a Larmor frequency of another field."""
    field = protocol.field_strength_T
    if field > STRONGEST_T:
        raise ValueError(
            f"{source}: field_strength_T is {field:g}, which no magnet has; give the field in T, not the Larmor "
            "frequency in MHz"
        )
    frequency = protocol.larmor_frequency_MHz
    if frequency is None:
        return
    of_frequency = frequency * 2 * math.pi / protocol.gamma_rad_per_s_per_uT
    if not math.isclose(field, of_frequency, rel_tol=SAME_MAGNET):
        warnings.warn(
            f"{source}: field_strength_T is {field:g} but larmor_frequency_MHz is that of {of_frequency:.4g} T; "
            "offsets are converted with the frequency",
            stacklevel=3,
        )


def _check_times(protocol: Protocol) -> None:
    """Refuse times that can only be meant in ms."""
    train = protocol.pulses
    if train is not None and train.duration_s > _LONGEST_PULSE_S:
        raise ValueError(f"pulse_duration_s is {train.duration_s:g}, which no pulse lasts: give it in s, not in ms")
    for name, longest in _LONGEST_S.items():
        value = getattr(protocol, name)
        time = float(value.detach().max()) if isinstance(value, Tensor) else value
        if time > longest and name == "saturation_time_s" and train is not None:
            raise ValueError(
                f"the pulse train lasts {time:g} s, which no acquisition has: give pulse_duration_s and pulse_delay_s "
                "in s, not in ms"
            )
        if time > longest:
            raise ValueError(f"{name} is {time:g}, which no acquisition has: give it in s, not in ms")


def _warn_of_unusual_b1(protocol: Protocol, source: str) -> None:
    """Tell powers that may be meant in another unit."""
    least, most = _USUAL_B1_UT
    unusual = [b1 for b1 in protocol.b1_uT.tolist() if b1 and not least <= b1 <= most]
    if unusual:
        warnings.warn(
            f"{source}: b1_uT is {unusual[0]:g}, which is unusual for a saturation: check that it is in uT, not in Hz "
            "or T",
            stacklevel=3,
        )


def _warn_of_another_train(values: dict[str, Any], protocol: Protocol, source: str) -> None:
    """Tell a duty cycle or a saturation time that is not that of the pulses, which count."""
    train = protocol.pulses
    if train is None or protocol.events is not None:
        return
    duty_cycle = values.get("duty_cycle")
    if duty_cycle is not None and not math.isclose(
        stated_share := number(duty_cycle, "duty_cycle"), train.duty_cycle, rel_tol=SAME_TRAIN
    ):
        warnings.warn(
            f"{source}: duty_cycle is {stated_share:g} but pulse_delay_s is that of {train.duty_cycle:.4g}; "
            "pulse_delay_s counts, remove the wrong one",
            stacklevel=3,
        )
    stated = values.get("saturation_time_s")
    times = [time for time in numbers(0.0 if stated is None else stated, "saturation_time_s").tolist() if time]
    lasts = (train.total_time_s, train.total_time_s + train.delay_s)  # without or with the gap after the last pulse
    other = [time for time in times if not any(math.isclose(time, last, rel_tol=SAME_TRAIN) for last in lasts)]
    if other:
        warnings.warn(
            f"{source}: saturation_time_s is {other[0]:g} but the pulse train lasts {lasts[0]:.4g} s; the pulses "
            "count, remove saturation_time_s or correct them",
            stacklevel=3,
        )


def _warn_of_another_frequency(protocol: Protocol, source: str) -> None:
    """Tell an offset that is not among those which the events play."""
    if protocol.events is None:
        return
    hz_per_ppm = protocol.rad_per_s_per_ppm / (2 * math.pi)
    for m, stated in enumerate(protocol.offsets_ppm.tolist()):
        longest = [frequency / hz_per_ppm for frequency in protocol.events.longest_Hz(m)]
        every = [event.frequency_Hz / hz_per_ppm for event in protocol.events.preparation(m) if isinstance(event, Play)]
        tolerance = max(SAME_OFFSET_PPM, 1e-3 * abs(stated))
        between = len(longest) > 1 and min(longest) - tolerance <= stated <= max(longest) + tolerance
        if longest and not between and all(abs(offset - stated) > tolerance for offset in every):
            warnings.warn(
                f"{source}: offsets_ppm of measurement {m + 1} is {stated:.4g} but its events play {longest[0]:.4g} "
                "ppm; what is played counts in simulations, correct offsets_ppm",
                stacklevel=3,
            )
            return


def _warn_of_unknown_parts(values: dict[str, Any], source: str) -> None:
    for key, known in _KEYS_OF_PARTS.items():
        part = values.get(key)
        if isinstance(part, dict):
            warn_of_unknown_keys(part, known, f"{source}: {key}")


def _from_known(values: dict[str, Any]) -> Protocol:
    values, unknown = _without_open_values(values)
    train = _pulse_train(values)
    readout = values.get("readout") or {}
    if not isinstance(readout, dict):
        raise ValueError("readout is an object with pulse_duration_s and echo_time_s")
    larmor = values.get("larmor_frequency_MHz")
    angles = values.get("readout_flip_angle_deg")
    return Protocol(
        field_strength_T=number(values["field_strength_T"], "field_strength_T"),
        offsets_ppm=numbers(values["offsets_ppm"], "offsets_ppm"),
        b1_uT=_b1(values, train),
        saturation_time_s=numbers(
            values["saturation_time_s"] if train is None else train.total_time_s, "saturation_time_s"
        ),
        pulses=train,
        post_delay_s=_time(values, "post_delay_s"),
        recovery_time_s=_time(values, "recovery_time_s"),
        initial_recovery_s=_time(values, "initial_recovery_s"),
        readout_flip_angle_deg=None if angles is None else numbers(angles, "readout_flip_angle_deg"),
        readout_pulse_s=number(readout.get("pulse_duration_s", 0.0), "readout: pulse_duration_s"),
        echo_time_s=number(readout.get("echo_time_s", 0.0), "readout: echo_time_s"),
        magnetisation_carried_over=true_or_false(values, "magnetisation_carried_over", default=False),
        initial_magnetisation=initial_magnetization(
            number(values.get("initial_magnetisation", 1.0), "initial_magnetisation"), "initial_magnetisation"
        ),
        signal_normalisation=values.get("signal_normalisation", "m0"),
        m0_measurements=_m0_measurements(values.get("m0_measurements")),
        larmor_frequency_MHz=None if larmor is None else number(larmor, "larmor_frequency_MHz"),
        gamma_rad_per_s_per_uT=gyromagnetic_ratio(
            number(values.get("gamma_rad_per_s_per_uT", GAMMA_RAD_PER_S_PER_UT), "gamma_rad_per_s_per_uT"),
            "gamma_rad_per_s_per_uT",
        ),
        events=None if values.get("events") is None else Events.from_description(values["events"]),
        unknown=unknown,
    )


def _without_open_values(values: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Values without those that are null, and the names of the open ones that the saturation is simulated from.

    Power and duration are then 0: contrasts and Lorentzian fits do without them.
    """
    for key in ("field_strength_T", "offsets_ppm"):
        if key in values and values[key] is None:
            raise ValueError(f"{key} is null: fill it in, every method needs it")
    known = {key: value for key, value in values.items() if value is not None}
    open_ = [key for key in _OPEN_FOR_CONTRASTS if key in values and key not in known and not _is_needless(key, known)]
    if not open_:
        return known, ()
    for key in ("n_pulses", "pulse_duration_s"):
        known.pop(key, None)
    known["saturation_type"] = "cw"
    return {"b1_uT": 0.0, "saturation_time_s": 0.0, **known}, tuple(open_)


def _is_needless(key: str, known: dict[str, Any]) -> bool:
    """Whether the saturation is described without a key, by the values that are known."""
    if key == "b1_uT" or key == "saturation_type":
        return False
    if known.get("saturation_type") == "cw":
        return key != "saturation_time_s"
    other = {"pulse_delay_s": "duty_cycle", "duty_cycle": "pulse_delay_s", "saturation_time_s": "n_pulses"}
    return other.get(key) in known


def true_or_false(values: Mapping[str, Any], key: str, *, default: bool) -> bool:
    """Return a value that must be true or false in JSON.

    Raises:
        ValueError: The value is something else, such as a text or a number.
    """
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {shortened(value)} but must be true or false")
    return value


def _time(values: dict[str, Any], key: str) -> Tensor:
    """A time that is 0 where it is not given."""
    value = values.get(key)
    return numbers(0.0 if value is None else value, key)


def _m0_measurements(value: Any) -> tuple[int, ...]:
    """Numbers, counted from 1, of the measurements that are the M0 reference."""
    given = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(whole_number(number, "m0_measurements", least=1) for number in given)


def _b1(values: dict[str, Any], train: PulseTrain | None) -> Tensor:
    """B1 in uT; samples in uT say it themselves where it is not given."""
    if train is not None and train.shape.absolute and "b1_uT" not in values:
        return numbers(train.rms_of_unit_peak, "b1_uT")
    return numbers(values["b1_uT"], "b1_uT")


def _pulse_train(values: dict[str, Any]) -> PulseTrain | None:
    """The pulse train, which is checked also where ``saturation_type`` says that it is not played; None for CW."""
    given = "n_pulses" in values and "pulse_duration_s" in values
    train = _train_of_keys(values) if given else None
    kind = values.get("saturation_type", "pulse_train" if given else "cw")
    if kind not in SATURATION_TYPES:
        raise ValueError(f"saturation_type '{kind}' is unknown; use one of {', '.join(SATURATION_TYPES)}")
    if kind == "cw":
        return None
    if train is None:
        raise ValueError("a pulse train needs n_pulses and pulse_duration_s")
    return train


def _train_of_keys(values: dict[str, Any]) -> PulseTrain:
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


def protocol_to_dict(protocol: Protocol) -> dict[str, Any]:
    """Return the keys of a ``protocol.json`` that reads back to the same protocol."""
    values: dict[str, Any] = {"field_strength_T": protocol.field_strength_T}
    for name in PER_MEASUREMENT:
        value = getattr(protocol, name)
        if value is not None and not (name == "initial_recovery_s" and not value.any()):
            listed = value.detach().cpu().tolist()
            same = name != "offsets_ppm" and len(set(listed)) == 1
            values[name] = listed[0] if same else listed
    if protocol.pulses is None:
        values["saturation_type"] = "cw"
    else:
        train = protocol.pulses
        del values["saturation_time_s"]
        values |= {
            "saturation_type": "pulse_train",
            "n_pulses": train.n_pulses,
            "pulse_duration_s": train.duration_s,
            "pulse_delay_s": train.delay_s,
            "pulse_shape": train.shape.description(),
        }
    if protocol.readout_pulse_s or protocol.echo_time_s:
        values["readout"] = {"pulse_duration_s": protocol.readout_pulse_s, "echo_time_s": protocol.echo_time_s}
    values["magnetisation_carried_over"] = protocol.magnetisation_carried_over
    values["initial_magnetisation"] = protocol.initial_magnetisation
    values["signal_normalisation"] = protocol.signal_normalisation
    if protocol.m0_measurements:
        values["m0_measurements"] = list(protocol.m0_measurements)
    if protocol.larmor_frequency_MHz is not None:
        values["larmor_frequency_MHz"] = protocol.larmor_frequency_MHz
    values["gamma_rad_per_s_per_uT"] = protocol.gamma_rad_per_s_per_uT
    if protocol.events is not None:
        values["events"] = protocol.events.description()
    return values | dict.fromkeys(protocol.unknown)
