"""Registration of one pair of images by optimising its deformation, with the tumour masked out.

The deformation is the flow of a stationary velocity on a coarse grid. It is therefore smooth, and its inverse is the
flow of the negative velocity. From coarse to fine images, Adam increases the similarity of the fixed image and the
warped moving image, and that of the moving image and the fixed image warped by the inverse, while a regulariser keeps
the velocity smooth. An exchange of the images therefore changes the sign of the velocity. Where either study has
tumour, the tissue has no counterpart: those voxels are left out of the similarity, and the deformation continues from
the surroundings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from .comparison import Comparison
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
from .similarity import Similarity, find_similarity

_REMASK = 10
"""Number of iterations after which the moving mask is warped again; convergence is judged over as many."""
_FEWEST_POINTS = 4
"""Smallest number of voxels of an averaged image along any axis; levels with fewer are skipped."""
_SLOWDOWN = 0.8
"""Fraction by which the learning rate falls, linearly, in the course of a level."""
_SMALL_STEP = 0.25
"""Largest velocity in voxels that the first step of the integration may cover."""
_LEAST_SHARE = 1e-3
"""Smallest share of voxels with structure by which a similarity is divided."""


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
        limit = _TimeLimit(settings.time_limit_s)
        done = 0
        for number, level in enumerate(levels, 1):
            images = _Level.of((fixed, moving), (fixed_tumor, moving_tumor), level, settings)
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


class _TimeLimit:
    """Time that an optimisation may take.

    Attributes:
        has_ended: Whether it has ended the optimisation.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = math.inf if seconds is None else time.perf_counter() + seconds
        self.has_ended = False

    def reached(self) -> bool:
        """Tell whether to end now."""
        self.has_ended = time.perf_counter() > self._end
        return self.has_ended


@dataclass(frozen=True)
class _Level:
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
    ) -> _Level:
        full = images[0].shape[2:]
        shape = _coarser(full, level.image_stride)
        fixed, moving = (None if tumor is None else _averaged(tumor, shape) for tumor in tumors)
        return cls(
            (_averaged(images[0], shape), _averaged(images[1], shape)),
            (_without(fixed), _without(moving)),
            (fixed, moving),
            _coarser(full, level.velocity_stride),
            level,
            settings,
            find_similarity(settings.similarity),
        )

    def optimize(
        self, velocity: Tensor, iterations: int, limit: _TimeLimit, report: Callable[[int, float], None]
    ) -> Tensor:
        """Return the best velocity (1, 3, d, h, w) found within a number of iterations and a time limit."""
        settings = self.settings
        velocity = resize_displacement(velocity, self.grid).clone().requires_grad_()
        best, least = velocity.detach().clone(), math.inf
        optimizer = _Adam(velocity)
        # The objective is a mean. Times the number of voxels, its derivatives do not depend on the size of the grid.
        voxels = velocity[0, 0].numel()
        history: list[float] = []
        compared: _BothWays | None = None
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

    def _terms(self, velocity: Tensor, compared: _BothWays) -> tuple[Tensor, Tensor]:
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
        return resize_displacement(integrate_velocity(velocity, steps), self.images[0].shape[2:])

    def _comparisons(self, velocity: Tensor) -> _BothWays:
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
            compared = _BothWays(self.images, (prepared[0], prepared[1]), self.measure.both_ways)
            compared.measure(*displacements)
        return compared


class _Adam:
    """Steps by Adam (Kingma and Ba 2015). The one of torch would load its compiler, which takes seconds."""

    _MEAN, _SQUARE, _EPSILON = 0.9, 0.99, 1e-4

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._mean, self._square = torch.zeros_like(values), torch.zeros_like(values)
        self._steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the values in place, by ``rate`` at most about, according to their gradient."""
        gradient = self._values.grad
        assert gradient is not None
        self._steps += 1
        self._mean.lerp_(gradient, 1 - self._MEAN)
        self._square.mul_(self._SQUARE).addcmul_(gradient, gradient, value=1 - self._SQUARE)
        scale = (self._square.sqrt() / math.sqrt(1 - self._SQUARE**self._steps)).add_(self._EPSILON)
        self._values.addcdiv_(self._mean, scale, value=-rate / (1 - self._MEAN**self._steps))


class _BothWays:
    """Comparisons of the fixed with the moving image (way 0), and of the moving with the fixed one (way 1).

    The optimisation takes both ways in turn. It begins with the larger image, whichever that is, so that an exchange of
    the images exchanges every step. Measures that are not compared both ways keep to way 0.
    """

    def __init__(
        self, images: tuple[Tensor, Tensor], prepared: tuple[Comparison, Comparison], in_turn: bool = True
    ) -> None:
        self._images, self._prepared = images, prepared
        self._ways = (0, 1) if in_turn else (0,)
        self.share = max(sum(prepared[way].structured_share for way in self._ways) / len(self._ways), _LEAST_SHARE)
        self._latest = [0.0, 0.0]
        self._way = int(float(images[0].double().square().sum()) >= float(images[1].double().square().sum()))

    @property
    def mean_of_latest(self) -> float:
        """Mean of the latest similarities of the ways, relative to the share of the images that has structure."""
        return sum(self._latest[way] for way in self._ways) / len(self._ways)

    def next_way(self) -> int:
        """Return the way whose turn it is."""
        self._way = 1 - self._way if len(self._ways) > 1 else 0
        return self._way

    def similarity(self, way: int, displacement: Tensor) -> Tensor:
        """Compute the similarity one way, after the other image was warped by a displacement."""
        similarity = self._prepared[way].similarity(warp(self._images[1 - way], displacement)) / self.share
        self._latest[way] = float(similarity.detach())
        return similarity

    def measure(self, forward: Tensor, backward: Tensor) -> None:
        """Compute the similarities of the ways."""
        for way in self._ways:
            self.similarity(way, backward if way else forward)


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


def _unfolded(velocity: Tensor, shape: torch.Size, steps: int) -> Deformation:
    """Integrate a velocity to a map and its inverse on the full grid, smoothing it until neither folds.

    The integration takes place at half the resolution of the full grid, where the map and its inverse agree better.
    Only a very uneven velocity needs smoothing.
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


def _starting_point(start: Deformation | None, like: Tensor) -> tuple[Deformation | None, Tensor]:
    """Return a displacement to keep, where the start has no velocity, and the velocity to begin with."""
    zero = like.new_zeros((1, 3, *_coarser(like.shape[2:], 8)))
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


def _coarser(shape: torch.Size, stride: int) -> tuple[int, int, int]:
    depth, height, width = (max(1, round(n / stride)) for n in shape)
    return depth, height, width


def _averaged(image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Average an image over blocks, to a grid of ``shape``."""
    return image if shape == image.shape[2:] else F.adaptive_avg_pool3d(image, shape)


def _without(tumor: Tensor | None) -> Tensor | None:
    """Return 1 for voxels without tumour and 0 for the others."""
    return None if tumor is None else (tumor == 0).float()


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
