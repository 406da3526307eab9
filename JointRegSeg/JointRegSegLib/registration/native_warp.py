"""Images and labels of the moving study on the grid of the fixed one, all interpolated in one pass over its voxels.

The results are those of ``SimpleITK.Resample`` with the transform of the pair but for rounding; ITK evaluates the
transform in double precision for every image anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..images.grid import RAS_DIRECTION
from ..images.preprocessing.resampling import nudged
from .deformation import at_indices
from .transforms import PairTransform

_VOXELS_AT_ONCE = 1_000_000


class NativeWarp:
    """The places in the moving study of all voxels of the fixed one."""

    def __init__(self, fixed: sitk.Image, transform: PairTransform) -> None:
        """Find the places.

        Args:
            fixed: Image that defines the grid of the results.
            transform: Map between the studies.
        """
        self._fixed = fixed
        grid, field = transform.grid, transform.displacement
        to_points = _to_points(RAS_DIRECTION, (grid.spacing_mm,) * 3, grid.origin_lps_mm)
        self._to_moving = _affine(transform.affine) @ to_points
        at_grid = torch.from_numpy(np.linalg.inv(to_points) @ _of(fixed))
        width, height, depth = fixed.GetSize()
        rows, columns, layers = (
            torch.arange(size, dtype=torch.float64)[:, None] * at_grid[:3, axis]
            for axis, size in enumerate((width, height, depth))
        )
        step = max(1, _VOXELS_AT_ONCE // (width * height))
        parts = []
        for start in range(0, depth, step):
            lattice = layers[start : start + step, None, None] + columns[:, None] + rows + at_grid[:3, 3]
            points = lattice.float().view(-1, 3)
            parts.append(
                points + at_indices(field, points).flip(0).t()
            )  # components along D, H, W; points along W, H, D
        self._displaced = torch.cat(parts)  # indices (voxels, 3) along W, H, D of the grid of the field

    def images(self, moving: Mapping[str, sitk.Image]) -> dict[str, sitk.Image]:
        """Warp images to the grid of the fixed study with linear interpolation.

        Args:
            moving: Images in single precision by name.

        Returns:
            The warped images by name, in single precision; beyond the field of view they have their lowest value.
        """
        warped = {}
        for names in _same_grids(moving):
            values = torch.from_numpy(
                np.stack([sitk.GetArrayFromImage(moving[name]).astype(np.float32, copy=False) for name in names])
            )
            lowest = values.flatten(1).amin(1)
            interpolated = self._warped(values - lowest.view(-1, 1, 1, 1), moving[names[0]]) + lowest[:, None]
            for name, array in zip(names, interpolated, strict=True):
                warped[name] = self._image(array)
        return {name: warped[name] for name in moving}

    def labels(self, moving: sitk.Image) -> sitk.Image:
        """Warp labels to the grid of the fixed study as one-hot images with linear interpolation.

        Args:
            moving: Labels; 0 is the background, and also the value beyond the field of view.

        Returns:
            For each voxel the label with the largest share, uint8, or 0 where all labels together have no more than
            half.
        """
        array = sitk.GetArrayViewFromImage(moving)
        present = [int(value) for value in np.unique(array) if value]
        if not present:
            return self._image(torch.zeros(len(self._displaced), dtype=torch.uint8))
        members = torch.from_numpy(np.stack([array == v for v in present]).astype(np.float32))
        shares = self._warped(members, nudged(moving))
        names = torch.tensor(present, dtype=torch.uint8)
        return self._image(torch.where(shares.sum(0) > 0.5, names[shares.max(0).indices], torch.zeros_like(names[:1])))

    def _warped(self, values: Tensor, moving: sitk.Image) -> Tensor:
        """Interpolate values (C, k, j, i) of a moving grid, which are zero beyond it: (C, voxels)."""
        result = torch.zeros((len(values), len(self._displaced)))
        used = values.amax(0) > 0
        if not bool(used.any()):
            return result
        matrix = torch.from_numpy(np.linalg.inv(_of(moving)) @ self._to_moving)
        low, high = [], []
        for axis, size in zip((2, 1, 0), moving.GetSize(), strict=True):
            along = torch.nonzero(used.amax(tuple(a for a in range(3) if a != axis))).flatten()
            low.append(max(float(along[0]) - 1, -0.5))
            high.append(min(float(along[-1]) + 1, size - 0.5))
        for start in range(0, len(self._displaced), _VOXELS_AT_ONCE):
            block = slice(start, start + _VOXELS_AT_ONCE)
            places = self._displaced[block] @ matrix[:3, :3].t().float() + matrix[:3, 3].float()
            inside = torch.nonzero(((places >= torch.tensor(low)) & (places < torch.tensor(high))).all(1)).flatten()
            result[:, inside + start] = at_indices(values[None], places[inside])
        return result

    def _image(self, values: Tensor) -> sitk.Image:
        image = sitk.GetImageFromArray(values.view(tuple(reversed(self._fixed.GetSize()))).numpy())
        image.CopyInformation(self._fixed)
        return image


def _same_grids(images: Mapping[str, sitk.Image]) -> list[list[str]]:
    """Names of images by grid."""
    groups: dict[tuple[tuple[float, ...], ...], list[str]] = {}
    for name, image in images.items():
        key = image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _of(image: sitk.Image) -> np.ndarray:
    return _to_points(image.GetDirection(), image.GetSpacing(), image.GetOrigin())


def _to_points(direction: tuple[float, ...], spacing: tuple[float, ...], origin: tuple[float, ...]) -> np.ndarray:
    """Matrix (4, 4) from indices (i, j, k) to points (LPS mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def _affine(transform: sitk.AffineTransform) -> np.ndarray:
    """Matrix (4, 4) of an affine transform with its centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix
