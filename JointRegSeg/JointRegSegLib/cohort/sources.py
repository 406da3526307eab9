"""Pairs of studies from one of three sources with one interface: in memory, cached on disk, or read as needed::

    cohort = read_manifest("cohort.csv").of_split("train")
    pairs = open_pairs(cohort, "cache", PreparationConfig(), cache="cache")
    pairs.set_epoch(3)
    fixed, moving = pairs[0]

Memory is fastest and holds the whole cohort. The cache needs disk space, is built once, and only what is used is read
from it. On the fly needs neither and prepares every study anew, which workers can do while the training goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import SimpleITK as sitk
import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ..images.labels import CAVITY, LABELS
from ..images.modalities import MODALITIES
from .cache import StudyCache
from .pairing import Pairing, PairPlan, StudySampling
from .preparation import PreparationConfig, StudyPreparer, read_record_labels
from .sample import Pair, StudySample
from .sampling import class_counts
from .studies import Cohort

PATHS = ("memory", "cache", "on_the_fly")
"""Data paths: where prepared studies come from."""


class Studies(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> StudySample: ...

    def counts(self, index: int) -> Tensor | None:
        """Return the voxels (5,) of each class in a study; None for a study without labels."""


class StudiesInMemory:
    """Studies that are all prepared at the start and held in memory."""

    def __init__(self, preparer: StudyPreparer, progress: Progress = silent) -> None:
        """Prepare all studies.

        Args:
            preparer: Prepares the studies.
            progress: Called before each study; may raise to cancel.

        Raises:
            ValueError: The studies do not fit into the free memory.
        """
        _require_memory(preparer)
        self._samples = []
        for index in range(len(preparer)):
            progress(index / len(preparer), f"preparing {preparer.cohort.studies[index].name}")
            self._samples.append(preparer(index))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> StudySample:
        return self._samples[index]

    def counts(self, index: int) -> Tensor | None:
        """Return the voxels (5,) of each class in the brain of a study; None for a study without labels."""
        sample = self._samples[index]
        return None if sample.labels is None else class_counts(sample.labels, sample.mask)


class CachedStudies(StudyCache):
    """Studies of a ``StudyCache`` that are all built at the start."""

    def __init__(self, preparer: StudyPreparer, folder: str | os.PathLike, progress: Progress = silent) -> None:
        """Build all studies that are missing or out of date.

        Args:
            preparer: Prepares the studies.
            folder: Folder for the caches of all settings.
            progress: Called before each study; may raise to cancel, which keeps what is built so far.

        Raises:
            ValueError: A study cannot be used, or the folder cannot be written to.
        """
        super().__init__(preparer, folder)
        for index in range(len(self)):
            progress(index / len(self), f"preparing {preparer.cohort.studies[index].name}")
            self[index]


class StudiesOnTheFly:
    """Studies that are read and prepared whenever they are asked for; workers of a data loader use a thread each."""

    def __init__(self, preparer: StudyPreparer) -> None:
        self.preparer = preparer

    def __len__(self) -> int:
        return len(self.preparer)

    def __getitem__(self, index: int) -> StudySample:
        if torch.utils.data.get_worker_info() is not None:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
        return self.preparer(index)

    def counts(self, index: int) -> Tensor | None:
        """Return the voxels (5,) of each class in the label file, converted to voxels of the working grid."""
        record = self.preparer.cohort.studies[index]
        if record.label is None:
            return None
        image = read_record_labels(record).image
        counts = class_counts(torch.from_numpy(sitk.GetArrayFromImage(image)))
        if not self.preparer.config.cavity:
            counts[CAVITY] = 0
        volume = image.GetSpacing()[0] * image.GetSpacing()[1] * image.GetSpacing()[2]
        return counts * volume / self.preparer.config.preprocessing.spacing_mm**3


class StudyPairs:
    """Pairs (fixed, moving) of studies; the pair at an index depends on seed, epoch and index alone."""

    def __init__(self, studies: Studies, plan: PairPlan) -> None:
        self.studies, self.plan = studies, plan
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the pairs of an epoch; validation stays at epoch 0."""
        self.epoch = epoch
        self.pairs = self.plan.epoch(epoch)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        fixed, moving = self.pairs[index]
        return self.studies[fixed], self.studies[moving]

    def class_counts(self) -> Tensor:
        """Count the voxels (study, 5) of each class; zeros for studies without labels."""
        return all_counts(self.studies)


