"""Scores of one case: segmentations against labels, and the map between two visits against labels and landmarks."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..findings.region_volumes import voxel_ml
from ..findings.result import JointResult
from ..images.labels import CAVITY, EDEMA, LABELS, NECROTIC_CORE, REGIONS, region
from ..images.study import same_grid
from ..metrics.deformation import inverse_consistency, jacobian_statistics
from ..metrics.landmarks import Landmarks, landmark_errors
from ..metrics.overlap import dice, region_scores, volume_ratios
from ..registration.transforms import warp_label_image

_SUMMARY_COLUMNS = ("local_correlation_before", "local_correlation_after")


def segmentation_scores(predicted: sitk.Image | None, expected: sitk.Image | None) -> dict[str, float]:
    """Measure and compare the tumour of one study.

    Args:
        predicted: Predicted classes, or None.
        expected: Reference classes on the same grid, or None.

    Returns:
        ``volume_ml_<region>`` of the prediction and ``expected_volume_ml_<region>`` of the reference, as far as there
        are any, and ``dice_<region>`` and ``hd95_mm_<region>`` where there are both, with the overlap of the classes
        that are no region of their own as ``dice_necrotic_core`` and ``dice_edema``. A resection cavity is measured
        and scored where there is one.
    """
    row: dict[str, float] = {}
    for prefix, image in (("", predicted), ("expected_", expected)):
        if image is not None:
            classes = sitk.GetArrayViewFromImage(image)
            row |= {f"{prefix}volume_ml_{n}": float(region(classes, n).sum()) * voxel_ml(image) for n in REGIONS}
            if cavity := int((classes == CAVITY).sum()):
                row[f"{prefix}volume_ml_{LABELS[CAVITY]}"] = cavity * voxel_ml(image)
    if predicted is not None and expected is not None:
        found, reference = sitk.GetArrayFromImage(predicted), sitk.GetArrayFromImage(expected)
        row |= region_scores(found, reference, predicted.GetSpacing()[::-1])
        row |= {f"dice_{LABELS[c]}": dice(found == c, reference == c) for c in (NECROTIC_CORE, EDEMA)}
    return row


def warp_scores(
    native: sitk.Image, fixed_labels: sitk.Image | None, moving_labels: sitk.Image | None, result: JointResult
) -> dict[str, float]:
    """Score what the map between two studies does to the tumour of the moving one.

    Args:
        native: Reference of the fixed study, whose grid is used.
        fixed_labels: Reference classes on that grid, or None.
        moving_labels: Reference classes on the native grid of the moving study, or None.
        result: Transforms of the pair.

    Returns:
        ``volume_ratio_<region>`` with moving labels, and ``affine_dice_<region>`` and ``warped_dice_<region>`` where
        both studies have labels.
    """
    if moving_labels is None:
        return {}
    warped = sitk.GetArrayFromImage(warp_label_image(moving_labels, native, result.moving_to_fixed))
    ratio = voxel_ml(native) / voxel_ml(moving_labels)
    row = volume_ratios(sitk.GetArrayFromImage(moving_labels), warped, ratio)
    if fixed_labels is not None:
        expected = sitk.GetArrayFromImage(fixed_labels)
        affine = sitk.GetArrayFromImage(warp_label_image(moving_labels, native, result.affine))
        for prefix, classes in (("affine", affine), ("warped", warped)):
            scores = region_scores(classes, expected, native.GetSpacing()[::-1], distances=False)
            row |= {f"{prefix}_{name}": value for name, value in scores.items()}
    return row


def landmark_scores(fixed: Landmarks, moving: Landmarks, result: JointResult) -> dict[str, float]:
    """Score the map between two studies by their landmarks.

    Args:
        fixed: Landmarks of the fixed study.
        moving: Landmarks of the moving study.
        result: Transforms of the pair.

    Returns:
        ``landmarks`` (their number), ``landmark_error_mm_<mean|median|max>_<before|affine|after>`` and
        ``landmark_improved``.

    Raises:
        ValueError: The studies have no landmark in common.
    """
    transforms = {"before": None, "affine": result.affine, "after": result.moving_to_fixed}
    errors = {stage: landmark_errors(fixed, moving, transform) for stage, transform in transforms.items()}
    row: dict[str, float] = {"landmarks": len(errors["after"])}
    for stage, values in errors.items():
        for name, function in (("mean", np.mean), ("median", np.median), ("max", np.max)):
            row[f"landmark_error_mm_{name}_{stage}"] = float(function(values))
    row["landmark_improved"] = float((errors["after"] < errors["before"]).mean())
    return row


def map_scores(native: sitk.Image, result: JointResult) -> dict[str, float]:
    """Score the map between two studies by itself, in the fixed brain.

    Args:
        native: Reference of the fixed study, whose grid is used.
        result: Transforms, Jacobian map and summary of the pair.

    Returns:
        ``folded_fraction``, ``sd_log_jacobian``, ``inverse_error_<mean|max>_mm``, and
        ``local_correlation_<before|after>`` where the summary has them.
    """
    mask = sitk.GetArrayFromImage(_on_grid_of(native, result.fixed_mask)) != 0
    row = jacobian_statistics(sitk.GetArrayFromImage(result.jacobian), mask)
    row |= inverse_consistency(result.moving_to_fixed, result.fixed_to_moving, native, mask)
    return row | {name: result.summary[name] for name in _SUMMARY_COLUMNS if name in result.summary}


def _on_grid_of(native: sitk.Image, mask: sitk.Image) -> sitk.Image:
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return mask if same_grid(mask, native) else sitk.Resample(mask, native, identity, sitk.sitkNearestNeighbor)
