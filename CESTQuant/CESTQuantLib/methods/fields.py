"""Field maps from separate acquisitions: WASABI and WASSR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from NeuroCESTLib.core.messages.input_errors import InputError

from .base import Method, Quantification, Settings
from .quantities import B0_SHIFT, B1_RELATIVE, RMSE

if TYPE_CHECKING:
    from NeuroCESTLib.core.progress import Progress

    from ..tissue.spectra import ZSpectra

_LONGEST_PULSE_S = 0.05
"""Longest pulse for which the Rabi oscillation is still seen; published ones have 4 to 15 ms."""


def map_wasabi(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Map B0 shift and relative B1 with their standard errors."""
    from ..preprocessing.wasabi import FieldLimits, WasabiPulse, wasabi

    protocol = spectra.protocol
    b1, duration = protocol.b1_uT, protocol.saturation_time_s
    if float(b1.max()) <= 0 or float(duration.max()) <= 0 or float(b1.max() - b1.min()) > 1e-3:
        raise InputError("protocol", "WASABI needs a protocol with one B1 and one pulse duration for all measurements")
    longest = float(duration.max())
    if protocol.pulses is not None or longest > _LONGEST_PULSE_S or float(longest - duration.min()) > 1e-6:
        raise InputError(
            "protocol",
            f"WASABI needs one short block pulse of the same length, but this protocol saturates for {longest:.3g} s"
            f"{' with a train of pulses' if protocol.pulses is not None else ''}: give the WASABI acquisition with its "
            "own protocol",
        )
    gamma = protocol.gamma_rad_per_s_per_uT
    field_T = protocol.rad_per_s_per_ppm / gamma  # that of the Larmor frequency, where it is given
    pulse = WasabiPulse(float(b1.max()), float(duration.max()), field_T, gamma)
    limits = FieldLimits(settings.b0_limits_ppm, settings.b1_limits or FieldLimits.b1_relative)
    fit = wasabi(spectra.signal.abs(), protocol.offsets_ppm, pulse, limits=limits, progress=progress)
    names = ("b0_shift_ppm", "b0_shift_ppm_sd", "b1_relative", "b1_relative_sd", "rmse")
    quantities = {name: getattr(fit, name) for name in names}
    return Quantification(quantities, fit.status, spectra.signal, protocol)


def map_wassr(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Map the B0 shift."""
    import torch

    from ..fitting.marquardt import Status
    from ..preprocessing.fields import wassr
    from ..preprocessing.wasabi import FieldLimits

    if settings.b1_limits is not None:
        raise ValueError("WASSR maps B0 only: leave out the limits of B1")
    limits = FieldLimits(settings.b0_limits_ppm)
    shift = wassr(spectra.signal, spectra.protocol.offsets_ppm, limits_ppm=limits.b0_ppm, progress=progress)
    status = torch.where(torch.isfinite(shift), Status.CONVERGED, Status.FAILED).to(torch.uint8)
    status[~torch.isfinite(spectra.signal).all(1)] = Status.INVALID_DATA
    return Quantification({"b0_shift_ppm": shift}, status, spectra.signal, spectra.protocol)


METHODS = (
    Method(
        "wasabi",
        "WASABI",
        "B0 shift (ppm) and relative B1 from the oscillation of the signal after a short block pulse.",
        map_wasabi,
        physical=True,
        quantities=(B0_SHIFT, B1_RELATIVE, RMSE),
        publications=("Schuenke et al., Magn Reson Med 2017;77:571",),
    ),
    Method(
        "wassr",
        "WASSR",
        "B0 shift (ppm) from the centre of symmetry of the direct water saturation.",
        map_wassr,
        quantities=(B0_SHIFT,),
        publications=("Kim et al., Magn Reson Med 2009;61:1441",),
    ),
)
