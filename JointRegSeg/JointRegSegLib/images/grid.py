"""The isotropic RAS grid on which both visits are processed, and the resampling back to native grids.

Tensors on it are (…, D, H, W), with D towards superior, H towards anterior and W towards right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

RAS_DIRECTION = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
"""ITK direction (LPS, row by row) of an image whose axes i, j, k point to right, anterior and superior."""
_SIGNS = np.array([-1.0, -1.0, 1.0])
LARGEST_GRID = 320**3
"""Largest number of voxels of a working grid of two visits, whose images and deformation need about 12 GB, and of a
block that a network segments at once. Larger brains are segmented by tiles and registered on a coarser grid."""
LARGEST_TILED_GRID = 512**3
"""Largest number of voxels of a brain that is segmented by tiles, for which about 12 GB are needed too."""


@dataclass(frozen=True)
class WorkingGrid:
    """An isotropic RAS grid.

    Attributes:
        shape: Number of voxels (D, H, W).
        spacing_mm: Spacing along all axes.
        origin_lps_mm: Centre of the first voxel.
    """

    shape: tuple[int, int, int]
    spacing_mm: float
    origin_lps_mm: tuple[float, float, float]

    def voxel_ml(self, transform: sitk.Transform | None = None) -> float:
        """Return the volume of a voxel in ml, as it is after a linear transform (LPS mm), such as an alignment."""
        milliliters = self.spacing_mm**3 / 1000
        if transform is None:
            return milliliters
        corners = np.array([transform.TransformPoint(p) for p in np.vstack([np.zeros(3), np.eye(3)]).tolist()])
        return milliliters * abs(float(np.linalg.det(corners[1:] - corners[0])))

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along i, j and k (right, anterior, superior)."""
        return self.shape[::-1]

    def resample(
        self,
        image: sitk.Image,
        transform: sitk.Transform | None = None,
        interpolator: int = sitk.sitkLinear,
        outside: float = 0.0,
    ) -> sitk.Image:
        """Resample an image to this grid.

        Args:
            image: Image on any grid.
            transform: Map from points of the grid to points of the image (LPS mm); None for the identity.
            interpolator: Interpolator of SimpleITK.
            outside: Value of voxels beyond the image.
        """
        transform = sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform
        spacing = (self.spacing_mm,) * 3
        return sitk.Resample(
            image, self.size, transform, interpolator, self.origin_lps_mm, spacing, RAS_DIRECTION, outside
        )

    def to_sitk(self, values: Tensor | np.ndarray) -> sitk.Image:
        """Return an image of values (D, H, W), or a vector image of values (D, H, W, component)."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=array.ndim == 4)
        image.SetSpacing((self.spacing_mm,) * 3)
        image.SetOrigin(self.origin_lps_mm)
        image.SetDirection(RAS_DIRECTION)
        return image

    def padded(self, voxels: int) -> WorkingGrid:
        """Return this grid with ``voxels`` more on every side."""
        origin = np.array(self.origin_lps_mm) - _SIGNS * voxels * self.spacing_mm
        d, h, w = (n + 2 * voxels for n in self.shape)
        return WorkingGrid((d, h, w), self.spacing_mm, tuple(origin.tolist()))

    def coarser(self, factor: int) -> WorkingGrid:
        """Return the grid whose voxels are blocks of ``factor`` voxels along each axis of this one.

        Raises:
            ValueError: The shape is not divisible by the factor.
        """
        if any(n % factor for n in self.shape):
            raise ValueError(f"a grid of {self.shape} voxels has no blocks of {factor}")
        origin = np.array(self.origin_lps_mm) + _SIGNS * (factor - 1) / 2 * self.spacing_mm
        d, h, w = (n // factor for n in self.shape)
        return WorkingGrid((d, h, w), self.spacing_mm * factor, tuple(origin.tolist()))


def grid_around(
    points_lps_mm: np.ndarray,
    spacing_mm: float,
    margin_mm: float,
    multiple: int,
    anchor_lps_mm: tuple[float, float, float],
    largest: int = LARGEST_GRID,
) -> WorkingGrid:
    """Return the grid around points with a margin.

    Args:
        points_lps_mm: Points (n, 3).
        spacing_mm: Voxel size.
        margin_mm: Distance from the points to the border of the grid, at least.
        multiple: Divisor of the sizes of the grid.
        anchor_lps_mm: Point from which all voxel centres lie whole voxels away, so that an image on an unrotated grid
            of the same spacing keeps its voxels.
        largest: Largest number of voxels.

    Raises:
        ValueError: The grid would be too large; the message gives its size and the memory that it needs.
    """
    low, high = points_lps_mm.min(axis=0) - margin_mm, points_lps_mm.max(axis=0) + margin_mm
    size = [math.ceil((h - l) / spacing_mm / multiple - 1e-6) * multiple for l, h in zip(low, high, strict=True)]  # noqa: E741
    if math.prod(size) > largest:
        gigabytes = 12 * math.prod(size) / largest
        raise ValueError(
            f"the brain needs a working grid of {' x '.join(map(str, size))} voxels of {spacing_mm:g} mm (about "
            f"{gigabytes:.0f} GB of memory): give a brain mask, or a larger spacing_mm in the preprocessing settings"
        )
    center = (low + high) / 2
    first = center - _SIGNS * (np.array(size) - 1) / 2 * spacing_mm
    first += np.array(anchor_lps_mm) - first - np.round((np.array(anchor_lps_mm) - first) / spacing_mm) * spacing_mm
    return WorkingGrid(tuple(size[::-1]), float(spacing_mm), tuple(first.tolist()))


@dataclass(frozen=True)
class VoxelBlock:
    """A box of voxels of a grid, which may extend beyond it.

    Attributes:
        start: First voxel (D, H, W), which may be negative.
        shape: Number of voxels (D, H, W).
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]

    def take(self, values: Tensor, outside: float | Sequence[float] = 0.0) -> Tensor:
        """Cut the block out of values (…, D, H, W) of the grid, with ``outside`` beyond the grid.

        For values (…, C, D, H, W), ``outside`` may be one number for each channel.
        """
        reach = self._reach(values.shape[-3:])
        if isinstance(outside, Sequence):
            channels = zip(values.unbind(-4), outside, strict=True)
            return torch.stack([F.pad(channel, reach, value=beyond) for channel, beyond in channels], -4)
        return F.pad(values, reach, value=outside)

    def put(self, values: Tensor, shape: tuple[int, ...], outside: float = 0.0) -> Tensor:
        """Put values (…, D, H, W) of the block onto a grid of ``shape``, with ``outside`` beyond the block."""
        return F.pad(values, [-reach for reach in self._reach(shape)], value=outside)

    def _reach(self, shape: tuple[int, ...]) -> list[int]:
        sides = [(-start, start + size - full) for start, size, full in zip(self.start, self.shape, shape, strict=True)]
        return [reach for side in reversed(sides) for reach in side]


