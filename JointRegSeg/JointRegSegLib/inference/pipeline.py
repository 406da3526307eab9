"""A run on two visits: from their images to segmentations, the transform between them and everything on native grids.

The steps stand in ``_process``, in their order; each returns what the next ones need.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, part, silent

from ..findings.coverage import (
    coverage_warnings,
    hidden_on,
    left_out,
    region_coverage,
    shares_seen,
    shown_by_both,
    shows_everything,
)
from ..findings.lesions import lesion_changes, lesion_warnings
from ..findings.region_volumes import region_volumes, volume_changes
from ..findings.result import JointResult, RegionVolume
from ..images.grid import LARGEST_GRID, LARGEST_TILED_GRID, WorkingGrid
from ..images.modalities import MODALITIES
from ..images.preprocessing import (
    PreparedStudy,
    PreprocessingConfig,
    brain_grid,
    labels_on_grid,
    mask_on_grid,
    prepare_checked,
)
from ..images.study import StudyImages
from ..network.weights import LoadedWeights
from ..registration.affine import AffineResult, align
from ..registration.deformation import Deformation, identity_displacement
from ..registration.distant_brains import brought_together
from ..registration.instance_optimization import RefinementSettings, refine
from ..registration.native_warp import NativeWarp
from ..registration.transforms import is_identity, jacobian_image, pair_transform, square_root
from .between import Between
from .checks import CheckedPair, CheckedStudy, check_pair
from .native import FinePair, NativeSegmentation, native_segmentation, segment_finely
from .network_pass import (
    finest_spacing_mm,
    network_device,
    network_preprocessing,
    network_summary,
    on_coarse_images,
    preprocessing_of,
)
from .pair_pass import NetworkResult, run_network
from .settings import InferenceSettings
from .summary import OfBoth, judged, registration_summary
from .uncertainty import Segmentation

_COARSEST_FACTOR = 4
"""Largest number by which the wanted voxel size of a working grid that would be too large is multiplied."""
_PREPARED = 0.05
"""Share of the refinement's progress at which the half-way images are ready."""
_FINEST_MM, _COARSEST_MM = 1.0, 2.0
"""Smallest and largest voxel size in mm of a working grid that follows the images."""


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
        prepared = _prepare(pair, alignment, weights, settings)
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
    classes = _classes(pair.fixed, found.fixed, prepared.fixed), _classes(pair.moving, found.moving, prepared.moving)
    tumors = _tumor(pair.fixed, classes[0], prepared.fixed), _tumor(pair.moving, classes[1], prepared.moving)
    with steps.timed("refinement"):
        notes = [*alignment.notes, *_coarse_notes(prepared, fine)]
        deformation = _refine(pair, prepared, found, tumors, settings, part(progress, 0.4, 0.85), notes.append)
    with steps.timed("results"):
        native = _native(pair, prepared, found, settings) if fine is None else fine.native
        result = _results(pair, prepared, native, tumors, deformation, settings, part(progress, 0.85, 0.95))
    with steps.timed("verdict"):
        studies = prepared.fixed, prepared.moving
        result = judged(result, pair, studies, prepared.alignment, found, classes, tumors, deformation)
    progress(1.0, "done")
    warnings, summary = (
        (*notes, *result.warnings),
        {**result.summary, **network_summary(weights), "seconds": steps.seconds},
    )
    return replace(result, warnings=warnings, summary=summary)


@dataclass(frozen=True)
class _PreparedPair:
    """Both studies on one working grid, the moving one after the affine alignment."""

    fixed: PreparedStudy
    moving: PreparedStudy
    alignment: AffineResult
    configs: tuple[PreprocessingConfig, PreprocessingConfig]  # preprocessing of the fixed and of the moving study
    background: float  # intensity outside of the brain
    is_coarse: bool  # whether the grid is coarser than wanted, because it would have too many voxels

    @property
    def grid(self) -> WorkingGrid:
        return self.fixed.grid


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


def _prepare(
    pair: CheckedPair, alignment: AffineResult, weights: LoadedWeights | None, settings: InferenceSettings
) -> _PreparedPair:
    """Both studies, normalised, on a working grid around both brains."""
    config = _preprocessing(pair, weights, settings)
    affine = alignment.transform
    grid, is_coarse = _pair_grid([(pair.fixed.brain, None), (pair.moving.brain, affine)], config, pair)
    sides = (pair.fixed, None), (pair.moving, affine)
    configs = [config if weights is None else preprocessing_of(side, weights) for side, _ in sides]
    fixed, moving = (
        prepare_checked(side.study, side.brain, own, grid, to_side, side.coverage)
        for (side, to_side), own in zip(sides, configs, strict=True)
    )
    return _PreparedPair(fixed, moving, alignment, (configs[0], configs[1]), config.background, is_coarse)