def all_counts(studies: Studies) -> Tensor:
    """Count the voxels (study, 5) of each class; zeros for studies without labels."""
    counts = [studies.counts(index) for index in range(len(studies))]
    return torch.stack([torch.zeros(len(LABELS), dtype=torch.float64) if c is None else c for c in counts])


def open_studies(
    cohort: Cohort,
    path: str,
    config: PreparationConfig,
    cache: str | Path | None = None,
    progress: Progress = silent,
) -> Studies:
    """Open the studies of a cohort.

    Args:
        cohort: Studies to prepare.
        path: One of ``PATHS``.
        config: How the studies are prepared.
        cache: Folder for the data path ``cache``.
        progress: Called while studies are prepared; may raise to cancel.

    Returns:
        The prepared studies.

    Raises:
        ValueError: The data path is unknown or lacks its folder, or a study cannot be used.
    """
    if path not in PATHS:
        raise ValueError(f"data path {path!r} is unknown; use {', '.join(PATHS)}")
    if path == "cache" and cache is None:
        raise ValueError("the data path 'cache' needs a folder for the cache")
    preparer = StudyPreparer(cohort, config)
    if path == "memory":
        return StudiesInMemory(preparer, progress)
    if path == "cache" and cache is not None:
        return CachedStudies(preparer, cache, progress)
    return StudiesOnTheFly(preparer)


def open_pairs(
    cohort: Cohort,
    path: str = "memory",
    preparation: PreparationConfig | Mapping[str, Any] | None = None,
    pairing: Any = None,
    sampling: Any = None,
    cache: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    labeled: bool = False,
) -> StudyPairs:
    """Open pairs of the studies of a cohort.

    Args:
        cohort: Studies to pair.
        path: One of ``PATHS``.
        preparation: How the studies are prepared: a ``PreparationConfig`` or its plain values.
        pairing: ``auto``, ``visits``, ``subjects``, or the settings of ``pairing.Pairing``.
        sampling: None, or the settings of ``pairing.StudySampling``.
        cache: Folder for the data path ``cache``.
        seed: Seed of the pairs.
        progress: Called while the data paths ``memory`` and ``cache`` prepare the studies; may raise to cancel.
        labeled: Whether pairs of which neither study has labels are left out.

    Returns:
        The pairs of epoch 0.

    Raises:
        ValueError: Settings or files cannot be used, or no pair can be made of the cohort.
    """
    if not isinstance(preparation, PreparationConfig):
        preparation = PreparationConfig.from_dict(preparation or {})
    chosen = StudySampling.of(sampling)
    plan_pairs(cohort, pairing, labeled=labeled)  # refuses before the studies are prepared
    studies = open_studies(cohort, path, preparation, cache, progress)
    counts = None if chosen is None else all_counts(studies)
    return StudyPairs(studies, plan_pairs(cohort, pairing, chosen, counts, seed, labeled))


def plan_pairs(
    cohort: Cohort,
    pairing: Any = None,
    sampling: StudySampling | None = None,
    counts: Tensor | None = None,
    seed: int = 0,
    labeled: bool = False,
) -> PairPlan:
    """Plan the pairs of a cohort, for which no study has to be prepared.

    Args:
        cohort: Studies to pair.
        pairing: As in ``open_pairs``.
        sampling: How studies are drawn; None to take each one as often.
        counts: Voxels (study, 5) of each class; needed with ``sampling``.
        seed: Seed of the pairs.
        labeled: Whether pairs of which neither study has labels are left out.

    Raises:
        ValueError: No pair can be made of the cohort.
    """
    subjects = [study.subject for study in cohort.studies]
    known = [study.label is not None for study in cohort.studies] if labeled else None
    return PairPlan(subjects, Pairing.of(pairing), sampling, counts, seed, f"'{cohort.source}'", known)


def _require_memory(preparer: StudyPreparer) -> None:
    """Raise ValueError where all studies together need more memory than is free."""
    d, h, w = preparer.config.shape
    needed = len(preparer) * d * h * w * (4 * len(MODALITIES) + 2)
    free = _free_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"the {len(preparer)} studies of '{preparer.cohort.source}' need {needed / 2**30:.1f} GB in memory and "
            f"{free / 2**30:.1f} GB are free: use the data path 'cache'"
        )


def _free_memory() -> int | None:
    """Bytes that can be used without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
