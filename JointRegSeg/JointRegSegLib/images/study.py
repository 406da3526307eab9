"""The volumes of one visit as SimpleITK images, checked once where they enter the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk

from .label_maps import LabelReading
from .modalities import MODALITIES

SMALLEST_VOXELS = 8
"""Fewest voxels along an axis."""
SMALLEST_EXTENT_MM = 40.0
"""Smallest extent along an axis that can contain a tumour with its surroundings."""
LARGEST_VOXELS = 2**29
"""Largest number of voxels of one volume: 800 x 800 x 800, 2 GB in single precision."""
_SKEW_TOLERANCE = 1e-3
_MOST_NOT_FINITE = 0.97  # a small brain in a large field of view, on a background of NaN
_LARGEST_SHARE = 1.05
"""Largest value of a mask whose fractional values are shares of a voxel or probabilities; smoothing overshoots 1."""
_REMEDY = "choose another image or leave it out"
BRAIN_MASK, TUMOR = "brain mask", "tumour segmentation"
"""Names of the other two inputs of a study in messages."""


@dataclass(frozen=True)
class StudyImages:
    """One visit: one volume per modality, each on its own grid, all in one physical space.

    Attributes:
        images: Scalar 3-D images by modality (of ``MODALITIES``); absent modalities are left out.
        brain_mask: Image that is not zero in the brain, or whose probabilities are above half of the largest one there;
            None to estimate it.
        tumor_labels: Segmentation with the numbers of ``labels.LABELS`` (1 necrotic core, 2 oedema, 3 enhancing
            tumour, 4 resection cavity), or None.
        name: Name of the visit in messages.
        sources: File or node of each input by modality, ``BRAIN_MASK`` or ``TUMOR``, for messages.
        left_out: Plain mask that is not zero where the registration must not compare the images, or None. It names no
            compartments, and so is no segmentation.
        label_reading: How the numbers of the segmentation or plain mask were understood, or None.
        chosen_reference: Modality of the image whose grid is the native grid; None for the first image.
    """

    images: Mapping[str, sitk.Image]
    brain_mask: sitk.Image | None = None
    tumor_labels: sitk.Image | None = None
    name: str = "study"
    sources: Mapping[str, str] = field(default_factory=dict)
    left_out: sitk.Image | None = None
    label_reading: LabelReading | None = None
    chosen_reference: str | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """Modalities of this study in the order of ``MODALITIES``."""
        return tuple(m for m in MODALITIES if m in self.images)

    @property
    def reference_modality(self) -> str:
        """Modality of the reference, which is the first image unless another was chosen, see ``brain_of``."""
        return self.present[0] if self.chosen_reference is None else self.chosen_reference

    @property
    def reference(self) -> sitk.Image:
        """The image whose grid is the native grid of the study."""
        return self.images[self.reference_modality]

    @property
    def given_compartments(self) -> frozenset[int] | None:
        """Numbers in ``LABELS`` that the segmentation that came with the visit can have; None where that is unknown."""
        reading = self.label_reading
        return None if self.tumor_labels is None or reading is None else reading.compartments

    def title(self, what: str) -> str:
        """Return the name in messages of an image (by its modality), the ``BRAIN_MASK`` or the ``TUMOR``."""
        return input_title(what, self.name, self.sources.get(what))

    @property
    def mask_title(self) -> str | None:
        """Name in messages of the brain mask that came with the study; None where it is estimated."""
        return None if self.brain_mask is None else self.title(BRAIN_MASK)


def input_title(what: str, study: str, source: str | None = None) -> str:
    """Return the name of an input in messages: its role and study, with its file or node where that is known."""
    role = what if what in (BRAIN_MASK, TUMOR) else f"{what} image"
    return f"the {role} of the {study} study" if source is None else f"the {role} '{source}' of the {study} study"


def checked_study(study: StudyImages) -> tuple[StudyImages, list[str]]:
    """Check a study, and convert its images to finite single precision and its masks to 0 and 1.

    NaN and infinite voxels are common outside of the brain after masked processing. They are replaced by the lowest
    finite value of the image, and do not belong to a mask, with a warning.

    Returns:
        The study with its converted images, brain mask and plain mask, and the warnings.

    Raises:
        ValueError: An image is empty, constant, almost nowhere finite, too small or too large, not three-dimensional,
            skewed, or elsewhere in space than the others; the message names it.
    """
    if not study.images:
        raise ValueError(f"the {study.name} study has no image: give at least one of {', '.join(MODALITIES)}")
    for modality in study.images:
        if modality not in MODALITIES:
            known = ", ".join(MODALITIES)
            raise ValueError(f"'{modality}' of the {study.name} study is not a modality; use one of {known}")
    images, notes = {}, []
    for modality in study.present:
        image = study.images[modality]
        check_grid(image, study.title(modality))
        images[modality], note = _checked_intensities(image, study.title(modality))
        notes += note
    checked = replace(study, images=images)
    for modality in checked.present[1:]:
        if not overlap(checked.reference, images[modality]):
            raise ValueError(
                f"{study.title(modality)} lies elsewhere in space than {study.title(checked.present[0])}: "
                "check that both belong to one visit, or register them first"
            )
    for what, mask in ((BRAIN_MASK, study.brain_mask), (TUMOR, study.tumor_labels), (TUMOR, study.left_out)):
        if mask is not None:
            check_grid(mask, study.title(what), is_mask=True)
            if not overlap(checked.reference, mask):
                raise ValueError(
                    f"{study.title(what)} lies elsewhere in space than {study.title(checked.present[0])}: "
                    "choose the one that belongs to this visit, or leave it out"
                )
    masks = {}
    for name, what in (("brain_mask", BRAIN_MASK), ("left_out", TUMOR)):
        if (mask := getattr(study, name)) is not None:
            masks[name], note = _checked_mask(mask, study.title(what))
            notes += note
    if "brain_mask" in masks and not sitk.GetArrayViewFromImage(masks["brain_mask"]).any():
        raise ValueError(empty_mask(study.title(BRAIN_MASK)))
    return replace(checked, **masks), notes


def empty_mask(title: str) -> str:
    """Return the message for a brain mask without voxels."""
    return f"{title} is empty: leave it out to have one estimated"


def check_axes(direction: np.ndarray, title: str) -> None:
    """Check that the axes of an image, the columns of ``direction`` (3, 3), are perpendicular.

    Raises:
        ValueError: They are not; the message names the image.
    """
    if not are_perpendicular(direction):
        raise ValueError(
            f"{title} has axes that are not perpendicular (cosine {_skew(direction):.3g}): resample it to a "
            "rectangular grid first"
        )


def are_perpendicular(direction: np.ndarray) -> bool:
    """Return whether the axes of a grid, the columns of ``direction`` (3, 3), are perpendicular."""
    return bool(_skew(direction) < _SKEW_TOLERANCE)


def _skew(direction: np.ndarray) -> float:
    return float(np.abs(direction.T @ direction - np.eye(3)).max())


def check_grid(image: sitk.Image, title: str, is_mask: bool = False) -> None:
    """Check that an image is a scalar volume on a usable grid.

    Args:
        image: The image.
        title: Its name in messages.
        is_mask: Whether it is a mask or label map, which may be cropped to a small lesion.

    Raises:
        ValueError: It is not; the message names the image and the remedy.
    """
    size = image.GetSize()
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetDimension()}-D with {image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise ValueError(f"{title} is {kind}: give one scalar 3-D volume")
    shown = " x ".join(map(str, size))
    extent = np.array(size) * image.GetSpacing()
    if not is_mask and (min(size) < SMALLEST_VOXELS or extent.min() < SMALLEST_EXTENT_MM):
        raise ValueError(
            f"{title} is too small ({shown} voxels, {' x '.join(f'{e:.0f}' for e in extent)} mm): each axis needs at "
            f"least {SMALLEST_VOXELS} voxels and {SMALLEST_EXTENT_MM:g} mm; {_REMEDY}"
        )
    if np.prod(np.array(size, dtype=float)) > LARGEST_VOXELS:
        raise ValueError(
            f"{title} has {shown} voxels, which needs {np.prod(np.array(size, float)) * 4 / 2**30:.0f} GB alone: "
            f"crop or resample it to at most {LARGEST_VOXELS / 1e6:.0f} million voxels (about 800 along each axis)"
        )
    check_axes(np.array(image.GetDirection()).reshape(3, 3), title)


def overlap(first: sitk.Image, second: sitk.Image) -> bool:
    """Return whether the boxes of two images overlap by at least a tenth of the smaller one."""
    box = _box(first), _box(second)
    common = np.minimum(box[0][1], box[1][1]) - np.maximum(box[0][0], box[1][0])
    smaller = min(np.prod(high - low) for low, high in box)
    return bool((common > 0).all() and np.prod(common) > 0.1 * smaller)


def same_grid(first: sitk.Image, second: sitk.Image) -> bool:
    """Return whether two images have the same voxels, within the precision of image files."""
    if first.GetSize() != second.GetSize():
        return False
    last = [n - 1 for n in first.GetSize()]
    corners = [(i, j, k) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
    apart = [
        np.subtract(first.TransformIndexToPhysicalPoint(c), second.TransformIndexToPhysicalPoint(c)) for c in corners
    ]
    return bool(np.abs(apart).max() < 1e-3 * (1 + min(first.GetSpacing())))


def _box(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest LPS coordinates of an image in mm, whole voxels included."""
    ends = [(-0.5, n - 0.5) for n in image.GetSize()]
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((i, j, k)) for i in ends[0] for j in ends[1] for k in ends[2]
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)


