"""Pictures of the predictions of tasks on single studies, one row of panels for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.core.pictures import save_figure, write_letters

from ..images.labels import UNLABELED
from ..images.tissues import tissue
from ..metrics.prediction import regression_scores, roc_auc, roc_curve
from ..tasks.autoencoder import Autoencoder
from ..tasks.classification import Classification
from ..tasks.regression import Regression
from ..tasks.study_task import StudyTask
from ..tasks.super_resolution import SuperResolution
from ..tasks.tissue import Tissue
from .canvas import optional_figure
from .slices import axial, radiological

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE = "#0072B2"
_COLUMNS = 3


@dataclass(frozen=True)
class Shown:
    """A study that a picture shows.

    Attributes:
        name: Name of the study.
        image: One of its images (D, H, W).
        prediction: Compact prediction of the task.
        target: Encoded target.
    """

    name: str
    image: np.ndarray
    prediction: Any
    target: Any


def draw_predictions(
    tasks: Sequence[StudyTask],
    found: Mapping[str, Sequence[tuple[Any, Any]]],
    shown: Mapping[str, Sequence[Shown]],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw predictions and truth of all tasks.

    Nothing is drawn without matplotlib (with a warning).

    Args:
        tasks: The tasks.
        found: Predictions and encoded targets by the name of the task.
        shown: Studies whose maps are drawn, by the name of the task.
        path: PNG file to write.
        title: Title of the figure.

    Raises:
        ValueError: The file cannot be written.
    """
    drawn = [task for task in tasks if found.get(task.name)]
    figure = optional_figure((3.6 * _COLUMNS, 3.5 * max(len(drawn), 1)))
    if figure is None or not drawn:
        return
    axes = figure.subplots(len(drawn), _COLUMNS, squeeze=False)
    for row, task in zip(axes, drawn, strict=True):
        draw = next((_DRAWERS[kind] for kind in type(task).__mro__ if kind in _DRAWERS), _draw_quality)
        draw(task, found[task.name], shown.get(task.name, ()), row)
    figure.suptitle(title)
    save_figure(figure, path)


