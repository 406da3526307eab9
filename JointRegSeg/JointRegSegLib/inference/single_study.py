"""Segmentation of a single visit."""

from __future__ import annotations

import SimpleITK as sitk

from ..images.preprocessing import prepare_study
from ..images.study import StudyImages
from ..network.weights import LoadedWeights
from .native import native_labels
from .network_pass import network_device, network_preprocessing, segment_prepared
from .settings import InferenceSettings


def segment_study(study: StudyImages, weights: LoadedWeights, settings: InferenceSettings | None = None) -> sitk.Image:
    """Segment one visit as ``process_pair`` segments each of two.

    Args:
        study: The visit; a segmentation that came with it is not used.
        weights: Network with a segmentation head.
        settings: Settings; those of the registration are not used.

    Returns:
        Tumour classes (uint8) on the grid of the study's first image.

    Raises:
        ValueError: The images cannot be used, or the network has no segmentation head or uses other modalities.
    """
    settings = settings or InferenceSettings()
    weights.check_modalities([m for m in study.present if m in weights.config.modalities])
    config = network_preprocessing(weights)
    prepared = prepare_study(study.images, study.brain_mask, config, name=study.name)
    device = network_device(settings.device)
    segmentation = segment_prepared(weights, prepared, config.background, settings.test_time_flips, device)
    return native_labels(segmentation, prepared.grid, study.reference, settings.smallest_island_ml)
