"""Segmentation of one study by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import SimpleITK as sitk
import torch

from ..images.grid import labels_to_native
from ..images.preprocessing import PreprocessingConfig, prepare_study
from ..images.study import StudyImages
from ..network.weights import LoadedWeights
from .network_pass import segment_prepared
from .region_volumes import without_islands
from .settings import InferenceSettings


def segment_study(study: StudyImages, weights: LoadedWeights, settings: InferenceSettings | None = None) -> sitk.Image:
    """Tumour classes (uint8) on the grid of the study's first image, as ``inference.process_pair`` finds them.

    Raises:
        ValueError: images that cannot be used, or weights without a segmentation head or for other modalities.
    """
    settings = settings or InferenceSettings()
    network = weights.config
    weights.check_modalities([m for m in study.present if m in network.modalities])
    config = PreprocessingConfig.from_dict(dict(weights.metadata.get("preprocessing", {})))
    config = replace(config, multiple_of=math.lcm(config.multiple_of, network.multiple * network.stride))
    prepared = prepare_study(study.images, study.brain_mask, config, name=study.name)
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    segmentation = segment_prepared(weights, prepared, config.background, settings.test_time_flips, device)
    labels = labels_to_native(segmentation.probabilities, prepared.grid, study.reference)
    return without_islands(labels, settings.smallest_island_ml)
