"""Maps of T1 and T2 from acquisitions in the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from NeuroCESTLib.core.progress import Progress, silent
from NeuroCESTLib.scene.messages import names_inputs

from ..compartments.visits import FILES_OF_METHODS
from ..relaxation import RelaxationMaps, map_relaxation

_names_inputs = names_inputs("signalNode", FILES_OF_METHODS)


class RelaxationLogic:
    """Maps of the relaxation times."""

    @_names_inputs
    def relaxation(
        self,
        signalNode: Any,
        kind: str,
        values: Sequence[float],
        *,
        repetitionTime_s: float | None = None,
        b1: Any = None,
        mask: Any = None,
        folderName: str = "",
        progress: Progress | None = None,
    ) -> RelaxationMaps:
        """Map T1 or T2 with standard errors; a T1 map is usable at once as ``t1`` of :meth:`.MapsLogic.fit`.

        Args:
            signalNode: Sequence node with one volume per measurement.
            kind: ``inversion-recovery``, ``saturation-recovery``, ``variable-flip-angle`` or ``multi-echo``.
            values: Inversion, recovery or echo times in s, or flip angles in degrees, one for each measurement.
            repetitionTime_s: Time between excitations in s, for flip angles.
            b1: Volume of the relative B1, which scales flip angles.
            mask: Volume or label map on the grid of the signal; None for all voxels that have a signal.
            folderName: Name of the folder; by default the names of signal and kind.
            progress: Called with the fraction done and a message; may raise to cancel.

        Returns:
            Nodes ``t1_s`` or ``t2_s``, its standard error, ``rmse`` and ``status``, their folder and the report.

        Raises:
            ValueError: An argument is missing, does not belong to the kind, or does not fit the signal.
        """
        return map_relaxation(
            signalNode,
            kind,
            values,
            repetition_time_s=repetitionTime_s,
            b1=b1,
            mask=mask,
            folder=folderName,
            progress=progress or silent,
        )
