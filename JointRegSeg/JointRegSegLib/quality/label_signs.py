"""Whether a segmentation agrees with what its classes look like: signs of a wrong label convention or a wrong image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..images.labels import CAVITY
from ..images.modalities import MODALITIES, TITLES
from ..images.normalization import robust_center_and_deviation
from ..images.preprocessing.prepared_study import PreparedStudy
from .verdict import CHECK, FAILED, Sign

CORE, EDEMA, ENHANCING = 1, 2, 3
_LEAST_ML = 0.5
"""Smallest volume of a class that is judged, and of its part that an image shows."""
_LARGEST_SHARE = 0.35
"""Largest share of the brain that a tumour can plausibly take up."""
_DARK = -1.0
"""Brightness, in robust standard deviations of healthy brain, below which a tumour does not enhance."""
_UNCERTAIN = 0.38
"""Mean entropy of tumour against no tumour, within the tumour, from which a segmentation should be checked.

From the cross-validation on the page of the method: it divides whole tumours by their Dice coefficient of 0.8.
"""
_WIDE = 0.6
"""Width of the interval of the whole tumour's volume, relative to the volume, from which it should be checked."""


def label_signs(study: PreparedStudy, classes: Tensor) -> list[Sign]:
    """Compare the classes of a study with its images.

    Args:
        study: Study on the working grid.
        classes: Classes (D, H, W) on that grid.

    Returns:
        Levels and reasons; none if nothing contradicts the segmentation.
    """
    masks = {number: classes == number for number in (CORE, EDEMA, ENHANCING)}
    tumor = masks[CORE] | masks[EDEMA] | masks[ENHANCING]
    voxel_ml = study.voxel_ml
    present = {number for number, mask in masks.items() if float(mask.sum()) * voxel_ml >= _LEAST_ML}
    signs: list[Sign] = []
    brain = int(study.mask.sum())
    if int(tumor.sum()) > _LARGEST_SHARE * brain:
        share = 100 * int(tumor.sum()) / brain
        signs.append((FAILED, f"the tumour of the {study.name} study takes up {share:.0f} % of the brain"))
    healthy = study.mask & (classes == 0)
    if not bool(healthy.any()):
        return signs
    signs += _enhancement_signs(study, masks, present, healthy)
    if EDEMA in present:
        signs += _edema_signs(study, masks, present, healthy, classes > 0)
    return signs


def uncertainty_signs(name: str, entropy: Tensor, tumor: Tensor, counts: Tensor | None, voxel_ml: float) -> list[Sign]:
    """Judge the whole tumour of a predicted segmentation by how certain the network was of it.

    Its compartments are judged one by one, see ``compartment_signs``.

    Args:
        name: Name of the study.
        entropy: Entropy of tumour against no tumour (D, H, W), 0 to 1.
        tumor: Predicted tumour (D, H, W), bool.
        counts: Voxels (variant, class) of each variant of the study; None, or a single variant, says nothing.
        voxel_ml: Volume of a voxel.
    """
    volume = float(tumor.sum()) * voxel_ml
    if volume < _LEAST_ML:
        return []
    signs: list[Sign] = []
    mean = float(entropy[tumor].mean())
    if mean > _UNCERTAIN:
        signs.append(
            (
                CHECK,
                f"the network is uncertain how far the tumour of the {name} study reaches (mean entropy {mean:.2f})",
            )
        )
    if counts is not None and len(counts) > 1:
        volumes = counts[:, 1:CAVITY].sum(1).double() * voxel_ml
        width = float(volumes.max() - volumes.min()) / max(float(volumes.mean()), 1e-6)
        if width > _WIDE:
            signs.append(
                (
                    CHECK,
                    f"the tumour of the {name} study has {float(volumes.min()):.1f} to {float(volumes.max()):.1f} ml "
                    "depending on how the images are shown to the network, mirrored or fewer of them",
                )
            )
    return signs


def _enhancement_signs(
    study: PreparedStudy, masks: dict[int, Tensor], present: set[int], healthy: Tensor
) -> list[Sign]:
    if "t1ce" not in study.present:
        return []
    found = {n: _brightness(study, "t1ce", masks[n], healthy) for n in present}
    bright = {n: value for n, value in found.items() if value is not None}
    where = f"of the {study.name} study"
    signs: list[Sign] = []
    if ENHANCING in bright and bright[ENHANCING] < _DARK:
        signs.append((CHECK, f"the enhancing tumour {where} is much darker than healthy brain on T1ce"))
    for number, name in ((CORE, "necrotic core"), (EDEMA, "oedema")):
        if number not in bright:
            continue
        if ENHANCING in bright and bright[number] > bright[ENHANCING] + 0.5:
            signs.append((CHECK, f"the {name} {where} is brighter than the enhancing tumour on T1ce"))
        elif ENHANCING not in present and number == EDEMA and bright[number] > 1.5:
            signs.append((CHECK, f"the {name} {where} enhances on T1ce"))
    return [(level, f"{reason}: check the label convention and the images") for level, reason in signs]


def _edema_signs(
    study: PreparedStudy, masks: dict[int, Tensor], present: set[int], healthy: Tensor, filled: Tensor
) -> list[Sign]:
    signs: list[Sign] = []
    where = f"of the {study.name} study"
    modality = next((m for m in ("flair", "t2") if m in study.present), None)
    bright = None if modality is None else _brightness(study, modality, masks[EDEMA], healthy)
    if modality is not None and bright is not None and bright < 0.2:
        signs.append((CHECK, f"the oedema {where} is no brighter than healthy brain on {TITLES[modality]}"))
    if CORE in present:
        core, edema = _mean_depths([masks[CORE], masks[EDEMA]], filled)  # with the cavity, whose wall is no border
        if core < edema:
            signs.append((CHECK, f"the necrotic core {where} lies nearer to the border of the tumour than the oedema"))
    return [(level, f"{reason}: check the label convention and the images") for level, reason in signs]


def _brightness(study: PreparedStudy, modality: str, region: Tensor, healthy: Tensor) -> float | None:
    """Mean intensity of a region relative to the median of healthy brain, in its robust standard deviations.

    Only what the image shows of both counts; None if that is hardly anything.
    """
    image, shown = study.images[MODALITIES.index(modality)], study.shown([modality])
    region, healthy = region & shown, healthy & shown
    if min(int(region.sum()), int(healthy.sum())) * study.voxel_ml < _LEAST_ML:
        return None
    indices = torch.nonzero(healthy.flatten()).flatten()
    center, deviation = robust_center_and_deviation(image.flatten()[indices[:: max(1, len(indices) // 50_000)]])
    return float((image[region].mean() - center) / deviation)


def _mean_depths(regions: Sequence[Tensor], tumor: Tensor) -> list[float]:
    """Mean distance of regions (D, H, W) from the border of the tumour (D, H, W), in voxels."""
    places = [torch.nonzero(tumor.amax(tuple(a for a in range(3) if a != axis))).flatten() for axis in range(3)]
    box = tuple(slice(max(int(along[0]) - 1, 0), int(along[-1]) + 2) for along in places)
    inside = sitk.GetImageFromArray(tumor[box].numpy().astype(np.uint8))
    depth = sitk.SignedMaurerDistanceMap(inside, insideIsPositive=True, squaredDistance=False)
    values = torch.from_numpy(sitk.GetArrayFromImage(depth))
    return [float(values[region[box]].mean()) for region in regions]
