"""Volumes of the tumour regions, their intervals, and their changes between two visits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import SimpleITK as sitk
from torch import Tensor

from ..images.compartments import title_of
from ..images.labels import CAVITY, CLASSES, LABELS, REGIONS
from ..images.modalities import MODALITIES
from .result import RegionCoverage, RegionVolume, VolumeChange

VOLUME_REGIONS: dict[str, tuple[int, ...]] = {
    **{name: (number,) for number, name in enumerate(CLASSES) if number},
    **{name: classes for name, classes in REGIONS.items() if len(classes) > 1},
    LABELS[CAVITY]: (CAVITY,),
}
"""Numbers of each region whose volume is reported: the single classes, their unions, and the resection cavity.

A class is reported only where a segmentation can have it: of a compartment that the convention of a label map does not
know, 0 ml would be no finding. A union is measured over those of its classes that the segmentation can have.
"""
ERROR_PER_UNCERTAIN = {
    "necrotic_core": 10.0,
    "edema": 3.0,
    "enhancing_tumor": 6.0,
    "tumor_core": 5.0,
    "whole_tumor": 3.5,
    LABELS[CAVITY]: 10.0,
}
"""Error of a volume, in uncertain volumes (see ``uncertain_volumes``), that nine of ten volumes do not exceed.

