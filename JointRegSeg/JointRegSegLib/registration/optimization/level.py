"""One level of the refinement: images and velocity of one resolution, and their optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deformation import resize_displacement, warp
from ..refinement_settings import RefinementLevel, RefinementSettings
from ..similarity import Similarity, find_similarity
from .adam import Adam
from .both_ways import BothWays
from .demons_gradients import flow
from .time_limit import TimeLimit

_REMASK = 10
"""Number of iterations after which the moving mask is warped again; convergence is judged over as many."""
_SLOWDOWN = 0.8
"""Fraction by which the learning rate falls, linearly, in the course of a level."""
_SMALL_STEP = 0.25
"""Largest velocity in voxels that the first step of the integration may cover."""


@dataclass(frozen=True)
class Level:
    """Both images of one level on its grid, and the shape of the grid of its velocity.

    Attributes:
        images: Fixed and moving image.
        valid: Voxels of the fixed and of the moving image without tumour; None if there is none.
        tumors: Shares of tumour in the fixed and in the moving image; None if there is none.
        grid: Shape of the grid of the velocity.
    """

    images: tuple[Tensor, Tensor]
    valid: tuple[Tensor | None, Tensor | None]
    tumors: tuple[Tensor | None, Tensor | None]
    grid: tuple[int, int, int]
    level: RefinementLevel
    settings: RefinementSettings
    measure: Similarity

    @classmethod
    def of(
        cls,
        images: tuple[Tensor, Tensor],
        tumors: tuple[Tensor | None, Tensor | None],
        level: RefinementLevel,
        settings: RefinementSettings,
    ) -> Level:
        full = images[0].shape[2:]
        shape = coarser(full, level.image_stride)
        fixed, moving = (None if tumor is None else _averaged(tumor, shape) for tumor in tumors)
        return cls(
            (_averaged(images[0], shape), _averaged(images[1], shape)),
            (_without(fixed), _without(moving)),
            (fixed, moving),
            coarser(full, level.velocity_stride),
            level,
            settings,
            find_similarity(settings.similarity),
        )

    def optimize(
        self, velocity: Tensor, iterations: int, limit: TimeLimit, report: Callable[[int, float], None]
    ) -> Tensor:
        """Return the best velocity (1, 3, d, h, w) found within a number of iterations and a time limit."""
        settings = self.settings
        velocity = resize_displacement(velocity, self.grid).clone().requires_grad_()
        best, least = velocity.detach().clone(), math.inf
        optimizer = Adam(velocity)
        # The objective is a mean. Times the number of voxels, its derivatives do not depend on the size of the grid.
        voxels = velocity[0, 0].numel()
        history: list[float] = []
        compared: BothWays | None = None
        masked = any(tumor is not None for tumor in self.tumors)
        for iteration in range(iterations):
            if limit.reached():
                break
            if compared is None or (masked and iteration % _REMASK == 0):
                compared, least = self._comparisons(velocity.detach()), math.inf
            with torch.enable_grad():
                similarity, penalty = self._terms(velocity, compared)
                velocity.grad = None
                (voxels * compared.share * (penalty - self.measure.gain * similarity)).backward()
            history.append(float(penalty.detach()) - self.measure.gain * compared.mean_of_latest)
            if history[-1] < least:  # Adam may also step away from the optimum, even from a perfect start
                best, least = velocity.detach().clone(), history[-1]
            optimizer.step(settings.learning_rate * (1 - _SLOWDOWN * iteration / iterations))
            report(iteration + 1, compared.mean_of_latest)
            if iteration >= 2 * _REMASK and min(history[:-_REMASK]) - min(history[-_REMASK:]) < settings.tolerance:
                break
        if compared is not None:  # the last step has not been judged yet
            with torch.no_grad():
                _, penalty = self._terms(velocity, compared)
            if float(penalty) - self.measure.gain * compared.mean_of_latest < least:
                best = velocity.detach()
        return best

    def _terms(self, velocity: Tensor, compared: BothWays) -> tuple[Tensor, Tensor]:
        """Compute the similarity of the images the way whose turn it is, and the penalty on the velocity."""
        way = compared.next_way()
        similarity = compared.similarity(way, self._displacement(velocity if way == 0 else -velocity))
        return similarity, self.settings.regularisation * _roughness(velocity, self.settings.regulariser)

    def more_alike(self, velocity: Tensor, start: Tensor) -> bool:
        """Tell whether the images are more alike after one deformation than after another, without the tumours."""
        found, begin = (resize_displacement(v, self.grid) for v in (velocity, start))
        compared = self._comparisons(found)
        gained = compared.mean_of_latest
        with torch.no_grad():
            compared.measure(self._displacement(begin), self._displacement(-begin))
        return gained > compared.mean_of_latest

    def _displacement(self, velocity: Tensor) -> Tensor:
        """Integrate a velocity to a displacement on the grid of the images, in fewer steps where it is small."""
        largest = float(velocity.detach().abs().amax())
        needed = max(2, math.ceil(math.log2(max(largest, 1e-6) / _SMALL_STEP)))
        steps = min(self.settings.integration_steps, needed)
        return resize_displacement(flow(velocity, steps), self.images[0].shape[2:])

    def _comparisons(self, velocity: Tensor) -> BothWays:
        """Prepare each image, leaving out its own tumour and that of the other study as currently warped."""
        with torch.no_grad():
            displacements = self._displacement(velocity), self._displacement(-velocity)
            prepared = []
            for own, displacement in enumerate(displacements):
                valid, tumor = self.valid[own], self.tumors[1 - own]
                if tumor is not None:
                    healthy = (warp(tumor, displacement) < 0.25).float()
                    valid = healthy if valid is None else valid * healthy
                level = self.level
                prepared.append(self.measure.prepare(self.images[own], valid, level.window, level.window_stride))
            compared = BothWays(self.images, (prepared[0], prepared[1]), self.measure.both_ways)
            compared.measure(*displacements)
        return compared


def _roughness(velocity: Tensor, regularizer: str) -> Tensor:
    """Compute half the mean squared first ('diffusion') or second ('curvature') derivatives, in voxels of its grid."""
    total = velocity.new_zeros(())
    for axis in (2, 3, 4):
        if regularizer == "diffusion":
            total = total + velocity.diff(dim=axis).square().sum()
            continue
        once = velocity.diff(dim=axis)
        total = total + once.diff(dim=axis).square().sum()
        for other in range(axis + 1, 5):
            total = total + 2 * once.diff(dim=other).square().sum()
    return total / (2 * velocity[0, 0].numel())


def coarser(shape: torch.Size, stride: int) -> tuple[int, int, int]:
    """Return the shape of a grid over the same space whose voxels are ``stride`` times as long."""
    depth, height, width = (max(1, round(n / stride)) for n in shape)
    return depth, height, width


def _averaged(image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Average an image over blocks, to a grid of ``shape``."""
    return image if shape == image.shape[2:] else F.adaptive_avg_pool3d(image, shape)


def _without(tumor: Tensor | None) -> Tensor | None:
    """Return 1 for voxels without tumour and 0 for the others."""
    return None if tumor is None else (tumor == 0).float()
