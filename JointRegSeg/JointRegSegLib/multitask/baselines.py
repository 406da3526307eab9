"""What tasks are compared with: predictions without a network, from means, volumes, or intensities and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ..images.labels import UNLABELED
from ..images.modalities import MODALITIES
from ..synthesis.random_fields import box_mean
from ..tasks.autoencoder import Autoencoder
from ..tasks.classification import Classification
from ..tasks.regression import Regression
from ..tasks.study_task import StudyTask
from ..tasks.super_resolution import SuperResolution
from ..tasks.tissue import Tissue
from .studies import TargetStudy, image_target

_RIDGE = 1e-2
_CLUSTERS = 3
_PROBE_RIDGE = 0.1


def baselines(
    task: StudyTask,
    training: Sequence[TargetStudy],
    studies: Sequence[TargetStudy],
    spacing_mm: float,
    modalities: Sequence[str] = MODALITIES,
) -> dict[str, list[Any]]:
    """Predict the targets of studies without a network.

    Args:
        task: The task, with what it learned from the training targets.
        training: Training studies with targets of the task.
        studies: Studies to predict.
        spacing_mm: Voxel size of the studies.
        modalities: Modalities of the network.

    Returns:
        Predictions, as the network makes them, by the name of the baseline: ``mean`` and ``ridge on volumes``;
        ``majority`` and ``logistic regression on volumes``; ``intensity clusters with spatial prior``; ``linear`` and
        ``B-spline`` interpolation; ``mean image`` of the training studies. The volumes are those of the brain and of
        three clusters of its intensities (Otsu). Other tasks have their ``constant_predictions`` alone.
    """
    if isinstance(task, Tissue):
        return {"intensity clusters with spatial prior": _tissue(task, training, studies)}
    if isinstance(task, SuperResolution):
        images = [image_target(study, modalities) for study in studies]
        return {
            "linear": [task.compact(task.linear(image), image) for image in images],
            "B-spline": [task.compact(task.bspline(image), image) for image in images],
        }
    if isinstance(task, Autoencoder):
        average = torch.stack([image_target(study, modalities).images for study in training]).mean(0).numpy()
        images = [image_target(study, modalities, task.map_classes > 0) for study in studies]
        return {"mean image": [task.compact(average, image) for image in images]}
    if task.from_image:
        return {}
    targets = [study.sample.labels if task.map_classes else study.targets[task.name] for study in training]
    constant = {name: [found for _ in studies] for name, found in task.constant_predictions(targets).items()}
    if not isinstance(task, Regression | Classification):
        return constant
    known = _scaled(np.array([volumes(s, spacing_mm) for s in training]))
    features = known(np.array([volumes(s, spacing_mm) for s in studies]))
    train = known(np.array([volumes(s, spacing_mm) for s in training]))
    if isinstance(task, Regression):
        weights = np.linalg.solve(train.T @ train + _RIDGE * len(train) * np.eye(train.shape[1]), train.T @ targets)
        residual = float(np.std(targets - train @ weights)) or 1.0
        return constant | {"ridge on volumes": [{"value": float(v), "sd": residual} for v in features @ weights]}
    probabilities = _logistic(train, np.array(targets), features, len(task.classes))
    return constant | {"logistic regression on volumes": list(probabilities)}


def linear_prediction(training: np.ndarray, targets: Sequence[str], features: np.ndarray) -> list[float] | list[str]:
    """Predict numbers by ridge regression, or classes by logistic regression, from features.

    Args:
        training: Features (n, f) of the training studies.
        targets: Their targets as texts; they are numbers if all of them can be read as such.
        features: Features (m, f) of the studies to predict.

    Returns:
        m numbers or m classes.
    """
    known = _scaled(training)
    train, test = known(training), known(features)
    numbers = numbers_of(targets)
    if numbers is not None:
        weights = np.linalg.solve(
            train.T @ train + _PROBE_RIDGE * len(train) * np.eye(train.shape[1]), train.T @ numbers
        )
        return [float(value) for value in test @ weights]
    classes = sorted(set(targets))
    probabilities = _logistic(train, np.array([classes.index(t) for t in targets]), test, len(classes))
    return [classes[int(np.argmax(p))] for p in probabilities]


def numbers_of(texts: Sequence[str]) -> np.ndarray | None:
    """Read texts as numbers; None where one of them is not a number."""
    try:
        return np.array([float(text.replace(",", ".")) for text in texts])
    except ValueError:
        return None


def volumes(study: TargetStudy, spacing_mm: float) -> np.ndarray:
    """Return the volumes in ml of the brain and of three clusters of the first image's intensities, dark to bright."""
    clusters = intensity_clusters(study)
    milliliters = spacing_mm**3 / 1000
    counts = [(clusters == number).sum() for number in range(1, _CLUSTERS + 1)]
    return np.array([int(study.sample.mask.sum()), *counts]) * milliliters


def intensity_clusters(study: TargetStudy) -> np.ndarray:
    """Divide the brain into three clusters (D, H, W) of intensity, 1 to 3 from dark to bright; 0 is the background."""
    sample = study.sample
    present = sample.present.tolist()
    image = sample.images[present.index(True) if True in present else 0].numpy()
    mask = sample.mask.numpy()
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(_CLUSTERS - 1)
    otsu.Execute(sitk.GetImageFromArray(image[mask][None, None]))
    return np.where(mask, 1 + np.digitize(image, otsu.GetThresholds()), 0)


def _scaled(training: np.ndarray) -> Any:
    """Function that scales features (n, f) by the training's mean and deviation, and appends a constant."""
    mean, sd = training.mean(0), np.maximum(training.std(0), 1e-9)
    return lambda features: np.column_stack([(features - mean) / sd, np.ones(len(features))])


def _logistic(train: np.ndarray, targets: np.ndarray, features: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (n, classes) of a regularised multinomial logistic regression."""
    x = torch.from_numpy(train)
    weights = torch.zeros(train.shape[1], classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        entropy = torch.nn.functional.cross_entropy(x @ weights, torch.from_numpy(targets))
        loss = entropy + _RIDGE * weights.square().sum()
        loss.backward()
        return float(loss.detach())

    with torch.enable_grad():
        optimizer.step(closure)
    return (torch.from_numpy(features) @ weights.detach()).softmax(1).numpy()


def _tissue(task: Tissue, training: Sequence[TargetStudy], studies: Sequence[TargetStudy]) -> list[np.ndarray]:
    """Label maps: the class with the highest product of its frequency at the place and that of the cluster in it."""
    classes = task.map_classes
    prior = torch.zeros(classes, *training[0].sample.shape)
    table = np.full((classes, _CLUSTERS + 1), 1e-6)
    for study in training:
        labels = study.sample.labels
        assert labels is not None  # as only studies with targets are given
        for number in range(classes):
            prior[number] += (labels == number).float()
        known = (labels != UNLABELED).numpy()
        np.add.at(table, (labels.numpy()[known], intensity_clusters(study)[known]), 1)
    prior = box_mean(prior / len(training), 3) + 1e-4
    table /= table.sum(1, keepdims=True)
    found = []
    for study in studies:
        likelihood = table[:, intensity_clusters(study)]
        labels = (prior.numpy() * likelihood).argmax(0).astype(np.uint8)
        found.append(np.where(study.sample.mask.numpy(), labels, 0).astype(np.uint8))
    return found
