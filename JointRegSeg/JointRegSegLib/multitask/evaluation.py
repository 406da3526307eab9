"""Weights of tasks on single studies scored on a cohort, against baselines and, where it is known, the best score."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from NeuroCESTLib.core.progress import Progress, part, silent

from ..cohort.studies import Cohort
from ..metrics.prediction import paired_interval
from ..network.precision import FLOAT32
from ..pictures.predictions import Shown
from ..tasks.autoencoder import Autoencoder
from ..tasks.study_task import StudyTask
from ..tasks.super_resolution import SuperResolution
from .baselines import baselines, linear_prediction, numbers_of, volumes
from .network import select
from .objective import judged, run
from .studies import TargetStudies, TargetStudy, combine
from .weights import StudyWeights

NETWORK = "network"
_CEILINGS = "ceilings.csv"


@dataclass
class Evaluation:
    """Scores of a network on a cohort.

    Attributes:
        cases: Quality of every study by method: rows with ``task``, ``study``, ``method``, ``measure``, ``quality``.
        summary: Scores: rows with ``task``, ``method``, ``score``, ``value``.
        comparisons: Network against each baseline, study by study: rows with ``task``, ``baseline``, ``measure``,
            ``studies``, ``improvement`` (positive where the network is better) and its 95 % bootstrap interval ``low``,
            ``high``.
        found: Predictions and encoded targets by task, for the pictures.
        shown: Studies for the pictures by task.
        warnings: Sentences for the user.
        failed: Sentence of each study that cannot be used, by its name; the others are scored without it.
    """

    cases: list[dict[str, Any]] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)
    shown: dict[str, list[Shown]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def evaluate_studies(
    weights: StudyWeights,
    cohort: Cohort,
    split: str,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Score a network on the studies of a split; the baselines learn from the split 'train' of the same cohort.

    Args:
        weights: Network with its tasks.
        cohort: Cohort, read with the columns of the tasks.
        split: Split to score, or 'all'.
        device: Device to compute on.
        progress: Called before each study; may raise to cancel.

    Raises:
        ValueError: No study can be used, or none has a target.
    """
    chosen = cohort if split == "all" else cohort.of_split(split)
    result = Evaluation()
    chosen, items, result.failed = _readable(chosen, weights, part(progress, 0.0, 0.4))
    if not items:
        name, reason = next(iter(result.failed.items()))
        raise ValueError(f"no study of '{cohort.source}' can be used; {name}: {reason}")
    predictions = [
        _predictions(weights, item, device, part(progress, 0.4, 0.7), i / len(items)) for i, item in enumerate(items)
    ]
    training: list[TargetStudy] = []
    if any(study.split == "train" for study in cohort.studies):
        training = _training_studies(cohort.of_split("train"), weights, result, part(progress, 0.7, 1.0))
    spacing_mm = weights.preparation.preprocessing.spacing_mm
    for task in weights.tasks:
        known = [i for i, item in enumerate(items) if _target(task, item) is not None]
        if not known:
            result.warnings.append(f"no study has a target of the task '{task.name}', which is therefore not scored")
            continue
        targets = [_target(task, items[i]) for i in known]
        methods: dict[str, list[Any]] = {NETWORK: [predictions[i][task.name] for i in known]}
        learned = [item for item in training if _target(task, item) is not None]
        if len(learned) > 1 or isinstance(task, SuperResolution):
            modalities = weights.network.config.modalities
            methods |= baselines(task, learned, [items[i] for i in known], spacing_mm, modalities)
            if len(methods) == 1:
                result.warnings.append(f"the task '{task.name}' ({task.title}) has no baseline to be compared with")
        else:
            result.warnings.append(
                f"'{cohort.source}' has no training studies for the task '{task.name}', so that there is no baseline"
            )
        names = [items[i].sample.name for i in known]
        _add(result, task, names, methods, targets, spacing_mm)
        if isinstance(task, Autoencoder) and task.probe:
            codes = [_predictions(weights, item, device, silent, 0)[task.name]["code"] for item in learned]
            _add_probe(result, task, learned, codes, [items[i] for i in known], methods[NETWORK], spacing_mm)
        _add_ceiling(result, task, [chosen.studies[i].subject for i in known], targets, Path(cohort.source))
        result.found[task.name] = list(zip(methods[NETWORK], targets, strict=True))
        first = items[known[0]].sample
        image = first.images[first.present.tolist().index(True)].numpy()
        result.shown[task.name] = [Shown(first.name, image, methods[NETWORK][0], targets[0])]
    if not result.summary:
        raise ValueError(f"no study of '{cohort.source}' has a target of the tasks of these weights")
    progress(1.0, "done")
    return result


def _training_studies(
    cohort: Cohort, weights: StudyWeights, result: Evaluation, progress: Progress
) -> list[TargetStudy]:
    """Prepare the studies that the baselines learn from; a warning tells how many cannot be used."""
    _, items, failed = _readable(cohort, weights, progress)
    if failed:
        name, reason = next(iter(failed.items()))
        result.warnings.append(
            f"the baselines learn from {len(items)} of {len(cohort)} training studies; the others cannot be used, such "
            f"as {name}: {reason}"
        )
    return items


def _readable(
    cohort: Cohort, weights: StudyWeights, progress: Progress
) -> tuple[Cohort, list[TargetStudy], dict[str, str]]:
    """Prepare the studies of a cohort, and tell by the name of each of the others why it cannot be used."""
    records, items, failed = [], [], {}
    for number, record in enumerate(cohort.studies):
        progress(number / len(cohort), f"preparing {record.name}")
        try:
            one = replace(cohort, studies=(record,))
            one.require_modalities(weights.network.config.modalities)
            items.append(TargetStudies(one, weights.tasks, weights.preparation, "on_the_fly")[0])
            records.append(record)
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            failed[record.name] = " ".join(str(error).split())
    return replace(cohort, studies=tuple(records)), items, failed


