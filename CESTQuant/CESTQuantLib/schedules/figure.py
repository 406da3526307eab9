"""Picture of an optimised schedule: losses, the schedule before, during and after, and held-out estimates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from NeuroCESTLib.core.pictures import new_figure, number_whole, save_figure

from .design import JOINT_TRAINING
from .evaluation import EvaluatedSchedule
from .optimization import DesignResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    "offsets_ppm": "offset (ppm)",
    "b1_uT": "B1 (µT)",
    "saturation_time_s": "saturation (s)",
    "recovery_time_s": "recovery (s)",
    "readout_flip_angle_deg": "flip angle (deg)",
}
_BEFORE, _AFTER = "0.6", "C0"
_MOST_POINTS = 2000
_MOST_MOMENTS = 25


def draw_design(result: DesignResult, path: str | Path, protons: Mapping[str, float], title: str = "") -> None:
    """Draw an optimised schedule.

    Args:
        result: Result of the optimisation.
        path: PNG file to write.
        protons: Exchanging protons per molecule by pool, whose fractions are shown as concentrations.
        title: Headline.

    Raises:
        ValueError: Matplotlib is not installed, or the file cannot be written.
    """
    trained = list(result.evolution[0]["schedule"])
    quantities = list(result.optimized.held_out.quantities(protons))
    figure = new_figure((12, 2.1 * (1 + len(trained)) + 1.0), title)
    grid = figure.add_gridspec(1 + max(len(quantities), len(trained)), 6)
    _draw_losses(figure.add_subplot(grid[0, :3]), result)
    _draw_training(figure.add_subplot(grid[0, 3:]), result)
    for row, name in enumerate(trained, start=1):
        axis = figure.add_subplot(grid[row, :3])
        _draw_quantity(axis, result, name)
        if row == 1:
            axis.legend(frameon=False, fontsize=8, ncols=3)
        if row == len(trained):
            axis.set_xlabel("measurement")
    height = (grid.nrows - 1) // max(1, len(quantities))
    for index, name in enumerate(quantities):
        part = slice(1 + index * height, 1 + (index + 1) * height)
        _draw_scatter(figure.add_subplot(grid[part, 3:]), name, result, protons)
    save_figure(figure, path)


def _draw_losses(axis: Axes, result: DesignResult) -> None:
    begin = 0
    moments = [moment for moment in result.evolution if "loss" in moment]
    for phase in dict.fromkeys(moment["phase"] for moment in moments):
        losses = [moment["loss"] for moment in moments if moment["phase"] == phase]
        label = "joint training" if phase == JOINT_TRAINING else phase
        axis.plot(begin + np.arange(len(losses)), losses, label=label)
        begin += len(losses)
    if all(moment["loss"] > 0 for moment in moments):
        axis.set_yscale("log")
    axis.set(title="optimisation of the schedule", xlabel="recorded moment", ylabel="objective")
    axis.legend(frameon=False, fontsize=8)


def _draw_training(axis: Axes, result: DesignResult) -> None:
    for name, schedule, color in _both(result):
        training = schedule.training
        epochs = np.arange(1, len(training.loss) + 1)
        axis.semilogy(epochs, training.loss, color=color, lw=0.8, ls=":")
        axis.semilogy(epochs, training.validation_loss, color=color, label=f"{name} schedule")
    axis.set(title="equal training afterwards (dotted: training, line: held out)", xlabel="epoch", ylabel="MSE")
    number_whole(axis.xaxis)
    axis.legend(frameon=False, fontsize=8)


def _draw_quantity(axis: Axes, result: DesignResult, name: str) -> None:
    moments = [moment["schedule"][name] for moment in result.evolution]
    step = max(1, len(moments) // _MOST_MOMENTS)
    measurements = np.arange(1, len(moments[0]) + 1)
    for index, values in enumerate(moments[::step]):
        alpha = 0.05 + 0.25 * index * step / len(moments)
        axis.plot(measurements, values, color=_AFTER, alpha=alpha, lw=0.7)
    for label, schedule, color in _both(result):
        axis.plot(measurements, getattr(schedule.protocol, name).numpy(), "o-", color=color, ms=3, label=label)
    axis.plot([], [], color=_AFTER, alpha=0.3, lw=0.7, label="in between")
    axis.set_ylabel(_LABELS[name])


def _draw_scatter(axis: Axes, name: str, result: DesignResult, protons: Mapping[str, float]) -> None:
    for what, schedule, color in _both(result):
        truth, estimate = schedule.held_out.quantities(protons)[name]
        errors = schedule.held_out.errors(protons)[name]
        label = f"{what}: MAE {errors['mae']:.3g}, r = {errors['correlation']:.3f}"
        axis.plot(truth[:_MOST_POINTS], estimate[:_MOST_POINTS], ".", color=color, ms=1.5, label=label)
    ends = [float(truth.min()), float(truth.max())]
    axis.plot(ends, ends, color="k", lw=0.8)
    words = name.replace("_", " ").replace(" mM", " (mM)").replace("k Hz", "exchange rate (Hz)").replace(".", " ")
    axis.set(xlabel=f"true {words}", ylabel="estimate, held out")
    axis.legend(frameon=False, fontsize=8, markerscale=5, loc="upper left")


def _both(result: DesignResult) -> tuple[tuple[str, EvaluatedSchedule, str], ...]:
    """Name, schedule and colour of the start and of the result."""
    return ("start", result.start, _BEFORE), ("optimised", result.optimized, _AFTER)
