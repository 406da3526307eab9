"""Segmentation of one study by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import SimpleITK as sitk
import torch

from .modalities import MODALITIES
from .precision import segment_fast
from .preprocessing import PreprocessingConfig, prepare_study
from .region_volumes import without_islands
from .settings import InferenceSettings
from .study_images import StudyImages
from .uncertainty import VARIANTS, MeanSegmentation
from .weights import LoadedWeights
from .working_grid import labels_to_native


def segment_study(
    study: StudyImages, weights: LoadedWeights, settings: InferenceSettings | None = None
) -> sitk.Image:
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
    images = prepared.images[None, [MODALITIES.index(m) for m in network.modalities]].to(device)
    mean = MeanSegmentation(prepared.mask.to(device))
    for variant in VARIANTS if settings.test_time_flips else VARIANTS[:1]:
        mean.add(variant, segment_fast(weights.network.to(device), variant.apply(images)))
    labels = labels_to_native(mean.result().probabilities, prepared.grid, study.reference)
    return without_islands(labels, settings.smallest_island_ml)