def _predictions(
    weights: StudyWeights, item: TargetStudy, device: torch.device | str, progress: Progress, done: float
) -> dict[str, Any]:
    """Predictions of all tasks for one study, on its own grid."""
    progress(done, f"predicting {item.sample.name}")
    network = weights.network.to(device).eval()
    batch = combine([item], network.config.multiple, 0, network.config.modalities).to(torch.device(device))
    outputs = run(network, batch, FLOAT32)
    found = {}
    d, h, w = item.sample.shape
    for task in network.tasks:
        prediction, _ = judged(task, select(outputs[task.name], 0), batch)
        if isinstance(prediction, np.ndarray) and prediction.shape == batch.mask.shape[1:]:  # a map
            prediction = np.where(item.sample.mask.numpy(), prediction[:d, :h, :w], 0)
        found[task.name] = prediction
    return found


def _target(task: StudyTask, item: TargetStudy) -> Any:
    if task.from_image:
        return True  # no study lacks it, and the compact predictions hold the scores
    return item.sample.labels if task.map_classes else item.targets.get(task.name)


def _add(
    result: Evaluation,
    task: StudyTask,
    names: Sequence[str],
    methods: dict[str, list[Any]],
    targets: list[Any],
    spacing_mm: float,
) -> None:
    """Add the scores of all methods, and the paired differences of the network and each baseline."""
    quality: dict[str, np.ndarray] = {}
    for method, predicted in methods.items():
        quality[method] = np.array(
            [task.quality(p, t, spacing_mm) for p, t in zip(predicted, targets, strict=True)], float
        )
        for name, value in zip(names, quality[method].tolist(), strict=True):
            result.cases.append(
                {"task": task.name, "study": name, "method": method, "measure": task.quality_name, "quality": value}
            )
        for score, value in task.scores(predicted, targets, spacing_mm).items():
            result.summary.append({"task": task.name, "method": method, "score": score, "value": value})
    sign = 1 if task.higher_is_better else -1
    for method, values in quality.items():
        if method != NETWORK:
            mean, low, high = paired_interval((sign * (quality[NETWORK] - values)).tolist())
            result.comparisons.append(
                {
                    "task": task.name,
                    "baseline": method,
                    "measure": task.quality_name,
                    "studies": len(names),
                    "improvement": mean,
                    "low": low,
                    "high": high,
                }
            )


def _add_probe(
    result: Evaluation,
    task: Autoencoder,
    training: Sequence[TargetStudy],
    codes: Sequence[np.ndarray],
    studies: Sequence[TargetStudy],
    found: Sequence[Any],
    spacing_mm: float,
) -> None:
    """Add how well linear models predict a column of the manifest from the code, and from volumes."""
    learned = [i for i, item in enumerate(training) if task.name in item.targets]
    known = [i for i, item in enumerate(studies) if task.name in item.targets]
    texts = [training[i].targets[task.name] for i in learned]
    true = [studies[i].targets[task.name] for i in known]
    if len(set(texts)) < 2 or not true:
        result.warnings.append(f"the column '{task.probe}' has too few values for a linear probe of the code")
        return
    features = {
        "linear probe of the code": ([codes[i] for i in learned], [found[i]["code"] for i in known]),
        "linear probe of volumes": (
            [volumes(training[i], spacing_mm) for i in learned],
            [volumes(studies[i], spacing_mm) for i in known],
        ),
    }
    for method, (train, test) in features.items():
        predicted = linear_prediction(np.array(train), texts, np.array(test))
        numbers = numbers_of([*texts, *true])
        if numbers is None:
            right = [str(p) == t for p, t in zip(predicted, true, strict=True)]
            scores = {f"accuracy of {task.probe}": float(np.mean(right))}
        else:
            truth = numbers[len(texts) :]
            errors = np.array(predicted, float) - truth
            scores = {f"mean absolute error of {task.probe}": float(np.abs(errors).mean())}
            if np.ptp(truth) > 0:
                scores[f"R2 of {task.probe}"] = float(1 - np.square(errors).mean() / truth.var())
        for score, value in scores.items():
            result.summary.append({"task": task.name, "method": method, "score": score, "value": value})


def _add_ceiling(
    result: Evaluation, task: StudyTask, subjects: Sequence[str], targets: Sequence[Any], manifest: Path
) -> None:
    """Add the best possible score where the file of a synthetic cohort tells it."""
    file = manifest.parent / _CEILINGS
    if not file.is_file() or task.name not in ("age", "sex"):
        return
    with open(file, newline="", encoding="utf-8") as lines:
        best = {row["subject"]: row for row in csv.DictReader(lines)}
    if not set(subjects) <= set(best):
        result.warnings.append(f"'{file}' lacks some of the subjects, so that the best possible score is not told")
        return
    if task.name == "age" and task.kind == "regression":
        errors = [abs(float(best[s]["best_age"]) - t) for s, t in zip(subjects, targets, strict=True)]
        score, value = "mae", float(np.mean(errors))
    elif task.name == "sex" and list(getattr(task, "classes", ())) == ["F", "M"]:
        called = [float(best[s]["best_probability_male"]) > 0.5 for s in subjects]
        score, value = "accuracy", float(np.mean([c == bool(t) for c, t in zip(called, targets, strict=True)]))
    else:
        return
    result.summary.append({"task": task.name, "method": "best possible", "score": score, "value": value})
