"""Single studies of a cohort with their targets, and batches of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ..augmentation.pipeline import Augmentation
from ..cohort.preparation import PreparationConfig, StudyPreparer
from ..cohort.sample import StudySample
from ..cohort.sources import CachedStudies, StudiesInMemory, StudiesOnTheFly
from ..cohort.studies import Cohort, StudyRecord
from ..images.labels import UNLABELED
from ..images.modalities import MODALITIES
from ..images.preprocessing.resampling import labels_on_grid
from ..images.reading import read_image
from ..tasks.image_target import ImageTarget
from ..tasks.study_task import FILE, StudyTask
from ..training.batches import padded


@dataclass(frozen=True)
class TargetStudy:
    """A prepared study with its targets.

    Attributes:
        sample: The study; its labels are the map of the task that has one, ``UNLABELED`` where nothing is known.
        targets: Encoded targets by the name of the task; missing ones are left out.
    """

    sample: StudySample
    targets: Mapping[str, Any]


@dataclass(frozen=True)
class StudyBatch:
    """Studies side by side on one grid.

    Attributes:
        images: Images (B, C, D, H, W) with the modalities of the network.
        labels: Maps (B, D, H, W) uint8, ``UNLABELED`` where there are none.
        mask: Brains (B, D, H, W) bool.
        targets: Encoded targets of each study that are no maps, by the name of the task.
        names: Names of the studies.
    """

    images: Tensor
    labels: Tensor
    mask: Tensor
    targets: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> StudyBatch:
        """Return the same batch on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> StudyBatch:
        """Return the same batch in pinned memory, for faster copies to a GPU; the data loader calls this."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def target(self, task: StudyTask, index: int) -> Any:
        """Return the encoded target of a task for one study; None where it is missing."""
        labels = self.labels[index]
        known = not bool((labels == UNLABELED).all())
        if task.from_image:
            lesions = labels == 1 if task.map_classes and known else None
            return ImageTarget(self.images[index], self.mask[index], lesions)
        if task.map_classes:
            return labels if known else None
        return self.targets[index].get(task.name)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> StudyBatch:
        return replace(self, images=change(self.images), labels=change(self.labels), mask=change(self.mask))


def combine(
    items: Sequence[TargetStudy], multiple: int, number: int = 0, modalities: Sequence[str] = MODALITIES
) -> StudyBatch:
    """Combine studies to one batch; grids are padded at their ends to a common size.

    Args:
        items: Studies.
        multiple: The sizes of the common grid are multiples of this.
        number: Number of the first study in the stream.
        modalities: Modalities of the network, to which the images are restricted.
    """
    samples = [item.sample for item in items]
    size = [-(-max(sample.shape[axis] for sample in samples) // multiple) * multiple for axis in range(3)]
    samples = [padded(sample, size) for sample in samples]
    return StudyBatch(
        network_channels(torch.stack([s.images for s in samples]), modalities),
        torch.stack([_labels(s) for s in samples]),
        torch.stack([s.mask for s in samples]),
        tuple(item.targets for item in items),
        tuple(s.name for s in samples),
    )


class TargetStudies:
    """The studies of a cohort with the targets of tasks; ``studies[i]`` is a ``TargetStudy``."""

    def __init__(
        self,
        cohort: Cohort,
        tasks: Sequence[StudyTask],
        preparation: PreparationConfig,
        path: str = "memory",
        cache: str | Path | None = None,
        progress: Progress = silent,
    ) -> None:
        """Open the studies.

        Args:
            cohort: Studies, read with the columns of the tasks.
            tasks: Tasks whose targets are wanted.
            preparation: How studies are prepared.
            path: ``memory``, ``cache`` or ``on_the_fly``.
            cache: Folder for the path ``cache``.
            progress: Called while studies are prepared; may raise to cancel.

        Raises:
            ValueError: A file or a field of the manifest cannot be used.
        """
        self.cohort, self.tasks = cohort, tuple(tasks)
        self.values = [values_of(record, tasks, cohort.source) for record in cohort.studies]
        preparer = _TargetPreparer(cohort, preparation, tasks)
        self._studies: Any
        if path == "memory":
            self._studies = StudiesInMemory(preparer, progress)
        elif path == "cache" and cache is not None:
            self._studies = CachedStudies(preparer, Path(cache) / preparer.digest, progress)
        else:
            self._studies = StudiesOnTheFly(preparer)

    def __len__(self) -> int:
        return len(self.values)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the studies are the same in every epoch."""

    def __getitem__(self, index: int) -> TargetStudy:
        sample = self._studies[index]
        targets = {
            task.name: task.encode(self.values[index][task.name], f"'{sample.name}' in '{self.cohort.source}'")
            for task in self.tasks
            if task.name in self.values[index]
        }
        return TargetStudy(sample, targets)

    def raw_targets(self, task: StudyTask) -> list[Any]:
        """Return the targets of all studies that ``task.fitted`` takes, None for missing ones.

        Where the target is the image itself, which no study lacks, that is True.
        """
        if task.from_image:
            return [True] * len(self)
        if not task.map_classes:
            return [values.get(task.name) for values in self.values]
        found = []
        for index, record in enumerate(self.cohort.studies):
            has_map = bool(set(task.columns) & set(record.target_files))
            found.append(_labels(self._studies[index]) if has_map else None)
        return found

    def with_tasks(self, tasks: Sequence[StudyTask]) -> TargetStudies:
        """Return the same prepared studies for tasks that have learned from their targets."""
        other = object.__new__(TargetStudies)
        other.cohort, other.tasks, other.values, other._studies = self.cohort, tuple(tasks), self.values, self._studies
        return other