def _checked_mask(mask: sitk.Image, title: str) -> tuple[sitk.Image, list[str]]:
    """Return a mask as 1 and 0 (uint8), and notes on voxels that are not finite, which are 0, and on soft masks."""
    values = sitk.GetArrayViewFromImage(mask)
    finite = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(finite))
    notes = [f"{title} has {bad} voxels that are not finite; they do not belong to it"] if bad else []
    belongs = finite & (values != 0)
    if _is_soft(values[belongs]):
        half = float(values[belongs].max()) / 2
        above = finite & (values > half)
        if (left_out := np.count_nonzero(belongs & ~above)) > 0:
            voxel_ml = float(np.prod(mask.GetSpacing())) / 1000
            notes.append(
                f"{title} has values between 0 and 1: voxels above {half:.2g} belong to it "
                f"({np.count_nonzero(above) * voxel_ml:.0f} ml), and {left_out * voxel_ml:.0f} ml below do not"
            )
        belongs = above
    inside = sitk.GetImageFromArray(belongs.astype(np.uint8))
    inside.CopyInformation(mask)
    return inside, notes


def _is_soft(values: np.ndarray) -> bool:
    """Return whether the values of a mask are probabilities; other fractional values are those of a stripped image."""
    if values.dtype.kind != "f" or not values.size or float(values.max()) > _LARGEST_SHARE:
        return False
    return bool(values.max() > 0 and (values != np.rint(values)).any())


def _checked_intensities(image: sitk.Image, title: str) -> tuple[sitk.Image, list[str]]:
    image = sitk.Cast(image, sitk.sitkFloat32)
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    notes = []
    if not np.isfinite(low) or not np.isfinite(high):
        finite = np.isfinite(values)
        bad = values.size - int(finite.sum())
        if bad > _MOST_NOT_FINITE * values.size:
            raise ValueError(f"{title} is not finite in {100 * bad / values.size:.0f} % of its voxels: {_REMEDY}")
        low, high = float(values[finite].min()), float(values[finite].max())
        notes.append(f"{title} has {bad} voxels that are not finite; they were set to its lowest value {low:g}")
        cleaned = sitk.GetImageFromArray(np.where(finite, values, np.float32(low)))
        cleaned.CopyInformation(image)
        image = cleaned
    if low == high:
        raise ValueError(f"{title} is constant ({low:g} everywhere) and shows no anatomy: {_REMEDY}")
    return image, notes