From two cross-validations over eight real patients with three sets of modalities each: that of the bundled weights
before the brightness decided what enhances (whole tumour, oedema, necrotic core), and that of smaller networks with it
(enhancing tumour and core), see the page on the method. They are somewhat above the quantiles, because those of three
folds held only 100 of 120 volumes of the fourth. No patient with a cavity took part: its factor is that of the necrotic
core.
"""
LEAST_UNCERTAIN_ML = 0.1
"""Smallest uncertain volume from which an interval is computed."""
_SMALLEST_CAVITY_ML = 0.5
VISIBLE_IN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("necrotic_core", "enhancing_tumor", "tumor_core"), ("t1ce",)),
    **dict.fromkeys(("edema", "whole_tumor"), ("flair", "t2")),
    LABELS[CAVITY]: MODALITIES,
}
"""Modalities in which a region is visible. A network can only guess it in a study that has none of them."""


def regions_without_modality(present: Collection[str]) -> tuple[str, ...]:
    """Return the regions that are visible in none of the given modalities."""
    return tuple(region for region in VOLUME_REGIONS if not set(VISIBLE_IN[region]) & set(present))


def enumerated(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: 'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def uncertain_volumes(probabilities: Tensor, voxel_volume_ml: float) -> dict[str, float]:
    """Return the uncertain volume of every region, the sum of ``p (1 - p)`` for its probability p, in ml.

    Args:
        probabilities: Class probabilities (class, D, H, W).
        voxel_volume_ml: Volume of a voxel in ml.
    """
    found = {}
    for name, classes in VOLUME_REGIONS.items():
        if max(classes) < len(probabilities):
            share = probabilities[list(classes)].sum(0).double()
            found[name] = float((share * (1 - share)).sum()) * voxel_volume_ml
    return found


def voxel_ml(image: sitk.Image) -> float:
    """Return the volume of one voxel in ml."""
    return float(np.prod(image.GetSpacing())) / 1000


def region_volumes(
    labels: sitk.Image,
    study: str,
    counts: Tensor | None = None,
    coverage: Mapping[str, RegionCoverage] | None = None,
    hidden: Mapping[str, sitk.Image] | None = None,
    uncertain_ml: Mapping[str, float] | None = None,
    known: Collection[int] | None = None,
) -> tuple[RegionVolume, ...]:
    """Measure the volume of every region in a label image.

    Voxels in which no image shows the region do not count: what a network says of them is a guess.

    The interval of a volume reaches from the smallest to the largest number of voxels that the region has over the
    variants, relative to their mean, and is widened where needed so that it contains the volume. With uncertain volumes
    it is widened to the errors that the bundled weights have at such an uncertainty in nine of ten cases.

    Args:
        labels: Classes (uint8).
        study: 'fixed' or 'moving', for the rows.
        counts: Number of voxels (variant, class) that each test-time variant assigned to each class; None, or a single
            variant, gives no intervals.
        coverage: How much of each region the visit shows; None if it shows everything.
        hidden: Voxels (non-zero) in which no image shows a region, by region, on the grid of ``labels``; None if a
            network did not segment.
        uncertain_ml: Uncertain volume of each region, see ``uncertain_volumes``; None if a network did not segment.
        known: Numbers that the labels can have, besides those that they have; None for ``CLASSES`` and those of
            ``counts``.

    Returns:
        One row per region of which the labels can have a class, in the order of ``VOLUME_REGIONS``.
    """
    array = sitk.GetArrayViewFromImage(labels)
    voxels = np.bincount(array.ravel(), minlength=len(LABELS))
    if known is None:
        known = range(len(CLASSES) if counts is None else max(len(CLASSES), counts.shape[1]))
    rows = []
    for name, all_classes in VOLUME_REGIONS.items():
        classes = tuple(number for number in all_classes if number in known or voxels[number])
        if not classes:
            continue
        number = int(voxels[list(classes)].sum())
        if number and hidden is not None and name in hidden:
            number = int(np.isin(array[sitk.GetArrayViewFromImage(hidden[name]) == 0], classes).sum())
        volume = number * voxel_ml(labels)
        low = high = None
        if counts is not None and len(counts) > 1 and max(classes) < counts.shape[1]:
            by_variant = counts[:, list(classes)].sum(1).double()
            mean = float(by_variant.mean())
            low = min(volume, volume * float(by_variant.min()) / mean) if mean else volume
            high = max(volume, volume * float(by_variant.max()) / mean) if mean else volume
        if low is not None and high is not None and uncertain_ml is not None and name in uncertain_ml:
            error = ERROR_PER_UNCERTAIN[name] * max(uncertain_ml[name], LEAST_UNCERTAIN_ML)
            low, high = max(0.0, min(volume - error, low)), max(volume + error, high)
        shown = RegionCoverage() if coverage is None else coverage[name]
        rows.append(RegionVolume(study, name, volume, low, high, shown.cut_off, shown.share, classes))
    return tuple(rows)


def volume_changes(
    fixed: Sequence[RegionVolume],
    moving: Sequence[RegionVolume],
    fixed_labels: sitk.Image | None,
    warped_labels: sitk.Image | None,
    jacobian: sitk.Image,
) -> tuple[VolumeChange, ...]:
    """Compare the volumes of every region between the fixed and the moving study.

    Args:
        fixed: Volumes of the fixed study; empty if it was not segmented.
        moving: Volumes of the moving study; empty if it was not segmented.
        fixed_labels: Classes of the fixed study.
        warped_labels: Classes of the moving study, warped onto the grid of the fixed study.
        jacobian: Jacobian determinant of the deformation on the grid of the fixed study.

    Returns:
        One row per region that either study has; none at all if neither study was segmented.
    """
    before, after = ({row.region: row for row in rows} for rows in (fixed, moving))
    return tuple(
        _change(name, before.get(name), after.get(name), fixed_labels, warped_labels, jacobian)
        for name in VOLUME_REGIONS
        if name in before or name in after
    )


def _change(
    region: str,
    before: RegionVolume | None,
    after: RegionVolume | None,
    fixed_labels: sitk.Image | None,
    warped_labels: sitk.Image | None,
    jacobian: sitk.Image,
) -> VolumeChange:
    in_part = any(row is not None and row.at_least for row in (before, after))
    moving_warped_ml = fixed_deformed_ml = None
    if after is not None and warped_labels is not None and not in_part:
        moving_warped_ml = _volume_ml(warped_labels, VOLUME_REGIONS[region])
    if before is not None and fixed_labels is not None and not in_part:
        fixed_deformed_ml = _volume_ml(fixed_labels, VOLUME_REGIONS[region], jacobian)
    return VolumeChange(
        region,
        None if before is None else before.volume_ml,
        None if after is None else after.volume_ml,
        *difference(before, after),
        moving_warped_ml=moving_warped_ml,
        fixed_deformed_ml=fixed_deformed_ml,
        fixed_at_least=before is not None and before.at_least,
        moving_at_least=after is not None and after.at_least,
    )


def difference(
    before: RegionVolume | None, after: RegionVolume | None
) -> tuple[float | None, float | None, float | None, float | None]:
    """Return the change of a volume in ml and in percent, and the ends of its interval in ml, see ``VolumeChange``.

    None of them is known where a volume is missing, a guess or only the least one, or where the two were measured over
    different classes.
    """
    if before is None or after is None or before.classes != after.classes:
        return None, None, None, None
    if any(row.at_least or not row.seen_share for row in (before, after)):
        return None, None, None, None
    change = after.volume_ml - before.volume_ml
    low = high = None
    if after.low_ml is not None and before.high_ml is not None:
        low = after.low_ml - before.high_ml
    if after.high_ml is not None and before.low_ml is not None:
        high = after.high_ml - before.low_ml
    return change, 100 * change / before.volume_ml if before.volume_ml else None, low, high


def unlike_regions(fixed: Sequence[RegionVolume], moving: Sequence[RegionVolume]) -> frozenset[str]:
    """Return the regions of which the segmentations of two studies do not have the same compartments."""
    before, after = ({row.region: row.classes for row in rows} for rows in (fixed, moving))
    return frozenset(region for region in VOLUME_REGIONS if before.get(region) != after.get(region))


def missing_compartments(study: str, own: Sequence[RegionVolume], other: Sequence[RegionVolume]) -> tuple[str, ...]:
    """Return a sentence where the segmentation of a study cannot have a compartment of the tumour.

    Args:
        study: Name of the study.
        own: Its volumes.
        other: Those of the other study; empty if it was not segmented.
    """
    known = {number for row in own for number in row.classes}
    missing = [title_of(name).lower() for number, name in enumerate(CLASSES) if number and number not in known]
    if not own or not missing:
        return ()
    measured = [title_of(row.region).lower() for row in own if row.classes != VOLUME_REGIONS[row.region]]
    without = f", and {enumerated(measured)} are measured without it" if measured else ""
    unlike = other and unlike_regions(own, other) - {LABELS[CAVITY]}
    compared = "; these are not compared with those of the other study, which are measured otherwise" if unlike else ""
    return (
        f"the segmentation of the {study} study has no number or segment for the {enumerated(missing)}, which is "
        f"therefore unknown{without}{compared}: if there is none, add an empty segment, or declare a number with "
        "--labels",
    )


def without_islands(labels: sitk.Image, smallest_ml: float) -> sitk.Image:
    """Remove the connected parts of the whole tumour, and resection cavities, that are smaller than a volume.

    Args:
        labels: Classes (uint8).
        smallest_ml: Volume in ml below which a part of the tumour is removed; 0 removes nothing. A cavity is removed
            below 0.5 ml, or this volume if it is larger; its voxels become what most of those around it are.

    Returns:
        The remaining classes. The largest part of the tumour always stays.
    """
    array = sitk.GetArrayFromImage(labels)
    found = np.argwhere(array)
    if not smallest_ml or not len(found):
        return labels
    box = tuple(
        slice(max(int(first) - 1, 0), int(last) + 2) for first, last in zip(found.min(0), found.max(0), strict=True)
    )
    part = array[box]
    volume = voxel_ml(labels)
    numbers, sizes = _parts(part == CAVITY)
    for number in np.flatnonzero(sizes * volume < max(smallest_ml, _SMALLEST_CAVITY_ML)):
        if number:
            speck = sitk.GetImageFromArray((numbers == number).astype(np.uint8))
            around = (sitk.GetArrayFromImage(sitk.BinaryDilate(speck, [1, 1, 1])) > 0) & (part != CAVITY)
            part[numbers == number] = np.bincount(part[around], minlength=1).argmax()
    numbers, sizes = _parts((part > 0) & (part != CAVITY))
    large_enough = sizes * volume >= smallest_ml
    large_enough[:2] = True  # the background and the largest part
    array[box] = np.where(large_enough[numbers], part, 0)
    cleaned = sitk.GetImageFromArray(array)
    cleaned.CopyInformation(labels)
    return cleaned


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected parts of a mask, the largest first, and count their voxels; 0 is the background."""
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    numbers = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, sortByObjectSize=True))
    return numbers, np.bincount(numbers.ravel())


def _volume_ml(labels: sitk.Image, classes: tuple[int, ...], weights: sitk.Image | None = None) -> float:
    """Volume of some classes; each voxel counts as much as ``weights`` says, if given."""
    inside = np.isin(sitk.GetArrayViewFromImage(labels), classes)
    if weights is None:
        return float(inside.sum()) * voxel_ml(labels)
    return float(sitk.GetArrayViewFromImage(weights)[inside].sum(dtype=np.float64)) * voxel_ml(labels)
