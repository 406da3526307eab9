"""What a ParaVision scan says of its saturation, as the keys of a ``protocol.json``; null for what it does not say.

The names of the parameters are those of Bruker's own saturation modules (``PVM_MagTrans…`` of ParaVision 5 and 6,
``PVM_SatTrans…`` of ParaVision 360) and of methods that laboratories have written and published files of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...physics.units import GAMMA_RAD_PER_S_PER_UT
from .parameters import ParameterFile
from .scan import FrameGroup

_MHZ_PER_T = GAMMA_RAD_PER_S_PER_UT / (2 * math.pi)

OFFSET_LISTS: Mapping[str, str] = {
    "PVM_SatTransFreqValues": "",
    "Fp_SatOffset": "ppm",
    "MT_Offsets_NoM0": "Hz",
    "Cest_Offsets": "Hz",
    "SatFreqList": "Hz",
    "CESTFreqList": "Hz",
    "Fp_SatOffsetHz": "Hz",
    "PVM_SatTransFL": "Hz",
    "PVM_MagTransFL": "Hz",
    "PVM_ppgFreqList1": "Hz",
}
"""Parameters that list saturation offsets, the most specific first, with their unit; an empty one is in a parameter."""
_UNITS = {"unit_ppm": "ppm", "unit_hz": "Hz"}
_POWERS = ("Fp_SatPows", "PVM_SatTransPulseAmpl_uT", "PVM_MagTransPower")
"""Parameters with the RF amplitude in uT."""
_SWITCHES = ("PVM_SatTransOnOff", "PVM_MagTransOnOff")
_BLOCKS = ("bp", "bp32", "block", "Block", "hard")
"""Names of block pulses."""
_SHAPES = {"gauss": "gaussian", "gaussian": "gaussian", "sinc_gauss": "sinc_gaussian"}
"""Names of ParaVision's pulse shapes that a protocol knows."""
_REFERENCE_PPM = 300.0
"""Offset under which a reference scan without saturation is listed."""

ASSUMPTIONS: Mapping[str, str] = {
    "b1_uT": "RF amplitude in uT, of a train the root mean square over its pulses and the gaps between them, which "
    "model fits, QUESP and field maps need",
    "saturation_time_s": "duration of the saturation in s, which model fits, QUESP and field maps need",
    "saturation_type": "cw or pulse_train, which model fits, QUESP and field maps need",
    "pulse_shape": "shape of the pulses, which model fits need",
    "post_delay_s": "time between saturation and readout in s; taken as 0 until it is filled in",
    "magnetisation_carried_over": "whether magnetisation is carried over; taken as false until it is filled in",
    "recovery_time_s": "time from excitation to next saturation in s; used only if magnetisation is carried over",
    "readout_flip_angle_deg": "flip angle of the excitation in degrees; used only if magnetisation is carried over",
    "offsets_ppm": "one offset from water in ppm for every measurement, which every method needs",
    "field_strength_T": "static field in T, which every method needs",
}
"""What the keys mean that a file may leave null, and what happens until they are filled in."""


@dataclass(frozen=True)
class OffsetList:
    """Saturation offsets as a file lists them.

    Attributes:
        name: Name of the parameter.
        offsets_ppm: Offsets (n,) in ppm.
    """

    name: str
    offsets_ppm: list[float]


@dataclass(frozen=True)
class Saturation:
    """A protocol as far as the files tell it.

    Attributes:
        protocol: Keys of a ``protocol.json``; null for what the files do not say.
        repetitions: How often the list of offsets was measured.
        notes: Sentences for the user.
    """

    protocol: dict[str, Any]
    repetitions: int
    notes: tuple[str, ...] = ()


def is_saturated(method: ParameterFile) -> bool:
    """Whether a scan has a list of saturation offsets and did not switch the saturation off."""
    return _list_of(method) is not None


def larmor_frequency_MHz(method: ParameterFile, acqp: ParameterFile | None, visu: ParameterFile) -> float | None:
    """Return the frequency that offsets are relative to, or None where no file says it."""
    candidates = ((method, "PVM_FrqWork"), (acqp, "SFO1"), (acqp, "BF1"), (visu, "VisuAcqImagingFrequency"))
    for file, name in candidates:
        if file is not None and name in file and (frequency := file.numbers(name)[0]) > 0:
            return frequency
    return None


def field_of_larmor(larmor_MHz: float) -> float:
    """Return the static field in T in which protons have a Larmor frequency in MHz."""
    return round(larmor_MHz / _MHZ_PER_T, 6)


