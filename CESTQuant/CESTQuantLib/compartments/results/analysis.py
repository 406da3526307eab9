"""The whole result: the visits, and what happened between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..grid import Grid
from .change import Change
from .growth import JacobianOfRegion, Transition
from .response import Response
from .visit import Visit


@dataclass(frozen=True)
class Between:
    """What happened between two visits. Images are in the space of the first visit.

    Attributes:
        changes: Rows of ``changes.csv``: means of the maps, and volumes with the quantity ``volume`` in ml.
        response: Measures in the manner of RANO; None without an enhancing compartment.
        transitions: Volumes of tissue by compartments at both visits; empty without a transform between the visits.
        transition_labels: For each voxel of ``transition_grid`` an index + 1 into ``transitions``, or 0, uint8; None
            without a transform.
        transition_grid: Grid of the first visit's segmentation, cut to the tumours.
        jacobian: Statistics of the Jacobian in the compartments of the first visit.
        change_maps: Second minus first visit on the CEST grid of the first one, by quantity; empty without a transform.
        second_maps: Maps of the second visit on the CEST grid of the first one, interpolated once, by quantity.
        registration: Correlation of the anatomies of both visits with the transform, without it and with its inverse;
            empty without a transform or an anatomy.
        warnings: Sentences for the user.
        kept: Voxels of ``transition_grid``, bool, that kept their compartment; None without a transform.
    """

    changes: tuple[Change, ...]
    response: Response | None = None
    transitions: tuple[Transition, ...] = ()
    transition_labels: np.ndarray | None = None
    transition_grid: Grid | None = None
    jacobian: tuple[JacobianOfRegion, ...] = ()
    change_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    second_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    registration: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    kept: np.ndarray | None = None


@dataclass(frozen=True)
class Analysis:
    """The whole result.

    Attributes:
        visits: One or two visits, in the order of time.
        between: What happened between them; None for a single visit.
        settings: Settings that the numbers depend on, such as ``rim_mm``, ``level`` and ``seed``, for the report.
    """

    visits: tuple[Visit, ...]
    between: Between | None = None
    settings: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user about all visits and the change."""
        named = [f"{visit.name}: {text}" for visit in self.visits for text in visit.warnings]
        return (*named, *(self.between.warnings if self.between else ()))
