"""Loss curves of a training as a picture."""

from __future__ import annotations

from pathlib import Path

from .training import TrainingResult


def draw_training(result: TrainingResult, path: str | Path, title: str = "") -> None:
    """Write the losses by epoch (PNG); ValueError where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("pictures need matplotlib, which is not installed: install it with pip") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    try:
        epochs = range(1, len(result.loss) + 1)
        axis.plot(epochs, result.loss, color="#0072B2", label="training")
        if result.validation_loss:
            axis.plot(epochs, result.validation_loss, color="#D55E00", label="held out")
            axis.axvline(result.best_epoch, color="0.6", linewidth=0.8, label=f"best epoch ({result.best_epoch})")
        axis.set(xlabel="epoch", ylabel="loss", yscale="log", title=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
        axis.grid(alpha=0.2)
        figure.savefig(path, dpi=150, format="png")
    finally:
        pyplot.close(figure)
