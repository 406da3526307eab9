"""Loss curves of a training as a picture."""

from __future__ import annotations

from pathlib import Path

from NeuroCESTLib.core.pictures import new_figure, number_whole, save_figure

from .training import TrainingResult


def draw_training(result: TrainingResult, path: str | Path, title: str = "") -> None:
    """Draw the losses of all epochs.

    Args:
        result: Course of the training.
        path: PNG file to write.
        title: Headline.

    Raises:
        ValueError: Matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure((6, 3.6))
    axis = figure.add_subplot()
    epochs = range(1, len(result.loss) + 1)
    axis.plot(epochs, result.loss, color="#0072B2", label="training")
    if result.validation_loss:
        axis.plot(epochs, result.validation_loss, color="#D55E00", label="held out")
        axis.axvline(result.best_epoch, color="0.6", linewidth=0.8, label=f"best epoch ({result.best_epoch})")
    axis.set(xlabel="epoch", ylabel="loss", yscale="log", title=title)
    number_whole(axis.xaxis)
    axis.legend(frameon=False)
    axis.grid(alpha=0.2)
    save_figure(figure, path)
