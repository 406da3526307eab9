"""The registry of similarity measures: training's loss and the instance optimization take theirs from here.

A new measure costs one file with a function ``prepare`` and one line of `SIMILARITIES`. Importing this file does
not load torch, so that panels and help texts can list the measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from .comparison import Comparison

Prepare: TypeAlias = "Callable[[Tensor, Tensor | None, int, int], Comparison]"
"""``prepare(fixed, mask, window, stride)`` gives the comparison of a fixed image with any moving one.

fixed: (B, C, D, H, W). mask: weights (B or 1, 1 or C, D, H, W) of the voxels, 0 for those that take no part; None for
the whole image. window: edge in voxels of the neighbourhoods of measures that are local. stride: such measures may be
evaluated at every so many voxels along each axis only.
"""


@dataclass(frozen=True)
class Similarity:
    """A measure of how alike two images are.

    Attributes:
        name: Name in settings, commands and reports.
        title: Name in panels and help texts.
        prepare: Prepares a fixed image for comparisons; see `Prepare`.
        suits: Which images it suits, as a phrase for help texts.
        cost: Time of an iteration of the refinement relative to that with local correlation.
        best: Similarity of perfectly matching images; ``best`` minus the similarity is the loss of a training.
        gain: Factor of the similarity in the refinement, with which the default regularisation suits it.
        both_ways: Whether the refinement compares the fixed with the warped moving image and the moving with the warped
            fixed image in turn, so that an exchange of the images inverts the result; otherwise only the former.
    """

    name: str
    title: str
    prepare: Prepare
    suits: str
    cost: float = 1.0
    best: float = 0.0
    gain: float = 1.0
    both_ways: bool = True

    def loss(self, fixed: Tensor, moving: Tensor, mask: Tensor | None = None, window: int = 9) -> Tensor:
        """Compute the loss of two images, which is 0 where they match perfectly.

        Args:
            fixed: Images of shape (B, C, D, H, W).
            moving: Images of the same shape, on the grid of the fixed ones.
            mask: Weights of shape (B or 1, 1 or C, D, H, W), 0 for voxels that take no part.
            window: Edge of local neighbourhoods in voxels, an odd number.

        Returns:
            A scalar, computed in float32 at least.

        Raises:
            ValueError: The images differ in shape, or the window is not an odd number.
        """
        import torch

        from .comparison import at_least_float32, check_comparable

        check_comparable(fixed, moving)
        with torch.autocast(fixed.device.type, enabled=False):
            comparison = self.prepare(at_least_float32(fixed), mask, window, 1)
            return self.best - comparison.similarity(at_least_float32(moving))


def find_similarity(name: str) -> Similarity:
    """Return the similarity measure of a name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    if name not in SIMILARITIES:
        raise ValueError(f"similarity '{name}' is unknown; use one of {', '.join(SIMILARITIES)}")
    return SIMILARITIES[name]


def _prepare_of(module: str) -> Prepare:
    """Return the function ``prepare`` of a file of this room, which is imported when it is first called."""

    def prepare(fixed: Tensor, mask: Tensor | None, window: int, stride: int) -> Comparison:
        return import_module(f".{module}", __package__).prepare(fixed, mask, window, stride)

    return prepare


_ALL = (
    Similarity(
        "lncc",
        "Local normalised cross-correlation",
        _prepare_of("local_correlation"),
        "images whose contrasts are related linearly in every neighbourhood, whatever the bias field",
        best=1.0,
    ),
    Similarity(
        "mse",
        "Mean squared difference",
        _prepare_of("squared_difference"),
        "images of the same contrast and normalisation",
        cost=0.8,
    ),
    Similarity(
        "nmi",
        "Normalised mutual information",
        _prepare_of("mutual_information"),
        "images of different contrasts, where each tissue has one intensity throughout the image",
        cost=1.3,
        best=2.0,
        gain=0.5,
    ),
    Similarity(
        "mind",
        "Self-similarity context (MIND-SSC)",
        _prepare_of("mind"),
        "images of different contrasts whose edges lie in the same places, also with a bias field",
        cost=1.8,
        both_ways=False,  # in turn it converges far more slowly
    ),
)

SIMILARITIES: dict[str, Similarity] = {entry.name: entry for entry in _ALL}
"""The known similarity measures by name."""
