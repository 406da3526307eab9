"""Ratios of measurements that cancel what is not of interest: MTsat and ratiometric pH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..tissue.spectra import ZSpectra


def mt_saturation(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute the share of z that a saturation pulse removes in every repetition of a gradient echo, in percent.

    Helms et al., Magn Reson Med 2008;60:1396 give the approximation for small angles. With the flip angle a,
    E = exp(-TR/T1) and Z relative to the same gradient echo without saturation, the steady state is exactly::

        MTsat = 1 - Z / (1 - E cos(a) (1 - Z))

    TR is the saturation time plus the delays and the recovery of the protocol. A B1 map scales the flip angle.

    Repeats of a pulse are averaged, whatever flip angle and TR they have. The names of other pulses at the same offset
    than the first say the B1 or the duration in which they differ from it.
    """
    import torch

    from ..fitting.interpolation import numbered_offsets
    from ..fitting.marquardt import Status

    protocol = spectra.protocol
    if protocol.readout_flip_angle_deg is None or not protocol.magnetisation_carried_over:
        raise InputError(
            "protocol",
            "MTsat is for gradient echoes with a saturation pulse in every repetition: the protocol needs "
            "readout_flip_angle_deg, recovery_time_s and magnetisation_carried_over",
        )
    if protocol.signal_normalisation != "m0":
        raise InputError("protocol", "MTsat needs signals relative to the same gradient echo without saturation (M0)")
    assert spectra.t1_s is not None  # Method.needs
    z = spectra.signal.double()
    times = (protocol.saturation_time_s, protocol.post_delay_s, protocol.recovery_time_s)
    repetition_s = sum(time.to(z) for time in times)
    t1_s = torch.where(spectra.t1_s > 0, spectra.t1_s, torch.nan).to(z).unsqueeze(1)
    relative = 1.0 if spectra.b1_relative is None else spectra.b1_relative.to(z).unsqueeze(1)
    angle = torch.deg2rad(protocol.readout_flip_angle_deg.to(z)) * relative
    left = torch.exp(-repetition_s / t1_s) * torch.cos(angle)
    saturation = 100 * (1 - z / (1 - left * (1 - z)))
    repeats: dict[tuple[int, float, float], list[int]] = {}
    powers_uT, durations_s = (
        values.double().round(decimals=6).tolist() for values in (protocol.b1_uT, protocol.saturation_time_s)
    )
    for i, pulse in enumerate(zip(numbered_offsets(protocol.offsets_ppm), powers_uT, durations_s, strict=True)):
        if pulse[1] > 0:
            repeats.setdefault(pulse, []).append(i)
    quantities: dict[str, Tensor] = {}
    first_at: dict[int, tuple[float, float]] = {}
    for (place, b1_uT, duration_s), measurements in repeats.items():
        first_uT, first_s = first_at.setdefault(place, (b1_uT, duration_s))
        power = "" if b1_uT == first_uT else f"{b1_uT:g}uT_"
        duration = "" if duration_s == first_s else f"{1e3 * duration_s:g}ms_"
        name = f"mtsat_{power}{duration}{float(protocol.offsets_ppm[measurements[0]]):g}ppm"
        quantities[name] = saturation[:, measurements].mean(1)
    if not quantities:
        raise InputError("protocol", "MTsat needs a measurement with a saturation pulse, but the protocol has none")
    found = torch.stack(list(quantities.values()), 1).isfinite().all(1)
    status = torch.where(found, Status.CONVERGED, Status.INVALID_DATA).to(torch.uint8)
    return Quantification(quantities, status, spectra.signal, protocol)


