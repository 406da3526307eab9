"""Rigid motion between the images of an acquisition, found and corrected although their contrast changes.

Near water an image looks different from all others, so it cannot be registered to one of them directly. Each image is
registered to a synthetic reference with its own contrast: around every voxel, the image is modelled as a linear
function of one bright image, with coefficients that vary smoothly over the volume. Saturation, B0 and coil change the
coefficients, but a shift of the anatomy cannot be written in this way, because all its edges move to one side.

The bright image is the one that resembles the others most; where most images are strongly saturated, images are bright
beside these, and not beside M0. The difference to the synthetic reference is minimised by
Gauss-Newton iterations with the gradient of the reference, not that of the noisy image (compare Baker and Matthews, Int
J Comput Vis 2004;56:221), first on smoothed images. All resampling is SimpleITK's, with cubic splines, once from the
acquired image. Images too dark to tell their position take that of their neighbours in time, and images that did not
move measurably stay exactly as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from NeuroCESTLib.core.progress import Progress, silent

_TASK = "finding motion"
_FEWEST_IMAGES = 4
_FEWEST_SLICES_FOR_TWO = 10
"""From this number of slices, two at either end do not count, because motion brings other tissue into them."""
_FEWEST_SLICES = 5
"""With fewer slices, motion through the plane cannot be seen, and only that within it is corrected."""
_PASSES = (1.5, 0.7)
"""Smoothing in voxels (standard deviation), pass by pass."""
_WINDOW_VOXELS, _WINDOW_VOXELS_IN_SLICES = 3.0, 2.0
"""Standard deviation of the window in which coefficients are determined, in volumes and within single slices."""
_MOST_STEPS = 15
_SETTLED_VOXELS = 3e-3
"""Displacement, in voxels, below which the iteration ends."""
_LARGEST_CONDITION = 1e12
_FEWEST_VOXELS = 50
_BRIGHT_SHARE = 0.4
"""Squared signal, as a share of that of the brightest image, from which an image may be the reference."""
_OBJECT_SHARE = 0.15
"""Share of the bright signal from which a voxel belongs to the object."""
_NOISE_SHARE = 0.01
"""Misfit, as a share of the bright signal, below which all voxels weigh alike."""
_RIDGE = 1e-4
"""Added to the diagonal of the local fits, relative to the square of the bright signal."""
_BLOCK_VOXELS = (4, 8, 8)
"""Blocks whose misfits count as independent."""
_OVERESTIMATE = 2.0
"""By how much the spread between blocks overestimates the error, on simulated heads: misfits of neighbours cancel."""
_UNCERTAIN_VOXELS = 0.06
"""Error of the displacement, in voxels, from which an image takes the position of its neighbours."""
_DARK_SHARE = 0.35
"""Squared signal, as a share of that of the reference image, below which an image counts as too dark."""
_LEVEL_QUANTILE = 0.75
"""Quantile of the squared signals that stands for the brightest where most images would be too dark beside this one."""
_STILL_VOXELS = 0.02
"""Displacement, in voxels, up to which an image counts as still."""
_STILL_ERRORS = 1.0
"""Errors of its displacement up to which an image counts as still, where others moved."""
_MOVING_VOXELS, _MOVING_ERRORS = 0.04, 6.0
"""Displacement that one image at least must exceed, in voxels and in errors; otherwise all images count as still."""


@dataclass(frozen=True)
class Motion:
    """Motion of every image against the reference image.

    Attributes:
        translations_mm: Translations (image, 3) along the image axes i, j, k.
        rotations_deg: Rotations (image, 3) about these axes through the middle of the field of view.
        displacements_mm: Root mean square displacement (image,) of the object.
        errors_mm: Estimated error (image,) of the displacement; NaN where the position was not measured.
        moved: Whether an image was resampled (image,); the others stay as they were acquired.
        measured: Whether the position was measured (image,); otherwise it is that of the neighbours in time.
        reference: Index of the reference image.
        in_plane: Whether only motion within the slices was looked for.
    """

    translations_mm: np.ndarray
    rotations_deg: np.ndarray
    displacements_mm: np.ndarray
    errors_mm: np.ndarray
    moved: np.ndarray
    measured: np.ndarray
    reference: int
    in_plane: bool


def correct_motion(
    images: np.ndarray, spacing_mm: Sequence[float], *, progress: Progress = silent
) -> tuple[np.ndarray, Motion]:
    """Find the rigid motion of every image and undo it.

    Args:
        images: Images (image, K, J, I) of one acquisition, in the order in which they were measured.
        spacing_mm: Voxel size along (i, j, k).
        progress: Called with the fraction done and a message; may raise to cancel.

    Returns:
        The images in the position of the reference image, of the same shape and type, and their motion.

    Raises:
        ValueError: There are fewer than four images, or they hold nothing that could be registered.
    """
    if len(images) < _FEWEST_IMAGES:
        raise ValueError(f"motion correction needs at least {_FEWEST_IMAGES} images, not {len(images)}")
    search = _Search(images, np.asarray(spacing_mm, dtype=np.float64))
    for count, sigma in enumerate(_PASSES):

        def report(share: float, done: int = count) -> None:
            progress((done + share) / len(_PASSES), _TASK)

        search.run(sigma, report)
    motion, matrices = search.motion()
    corrected = images.copy()
    for index in np.flatnonzero(motion.moved):
        corrected[index] = search.corrected(images[index], matrices[index])
    return corrected, motion


class _Search:
    """The positions of all images while they are looked for.

    Positions are matrices (4, 4) from the common grid to the image, in mm along the image axes.
    """

    def __init__(self, images: np.ndarray, spacing: np.ndarray) -> None:
        self._images, self._spacing = np.nan_to_num(np.asarray(images, dtype=np.float64)), spacing
        shape = images.shape[1:]
        self._planar = shape[0] < _FEWEST_SLICES
        self._free = [2, 3, 4] if self._planar else [0, 1, 2, 3, 4, 5]
        mean = np.sqrt((self._images**2).mean(0))
        self._bright = float(np.percentile(mean, 95))
        self._object = mean > _OBJECT_SHARE * self._bright
        self._valid = _without_border(shape, self._planar)
        self._inside = self._valid & _grown(self._object, self._planar)
        if not self._bright > 0 or (self._object & self._valid).sum() < _FEWEST_VOXELS:
            raise ValueError("motion correction found no object in the images")
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)[..., ::-1] * spacing
        self._center = (np.array(shape[::-1]) - 1) / 2 * spacing
        self._points = grid - self._center
        squares = (self._points[self._object] ** 2).mean(0)
        levers = [squares[1] + squares[2], squares[0] + squares[2], squares[0] + squares[1], 1.0, 1.0, 1.0]
        self._squared_levers = np.array(levers)[self._free]
        edges = np.array((1 if self._planar else _BLOCK_VOXELS[0], *_BLOCK_VOXELS[1:]))
        block = np.ravel_multi_index(tuple(np.indices(shape) // edges[:, None, None, None]), shape)
        self._blocks = np.unique(block[self._inside], return_inverse=True)[1]
        self._matrices = np.tile(np.eye(4), (len(images), 1, 1))
        self._errors = np.zeros(len(images))
        of_object = self._images[:, self._object]
        self._energies = (of_object**2).mean(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            likeness = np.median(np.nan_to_num(np.corrcoef(of_object)), axis=1)
        largest = self._energies.max()
        self._level = _bright_level(self._energies)
        bright = self._energies >= self._level if self._level < largest else self._energies > _BRIGHT_SHARE * largest
        self._reference = int(np.argmax(np.where(bright, likeness, -np.inf)))

    def run(self, sigma: float, report: Callable[[float], None]) -> None:
        """Register every image once.

        Args:
            sigma: Smoothing in voxels.
            report: Called with the share that is done.
        """
        reference = self._smooth(self._images[self._reference], sigma)
        model = _LocalModel(reference, self._bright, self._spacing, self._planar, self._valid)
        for index, image in enumerate(self._images):
            if index != self._reference:
                smoothed = self._smooth(image, sigma)
                self._matrices[index], self._errors[index] = self._register(smoothed, self._matrices[index], model)
            report((index + 1) / len(self._images))

    def _register(self, image: np.ndarray, matrix: np.ndarray, model: _LocalModel) -> tuple[np.ndarray, float]:
        """Return the position of an image against its synthetic reference, and the error of its displacement in mm."""
        for _ in range(_MOST_STEPS):
            found = self._resampled(image, matrix)
            predicted, gradient = model.fit(found)
            misfit = found - predicted
            variance = (_NOISE_SHARE * self._bright) ** 2 + model.window(misfit**2)
            jacobian = self._jacobian(gradient)
            weighted = jacobian / variance[self._inside][:, None]
            scores = weighted * misfit[self._inside][:, None]
            normal = weighted.T @ jacobian
            if not np.isfinite(normal).all() or np.linalg.cond(normal) > _LARGEST_CONDITION:
                return matrix, np.inf
            step = np.linalg.solve(normal, -scores.sum(0))
            length = float(np.sqrt(step**2 @ self._squared_levers))
            matrix = matrix @ self._rigid(step * min(1.0, self._voxel / max(length, 1e-12)))
            if length < _SETTLED_VOXELS * self._voxel:
                break
        inverse = np.linalg.inv(normal)
        sums = np.stack([np.bincount(self._blocks, column) for column in scores.T])
        variances = np.diag(inverse @ (sums @ sums.T) @ inverse)
        return matrix, float(np.sqrt(variances @ self._squared_levers)) / _OVERESTIMATE

    def _jacobian(self, gradient: np.ndarray) -> np.ndarray:
        """Derivatives (voxel, parameter) of the reference by rotations about and translations along the axes."""
        inside = gradient[self._inside]
        turned = np.cross(self._points[self._inside], inside)  # gradient · (axis × point) = axis · (point × gradient)
        return np.concatenate([turned, inside], -1)[:, self._free]

    def _rigid(self, parameters: np.ndarray) -> np.ndarray:
        """Matrix of a rotation vector (rad) and a translation (mm), without those that are not free."""
        full = np.zeros(6)
        full[self._free] = parameters
        return _matrix(full, self._center)

    @property
    def _voxel(self) -> float:
        return float(self._spacing[:2].mean() if self._planar else self._spacing.mean())

    def displacement(self, matrix: np.ndarray) -> float:
        """Root mean square displacement of the object in mm."""
        points = self._points[self._object] + self._center
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        return float(np.sqrt(((moved - points) ** 2).sum(1).mean()))

    def _smooth(self, image: np.ndarray, sigma: float) -> np.ndarray:
        import SimpleITK as sitk

        def smooth(array: np.ndarray) -> np.ndarray:
            return sitk.GetArrayFromImage(sitk.DiscreteGaussian(sitk.GetImageFromArray(array), [sigma**2] * array.ndim))

        return np.stack([smooth(plane) for plane in image]) if self._planar else smooth(image)

    def _resampled(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        if np.array_equal(matrix, np.eye(4)):
            return image
        if not self._planar:
            return _resampled(image, matrix[:3, :3], matrix[:3, 3], self._spacing)
        planes = [_resampled(plane, matrix[:2, :2], matrix[:2, 3], self._spacing[:2]) for plane in image]
        return np.stack(planes)

    def corrected(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return an image on the common grid, in its own type and range; what is not finite stays where it was."""
        finite = np.isfinite(image)
        filled = np.where(finite, image, 0).astype(np.float64)
        found = self._resampled(filled, matrix).clip(filled.min(), filled.max())
        if np.issubdtype(image.dtype, np.integer):
            found = np.rint(found)
        return np.where(finite, found, image).astype(image.dtype)

    def _is_measured(self) -> np.ndarray:
        bright = self._energies > _DARK_SHARE * min(self._energies[self._reference], self._level)
        return bright & np.isfinite(self._errors) & (self._errors <= _UNCERTAIN_VOXELS * self._voxel)

    def motion(self) -> tuple[Motion, np.ndarray]:
        """Return the motion against the reference image, and the positions."""
        measured = self._is_measured()
        sure = np.flatnonzero(measured)
        parameters = np.array([_parameters(matrix, self._center) for matrix in self._matrices])
        every = np.arange(len(parameters))
        parameters = np.stack([np.interp(every, sure, column[sure]) for column in parameters.T], axis=1)
        matrices = np.array([_matrix(row, self._center) for row in parameters])
        displacements = np.array([self.displacement(matrix) for matrix in matrices])
        errors = np.interp(every, sure, self._errors[sure])
        moving = displacements > np.maximum(_MOVING_VOXELS * self._voxel, _MOVING_ERRORS * errors)
        moved = displacements > np.maximum(_STILL_VOXELS * self._voxel, _STILL_ERRORS * errors)
        moved &= bool(moving[measured].any())
        motion = Motion(
            parameters[:, 3:],
            np.rad2deg(parameters[:, :3]),
            displacements,
            np.where(measured, errors, np.nan),
            moved,
            measured,
            self._reference,
            self._planar,
        )
        return motion, matrices


