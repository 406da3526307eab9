"""Cohorts as files: small skull-stripped studies with a tumour, their manifest, and empty files named as in BraTS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from JointRegSegLib.cohort.manifest import read_manifest
from JointRegSegLib.cohort.preparation import PreparationConfig
from JointRegSegLib.cohort.sample import StudySample
from JointRegSegLib.cohort.sources import StudyPairs, open_pairs
from JointRegSegLib.cohort.studies import Cohort
from JointRegSegLib.images.modalities import MODALITIES

SIZE = 20
SPACING_MM = 4.0
ORIGIN_MM = -40.0
SETTINGS = {"spacing_mm": 4.0, "extent_mm": [64, 64, 64], "align": "none"}
"""Preparation of the small studies, as plain values."""
CONFIG = PreparationConfig.from_dict(SETTINGS)
STUDIES = [("A", "1"), ("A", "2"), ("B", "1"), ("C", "1")]
"""Subject and visit of the studies of ``small_cohort``."""
OLD_NAMES = ("t1", "t1ce", "t2", "flair", "seg")
"""Endings of BraTS file names until 2021."""
NEW_NAMES = ("t1n", "t1c", "t2w", "t2f", "seg")
"""Endings of BraTS file names since 2023."""


def write_brats(folder: Path, name: str, names: tuple[str, ...], separator: str = "_") -> None:
    """Create empty files that are named as in BraTS."""
    folder.mkdir(parents=True, exist_ok=True)
    for role in names:
        (folder / f"{name}{separator}{role}.nii.gz").touch()


def image_of(array: np.ndarray, shift_mm: float = 0.0) -> sitk.Image:
    """An image of the small studies' spacing; ``shift_mm`` moves it to the left (LPS)."""
    result = sitk.GetImageFromArray(array, isVector=False)
    more = result.GetDimension() - 3
    result.SetSpacing((SPACING_MM,) * 3 + (1.0,) * more)
    result.SetOrigin((ORIGIN_MM + shift_mm, ORIGIN_MM, ORIGIN_MM) + (0.0,) * more)
    return result


def write_study(
    folder: Path, seed: int, tumor: bool = True, absent: tuple[str, ...] = (), shift_mm: float = 0.0
) -> None:
    """Write a ball of brain with texture; its tumour has all three classes, numbered as in BraTS until 2021."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    position = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 3, indexing="ij"))
    radius = np.sqrt((position**2).sum(0))
    for modality in MODALITIES:
        if modality not in absent:
            values = np.where(radius < 7.2, 100 + 20 * random.standard_normal(radius.shape) + position[0], 0)
            sitk.WriteImage(image_of(values.astype(np.float32), shift_mm), str(folder / f"x_{modality}.nii.gz"))
    labels = np.zeros(radius.shape, np.uint8)
    if tumor:
        distance = np.sqrt(((position - np.array([0, 2, 2])[:, None, None, None]) ** 2).sum(0))
        for value, reach in ((2, 4.0), (4, 2.6), (1, 1.6)):
            labels[distance < reach] = value
    sitk.WriteImage(image_of(labels, shift_mm), str(folder / "x_seg.nii.gz"))


def manifest_of(folder: Path, studies: list[tuple[str, str]], absent: tuple[str, ...] = ()) -> Cohort:
    """Write and read the manifest of studies in folders called ``<subject>-<visit>``."""
    lines = ["subject,visit,t1,t1ce,t2,flair,label,convention"]
    for subject, visit in studies:
        place = f"{subject}-{visit}"
        files = ["" if m in absent else f"{place}/x_{m}.nii.gz" for m in MODALITIES]
        lines.append(",".join([subject, visit, *files, f"{place}/x_seg.nii.gz", "brats2021"]))
    (folder / "cohort.csv").write_text("\n".join(lines))
    return read_manifest(folder / "cohort.csv")


def small_cohort(folder: Path) -> Cohort:
    """Two visits of A, one of B, and one of C, who has no tumour."""
    for seed, (subject, visit) in enumerate(STUDIES):
        write_study(folder / f"{subject}-{visit}", seed, tumor=subject != "C")
    return manifest_of(folder, STUDIES)


def pairs_of(cohort: Cohort, path: str, folder: Path, **options: object) -> StudyPairs:
    """The pairs of a small cohort by a data path, with the cache in ``folder``."""
    return open_pairs(cohort, path, SETTINGS, cache=folder / "cache", **options)


def same_sample(a: StudySample, b: StudySample) -> bool:
    """Whether two labelled samples have the same name and values."""
    return a.name == b.name and all(
        torch.equal(x, y) for x, y in ((a.images, b.images), (a.labels, b.labels), (a.mask, b.mask))
    )
