"""What images and anatomy say about a predicted segmentation, beside the network.

- Tumour that is bright on T1 with contrast agent is enhancing tumour; that is what the name means. A network that has
  learned from few patients knows the place of a tumour better than the brightness of its parts.
- Tumour of which nothing is clearly brighter on FLAIR than healthy brain was mistaken. Without contrast agent a network
  may take a whole cerebellum for tumour because it is somewhat brighter than the cerebrum.
- Tumour that a network sees only with, or only without a correction of the bias field was mistaken likewise.
- What an enhancing ring encloses is tumour core.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..images.labels import CAVITY, EDEMA, ENHANCING, NECROTIC_CORE, classes_of_probabilities, is_tumor
from ..images.normalization import robust_center_and_deviation

_T1_SHARE = 0.25
"""Share of the brightness on T1 that is taken from that on T1 with contrast agent: blood and fat are bright on both."""
_MIDDLE_SD, _PER_SD = 1.5, 2.5
"""Brightness at which a voxel of the tumour is as likely to enhance as not, in robust standard deviations of the
healthy brain above its median, and the rise of the log odds. Chosen on eight real patients and rounded; the model card
tells what the rule changes in patients who took no part."""
_SMOOTHED_MM = 1.0
_SURROUNDINGS_MM = 20.0
"""Standard deviation of the Gaussian that weights the healthy brain around a voxel. What is brighter there than
elsewhere lies nearer to the coil, and its brightness is corrected for that."""
_HEALTHY = 0.2
"""Probability of tumour up to which brain counts as healthy."""
_COARSE_MM = 4.0
_FAINT_SD = 2.0
"""Brightness on FLAIR, in robust standard deviations of the healthy brain above its median, that the brightest tenth of
a tumour has at least. After the correction of bias fields, tumours of ten patients reach 2.2 to 7, and what was taken
for tumour in four heads without one 1.4 to 1.9."""
_BRIGHTEST = 0.9
_LEAST_AGREED = 0.3
"""Share of a part of the tumour that each of two views of a study calls tumour at least. With FLAIR alone, with and
without a correction of its bias field, it is 0.34 or more for the tumours of eight real patients, and 0 to 0.6 for what
was taken for tumour elsewhere."""
_SAMPLES = 100_000
_LEAST_DIRECTIONS = 2
"""In how many of the three slice directions a voxel must be enclosed, as rings are often open at one end."""


def with_bright_enhancing(
    probabilities: Tensor, t1ce: Tensor, t1: Tensor | None, brain: Tensor, spacing_mm: float
) -> Tensor:
    """Divide the tumour into enhancing tumour and the rest by its brightness on T1 with contrast agent.

    The probability of tumour stays as it is, and so does the proportion of core to oedema in what does not enhance.

    Args:
        probabilities: Class probabilities (class, D, H, W).
        t1ce: T1 with contrast agent (D, H, W), in any unit that T1 shares.
        t1: T1 (D, H, W) in the same unit; None without one.
        brain: Brain (D, H, W) that these images show, bool. Elsewhere the probabilities stay as they are.
        spacing_mm: Voxel size in mm.

    Returns:
        Class probabilities of the same shape.
    """
    tumor = probabilities[[NECROTIC_CORE, EDEMA, ENHANCING]].sum(0)
    bright = t1ce if t1 is None else t1ce - _T1_SHARE * t1
    healthy = brain & (tumor + probabilities[CAVITY:].sum(0) <= _HEALTHY)
    if not bool(healthy.any()):  # nothing to compare with
        return probabilities
    flat = bright - _surroundings(bright, healthy, spacing_mm)
    _, deviation = robust_center_and_deviation(bright[healthy])
    bright = (flat - flat[healthy].median()) / deviation * brain
    smooth, share = gaussian_smooth(
        torch.stack([bright, brain.to(bright)]), _SMOOTHED_MM / spacing_mm, border="zero", truncate=3
    )
    bright = (bright + smooth / share.clamp_min(1e-3)) / 2
    enhances = torch.sigmoid(_PER_SD * (bright - _MIDDLE_SD))
    core, edema = probabilities[NECROTIC_CORE], probabilities[EDEMA]
    core_share = core / (core + edema).clamp_min(1e-6)
    result = probabilities.clone()
    result[ENHANCING] = tumor * enhances
    result[NECROTIC_CORE] = tumor * (1 - enhances) * core_share
    result[EDEMA] = tumor * (1 - enhances) * (1 - core_share)
    return torch.where(brain, result, probabilities)


def without_faint_tumor(
    probabilities: Tensor, flair: Tensor, brain: Tensor, spacing_mm: float
) -> tuple[Tensor, Tensor]:
    """Remove connected parts of the tumour that are hardly brighter on FLAIR than healthy brain, anywhere or around.

    A resection cavity is dark there; it is not judged, and stays.

    Args:
        probabilities: Class probabilities (class, D, H, W).
        flair: FLAIR (D, H, W), in any unit.
        brain: Brain (D, H, W) that FLAIR shows, bool.
        spacing_mm: Voxel size in mm.

    Returns:
        Class probabilities of the same shape, and the voxels (D, H, W) that are no longer called tumour, bool.
    """
    tumor = probabilities[1:CAVITY].sum(0)
    called = _called(probabilities)
    healthy = brain & (1 - probabilities[0] <= _HEALTHY)
    if not bool(called.any()) or not bool(healthy.any()):
        return probabilities, torch.zeros_like(called)
    flat = flair - _surroundings(flair, healthy, spacing_mm)
    center, deviation = robust_center_and_deviation(flair[healthy])
    scores = torch.minimum(flair - center, flat - flat[healthy].median()) / deviation
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray((tumor > _HEALTHY).numpy().astype(np.uint8)))
    numbers = torch.from_numpy(sitk.GetArrayFromImage(parts).astype(np.int64))
    faint = torch.zeros_like(called)
    for number in numbers[called].unique().tolist():
        part = numbers == number
        values = scores[part & called & brain]
        values = values[:: max(1, len(values) // _SAMPLES)]
        if len(values) and float(torch.quantile(values, _BRIGHTEST)) < _FAINT_SD:
            faint |= part
    return without_tumor(probabilities, faint), faint & called


def agreed_tumor(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average two views of a study, without the parts of the tumour that one of them hardly sees.

    Args:
        first: Class probabilities (class, D, H, W) of one view.
        second: Those of the other view.

    Returns:
        Class probabilities of the same shape, and the voxels (D, H, W) that are no longer called tumour, bool. A
        connected part of the tumour is left out where one view calls less than three tenths of it tumour.
    """
    mean = (first + second) / 2
    called = _called(mean)
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(called.numpy().astype(np.uint8)))
    numbers = torch.from_numpy(sitk.GetArrayFromImage(parts).astype(np.int64))
    sizes = torch.bincount(numbers.flatten()).double()
    shares = [torch.bincount(numbers.flatten(), _called(view).flatten().double()) / sizes for view in (first, second)]
    disputed = torch.minimum(*shares) < _LEAST_AGREED
    disputed[0] = False  # what is no tumour
    left_out = disputed[numbers]
    return without_tumor(mean, left_out), left_out


