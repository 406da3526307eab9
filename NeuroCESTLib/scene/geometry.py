"""Where the voxels of an array lie: the one place for RAS, LPS and index conversions.

Arrays are in numpy order ``(K, J, I)`` (slice, row, column); index vectors and matrices are in the order
``(i, j, k)`` that Slicer and ITK use. World coordinates are RAS in mm unless a name says LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Files keep geometry in single precision (NIfTI), so equal grids differ by some 1e-4 mm at their far corner.
_CORNER_TOLERANCE = 1e-3
_CORNER_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in space.

    Attributes:
        shape: number of voxels ``(K, J, I)``.
        ijk_to_ras: matrix (4, 4), float64, from voxel index ``(i, j, k, 1)`` to world ``(R, A, S, 1)`` in mm.
    """

    shape: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a geometry needs three positive sizes (K, J, I), not {self.shape}")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("ijk_to_ras must be a 4 x 4 matrix of finite numbers")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise ValueError("ijk_to_ras is singular: the volume has no extent in one direction")
        matrix.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.matches(other)

    __hash__ = None  # type: ignore[assignment]  # equality has a tolerance, so no hash can agree with it

    @classmethod
    def of(cls, volume_node: Any, world: bool = True) -> Geometry:
        """Geometry of a volume node; with ``world``, linear parent transforms are applied.

        Raises:
            ValueError: the node has no image, or a parent transform is not linear.
        """
        import slicer
        import vtk

        image = volume_node.GetImageData()
        if image is None or min(image.GetDimensions()) < 1:
            raise ValueError(f"the volume '{volume_node.GetName()}' has no image: load it first")
        matrix = vtk.vtkMatrix4x4()
        volume_node.GetIJKToRASMatrix(matrix)
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
        if world:
            ijk_to_ras = world_transform(volume_node) @ ijk_to_ras
        return cls(tuple(reversed(image.GetDimensions())), ijk_to_ras)

    @classmethod
    def from_spacing(
        cls,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
        direction: np.ndarray | None = None,
    ) -> Geometry:
        """Geometry from spacing ``(i, j, k)`` mm, origin (R, A, S) mm and axes i, j, k as columns (3, 3)."""
        matrix = np.eye(4)
        matrix[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(spacing)
        matrix[:3, 3] = origin
        return cls(shape, matrix)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along ``(i, j, k)`` in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def direction(self) -> np.ndarray:
        """Unit vectors of the axes i, j, k as columns, RAS."""
        return self.ijk_to_ras[:3, :3] / self.spacing

    @property
    def origin(self) -> np.ndarray:
        """Centre of the first voxel, RAS mm."""
        return self.ijk_to_ras[:3, 3].copy()

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    @property
    def ijk_to_lps(self) -> np.ndarray:
        """Matrix (4, 4) from voxel index to LPS mm, the world of ITK and of transform files."""
        return _RAS_TO_LPS @ self.ijk_to_ras

    def matches(self, other: Geometry) -> bool:
        """Whether both grids hold the same voxels, within the precision of image files."""
        return not self.difference(other)

    def difference(self, other: Geometry) -> str:
        """What tells ``other`` from this geometry, as one phrase; empty if nothing does."""
        if self.shape != other.shape:
            return f"{_size(other.shape)} voxels instead of {_size(self.shape)}"
        distance = self._corner_distance(other)
        if distance <= _CORNER_TOLERANCE_MM + _CORNER_TOLERANCE * self.spacing.min():
            return ""
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            return f"voxels of {_mm(other.spacing)} mm instead of {_mm(self.spacing)} mm"
        if not np.allclose(self.direction, other.direction, atol=1e-3):
            cosine = np.clip((self.direction * other.direction).sum(axis=0), -1, 1)
            return f"axes turned by up to {np.degrees(np.arccos(cosine)).max():.1f} degrees"
        return f"the same grid up to {distance:.3g} mm apart"

    def _corner_distance(self, other: Geometry) -> float:
        """Largest distance in mm between equal corners of the two grids."""
        last = np.array(self.shape[::-1]) - 1
        corners = np.array([[i, j, k, 1] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
        return float(np.linalg.norm(corners @ (self.ijk_to_ras - other.ijk_to_ras).T, axis=1).max())

    def apply_to(self, volume_node: Any) -> None:
        """Give a volume node this geometry; the node's image must have this shape already."""
        import slicer

        volume_node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(self.ijk_to_ras))

    def resample(self, array: np.ndarray, source: Geometry, linear: bool = True) -> np.ndarray:
        """Values of ``array`` (shape of ``source``) at the voxels of this geometry.

        Linear, or nearest neighbour with ``linear=False``. Floating-point output outside the source is NaN
        (0 for integers). Works in index space, so sheared and left-handed grids are exact too.
        """
        import SimpleITK as sitk

        if array.shape != source.shape:
            raise ValueError(f"the array has shape {array.shape}, its geometry {source.shape}")
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        to_source = np.linalg.inv(source.ijk_to_ras) @ self.ijk_to_ras
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(to_source[:3, :3].ravel().tolist())
        transform.SetTranslation(to_source[:3, 3].tolist())
        grid = sitk.Image(self.shape[::-1], sitk.sitkUInt8)
        outside = float("nan") if np.issubdtype(array.dtype, np.floating) else 0.0
        method = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
        return sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, method, outside))

    def reorder(self, array: np.ndarray, source: Geometry) -> np.ndarray | None:
        """``array`` of the grid ``source`` in the voxel order of this one, where both hold the same voxels.

        Slicer's readers turn left-handed files into right-handed volumes, so that the same voxels occur in
        another order. None where the grids hold different voxels.
        """
        to_source = np.linalg.inv(source.ijk_to_ras) @ self.ijk_to_ras
        axes = np.rint(to_source[:3, :3])
        if (np.abs(axes).sum(axis=0) != 1).any() or (np.abs(axes).sum(axis=1) != 1).any():
            return None
        order = np.abs(axes).argmax(axis=0)
        flipped = np.flatnonzero(axes.sum(axis=0) < 0)
        voxels = np.flip(array.transpose(2, 1, 0).transpose(order), flipped).transpose(2, 1, 0)
        if voxels.shape != self.shape:
            return None
        sizes = np.array(source.shape[::-1])
        shift = np.where(axes.sum(axis=1) < 0, sizes - 1, 0)
        exact = np.eye(4)
        exact[:3, :3], exact[:3, 3] = axes, shift
        if not self.matches(Geometry(self.shape, source.ijk_to_ras @ exact)):
            return None
        return np.ascontiguousarray(voxels)

    def to_sitk(self, array: np.ndarray) -> sitk.Image:
        """SimpleITK image (LPS) of an array of this shape; the axes must be perpendicular."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        direction = (_RAS_TO_LPS[:3, :3] @ self.direction).ravel().tolist()
        image.SetSpacing(self.spacing.tolist())
        image.SetOrigin((_RAS_TO_LPS[:3, :3] @ self.origin).tolist())
        image.SetDirection(direction)
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Geometry of a SimpleITK image (LPS), or of the header that a reader holds; 4-D: of each volume."""
        dimension = image.GetDimension()
        direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
        matrix = np.eye(4)
        matrix[:3, :3] = direction * np.array(image.GetSpacing()[:3])
        matrix[:3, 3] = image.GetOrigin()[:3]
        return cls(tuple(reversed(image.GetSize()[:3])), _RAS_TO_LPS @ matrix)


def world_transform(node: Any) -> np.ndarray:
    """Matrix (4, 4) of the linear parent transforms of a node, RAS to RAS; the identity without any.

    Raises:
        ValueError: a parent transform is not linear.
    """
    import slicer
    import vtk

    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise ValueError(f"'{node.GetName()}' is under the non-linear transform '{parent.GetName()}': harden it first")
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in reversed(shape))


def _mm(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)