class _LocalModel:
    """Images as a linear function of a reference image, with coefficients that vary smoothly over the volume."""

    def __init__(
        self, reference: np.ndarray, bright: float, spacing: np.ndarray, planar: bool, valid: np.ndarray
    ) -> None:
        """Prepare the fits.

        Args:
            reference: Reference image (K, J, I).
            bright: Its bright signal.
            spacing: Voxel size along (i, j, k).
            planar: Whether slices are modelled one by one.
            valid: Voxels that count.
        """
        self._planar, self._valid = planar, valid.astype(np.float64)
        self._basis = np.stack([reference, np.full_like(reference, 0.5 * bright)])
        normal = np.empty((*reference.shape, 2, 2))
        for i, j in ((0, 0), (0, 1), (1, 1)):
            normal[..., i, j] = normal[..., j, i] = self.window(self._valid * self._basis[i] * self._basis[j])
        self._inverse = np.linalg.inv(normal + _RIDGE * bright**2 * np.eye(2))
        self._gradient = np.zeros((*reference.shape, 3))
        for axis in range(1 if planar else 0, 3):
            self._gradient[..., 2 - axis] = _derivative(reference, axis) / spacing[2 - axis]

    def fit(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the model of an image, and its gradient (K, J, I, 3) per mm along (i, j, k)."""
        counted = self._valid * image
        products = np.stack([self.window(image * counted) for image in self._basis], -1)
        factor, offset = np.moveaxis((self._inverse @ products[..., None])[..., 0], -1, 0)
        return factor * self._basis[0] + offset * self._basis[1], factor[..., None] * self._gradient

    def window(self, image: np.ndarray) -> np.ndarray:
        """Return the mean around every voxel."""
        import SimpleITK as sitk

        found, width = sitk.GetImageFromArray(image), _WINDOW_VOXELS_IN_SLICES if self._planar else _WINDOW_VOXELS
        for axis in range(2 if self._planar else 3):
            found = sitk.RecursiveGaussian(found, width, direction=axis)
        return sitk.GetArrayFromImage(found)


def _bright_level(energies: np.ndarray) -> float:
    """Squared signal (image,) of bright images: the largest, but not that of a few M0 among strongly saturated ones."""
    largest = float(energies.max())
    return largest if np.median(energies) > _DARK_SHARE * largest else float(np.quantile(energies, _LEVEL_QUANTILE))


def _without_border(shape: tuple[int, ...], planar: bool) -> np.ndarray:
    """Mask of the voxels that motion does not take from beyond the field of view."""
    mask = np.zeros(shape, bool)
    ends = 0 if planar else 1 if shape[0] < _FEWEST_SLICES_FOR_TWO else 2
    mask[ends : shape[0] - ends, 2:-2, 2:-2] = True
    return mask


def _grown(mask: np.ndarray, planar: bool) -> np.ndarray:
    """Mask with one more voxel on every side."""
    import SimpleITK as sitk

    radius = [1, 1, 0 if planar else 1]
    return sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), radius)) > 0


def _derivative(image: np.ndarray, axis: int) -> np.ndarray:
    """Derivative along an axis per voxel, of fourth order; wrong in the two voxels at either end."""

    def shifted(by: int) -> np.ndarray:
        return np.roll(image, -by, axis)

    return (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / 12


def _resampled(image: np.ndarray, rotation: np.ndarray, translation: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return an image on its own grid, taken at ``rotation @ point + translation``."""
    import SimpleITK as sitk

    moving = sitk.GetImageFromArray(image)
    moving.SetSpacing([float(size) for size in spacing])
    transform = sitk.AffineTransform(image.ndim)
    transform.SetMatrix(rotation.ravel().tolist())
    transform.SetTranslation(translation.tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(moving)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return sitk.GetArrayFromImage(resampler.Execute(moving))


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-14:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _parameters(matrix: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Rotation vector (rad) and translation (mm) of a matrix."""
    rotation = matrix[:3, :3]
    differences = [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    axis = np.array(differences) / 2
    sine = float(np.linalg.norm(axis))
    angle = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    vector = axis if sine < 1e-14 else axis / sine * angle
    return np.concatenate([vector, matrix[:3, 3] - center + rotation @ center])


def _matrix(parameters: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Matrix of a rotation vector (rad) about the center and a translation (mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(parameters[:3])
    matrix[:3, 3] = center - matrix[:3, :3] @ center + parameters[3:]
    return matrix