def _pair_grid(
    brains: list[tuple[sitk.Image, sitk.Transform | None]], config: PreprocessingConfig, pair: CheckedPair
) -> tuple[WorkingGrid, bool]:
    """Grid around both brains, with voxels larger than wanted where it would have too many; and whether they are."""
    for factor in range(1, _COARSEST_FACTOR + 1):
        coarser = replace(config, spacing_mm=config.spacing_mm * factor)
        grid = brain_grid(brains, coarser, pair.fixed.study.reference, LARGEST_TILED_GRID)
        if math.prod(grid.shape) <= LARGEST_GRID:
            return grid, factor > 1
    return brain_grid(brains, config, pair.fixed.study.reference), False  # tells how large it would be


def _coarse_notes(prepared: _PreparedPair, fine: FinePair | None) -> list[str]:
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
    pair: CheckedPair, prepared: _PreparedPair, found: NetworkResult, settings: InferenceSettings
) -> tuple[NativeSegmentation, NativeSegmentation]:
    """Segmentations of both studies on their native grids."""
    back = prepared.alignment.transform.GetInverse()
    return (
        native_segmentation(pair.fixed, found.fixed, prepared.grid, None, settings),
        native_segmentation(pair.moving, found.moving, prepared.grid, back, settings),
    )


def _preprocessing(
    pair: CheckedPair, weights: LoadedWeights | None, settings: InferenceSettings
) -> PreprocessingConfig:
    """That of the network; without one, on voxels as fine as those of the images, within limits."""
    if weights is not None:
        return network_preprocessing(weights)
    if settings.spacing_mm is not None:
        return PreprocessingConfig(spacing_mm=settings.spacing_mm)
    finest_mm = finest_spacing_mm(pair.fixed.study, pair.moving.study)
    return PreprocessingConfig(spacing_mm=min(max(finest_mm, _FINEST_MM), _COARSEST_MM))


def _run_network(
    prepared: _PreparedPair, weights: LoadedWeights | None, settings: InferenceSettings, progress: Progress
) -> NetworkResult:
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
    )


def _refine(
    pair: CheckedPair,
    prepared: _PreparedPair,
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
        _refinement_settings(settings, fixed.grid.spacing_mm),
        progress,
        warn,
    )


def _refinement_settings(settings: InferenceSettings, spacing_mm: float) -> RefinementSettings:
    default = RefinementSettings().for_spacing(spacing_mm)
    return replace(
        default,
        iterations=settings.refine_iterations,
        time_limit_s=settings.time_limit_s,
        similarity=default.similarity if settings.similarity is None else settings.similarity,
        regulariser=default.regulariser if settings.regulariser is None else settings.regulariser,
        regularisation=default.regularisation if settings.regularisation is None else settings.regularisation,
    )


def _classes(checked: CheckedStudy, segmentation: Segmentation | None, prepared: PreparedStudy) -> Tensor | None:
    """Classes of a study on the working grid, (D, H, W) uint8; None if they are not known."""
    if checked.given_labels is not None:
        return labels_on_grid(checked.given_labels, prepared.grid, prepared.transform)
    return None if segmentation is None else segmentation.labels


def _tumor(checked: CheckedStudy, classes: Tensor | None, prepared: PreparedStudy) -> Tensor | None:
    """Tumour, cavity and plain mask of a study on the working grid, (1, 1, D, H, W) bool; None if none is known."""
    found = None if classes is None else classes > 0
    if checked.study.left_out is not None:
        mask = torch.from_numpy(mask_on_grid(checked.study.left_out, prepared.grid, prepared.transform))
        found = mask if found is None else found | mask.to(found.device)
    return None if found is None else found[None, None]