def ratiometric_ph(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute pH from the ratio of the contrasts at two resonances of an agent, by a measured calibration.

    Longo et al., Magn Reson Med 2011;65:202 (iopamidol). A ratio outside of the calibration and a contrast that is too
    small give no value, and the report says in how many voxels.
    """
    import torch

    from ..fitting.interpolation import interpolate_curves
    from ..fitting.marquardt import Status
    from ..formats.ph_calibration import read_ph_calibration
    from ..preprocessing.powers import at_one_power, b1_warnings
    from ..tissue.contrasts import z_at
    from .asymmetry import water_position

    assert settings.calibration is not None  # Method.needs
    calibration = read_ph_calibration(settings.calibration)
    used = at_one_power(spectra, settings.power_uT)
    shift, quantities, warnings = water_position(used, progress)
    warnings += b1_warnings(spectra, settings.power_uT)
    z, offsets = used.signal.double(), used.protocol.offsets_ppm.to(used.signal.device)
    at = torch.tensor(calibration.offsets_ppm, device=z.device)
    label, reference = z_at(z, offsets, at, shift), z_at(z, offsets, -at, shift)
    contrasts = _contrast(calibration.contrast, label, reference)
    if not bool(contrasts.isfinite().any()) and bool(z.isfinite().any()):
        listed = " and ".join(f"±{offset:g}" for offset in calibration.offsets_ppm)
        raise InputError(
            "calibration", f"the calibration needs measurements at {listed} ppm from water, which were not acquired"
        )
    enough = (contrasts >= calibration.least_contrast).all(1)
    ratio = torch.where(enough, contrasts[:, 0] / contrasts[:, 1], torch.nan)
    ratios, ph_of = calibration.ratios.to(z), calibration.ph.to(z)
    ph = interpolate_curves(ph_of.unsqueeze(0), ratios, ratio.unsqueeze(0))[0]
    usable = z.isfinite().all(1)
    located = usable if shift is None else usable & shift.isfinite()
    read = located & (label.isfinite() & reference.isfinite()).all(1)
    positive = read & contrasts.isfinite().all(1)
    low, high = float(ratios[0]), float(ratios[-1])
    reasons = (
        (usable & ~located, "the position of water is not known there"),
        (
            located & ~read,
            "a resonance, which shifts with the water, was not acquired (the offsets span "
            f"{float(offsets.min()):g} to {float(offsets.max()):g} ppm)",
        ),
        (read & ~positive, "a signal is not positive"),
        (positive & ~enough, f"a contrast is below {calibration.least_contrast:g}"),
        (
            ratio.isfinite() & ph.isnan(),
            f"their ratio lies outside of the calibration ({low:g} to {high:g}, "
            f"pH {float(ph_of.min()):g} to {float(ph_of.max()):g})",
        ),
    )
    for without_ph, reason in reasons:
        if count := int(without_ph.sum()):
            warnings.append(f"{count} of {int(usable.sum())} voxels have no pH, because {reason}")
    status = torch.where(ph.isfinite(), Status.CONVERGED, Status.FAILED)
    status = torch.where(usable, status, Status.INVALID_DATA).to(torch.uint8)
    quantities |= {"pH": ph, "pH_ratio": ratio}
    return Quantification(quantities, status, used.signal, used.protocol, warnings=tuple(warnings))


def _contrast(name: str, label: Tensor, reference: Tensor) -> Tensor:
    """Return a contrast of ``formats.ph_calibration.CONTRASTS``, NaN where a signal is not positive."""
    import torch

    if name == "mtr_asym":
        return reference - label
    positive = (label > 0) & (reference > 0)
    value = 1 - label / reference if name == "saturation_transfer" else reference / label - 1
    return torch.where(positive, value, torch.nan)


METHODS = (
    Method(
        "mtsat",
        "MTsat",
        "Magnetisation transfer saturation: loss of z by one saturation pulse in percent, free of T1 and flip angle.",
        mt_saturation,
        needs=(Input.T1,),
        takes=(Input.B1,),
        physical=True,
        quantities=(Quantity("mtsat_*ppm", "%", rank=0),),
        publications=("Helms et al., Magn Reson Med 2008;60:1396",),
    ),
    Method(
        "ph",
        "Ratiometric pH",
        "pH from the ratio of the contrasts at two resonances of an agent, such as iopamidol, by a calibration.",
        ratiometric_ph,
        needs=(Input.CALIBRATION,),
        takes=(Input.POWER, Input.B0, Input.B1),
        quantities=(
            Quantity("pH", "", "rainbow", rank=0),
            Quantity("pH_ratio", rank=1),
            B0_SHIFT,
        ),
        publications=("Longo et al., Magn Reson Med 2011;65:202",),
    ),
)