def offsets_of(method: ParameterFile, larmor_MHz: float | None) -> OffsetList | None:
    """Return the saturation offsets that the method lists, or None where it lists none.

    Raises:
        ValueError: The list is damaged, or in Hz and the Larmor frequency is unknown.
    """
    name = _list_of(method)
    if name is None:
        return None
    values = method.numbers(name)
    unit = OFFSET_LISTS[name] or _UNITS.get(method.text("PVM_SatTransFreqUnit").lower(), "")
    if not unit:
        raise ValueError(
            f"'{method.path}': {name} has no unit ({method.text('PVM_SatTransFreqUnit') or 'PVM_SatTransFreqUnit'}); "
            "give the offsets in ppm as a text file"
        )
    if unit == "ppm":
        return OffsetList(name, values)
    if larmor_MHz is None:
        raise ValueError(f"'{method.path}': {name} is in Hz and no Larmor frequency is given to convert it to ppm")
    return OffsetList(name, [value / larmor_MHz for value in values])


def fits_offsets(
    method: ParameterFile, larmor_MHz: float | None, measurements: int, offsets_ppm: Sequence[float] | None = None
) -> bool:
    """Whether a number of measurements is a multiple of the offsets, given or listed; arguments as for saturation_of.

    Raises:
        ValueError: The list of the method is damaged.
    """
    listed = _given_or_listed(method, larmor_MHz, offsets_ppm)
    if listed is None or not listed.offsets_ppm:
        return False
    reference = offsets_ppm is None and _has_reference_scan(method, listed, measurements)
    return measurements % (len(listed.offsets_ppm) + reference) == 0


def _given_or_listed(
    method: ParameterFile, larmor_MHz: float | None, offsets_ppm: Sequence[float] | None
) -> OffsetList | None:
    if offsets_ppm is not None:
        return OffsetList("the given list", list(offsets_ppm))
    return offsets_of(method, larmor_MHz)


def saturation_of(
    method: ParameterFile,
    larmor_MHz: float | None,
    measurements: int,
    offsets_ppm: Sequence[float] | None = None,
    loops: Sequence[FrameGroup] = (),
) -> Saturation:
    """Return what a scan says of its saturation.

    Args:
        method: Parameters of the method.
        larmor_MHz: Larmor frequency in MHz, or None where it is unknown.
        measurements: Number of measurements of the images.
        offsets_ppm: Offsets of one repetition in ppm, instead of those that the method lists.
        loops: Loops that the measurements come from, the fastest first; without them, the lists follow each other.

    Returns:
        Keys of a ``protocol.json``; ``offsets_ppm`` is None where the method lists no offsets.

    Raises:
        ValueError: A value is damaged, or the number of offsets does not fit the images; the message names the file.
    """
    protocol: dict[str, Any] = {
        "field_strength_T": None if larmor_MHz is None else field_of_larmor(larmor_MHz),
        "larmor_frequency_MHz": larmor_MHz,
        "offsets_ppm": None,
        **_pulses(method),
        "post_delay_s": None,
        "magnetisation_carried_over": None,
        "recovery_time_s": None,
        "readout_flip_angle_deg": None,
        "signal_normalisation": "m0",
    }
    listed = _given_or_listed(method, larmor_MHz, offsets_ppm)
    if listed is None:
        return Saturation(protocol, 1)
    reference = offsets_ppm is None and _has_reference_scan(method, listed, measurements)
    count = len(listed.offsets_ppm) + reference
    if not fits_offsets(method, larmor_MHz, measurements, offsets_ppm):
        raise ValueError(
            f"'{method.path}' contradicts the images: {listed.name} has {len(listed.offsets_ppm)} offsets, but "
            f"there are {measurements} measurements"
        )
    repetitions = measurements // count
    faster = _faster_loops(loops, count)
    in_a_row = math.prod(loop.count for loop in faster)
    passes = repetitions // in_a_row
    order = [i for i in range(count) for _ in range(in_a_row)] * passes
    offsets = [_REFERENCE_PPM] * reference + listed.offsets_ppm
    protocol["offsets_ppm"] = [round(offsets[i], 6) for i in order]
    protocol["b1_uT"] = _in_order(protocol["b1_uT"], reference, len(listed.offsets_ppm), order)
    notes = []
    if reference:
        protocol["m0_measurements"] = [place + 1 for place, i in enumerate(order) if i == 0]
        notes.append(
            f"the reference scan without saturation is listed at {_REFERENCE_PPM:g} ppm with B1 0 and serves as M0"
        )
    if in_a_row > 1:
        names = " and ".join(f"'{loop.name}'" for loop in faster)
        notes.append(
            f"each of the {count} offsets of {listed.name} was measured {in_a_row} times in a row, in the loop {names} "
            "of the images"
        )
    if passes > 1:
        notes.append(f"the {count} offsets of {listed.name} were measured {passes} times, one list after the other")
    return Saturation(protocol, repetitions, tuple(notes))


