"""A head that moves during a CEST acquisition: a continuous object, sampled at its true position in every measurement.

The object is given by formulas, so that moving it interpolates nothing: every voxel is the mean of points of the moved
head. Spectra are those of the tissue presets, by the Bloch-McConnell engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from CESTQuantLib.formats.presets import tissue_values
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.preprocessing.motion import Motion
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.phantom import preset_numbers, simulate_voxels
from NeuroCESTLib.core.progress import silent

TISSUES = ("white matter 3T", "grey matter 3T", "cerebrospinal fluid 3T", "oedema 3T", "glioma 3T")
M0 = np.array([700.0, 820.0, 1000.0, 880.0, 850.0, 500.0])
"""Reference signals of the tissues, the last one of the scalp."""
_SHIFTS = np.linspace(-0.7, 0.7, 71)
_SCALP = 5

Field = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MovingHead:
    """An acquisition of a moving head.

    Attributes:
        images: Images (measurement, K, J, I) without noise.
        spacing_mm: Voxel size along i, j, k.
        protocol: Its protocol.
        poses: Rigid motion (measurement, 4, 4) of the head, in mm about the centre of the field of view, along i, j, k.
        inside: Voxels (K, J, I) of the head at rest.
    """

    images: np.ndarray
    spacing_mm: tuple[float, float, float]
    protocol: Protocol
    poses: np.ndarray
    inside: np.ndarray

    def noisy(self, snr: float, seed: int = 0) -> np.ndarray:
        """Return magnitude images with noise of 1/SNR of the reference signal of white matter."""
        random, sd = np.random.default_rng(seed), M0[0] / snr
        real, imaginary = random.normal(0, sd, (2, *self.images.shape))
        return np.hypot(self.images + real, imaginary).astype(np.float32)


def z_protocol(count: int = 25, b1_uT: float = 1.0, reach_ppm: float = 6.0, m0: int = 1) -> Protocol:
    """Return a protocol of M0 and offsets that are denser near water, from positive to negative."""
    side = np.linspace(-1, 1, count)
    offsets = np.concatenate([np.full(m0, 300.0), -reach_ppm * np.sign(side) * np.abs(side) ** 1.5])
    return Protocol(
        3.0, torch.from_numpy(offsets), torch.tensor(b1_uT, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    )


def acquire_moving(
    protocol: Protocol,
    poses: np.ndarray,
    shape: tuple[int, int, int] = (10, 56, 48),
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0),
    *,
    field_moves: bool = False,
    scalp: bool = True,
    subsamples: int = 2,
    shares: Callable[[np.ndarray], np.ndarray] | None = None,
) -> MovingHead:
    """Acquire a head that moves between the measurements.

    Args:
        protocol: Protocol.
        poses: Rigid motions (measurement, 4, 4).
        shape: Voxels (K, J, I).
        spacing_mm: Voxel size along i, j, k.
        field_moves: Whether the B0 field moves with the head, or stays with the scanner.
        scalp: Whether there is a scalp with fat.
        subsamples: Points per voxel along every axis.
        shares: Shares (tissue, point) of the tissues at points (point, 3); by default those of :func:`head_shares`.
    """
    shares = shares or head_shares
    spectra = _spectra(_key(protocol))
    axes = []
    for n, size in zip(shape[::-1], spacing_mm, strict=True):
        fine = (np.arange(n * subsamples) + 0.5) / subsamples - n / 2
        axes.append(fine * size)
    x, y, z = np.meshgrid(*axes, indexing="ij")
    points = np.stack([x.transpose(2, 1, 0), y.transpose(2, 1, 0), z.transpose(2, 1, 0)], -1).reshape(-1, 3)
    fine_shape = tuple(n * subsamples for n in shape)

    def averaged(values: np.ndarray) -> np.ndarray:
        blocks = values.reshape(shape[0], subsamples, shape[1], subsamples, shape[2], subsamples)
        return blocks.mean((1, 3, 5))

    images = np.empty((len(poses), *shape))
    parts, last = None, None
    for n, pose in enumerate(poses):
        if last is None or not np.array_equal(pose, last):
            inverse = np.linalg.inv(pose)
            head_points = points @ inverse[:3, :3].T + inverse[:3, 3]
            parts, last = shares(head_points), pose
            density = M0[: len(parts), None] * parts * coil(points)
            shift = b0_field(head_points if field_moves else points)
        z_of = [np.interp(shift, _SHIFTS, spectra[t, :, n]) for t in range(len(TISSUES))]
        z_of.append(_fat(protocol, n, shift))
        used = range(len(M0)) if scalp else range(_SCALP)
        images[n] = averaged(sum(density[t] * z_of[t] for t in used).reshape(fine_shape))
    inside = averaged(shares(points)[: None if scalp else _SCALP].sum(0).reshape(fine_shape)) > 0.5
    return MovingHead(images, spacing_mm, protocol, poses, inside)


def rigid(rotation_deg: np.ndarray, translation_mm: np.ndarray) -> np.ndarray:
    """Return the matrix (4, 4) of a rotation vector and a translation."""
    angle = np.deg2rad(np.linalg.norm(rotation_deg))
    matrix = np.eye(4)
    if angle > 0:
        x, y, z = np.asarray(rotation_deg) / np.linalg.norm(rotation_deg)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = translation_mm
    return matrix


def head_shares(points: np.ndarray) -> np.ndarray:
    """Return the shares (tissue, point) of white and grey matter, fluid, oedema, tumour and scalp at points in mm."""
    x, y, z = points.T
    radius = np.sqrt((x / 66) ** 2 + (y / 84) ** 2 + (z / 58) ** 2)
    depth = (1 - radius) * 66  # about mm below the inner skull
    folds = np.sin(x / 3.9 + 1.3 * np.sin(z / 9)) * np.sin(y / 4.3 + 1.1 * np.sin(x / 11)) * np.sin(z / 4.7 + 0.7)
    pial = depth - 3.0 - 3.5 * np.clip(folds, 0, 1)
    white = depth - 6.5 - 5.0 * folds
    ventricles = np.maximum(*(_ball(points, (side * 11, -4, 8), (6, 26, 9)) for side in (-1, 1)))
    nuclei = np.maximum(*(_ball(points, (side * 20, 6, 2), (9, 15, 10)) for side in (-1, 1)))
    tumor, edema = _ball(points, (30, 28, 6), (11, 13, 12)), _ball(points, (29, 26, 6), (19, 21, 17))
    head = _step(depth)
    brain = _step(pial)
    inner = np.maximum(_step(white) - _step(nuclei), 0) * brain
    parts = np.zeros((6, len(points)))
    parts[0], parts[1], parts[2] = inner, brain - inner, head - brain
    for tissue, share in ((3, _step(edema) * brain), (4, _step(tumor) * brain), (2, _step(ventricles))):
        parts[:5] *= 1 - share
        parts[tissue] += share
    parts[_SCALP] = _step(depth + 13) - _step(depth + 8)  # beyond a dark skull
    return parts


def b0_field(points: np.ndarray) -> np.ndarray:
    """Return the B0 shift in ppm at points in mm: smooth, with a peak above the sinuses."""
    x, y, z = (points / np.array([66.0, 84.0, 58.0])).T
    return 0.08 * y + 0.25 * np.exp(-(x**2 + (y - 0.9) ** 2) / 0.12) - 0.06 * x + 0.05 * z


def coil(points: np.ndarray) -> np.ndarray:
    """Return the sensitivity of the coil, which stays with the scanner."""
    return 1 + 0.15 * (points**2).sum(1) / 80**2 + 0.05 * points[:, 0] / 66


def _ball(points: np.ndarray, center: tuple[float, float, float], axes: tuple[float, float, float]) -> np.ndarray:
    """Depth below the surface of an ellipsoid, about mm."""
    return (1 - np.sqrt((((points - center) / np.array(axes)) ** 2).sum(1))) * min(axes)


def _step(depth_mm: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(depth_mm / 0.35, -50, 50)))


def _fat(protocol: Protocol, number: int, shift: np.ndarray) -> np.ndarray:
    offset = float(protocol.offsets_ppm[number])
    return 1 - 0.9 / (1 + ((offset - shift + 3.4) / 0.5) ** 2)


def _key(protocol: Protocol) -> tuple[tuple[float, ...], tuple[float, ...]]:
    offsets = protocol.offsets_ppm.detach()
    return tuple(offsets.tolist()), tuple(protocol.b1_uT.detach().expand(len(offsets)).tolist())


@cache
def _spectra(key: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    """Spectra (tissue, B0 shift, measurement) of the presets."""
    offsets, b1 = (torch.tensor(values, dtype=torch.float64) for values in key)
    protocol = Protocol(3.0, offsets, b1, torch.tensor(2.0, dtype=torch.float64))
    model = tissue_model_from_dict(tissue_values("white matter 3T"), "white matter 3T")
    count = len(_SHIFTS)
    found = []
    for name in TISSUES:
        numbers = preset_numbers(name)
        entries = {path: np.full(count, numbers[path]) for path in model.entries}
        found.append(simulate_voxels(model, entries, protocol, _SHIFTS, np.ones(count), silent).numpy())
    return np.stack(found)


def residuals(motion: Motion, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is wrong in a found motion, relative to its reference image.

    Args:
        motion: Motion that was found.
        poses: True motion (measurement, 4, 4).

    Returns:
        Largest translation along an axis in mm, and rotation angle in degrees, of every measurement.
    """
    found = [rigid(*row) for row in zip(motion.rotations_deg, motion.translations_mm, strict=True)]
    left = np.array([np.linalg.inv(matrix) @ pose for matrix, pose in zip(found, poses, strict=True)])
    left = left @ np.linalg.inv(left[motion.reference])
    cosines = (np.trace(left[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    return np.abs(left[:, :3, 3]).max(1), np.rad2deg(np.arccos(np.clip(cosines, -1, 1)))
