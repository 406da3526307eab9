"""Registration of one pair by optimising its own deformation, with the tumour masked out.

The deformation is the flow of a stationary velocity on a coarse grid, so it is smooth and has an inverse, that of the
negative velocity. From coarse to fine images Adam raises the local correlation of the fixed and the warped moving image
and keeps the velocity smooth. Where either study has tumour there is nothing to be matched: those voxels are left out
of the local statistics, and the deformation there continues that of the surroundings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from .deformation import (
    Deformation,
    compose,
    folded_fraction,
    integrate_velocity,
    invert_displacement,
    resize_displacement,
    warp,
)
from .refinement_settings import RefinementLevel, RefinementSettings
from .separable import smooth
from .similarity import LocalStatistics

_REMASK = 10
"""Iterations after which the moving image's mask is warped anew, and over which a level's gain is judged."""
_LEAST_POINTS = 4
"""Least voxels of an averaged image along an axis; levels that would have fewer are left out."""
_SLOWDOWN = 0.8
"""Share of the learning rate that is gone at the end of a level."""
_SMALL_STEP = 0.25
"""Velocity, in voxels, that one step of the flow may cover."""
_TENSORS = ("fixed", "moving", "fixed_mask", "moving_mask")


def refine(
    fixed: Tensor,
    moving: Tensor,
    start: Deformation | None = None,
    fixed_mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    settings: RefinementSettings | None = None,
    progress: Progress | None = None,
) -> Deformation:
    """The deformation of ``moving`` to ``fixed``, (1, C, D, H, W) each, that an optimisation from ``start`` leads to.

    start: of a network, or None for identity. If it has a velocity, that is what is optimised; a displacement alone is
    kept and followed by the flow that is found. fixed_mask, moving_mask: (1, 1, D, H, W), non-zero in tumour. progress:
    told the fraction done; may raise to cancel. Channels that are constant in either image do not count. The result has
    displacement, inverse and, unless it started from a displacement alone, velocity; none of them folds. Raises
    ValueError where the images cannot be compared.
    """
    settings, report = settings or RefinementSettings(), progress or (lambda fraction, message: None)
    _check(fixed, moving, start, fixed_mask, moving_mask)
    with torch.inference_mode(False), torch.autocast(fixed.device.type, enabled=False):
        # tensors made in inference mode cannot take part in a graph
        fixed, moving = (image.detach().float().clone() for image in (fixed, moving))
        fixed_tumor, moving_tumor = (_dilated(m, settings.mask_dilation) for m in (fixed_mask, moving_mask))
        first, velocity = _started(start, fixed)
        if first is not None:
            moving = warp(moving, first.displacement)
            moving_tumor = None if moving_tumor is None else warp(moving_tumor, first.displacement)
        levels = _usable(settings, fixed.shape[2:])
        planned = sum(settings.on_level(level) for level in levels)
        deadline = math.inf if settings.time_limit_s is None else time.perf_counter() + settings.time_limit_s
        done = 0
        for number, level in enumerate(levels, 1):
            images = _Level.of(fixed, moving, fixed_tumor, moving_tumor, level)
            before = done

            def told(iteration: int, similarity: float, number: int = number, before: int = before) -> None:
                message = f"deformation, level {number} of {len(levels)}: correlation {similarity:.3f}"
                report((before + iteration) / max(planned, 1), message)

            velocity = images.optimised(velocity, settings, settings.on_level(level), deadline, told)
            done += settings.on_level(level)
        refined = _unfolded(velocity, fixed.shape[2:], settings.integration_steps)
        result = refined if first is None else _followed_by(refined, first)
    report(1.0, "deformation found")
    return result


@dataclass(frozen=True)
class _Level:
    """The images of one level, on its grid, and the grid of its velocity."""

    fixed: Tensor
    moving: Tensor
    fixed_valid: Tensor | None
    moving_tumor: Tensor | None
    grid: tuple[int, ...]
    settings: RefinementLevel

    @classmethod
    def of(
        cls,
        fixed: Tensor,
        moving: Tensor,
        fixed_tumor: Tensor | None,
        moving_tumor: Tensor | None,
        level: RefinementLevel,
    ) -> _Level:
        shape = _coarser(fixed.shape[2:], level.image_stride)

        def averaged(image: Tensor | None) -> Tensor | None:
            return image if image is None or shape == image.shape[2:] else F.adaptive_avg_pool3d(image, shape)

        fixed_share = averaged(fixed_tumor)
        return cls(
            averaged(fixed),
            averaged(moving),
            None if fixed_share is None else (fixed_share == 0).float(),
            averaged(moving_tumor),
            _coarser(fixed.shape[2:], level.velocity_stride),
            level,
        )

    def optimised(
        self,
        velocity: Tensor,
        settings: RefinementSettings,
        iterations: int,
        deadline: float,
        report: Callable[[int, float], None],
    ) -> Tensor:
        """The velocity (1, 3, d, h, w) after at most so many iterations."""
        velocity = resize_displacement(velocity, self.grid).clone().requires_grad_()
        best, least = velocity.detach().clone(), math.inf
        optimiser = torch.optim.Adam([velocity], lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-4)
        voxels = velocity[0, 0].numel()  # the objective is a mean: times their number, derivatives are those of a voxel
        history: list[float] = []
        statistics = None
        for iteration in range(iterations):
            if time.perf_counter() > deadline:
                break
            with torch.enable_grad():
                displacement = self._displacement(velocity, settings.integration_steps)
                if statistics is None or (self.moving_tumor is not None and iteration % _REMASK == 0):
                    statistics, least = self._statistics(displacement.detach()), math.inf
                    share = max(statistics.structured_share, 1e-3)
                similarity = statistics.correlation(warp(self.moving, displacement)) / share
                objective = settings.regularisation * _roughness(velocity, settings.regulariser) - similarity
                optimiser.zero_grad()
                (voxels * share * objective).backward()
            history.append(float(objective.detach()))
            if history[-1] < least:  # steps of Adam may lead away again, even from a perfect start
                best, least = velocity.detach().clone(), history[-1]
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * (1 - _SLOWDOWN * iteration / iterations)
            optimiser.step()
            report(iteration + 1, float(similarity.detach()))
            if iteration >= 2 * _REMASK and min(history[:-_REMASK]) - min(history[-_REMASK:]) < settings.tolerance:
                break
        return best

    def _displacement(self, velocity: Tensor, most_steps: int) -> Tensor:
        """On the grid of the images; fewer squarings where the velocity is small."""
        largest = float(velocity.detach().abs().amax())
        steps = min(most_steps, max(2, math.ceil(math.log2(max(largest, 1e-6) / _SMALL_STEP))))
        return resize_displacement(integrate_velocity(velocity, steps), self.fixed.shape[2:])

    def _statistics(self, displacement: Tensor) -> LocalStatistics:
        """Of the fixed image, without the tumour of both."""
        valid = self.fixed_valid
        if self.moving_tumor is not None:
            free = (warp(self.moving_tumor, displacement) < 0.25).float()
            valid = free if valid is None else valid * free
        return LocalStatistics.of(self.fixed, self.settings.window, valid, self.settings.window_stride)


def _roughness(velocity: Tensor, regulariser: str) -> Tensor:
    """Half the mean squared first ('diffusion') or second ('curvature') derivatives, in voxels of its grid."""
    total = velocity.new_zeros(())
    for axis in (2, 3, 4):
        if regulariser == "diffusion":
            total = total + velocity.diff(dim=axis).square().sum()
            continue
        once = velocity.diff(dim=axis)
        total = total + once.diff(dim=axis).square().sum()
        for other in range(axis + 1, 5):
            total = total + 2 * once.diff(dim=other).square().sum()
    return total / (2 * velocity[0, 0].numel())


def _unfolded(velocity: Tensor, shape: torch.Size, steps: int) -> Deformation:
    """The flow of a velocity and its inverse on the full grid, integrated on half of it, where they agree better.

    Where the sampled map folds, as that of a very uneven velocity may, the velocity is smoothed until it does not.
    """
    for _ in range(20):
        half = [max(pair) for pair in zip(_coarser(shape, 2), velocity.shape[2:], strict=True)]
        finer = resize_displacement(velocity, half)
        forward = resize_displacement(integrate_velocity(finer, steps), shape)
        backward = resize_displacement(integrate_velocity(-finer, steps), shape)
        if min(shape) < 2 or max(folded_fraction(forward), folded_fraction(backward)) == 0:
            break
        velocity = smooth(velocity, 0.7)
    return Deformation(forward, backward, velocity)


def _started(start: Deformation | None, like: Tensor) -> tuple[Deformation | None, Tensor]:
    """A displacement to be kept, if the start is one without a velocity, and the velocity to begin with."""
    nothing = like.new_zeros((1, 3, *_coarser(like.shape[2:], 8)))
    if start is None:
        return None, nothing
    if start.velocity is not None:
        return None, start.velocity.detach().float().clone()
    displacement = start.displacement.detach().float().clone()
    inverse = invert_displacement(displacement) if start.inverse is None else start.inverse.detach().float().clone()
    return Deformation(displacement, inverse), nothing


def _followed_by(refined: Deformation, first: Deformation) -> Deformation:
    """x ↦ first(refined(x)), since the moving image had been warped by ``first``, and its inverse."""
    forward = compose(refined.displacement, first.displacement)
    return Deformation(forward, compose(first.inverse, refined.inverse))


def _usable(settings: RefinementSettings, shape: torch.Size) -> list[RefinementLevel]:
    """The levels on which images of this size still have voxels enough; of small images at least the finest."""
    levels = [level for level in settings.levels if min(shape) // level.image_stride >= _LEAST_POINTS]
    return levels or [min(settings.levels, key=lambda level: level.image_stride)]


def _coarser(shape: torch.Size, stride: int) -> tuple[int, ...]:
    return tuple(max(1, round(n / stride)) for n in shape)


def _dilated(mask: Tensor | None, voxels: int) -> Tensor | None:
    """1 within ``voxels`` of the mask along the axes, 0 elsewhere; None for an empty one."""
    if mask is None or not bool((mask != 0).any()):
        return None
    grown = (mask != 0).float()
    for _ in range(voxels):  # a cross at a time: about a ball in the end
        grown = torch.stack(
            [F.max_pool3d(grown, size, 1, tuple(n // 2 for n in size)) for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3))]
        ).amax(0)
    return grown


def _check(
    fixed: Tensor, moving: Tensor, start: Deformation | None, fixed_mask: Tensor | None, moving_mask: Tensor | None
) -> None:
    if fixed.ndim != 5 or len(fixed) != 1:
        raise ValueError(f"images to be registered have shape (1, C, D, H, W), not {tuple(fixed.shape)}")
    shapes = dict(zip(_TENSORS, (fixed, moving, fixed_mask, moving_mask), strict=True))
    for name, tensor in shapes.items():
        expected = fixed.shape if name == "moving" else (1, 1, *fixed.shape[2:])
        if name != "fixed" and tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(expected)} as the fixed image needs")
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has voxels that are not finite numbers")
    if start is not None and start.displacement.shape != (1, 3, *fixed.shape[2:]):
        raise ValueError(
            f"the deformation to start from has shape {tuple(start.displacement.shape)}, not "
            f"{(1, 3, *fixed.shape[2:])} as the fixed image needs"
        )
