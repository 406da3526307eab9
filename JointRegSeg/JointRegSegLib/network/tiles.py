"""Segmentation of blocks that are too large for the network at once, by overlapping tiles.

The probabilities of the tiles are blended where they overlap. A network that normalises its features by the brain must
not do so by the part of it that lies in a tile; a coarse copy of the whole block tells how the two differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ..images.grid import LARGEST_GRID, VoxelBlock, WorkingGrid
from .brain_norm import TileStatistics
from .joint import JointNetwork
from .precision import segment_fast

LARGEST_BLOCK = LARGEST_GRID
"""Largest number of voxels of a block that the network segments at once."""
TILE_VOXELS = 320
"""Edge of a tile, which is rounded down to what the network can halve."""


def segment_block(
    network: JointNetwork,
    images: Tensor,
    background: float | Sequence[float],
    largest: int = LARGEST_BLOCK,
    tile: int = TILE_VOXELS,
    progress: Progress = silent,
) -> Tensor:
    """Segment a block at once where it is small enough, otherwise by tiles.

    Args:
        network: Network with a segmentation head.
        images: Images (1, C, D, H, W); the sizes are multiples that the network can take.
        background: Intensity outside of the brain, or that of each image; tiles that show nothing else are not
            segmented.
        largest: Largest number of voxels that are segmented at once.
        tile: Edge of a tile in voxels.
        progress: May raise to cancel.

    Returns:
        Class scores (1, class, D, H, W); for tiles the logarithm of the blended probabilities.
    """
    if images[0, 0].numel() <= largest:
        return segment_fast(network, images)
    multiple = network.config.multiple * network.config.stride
    edge = max(multiple, tile // multiple * multiple)
    overlap = edge // 4
    shape = images.shape[2:]
    starts = [tile_starts(size, edge, overlap, multiple) for size in shape]
    places = [
        tuple(slice(start, start + min(edge, size)) for start, size in zip(corner, shape, strict=True))
        for corner in itertools.product(*starts)
    ]
    outside = torch.as_tensor(background, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1)
    places = [place for place in places if bool((images[_at(place)] != outside).any())]
    total = images.new_zeros((1, network.config.classes, *shape), dtype=torch.float32)
    weight = images.new_zeros(tuple(shape), dtype=torch.float32)
    for place in places:
        weight[place] += _ramp(place, shape, overlap).to(images.device)
    statistics = _statistics(network, images, background, places, largest) if len(places) > 1 else None
    for number, place in enumerate(places):
        progress(number / len(places), f"segmenting tile {number + 1} of {len(places)}")
        if statistics is not None:
            statistics.begin_tile(number)
        logits = segment_fast(network, images[_at(place)].contiguous(), statistics=statistics)
        ramp = _ramp(place, shape, overlap).to(images.device)
        total[_at(place)] += logits.softmax(1) * (ramp / weight[place])
    total[:, 0] += weight == 0
    return total.clamp_min_(1e-12).log_()


def _statistics(
    network: JointNetwork,
    images: Tensor,
    background: float | Sequence[float],
    places: list[tuple[slice, ...]],
    largest: int,
) -> TileStatistics | None:
    """Find out from a coarse copy of the block how its tiles differ from the whole; None where that does not matter."""
    if network.config.normalisation != "brain":
        return None
    shape = images.shape[2:]
    multiple = network.config.multiple * network.config.stride
    factor = next(
        n for n in range(2, max(shape) + 1) if images[0, 0].numel() <= max(largest, images[0, 0].numel() // 8) * n**3
    )
    size = [-(-n // factor // multiple) * multiple * factor for n in shape]
    padded = VoxelBlock((0, 0, 0), (size[0], size[1], size[2])).take(images, background)
    statistics = TileStatistics(
        [tuple((s.start / n, s.stop / n) for s, n in zip(place, size, strict=True)) for place in places]
    )
    segment_fast(network, F.avg_pool3d(padded, factor), statistics=statistics)
    return statistics


def tiles_note(name: str, grid: WorkingGrid) -> tuple[str, ...]:
    """Return a sentence for the user where a study on a grid may have been segmented by tiles.

    Args:
        name: Name of the study.
        grid: Its working grid.
    """
    if math.prod(grid.shape) <= LARGEST_BLOCK:
        return ()
    return (
        f"the brain of the {name} study has {' x '.join(map(str, grid.size))} voxels of {grid.spacing_mm:g} mm, so it "
        "was segmented by overlapping tiles, whose results can differ a little from that of the whole brain",
    )


def tile_starts(size: int, edge: int, overlap: int, multiple: int) -> list[int]:
    """Return the first voxels of the tiles along an axis, evenly spread, so that neighbours overlap by enough.

    Args:
        size: Number of voxels along the axis, a multiple of ``multiple``.
        edge: Edge of a tile, a multiple of ``multiple``.
        overlap: Smallest overlap of neighbours.
        multiple: All starts are multiples of this number.
    """
    if size <= edge:
        return [0]
    count = 1 + -(-(size - edge) // max(edge - overlap, 1))
    while True:
        starts = [round(n * (size - edge) / (count - 1) / multiple) * multiple for n in range(count)]
        if all(b - a <= edge - overlap for a, b in itertools.pairwise(starts)) or count > size // multiple:
            return starts
        count += 1


def _at(place: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return the index of a place in tensors (1, C, D, H, W)."""
    return (slice(None), slice(None), *place)


def _ramp(place: tuple[slice, ...], shape: torch.Size, overlap: int) -> Tensor:
    """Weights (D, H, W) of a tile, which fall linearly over the overlap towards its inner faces."""
    sides = []
    for part, size in zip(place, shape, strict=True):
        at = torch.arange(part.start, part.stop, dtype=torch.float32) + 0.5
        rising = torch.ones_like(at) if part.start == 0 else (at - part.start) / overlap
        falling = torch.ones_like(at) if part.stop == size else (part.stop - at) / overlap
        sides.append(torch.minimum(rising, falling).clamp(max=1))
    depth, height, width = sides
    return depth[:, None, None] * height[:, None] * width
