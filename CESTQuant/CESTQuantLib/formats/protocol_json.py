"""The keys of a ``protocol.json``: protocol from them, and back."""

from __future__ import annotations

import warnings

from NeuroCESTLib.core.checked_json import number

from ..physics.protocol import PER_MEASUREMENT, SATURATION_TYPES, Protocol
from ..physics.pulse_shapes import PulseShape, PulseTrain
from ..physics.units import GAMMA_RAD_PER_S_PER_UT

_KNOWN_KEYS = {
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
    "larmor_frequency_MHz",
    "gamma_rad_per_s_per_uT",
    "note",
    "solute",
    "initial_magnetisation",
}


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
            saturation_type="pulse_train",
            n_pulses=train.n_pulses,
            pulse_duration_s=train.duration_s,
            pulse_delay_s=train.delay_s,
            pulse_shape=train.shape.description(),
        )
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