def block_around(mask: Tensor, multiple: int, share: float | None = None) -> VoxelBlock:
    """Return the block around a mask.

    Networks with instance normalisation expect that the brain fills the same share of the block as in their training.

    Args:
        mask: Mask (D, H, W).
        multiple: Divisor of the sizes of the block.
        share: Share of the block that the mask should fill, as nearly as possible, by including more background; None
            for the smallest block.
    """
    ends = []
    for axis, full in enumerate(mask.shape):
        used = torch.nonzero(mask.any(dim=tuple(a for a in range(3) if a != axis))).flatten()
        ends.append((int(used[0]), int(used[-1]) + 1) if len(used) else (0, full))
    shapes = [[(-(-(high - low) // multiple) + more) * multiple for more in range(3)] for low, high in ends]
    best = tuple(sizes[0] for sizes in shapes)
    if share is not None and bool(mask.any()):
        filled = int(mask.sum())

        def misfit(shape: tuple[int, ...]) -> tuple[float, int]:
            margins = [size - (high - low) for size, (low, high) in zip(shape, ends, strict=True)]
            return round(abs(math.log(filled / math.prod(shape) / share)), 6), max(margins)

        best = min(itertools.product(*shapes), key=misfit)
    first, second, third = ((low + high - size) // 2 for (low, high), size in zip(ends, best, strict=True))
    depth, height, width = best
    return VoxelBlock((first, second, third), (depth, height, width))


def mask_corners(mask: sitk.Image) -> np.ndarray:
    """Return the corners (8, 3) in LPS mm of the box around the non-zero voxels of a mask, whole voxels included."""
    voxels = sitk.GetArrayViewFromImage(mask) != 0
    ends = []
    for axis in (2, 1, 0):  # i, j, k
        used = np.flatnonzero(voxels.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((used[0] - 0.5, used[-1] + 0.5))
    corners = [(i, j, k) for i in ends[0] for j in ends[1] for k in ends[2]]
    return np.array([mask.TransformContinuousIndexToPhysicalPoint([float(v) for v in c]) for c in corners])


def to_native(
    values: Tensor,
    grid: WorkingGrid,
    native: sitk.Image,
    transform: sitk.Transform | None = None,
    outside: float = 0.0,
) -> sitk.Image:
    """Resample values of a working grid to the voxels of a native image.

    Args:
        values: Values (D, H, W).
        grid: Their grid.
        native: Image whose grid is used.
        transform: Map from points of the native image to points of the working grid (LPS mm), which is the inverse of
            the transform with which the study was resampled; None for the identity.
        outside: Value beyond the working grid.

    Returns:
        Image in single precision, linearly interpolated.
    """
    image = grid.to_sitk(values.float())
    transform = sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform
    return sitk.Resample(image, native, transform, sitk.sitkLinear, outside, sitk.sitkFloat32)


def most_probable(probabilities: Tensor) -> Tensor:
    """Return the class with the largest probability (D, H, W) of probabilities (class, D, H, W)."""
    return probabilities.max(0).indices  # on the CPU, argmax over the first axis takes seven times as long


def labels_to_native(
    probabilities: Tensor,
    grid: WorkingGrid,
    native: sitk.Image,
    transform: sitk.Transform | None = None,
    decide: Callable[[Tensor], Tensor] = most_probable,
) -> sitk.Image:
    """Return the labels (uint8) on a native grid from class probabilities on a working grid.

    The probabilities are interpolated and decided upon there, so that outlines are smooth for all grids. Only the part
    of the native grid in which a class other than the background can win is computed.

    Args:
        probabilities: Probabilities (class, D, H, W), with the background as class 0.
        grid: Their grid.
        native: Image whose grid is used.
        transform: As for `to_native`.
        decide: Gives the classes (D, H, W) for probabilities (class, D, H, W), the background where nothing else is as
            probable.
    """
    transform = sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform
    labels = sitk.Image(native.GetSize(), sitk.sitkUInt8)
    labels.CopyInformation(native)
    part = _part_holding(probabilities[0] < 1 - 1 / len(probabilities) + 1e-6, grid, native, transform)
    if part is None:
        return labels
    start, size = part
    crop = sitk.RegionOfInterest(native, size, start)
    # beyond the working grid: background
    parts = [to_native(p, grid, crop, transform, float(c == 0)) for c, p in enumerate(probabilities)]
    winner = decide(torch.from_numpy(np.stack([sitk.GetArrayViewFromImage(p) for p in parts])))
    found = sitk.GetImageFromArray(winner.byte().numpy())
    found.CopyInformation(crop)
    return sitk.Paste(labels, found, found.GetSize(), destinationIndex=start)


def _part_holding(
    mask: Tensor, grid: WorkingGrid, native: sitk.Image, transform: sitk.Transform
) -> tuple[list[int], list[int]] | None:
    """Start and size (i, j, k) of the part of ``native`` that holds the voxels of a mask (D, H, W); None for none."""
    if not bool(mask.any()):
        return None
    corners = mask_corners(grid.to_sitk(mask.to(torch.uint8)))
    margin = grid.spacing_mm
    middle = corners.mean(axis=0)
    corners = corners + np.sign(corners - middle) * margin
    back = transform.GetInverse()
    indices = [native.TransformPhysicalPointToContinuousIndex(back.TransformPoint(c.tolist())) for c in corners]
    size = np.array(native.GetSize())
    low = np.clip(np.floor(np.min(indices, axis=0)).astype(int), 0, size)
    high = np.clip(np.ceil(np.max(indices, axis=0)).astype(int) + 1, 0, size)
    if (high <= low).any():
        return None
    return low.tolist(), (high - low).tolist()
