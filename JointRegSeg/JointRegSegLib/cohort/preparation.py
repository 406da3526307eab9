"""Studies of a cohort read from their files and brought to tensors that can be paired.

All studies get grids of one shape, centred on the brain. The later visits of a subject lie on the grid of the first
one, after an affine registration, so that only the deformation remains between them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from NeuroCESTLib.core.checked_json import check_keys

from ..images.brain_mask import estimate_brain_mask
from ..images.grid import WorkingGrid, grid_around, mask_corners
from ..images.label_conventions import declared_convention
from ..images.label_maps import BY_CONTENT
from ..images.labels import CAVITY, UNLABELED, region
from ..images.modalities import MODALITIES
from ..images.preprocessing.config import PreprocessingConfig
from ..images.preprocessing.preparation import prepare_checked
from ..images.preprocessing.resampling import labels_on_grid
from ..images.reading import LabelImage, header_problem, read_image, read_labels
from ..images.study import StudyImages, checked_study
from ..registration.affine import Brain, align
from .sample import StudySample
from .studies import Cohort, StudyRecord

ALIGNMENTS = ("affine", "rigid", "none")
_LARGEST_TUMOR = 0.5
"""Fraction of the brain beyond which a label file without a declared convention is no tumour but tissue."""


@dataclass(frozen=True)
class PreparationConfig:
    """How the studies of a cohort are prepared for training.

    Attributes:
        preprocessing: Voxel size, normalisation and so on.
        extent_mm: Size of the grid in mm along (D, H, W), rounded up to the multiples that the preprocessing asks for;
            a larger brain is cut.
        align: Registration of later visits to the first one: ``affine``, ``rigid``, or ``none`` where the visits of a
            subject are already in one space.
        cavity: Whether resection cavities keep their class, for networks that know it; else their voxels count as
            voxels without a label.
    """

    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    extent_mm: tuple[float, float, float] = (160.0, 192.0, 160.0)
    align: str = "affine"
    cavity: bool = False

    def __post_init__(self) -> None:
        extent = tuple(self.extent_mm) if isinstance(self.extent_mm, list | tuple) else ()
        if len(extent) != 3 or not all(isinstance(mm, int | float) and 8 <= mm <= 1000 for mm in extent):
            raise ValueError(f"extent_mm needs three lengths of 8 to 1000 mm (D, H, W), got {self.extent_mm!r}")
        object.__setattr__(self, "extent_mm", tuple(float(mm) for mm in extent))
        if self.align not in ALIGNMENTS:
            raise ValueError(f"align is {self.align!r}; use {', '.join(ALIGNMENTS)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "preprocessing") -> PreparationConfig:
        """Build the settings from one object with ``extent_mm``, ``align`` and the keys of ``PreprocessingConfig``.

        Args:
            values: Object as read from JSON; keys that are left out have their defaults.
            where: File and section; it opens the message of an error.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message names it.
        """
        others = check_keys(values, cls().to_dict(), where)
        own = {name: others.pop(name) for name in ("extent_mm", "align") if name in others}
        try:
            return cls(PreprocessingConfig(**others), **own)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = self.preprocessing.to_dict() | {"extent_mm": list(self.extent_mm), "align": self.align}
        return values | ({"cavity": True} if self.cavity else {})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid (D, H, W) of every study."""
        return self.grid(np.zeros(3), (0.0, 0.0, 0.0)).shape

    def grid(self, center_lps_mm: np.ndarray, anchor_lps_mm: tuple[float, float, float]) -> WorkingGrid:
        """Make the grid around a point.

        Args:
            center_lps_mm: Centre of the grid (3,), LPS mm.
            anchor_lps_mm: Point that the voxel centres are lined up with, LPS mm; see ``images.grid.grid_around``.
        """
        half = np.array(self.extent_mm[::-1]) / 2
        points = np.stack((center_lps_mm - half, center_lps_mm + half))
        config = self.preprocessing
        return grid_around(points, config.spacing_mm, 0.0, config.multiple_of, anchor_lps_mm)


class StudyPreparer:
    """Prepares the studies of a cohort by their number::

        prepare = StudyPreparer(read_manifest("cohort.csv").of_split("train"), PreparationConfig())
        sample = prepare(0)

    The headers of all files are read at once, so that unreadable files are known before the work begins. Grids and
    transforms between visits are computed once and stored, because they are small.
    """

    def __init__(self, cohort: Cohort, config: PreparationConfig | None = None) -> None:
        """Check the files of a cohort.

        Args:
            cohort: Studies to prepare.
            config: Settings; None for the defaults.

        Raises:
            ValueError: Some files are not scalar volumes; one message names all of them.
        """
        self.cohort = cohort
        self.config = config or PreparationConfig()
        first = {subject: visits[0] for subject, visits in cohort.visits().items()}
        self._first = [first[record.subject] for record in cohort.studies]
        self._grids: dict[str, WorkingGrid] = {}
        self._transforms: dict[int, sitk.Transform | None] = {}
        check_files(cohort)

    def __len__(self) -> int:
        return len(self.cohort)

    def __call__(self, index: int) -> StudySample:
        """Prepare a study.

        Raises:
            ValueError: A file or image cannot be used; the message names it and the study.
        """
        record = self.cohort.studies[index]
        study, mask = read_study(record)
        grid, transform = self._frame(index, study, mask)
        try:
            prepared = prepare_checked(study, mask, self.config.preprocessing, grid, transform)
        except ValueError as error:
            raise ValueError(f"{error} ({_folder(record)})") from None
        labels = None
        if study.tumor_labels is not None:
            labels = labels_on_grid(study.tumor_labels, grid, transform)
            if not self.config.cavity:
                labels[labels == CAVITY] = UNLABELED
        return StudySample(prepared.images, labels, prepared.mask, record.name, self.config.preprocessing.background)

    def inputs(self, index: int) -> list[tuple[str, Path]]:
        """List all that a sample is read from, as (column, path): the study's own, then the visit it is aligned to.

        Columns of that visit begin with ``first``. Paths may name a channel, see ``images.reading.channel_path``.
        """
        record, first = self.cohort.studies[index], self._first[index]
        records = [("", record)] if record is first else [("", record), ("first ", first)]
        return [
            (f"{whose}{column}", path)
            for whose, each in records
            for column, path in sorted(each.files.items())
            if column != "landmarks"
        ]

    def _frame(self, index: int, study: StudyImages, mask: sitk.Image) -> tuple[WorkingGrid, sitk.Transform | None]:
        """Grid of the study's subject, and the transform from its points to those of the study."""
        record, first = self.cohort.studies[index], self._first[index]
        if index not in self._transforms:
            first_study, first_mask = (study, mask) if record is first else read_study(first)
            corners = mask_corners(first_mask)
            center = (corners.min(axis=0) + corners.max(axis=0)) / 2
            self._grids[record.subject] = self.config.grid(center, first_study.reference.GetOrigin())
            self._transforms[index] = None
            if record is not first and self.config.align != "none":
                fixed, moving = _images_to_align(first_study, study)
                self._transforms[index] = align(
                    Brain(fixed, first_mask, first_study.tumor_labels, first.name),
                    Brain(moving, mask, study.tumor_labels, record.name),
                    self.config.align,
                ).transform
        return self._grids[record.subject], self._transforms[index]


