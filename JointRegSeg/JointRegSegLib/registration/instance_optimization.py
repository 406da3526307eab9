"""Registration of one pair of images by optimising its deformation, with the tumour masked out.

The deformation is the flow of a stationary velocity on a coarse grid. It is therefore smooth, and its inverse is the
flow of the negative velocity. From coarse to fine images, Adam increases the similarity of the fixed image and the
warped moving image, and that of the moving image and the fixed image warped by the inverse, while a regulariser keeps
the velocity smooth. An exchange of the images therefore changes the sign of the velocity. Where either study has
tumour, the tissue has no counterpart: those voxels are left out of the similarity, and the deformation continues from
the surroundings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from .deformation import (
    Deformation,
    compose,
    folded_fraction,
    integrate_velocity,
    invert_displacement,
    resize_displacement,
    warp,
)
from .optimization.level import Level, coarser
from .optimization.time_limit import TimeLimit
from .refinement_settings import RefinementLevel, RefinementSettings
from .separable import smooth

_FEWEST_POINTS = 4
"""Smallest number of voxels of an averaged image along any axis; levels with fewer are skipped."""


def refine(
    fixed: Tensor,
    moving: Tensor,
    start: Deformation | None = None,
    fixed_mask: Tensor | None = None,
    moving_mask: Tensor | None = None,
    settings: RefinementSettings | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Deformation:
    """Find the deformation between one pair of images by optimisation from a given start.

    Args:
        fixed: Image of shape (1, C, D, H, W). Channels that are constant in either image do not count.
        moving: Image of the same shape.
        start: Deformation that a network found, of shape (1, 3, D, H, W) in voxels; None for the identity. If it has a
            velocity, that velocity is optimised further, or the identity where the images are more alike without it. A
            displacement without a velocity is kept as it is, and the flow that is found is applied before it.
        fixed_mask: Voxels to leave out, as non-zero voxels of a tensor (1, 1, D, H, W), or (1, C, D, H, W) for each
            channel by itself: the tumour of the fixed image, and what a channel does not show. None if there are none.
        moving_mask: The same for the moving image.
        settings: Similarity, levels, regulariser and limits; None for the defaults.
        progress: Receives the fraction that is done; it may raise to cancel.
        warn: Called with a sentence for the user where the time limit has ended the optimisation early, or a given
            number of iterations has changed nothing.

    Returns:
        A deformation with its inverse, on the grid of the fixed image. It has a velocity and is free of folds unless
        it started from a displacement without a velocity. If the images are no more alike after the optimisation than
        at the start, the start is returned.

    Raises:
        ValueError: An argument has the wrong shape or values that are not finite; the message names it.
    """
    settings, report = settings or RefinementSettings(), progress or silent
    _check(fixed, moving, start, fixed_mask, moving_mask)
    # Tensors made in inference mode cannot take part in a graph.
    with torch.inference_mode(False), torch.autocast(fixed.device.type, enabled=False):
        fixed, moving = (image.detach().float().clone() for image in (fixed, moving))
        fixed_tumor, moving_tumor = (_dilated(m, settings.mask_dilation) for m in (fixed_mask, moving_mask))
        first, velocity = _starting_point(start, fixed)
        begin = velocity
        if first is not None:
            moving = warp(moving, first.displacement)
            moving_tumor = None if moving_tumor is None else warp(moving_tumor, first.displacement)
        levels = _usable(settings, fixed.shape[2:])
        planned = sum(settings.on_level(level) for level in levels)
        limit = TimeLimit(settings.time_limit_s)
        done = 0
        for number, level in enumerate(levels, 1):
            images = Level.of((fixed, moving), (fixed_tumor, moving_tumor), level, settings)
            if number == 1 and bool(velocity.any()) and not images.more_alike(velocity, torch.zeros_like(velocity)):
                begin = velocity = torch.zeros_like(velocity)

            def report_iteration(iteration: int, similarity: float, number: int = number, done: int = done) -> None:
                message = f"deformation, level {number} of {len(levels)}: {settings.similarity} {similarity:.3f}"
                report((done + iteration) / max(planned, 1), message)

            velocity = images.optimize(velocity, settings.on_level(level), limit, report_iteration)
            done += settings.on_level(level)
            if limit.has_ended:
                warn(_ended_early(settings.time_limit_s, number, len(levels)))
                break
        if not images.more_alike(velocity, begin):
            velocity = begin
            if settings.iterations and not limit.has_ended and not torch.equal(fixed, moving):
                warn(_without_effect(settings.iterations))
        refined = _unfolded(velocity, fixed.shape[2:], settings.integration_steps)
        result = refined if first is None else _followed_by(refined, first)
    report(1.0, "deformation found")
    return result


def _ended_early(limit_s: float | None, level: int, levels: int) -> str:
    """Say that the time limit has ended the optimisation on a level."""
    return (
        f"the time limit of {limit_s:g} s ended the refinement on level {level} of {levels}, so the visits may be "
        "aligned less well than without it: allow more time to be sure"
    )


def _without_effect(iterations: int) -> str:
    """Say that the chosen number of iterations has improved nothing."""
    return (
        f"the given number of iterations ({iterations}) of the refinement made the visits no more alike, so it changed "
        "nothing: allow more"
    )


def _unfolded(velocity: Tensor, shape: torch.Size, steps: int) -> Deformation:
    """Integrate a velocity to a map and its inverse on the full grid, smoothing it until neither folds.

    The integration takes place at half the resolution of the full grid, where the map and its inverse agree better.
    Only a very uneven velocity needs smoothing.
    """
    for _ in range(20):
        half = [max(pair) for pair in zip(coarser(shape, 2), velocity.shape[2:], strict=True)]
        finer = resize_displacement(velocity, half)
        forward = resize_displacement(integrate_velocity(finer, steps), shape)
        backward = resize_displacement(integrate_velocity(-finer, steps), shape)
        if min(shape) < 2 or max(folded_fraction(forward), folded_fraction(backward)) == 0:
            break
        velocity = smooth(velocity, 0.7)
    return Deformation(forward, backward, velocity)


def _starting_point(start: Deformation | None, like: Tensor) -> tuple[Deformation | None, Tensor]:
    """Return a displacement to keep, where the start has no velocity, and the velocity to begin with."""
    zero = like.new_zeros((1, 3, *coarser(like.shape[2:], 8)))
    if start is None:
        return None, zero
    if start.velocity is not None:
        return None, start.velocity.detach().float().clone()
    displacement = start.displacement.detach().float().clone()
    inverse = invert_displacement(displacement) if start.inverse is None else start.inverse.detach().float().clone()
    return Deformation(displacement, inverse), zero


def _followed_by(refined: Deformation, first: Deformation) -> Deformation:
    """Return ``x ↦ first(refined(x))`` and its inverse, where ``refined`` was found after warping by ``first``."""
    forward = compose(refined.displacement, first.displacement)
    if first.inverse is None or refined.inverse is None:
        return Deformation(forward)
    return Deformation(forward, compose(first.inverse, refined.inverse))


def _usable(settings: RefinementSettings, shape: torch.Size) -> list[RefinementLevel]:
    """Return the levels on which images of this size have enough voxels, or else the finest level."""
    levels = [level for level in settings.levels if min(shape) // level.image_stride >= _FEWEST_POINTS]
    return levels or [min(settings.levels, key=lambda level: level.image_stride)]


def _dilated(mask: Tensor | None, voxels: int) -> Tensor | None:
    """Return 1 within ``voxels`` of the mask and 0 elsewhere; None for an empty mask."""
    if mask is None or not bool((mask != 0).any()):
        return None
    grown = (mask != 0).float()
    for _ in range(voxels):  # repeated dilation by a cross approximates a ball
        grown = torch.stack(
            [F.max_pool3d(grown, size, 1, tuple(n // 2 for n in size)) for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3))]
        ).amax(0)
    return grown


def _check(
    fixed: Tensor, moving: Tensor, start: Deformation | None, fixed_mask: Tensor | None, moving_mask: Tensor | None
) -> None:
    if fixed.ndim != 5 or len(fixed) != 1:
        raise ValueError(f"images to be registered must have shape (1, C, D, H, W), not {tuple(fixed.shape)}")
    tensors = {"fixed": fixed, "moving": moving, "fixed_mask": fixed_mask, "moving_mask": moving_mask}
    for name, tensor in tensors.items():
        expected = fixed.shape if name == "moving" else (1, 1, *fixed.shape[2:])
        accepted = (expected, fixed.shape)  # a mask may have a channel for each of the image
        if name != "fixed" and tensor is not None and tensor.shape not in accepted:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, not {tuple(expected)} as the fixed image requires"
            )
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has voxels that are not finite numbers")
    if start is not None and start.displacement.shape != (1, 3, *fixed.shape[2:]):
        raise ValueError(
            f"the deformation to start from has shape {tuple(start.displacement.shape)}, not "
            f"{(1, 3, *fixed.shape[2:])} as the fixed image requires"
        )
