"""Segmentation of a single visit."""

from __future__ import annotations

import time
from dataclasses import replace

import SimpleITK as sitk
import torch

from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.progress import Progress, part, silent

from ..findings.coverage import coverage_warnings, hidden_on, shares_seen, shows_everything, single_coverage
from ..findings.region_volumes import region_volumes
from ..findings.result import StudyResult
from ..images.grid import LARGEST_TILED_GRID
from ..images.preprocessing.brain_grid import brain_grid
from ..images.preprocessing.preparation import prepare_checked
from ..images.preprocessing.resampling import labels_on_grid
from ..images.study import StudyImages
from ..network.tiles import tiles_note
from ..network.weights import LoadedWeights
from ..quality.verdict import Verdict
from .checks import check_visit
from .coregistration import corrections
from .native import native_segmentation, on_native_grid
from .network_pass import finest_spacing_mm, network_device, network_summary, on_coarse_images, preprocessing_of
from .pair_pass import segment_by_coverage
from .settings import InferenceSettings
from .summary import segmentation_signs


def process_study(
    study: StudyImages,
    weights: LoadedWeights,
    settings: InferenceSettings | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Segment one visit as ``process_pair`` segments each of two.

    Args:
        study: The visit; a segmentation that came with it is not used.
        weights: Network with a segmentation head.
        settings: Settings; those of the registration are not used.
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        Segmentation, uncertainty and volumes on the native grid, see ``StudyResult``.

    Raises:
        ValueError: The images cannot be used, or the network has no segmentation head or uses other modalities.
    """
    try:
        return _process(replace(study, tumor_labels=None), weights, settings or InferenceSettings(), progress or silent)
    except (MemoryError, torch.OutOfMemoryError):
        raise ValueError(
            "there is not enough memory for this visit: close other programs, choose the device 'cpu' if it was a GPU, "
            "or use weights with a larger spacing_mm"
        ) from None


def segment_study(study: StudyImages, weights: LoadedWeights, settings: InferenceSettings | None = None) -> sitk.Image:
    """Return the tumour classes (uint8) of one visit on the grid of its reference; see `process_study`."""
    return process_study(study, weights, settings).labels


def _process(
    study: StudyImages, weights: LoadedWeights, settings: InferenceSettings, progress: Progress
) -> StudyResult:
    start = time.perf_counter()
    if weights.network.segmentation is None:
        raise InputError(
            "weights", f"the network '{weights.config.name}' has no segmentation head: choose other weights"
        )
    step = part(progress, 0.0, 0.2)
    checked, warnings = check_visit(study, weights, step, not settings.coregister)
    study = checked.study
    weights = on_coarse_images(weights, finest_spacing_mm(study))
    progress(0.2, "resampling")
    config = preprocessing_of(checked, weights)
    grid = brain_grid([(checked.brain, None)], config, study.reference, LARGEST_TILED_GRID)
    prepared = prepare_checked(study, checked.brain, config, grid, None, checked.coverage)
    device = network_device(settings.device)
    step = part(progress, 0.3, 0.9)
    found = segment_by_coverage(weights, prepared, config.background, settings.test_time_flips, device, step)
    progress(0.9, "bringing the results to the native grid")
    native = native_segmentation(checked, found, grid, None, settings)
    assert native.labels is not None
    assert native.measured is not None
    on_grid = None if shows_everything(prepared) else labels_on_grid(native.measured, grid)
    coverage = single_coverage(prepared, on_grid)
    hidden = hidden_on(coverage, grid, native.measured, None, native.measured)
    shares = shares_seen(prepared, prepared.mask)
    signs, compartments = segmentation_signs(prepared, found.labels, found)
    verdict = Verdict.of(signs)
    result = StudyResult(
        labels=native.labels,
        uncertainty=native.uncertainty,
        mask=on_native_grid(checked.brain, native.labels),
        volumes=region_volumes(native.measured, study.name, native.counts, coverage, hidden, native.uncertain_ml),
        summary={
            "working_grid": {"voxels": list(grid.size), "spacing_mm": grid.spacing_mm},
            **network_summary(weights),
            "brain_shown": shares,
            "bias_field_corrected": prepared.bias_corrected,
            "coregistration": {modality: entry.to_dict() for modality, entry in checked.positions.items()},
            "compartments": compartments,
            **verdict.to_dict(),
            "seconds": round(time.perf_counter() - start, 3),
        },
        warnings=(
            *warnings,
            *tiles_note(study.name, grid),
            *native.notes(checked),
            *coverage_warnings(
                study.name, shares, coverage, segmented=True, compared=False, given_mask=study.mask_title
            ),
            *verdict.warning("segmentation"),
        ),
        probabilities=native.probabilities,
        positioned=study,
        positions=corrections(checked.positions),
    )
    progress(1.0, "done")
    return result
