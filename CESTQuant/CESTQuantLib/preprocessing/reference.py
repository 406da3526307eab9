"""The M0 reference within an acquisition: which of its measurements serve as M0, and how they act over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from ..physics.protocol import PER_MEASUREMENT, Protocol
from .magnitudes import bright_voxels

FAR_OFF_RESONANCE_PPM = 20.0
"""Measurements closer to water than this never serve as M0 reference unless the protocol says so."""
LITTLE_SATURATED_PPM = 50.0
"""From here on the semisolid pool of tissue is hardly saturated; a reference closer to water comes out too low."""
SAME_DISTANCE = 0.01
"""Offsets whose distances from water differ by less than this share are equally far."""
LARGEST_STEP = 0.15
"""Neighbouring references that differ by more than this share have no drift between them but a step."""

INTERPOLATED, MEAN = "interpolated", "mean"
M0_OVER_TIME = (INTERPOLATED, MEAN)
"""How several M0 references act: interpolated linearly at the time of every measurement, or averaged."""


@dataclass(frozen=True)
class M0Measurements:
    """The measurements of an acquisition that serve as its M0 reference.

    Attributes:
        index: Their indices (n,), in the order of the acquisition.
        offsets_ppm: Their offsets (n,) in ppm.
        warnings: Sentences for the user.
    """

    index: Tensor
    offsets_ppm: Tensor
    warnings: tuple[str, ...] = ()


def m0_measurements(protocol: Protocol, where: str = "the signal") -> M0Measurements:
    """Find the measurements that serve as M0 reference.

    They are those that the protocol names, else the farthest from water, provided that they lie at least 20 ppm away.

    Args:
        protocol: Protocol of the measurements.
        where: Name of the signal in messages.

    Returns:
        The measurements, with a warning where other measurements lie beyond 20 ppm too, or where the reference itself
        is close enough to water to be saturated.

    Raises:
        ValueError: There is no such measurement, or no other one.
    """
    distance = protocol.offsets_ppm.abs()
    if protocol.m0_measurements:
        chosen = torch.zeros_like(distance, dtype=torch.bool)
        chosen[[number - 1 for number in sorted(protocol.m0_measurements)]] = True
    else:
        chosen = (distance >= FAR_OFF_RESONANCE_PPM) & (distance >= (1 - SAME_DISTANCE) * distance.max())
    if not bool(chosen.any()) or bool(chosen.all()):
        raise InputError(
            "protocol",
            f"no M0 reference for {where}: give an M0 image or a measurement at least {FAR_OFF_RESONANCE_PPM:g} ppm "
            "off resonance, or set signal_normalisation to 'none' if the signal is normalised already",
        )
    index = torch.nonzero(chosen).flatten()
    offsets = protocol.offsets_ppm[index]
    warnings = () if protocol.m0_measurements else _warnings(protocol.offsets_ppm, chosen)
    warnings += _carried_over_warnings(protocol, chosen)
    return M0Measurements(index, offsets, warnings)


def with_m0_named(protocol: Protocol) -> Protocol:
    """Return a protocol that names its M0 measurements where they are beyond doubt.

    They are those that serve as M0 in a scan without an M0 image, provided that they have no RF. Measurements far off
    resonance that have RF may also be meant to tell something about the semisolid pool.
    """
    far = bool((protocol.offsets_ppm.abs() >= FAR_OFF_RESONANCE_PPM).any())
    if protocol.signal_normalisation != "m0" or protocol.m0_measurements or not far:
        return protocol
    chosen = m0_measurements(protocol).index
    if bool(((protocol.b1_uT > 0) & (protocol.saturation_time_s > 0))[chosen].any()):
        return protocol
    return replace(protocol, m0_measurements=tuple(index + 1 for index in chosen.tolist()))


def _warnings(offsets_ppm: Tensor, chosen: Tensor) -> tuple[str, ...]:
    """Sentences about a reference that is found from the offsets alone."""
    distance = offsets_ppm.abs()
    used = _listed(offsets_ppm[chosen])
    others = (distance >= FAR_OFF_RESONANCE_PPM) & ~chosen
    warnings = []
    if bool(others.any()):
        warnings.append(
            f"only the farthest measurements ({used} ppm) serve as M0 reference; those at "
            f"{_listed(offsets_ppm[others])} ppm stay in the spectrum: name others as m0_measurements in the protocol "
            "if they are meant"
        )
    if float(distance[chosen].max()) < LITTLE_SATURATED_PPM:
        warnings.append(
            f"the farthest measurements ({used} ppm) serve as M0 reference, where tissue is saturated already: "
            "give an M0 image if there is one"
        )
    return tuple(warnings)


def _carried_over_warnings(protocol: Protocol, chosen: Tensor) -> tuple[str, ...]:
    """A sentence about references between the measurements that leave magnetisation for the next one."""
    angle = protocol.readout_flip_angle_deg
    if not protocol.magnetisation_carried_over:
        return ()
    if protocol.events is not None:
        last = int(torch.nonzero(~chosen)[-1])
        if not bool(chosen[:last].any()):
            return ()
        return (
            "the M0 measurements before other measurements are left out of the sequence that the fit simulates, "
            "although the magnetisation is carried over, so that the measurement after each may start from the wrong "
            "magnetisation: give these M0 images separately, or expect errors in the measurement after each",
        )
    angle_deg = torch.zeros(len(chosen)) if angle is None else angle.expand(len(chosen))  # a sample changes nothing
    first = int(torch.nonzero(~chosen)[0])
    between = chosen.clone()
    between[:first] = between[-1] = False  # what leads is known, and after the last one nothing follows
    if not bool((between & (torch.cos(torch.deg2rad(angle_deg)).abs() > 0.01)).any()):
        return ()
    return (
        "M0 measurements lie between the others and, without an excitation of 90 degrees, leave magnetisation for the "
        "next measurement, which the fit takes from the measurement before instead: give these M0 images separately, "
        "or expect errors in the measurement after each",
    )


def _listed(offsets_ppm: Tensor) -> str:
    """Return the distinct offsets as text."""
    return ", ".join(f"{offset:g}" for offset in offsets_ppm.unique().tolist())


def in_time(references: Tensor, at: Tensor, wanted: Tensor, over_time: str = INTERPOLATED) -> Tensor:
    """Return the M0 reference at the times of measurements.

    Args:
        references: References (voxel, n).
        at: Ascending times (n,) of the references, such as their numbers in the acquisition.
        wanted: Times (measurement,) of the measurements, in the same unit.
        over_time: ``interpolated`` (linear in time, constant beyond the ends) or ``mean``.

    Returns:
        References of shape (voxel, measurement), or (voxel, 1) where they do not change. A reference that is not a
        positive number does not count; where others of the same voxel are, they take its place, unless every
        measurement has its own. Voxels without any are NaN.

    Raises:
        ValueError: ``over_time`` is unknown; the message lists the known ones.
    """
    if over_time not in M0_OVER_TIME:
        raise ValueError(f"M0 over time '{over_time}' is unknown; use one of {', '.join(M0_OVER_TIME)}")
    references = torch.where(_usable(references), references, torch.nan)
    if len(at) == 1:
        return references
    if over_time == MEAN:
        return references.nanmean(1, keepdim=True)
    if len(at) == len(wanted):
        return references
    found = _interpolated(references, at, wanted)
    gaps = references.isnan()
    incomplete = gaps.any(1) & ~gaps.all(1)
    if bool(incomplete.any()):
        found[incomplete] = _interpolated_over_gaps(references[incomplete], at, wanted)
    return found


def _interpolated(references: Tensor, at: Tensor, wanted: Tensor) -> Tensor:
    """References (voxel, n) at the wanted times, linear in time and constant beyond the ends."""
    upper = torch.searchsorted(at, wanted).clamp(1, len(at) - 1)
    lower = upper - 1
    weight = ((wanted - at[lower]) / (at[upper] - at[lower])).clamp(0, 1)
    return references[:, lower] * (1 - weight) + references[:, upper] * weight


def _interpolated_over_gaps(references: Tensor, at: Tensor, wanted: Tensor) -> Tensor:
    """The same for voxels that have at least one reference, between those that are not NaN."""
    numbers = torch.where(references.isnan(), -1, torch.arange(len(at)))
    before = numbers.cummax(1).values
    after = torch.where(numbers < 0, len(at), numbers).flip(1).cummin(1).values.flip(1)
    next_one = torch.searchsorted(at, wanted)
    none = torch.full_like(numbers[:, :1], -1)
    lower = torch.cat((none, before), 1)[:, next_one]  # -1 where none lies before
    upper = torch.cat((after, torch.full_like(none, len(at))), 1)[:, next_one]  # n where none lies after
    lower, upper = torch.where(lower < 0, upper, lower), torch.where(upper == len(at), lower, upper)
    weight = torch.where(lower == upper, 0.0, (wanted - at[lower]) / (at[upper] - at[lower]))
    return references.gather(1, lower) * (1 - weight) + references.gather(1, upper) * weight


def _usable(references: Tensor) -> Tensor:
    """Whether references are positive numbers, by which a signal can be divided."""
    return torch.isfinite(references) & (references > 0)


def blocks(references: Tensor, index: Tensor, protocol: Protocol) -> list[int]:
    """Find the parts of an acquisition that have an M0 reference of their own, as those of another receiver gain.

    Such a part opens with its reference, which differs from the one before by more than ``LARGEST_STEP``, and its
    measurements were all made with the same settings, which differ from those of the part before in more than the
    offsets.

    Args:
        references: References (voxel, n).
        index: Their ascending numbers (n,) in the acquisition.
        protocol: Protocol of all measurements.

    Returns:
        Numbers of the measurements with which the parts begin; the first is 0.
    """
    settings = [value for name in PER_MEASUREMENT[1:] if (value := getattr(protocol, name)) is not None]
    rows = torch.stack([value.detach().double() for value in settings], 1)
    is_reference = torch.zeros(protocol.measurement_count, dtype=torch.bool)
    is_reference[index] = True

    def common(measurements: range) -> Tensor | None:
        """Settings of the measurements of this range up to the next reference; None where they differ."""
        run: list[int] = []
        for measurement in measurements:
            if not is_reference[measurement]:
                run.append(measurement)
            elif run:
                break
        alike = bool(run) and torch.allclose(rows[run], rows[run[0]], rtol=0, atol=1e-6)
        return rows[run[0]] if alike else None

    starts = [0]
    for number in steps(references):
        start = int(index[number])
        before, after = common(range(start - 1, -1, -1)), common(range(start, protocol.measurement_count))
        if before is not None and after is not None and not torch.allclose(before, after, rtol=0, atol=1e-6):
            starts.append(start)
    return starts


def steps(references: Tensor) -> dict[int, float]:
    """Return the numbers of the references that differ from the one before by a step, with their ratio.

    The ratio is the median over the bright voxels; a step is a ratio beyond ``LARGEST_STEP`` in either direction. The
    one before is the last that has a positive value in the voxel.
    """
    found = {}
    last = references[:, 0]
    for number in range(1, references.shape[1]):
        before, after = last, references[:, number]
        last = torch.where(_usable(after), after, before)
        usable = _usable(before) & _usable(after)
        if not bool(usable.any()):
            continue
        before, after = before[usable], after[usable]
        ratio = float((after / before)[bright_voxels(before + after)].median())
        if max(ratio, 1 / ratio) > 1 + LARGEST_STEP:
            found[number] = ratio
    return found


def gap_warnings(references: Tensor, index: Tensor | None, where: str) -> tuple[str, ...]:
    """Return a sentence for the user where tissue lacks some of its M0 references, otherwise nothing.

    Args:
        references: References (voxel, n) that act over time, as in :func:`in_time`.
        index: Their ascending numbers (n,) in the acquisition; None for images of their own.
        where: Name of the signal in messages.
    """
    usable = _usable(references)
    references, usable = references[usable.any(1)], usable[usable.any(1)]
    if bool(usable.all()):
        return ()
    bright = bright_voxels(torch.where(usable, references, torch.nan).nanmean(1))
    gaps = ~usable[bright]
    empty = torch.nonzero(gaps.any(0)).flatten()
    if len(empty) == 0:
        return ()
    kind = "image" if index is None else "measurement"
    numbers = ", ".join(str(number + 1) for number in (empty if index is None else index[empty]).tolist())
    several = len(empty) > 1
    return (
        f"M0 {kind}{'s' if several else ''} {numbers} of {where} {'have' if several else 'has'} no positive value in "
        f"{int(gaps.any(1).sum())} of {len(gaps)} voxels of tissue, for which the others are used: check the "
        f"reconstruction of {'these' if several else 'this'} {kind}{'s' if several else ''}",
    )


def step_warnings(
    references: Tensor, index: Tensor | None, protocol: Protocol, over_time: str, where: str
) -> tuple[str, ...]:
    """Return a sentence for the user where neighbouring references differ by more than drift, otherwise nothing.

    Interpolated ones matter only where measurements lie between them: those that lead, before the steady state is
    reached, act on nothing.

    Args:
        references: References (voxel, n).
        index: Their ascending numbers (n,) in the acquisition; None for images of their own.
        protocol: Protocol of all measurements.
        over_time: How several references act, as in :func:`in_time`.
        where: Name of the signal in messages.
    """
    found = steps(references)
    if not found or (index is None and references.shape[1] == protocol.measurement_count):
        return ()
    own = set() if index is None else set(blocks(references, index, protocol)[1:])
    explained = {number for number in found if index is not None and int(index[number]) in own}
    acting = {
        number
        for number in found
        if over_time == MEAN or index is None or int(index[number] - index[number - 1]) > 1  # something lies between
    }

    def factor(numbers: set[int]) -> float:
        return max(max(found[number], 1 / found[number]) for number in numbers)

    if left := acting - explained:
        action = "averaged" if over_time == MEAN else "interpolated in time"
        steady = " leave out those that are not yet in steady state," if over_time == MEAN else ""
        return (
            f"neighbouring M0 of {where} differ by a factor of {factor(left):.2g} and are {action} all the same: check "
            f"the receiver gain and the rescaling,{steady} and quantify acquisitions of another gain separately",
        )
    if explained:
        return (
            f"M0 of {where} changes by a factor of {factor(explained):.2g} between parts of the acquisition with other "
            "settings, so that every part is divided by its own M0",
        )
    return ()


def shared_noise(at: Tensor, wanted: Tensor, over_time: str = INTERPOLATED, references: Tensor | None = None) -> float:
    """Return how much of the noise of the M0 references is common to all measurements of a voxel.

    A signal divided by M0 deviates by ``noise - Z * noise of M0``. The second part has the same sign in all
    measurements, so that it does not average out over them.

    Args:
        at: Times (n,) of the references, as in :func:`in_time`.
        wanted: Times (measurement,) of the measurements.
        over_time: How several references act, as in :func:`in_time`.
        references: References (voxel, n), of which those that no voxel has do not count, unless every measurement has
            its own; None to count all.

    Returns:
        Variance of the mean reference over the measurements, relative to that of one reference: 1 for a single one, 1/n
        for the mean of n, and in between for interpolated ones. A reference counts as noisy as a measurement.
    """
    each_its_own = over_time != MEAN and len(at) == len(wanted)
    if references is not None and not each_its_own and bool((present := _usable(references).any(0)).any()):
        at = at[present]
    if over_time == MEAN:
        return 1 / len(at)
    weights = torch.eye(len(at), dtype=torch.float64)
    if len(at) > 1 and not each_its_own:
        weights = _interpolated(weights, at, wanted)
    return float(weights.mean(1).square().sum())
