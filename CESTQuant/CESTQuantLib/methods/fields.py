"""Field maps from acquisitions of their own: WASSR and WASABI."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..fitting.marquardt import Status
from ..preprocessing.fields import wassr
from ..preprocessing.wasabi import WasabiPulse, wasabi
from ..tissue.spectra import ZSpectra
from .registry import Quantification

FIELD_METHODS = ("wasabi", "wassr")


def map_fields(spectra: ZSpectra, method: str, progress: Callable[[float, str], None] | None = None) -> Quantification:
    """``b0_shift_ppm`` and, with WASABI, ``b1_relative`` with standard errors, (voxel,) each.

    Raises ValueError for another method, or a protocol without the pulse that WASABI needs.
    """
    protocol = spectra.protocol
    if method == "wassr":
        shift = wassr(spectra.signal, protocol.offsets_ppm, progress=progress)
        status = torch.where(torch.isfinite(shift), Status.CONVERGED, Status.FAILED).to(torch.uint8)
        status[~torch.isfinite(spectra.signal).all(1)] = Status.INVALID_DATA
        return Quantification({"b0_shift_ppm": shift}, status, spectra.signal, protocol)
    if method != "wasabi":
        raise ValueError(f"method '{method}' is unknown; use one of {', '.join(FIELD_METHODS)}")
    b1, duration = protocol.b1_uT, protocol.saturation_time_s
    if float(b1.max()) <= 0 or float(duration.max()) <= 0 or float(b1.max() - b1.min()) > 1e-3:
        raise ValueError("WASABI needs a protocol with one B1 and one pulse duration for all measurements")
    gamma = protocol.rad_per_s_per_ppm / protocol.field_strength_T
    pulse = WasabiPulse(float(b1.max()), float(duration.max()), protocol.field_strength_T, gamma)
    fit = wasabi(spectra.signal.abs(), protocol.offsets_ppm, pulse, progress=progress)
    names = ("b0_shift_ppm", "b0_shift_ppm_sd", "b1_relative", "b1_relative_sd")
    quantities = {name: getattr(fit, name) for name in names} | {"rmse": fit.fit.rmse}
    return Quantification(quantities, fit.status, spectra.signal, protocol)
