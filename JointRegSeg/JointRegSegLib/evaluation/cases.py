"""Evaluation on a cohort: one row of numbers a case, and their summary."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.progress import Progress

from ..cohort.manifest import Cohort, StudyRecord
from ..cohort.preparation import read_study
from ..images.labels import REGIONS, region
from ..images.modalities import MODALITIES
from ..images.preprocessing import PreprocessingConfig, brain_grid
from ..images.study import StudyImages, same_grid
from ..inference.pipeline import process_pair
from ..inference.region_volumes import voxel_ml
from ..inference.result import JointResult
from ..inference.settings import InferenceSettings
from ..inference.single_study import segment_study
from ..metrics.scores import (
    inverse_consistency,
    jacobian_statistics,
    landmark_errors,
    read_landmarks,
    region_scores,
    volume_ratios,
)
from ..network.weights import LoadedWeights
from ..registration.transforms import warp_label_image
from ..training.validation import ValidationCase

Row = dict[str, Any]
TEXT_COLUMNS = ("weights", "case", "subject", "fixed_visit", "moving_visit", "error")
_PICTURE_SPACING_MM = 1.5
_SHOWN = ("flair", "t1ce", "t2", "t1")


@dataclass(frozen=True)
class Case:
    """Two visits of a subject, or its only one."""

    fixed: StudyRecord
    moving: StudyRecord | None = None

    @property
    def name(self) -> str:
        parts = [self.fixed.subject, self.fixed.visit, self.moving.visit if self.moving is not None else ""]
        return " ".join(part for part in parts if part)


def cases_of(cohort: Cohort) -> list[Case]:
    """Every later visit of a subject with its first one as the fixed study; subjects with one visit by themselves."""
    cases = []
    for visits in cohort.visits().values():
        cases += [Case(visits[0], later) for later in visits[1:]] or [Case(visits[0])]
    return cases


def evaluate_case(
    case: Case,
    weights: LoadedWeights | None,
    settings: InferenceSettings | None = None,
    progress: Progress | None = None,
    with_picture: bool = True,
) -> tuple[Row, ValidationCase | None]:
    """Numbers of a case, and what its picture shows.

    Segmentations are scored where the study has labels, on its own grid; the labels are shown neither to the network
    nor to the registration. The columns of a study begin with ``fixed_`` or ``moving_``:

    - ``dice_<region>``, ``hd95_mm_<region>``, ``volume_ml_<region>`` and ``expected_volume_ml_<region>``.

    Those of a pair:

    - ``change_ml_<region>``, ``expected_change_ml_<region>``: moving minus fixed volume.
    - ``warped_dice_<region>``: labels of the moving study warped, with those of the fixed one; also ``affine_dice_…``
      before the deformation.
    - ``volume_ratio_<region>``: volume of the moving labels after the warp relative to before.
    - ``landmark_error_mm_<mean|median|max>_<before|affine|after>``, and ``landmark_improved``, the share of landmarks
      that end nearer to their place than before.
    - ``folded_fraction``, ``sd_log_jacobian``: of the whole map, in the fixed brain. ``inverse_error_…_mm``.
    - ``local_correlation_before``, ``_after``: see ``inference_summary``.

    Raises:
        ValueError: one sentence that names the study or file.
    """
    settings = settings or InferenceSettings()
    start = time.perf_counter()
    row: Row = {
        "case": case.name,
        "subject": case.fixed.subject,
        "fixed_visit": case.fixed.visit,
        "moving_visit": case.moving.visit if case.moving is not None else "",
    }
    records = [record for record in (case.fixed, case.moving) if record is not None]
    studies, truths = zip(*[_read(record) for record in records], strict=True)
    if case.moving is None:
        if weights is None or weights.network.segmentation is None:
            raise ValueError(f"'{case.name}' has one visit and there are no weights that segment it")
        found = [segment_study(studies[0], weights, settings)]
        result = None
    else:
        result = process_pair(*studies, weights, settings, progress)
        found = [result.fixed_labels, result.moving_labels]
    row["seconds"] = round(time.perf_counter() - start, 2)
    for side, labels, truth in zip(("fixed", "moving"), found, truths, strict=False):
        row |= {f"{side}_{name}": value for name, value in segmentation_scores(labels, truth).items()}
    if result is not None:
        row |= _changes(row) | registration_scores(case, studies, truths, result)
    picture = _picture(case, studies, truths, found, result) if with_picture else None
    return row, picture


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Count, mean, median, standard deviation (n − 1), minimum and maximum of every number of the cases.

    Scores of fixed and moving studies are taken together, as ``dice_<region>`` and ``hd95_mm_<region>``.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name in TEXT_COLUMNS or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            side, _, rest = name.partition("_")
            pooled = rest if side in ("fixed", "moving") and rest.startswith(("dice_", "hd95_mm_")) else name
            values.setdefault(pooled, []).append(float(value))
    return {
        name: {
            "n": len(found),
            "mean": float(np.mean(found)),
            "median": float(np.median(found)),
            "sd": float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
            "min": min(found),
            "max": max(found),
        }
        for name, found in values.items()
    }


def _read(record: StudyRecord) -> tuple[StudyImages, sitk.Image | None]:
    """The study without its labels, and these on the grid of its first image."""
    study, mask = read_study(record)
    truth = study.tumor_labels
    if truth is not None and not same_grid(truth, study.reference):
        truth = warp_label_image(truth, study.reference, sitk.Transform(3, sitk.sitkIdentity))
    return replace(study, brain_mask=mask, tumor_labels=None), truth


def segmentation_scores(labels: sitk.Image | None, truth: sitk.Image | None) -> Row:
    """Volumes and scores of the classes found in a study, and of the true ones on the same grid, as far as known."""
    row: Row = {}
    for prefix, image in (("", labels), ("expected_", truth)):
        if image is not None:
            classes = sitk.GetArrayViewFromImage(image)
            row |= {f"{prefix}volume_ml_{n}": float(region(classes, n).sum()) * voxel_ml(image) for n in REGIONS}
    if labels is not None and truth is not None:
        arrays = (sitk.GetArrayFromImage(image) for image in (labels, truth))
        row |= region_scores(*arrays, labels.GetSpacing()[::-1])
    return row


def _changes(row: Mapping[str, Any]) -> Row:
    changes: Row = {}
    for prefix in ("", "expected_"):
        for name in REGIONS:
            before, after = (row.get(f"{side}_{prefix}volume_ml_{name}") for side in ("fixed", "moving"))
            if before is not None and after is not None:
                changes[f"{prefix}change_ml_{name}"] = after - before
    return changes


def registration_scores(
    case: Case, studies: Sequence[StudyImages], truths: Sequence[sitk.Image | None], result: JointResult
) -> Row:
    """Numbers of the map between two studies, see ``evaluate_case``. truths: on the grids of the first images."""
    row: Row = {}
    native = studies[0].reference
    fixed_truth, moving_truth = truths
    if moving_truth is not None:
        warped = warp_label_image(moving_truth, native, result.moving_to_fixed)
        after = sitk.GetArrayFromImage(warped)
        ratio = voxel_ml(native) / voxel_ml(moving_truth)
        row |= volume_ratios(sitk.GetArrayFromImage(moving_truth), after, ratio)
        if fixed_truth is not None:
            expected = sitk.GetArrayFromImage(fixed_truth)
            affine = sitk.GetArrayFromImage(warp_label_image(moving_truth, native, result.affine))
            for prefix, classes in (("affine", affine), ("warped", after)):
                scores = region_scores(classes, expected, native.GetSpacing()[::-1], distances=False)
                row |= {f"{prefix}_{name}": value for name, value in scores.items()}
    row |= _landmarks(case, result)
    mask = sitk.GetArrayFromImage(_on_grid_of(native, result.fixed_mask)) != 0
    row |= jacobian_statistics(sitk.GetArrayFromImage(result.jacobian), mask)
    row |= inverse_consistency(result.moving_to_fixed, result.fixed_to_moving, native, mask)
    for name in ("local_correlation_before", "local_correlation_after"):
        if name in result.summary:
            row[name] = result.summary[name]
    return row


def _landmarks(case: Case, result: JointResult) -> Row:
    if case.moving is None or case.fixed.landmarks is None or case.moving.landmarks is None:
        return {}
    fixed, moving = (read_landmarks(record.landmarks) for record in (case.fixed, case.moving))
    errors = {
        stage: landmark_errors(fixed, moving, transform)
        for stage, transform in (("before", None), ("affine", result.affine), ("after", result.moving_to_fixed))
    }
    row: Row = {"landmarks": len(errors["after"])}
    for stage, values in errors.items():
        for name, function in (("mean", np.mean), ("median", np.median), ("max", np.max)):
            row[f"landmark_error_mm_{name}_{stage}"] = float(function(values))
    row["landmark_improved"] = float((errors["after"] < errors["before"]).mean())
    return row


def _on_grid_of(native: sitk.Image, mask: sitk.Image) -> sitk.Image:
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return mask if same_grid(mask, native) else sitk.Resample(mask, native, identity, sitk.sitkNearestNeighbor)


def _picture(
    case: Case,
    studies: Sequence[StudyImages],
    truths: Sequence[sitk.Image | None],
    found: Sequence[sitk.Image | None],
    result: JointResult | None,
) -> ValidationCase:
    """All on a grid along the patient's axes around the fixed brain; the Jacobian is NaN outside of that brain."""
    fixed = studies[0]
    common = [m for m in _SHOWN if all(m in study.images for study in studies)]
    shown = common[0] if common else fixed.present[0]
    config = PreprocessingConfig(spacing_mm=_PICTURE_SPACING_MM, multiple_of=1)
    grid = brain_grid([(fixed.brain_mask, None)], config, fixed.reference)

    def volume(image: sitk.Image, transform: sitk.Transform | None = None) -> np.ndarray:
        values = sitk.GetArrayFromImage(grid.resample(sitk.Cast(image, sitk.sitkFloat32), transform))
        tissue = values[values > values.min()]
        channels = np.zeros((len(MODALITIES), *values.shape), np.float32)
        if tissue.size:  # to one brightness, for checkerboards
            channels[MODALITIES.index(shown)] = (values - values.min()) / np.percentile(tissue - values.min(), 99)
        return channels

    def classes(image: sitk.Image | None) -> np.ndarray | None:
        nearest = None if image is None else grid.resample(image, None, sitk.sitkNearestNeighbor)
        return None if nearest is None else sitk.GetArrayFromImage(nearest)

    moving = warped = jacobian = None
    if result is not None and shown in studies[1].images:
        moving = volume(studies[1].images[shown], result.affine)
        warped = volume(studies[1].images[shown], result.moving_to_fixed)
        jacobian = sitk.GetArrayFromImage(grid.resample(result.jacobian, None, outside=math.nan))
        brain = sitk.GetArrayFromImage(grid.resample(result.fixed_mask, None, sitk.sitkNearestNeighbor))
        jacobian[brain == 0] = math.nan
    moving_name = "" if case.moving is None else f"{case.moving.name}, affine only"
    return ValidationCase(
        case.fixed.name,
        moving_name,
        volume(fixed.images[shown]),
        moving,
        warped,
        classes(truths[0]),
        classes(found[0]),
        jacobian,
    )
