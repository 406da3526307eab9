"""The picture of an optimised schedule: losses, the schedule before, on its way and after, and held-out estimates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .design import DesignResult, HeldOut

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
    """Write the picture (PNG); ValueError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(f"drawing '{path}' needs the package matplotlib; install it") from None
    names = list(result.evolution[0]["schedule"])
    scatter = result.optimised.held_out.quantities(protons)
    rows = 1 + len(scatter)
    figure = Figure(figsize=(12, 2.1 * (1 + len(names)) + 1.0), constrained_layout=True)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(max(rows, 1 + len(names)), 6)
    _draw_losses(figure.add_subplot(grid[0, :3]), result)
    _draw_training(figure.add_subplot(grid[0, 3:]), result)
    for row, name in enumerate(names, start=1):
        axis = figure.add_subplot(grid[row, :3])
        _draw_quantity(axis, result, name)
        if row == 1:
            axis.legend(frameon=False, fontsize=8, ncols=3)
        if row == len(names):
            axis.set_xlabel("measurement")
    height = (grid.nrows - 1) // max(1, len(scatter))
    for index, name in enumerate(scatter):
        part = slice(1 + index * height, 1 + (index + 1) * height)
        before = result.start.held_out.quantities(protons)[name]
        _draw_scatter(figure.add_subplot(grid[part, 3:]), name, before, scatter[name], result, protons)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_losses(axis, result: DesignResult) -> None:
    begin = 0
    moments = [moment for moment in result.evolution if "loss" in moment]
    for phase in dict.fromkeys(moment["phase"] for moment in moments):
        losses = [moment["loss"] for moment in moments if moment["phase"] == phase]
        axis.plot(begin + np.arange(len(losses)), losses, label="joint training" if phase == "network" else phase)
        begin += len(losses)
    if all(moment["loss"] > 0 for moment in moments):
        axis.set_yscale("log")
    axis.set(title="optimisation of the schedule", xlabel="recorded moment", ylabel="objective")
    axis.legend(frameon=False, fontsize=8)


def _draw_training(axis, result: DesignResult) -> None:
    for name, color in (("start", _BEFORE), ("optimised", _AFTER)):
        training = getattr(result, name).training
        epochs = np.arange(1, len(training.loss) + 1)
        axis.semilogy(epochs, training.loss, color=color, lw=0.8, ls=":")
        axis.semilogy(epochs, training.validation_loss, color=color, label=f"{name} schedule")
    axis.set(title="equal training afterwards (dotted: training, line: held out)", xlabel="epoch", ylabel="MSE")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=8)


def _draw_quantity(axis, result: DesignResult, name: str) -> None:
    moments = [moment["schedule"][name] for moment in result.evolution]
    step = max(1, len(moments) // _MOST_MOMENTS)
    x = np.arange(1, len(moments[0]) + 1)
    for index, values in enumerate(moments[::step]):
        axis.plot(x, values, color=_AFTER, alpha=0.05 + 0.25 * index * step / len(moments), lw=0.7)
    before, after = (getattr(r.protocol, name).numpy() for r in (result.start, result.optimised))
    axis.plot(x, before, "o-", color=_BEFORE, ms=3, label="start")
    axis.plot(x, after, "o-", color=_AFTER, ms=3, label="optimised")
    axis.plot([], [], color=_AFTER, alpha=0.3, lw=0.7, label="on the way")
    axis.set_ylabel(_LABELS[name])


def _draw_scatter(axis, name: str, before, after, result: DesignResult, protons: Mapping[str, float]) -> None:
    label = name.replace("_", " ").replace(" mM", " (mM)").replace("k Hz", "exchange rate (Hz)").replace(".", " ")
    for (truth, estimate), color, held_out, what in (
        (before, _BEFORE, result.start.held_out, "start"),
        (after, _AFTER, result.optimised.held_out, "optimised"),
    ):
        text = f"{what}: {_words(held_out, name, protons)}"
        axis.plot(truth[:_MOST_POINTS], estimate[:_MOST_POINTS], ".", color=color, ms=1.5, label=text)
    ends = [float(after[0].min()), float(after[0].max())]
    axis.plot(ends, ends, color="k", lw=0.8)
    axis.set(xlabel=f"true {label}", ylabel="estimate, held out")
    axis.legend(frameon=False, fontsize=8, markerscale=5, loc="upper left")


def _words(held_out: HeldOut, name: str, protons: Mapping[str, float]) -> str:
    errors = held_out.errors(protons)[name]
    return f"MAE {errors['mae']:.3g}, r = {errors['correlation']:.3f}"
