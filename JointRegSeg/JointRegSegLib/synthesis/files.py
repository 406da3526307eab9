"""A synthetic patient as files: two visits, each in its own geometry, labels, landmarks, and the true transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.output.repeated_bytes import remove_hdf5_times
from NeuroCESTLib.core.whole_files import write_csv

from ..cohort.studies import StudyRecord
from ..images.grid import WorkingGrid
from ..images.modalities import MODALITIES
from ..registration.transforms import pair_transform
from .anatomy import warp_fields
from .patient import SyntheticPatient, SyntheticVisit, synthetic_patient
from .random_fields import Draw, grid_of
from .templates import Template
from .tumor import RESECTED_SHARE

VISITS = ("visit1", "visit2")
LANDMARKS = 20
"""Number of landmarks."""
CONVENTION = "brats2024"
"""Convention of the label files, see ``core.labels.conventions``."""
_SCALE = 1000.0
"""Intensities are stored as whole numbers; white matter on T1 is about 830."""

Point = tuple[float, float, float]
"""LPS mm."""


def write_patient(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float,
    folder: Path,
    split: str = "train",
    modalities: Sequence[str] = MODALITIES,
    regions: bool = False,
    cavity: bool = False,
    resected_share: float = RESECTED_SHARE,
) -> list[StudyRecord]:
    """Make the patient of a seed and write it into a folder.

    The files are ``<visit>_<modality>.nii.gz``, ``<visit>_seg.nii.gz`` (1 necrotic core, 2 oedema, 3 enhancing
    tumour), ``<visit>_mask.nii.gz``, ``<visit>_landmarks.csv`` (LPS mm, in brain that is healthy at both visits), and
    the true map ``true_visit2_to_visit1.h5``, which maps points of visit 1 to visit 2 (LPS mm) as
    ``moving_to_fixed.h5`` does, with its inverse ``true_visit1_to_visit2.h5``. The second visit is tilted and shifted
    in the scanner.

    Args:
        templates: Anatomies with voxels of ``spacing_mm``.
        seed: Seed of the patient.
        spacing_mm: Voxel size in mm.
        folder: Folder to write into; it exists.
        split: Split of the patient in a manifest.
        modalities: Modalities to write.
        regions: Whether to write ``<visit>_regions.nii.gz`` as well, the label map of ``regions.REGIONS``.
        cavity: Whether a resection cavity has the label 4; else it is background.
        resected_share: Probability that the tumour of one of the visits is resected.

    Returns:
        The records of the two studies.
    """
    patient = synthetic_patient(
        templates, seed, spacing_mm, True, modalities=modalities, cavity=cavity, resected_share=resected_share
    )
    assert patient.deformation is not None  # as asked for
    grid = _grid(patient)
    pose = _pose(Draw(seed + 1))
    transforms = pair_transform(patient.deformation, grid, pose)
    for name, transform in (("2_to_visit1", transforms.moving_to_fixed), ("1_to_visit2", transforms.fixed_to_moving)):
        path = folder / f"true_visit{name}.h5"
        try:
            sitk.WriteTransform(transform, str(path))
        except RuntimeError:  # which does not tell the one reason from the other
            raise ValueError(
                f"cannot write '{path}': the disk is full or the folder is read-only; free some space or choose another"
            ) from None
        remove_hdf5_times(path)
    first = _landmarks(patient, grid, Draw(seed + 2))
    second = [transforms.moving_to_fixed.TransformPoint(point) for point in first]
    if regions:
        _write_image(patient.fixed.regions, grid, None, folder / f"{VISITS[0]}_regions.nii.gz", np.uint8)
        _write_image(patient.moving.regions, grid, pose, folder / f"{VISITS[1]}_regions.nii.gz", np.uint8)
    subject = f"synthetic{seed:06d}"
    return [
        _write_visit(patient.fixed, modalities, grid, None, first, folder, subject, VISITS[0], split),
        _write_visit(patient.moving, modalities, grid, pose, second, folder, subject, VISITS[1], split),
    ]


def _write_visit(
    visit: SyntheticVisit,
    modalities: Sequence[str],
    grid: WorkingGrid,
    pose: sitk.AffineTransform | None,
    landmarks: Sequence[Point],
    folder: Path,
    subject: str,
    name: str,
    split: str,
) -> StudyRecord:
    images = {}
    for modality, image in zip(modalities, visit.images, strict=True):
        images[modality] = _write_image(image * _SCALE, grid, pose, folder / f"{name}_{modality}.nii.gz", np.int16)
    label = _write_image(visit.labels, grid, pose, folder / f"{name}_seg.nii.gz", np.uint8)
    mask = _write_image(visit.mask, grid, pose, folder / f"{name}_mask.nii.gz", np.uint8)
    rows = ([number, *(f"{value:.3f}" for value in point)] for number, point in enumerate(landmarks, 1))
    table = write_csv(("name", "x", "y", "z"), rows, folder / f"{name}_landmarks.csv")
    return StudyRecord(subject, name, images, label, mask, table, split)


def _grid(patient: SyntheticPatient) -> WorkingGrid:
    """The patient's grid, centred at the origin."""
    shape = grid_of(patient.fixed.mask)
    half = [(n - 1) / 2 * patient.spacing_mm for n in reversed(shape)]
    return WorkingGrid(shape, patient.spacing_mm, (half[0], half[1], -half[2]))


def _pose(draw: Draw) -> sitk.AffineTransform:
    """Rigid map from the scanner space of the first visit to that of the second: some 5 degrees and 5 mm."""
    euler = sitk.Euler3DTransform()
    euler.SetRotation(*(math.radians(draw.normal(0, 4)) for _ in range(3)))
    euler.SetTranslation([draw.normal(0, 5) for _ in range(3)])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(euler.GetMatrix())
    affine.SetTranslation(euler.GetTranslation())
    return affine


def _write_image(values: Tensor, grid: WorkingGrid, pose: sitk.AffineTransform | None, path: Path, dtype: type) -> Path:
    """Write a volume (D, H, W), moved by the pose without resampling."""
    array = values.numpy()
    image = grid.to_sitk((np.rint(array) if values.is_floating_point() else array).astype(dtype))
    if pose is not None:
        turn = np.array(pose.GetMatrix()).reshape(3, 3)
        image.SetDirection((turn @ np.array(image.GetDirection()).reshape(3, 3)).ravel())
        image.SetOrigin(pose.TransformPoint(image.GetOrigin()))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def _landmarks(patient: SyntheticPatient, grid: WorkingGrid, draw: Draw) -> list[Point]:
    """Points of the first visit in brain that is healthy at both visits, drawn evenly; none where there is none."""
    assert patient.deformation is not None
    mask, later = patient.fixed.mask, torch.stack([patient.moving.lesion, ~patient.moving.mask]).float()
    ill_or_outside = patient.fixed.lesion | (warp_fields(later, patient.deformation.displacement) > 0).any(0)
    candidates = (mask & ~ill_or_outside).flatten().nonzero().flatten()
    if len(candidates) == 0:
        return []
    chosen = candidates[torch.randint(len(candidates), (LANDMARKS,), generator=draw.generator)]
    image = grid.to_sitk(mask.numpy().astype(np.uint8))
    _, height, width = mask.shape
    return [
        image.TransformIndexToPhysicalPoint((int(i % width), int(i // width % height), int(i // (width * height))))
        for i in chosen
    ]
