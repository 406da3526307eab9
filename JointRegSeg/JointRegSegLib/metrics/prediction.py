"""Scores of predicted numbers and classes, and bootstrap intervals of paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BINS = 10


def regression_scores(predicted: np.ndarray, true: np.ndarray, sd: np.ndarray | None = None) -> dict[str, float]:
    """Score predicted numbers.

    Args:
        predicted: Predictions (n,).
        true: Truth (n,).
        sd: Predicted standard deviations (n,), or None.

    Returns:
        ``mae`` and ``rmse`` in the unit of the numbers; ``r2``, 1 minus the ratio of the squared errors to those of the
        mean of the truth; ``bias``, the mean error; with standard deviations ``within_sd`` and ``within_2_sd``, the
        shares of errors within one and two of them (0.683 and 0.954 if they are right), and ``sd_ratio``, the root mean
        square of error / SD (1 if they are right).
    """
    error = predicted - true
    spread = float(np.square(true - true.mean()).sum())
    scores = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": 1 - float(np.square(error).sum()) / spread if spread > 0 else float("nan"),
        "bias": float(error.mean()),
    }
    if sd is not None:
        ratio = np.abs(error) / np.maximum(sd, 1e-12)
        scores |= {
            "within_sd": float((ratio <= 1).mean()),
            "within_2_sd": float((ratio <= 2).mean()),
            "sd_ratio": float(np.sqrt(np.square(ratio).mean())),
        }
    return scores


def classification_scores(probabilities: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Score predicted classes.

    Args:
        probabilities: Probabilities (n, classes).
        true: Numbers of the true classes (n,).

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean over the classes that occur; ``auc``, the mean over the classes of
        the area under the ROC curve of each against the rest; ``ece``, the expected calibration error over ten bins of
        the probability of the predicted class.
    """
    predicted = probabilities.argmax(1)
    right = predicted == true
    classes = [c for c in range(probabilities.shape[1]) if (true == c).any()]
    areas = [roc_auc(probabilities[:, c], true == c) for c in range(probabilities.shape[1])]
    finite = [area for area in areas if np.isfinite(area)]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[true == c].mean() for c in classes])),
        "auc": float(np.mean(finite)) if finite else float("nan"),
        "ece": calibration_error(probabilities.max(1), right),
    }


def confusion_matrix(probabilities: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Count studies (true class, predicted class)."""
    count = probabilities.shape[1]
    table = np.zeros((count, count), int)
    np.add.at(table, (true, probabilities.argmax(1)), 1)
    return table


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the area under the ROC curve: the probability that a positive has a higher score than a negative.

    Args:
        scores: Scores (n,).
        positive: Which are positive (n,), bool.

    Returns:
        The area, with ties counted as one half; NaN where one of the two groups is empty.
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    count = int(positive.sum())
    others = len(scores) - count
    if not count or not others:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the false and the true positive rates for all thresholds, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.asarray(positive, bool)[order]
    last = np.append(np.diff(scores[order]) != 0, True)
    true_rate = np.cumsum(hits)[last] / max(int(hits.sum()), 1)
    false_rate = np.cumsum(~hits)[last] / max(int((~hits).sum()), 1)
    return np.append(0.0, false_rate), np.append(0.0, true_rate)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Compute the expected calibration error (Naeini et al. 2015) of probabilities (n,) of being right (n,)."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    total = 0.0
    for number in range(_BINS):
        inside = bins == number
        if inside.any():
            total += inside.mean() * abs(float(confidence[inside].mean()) - float(right[inside].mean()))
    return float(total)


def paired_interval(
    differences: Sequence[float], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean of paired differences with the limits of its bootstrap interval (percentile method).

    Args:
        differences: Difference for each study.
        level: Probability of the interval.
        resamples: Number of bootstrap samples.
        seed: Seed of the samples.
    """
    values = np.asarray(differences, float)
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