def _faster_loops(loops: Sequence[FrameGroup], count: int) -> Sequence[FrameGroup]:
    """The loops within that over the offsets; none where the fastest loops are those over the offsets.

    The loops over the offsets have as many passes as there are offsets or else, where a loop holds several lists, a
    multiple of them.
    """
    counts = [loop.count for loop in loops]
    for first in range(len(loops)):
        if any(math.prod(counts[first:end]) == count for end in range(first + 1, len(loops) + 1)):
            return loops[:first]
    return loops[: next((i for i, passes in enumerate(counts) if passes % count == 0), 0)]


def _list_of(method: ParameterFile) -> str | None:
    """Name of the parameter that lists the offsets, or None where there is none or the saturation is off."""
    switches = [method.text(name) for name in _SWITCHES if name in method]
    if switches and "On" not in switches:
        return None
    present = [name for name in OFFSET_LISTS if method.texts.get(name, "").strip()]
    several = [name for name in present if len(method.numbers(name)) > 1]
    return next(iter(several or present), None)


def _has_reference_scan(method: ParameterFile, listed: OffsetList, measurements: int) -> bool:
    """Whether a scan without saturation precedes the offsets; the number of measurements must agree."""
    announced = method.text("PVM_SatTransRefScan") in ("On", "Yes")
    return announced and measurements % (len(listed.offsets_ppm) + 1) == 0


def _pulses(method: ParameterFile) -> dict[str, Any]:
    """Type, power and durations of the saturation."""
    power = next((method.numbers(name) for name in _POWERS if name in method), None)
    protocol: dict[str, Any] = {"b1_uT": None if power is None else power[0] if len(power) == 1 else power}
    ending = "SatTrans" if "PVM_SatTransPulse" in method else "MagTrans"
    pulse = method.structure(f"PVM_{ending}Pulse") or method.structure(f"PVM_{ending}Pulse1")
    duration = pulse[0] / 1e3 if pulse and isinstance(pulse[0], float) else None
    count = _first(method, ("PVM_SatTransNPulses", "PVM_MagTransPulsNumb"))
    delay = _first(method, (f"PVM_{ending}InterPulseDelay", f"PVM_{ending}InterDelay"))
    shape = method.text(f"PVM_{ending}PulseEnum") or method.text(f"PVM_{ending}Pulse1Enum")
    block = shape.split(".")[0] in _BLOCKS
    if duration is None or count is None:
        return protocol | {"saturation_type": None, "saturation_time_s": None}
    if block and (count == 1 or (delay is not None and delay == 0)):
        return protocol | {"saturation_type": "cw", "saturation_time_s": round(duration * count, 9)}
    known = "block" if block else _SHAPES.get(shape.lower().split(".")[0])
    if (count > 1 and delay is None) or known is None:
        # Of a pulse whose shape is unknown, neither power nor form can be simulated.
        return protocol | {"saturation_type": None, "saturation_time_s": None, "pulse_shape": None}
    train = {
        "saturation_type": "pulse_train",
        "n_pulses": int(count),
        "pulse_duration_s": round(duration, 9),
        "pulse_delay_s": round((delay or 0.0) / 1e3, 9),
        "pulse_shape": known,
    }
    return _mean_power(protocol, train) | train


def _mean_power(protocol: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
    """The protocol with the power of a train as a protocol gives it: the root mean square over pulses and gaps.

    ParaVision gives the amplitude of the pulse itself, which is known for block pulses. Of other shapes it may be the
    peak or a mean, which the file does not say.
    """
    amplitude = protocol["b1_uT"]
    if amplitude is None or train["pulse_shape"] != "block":
        return protocol | {"b1_uT": None}
    share = (train["pulse_duration_s"] / (train["pulse_duration_s"] + train["pulse_delay_s"])) ** 0.5
    values = amplitude if isinstance(amplitude, list) else [amplitude]
    mean = [round(value * share, 9) for value in values]
    return protocol | {"b1_uT": mean if isinstance(amplitude, list) else mean[0]}


def _first(method: ParameterFile, names: Sequence[str]) -> float | None:
    return next((method.number(name) for name in names if name in method), None)


def _in_order(b1: Any, reference: bool, count: int, order: Sequence[int]) -> Any:
    """B1 of every measurement: one number where it never changes."""
    if b1 is None or (not isinstance(b1, list) and not reference):
        return b1
    listed = b1 if isinstance(b1, list) else [b1] * count
    if len(listed) != count:
        return None
    values = [0.0] * reference + listed
    return [values[i] for i in order]