def read_study(record: StudyRecord) -> tuple[StudyImages, sitk.Image]:
    """Read and check the images of a study.

    What is unusual but usable is told in warnings.

    Args:
        record: Files of the study.

    Returns:
        The images, with tumour classes where the study is labelled, and the brain mask, which is estimated where the
        record has none.

    Raises:
        ValueError: A file is unreadable, not 3-D, empty, constant, not finite, skewed or away from the others, its
            labels are unknown, or what was recognized as tumour is most of the brain; the message names the study or
            file.
    """
    images = {modality: read_image(path) for modality, path in record.images.items()}
    labels = None if record.label is None else read_record_labels(record)
    mask = None if record.mask is None else read_image(record.mask)
    try:
        tumor, reading = (None, None) if labels is None else (labels.image, labels.reading)
        study, notes = checked_study(StudyImages(images, mask, tumor, record.name, label_reading=reading))
        mask = study.brain_mask
        if mask is None:
            estimate = estimate_brain_mask(study)
            mask, notes = estimate.mask, [*notes, *estimate.warnings]
        _require_tumor(study, mask, record)
    except ValueError as error:
        raise ValueError(f"{error} ({_folder(record)})") from None
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return study, mask


def _require_tumor(study: StudyImages, mask: sitk.Image, record: StudyRecord) -> None:
    """Raise ValueError where labels whose convention was recognized fill most of the brain, as those of tissues do."""
    labels, reading = study.tumor_labels, study.label_reading
    if labels is None or reading is None or reading.how != BY_CONTENT:
        return
    tumor = region(sitk.GetArrayViewFromImage(labels), "whole_tumor").sum() * np.prod(labels.GetSpacing())
    brain = np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing())
    if tumor > _LARGEST_TUMOR * brain:
        raise ValueError(
            f"the label file '{record.label}', read as {reading.convention} by its numbers and arrangement, would have "
            f"a tumour of {tumor / 1000:.0f} ml in a brain of {brain / 1000:.0f} ml: leave its field empty if it shows "
            "tissues, or declare what its numbers mean with --labels or in the column 'convention' of the manifest"
        )


def read_record_labels(record: StudyRecord) -> LabelImage:
    """Read the label file of a study by the convention of its record, or a recognized one.

    Raises:
        ValueError: The file cannot be used, its convention is not certain, or it is a plain mask, which can neither
            train nor judge a segmentation; the message names it.
    """
    assert record.label is not None
    declared = record.convention
    convention = declared_convention(declared, f"the convention of '{record.name}'") if declared else None
    labels = read_labels(record.label, convention, record.images.get("t1ce"))
    if labels.plain:
        raise ValueError(
            f"the label file '{record.label}' is a plain mask, which names no compartment: declare the meaning of its "
            "numbers with --labels or in the column 'convention' of the manifest, or leave its field empty"
        )
    if labels.reading.how == BY_CONTENT and labels.reading.warnings:
        warnings.warn(  # without the name of the file, so that it is told once for a cohort
            f"label files without a declared convention are read as {labels.reading.convention} by their numbers and "
            "arrangement; declare it with --labels if that is wrong",
            stacklevel=3,
        )
    return labels


def check_files(cohort: Cohort) -> None:
    """Check the headers of all files of a cohort.

    Raises:
        ValueError: Some files are not scalar volumes; one message names all of them.
    """
    files = [file for record in cohort.studies for column, file in record.files.items() if column != "landmarks"]
    wrong = [problem for problem in map(header_problem, files) if problem is not None]
    if wrong:
        raise ValueError(f"'{cohort.source}': " + "; ".join(wrong))


def _images_to_align(fixed: StudyImages, moving: StudyImages) -> tuple[sitk.Image, sitk.Image]:
    """Images of one modality, or the first image of each study, which mutual information can compare as well."""
    for modality in MODALITIES:
        if modality in fixed.images and modality in moving.images:
            return fixed.images[modality], moving.images[modality]
    return fixed.reference, moving.reference


def _folder(record: StudyRecord) -> str:
    return f"in '{next(iter(record.images.values())).parent}'"
