"""Refinement of the deformation between two visits, half-way between them where they were aligned linearly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from NeuroCESTLib.core.progress import Progress, part

from ..findings.coverage import left_out
from ..images.modalities import MODALITIES
from ..images.preprocessing.prepared_study import PreparedStudy
from ..registration.deformation import Deformation, identity_displacement
from ..registration.instance_optimization import RefinementSettings, refine
from ..registration.transforms import is_identity, square_root
from .between import Between
from .checks import CheckedPair
from .pair_pass import NetworkResult
from .pair_preparation import PreparedPair
from .settings import InferenceSettings
from .summary import OfBoth

_PREPARED = 0.05
"""Share of the refinement's progress at which the half-way images are ready."""


def refine_pair(
    pair: CheckedPair,
    prepared: PreparedPair,
    found: NetworkResult,
    tumors: OfBoth,
    settings: InferenceSettings,
    progress: Progress,
    warn: Callable[[str], None],
) -> Deformation:
    """The network's deformation (or the identity), refined with the tumours and what is not shown left out."""
    if settings.refine_iterations == 0:
        return found.deformation or Deformation(identity_displacement(prepared.grid.shape))
    half = None if is_identity(prepared.alignment.transform) else square_root(prepared.alignment.transform)
    if half is None:
        return _refined_pair(pair, prepared.fixed, prepared.moving, found.deformation, tumors, settings, progress, warn)
    between = Between.of(pair, half, prepared.grid, prepared.configs, part(progress, 0.0, _PREPARED))
    progress = part(progress, _PREPARED, 1.0)
    start = None if found.deformation is None else between.start(found.deformation)
    masks = between.masks(tumors)
    refined = _refined_pair(pair, between.fixed, between.moving, start, masks, settings, progress, warn)
    return between.result(refined)


def _refined_pair(
    pair: CheckedPair,
    fixed: PreparedStudy,
    moving: PreparedStudy,
    start: Deformation | None,
    tumors: OfBoth,
    settings: InferenceSettings,
    progress: Progress,
    warn: Callable[[str], None],
) -> Deformation:
    """Refine a deformation between two studies on one grid."""
    channels = [MODALITIES.index(m) for m in pair.driving]
    brain = fixed.mask | moving.mask
    return refine(
        fixed.images[None, channels],
        moving.images[None, channels],
        start,
        left_out(fixed, pair.driving, brain, tumors[0]),
        left_out(moving, pair.driving, brain, tumors[1]),
        refinement_settings(settings, fixed.grid.spacing_mm),
        progress,
        warn,
    )


def refinement_settings(settings: InferenceSettings, spacing_mm: float) -> RefinementSettings:
    """The user's settings of the refinement, and the defaults for this voxel size where there are none."""
    default = RefinementSettings().for_spacing(spacing_mm)
    return replace(
        default,
        iterations=settings.refine_iterations,
        time_limit_s=settings.time_limit_s,
        similarity=default.similarity if settings.similarity is None else settings.similarity,
        regulariser=default.regulariser if settings.regulariser is None else settings.regulariser,
        regularisation=default.regularisation if settings.regularisation is None else settings.regularisation,
    )
