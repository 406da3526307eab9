"""The task of tissue segmentation: CSF, grey and white matter and parts of the brain, or any other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from ..cohort.sampling import median_frequency_weights
from ..images.labels import UNLABELED
from ..images.tissues import TISSUES, tissue
from ..losses.config import LossConfig
from ..losses.segmentation import segmentation_loss
from ..metrics.overlap import dice
from ..metrics.surface_distance import hd95
from ..network.brain_norm import Brains
from ..network.configuration import NetworkConfig
from ..network.heads import SegmentationHead
from .study_task import FILE, StudyTask, present, require_number

_DEFAULT = {name: (number,) for number, name in enumerate(TISSUES, 1)}


@dataclass(frozen=True, kw_only=True)
class Tissue(StudyTask):
    """Segmentation of tissues with Dice and cross-entropy at several levels.

    Attributes:
        column: Column of the manifest with the label maps.
        classes: Numbers in the label map by name of the class; 0 is the background.
        ignore: Further numbers whose voxels neither train nor score.
        class_weights: Weights of background and classes in the cross-entropy; empty for the median frequency.
        auxiliary_weight: Weight of the next coarser level relative to the finest one (deep supervision).
        smallest_voxels: Smallest connected part of a class that is believed, in voxels of the network's grid, by the
            name of the class; smaller parts take the next most probable class.
    """

    kind: ClassVar[str] = "tissue"
    title: ClassVar[str] = "Tissue segmentation"
    quality_name: ClassVar[str] = "mean Dice"

    column: str = "tissue"
    classes: Mapping[str, Any] = field(default_factory=lambda: dict(_DEFAULT))
    ignore: tuple[int, ...] = ()
    class_weights: tuple[float, ...] = ()
    auxiliary_weight: float = 0.5
    smallest_voxels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        classes = {
            str(name): tuple(numbers) if isinstance(numbers, list | tuple) else (numbers,)
            for name, numbers in self.classes.items()
        }
        numbers = [number for group in classes.values() for number in group] + list(self.ignore)
        if not classes or not all(type(n) is int and 0 < n < 100_000 for n in numbers) or len(classes) > 62:
            raise ValueError(
                "classes must give 1 to 62 names with whole numbers above 0, such as {'csf': 1, 'gm': [2, 3]}"
            )
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"classes and ignore name a number twice in {numbers}")
        require_number(self, "auxiliary_weight", 0)
        smallest = self.smallest_voxels
        if not isinstance(smallest, Mapping) or not all(type(n) is int and n > 0 for n in smallest.values()):
            raise ValueError(f"smallest_voxels must give whole numbers above 0 by class, got {smallest!r}")
        if unknown := sorted(set(smallest) - set(classes)):
            raise ValueError(f"smallest_voxels names '{unknown[0]}', which is none of the classes {', '.join(classes)}")
        object.__setattr__(self, "smallest_voxels", dict(smallest))
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "ignore", tuple(self.ignore))
        object.__setattr__(self, "class_weights", tuple(self.class_weights))

    @property
    def columns(self) -> Mapping[str, str]:
        """The column with the label maps."""
        return {self.column: FILE}

    @property
    def offer(self) -> str:
        """The classes."""
        return f"segmentation of {', '.join(tissue(name).title.lower() for name in self.classes)}"

    @property
    def main_score(self) -> tuple[str, str]:
        """Mean Dice of the classes."""
        return "dice", "Mean Dice"

    @property
    def map_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.classes) + 1

    def map_target(self, labels: sitk.Image, source: str) -> sitk.Image:
        """Convert the numbers of a label map to the numbers of the classes."""
        voxels = sitk.GetArrayFromImage(labels)
        if not np.isfinite(voxels).all() or (voxels != np.rint(voxels)).any():
            raise ValueError(f"'{source}' is not a label map: it holds values that are not whole numbers")
        voxels = voxels.astype(np.int64)
        table = {0: 0, **{n: i for i, group in enumerate(self.classes.values(), 1) for n in group}}
        table |= dict.fromkeys(self.ignore, UNLABELED)
        values = np.unique(voxels)
        if foreign := [int(v) for v in values if int(v) not in table]:
            known = ", ".join(f"{name} {'/'.join(map(str, group))}" for name, group in self.classes.items())
            raise ValueError(
                f"the tissue map '{source}' has the numbers {', '.join(map(str, foreign[:8]))}, which no class of the "
                f"task names ({known}): add them to 'classes' or 'ignore'"
            )
        if not (values > 0).any():
            raise ValueError(f"the tissue map '{source}' is empty: leave its field empty instead")
        found = sitk.GetImageFromArray(
            np.array([table[int(v)] for v in values], np.uint8)[np.searchsorted(values, voxels)]
        )
        found.CopyInformation(labels)
        return found

    def fitted(self, targets: Sequence[Any], source: str) -> Tissue:
        """Weight the classes by their median frequency."""
        maps = present(targets, f"tissue map (column '{self.column}')", source)
        task = replace(self, share=len(maps) / len(targets))
        if self.class_weights:
            if len(self.class_weights) != self.map_classes:
                raise ValueError(
                    f"there are {len(self.class_weights)} class_weights for the background and "
                    f"{len(self.classes)} classes"
                )
            return task
        counts = torch.stack([torch.bincount(m[m < self.map_classes].long(), minlength=self.map_classes) for m in maps])
        empty = [name for name, count in zip(self.classes, counts.sum(0)[1:], strict=True) if count == 0]
        if empty:
            raise ValueError(
                f"no tissue map of the split 'train' of '{source}' holds {', '.join(empty)}: leave these classes "
                "out of 'classes' of the task"
            )
        weights = median_frequency_weights(counts.double()).clamp(0.1, 10)
        return replace(task, class_weights=tuple(float(f"{w:.6g}") for w in weights.tolist()))

    def head(self, network: NetworkConfig) -> nn.Module:
        """Build the decoder of the segmentation, with an output for each coarser level that is supervised."""
        return _Head(replace(network, classes=self.map_classes, segmentation=True))

    def loss(self, output: Any, target: Any, mask: Tensor) -> Tensor:
        """Compute Dice and cross-entropy over the levels."""
        logits, *lower = output
        settings = LossConfig(
            dice_over="classes", class_weights=self.class_weights, auxiliary_weight=self.auxiliary_weight
        )
        return segmentation_loss(logits, target[None], settings, lower)

    def decode(self, output: Any) -> Any:
        """Return the probabilities (class, D, H, W) float32, with the background first, without islands too small."""
        probabilities: np.ndarray = output[0][0].float().softmax(0).cpu().numpy()
        for name, smallest in self.smallest_voxels.items():
            number = list(self.classes).index(name) + 1
            islands = _small_parts(probabilities.argmax(0) == number, smallest)
            probabilities[number][islands] = 0
            probabilities[:, islands] /= np.maximum(probabilities[:, islands].sum(0), 1e-12)
        return probabilities

    def labels_of(self, prediction: np.ndarray) -> np.ndarray:
        """Return the most probable classes (D, H, W) uint8 of probabilities."""
        return prediction.argmax(0).astype(np.uint8)

    def compact(self, prediction: Any, target: Any) -> np.ndarray:
        """Return the most probable classes."""
        return self.labels_of(prediction) if prediction.ndim == 4 else prediction

    def quality(self, prediction: Any, target: Any, spacing_mm: float) -> float:
        """Return the mean Dice of the classes that the study holds or is predicted to hold."""
        return float(np.nanmean(list(self._dice(prediction, target).values())))

    def scores(self, predictions: Sequence[Any], targets: Sequence[Any], spacing_mm: float) -> dict[str, float]:
        """Compute the mean Dice and HD95 (mm) of each class over the studies, and the mean Dice over the classes.

        Studies that neither hold a class nor are predicted to hold it do not count for it.
        """
        found = [self._dice(p, t) for p, t in zip(predictions, targets, strict=True)]
        scores = {f"dice_{name}": mean_of([f[name] for f in found]) for name in self.classes}
        scores["dice"] = mean_of(list(scores.values()))
        for number, name in enumerate(self.classes, 1):
            distances = [
                hd95(self._map(p, t) == number, _array(t) == number, (spacing_mm,) * 3)
                for p, t, dices in zip(predictions, targets, found, strict=True)
                if np.isfinite(dices[name])
            ]
            scores[f"hd95_{name}_mm"] = mean_of(distances)
        return scores

    def _dice(self, prediction: Any, target: Any) -> dict[str, float]:
        predicted, true = self._map(prediction, target), _array(target)
        found = {}
        for number, name in enumerate(self.classes, 1):
            a, b = predicted == number, true == number
            found[name] = dice(a, b) if a.any() or b.any() else float("nan")
        return found

    def _map(self, prediction: Any, target: Any) -> np.ndarray:
        """Predicted classes, with the voxels that are not scored made equal to those of the target."""
        predicted = self.compact(prediction, target)
        true = _array(target)
        return np.where(true == UNLABELED, UNLABELED, predicted)


class _Head(nn.Module):
    """The segmentation head, whose outputs are one tuple."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.segmentation = SegmentationHead(config)

    def forward(self, codes: list[Tensor], brains: Brains | None = None) -> tuple[Tensor, ...]:
        logits, lower = self.segmentation(list(codes), brains)
        return (logits, *lower)


def _small_parts(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Return the voxels (D, H, W) of a mask in parts of fewer voxels; voxels that share a corner are connected."""
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    large = sitk.RelabelComponent(parts, minimumObjectSize=smallest)
    return np.asarray(mask & (sitk.GetArrayFromImage(large) == 0))


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the finite values; NaN without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _array(target: Any) -> np.ndarray:
    return target.cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
