"""Contrasts at chosen offsets: MTRasym, its smoothed form, APT weighting in percent, and MTR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..physics.protocol import Protocol
    from ..tissue.spectra import ZSpectra

APT_WINDOW = (-5.0, 5.0)
"""Display window of APT-weighted images in percent (Zhou et al., Magn Reson Med 2022;88:546)."""
APT_FIELD_T, APT_B1_UT = 3.0, 2.0
"""Field and B1 of the acquisition for which the consensus and its window are made."""
APT_TOLERANCE = 0.1
"""Relative deviation from these from which the user is told."""


def mtr_asymmetry(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Evaluate MTRasym at the chosen offsets; without a B0 map, B0 is estimated from the water line."""
    from ..tissue.contrasts import mtr_asym

    return _asymmetry(spectra, settings, progress, mtr_asym, with_errors=True)


def smoothed_mtr_asymmetry(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Evaluate MTRasym at the chosen offsets on smoothing splines through the spectra.

    The strength of the smoothing is that of the lowest generalised cross-validation score of every spectrum, see
    ``fitting/smoothing_splines.py``. Measurements 20 ppm or more from water are left out.
    """
    from ..preprocessing.reference import FAR_OFF_RESONANCE_PPM
    from ..tissue.contrasts import smoothed_mtr_asym

    near = spectra.protocol.offsets_ppm.abs() < FAR_OFF_RESONANCE_PPM
    return _asymmetry(spectra.select(near), settings, progress, smoothed_mtr_asym)


def apt_weighted(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute APTw = 100 % (Z(-3.5 ppm) - Z(+3.5 ppm)), corrected for B0 by interpolation between the offsets.

    Without a B0 map, B0 is estimated from the water line where the spectra show one.
    """
    from ..tissue.contrasts import APT_OFFSET_PPM
    from ..tissue.contrasts import apt_weighted as asymmetry_of_amides

    used, warnings = _at_power(spectra, settings)
    shift, found, noted = water_position(used, progress)
    offsets = _offsets(used)

    def in_percent(z: Tensor, shift: Tensor | None) -> Tensor:
        return 100 * asymmetry_of_amides(z, offsets, shift).unsqueeze(1)

    values = in_percent(used.signal, shift)
    _require_both_sides(used, values[:, 0], APT_OFFSET_PPM, "APTw")
    warnings += [*noted, *_apt_protocol_warnings(used.protocol)]
    errors, summary = _errors(spectra, used, settings, in_percent, shift, ["aptw"])
    return _result(spectra, used, values, {**found, "aptw": values[:, 0], **errors}, warnings, summary)


def mtr(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute MTR = 100 % (1 - Z) at the chosen offsets, corrected for B0 by interpolation where there is a map."""
    import torch

    from ..tissue.contrasts import z_at

    wanted = _wanted(settings, "MTR", signed=True)
    used, warnings = _at_power(spectra, settings)
    offsets, at = _offsets(used), used.signal.new_tensor(wanted)

    def in_percent(z: Tensor, shift: Tensor | None) -> Tensor:
        return 100 * (1 - z_at(z, offsets, at, shift))

    values = in_percent(used.signal, used.b0_shift_ppm)
    for i, offset in enumerate(wanted):
        warnings += water_gap_warnings(used, (offset,), used.b0_shift_ppm, f"MTR at {offset:g} ppm")
        if not bool(torch.isfinite(values[:, i]).any()) and bool(torch.isfinite(used.signal).any()):
            raise InputError(
                "protocol",
                f"MTR at {offset:g} ppm needs a measurement there: choose the offset (--asymmetry-offset) among "
                f"{_span(used.protocol)}",
            )
    quantities = {f"mtr_{offset:g}ppm": values[:, i] for i, offset in enumerate(wanted)}
    errors, summary = _errors(spectra, used, settings, in_percent, used.b0_shift_ppm, list(quantities))
    return _result(spectra, used, values, quantities | errors, warnings, summary)


def _asymmetry(
    spectra: ZSpectra,
    settings: Settings,
    progress: Progress,
    asymmetry: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    with_errors: bool = False,
) -> Quantification:
    """Evaluate an asymmetry of (spectra, offsets, wanted offsets, B0 shift) at the chosen offsets.

    With ``with_errors``, standard errors follow from the derivatives of the asymmetry by the signals.
    """
    wanted = _wanted(settings, "MTRasym")
    used, warnings = _at_power(spectra, settings)
    shift, quantities, noted = water_position(used, progress)
    offsets, at = _offsets(used), used.signal.new_tensor(wanted)

    def at_wanted(z: Tensor, shift: Tensor | None) -> Tensor:
        return asymmetry(z, offsets, at, shift)

    values = at_wanted(used.signal, shift)
    names = [f"mtr_asym_{offset:g}ppm" for offset in wanted]
    for i, (offset, name) in enumerate(zip(wanted, names, strict=True)):
        noted += water_gap_warnings(used, (-offset, offset), shift, f"MTRasym at {offset:g} ppm")
        _require_both_sides(used, values[:, i], offset, "MTRasym")
        quantities[name] = values[:, i]
    errors, summary = _errors(spectra, used, settings, at_wanted, shift, names) if with_errors else ({}, {})
    return _result(spectra, used, values, quantities | errors, [*warnings, *noted], summary)


def _errors(
    spectra: ZSpectra,
    used: ZSpectra,
    settings: Settings,
    contrast: Callable[[Tensor, Tensor | None], Tensor],
    shift: Tensor | None,
    names: list[str],
) -> tuple[dict[str, Tensor], dict[str, float | int | str | None]]:
    """Return standard errors of a contrast (voxel, offset) of (spectra, B0 shift), and the noise for the summary.

    Nothing where the noise is not known, and where the spectra are interpolated between powers.
    """
    from ..preprocessing.powers import corrects_b1
    from ..preprocessing.repeats import noise_of_repeats, typical_noise
    from ..tissue.contrasts import contrast_errors

    noise_sd = noise_of_repeats(spectra) if settings.noise_sd is None else settings.noise_sd
    if noise_sd is None or corrects_b1(spectra):
        return {}, {}
    errors = contrast_errors(used.signal, contrast, shift, noise_sd, used.reference_noise)
    return {f"{name}_sd": errors[:, i] for i, name in enumerate(names)}, {"noise_sd": typical_noise(noise_sd, spectra)}


def _wanted(settings: Settings, what: str, signed: bool = False) -> tuple[float, ...]:
    """Return the different offsets that are asked for, which must be positive or, signed, not zero."""
    wanted = tuple(dict.fromkeys(settings.asymmetry_offsets_ppm))
    kind = "number of ppm that is not zero" if signed else "positive number of ppm"
    for offset in wanted:
        if not 0 < (abs(offset) if signed else offset) < float("inf"):
            raise InputError("asymmetry-offset", f"the offset of {what} must be a {kind}, not {offset:g}")
    return wanted


def _at_power(spectra: ZSpectra, settings: Settings) -> tuple[ZSpectra, list[str]]:
    """Return the spectra of the chosen power, and sentences about what is not used."""
    from ..preprocessing.powers import at_one_power, b1_warnings

    return at_one_power(spectra, settings.power_uT), b1_warnings(spectra, settings.power_uT)


def _offsets(spectra: ZSpectra) -> Tensor:
    return spectra.protocol.offsets_ppm.to(spectra.signal.device)


def water_position(spectra: ZSpectra, progress: Progress) -> tuple[Tensor | None, dict[str, Tensor], list[str]]:
    """Return the B0 shift (voxel,) of the map, else of the water line, else None; its map where it is estimated."""
    import torch

    from ..preprocessing.fields import estimate_b0_shift, shows_water

    if spectra.b0_shift_ppm is not None:
        return spectra.b0_shift_ppm, {}, []
    offsets = _offsets(spectra)
    if shows_water(offsets):
        shift = estimate_b0_shift(spectra.signal, offsets, progress=progress)
        if bool(torch.isfinite(shift).any()):
            return shift, {"b0_shift_ppm": shift}, []
    return None, {}, ["no B0 map, and the spectra show no water line: the asymmetry is not corrected for B0"]


def water_gap_warnings(spectra: ZSpectra, at_ppm: tuple[float, ...], shift_ppm: Tensor | None, what: str) -> list[str]:
    """Return a sentence where the water line was not acquired and a contrast would need its spectrum.

    Args:
        spectra: Spectra as acquired.
        at_ppm: Offsets from water that the contrast needs.
        shift_ppm: Position of the water (voxel,); None for zero.
        what: What the sentence calls the contrast.

    Raises:
        ValueError: This is so in all voxels.
    """
    import torch

    from ..fitting.interpolation import in_water_gap, water_gap

    offsets = _offsets(spectra)
    gap = water_gap(offsets)
    if gap is None:
        return []
    shift = torch.zeros_like(spectra.signal[:, 0]) if shift_ppm is None else shift_ppm
    usable = torch.isfinite(spectra.signal).all(1) & torch.isfinite(shift)
    at = offsets.new_tensor(at_ppm)
    in_gap = usable[:, None] & in_water_gap(at + shift[:, None].to(offsets), offsets)
    count, of = int(in_gap.any(1).sum()), int(usable.sum())
    if count == 0:
        return []
    named = [f"{place:g}" for place, missed in zip(at_ppm, in_gap.any(0).tolist(), strict=True) if missed]
    together = len(named) > 1 and bool((in_gap.sum(1) != 1).all())
    places, lies = (" and ".join(named), "lie") if together else (" or ".join(named), "lies")
    where = f"{places} ppm from water {lies} between {gap[0]:g} and {gap[1]:g} ppm, where there are no offsets"
    if count < of:
        return [f"{what} is not given in {count} of {of} voxels, because with their shift of B0 {where}"]
    low, high = (f"{float(limit):.2f}" for limit in shift[usable].aminmax())
    span = low if low == high else f"{low} to {high}"
    shifted = "" if span.strip("-") == "0.00" else f"with the shift of B0 of {span} ppm, "
    if _acquired_farther(at, shift[usable], offsets, gap):
        remedy = "choose one farther from water (--asymmetry-offset)"
    elif spectra.b0_shift_ppm is None:
        remedy = "the shift is too large for these offsets, so acquire offsets on the water line and farther from it"
    else:
        remedy = (
            "the shift is too large for these offsets, so check the unit and the sign of the B0 map (--b0), or leave "
            "it out"
        )
    raise InputError("protocol", f"{what} is not known, because {shifted}{where}: {remedy}")


def _acquired_farther(at: Tensor, shift_ppm: Tensor, offsets_ppm: Tensor, gap: tuple[float, float]) -> bool:
    """Whether in some voxel all places (k,) lie at acquired offsets if they are moved away from water by the same."""
    import torch

    from ..fitting.interpolation import SAME_OFFSET_PPM

    below = at < 0
    outward = torch.where(below, -shift_ppm[:, None].to(at), shift_ppm[:, None].to(at))  # (voxel, k)
    nearest = torch.where(below, -gap[0], gap[1]) - outward
    farthest = torch.where(below, -offsets_ppm.min(), offsets_ppm.max()) - outward
    return bool((nearest.amax(1) <= farthest.amin(1) + SAME_OFFSET_PPM).any())


def _require_both_sides(spectra: ZSpectra, values: Tensor, offset: float, what: str) -> None:
    import torch

    usable = torch.isfinite(spectra.signal).any(1)
    if spectra.b0_shift_ppm is not None:
        usable = usable & torch.isfinite(spectra.b0_shift_ppm)
    if bool(usable.any()) and not bool(torch.isfinite(values).any()):
        raise InputError(
            "protocol",
            f"{what} needs measurements on both sides of water at ±{offset:g} ppm; the offsets span "
            f"{_span(spectra.protocol)}",
        )


def _span(protocol: Protocol) -> str:
    return f"{float(protocol.offsets_ppm.min()):g} to {float(protocol.offsets_ppm.max()):g} ppm"


def _apt_protocol_warnings(protocol: Protocol) -> list[str]:
    """Return a sentence where field or B1 are known and not those of the consensus, otherwise nothing."""
    if not bool((protocol.saturation_time_s > 0).any()):  # a list of offsets says neither
        return []
    b1_uT = float(protocol.b1_uT.max())
    pairs = ((protocol.field_strength_T, APT_FIELD_T), (b1_uT, APT_B1_UT))
    if all(abs(value / usual - 1) <= APT_TOLERANCE for value, usual in pairs):
        return []
    return [
        f"APTw was acquired with {b1_uT:.3g} uT at {protocol.field_strength_T:.3g} T: its values and the window of "
        f"-5 to 5 % compare only with acquisitions of that kind, and the consensus is for {APT_B1_UT:g} uT at "
        f"{APT_FIELD_T:g} T"
    ]


def _result(
    spectra: ZSpectra,
    used: ZSpectra,
    values: Tensor,
    quantities: dict[str, Tensor],
    warnings: list[str],
    summary: Mapping[str, float | int | str | None] | None = None,
) -> Quantification:
    """Return the maps; a voxel has failed where one of the values (voxel, offset) is missing in spite of its data."""
    import torch

    from ..fitting.marquardt import Status

    found = torch.isfinite(values).all(1)
    unusable = ~torch.isfinite(used.signal).all(1)
    if spectra.b0_shift_ppm is not None:
        unusable |= ~torch.isfinite(spectra.b0_shift_ppm)
    status = torch.where(found, Status.CONVERGED, torch.where(unusable, Status.INVALID_DATA, Status.FAILED))
    return Quantification(
        quantities,
        status.to(torch.uint8),
        used.signal,
        used.protocol,
        summary=summary or {},
        warnings=tuple(warnings),
    )


_TAKES = (Input.ASYMMETRY_OFFSET, Input.POWER, Input.B0, Input.B1)
_ASYMMETRY = (Quantity("mtr_asym_*", color_map="diverging", centered=True, rank=0), B0_SHIFT)

METHODS = (
    Method(
        "mtrasym",
        "MTR asymmetry",
        "Difference between the spectrum at -offset and +offset.",
        mtr_asymmetry,
        takes=_TAKES,
        quantities=_ASYMMETRY,
        publications=("Zhou et al., Nat Med 2003;9:1085",),
    ),
    Method(
        "aptw",
        "APT weighting in percent (consensus)",
        "Amide-proton-transfer weighting in percent: 100 (Z(-3.5 ppm) - Z(3.5 ppm)), shown from -5 to 5 %.",
        apt_weighted,
        takes=(Input.POWER, Input.B0, Input.B1),
        quantities=(Quantity("aptw", "%", "rainbow", rank=0, window=APT_WINDOW), B0_SHIFT),
        publications=("Zhou et al., Magn Reson Med 2022;88:546",),
    ),
    Method(
        "mtrasym-spline",
        "MTR asymmetry of smoothed spectra",
        "MTR asymmetry of a smoothing spline through each spectrum, for noisy spectra with many offsets.",
        smoothed_mtr_asymmetry,
        takes=_TAKES,
        quantities=_ASYMMETRY,
        publications=("Stancanello et al., Contrast Media Mol Imaging 2008;3:136",),
    ),
    Method(
        "mtr",
        "MTR in percent",
        "Magnetisation transfer ratio: loss of signal at an offset in percent of M0.",
        mtr,
        takes=_TAKES,
        quantities=(Quantity("mtr_*ppm", "%", rank=1),),
        publications=("Wolff and Balaban, Magn Reson Med 1989;10:135",),
    ),
)
