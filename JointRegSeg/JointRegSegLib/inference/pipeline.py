"""A run on two visits: from their images to segmentations, the transform between them and everything on native grids.

The steps stand in ``_process``, in their order; each returns what the next ones need.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from NeuroCESTLib.core.progress import Progress, part, silent

from ..findings.result import JointResult
from ..images.grid import LARGEST_GRID
from ..images.modalities import MODALITIES
from ..images.study import StudyImages
from ..network.weights import LoadedWeights
from ..registration.affine import AffineResult, align
from ..registration.distant_brains import brought_together
from .checks import CheckedPair, check_pair
from .native import FinePair, NativeSegmentation, native_segmentation, segment_finely
from .network_pass import finest_spacing_mm, network_device, network_summary, on_coarse_images
from .pair_pass import NetworkResult, run_network
from .pair_preparation import PreparedPair, classes_on_grid, prepare_pair, tumor_on_grid
from .pair_refinement import refine_pair
from .pair_results import pair_results
from .settings import InferenceSettings
from .summary import judged


def process_pair(
    fixed: StudyImages,
    moving: StudyImages,
    weights: LoadedWeights | None = None,
    settings: InferenceSettings | None = None,
    progress: Progress | None = None,
) -> JointResult:
    """Segment two visits and find the transform between them.

    Args:
        fixed: The visit on whose grid the warped images lie. A tumour segmentation that comes with a visit replaces the
            network's, as result and as the region that the registration leaves out.
        moving: The visit that is registered to it.
        weights: Network that segments and registers. None registers without segmenting; one modality that both visits
            have is enough for that.
        settings: Settings of the run.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Segmentations, transforms, warped images and numbers.

    Raises:
        ValueError: The visits cannot be processed; one sentence that names the study and image, and the remedy.
    """
    try:
        return _process(fixed, moving, weights, settings or InferenceSettings(), progress or silent)
    except (MemoryError, torch.OutOfMemoryError):
        raise ValueError(
            "there is not enough memory for this pair (about 6 GB for a brain at 1 mm): close other programs, choose "
            "the device 'cpu' if it was a GPU, or use weights with a larger spacing_mm"
        ) from None


def _process(
    fixed: StudyImages,
    moving: StudyImages,
    weights: LoadedWeights | None,
    settings: InferenceSettings,
    progress: Progress,
) -> JointResult:
    steps = _StepTimes()
    with steps.timed("checks and masks"):
        step = part(progress, 0.0, 0.05)
        pair = check_pair(fixed, moving, weights, settings.registration_modalities, step, not settings.coregister)
    if weights is not None:
        weights = on_coarse_images(weights, finest_spacing_mm(pair.fixed.study, pair.moving.study))
    with steps.timed("affine"):
        alignment = _align(pair, settings.affine, part(progress, 0.05, 0.15))
    with steps.timed("preprocessing"):
        progress(0.15, "resampling")
        prepared = prepare_pair(pair, alignment, weights, settings)
    with steps.timed("network"):
        step = part(progress, 0.2, 0.4)
        fine: FinePair | None = None
        if prepared.is_coarse and weights is not None and weights.network.segmentation is not None:
            fine = segment_finely((pair.fixed, pair.moving), weights, settings, step)
            found = fine.on_grid(prepared.grid, alignment.transform)
        elif prepared.is_coarse:  # the network was trained on finer voxels
            found = NetworkResult()
        else:
            found = _run_network(prepared, weights, settings, step)
    classes = (
        classes_on_grid(pair.fixed, found.fixed, prepared.fixed),
        classes_on_grid(pair.moving, found.moving, prepared.moving),
    )
    tumors = (
        tumor_on_grid(pair.fixed, classes[0], prepared.fixed),
        tumor_on_grid(pair.moving, classes[1], prepared.moving),
    )
    with steps.timed("refinement"):
        notes = [*alignment.notes, *_coarse_notes(prepared, fine)]
        deformation = refine_pair(pair, prepared, found, tumors, settings, part(progress, 0.4, 0.85), notes.append)
    with steps.timed("results"):
        native = _native(pair, prepared, found, settings) if fine is None else fine.native
        result = pair_results(pair, prepared, native, tumors, deformation, settings, part(progress, 0.85, 0.95))
    with steps.timed("verdict"):
        studies = prepared.fixed, prepared.moving
        result = judged(result, pair, studies, prepared.alignment, found, classes, tumors, deformation)
    progress(1.0, "done")
    warnings, summary = (
        (*notes, *result.warnings),
        {**result.summary, **network_summary(weights), "seconds": steps.seconds},
    )
    return replace(result, warnings=warnings, summary=summary)


@dataclass
class _StepTimes:
    """Wall time of each step in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)


def _align(pair: CheckedPair, kind: str, progress: Progress) -> AffineResult:
    """Linear alignment by the modality that drives the registration and shows most of both brains."""
    sides = (pair.fixed, pair.moving)
    in_order = [m for m in MODALITIES if m in pair.driving]
    modality = max(in_order, key=lambda m: min(side.share_shown(m) for side in sides))  # the first of equal ones
    fixed, moving = (side.to_align(modality) for side in sides)
    return brought_together(align(fixed, moving, kind, progress), fixed, moving)


def _coarse_notes(prepared: PreparedPair, fine: FinePair | None) -> list[str]:
    """Sentences for the user where the registration has a coarser grid than wanted."""
    if not prepared.is_coarse:
        return []
    grid = prepared.grid
    return [
        f"the brains would need a working grid of more than {LARGEST_GRID / 1e6:.0f} million voxels, so they were "
        f"registered on voxels of {grid.spacing_mm:g} mm, without the network's deformation",
        *(() if fine is None else fine.notes),
    ]


def _native(
    pair: CheckedPair, prepared: PreparedPair, found: NetworkResult, settings: InferenceSettings
) -> tuple[NativeSegmentation, NativeSegmentation]:
    """Segmentations of both studies on their native grids."""
    back = prepared.alignment.transform.GetInverse()
    return (
        native_segmentation(pair.fixed, found.fixed, prepared.grid, None, settings),
        native_segmentation(pair.moving, found.moving, prepared.grid, back, settings),
    )


def _run_network(
    prepared: PreparedPair, weights: LoadedWeights | None, settings: InferenceSettings, progress: Progress
) -> NetworkResult:
    """Segment and register with the network; its deformation is left out where a refinement gains nothing from it."""
    if weights is None:
        return NetworkResult()
    return run_network(
        weights,
        prepared.fixed,
        prepared.moving,
        prepared.background,
        settings.test_time_flips,
        network_device(settings.device),
        progress,
        register=settings.refine_iterations == 0 or weights.trained_to_register,
    )
