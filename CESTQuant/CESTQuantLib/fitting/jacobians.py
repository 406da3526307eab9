"""Jacobians for models that have only a prediction, by finite differences or by automatic differentiation.

Both rely on the prediction of a voxel depending on no other voxel's parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .problem import Model

PredictionFunction = Callable[..., Tensor]
"""``(parameters (p, voxel), *arguments (.., voxel)) -> prediction (m, voxel)``."""


def finite_difference_model(function: PredictionFunction, scale: Tensor | None = None, central: bool = False) -> Model:
    """Give a prediction a Jacobian by forward (or central) differences, all evaluated in one call.

    Args:
        function: The prediction; it is called with 1 + p (central: 1 + 2 p) times the voxels.
        scale: (p,) typical sizes of the parameters. The step is sqrt(eps) (central: cbrt(eps)) times the larger of the
            magnitude of the parameter and a hundredth of the scale. Without a scale the step is relative to the
            magnitude of the parameter, or to one where that is zero.
        central: Whether to take second-order differences, for float32 or strongly curved models.

    Returns:
        A model for ``levenberg_marquardt``.
    """

    def model(parameters: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        count, voxels = parameters.shape
        eps = torch.finfo(parameters.dtype).eps
        size = parameters.abs()
        if scale is None:
            size = torch.where(size > 0, size, 1.0)
        else:
            size = torch.maximum(size, 0.01 * scale.to(parameters).unsqueeze(1))
        step = size * (eps ** (1 / 3) if central else eps**0.5)
        moves = torch.diag_embed(step.T).permute(1, 2, 0)  # (moved parameter, parameter, voxel)
        points = [parameters.unsqueeze(0), parameters + moves]
        if central:
            points.append(parameters - moves)
        batch = torch.cat(points)  # (copy, parameter, voxel)
        copies = len(batch)
        tiled = [argument.repeat(*(1,) * (argument.ndim - 1), copies) for argument in arguments]
        values = function(batch.transpose(0, 1).reshape(count, copies * voxels), *tiled)
        values = values.unflatten(-1, (copies, voxels)).transpose(0, 1)  # (copy, measurement, voxel)
        # Divide by the step really taken, after rounding of the parameter.
        ahead = torch.diagonal(batch[1 : count + 1]).T
        behind = torch.diagonal(batch[count + 1 :]).T if central else parameters
        base = values[count + 1 :] if central else values[:1]
        return values[0], (values[1 : count + 1] - base) / (ahead - behind).unsqueeze(1)

    return model


def autograd_model(function: PredictionFunction) -> Model:
    """Give a differentiable prediction its exact Jacobian.

    Columns come from a double backward pass: the derivative of the vector-Jacobian product with respect to its vector.
    That takes p passes whatever the number of measurements, and is safe in the threads of the fit.

    Args:
        function: The prediction, differentiable twice by autograd.

    Returns:
        A model for ``levenberg_marquardt``.
    """

    def model(parameters: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            variables = parameters.detach().requires_grad_()
            prediction = function(variables, *arguments)
            cotangent = torch.zeros_like(prediction, requires_grad=True)
            (pulled_back,) = torch.autograd.grad(prediction, variables, cotangent, create_graph=True)
            columns = []
            for row in range(len(parameters)):
                direction = torch.zeros_like(pulled_back)
                direction[row] = 1
                (column,) = torch.autograd.grad(pulled_back, cotangent, direction, retain_graph=True)
                columns.append(column)
        return prediction.detach(), torch.stack(columns)

    return model
