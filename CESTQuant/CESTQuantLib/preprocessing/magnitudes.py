"""Units and scales recognised by magnitude: converted where they are certain, refused with the remedy where not.

A value in another unit gives a wrong map rather than an error, so every input is compared with what is physically
possible. Each function returns the value in its proper unit and sentences for the user about what was converted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.spectra import ZSpectra
from .water_line import line_centers, lowest_offsets

if TYPE_CHECKING:
    from ..tissue.model import TissueModel

HZ_STEP = 20.0
"""No acquisition has its offsets this far apart in ppm around water, on either side."""
FEWEST_HZ, NARROWEST_PPM = 8, 1.5
"""A spectrum within this many ppm of water has at least this many different distances from it."""
LARGEST_B0_SHIFT_PPM = 5.0
"""No volume has a shift of the water beyond this."""
PERCENT = (50.0, 150.0)
"""Range in which the typical value of a quantity near 1 lies that is given in percent."""
RELATIVE_B1 = (0.2, 3.0)
"""Range of the median of a map of the relative B1."""
T1_SECONDS = (0.02, 20.0)
"""Range of the median of a map of the water T1 in s."""
MILLISECONDS_ABOVE_S = 50.0
"""No T1 is this long in s."""
LONGEST_T2_S = 10.0
"""No T2 is this long in s."""
LONGEST_SEMISOLID_T2_S = 0.01
"""The T2 of a semisolid pool is about 10 us."""
Z_LEVEL = (0.01, 1.2, 2.0)
"""The largest Z of a spectrum: too small, doubtful, and impossible."""
MOST_VOXELS = 4000
"""Voxels that a level is taken from; larger volumes are thinned out evenly."""
CLEARLY_BETTER = 0.3
"""Share of the distance between a B0 map and the water line at which another unit or sign explains the line better."""
CLEAR_SHIFT_PPM = 0.1
"""Voxels whose shift in a B0 map is smaller than this say nothing about its sign."""
OPPOSITE_SLOPE = -0.25
"""Slope of the water line over a B0 map from which on the map has the opposite sign; noise moves it towards 0."""
CERTAIN_SLOPE = 5.0
"""Standard errors by which such a slope differs from 0."""


@dataclass(frozen=True)
class Larmor:
    """Larmor frequency of the acquisition.

    Attributes:
        MHz: Frequency in MHz, by which a frequency in Hz is divided to be in ppm.
        known: Whether the protocol gives the field; otherwise it is assumed and nothing can be converted.
    """

    MHz: float
    known: bool

    @classmethod
    def of(cls, protocol: Protocol, known: bool) -> Larmor:
        """Return the Larmor frequency of a protocol; ``known`` tells whether its field strength was given."""
        return cls(protocol.rad_per_s_per_ppm / (2 * torch.pi), known)


def offsets_in_ppm(protocol: Protocol, known_field: bool, where: str) -> tuple[Protocol, list[str]]:
    """Convert offsets that can only be meant in Hz.

    These are offsets on both sides of water, at least three on each, which without the farthest (the M0 reference) have
    a median distance from water of more than 20. Offsets of pure semisolid measurements, which are as far but not as
    many near water, are left alone: fewer than eight distances that would all lie within 1.5 ppm.

    Args:
        protocol: Protocol as read.
        known_field: Whether the protocol gives the field strength.
        where: Name of the protocol or signal in messages.

    Returns:
        The protocol in ppm, and a sentence where it was converted.

    Raises:
        ValueError: The offsets are in Hz, and the field strength is not known.
    """
    offsets = protocol.offsets_ppm.detach()
    distinct = offsets.abs()[offsets != 0].unique()
    if len(distinct) < 3:
        return protocol, []
    near = distinct[:-1]
    sides = [int((side * offsets > 0).sum()) for side in (-1, 1)]
    lowest_step = float(distinct.diff().min()) if len(distinct) > 1 else 0.0
    if min(sides) < 3 or float(near.median()) <= HZ_STEP or lowest_step < 1:
        return protocol, []
    larmor = Larmor.of(protocol, known_field)
    if len(distinct) < FEWEST_HZ and float(near.max()) / larmor.MHz < NARROWEST_PPM:
        return protocol, []
    range_text = f"{float(offsets.min()):g} to {float(offsets.max()):g}"
    if not larmor.known:
        raise ValueError(
            f"{where}: the offsets ({range_text}) look like Hz, not ppm: give the field strength in T to have them "
            "converted (--field-strength), or divide them by the Larmor frequency in MHz"
        )
    warning = f"the offsets of {where} ({range_text}) are taken to be in Hz and divided by {larmor.MHz:.5g} MHz"
    return replace(protocol, offsets_ppm=protocol.offsets_ppm / larmor.MHz), [warning]


def b0_in_ppm(values: Tensor, spectra: ZSpectra, larmor: Larmor, name: str) -> tuple[Tensor, list[str]]:
    """Convert a B0 map in Hz, and compare its sign with the water line of the spectra where they show one.

    Args:
        values: Map (voxel,).
        spectra: Spectra of the same voxels.
        larmor: Larmor frequency of the acquisition.
        name: What messages call the map: a file or a name, in quotation marks.

    Returns:
        The map in ppm, and sentences for the user.

    Raises:
        ValueError: The values are neither ppm nor Hz, or are Hz of an unknown field.
    """
    known = values[torch.isfinite(values) & (values != 0)]
    if len(known) == 0:
        return values, []
    reach = float(_thinned(known.abs()).quantile(0.9))
    distance = _distances_from_water(values, spectra, larmor)
    if reach > LARGEST_B0_SHIFT_PPM:
        described = f"the B0 map {name} (a tenth of its values beyond ±{reach:.3g})"
        if not larmor.known:
            raise ValueError(
                f"{described} looks like Hz, not ppm: give the field strength in T to have it converted "
                "(--field-strength, or a protocol that says it), or divide it by the Larmor frequency in MHz"
            )
        if reach / larmor.MHz > LARGEST_B0_SHIFT_PPM:
            raise ValueError(f"{described} is neither in ppm nor in Hz: convert it to ppm")
        noted = [f"{described} is taken to be in Hz and divided by {larmor.MHz:.5g} MHz"]
        values = values / larmor.MHz
        return values, [*noted, *([_opposite(name)] if _runs_against_water(values, spectra) else [])]
    if _runs_against_water(values, spectra):
        return values, [_opposite(name)]
    if distance is None:
        return values, []
    if distance["opposite"] < CLEARLY_BETTER * distance["ppm"]:
        return values, [_opposite(name)]
    if distance["Hz"] < CLEARLY_BETTER * distance["ppm"]:
        return values, [
            f"the water lines of the spectra do not have the shifts of the B0 map {name}, whose median distance from "
            f"them is {distance['ppm']:.2g} ppm: check that it is in ppm and that the spectra are not corrected already"
        ]
    return values, []


def _opposite(name: str) -> str:
    return (
        f"the B0 map {name} has the opposite sign of the shift of the water line: a positive shift is a water line at "
        "a positive offset"
    )


def _runs_against_water(values: Tensor, spectra: ZSpectra) -> bool:
    """Whether the water line of the spectra moves to lower offsets where a B0 map (voxel,) in ppm is higher."""
    step = max(1, len(values) // MOST_VOXELS)
    shift = values[::step].double()
    center = line_centers(spectra.signal[::step], spectra.protocol)
    if center is None:
        return False
    usable = torch.isfinite(shift) & torch.isfinite(center) & (shift.abs() > CLEAR_SHIFT_PPM)
    count = int(usable.sum())
    if count < 3:
        return False
    x, y = (each[usable] - each[usable].mean() for each in (shift, center))
    slope = float((x * y).sum() / x.square().sum())
    error = float(((y - slope * x).square().sum() / (count - 2) / x.square().sum()).sqrt())
    return slope < OPPOSITE_SLOPE and -slope > CERTAIN_SLOPE * error


def _distances_from_water(values: Tensor, spectra: ZSpectra, larmor: Larmor) -> dict[str, float] | None:
    """Median distances in ppm between the water line and a B0 map, by what the map could mean.

    None where the spectra do not sample the water line, or the map agrees with it within the sampling.
    """
    if spectra.protocol.signal_normalisation == "l2":
        return None
    step = max(1, len(values) // MOST_VOXELS)
    some = values[::step]
    found = lowest_offsets(spectra.signal[::step], spectra.protocol.offsets_ppm)
    if found is None:
        return None
    lowest, spacing = found
    usable = torch.isfinite(some) & torch.isfinite(lowest) & (some != 0)
    if int(usable.sum()) < 3:
        return None
    meanings = {"ppm": some, "Hz": some / larmor.MHz, "opposite": -some}
    distances = {name: float((lowest - meant)[usable].abs().median()) for name, meant in meanings.items()}
    return distances if distances["ppm"] > spacing else None


def b1_relative(values: Tensor, name: str) -> tuple[Tensor, list[str]]:
    """Convert a map of the relative B1 in percent.

    Args:
        values: Map (voxel,).
        name: What messages call the map: a file or a name, in quotation marks.

    Returns:
        The map relative to the nominal B1, and a sentence where it was converted.

    Raises:
        ValueError: The values are neither relative nor percent, such as flip angles in degrees.
    """
    median = _median(values)
    if median is None or RELATIVE_B1[0] <= median <= RELATIVE_B1[1]:
        return values, []
    if PERCENT[0] <= median <= PERCENT[1]:
        return values / 100, [f"the B1 map {name} has a median of {median:g} and is taken to be in %"]
    raise ValueError(
        f"the B1 map {name} has a median of {median:g}, which is neither relative (about 1) nor percent (about 100): "
        "divide flip angles by the nominal one, and B1 in uT by the nominal B1"
    )


def t1_in_s(values: Tensor, name: str) -> tuple[Tensor, list[str]]:
    """Convert a map of T1 in ms.

    Args:
        values: Map (voxel,).
        name: What messages call the map: a file or a name, in quotation marks.

    Returns:
        The map in s, and a sentence where it was converted.

    Raises:
        ValueError: The values are neither s nor ms.
    """
    median = _median(values)
    if median is None or T1_SECONDS[0] <= median <= T1_SECONDS[1]:
        return values, []
    if MILLISECONDS_ABOVE_S < median <= 1000 * T1_SECONDS[1]:
        return values / 1000, [f"the T1 map {name} has a median of {median:g} and is taken to be in ms"]
    raise ValueError(f"the T1 map {name} has a median of {median:g}, which is neither s nor ms: convert it to s")


def require_seconds(model: TissueModel, where: str = "the model") -> None:
    """Refuse relaxation times of a tissue model that can only be meant in ms or us.

    Args:
        model: Tissue model.
        where: Name of the model in messages.

    Raises:
        ValueError: A T1 is longer than 50 s, a T2 longer than twice the T1 of the same pool (than 10 s where that
            is a map), or the T2 of the semisolid
            pool longer than 10 ms; the message names the entry.
    """
    for path, entry in model.entries.items():
        value = _number_of(entry)
        owner, _, key = path.rpartition(".")
        if value is None or key not in ("T1_s", "T2_s"):
            continue
        t1 = _number_of(model.entries.get(f"{owner}.T1_s"))
        longest = MILLISECONDS_ABOVE_S if key == "T1_s" else LONGEST_T2_S if t1 is None else 2 * t1
        if owner == "semisolid" and key == "T2_s":
            longest = LONGEST_SEMISOLID_T2_S
        if value > longest:
            unit = "us" if owner == "semisolid" and key == "T2_s" else "ms"
            raise ValueError(f"{where}: {path} is {value:g}, which cannot be in s: give it in s, not in {unit}")


def _number_of(entry: object) -> float | None:
    """Return the value of an entry, or the start of a fitted one; None for a map."""
    value = getattr(entry, "start", entry)
    return value if isinstance(value, float) else None


def plausible_z(spectra: ZSpectra, brightness: Tensor, own_reference: bool, where: str) -> tuple[ZSpectra, list[str]]:
    """Check that normalised spectra lie between 0 and 1, and convert percent.

    The level of the spectra is the median over the bright voxels of the largest tenth of Z.

    Args:
        spectra: Spectra as normalised.
        brightness: Signal (voxel,) in scanner units, which tells tissue from background.
        own_reference: Whether the reference lies in the signal itself, so that its scale cannot be another one.
        where: Name of the signal in messages.

    Returns:
        The spectra as fractions of M0, and sentences for the user.

    Raises:
        ValueError: The signal is not normalised, or the reference has another scale.
    """
    level = _level(spectra, brightness)
    if spectra.protocol.signal_normalisation == "l2" or level is None:
        return spectra, []
    smallest, doubtful, impossible = Z_LEVEL
    if PERCENT[0] <= level <= PERCENT[1] and not own_reference:
        sentence = f"the normalised signal of {where} reaches {level:.3g} and is taken to be in % of M0"
        return replace(spectra, signal=spectra.signal / 100), [sentence]
    if own_reference:
        if level > doubtful:
            return spectra, [_above_reference(where, level)]
        return spectra, []
    if spectra.protocol.signal_normalisation == "none":
        if level > impossible:
            raise ValueError(
                f"{where} reaches {level:.4g}, but a signal that is normalised already reaches about 1: "
                "set signal_normalisation to 'm0' and give an M0 image"
            )
        return spectra, []
    if level > impossible or level < smallest:
        raise ValueError(
            f"{where} reaches {level:.3g} of its M0 image, which has another scale: give an M0 image of the same "
            "receiver gain and rescaling"
        )
    return spectra, [_above_reference(where, level)] if level > doubtful else []


def _above_reference(where: str, level: float) -> str:
    return f"{where} reaches {level:.3g} of its M0 reference: check that this is the reference of the same acquisition"


def _level(spectra: ZSpectra, brightness: Tensor) -> float | None:
    """Median over bright voxels of the 0.9 quantile of the signal over the measurements; None without a signal."""
    usable = torch.isfinite(spectra.signal).any(1) & torch.isfinite(brightness)
    if not bool(usable.any()):
        return None
    signal, bright = _thinned(spectra.signal[usable]), _thinned(brightness[usable])
    return float(signal[bright_voxels(bright)].abs().nanquantile(0.9, 1).nanmedian())


def bright_voxels(brightness: Tensor) -> Tensor:
    """Tell the voxels of tissue from those of air: those with at least 0.3 of the 0.98 quantile of the brightness.

    Args:
        brightness: Signal (voxel,) in scanner units, finite.

    Returns:
        Boolean (voxel,).
    """
    return brightness >= 0.3 * _thinned(brightness).quantile(0.98)


def _median(values: Tensor) -> float | None:
    positive = values[values > 0]
    return float(positive.median()) if len(positive) else None


def _thinned(values: Tensor) -> Tensor:
    return values[:: max(1, len(values) // MOST_VOXELS)]