def _draw_quality(task: Any, found: Sequence[tuple[Any, Any]], shown: Sequence[Shown], row: Sequence[Axes]) -> None:
    """Draw how well the studies are predicted, for tasks without a drawing of their own."""
    values = np.array([task.quality(prediction, target, 1) for prediction, target in found], float)
    row[0].hist(values[np.isfinite(values)], bins=min(20, max(5, len(found) // 3)), color=_BLUE)
    row[0].set(xlabel=task.quality_name or "quality", ylabel="studies", title=task.name)
    for axis in row[1:]:
        axis.set_axis_off()


def _draw_regression(task: Any, found: Sequence[tuple[Any, Any]], shown: Sequence[Shown], row: Sequence[Axes]) -> None:
    """Draw predicted over true values with error bars, the errors, and the coverage of the intervals."""
    value = np.array([p["value"] for p, _ in found])
    sd = np.array([p["sd"] for p, _ in found])
    true = np.array([t for _, t in found], float)
    scores = regression_scores(value, true, sd)
    limits = [min(true.min(), value.min()), max(true.max(), value.max())]
    row[0].errorbar(true, value, yerr=sd, fmt="o", ms=3, lw=0.6, color=_BLUE, ecolor="0.7")
    row[0].plot(limits, limits, color="0.4", lw=0.8)
    row[0].set(
        xlabel=f"true {task.column}", ylabel=f"predicted {task.column}", title=f"{task.column}: MAE {scores['mae']:.3g}"
    )
    row[1].hist(value - true, bins=min(20, max(5, len(found) // 3)), color=_BLUE)
    row[1].set(xlabel="predicted - true", ylabel="studies", title=f"{task.column}: R² {scores['r2']:.2f}")
    ratio, expected = np.abs(value - true) / sd, np.linspace(0.05, 0.95, 19)
    normal = np.random.default_rng(0).standard_normal(20_000)
    row[2].plot(expected, [(ratio <= np.quantile(np.abs(normal), q)).mean() for q in expected], "-o", ms=3, color=_BLUE)
    row[2].plot([0, 1], [0, 1], color="0.4", lw=0.8)
    row[2].set(
        xlabel="probability of the interval", ylabel="share of studies inside", title=f"{task.column}: calibration"
    )


def _draw_classes(task: Any, found: Sequence[tuple[Any, Any]], shown: Sequence[Shown], row: Sequence[Axes]) -> None:
    """Draw the ROC curves, the reliability of the probabilities, and the confusion matrix."""
    probabilities, true = np.array([p for p, _ in found]), np.array([t for _, t in found])
    numbers = [1] if len(task.classes) == 2 else range(len(task.classes))
    for number in numbers:
        if 0 < (true == number).sum() < len(true):
            area = roc_auc(probabilities[:, number], true == number)
            row[0].plot(
                *roc_curve(probabilities[:, number], true == number), label=f"{task.classes[number]}: {area:.2f}"
            )
    row[0].plot([0, 1], [0, 1], color="0.6", lw=0.8)
    row[0].set(xlabel="false positive rate", ylabel="true positive rate", title=f"{task.column}: ROC (area)")
    if row[0].get_legend_handles_labels()[0]:
        row[0].legend(frameon=False)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == true
    bins = np.minimum((confidence * 10).astype(int), 9)
    used = [b for b in range(10) if (bins == b).any()]
    row[1].plot(
        [confidence[bins == b].mean() for b in used], [right[bins == b].mean() for b in used], "-o", color=_BLUE
    )
    row[1].plot([0, 1], [0, 1], color="0.6", lw=0.8)
    row[1].set(
        xlabel="predicted probability",
        ylabel="share that is right",
        title=f"{task.column}: calibration",
        xlim=(0, 1.03),
        ylim=(0, 1.03),
    )
    table = np.zeros((len(task.classes),) * 2, int)
    np.add.at(table, (true, probabilities.argmax(1)), 1)
    row[2].imshow(table, cmap="Blues")
    for (i, j), count in np.ndenumerate(table):
        row[2].text(j, i, str(count), ha="center", va="center", color="white" if 2 * count > table.max() else "black")
    ticks = range(len(task.classes))
    row[2].set(xlabel="predicted", ylabel="true", title=f"{task.column}: {right.mean():.0%} right")
    row[2].set_xticks(ticks, task.classes)
    row[2].set_yticks(ticks, task.classes)


def _draw_tissue(task: Any, found: Sequence[tuple[Any, Any]], shown: Sequence[Shown], row: Sequence[Axes]) -> None:
    """Draw image, truth and prediction of one study in the axial slice with the most labels."""
    if not shown:
        return
    study = shown[0]
    truth = study.target.cpu().numpy() if hasattr(study.target, "cpu") else np.asarray(study.target)
    known = np.where(truth == UNLABELED, 0, truth)
    level = int((known > 0).sum((1, 2)).argmax())
    row[0].imshow(axial(study.image, level), cmap="gray")
    for axis, values in ((row[1], known), (row[2], study.prediction)):
        axis.imshow(label_colors(task, axial(values, level)))
    for axis, text in zip(
        row, (study.name, "true", f"predicted, Dice {task.quality(study.prediction, truth, 1):.2f}"), strict=True
    ):
        axis.set_title(text)
        write_letters(axis, ("R", "L", "A", "P"))
        axis.set_axis_off()
    from matplotlib.patches import Patch

    seen = {*known[level].flat, *study.prediction[level].flat}
    names = [name for number, name in enumerate(task.classes, 1) if number in seen]
    patches = [Patch(color=tissue(name).color, label=tissue(name).title) for name in names]
    row[1].legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, fontsize=7)


def _draw_images(task: Any, found: Sequence[tuple[Any, Any]], shown: Sequence[Shown], row: Sequence[Axes]) -> None:
    """Draw the coronal slices of one study that its compact prediction holds, in the brain alone."""
    if not shown:
        return
    study = shown[0]
    slices = study.prediction["slices"]
    true = slices["true"]
    low, high = float(true.min()), float(np.percentile(true, 99.9))
    for axis, (name, values) in zip(row, slices.items(), strict=True):
        if name == "anomaly":
            axis.imshow(radiological(values), cmap="inferno")
        else:
            brain = radiological(np.where(true > low, values, low))
            axis.imshow(brain, cmap="gray", vmin=low, vmax=high)
        reached = f", {study.prediction['psnr']:.1f} dB" if name in ("predicted", "reconstructed") else ""
        axis.set_title(f"{study.name}: {name}{reached}" if axis is row[0] else f"{name}{reached}")
        write_letters(axis, ("R", "L", "S", "I"))
        axis.set_axis_off()


def label_colors(task: Tissue, labels: np.ndarray) -> np.ndarray:
    """Return the colours (…, 3) of labels; the background is black."""
    table = np.array([(0.0, 0.0, 0.0), *(tissue(name).color for name in task.classes)])
    return table[np.minimum(labels, len(table) - 1)]


_DRAWERS: dict[type, Callable[[Any, Sequence[tuple[Any, Any]], Sequence[Shown], Sequence[Any]], None]] = {
    Regression: _draw_regression,
    Classification: _draw_classes,
    Tissue: _draw_tissue,
    SuperResolution: _draw_images,
    Autoencoder: _draw_images,
}
