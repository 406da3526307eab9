"""A further contrast, as a contributor would write it: one file in ``methods/``, named in the registry's families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from CESTQuantLib.methods.base import Input, Method, Quantification, Settings
from CESTQuantLib.methods.quantities import Quantity

if TYPE_CHECKING:
    from CESTQuantLib.tissue.spectra import ZSpectra
    from NeuroCESTLib.core.progress import Progress


def depth_of_saturation(spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
    """Compute 1 - Z at the measurement that is nearest to the asymmetry offset, in percent."""
    import torch

    from CESTQuantLib.fitting.marquardt import Status

    offset = settings.asymmetry_offsets_ppm[0]
    nearest = int((spectra.protocol.offsets_ppm - offset).abs().argmin())
    depth = 100 * (1 - spectra.signal[:, nearest])
    status = torch.where(torch.isfinite(depth), Status.CONVERGED, Status.INVALID_DATA).to(torch.uint8)
    return Quantification({f"depth_{offset:g}ppm": depth}, status, spectra.signal, spectra.protocol)


METHODS = (
    Method(
        "depth",
        "Depth of saturation",
        "Loss of signal at the offset, in percent.",
        depth_of_saturation,
        takes=(Input.ASYMMETRY_OFFSET,),
        quantities=(Quantity("depth_*", "%", "inferno", rank=0),),
        publications=("not published",),
    ),
)
