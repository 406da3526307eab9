"""Numbers of the report that tell how well two visits were registered, and the verdicts on the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..findings.result import JointResult
from ..images.labels import CAVITY, is_tumor
from ..images.modalities import MODALITIES
from ..images.preprocessing.prepared_study import PreparedStudy
from ..quality.compartment_signs import LEAST_ML, compartment_qualities
from ..quality.label_signs import label_signs, uncertainty_signs
from ..quality.registration_signs import pair_quality
from ..quality.verdict import CHECK, Sign, Verdict, combined, judge_registration
from ..registration.affine import AffineResult
from ..registration.deformation import Deformation, jacobian_determinant, length, resize_displacement, warp
from ..registration.local_correlation import lncc
from ..registration.transforms import PairTransform
from .checks import CheckedPair
from .pair_pass import NetworkResult
from .uncertainty import Segmentation, entropy

OfBoth: TypeAlias = "tuple[Tensor | None, Tensor | None]"
"""Classes or tumours of the fixed and of the moving study on the working grid; None if they are not known."""
ROLES = ("fixed", "moving")
_POINTS = 5000
"""Number of points, about, at which the error of the inverse is evaluated."""


def registration_summary(
    fixed: PreparedStudy,
    moving: PreparedStudy,
    deformation: Deformation,
    transform: PairTransform,
    alignment: AffineResult,
    driving: Sequence[str],
    fixed_tumor: Tensor | None,
    shown: Tensor | None = None,
) -> dict[str, Any]:
    """Compute plain numbers for the report.

    Similarities, overlaps and the deformation are evaluated where both visits show the brain, at half resolution;
    similarities and deformation without the tumour.

    Args:
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid, after the affine alignment.
        deformation: Deformation from the fixed to the moving study on that grid, beyond the affine alignment.
        transform: Transforms of the deformation with the affine alignment.
        alignment: Result of the affine alignment.
        driving: Modalities that drove the registration.
        fixed_tumor: Tumour (1, 1, D, H, W) of the fixed study on the working grid; None if it is not known.
        shown: Voxels (1, 1, D, H, W) that both visits show; None for all of them.

    Returns:
        Numbers and lists of numbers by name:

        - ``working_grid``: voxels along right, anterior, superior, and spacing in mm;
        - ``affine``: mutual information, Dice overlap of the brains and singular values of the matrix;
        - ``brain_dice_before``, ``brain_dice_after``: overlap of the brains after the affine alignment alone, and after
          the deformation;
        - ``local_correlation_before``, ``local_correlation_after``: mean squared local correlation in boxes of 9
          voxels, likewise;
        - ``displacement_mm_mean``, ``displacement_mm_max``: of the deformation beyond the affine alignment;
        - ``jacobian_min``, ``jacobian_max``, ``log_jacobian_sd``: of its Jacobian determinant;
        - ``folded_fraction``: fraction of the brain where that determinant is not positive;
        - ``inverse_error_mm_mean``, ``inverse_error_mm_max``: distance between points of the brain and the points to
          which the two transforms, one after the other, take them.
    """
    channels = [MODALITIES.index(m) for m in driving]
    half = tuple(n // 2 for n in fixed.grid.shape)
    spacing = fixed.grid.spacing_mm * 2
    first, second = (F.avg_pool3d(s.images[None, channels], 2) for s in (fixed, moving))
    brain, moving_brain = (F.avg_pool3d(s.mask[None, None].float(), 2) >= 0.5 for s in (fixed, moving))
    displacement = resize_displacement(deformation.displacement, half)
    tumor = torch.zeros_like(brain) if fixed_tumor is None else F.max_pool3d(fixed_tumor.float(), 2) > 0
    both = torch.ones_like(brain) if shown is None else F.avg_pool3d(shown.float(), 2) >= 0.5
    selected = brain & both & ~tumor
    if not selected.any():  # all tumour
        selected = brain
    with torch.inference_mode():
        warped, warped_brain = warp(second, displacement), warp(moving_brain.float(), displacement) >= 0.5
        determinant = jacobian_determinant(displacement)[selected]
        distance = length(displacement)[selected] * spacing
        mask = selected.float()
        before, after = (_rounded(lncc(first, image, mask=mask)) for image in (second, warped))
    return {
        "working_grid": {"voxels": list(fixed.grid.size), "spacing_mm": fixed.grid.spacing_mm},
        "bias_field_corrected": {"fixed": fixed.bias_corrected, "moving": moving.bias_corrected},
        "affine": {
            "mutual_information": round(alignment.mutual_information, 4),
            "brain_overlap": round(alignment.overlap, 4),
            "scale": [round(float(s), 4) for s in _singular_values(alignment)],
        },
        "brain_dice_before": _dice(brain & both, moving_brain & both),
        "brain_dice_after": _dice(brain & both, warped_brain & both),
        "local_correlation_before": before,
        "local_correlation_after": after,
        "displacement_mm_mean": _rounded(distance.mean()),
        "displacement_mm_max": _rounded(distance.max()),
        "jacobian_min": _rounded(determinant.min()),
        "jacobian_max": _rounded(determinant.max()),
        "log_jacobian_sd": _rounded(determinant.clamp(min=1e-3).log().std()),
        "folded_fraction": float((determinant <= 0).double().mean()),
        **_inverse_errors(fixed, transform),
    }


def judged(
    result: JointResult,
    pair: CheckedPair,
    studies: tuple[PreparedStudy, PreparedStudy],
    alignment: AffineResult,
    found: NetworkResult,
    classes: OfBoth,
    tumors: OfBoth,
    deformation: Deformation,
) -> JointResult:
    """Return a result with verdicts on registration and segmentation in its summary and its warnings.

    Args:
        result: Result without verdicts.
        pair: The two visits.
        studies: Fixed and moving study on the working grid, the moving one after the linear alignment.
        alignment: Result of the linear alignment.
        found: What the network says.
        classes: Classes (D, H, W) of both studies.
        tumors: Tumours (1, 1, D, H, W) of both studies, with all that was left out of the registration.
        deformation: Deformation on the working grid.
    """
    quality = pair_quality(*studies, deformation, alignment, pair.driving, tumors)
    summary = result.summary
    registration = judge_registration(quality, summary["inverse_error_mm_mean"], summary["folded_fraction"])
    signs: list[Sign] = []
    compartments: dict[str, Any] = {}
    sides = zip(ROLES, studies, (pair.fixed, pair.moving), (found.fixed, found.moving), classes, strict=True)
    for role, study, checked, segmentation, values in sides:
        if values is None:
            continue
        predicted = None if checked.given_labels is not None else segmentation
        of_study, compartments[role] = segmentation_signs(study, values, predicted)
        signs += of_study
    segmentation_verdict = Verdict.of(signs) if compartments else None
    warnings = registration.warning("registration")
    if segmentation_verdict is not None:
        warnings += segmentation_verdict.warning("segmentation")
    return replace(
        result,
        summary={
            **summary,
            "quality": quality.to_dict(),
            "compartments": compartments,
            **combined(registration, segmentation_verdict),
        },
        warnings=(*result.warnings, *warnings),
    )


def segmentation_signs(
    study: PreparedStudy, classes: Tensor, predicted: Segmentation | None
) -> tuple[list[Sign], dict[str, Any]]:
    """Collect what speaks against the segmentation of a study.

    Args:
        study: Study on the working grid.
        classes: Classes (D, H, W) on that grid.
        predicted: What the network says; None if the segmentation was given.

    Returns:
        Levels and reasons, and the numbers for the report by compartment, which only a predicted segmentation has.
    """
    signs = label_signs(study, classes)
    if predicted is None:
        return signs, {}
    voxel_ml = study.voxel_ml
    tumor = predicted.probabilities[1:CAVITY].sum(0)
    uncertain = entropy(torch.stack([1 - tumor, tumor]).clamp(0, 1))
    signs += uncertainty_signs(study.name, uncertain, is_tumor(classes), predicted.counts, voxel_ml)
    removed_ml = 0.0 if predicted.removed is None else float(predicted.removed.sum()) * voxel_ml
    if removed_ml >= LEAST_ML:
        signs.append(
            (
                CHECK,
                f"the network took {removed_ml:.1f} ml of the {study.name} study for tumour; they were left "
                "out, because they are hardly brighter on FLAIR than healthy brain, or were called tumour only with or "
                "only without a correction of the bias field",
            )
        )
    compartments = compartment_qualities(study, predicted.probabilities)
    for compartment in compartments.values():
        signs += compartment.signs(study.name)
    return signs, {name: compartment.to_dict() for name, compartment in compartments.items()}


def _inverse_errors(fixed: PreparedStudy, transform: PairTransform) -> dict[str, float]:
    voxels = torch.nonzero(fixed.mask)
    indices_ijk = voxels[:: max(1, len(voxels) // _POINTS)].numpy()[:, ::-1]
    grid = fixed.grid
    points = grid.origin_lps_mm + indices_ijk * (np.array([-1, -1, 1]) * grid.spacing_mm)
    to_moving, to_fixed = transform.moving_to_fixed.TransformPoint, transform.fixed_to_moving.TransformPoint
    returned = np.array([to_fixed(to_moving(point)) for point in points.tolist()])
    distance = np.linalg.norm(returned - points, axis=1)
    return {
        "inverse_error_mm_mean": round(float(distance.mean()), 4),
        "inverse_error_mm_max": round(float(distance.max()), 4),
    }


def _singular_values(alignment: AffineResult) -> np.ndarray:
    return np.linalg.svd(np.array(alignment.transform.GetMatrix()).reshape(3, 3), compute_uv=False)


def _dice(first: Tensor, second: Tensor) -> float:
    total = int(first.sum() + second.sum())
    return round(2 * int((first & second).sum()) / total, 4) if total else 0.0


def _rounded(value: Tensor) -> float:
    return round(float(value), 4)
