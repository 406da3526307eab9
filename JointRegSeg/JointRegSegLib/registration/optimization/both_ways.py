"""Comparisons of two images, each with the other after it was warped."""

from __future__ import annotations

from torch import Tensor

from ..comparison import Comparison
from .demons_gradients import warped

_LEAST_SHARE = 1e-3
"""Smallest share of voxels with structure by which a similarity is divided."""


class BothWays:
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
        similarity = self._prepared[way].similarity(warped(self._images[1 - way], displacement)) / self.share
        self._latest[way] = float(similarity.detach())
        return similarity

    def measure(self, forward: Tensor, backward: Tensor) -> None:
        """Compute the similarities of the ways."""
        for way in self._ways:
            self.similarity(way, backward if way else forward)
