"""Voxel grids in space; the only place that converts between voxel indices, RAS and LPS.

Arrays are in numpy's order (K, J, I), that is slice, row, column; index vectors and matrices are in the order (i, j, k)
of Slicer and ITK. World coordinates are RAS in mm unless a name says LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.scene.messages import called, quiet_vtk

if TYPE_CHECKING:
    import SimpleITK as sitk

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# NIfTI files store the geometry in single precision, so equal grids differ by about 1e-4 mm at their far corner.
_CORNER_TOLERANCE = 1e-3  # in voxels
_CORNER_TOLERANCE_MM = 1e-3
_FAR_MM = 100.0
"""Distance from the origin of the points that tell the matrix of a transform, about the size of a head."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in space.

    Geometries are equal if they hold the same voxels within the precision of image files.

    Attributes:
        shape: Number of voxels (K, J, I).
        ijk_to_ras: Matrix (4, 4), float64, from voxel index (i, j, k, 1) to world coordinates (R, A, S, 1) in mm.

    Raises:
        ValueError: The shape or the matrix is impossible.
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

    @classmethod
    def of(cls, volume_node: Any, world: bool = True) -> Geometry:
        """Return the geometry of a volume node.

        Args:
            volume_node: The volume node.
            world: Whether to apply parent transforms, which must be linear.

        Raises:
            ValueError: The node has no image, or a parent transform is not linear.
        """
        import slicer
        import vtk

        image = volume_node.GetImageData()
        if image is None or min(image.GetDimensions()) < 1:
            raise ValueError(f"the volume {called(volume_node)} has no image: load it first")
        matrix = vtk.vtkMatrix4x4()
        volume_node.GetIJKToRASMatrix(matrix)
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
        if world:
            ijk_to_ras = world_transform(volume_node) @ ijk_to_ras
        columns, rows, slices = image.GetDimensions()
        return cls((slices, rows, columns), ijk_to_ras)

    @classmethod
    def from_spacing(
        cls,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
        direction: np.ndarray | None = None,
    ) -> Geometry:
        """Build a geometry from its parts.

        Args:
            shape: Number of voxels (K, J, I).
            spacing: Voxel size along (i, j, k) in mm.
            origin: Centre of the first voxel (R, A, S) in mm.
            direction: Matrix (3, 3) whose columns are the unit vectors (RAS) of the axes i, j and k; the identity by
                default.
        """
        matrix = np.eye(4)
        matrix[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(spacing)
        matrix[:3, 3] = origin
        return cls(shape, matrix)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along (i, j, k) in mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def direction(self) -> np.ndarray:
        """Matrix (3, 3) whose columns are the unit vectors (RAS) of the axes i, j and k."""
        return self.ijk_to_ras[:3, :3] / self.spacing

    @property
    def origin(self) -> np.ndarray:
        """Centre of the first voxel, RAS in mm."""
        return self.ijk_to_ras[:3, 3].copy()

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    @property
    def ijk_to_lps(self) -> np.ndarray:
        """Matrix (4, 4) from voxel index to LPS in mm, the world coordinates of ITK and of transform files."""
        return _RAS_TO_LPS @ self.ijk_to_ras

    def matches(self, other: Geometry) -> bool:
        """Whether both grids hold the same voxels within the precision of image files."""
        return not self.difference(other)

    def difference(self, other: Geometry) -> str:
        """Describe in one phrase how ``other`` differs from this geometry; empty where it does not."""
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
        return f"the same grid, shifted by up to {distance:.3g} mm"

    def _corner_distance(self, other: Geometry) -> float:
        """Largest distance in mm between corresponding corners of two grids of the same shape."""
        last = np.array(self.shape[::-1]) - 1
        corners = np.array([[i, j, k, 1] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
        return float(np.linalg.norm(corners @ (self.ijk_to_ras - other.ijk_to_ras).T, axis=1).max())

    def apply_to(self, volume_node: Any) -> None:
        """Set this geometry on a volume node, whose image must have the same shape."""
        import slicer

        volume_node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(self.ijk_to_ras))

    def resample(self, array: np.ndarray, source: Geometry, linear: bool = True) -> np.ndarray:
        """Interpolate an array at the voxels of this geometry.

        Interpolation takes place in index space, so that sheared and left-handed grids are exact as well.

        Args:
            array: Values on the grid ``source``.
            source: Geometry of ``array``.
            linear: Whether to interpolate linearly; otherwise the nearest voxel counts.

        Returns:
            Values of the shape of this geometry; outside the source NaN, or 0 for integers.

        Raises:
            ValueError: The array does not have the shape of its geometry.
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
        """Bring an array into the voxel order of this geometry.

        Slicer's readers turn left-handed files into right-handed volumes, in which the same voxels are in another
        order.

        Args:
            array: Values on the grid ``source``.
            source: Geometry of ``array``.

        Returns:
            The values in the order of this geometry, or None where the two grids hold different voxels.
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
        """Return a SimpleITK image (LPS) of an array of this shape; the axes must be perpendicular."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        direction = (_RAS_TO_LPS[:3, :3] @ self.direction).ravel().tolist()
        image.SetSpacing(self.spacing.tolist())
        image.SetOrigin((_RAS_TO_LPS[:3, :3] @ self.origin).tolist())
        image.SetDirection(direction)
        return image

    @classmethod
    def from_lps(cls, shape: Sequence[int], ijk_to_lps: np.ndarray) -> Geometry:
        """Return the geometry of a matrix to LPS, the patient coordinates of DICOM and of ParaVision.

        Args:
            shape: Number of voxels (K, J, I).
            ijk_to_lps: Matrix (4, 4) from voxel index (i, j, k, 1) to LPS in mm.
        """
        slices, rows, columns = shape
        return cls((slices, rows, columns), _RAS_TO_LPS @ np.asarray(ijk_to_lps))

    @classmethod
    def from_sitk(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """Return the geometry of a SimpleITK image, or of an image file from its reader.

        Args:
            image: Image or reader (LPS). A 4-D image has the geometry of each of its volumes; a 2-D image is one
                axial slice of 1 mm.
        """
        dimension = image.GetDimension()
        used = min(dimension, 3)
        matrix = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:used, :used]
        matrix[:used, :used] = direction * np.array(image.GetSpacing()[:used])
        matrix[:used, 3] = image.GetOrigin()[:used]
        columns, rows, slices = (*image.GetSize(), 1, 1)[:3]
        return cls((slices, rows, columns), _RAS_TO_LPS @ matrix)


def world_transform(node: Any) -> np.ndarray:
    """Return the matrix (4, 4) of a node's parent transforms, RAS to RAS in mm; the identity without any.

    Raises:
        ValueError: A parent transform is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    matrix = matrix_to_world(parent)
    if matrix is None:
        raise ValueError(f"{called(node)} is under the non-linear transform {called(parent)}: harden it first")
    return matrix


def matrix_to_world(transform: Any) -> np.ndarray | None:
    """Return the matrix (4, 4) with which a transform node and its parents move nodes, RAS to RAS in mm.

    Slicer calls a composite of linear transforms linear, but gives the identity as its matrix. The matrix is therefore
    taken from where points go.

    Args:
        transform: Transform node.

    Returns:
        The matrix, or None where the transform or one of its parents is not linear.
    """
    import slicer
    import vtk

    if not transform.IsTransformToWorldLinear():
        return None
    stored = vtk.vtkMatrix4x4()
    with quiet_vtk():
        if transform.GetMatrixTransformToWorld(stored):
            return slicer.util.arrayFromVTKMatrix(stored)
    to_world = vtk.vtkGeneralTransform()
    transform.GetTransformToWorld(to_world)
    points = _FAR_MM * np.vstack([np.zeros(3), np.eye(3), -np.ones(3)])
    moved = np.array([to_world.TransformPoint(*point) for point in points])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (moved[1:4] - moved[0]).T / _FAR_MM, moved[0]
    expected = points @ matrix[:3, :3].T + matrix[:3, 3]
    return matrix if np.allclose(moved, expected, atol=1e-3, equal_nan=True) else None


def harden(volume: Any) -> None:
    """Apply the parent transforms of a volume node to it, also a composite of linear ones, which Slicer leaves out."""
    import slicer

    parent = volume.GetParentTransformNode()
    matrix = None if parent is None else matrix_to_world(parent)
    if matrix is None:
        volume.HardenTransform()
        return
    volume.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(None)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in reversed(shape))


def _mm(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)
