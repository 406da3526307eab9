"""The network of tasks on single studies applied to one study: maps on its own grid, numbers and probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from NeuroCESTLib.core.progress import Progress, part, silent

from ..cohort.sample import StudySample
from ..findings.coverage import LEAST_HIDDEN_ML, coverage_warnings, shares_seen, unseen_brain
from ..findings.region_volumes import voxel_ml
from ..images.grid import labels_to_native, mask_corners, to_native
from ..images.preprocessing.preparation import prepare_checked
from ..images.preprocessing.prepared_study import PreparedStudy
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
            ``high`` (limits of the 95 % interval; NaN without one) and ``unit``. Where the images do not show the
            whole brain, the ``bound`` of a volume is "at least", and that of a tissue that is not found is NaN.
        tissue: Classes (uint8) on the native grid of the study, see ``findings.result``, 0 where no image that the
            network uses shows the brain; None without a tissue task.
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
    shown = prepared.mask & prepared.shown(used)
    hidden_ml = int(unseen_brain(prepared, used, prepared.mask).sum()) * prepared.voxel_ml
    in_part = hidden_ml >= LEAST_HIDDEN_ML
    warnings += _doubts_on_coverage(prepared, used, weights, in_part, study.mask_title)
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
            probabilities[:, ~shown] = 0
            probabilities[0, ~shown] = 1
            tissue = labels_to_native(probabilities, grid, study.reference)
            names = dict(enumerate(task.classes, 1))
            rows += _volumes(tissue, names, in_part)
            continue
        target = ImageTarget(batch.images[0], batch.mask[0])
        found, maps = task.rows(prediction, target), task.maps(prediction, target, known)
        rows += [{"task": task.name, **one} for one in found]
        for name, values in maps.items():
            inside = torch.from_numpy(values)[:d, :h, :w].masked_fill(~shown, 0)
            volumes[name] = to_native(inside, grid, study.reference)
        if not found and not maps:
            warnings.append(
                f"the result lacks the task '{task.name}' ({task.title}), which gives neither rows nor maps of a study"
            )
    progress(1.0, "done")
    return StudyPrediction(
        rows, tissue, names, volumes, tuple(warnings), study.reference_modality, corrections(positions)
    )


def _doubts_on_coverage(
    prepared: PreparedStudy, used: Sequence[str], weights: StudyWeights, in_part: bool, given_mask: str | None
) -> list[str]:
    """Return sentences about images that show the brain only in part."""
    shares = {m: share for m, share in shares_seen(prepared, prepared.mask).items() if m in used}
    segmented = any(isinstance(task, Tissue) for task in weights.tasks)
    sentences = coverage_warnings(prepared.name, shares, {}, segmented, compared=False, given_mask=given_mask)
    if in_part:
        sentences.append(
            f"the images of the {prepared.name} study do not show the whole brain: volumes are at least those given, "
            "tissues may be confused, and other numbers and classes may be wrong: the network expects whole brains"
        )
    return sentences


def _volumes(labels: sitk.Image, names: dict[int, str], in_part: bool) -> list[dict[str, Any]]:
    """Rows of the volumes; of a brain that is shown in part, what is not found may lie in the rest."""
    voxels = sitk.GetArrayViewFromImage(labels)
    rows = []
    for number, name in names.items():
        found_ml = float((voxels == number).sum()) * voxel_ml(labels)
        known = found_ml > 0 or not in_part
        one = row(f"volume of {name}", found_ml if known else float("nan"), unit="ml")
        rows.append({"task": "tissue", **one, "bound": "at least" if in_part and known else ""})
    return rows
