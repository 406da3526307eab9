"""One entry for every method: normalised spectra in, named quantities with standard errors out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..physics.protocol import Protocol
from ..tissue.model import TissueModel
from ..tissue.spectra import ZSpectra


@dataclass(frozen=True)
class Settings:
    """What a method may be told; each uses what it needs.

    model: tissue model (model fits; target of QUESP, omega plot and QUCESOP). lorentzian: preset or description of
    pools. asymmetry_offsets_ppm: where MTRasym is evaluated. power_uT: which of several powers a contrast uses.
    maps: (voxel,) by the names the model refers to. network: network file; config: configuration of a dictionary.
    """

    model: TissueModel | None = None
    lorentzian: str | dict = "lorentzian_3T"
    asymmetry_offsets_ppm: tuple[float, ...] = (3.5,)
    power_uT: float | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    network: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class Task:
    """Spectra and what is known of each voxel: B0 shift (ppm), relative B1 and T1 (s), (voxel,) or None."""

    spectra: ZSpectra
    b0_shift_ppm: Tensor | None
    b1_relative: Tensor | None
    t1_s: Tensor | None
    settings: Settings
    progress: Callable[[float, str], None] | None

    @property
    def signal(self) -> Tensor:
        return self.spectra.signal

    @property
    def protocol(self) -> Protocol:
        return self.spectra.protocol


@dataclass(frozen=True)
class Quantification:
    """Quantities (voxel,) by name, fit status (voxel,), and the spectra that were fitted.

    predict: (indices) -> fitted signal (n, measurement) at ``protocol``'s measurements, or None for contrasts.
    """

    quantities: dict[str, Tensor]
    status: Tensor
    signal: Tensor
    protocol: Protocol
    predict: Callable[[Tensor], Tensor] | None = None
    summary: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def quantify(
    spectra: ZSpectra,
    method: str,
    *,
    b0_shift_ppm: Tensor | None = None,
    b1_relative: Tensor | None = None,
    t1_s: Tensor | None = None,
    settings: Settings | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float, str], None] | None = None,
) -> Quantification:
    """Run a method of :data:`METHODS` on spectra (voxel, measurement), on a device.

    Raises ValueError for an unknown method and where a method lacks something, saying what.
    """
    from .contrasts import lorentzian_method, mtr_asym_method, mtr_rex_method
    from .exchange import (
        bloch_mcconnell_method,
        omega_plot_method,
        qucesop_method,
        quesp_method,
        r1rho_method,
    )
    from .network import dictionary_method, network_method

    methods = {
        "mtrasym": mtr_asym_method,
        "lorentzian": lorentzian_method,
        "mtr-rex": mtr_rex_method,
        "quesp": quesp_method,
        "omega-plot": omega_plot_method,
        "qucesop": qucesop_method,
        "r1rho": r1rho_method,
        "bloch-mcconnell": bloch_mcconnell_method,
        "network": network_method,
        "dictionary": dictionary_method,
    }
    if method not in methods:
        raise ValueError(f"method '{method}' is unknown; use one of {', '.join(METHODS)}")
    settings = settings or Settings()
    fields = [None if field is None else field.to(device) for field in (b0_shift_ppm, b1_relative, t1_s)]
    task = Task(
        replace(spectra, signal=spectra.signal.to(device)),
        *fields,
        replace(settings, maps={name: values.to(device) for name, values in settings.maps.items()}),
        progress,
    )
    return methods[method](task)


METHODS = (
    "mtrasym",
    "lorentzian",
    "mtr-rex",
    "quesp",
    "omega-plot",
    "qucesop",
    "r1rho",
    "bloch-mcconnell",
    "network",
    "dictionary",
)
