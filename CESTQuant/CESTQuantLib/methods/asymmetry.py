"""MTRasym: the difference between the two sides of the Z-spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Input, Method, Quantification, Settings
from .quantities import B0_SHIFT, Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..tissue.spectra import ZSpectra


def mtr_asymmetry(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Evaluate MTRasym at the chosen offsets; without a B0 map, B0 is estimated from the water line."""
    import torch

    from ..fitting.marquardt import Status
    from ..preprocessing.fields import estimate_b0_shift
    from ..preprocessing.powers import at_one_power, unused_b1_warnings
    from ..tissue.contrasts import mtr_asym

    wanted = tuple(dict.fromkeys(settings.asymmetry_offsets_ppm))
    if not all(0 < offset < float("inf") for offset in wanted):
        raise ValueError(f"the offset of MTRasym must be a positive number of ppm, not {min(wanted):g}")
    warnings = unused_b1_warnings(spectra)
    spectra = at_one_power(spectra, settings.power_uT)
    signal, offsets = spectra.signal, spectra.protocol.offsets_ppm.to(spectra.signal.device)
    quantities: dict[str, Tensor] = {}
    shift = spectra.b0_shift_ppm
    if shift is None:
        shift = estimate_b0_shift(signal, offsets, progress=progress)
        if bool(torch.isfinite(shift).any()):
            quantities["b0_shift_ppm"] = shift
        else:
            shift = None
            warnings.append("no B0 map, and the spectra show no water line: the asymmetry is not corrected for B0")
    values = mtr_asym(signal, offsets, signal.new_tensor(wanted), shift)
    for i, offset in enumerate(wanted):
        if not bool(torch.isfinite(values[:, i]).any()) and bool(torch.isfinite(signal).any()):
            raise ValueError(
                f"MTRasym needs measurements on both sides of water at ±{offset:g} ppm; "
                f"the offsets span {float(offsets.min()):g} to {float(offsets.max()):g} ppm"
            )
        quantities[f"mtr_asym_{offset:g}ppm"] = values[:, i]
    found = torch.isfinite(values).all(1)
    unusable = ~torch.isfinite(signal).all(1)
    if spectra.b0_shift_ppm is not None:
        unusable |= ~torch.isfinite(spectra.b0_shift_ppm)
    status = torch.where(found, Status.CONVERGED, torch.where(unusable, Status.INVALID_DATA, Status.FAILED))
    return Quantification(quantities, status.to(torch.uint8), signal, spectra.protocol, warnings=tuple(warnings))


METHODS = (
    Method(
        "mtrasym",
        "MTR asymmetry (APTw)",
        "Difference between the spectrum at -offset and +offset; 3.5 ppm gives amide-proton-transfer weighting.",
        mtr_asymmetry,
        takes=(Input.ASYMMETRY_OFFSET, Input.POWER, Input.B0, Input.B1),
        quantities=(Quantity("mtr_asym_*", color_map="diverging", centered=True, rank=0), B0_SHIFT),
        publications=("Zhou et al., Magn Reson Med 2022;88:546",),
    ),
)