def _called(probabilities: Tensor) -> Tensor:
    """Voxels (D, H, W) that are called tumour."""
    return is_tumor(classes_of_probabilities(probabilities))


def without_tumor(probabilities: Tensor, where: Tensor) -> Tensor:
    """Return class probabilities (class, D, H, W) without the tumour of some voxels (D, H, W), bool.

    Background and resection cavity take its place, in the proportion that they have there.
    """
    others = [0, *range(CAVITY, len(probabilities))]
    total = probabilities[others].sum(0)
    factor = torch.where(where & (total > 0), 1 / total.clamp_min(torch.finfo(total.dtype).tiny), 1)
    result = probabilities.clone()
    result[1:CAVITY] *= ~where
    result[others] *= factor
    result[0] += where & (total <= 0)
    return result


def _surroundings(image: Tensor, healthy: Tensor, spacing_mm: float) -> Tensor:
    """Mean of an image (D, H, W) over the healthy brain around each voxel, relative to that of all healthy brain."""
    weights = healthy.to(image)
    total = (image * weights).sum() / weights.sum().clamp_min(1)
    factor = max(1, round(_COARSE_MM / spacing_mm))
    padding = [n for size in reversed(image.shape) for n in (0, -size % factor)]
    sums = F.avg_pool3d(F.pad(torch.stack([(image - total) * weights, weights]), padding), factor)
    value, share = gaussian_smooth(sums, _SURROUNDINGS_MM / (factor * spacing_mm), border="zero", truncate=3)
    coarse = (value / (share + 0.01))[None, None]
    fine = F.interpolate(coarse, scale_factor=factor, mode="trilinear", align_corners=False)[0, 0]
    return fine[tuple(slice(n) for n in image.shape)]


def with_enclosed_core(labels: sitk.Image) -> sitk.Image:
    """Assign what enhancing tumour encloses to the non-enhancing core.

    A voxel is enclosed if no path within its slice leads around the enhancing tumour to the border, in at least two of
    the three slice directions.

    Args:
        labels: Classes (uint8).

    Returns:
        Classes of the same grid; enclosed background and oedema have become core, but not beside an enclosed resection
        cavity, which stays one.
    """
    array = sitk.GetArrayFromImage(labels)
    enhancing = array == ENHANCING
    if not enhancing.any():
        return labels
    corners = np.argwhere(enhancing)
    box = tuple(slice(int(first), int(last) + 1) for first, last in zip(corners.min(0), corners.max(0), strict=True))
    ring = enhancing[box]
    votes = sum(_enclosed_in_slices(ring, axis).astype(np.uint8) for axis in range(3))
    part = array[box]
    inside = (votes >= _LEAST_DIRECTIONS) & ~ring
    if (part[inside] == CAVITY).any():
        parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.astype(np.uint8))))
        inside &= ~np.isin(parts, np.unique(parts[part == CAVITY]))
    if not inside.any():
        return labels
    array[box] = np.where(inside, NECROTIC_CORE, part)
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(labels)
    return result


def _enclosed_in_slices(ring: np.ndarray, axis: int) -> np.ndarray:
    """Voxels (D, H, W) that a mask encloses within the slices perpendicular to an axis, the mask included."""
    slices = np.moveaxis(ring, axis, 0)
    filled = [sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(s.astype(np.uint8)))) for s in slices]
    return np.moveaxis(np.stack(filled).astype(bool), 0, axis)
