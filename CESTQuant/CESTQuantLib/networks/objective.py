"""What a training works on and what it minimises: samples, batches of them, and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .architecture import Prediction, ReconstructionNetwork
from .settings import TrainingSettings

_LEAST_BASELINE = 0.1
"""Smallest loss of predicting the mean that is trusted: a few held-out voxels may happen to be alike."""


class SampleRows(NamedTuple):
    """Some samples of a data set.

    Attributes:
        clean: Noise-free signals, (voxel, measurement), before any L2 normalisation.
        noise_sd: Standard deviation of their noise, (voxel,).
        parameters: Tissue parameters in their own units, (voxel, path).
    """

    clean: Tensor
    noise_sd: Tensor
    parameters: Tensor


class Samples(Protocol):
    """A data set in memory (:class:`dataset.DataSet`) or on disk (:class:`shards.StoredDataSet`)."""

    def __len__(self) -> int:
        """Return the number of voxels."""

    def rows(self, index: Tensor, paths: Sequence[str]) -> SampleRows:
        """Return the voxels of an index (n,), with the entries of the tissue at the given paths."""


class Batch(NamedTuple):
    """Samples of one step.

    Attributes:
        signal: Input of the network, (voxel, measurement).
        targets: What its output is compared with: normalised parameters, (voxel, output), or in self-supervised
            training the measured signals, (voxel, measurement).
        log_rmse: Natural logarithm of the RMS difference between the signal and the true one, (voxel,); None where the
            true signal is unknown.
    """

    signal: Tensor
    targets: Tensor
    log_rmse: Tensor | None


class BatchSource(Protocol):
    """Data of a training; :class:`dataset.SimulatedBatches` is one."""

    def epoch(self, generator: torch.Generator) -> Iterable[Batch]:
        """Return the batches of one epoch; all randomness comes from ``generator``."""

    def validation(self) -> Batch | None:
        """Return held-out samples; None where there are none, so that the training loss decides on the best epoch."""


class Losses(NamedTuple):
    """Losses of one batch, scalar tensors.

    Attributes:
        minimized: Sum that the optimiser minimises.
        reported: Part that is recorded and decides on the best epoch.
    """

    minimized: Tensor
    reported: Tensor


@dataclass(frozen=True)
class Objective:
    """A loss and what to expect of it.

    Attributes:
        loss: Losses of a batch.
        baseline: Reported loss of a network that has learned nothing.
        largest_gradient: Norm to which the gradient of a step is cut; None leaves it as it is.
    """

    loss: Callable[[Batch], Losses]
    baseline: float
    largest_gradient: float | None = None


def supervised_objective(
    network: ReconstructionNetwork, settings: TrainingSettings, held_out: Batch | None
) -> Objective:
    """Return the objective of a training on samples whose true parameters are known.

    Args:
        network: Network to train.
        settings: Weights of the outputs, and whether the uncertainties are learned too.
        held_out: Held-out samples, whose targets tell how well predicting their mean would do.
    """
    weights = None if settings.weights is None else torch.tensor(settings.weights)

    def loss(batch: Batch) -> Losses:
        if settings.learn_spread:
            return training_loss(network.predict(batch.signal), batch.targets, batch.log_rmse, weights)
        mse = _weighted_mean((network(batch.signal) - batch.targets).square(), weights)
        return Losses(mse, mse)

    return Objective(loss, _loss_of_the_mean(held_out, weights))


def training_loss(
    prediction: Prediction, targets: Tensor, log_rmse: Tensor | None, weights: Tensor | None = None
) -> Losses:
    """Return the losses of a prediction.

    The reported loss is the mean squared error of the normalised parameters. To minimise it, the uncertainties are
    added: the Gaussian negative log-likelihood of the errors, which are constants to it, and the squared error of the
    logarithmic RMSE.

    Args:
        prediction: Output of the network.
        targets: True normalised parameters, (voxel, output).
        log_rmse: True logarithmic RMSE, (voxel,), or None.
        weights: Weight of every output in the mean squared error, (output,), or None.
    """
    error = prediction.mean - targets
    mse = _weighted_mean(error.square(), weights)
    variance = torch.exp(2 * prediction.log_sd)
    spread = (prediction.log_sd + 0.5 * error.detach().square() / variance).mean()
    if log_rmse is not None:
        spread = spread + (prediction.log_rmse - log_rmse).square().mean()
    return Losses(mse + spread, mse)


def _loss_of_the_mean(held_out: Batch | None, weights: Tensor | None) -> float:
    """Loss of a network that has learned nothing but the mean of the targets."""
    weight = 1.0 if weights is None else float(weights.mean())
    if held_out is None:
        return weight  # targets run from -1 to 1
    targets = held_out.targets.detach()
    mean = float(_weighted_mean((targets - targets.mean(0)).square(), weights))
    return max(mean, _LEAST_BASELINE * weight)


def _weighted_mean(squared: Tensor, weights: Tensor | None) -> Tensor:
    return (squared if weights is None else squared * weights).mean()
