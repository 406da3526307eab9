"""Scene layer of CESTQuant: MRML nodes in, MRML nodes out; the same for panel, console and batch commands."""

from __future__ import annotations

from .scene.logic.acquisitions import AcquisitionsLogic
from .scene.logic.compartments import CompartmentsLogic
from .scene.logic.maps import MapsLogic
from .scene.logic.phantoms import PhantomsLogic
from .scene.logic.relaxation import RelaxationLogic
from .scene.logic.spectra import SpectraLogic


class CESTQuantLogic(MapsLogic, SpectraLogic, CompartmentsLogic, RelaxationLogic, AcquisitionsLogic, PhantomsLogic):
    """Quantitative maps from nodes, and what comes before and after them.

    The methods are those of :class:`.MapsLogic`, :class:`.SpectraLogic`, :class:`.CompartmentsLogic`,
    :class:`.RelaxationLogic`, :class:`.AcquisitionsLogic` and :class:`.PhantomsLogic`.
    """
