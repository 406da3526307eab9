"""A synthetic subject as files: images, tissues, mask, low-resolution partners, and the columns of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cohort.studies import StudyRecord
from ..images.grid import WorkingGrid
from ..images.modalities import MODALITIES
from .random_fields import grid_of
from .subject import SyntheticSubject, synthetic_subject
from .templates import Template
from .traits import BEST_ACCURACY

CEILINGS = "ceilings.csv"
"""File beside the manifest with the best predictions that images allow."""
CONVENTION = "brats2024"
"""Convention of the label files, see ``core.labels.conventions``."""
_SCALE = 1000.0


def write_subject(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float,
    folder: Path,
    split: str = "train",
    tumors: float = 0.0,
    low_resolution: tuple[int, int, int] | None = None,
    modalities: Sequence[str] = MODALITIES,
) -> tuple[StudyRecord, dict[str, Any]]:
    """Make the subject of a seed and write it into a folder.

    The files are ``<modality>.nii.gz``, ``tissue.nii.gz`` (see ``images.tissues``), ``mask.nii.gz``, ``seg.nii.gz``
    where there is a tumour, and ``<modality>_low.nii.gz`` for the low-resolution partners, whose voxels are means over
    blocks of voxels as those of thick slices are.

    Args:
        templates: Anatomies with voxels of ``spacing_mm``.
        seed: Seed of the subject.
        spacing_mm: Voxel size in mm.
        folder: Folder to write into; it exists.
        split: Split of the subject in a manifest.
        tumors: Share of subjects with a glioma.
        low_resolution: Voxels of a block along left-right, posterior-anterior and inferior-superior; None for no
            partners.
        modalities: Modalities to write.

    Returns:
        The record with the columns ``tissue``, ``age`` and ``sex``, and the subject's row of the ceilings.
    """
    subject = synthetic_subject(templates, seed, spacing_mm, tumors, modalities)
    grid = _grid(subject)
    images = {}
    for modality, image in zip(modalities, subject.images, strict=True):
        images[modality] = _write(grid.to_sitk(_whole(image * _SCALE)), folder / f"{modality}.nii.gz")
        if low_resolution is not None:
            _write(thick(grid.to_sitk(_whole(image * _SCALE)), low_resolution), folder / f"{modality}_low.nii.gz")
    tissue = _write(grid.to_sitk(subject.tissue.numpy()), folder / "tissue.nii.gz")
    mask = _write(grid.to_sitk(subject.mask.numpy().astype(np.uint8)), folder / "mask.nii.gz")
    label = None
    if bool(subject.labels.any()):
        label = _write(grid.to_sitk(subject.labels.numpy()), folder / "seg.nii.gz")
    traits = subject.traits
    record = StudyRecord(
        folder.name,
        "",
        images,
        label,
        mask,
        None,
        split,
        CONVENTION if label is not None else "",
        {"tissue": tissue},
        {"age": f"{traits.age:.2f}", "sex": traits.sex},
    )
    ceiling = {
        "subject": folder.name,
        "brain_age": round(traits.brain_age, 3),
        "best_age": round(traits.best_age, 3),
        "best_probability_male": round(traits.best_probability_male, 4),
        "log_size": round(traits.log_size, 4),
        "log_width": round(traits.log_width, 4),
    }
    return record, ceiling


def ceilings(records: Sequence[StudyRecord], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Score the best predictions of a cohort.

    Args:
        records: Studies with age and sex.
        rows: Their rows of the ceilings.

    Returns:
        ``age_mae`` in years, and ``sex_accuracy`` of the best rule on these subjects and ``sex_accuracy_expected`` on
        all subjects.
    """
    ages = np.array([float(r.target_values["age"]) for r in records])
    male = np.array([r.target_values["sex"] == "M" for r in records])
    best = np.array([row["best_age"] for row in rows])
    called = np.array([row["best_probability_male"] > 0.5 for row in rows])
    return {
        "age_mae": float(np.abs(ages - best).mean()),
        "sex_accuracy": float((called == male).mean()),
        "sex_accuracy_expected": BEST_ACCURACY,
    }


def thick(image: sitk.Image, factors: tuple[int, int, int]) -> sitk.Image:
    """Average an image over blocks of voxels; what does not fill a block at the ends is left out.

    Args:
        image: Image.
        factors: Voxels of a block along (i, j, k).

    Returns:
        Image with the type of the given one, whose voxel centres are the centres of the blocks.
    """
    kernel = tuple(reversed(factors))
    voxels = torch.from_numpy(sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32)))
    means = F.avg_pool3d(voxels[None, None], kernel)[0, 0].numpy()
    found = sitk.GetImageFromArray(means)
    found.SetDirection(image.GetDirection())
    found.SetSpacing([s * f for s, f in zip(image.GetSpacing(), factors, strict=True)])
    found.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([(f - 1) / 2 for f in factors]))
    return sitk.Cast(sitk.Round(found) if image.GetPixelID() == sitk.sitkInt16 else found, image.GetPixelID())


def _grid(subject: SyntheticSubject) -> WorkingGrid:
    """The subject's grid, centred at the origin."""
    shape = grid_of(subject.mask)
    half = [(n - 1) / 2 * subject.spacing_mm for n in reversed(shape)]
    return WorkingGrid(shape, subject.spacing_mm, (half[0], half[1], -half[2]))


def _whole(values: Tensor) -> np.ndarray:
    return np.rint(values.numpy()).astype(np.int16)


def _write(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path), useCompression=True)
    return path
