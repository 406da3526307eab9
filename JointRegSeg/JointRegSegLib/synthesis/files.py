"""A synthetic patient as files: two visits in geometries of their own, labels, landmarks, and the true transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.whole_files import write_csv

from ..cohort.manifest import StudyRecord
from ..images.grid import WorkingGrid
from ..images.modalities import MODALITIES
from ..registration.transforms import pair_transform
from .patient import SyntheticPatient, Visit, synthetic_patient
from .random_fields import Draw
from .templates import Template

VISITS = ("visit1", "visit2")
LANDMARKS = 20
_SCALE = 1000.0
"""Intensities are stored as whole numbers; white matter on T1 is about 830."""


def write_patient(
    templates: Sequence[Template],
    seed: int,
    spacing_mm: float,
    folder: Path,
    split: str = "train",
    modalities: Sequence[str] = MODALITIES,
) -> list[StudyRecord]:
    """Generate the patient of a seed and write it into a folder; returns its two studies.

    Writes ``<visit>_<modality>.nii.gz``, ``<visit>_seg.nii.gz`` (1 necrotic core, 2 oedema, 3 enhancing tumour),
    ``<visit>_mask.nii.gz``, ``<visit>_landmarks.csv`` (LPS mm), and the true map ``true_visit2_to_visit1.h5``, which
    takes points of visit 1 to visit 2 (LPS mm) as ``moving_to_fixed.h5`` does, with its inverse
    ``true_visit1_to_visit2.h5``. The second visit lies tilted and shifted in the scanner.
    """
    patient = synthetic_patient(templates, seed, spacing_mm, with_deformation=True, modalities=modalities)
    grid = _grid(patient)
    pose = _pose(Draw(seed + 1))
    transforms = pair_transform(patient.deformation, grid, pose)
    sitk.WriteTransform(transforms.moving_to_fixed, str(folder / "true_visit2_to_visit1.h5"))
    sitk.WriteTransform(transforms.fixed_to_moving, str(folder / "true_visit1_to_visit2.h5"))
    points = _landmarks(patient.fixed, grid, Draw(seed + 2))
    places = {VISITS[0]: points, VISITS[1]: [transforms.moving_to_fixed.TransformPoint(p) for p in points]}
    poses = {VISITS[0]: None, VISITS[1]: pose}
    studies = []
    for name, visit in zip(VISITS, (patient.fixed, patient.moving), strict=True):
        images = {}
        for modality, image in zip(modalities, visit.images, strict=True):
            images[modality] = _write(image * _SCALE, grid, poses[name], folder / f"{name}_{modality}.nii.gz", np.int16)
        label = _write(visit.labels, grid, poses[name], folder / f"{name}_seg.nii.gz", np.uint8)
        mask = _write(visit.mask, grid, poses[name], folder / f"{name}_mask.nii.gz", np.uint8)
        landmarks = folder / f"{name}_landmarks.csv"
        rows = ([number, *(f"{value:.3f}" for value in point)] for number, point in enumerate(places[name], 1))
        write_csv(("name", "x", "y", "z"), rows, landmarks)
        studies.append(StudyRecord(f"synthetic{seed:06d}", name, images, label, mask, landmarks, split))
    return studies


def _grid(patient: SyntheticPatient) -> WorkingGrid:
    """The patient's grid, centred at the origin."""
    shape = tuple(patient.fixed.mask.shape)
    half = [(n - 1) / 2 * patient.spacing_mm for n in reversed(shape)]
    return WorkingGrid(shape, patient.spacing_mm, (half[0], half[1], -half[2]))


def _pose(draw: Draw) -> sitk.AffineTransform:
    """Rigid map from the first visit's scanner space to the second's: some 5 degrees and 5 mm."""
    euler = sitk.Euler3DTransform()
    euler.SetRotation(*(math.radians(draw.normal(0, 4)) for _ in range(3)))
    euler.SetTranslation([draw.normal(0, 5) for _ in range(3)])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(euler.GetMatrix())
    affine.SetTranslation(euler.GetTranslation())
    return affine


def _write(values: Tensor, grid: WorkingGrid, pose: sitk.AffineTransform | None, path: Path, dtype: type) -> Path:
    array = values.numpy()
    image = grid.to_sitk((np.rint(array) if values.is_floating_point() else array).astype(dtype))
    if pose is not None:
        turn = np.array(pose.GetMatrix()).reshape(3, 3)
        image.SetDirection((turn @ np.array(image.GetDirection()).reshape(3, 3)).ravel())
        image.SetOrigin(pose.TransformPoint(image.GetOrigin()))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def _landmarks(visit: Visit, grid: WorkingGrid, draw: Draw) -> list[tuple[float, float, float]]:
    """Points (LPS mm) in healthy brain, drawn evenly."""
    places = (visit.mask & (visit.labels == 0)).flatten().nonzero().flatten()
    if len(places) == 0:
        return []
    chosen = places[torch.randint(len(places), (LANDMARKS,), generator=draw.generator)]
    image = grid.to_sitk(visit.mask.numpy().astype(np.uint8))
    _, height, width = visit.mask.shape
    return [
        image.TransformIndexToPhysicalPoint((int(i % width), int(i // width % height), int(i // (width * height))))
        for i in chosen
    ]