def _results(
    pair: CheckedPair,
    prepared: _PreparedPair,
    segmented: tuple[NativeSegmentation, NativeSegmentation],
    tumors: OfBoth,
    deformation: Deformation,
    settings: InferenceSettings,
    progress: Progress,
) -> JointResult:
    progress(0.0, "bringing the results to the native grids")
    grid, affine = prepared.grid, prepared.alignment.transform
    transform = pair_transform(deformation, grid, affine)
    fixed, moving = segmented
    progress(0.3, "warping the moving images")
    native, moving_images = pair.fixed.study.reference, pair.moving.study.images
    warp = NativeWarp(native, transform)
    warped = warp.images({m: moving_images[m] for m in pair.moving.study.present})
    warped_labels: sitk.Image | None = None
    if moving.labels is not None:
        warped_labels = warp.labels(moving.labels)
    jacobian = jacobian_image(transform, native)
    progress(0.8, "measuring volumes")
    volumes, coverage, hidden, notes = _measured(pair, prepared, {"fixed": fixed, "moving": moving}, deformation)
    changes = volume_changes(volumes["fixed"], volumes["moving"], fixed.labels, warped_labels, jacobian, pair.guessed)
    lesions = lesion_changes(
        fixed.labels,
        moving.labels,
        transform.moving_to_fixed,
        transform.fixed_to_moving,
        pair.guessed,
        (hidden["fixed"], hidden["moving"]),
    )
    refined = settings.refine_iterations != 0
    similarity = _refinement_settings(settings, grid.spacing_mm).similarity if refined else None
    summary = registration_summary(
        prepared.fixed,
        prepared.moving,
        deformation,
        transform,
        prepared.alignment,
        pair.driving,
        tumors[0],
        shown_by_both(prepared.fixed, prepared.moving, pair.driving, deformation.displacement),
    )
    probabilities = {"fixed": fixed.probabilities, "moving": moving.probabilities}
    return JointResult(
        fixed_labels=fixed.labels,
        moving_labels=moving.labels,
        fixed_uncertainty=fixed.uncertainty,
        moving_uncertainty=moving.uncertainty,
        fixed_mask=pair.fixed.brain,
        moving_mask=pair.moving.brain,
        moving_to_fixed=transform.moving_to_fixed,
        fixed_to_moving=transform.fixed_to_moving,
        affine=affine,
        warped=warped,
        warped_labels=warped_labels,
        jacobian=jacobian,
        volumes=volumes["fixed"] + volumes["moving"],
        changes=changes,
        lesions=lesions,
        summary={
            **summary,
            "registration_modalities": list(pair.driving),
            "similarity": similarity,
            "brain_shown": coverage,
            "coregistration": {
                role: {modality: entry.to_dict() for modality, entry in checked.positions.items()}
                for role, checked in (("fixed", pair.fixed), ("moving", pair.moving))
            },
        },
        warnings=(*pair.warnings, *notes, *lesion_warnings(lesions)),
        probabilities={study: images for study, images in probabilities.items() if images},
        positioned={"fixed": pair.fixed.study, "moving": pair.moving.study},
    )


def _measured(
    pair: CheckedPair, prepared: _PreparedPair, found: Mapping[str, NativeSegmentation], deformation: Deformation
) -> tuple[
    dict[str, tuple[RegionVolume, ...]], dict[str, dict[str, float]], dict[str, dict[str, sitk.Image]], list[str]
]:
    """Volumes, shares of the brain that each image shows, and what is hidden, by study; warnings about the latter."""
    brain = prepared.fixed.mask | prepared.moving.mask
    sides = {"fixed": (pair.fixed, prepared.fixed, None), "moving": (pair.moving, prepared.moving, prepared.alignment)}
    shares = {role: shares_seen(study, brain) for role, (_, study, _) in sides.items()}
    labels: dict[str, Tensor | None] = {"fixed": None, "moving": None}
    complete = all(shows_everything(study, brain) for study in (prepared.fixed, prepared.moving))
    for role, (_, study, _) in sides.items():
        native = found[role].labels
        if native is not None and not complete:  # where nothing is hidden, no region can be cut off
            labels[role] = labels_on_grid(native, study.grid, study.transform)
    given = {role: checked.given_labels is not None for role, (checked, _, _) in sides.items()}
    coverage = region_coverage(prepared.fixed, prepared.moving, labels, given, deformation)
    volumes: dict[str, tuple[RegionVolume, ...]] = {}
    unseen: dict[str, dict[str, sitk.Image]] = {"fixed": {}, "moving": {}}
    notes: list[str] = []
    for role, (checked, _, alignment) in sides.items():
        native = found[role].labels
        if native is None:
            volumes[role] = ()
        else:
            to_grid = None if alignment is None else alignment.transform.GetInverse()
            unseen[role] = hidden_on(coverage[role], prepared.grid, native, to_grid)
            side = found[role]
            volumes[role] = region_volumes(native, role, side.counts, coverage[role], unseen[role], side.uncertain_ml)
        notes += coverage_warnings(checked.study.name, shares[role], coverage[role], native is not None)
    return volumes, shares, unseen, notes
