"""The network of tasks on single studies applied to one study: maps on its own grid, numbers and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from NeuroCESTLib.core.progress import Progress, part, silent

from ..cohort.sample import StudySample
from ..images.grid import labels_to_native, mask_corners, to_native
from ..images.preprocessing.preparation import prepare_checked
from ..images.study import StudyImages, checked_study
from ..inference.coregistration import corrections, positioned
from ..network.precision import FLOAT32, require_finite
from ..tasks.image_target import ImageTarget
from ..tasks.study_task import row
from ..tasks.super_resolution import SuperResolution
from ..tasks.tissue import Tissue
from .network import select
from .objective import run
from .studies import TargetStudy, combine
from .super_resolution import super_resolved
from .weights import StudyWeights


@dataclass(frozen=True)
class StudyPrediction:
    """What a network predicts for a study.

    Attributes:
        rows: One row for each number, class and volume, with the columns ``task``, ``quantity``, ``value``, ``low`` and
            ``high`` (limits of the 95 % interval; NaN without one) and ``unit``.
        tissue: Classes (uint8) on the native grid of the study, see ``findings.result``; None without a tissue task.
        names: Names of the classes by number.
        volumes: Further images by name: ``super_resolution_<modality>`` with the smaller voxels of a super-resolution,
            and on the native grid the ``reconstruction_<modality>`` (normalised) and the ``anomaly``, in
            standard deviations, of an autoencoder.
        warnings: Sentences for the user.
        reference: Modality of the image that has the native grid.
        positions: Rigid map of points of the native space to points of an image, by modality, for the images that lay
            apart and were aligned (LPS mm).
    """

    rows: list[dict[str, Any]]
    tissue: sitk.Image | None = None
    names: dict[int, str] = field(default_factory=dict)
    volumes: dict[str, sitk.Image] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reference: str = ""
    positions: Mapping[str, sitk.Transform] = field(default_factory=dict)


@torch.no_grad()
def predict_study(
    study: StudyImages,
    weights: StudyWeights,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    coregistered: bool = False,
) -> StudyPrediction:
    """Apply a network to one study.

    Args:
        study: Images and, if it is known, the brain mask.
        weights: Network with its tasks.
        device: Device to compute on.
        progress: Called with the fraction done and a message; may raise to cancel.
        coregistered: Whether the images are in one position already; otherwise those that lie apart are aligned.

    Raises:
        ValueError: An image cannot be used, or the network does not know any of the modalities; one sentence.
    """
    progress(0.0, "checking the images")
    study, notes = checked_study(study)
    known = weights.network.config.modalities
    source = "the weights" if weights.path is None else f"the weights '{weights.path}'"
    used = [modality for modality in study.present if modality in known]
    if not used:
        raise ValueError(f"{source} know the modalities {', '.join(known)}, not {', '.join(study.present)}")
    warnings = list(notes)
    if missing := [modality for modality in known if modality not in used]:
        warnings.append(f"{source} were trained with {', '.join(missing)} too, which this study lacks")
    study, mask, positions, notes = positioned(study, coregistered, part(progress, 0.1, 0.2))
    warnings += notes
    rows: list[dict[str, Any]] = []
    volumes: dict[str, sitk.Image] = {}
    for task in weights.tasks:
        if isinstance(task, SuperResolution):
            progress(0.2, "computing smaller voxels")
            finer, notes = super_resolved(study, mask, weights, task, device)
            volumes |= {f"{task.name}_{modality}": image for modality, image in finer.items()}
            warnings += notes
    if all(isinstance(task, SuperResolution) for task in weights.tasks):
        progress(1.0, "done")
        return StudyPrediction(
            rows, None, {}, volumes, tuple(warnings), study.reference_modality, corrections(positions)
        )
    preparation = weights.preparation
    corners = mask_corners(mask)
    grid = preparation.grid((corners.min(axis=0) + corners.max(axis=0)) / 2, study.reference.GetOrigin())
    if (np.ptp(corners, axis=0)[::-1] > np.array(preparation.extent_mm)).any():
        warnings.append("the brain is larger than the grid of the network: what lies beyond it is not predicted")
    progress(0.3, "resampling")
    prepared = prepare_checked(study, mask, preparation.preprocessing, grid)
    background = preparation.preprocessing.background
    sample = StudySample(prepared.images, None, prepared.mask, study.name, background)
    network = weights.network.to(device).eval()
    batch = combine([TargetStudy(sample, {})], network.config.multiple, 0, known).to(torch.device(device))
    progress(0.5, "predicting")
    outputs = run(network, batch, FLOAT32)
    for output in outputs.values():
        for values in (output,) if isinstance(output, torch.Tensor) else output:
            require_finite(network.config.name, values)
    tissue, names = None, {}
    d, h, w = sample.shape
    for task in network.tasks:
        if isinstance(task, SuperResolution):
            continue
        prediction = task.decode(select(outputs[task.name], 0))
        if isinstance(task, Tissue):
            probabilities = torch.from_numpy(prediction)[:, :d, :h, :w].clone()
            probabilities[:, ~prepared.mask] = 0
            probabilities[0, ~prepared.mask] = 1
            tissue = labels_to_native(probabilities, grid, study.reference)
            names = dict(enumerate(task.classes, 1))
            rows += _volumes(tissue, names)
            continue
        target = ImageTarget(batch.images[0], batch.mask[0])
        found, maps = task.rows(prediction, target), task.maps(prediction, target, known)
        rows += [{"task": task.name, **one} for one in found]
        for name, values in maps.items():
            inside = torch.from_numpy(values)[:d, :h, :w].masked_fill(~prepared.mask, 0)
            volumes[name] = to_native(inside, grid, study.reference)
        if not found and not maps:
            warnings.append(
                f"the result lacks the task '{task.name}' ({task.title}), which gives neither rows nor maps of a study"
            )
    progress(1.0, "done")
    return StudyPrediction(
        rows, tissue, names, volumes, tuple(warnings), study.reference_modality, corrections(positions)
    )


def _volumes(labels: sitk.Image, names: dict[int, str]) -> list[dict[str, Any]]:
    voxels = sitk.GetArrayViewFromImage(labels)
    milliliters = float(np.prod(labels.GetSpacing())) / 1000
    return [
        {"task": "tissue", **row(f"volume of {name}", float((voxels == number).sum()) * milliliters, unit="ml")}
        for number, name in names.items()
    ]