def values_of(record: StudyRecord, tasks: Sequence[StudyTask], source: str) -> dict[str, Any]:
    """Read the targets of a study that are numbers and texts, by the name of the task; missing ones are left out.

    Raises:
        ValueError: A field cannot be used; the message names study, file and column.
    """
    found = {}
    for task in tasks:
        for column, kind in task.columns.items():
            if kind != FILE:
                text = record.target_values.get(column, "")
                value = task.value_target(text, f"'{record.name}' in '{source}'")
                if value is not None:
                    found[task.name] = value
    return found


class StudyAugmentation:
    """Augments studies with their maps; the generator alone decides."""

    def __init__(self, augmentation: Augmentation) -> None:
        self._augmentation = augmentation

    def __call__(self, study: TargetStudy, generator: torch.Generator) -> TargetStudy:
        """Augment a study; its targets that are no maps stay as they are."""
        return replace(study, sample=self._augmentation.single(study.sample, generator))


class _TargetPreparer(StudyPreparer):
    """Prepares studies with the map of a task instead of tumour labels."""

    def __init__(self, cohort: Cohort, config: PreparationConfig, tasks: Sequence[StudyTask]) -> None:
        super().__init__(replace(cohort, studies=tuple(replace(r, label=None) for r in cohort.studies)), config)
        self.maps = [task for task in tasks if task.map_classes]
        if len(self.maps) > 1:
            raise ValueError(
                "two tasks have label maps: a network can have one task of the kind 'tissue', or an 'autoencoder' "
                "with 'lesions'"
            )
        decisive = ("classes", "lesions", "lesion_numbers")
        content = json.dumps([[task.to_dict().get(key) for key in decisive] for task in self.maps], sort_keys=True)
        self.digest = "targets-" + hashlib.sha256(content.encode()).hexdigest()[:8]

    def __call__(self, index: int) -> StudySample:
        sample = super().__call__(index)
        record = self.cohort.studies[index]
        for task in self.maps:
            for column in task.columns:
                if column in record.target_files:
                    sample = replace(sample, labels=self._map(index, task, record.target_files[column]))
        return sample

    def _map(self, index: int, task: StudyTask, path: Path) -> Tensor:
        grid, transform = self._grids[self.cohort.studies[index].subject], self._transforms[index]
        labels = task.map_target(read_image(path), str(path))
        assert labels is not None  # because the task has classes
        ignored = labels_on_grid(labels == UNLABELED, grid, transform, 2)
        found = labels_on_grid(labels * (labels != UNLABELED), grid, transform, task.map_classes)
        found[ignored > 0] = UNLABELED
        return found


def network_channels(images: Tensor, modalities: Sequence[str]) -> Tensor:
    """Select the modalities of a network from images (B, C, D, H, W) with the channels of ``MODALITIES``."""
    if tuple(modalities) == MODALITIES:
        return images
    return images[:, [MODALITIES.index(name) for name in modalities]]


def image_target(study: TargetStudy, modalities: Sequence[str], lesions: bool = False) -> ImageTarget:
    """Return the images of a study as a target, with the abnormal voxels where its map tells them."""
    sample = study.sample
    abnormal = sample.labels == 1 if lesions and sample.labels is not None else None
    return ImageTarget(network_channels(sample.images[None], modalities)[0], sample.mask, abnormal)


def _labels(sample: StudySample) -> Tensor:
    if sample.labels is not None:
        return sample.labels
    return torch.full(sample.shape, UNLABELED, dtype=torch.uint8)
