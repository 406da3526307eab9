"""Linear alignment of two brains in the space half-way between them, so that neither is preferred.

A point y of the half-way space lies at ``exp(-L) H⁻¹ y`` in the fixed and at ``exp(L) H y`` in the moving study, both
measured from the centres of the brains. H is half of a rigid start and L a matrix of logarithms of 6 or 12 parameters.
Both images are interpolated at such points and their mutual information is symmetric, so that an exchange of the
studies changes the sign of L and inverts H, and the map ``exp(L) H² exp(L)`` becomes its inverse. For two identical
images at the same place the derivative at L = 0 vanishes, and the identity is found exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from NeuroCESTLib.core.messages.input_errors import InputError

from .deformation import at_indices

BINS = 32
"""Bins of the joint histogram along each axis."""
OUTSIDE = -0.25
"""Value of everything outside the brain, whose intensities reach from 0 to 1."""
_RADIUS_MM = 80.0
"""A change of 1 in a parameter moves points at about this distance from the centre by 1 mm."""
_GAIN = 100.0
"""Factor of the mutual information in the objective, with which a gradient step has the right order of magnitude."""
_FEWEST_POINTS = 200
"""Smallest number of points in the fields of view of both images from which a mutual information is computed."""
_MOST_POINTS = 40_000
"""Largest number of points at which the images are compared."""
_SEED = 20


@dataclass(frozen=True)
class Side:
    """One of the two brains.

    Attributes:
        maps: Tensor (1, 3, D, H, W): intensities from 0 to 1 in the brain and ``OUTSIDE`` elsewhere; 1 for voxels that
            count; 1 for the brain and its close surroundings. The outermost voxels stand for everything beyond.
        to_index: Map (4, 4) from points (LPS mm) to indices of the maps along W, H and D.
        center_mm: Centre of mass of the brain (LPS mm).
        reach_mm: Largest distance of the brain and its surroundings from that centre along each axis (3,), LPS.
        axes: Principal axes of the brain as columns (3, 3), right-handed, longest first.
    """

    maps: Tensor
    to_index: np.ndarray
    center_mm: np.ndarray
    reach_mm: np.ndarray
    axes: np.ndarray

    def sample(self, points_mm: Tensor, channels: slice) -> Tensor:
        """Interpolate maps at points (n, 3) in LPS mm, giving (channels, n)."""
        matrix = torch.from_numpy(self.to_index).to(points_mm.dtype)
        index = points_mm @ matrix[:3, :3].t() + matrix[:3, 3]
        return at_indices(self.maps[:, channels], index)


class HalfwaySpace:
    """Two brains seen from the space half-way between them, for one rigid start."""

    def __init__(self, fixed: Side, moving: Side, start: np.ndarray, spacing_mm: float) -> None:
        """Lay out the points of the half-way space.

        Args:
            fixed: Fixed brain.
            moving: Moving brain.
            start: Rigid map (4, 4) from points of the fixed to points of the moving space, both relative to the centres
                of the brains, in mm.
            spacing_mm: Distance between the points, which lie at random places around a regular lattice.
        """
        self.fixed, self.moving = fixed, moving
        self.half = rigid_square_root(start)
        reach = np.maximum(
            np.abs(self.half[:3, :3]) @ fixed.reach_mm, np.abs(np.linalg.inv(self.half)[:3, :3]) @ moving.reach_mm
        ) + np.abs(self.half[:3, 3])
        counts = np.ceil(reach / spacing_mm).astype(int)
        lattice = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij"), -1).reshape(-1, 3)
        jitter = np.random.default_rng(_SEED).uniform(-0.5, 0.5, lattice.shape)
        self.points = torch.from_numpy(((lattice + jitter) * spacing_mm).astype(np.float32))

    def map_at(self, parameters: Sequence[float]) -> np.ndarray:
        """Return the map (4, 4) from points of the fixed to points of the moving space (LPS mm)."""
        with torch.no_grad():
            step = torch.matrix_exp(generator(torch.tensor(list(parameters), dtype=torch.float64))).numpy()
        there = np.eye(4)
        there[:3, 3] = self.moving.center_mm
        back = np.eye(4)
        back[:3, 3] = -self.fixed.center_mm
        return there @ step @ self.half @ self.half @ step @ back

    def mutual_information(self, parameters: Sequence[float]) -> float:
        """Compute the mutual information in nats; 0 where too few points lie in both fields of view."""
        values = torch.tensor(list(parameters), dtype=torch.float64)
        with torch.no_grad():
            points, weights = self._used(values)
            return float(self._information(values, points, weights)) if len(points) >= _FEWEST_POINTS else 0.0

    def optimize(
        self, parameters: Sequence[float], iterations: int, watch: Callable[[int], None]
    ) -> tuple[list[float], float]:
        """Maximise the mutual information from given parameters by L-BFGS.

        Args:
            parameters: 6 parameters for a rigid or 12 for an affine map.
            iterations: Largest number of iterations.
            watch: Called with the number of evaluations so far; may raise to cancel.

        Returns:
            The best parameters, and their mutual information in nats.

        Raises:
            ValueError: The brains do not overlap enough.
        """
        with torch.inference_mode(False), torch.no_grad():
            values = torch.tensor(list(parameters), dtype=torch.float64, requires_grad=True)
            points, weights = self._used(values)
        if len(points) < _FEWEST_POINTS:
            raise InputError("moving", "the brains do not overlap enough to be aligned")
        optimizer = _LBFGS(
            [values], max_iter=iterations, tolerance_grad=1e-4, tolerance_change=1e-5, line_search_fn="strong_wolfe"
        )
        best = list(parameters), -math.inf
        evaluations = 0

        def objective() -> Tensor:
            nonlocal best, evaluations
            evaluations += 1
            watch(evaluations)
            values.grad = None
            with torch.enable_grad():
                information = self._information(values, points, weights)
                loss = -_GAIN * information
                loss.backward()
            if float(information.detach()) > best[1]:
                best = values.detach().tolist(), float(information.detach())
            return loss.detach()

        with torch.inference_mode(False):
            optimizer.step(objective)
        return best

    def _places(self, parameters: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points (n, 3) of the half-way space in the fixed and in the moving space (LPS mm)."""
        step = generator(parameters)
        half = torch.from_numpy(self.half)
        to_fixed = torch.matrix_exp(-step) @ torch.linalg.inv(half)
        to_moving = torch.matrix_exp(step) @ half
        return _applied(to_fixed, points, self.fixed.center_mm), _applied(to_moving, points, self.moving.center_mm)

    def _used(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points in or near one of the brains and in both fields of view, and their weights."""
        at_fixed, at_moving = self._places(parameters, self.points)
        fixed, moving = self.fixed.sample(at_fixed, slice(1, 3)), self.moving.sample(at_moving, slice(1, 3))
        weights = fixed[0] * moving[0] * torch.maximum(fixed[1], moving[1])
        used = torch.nonzero(weights > 0.05).flatten()
        used = used[:: max(1, -(-len(used) // _MOST_POINTS))]
        return self.points[used], weights[used]

    def _information(self, parameters: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        at_fixed, at_moving = self._places(parameters, points)
        first = self.fixed.sample(at_fixed, slice(0, 1))[0]
        second = self.moving.sample(at_moving, slice(0, 1))[0]
        return mutual_information(first, second, weights)


class _LBFGS(torch.optim.LBFGS):
    """The optimiser of torch without its compiler, which would be loaded to add the parameters and takes seconds."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        add = torch.optim.Optimizer.add_param_group
        getattr(add, "__wrapped__", add)(self, param_group)


def _applied(matrix: Tensor, points: Tensor, center_mm: np.ndarray) -> Tensor:
    """Apply a map (4, 4) that is relative to a centre to points (n, 3)."""
    return points @ matrix[:3, :3].float().t() + (matrix[:3, 3] + torch.from_numpy(center_mm)).float()


def generator(parameters: Tensor) -> Tensor:
    """Return the matrix of logarithms (4, 4) of half of a map.

    Args:
        parameters: Half translation in mm (3), half rotation (3), and for an affine map the symmetric part (6) with its
            diagonal first; all in mm at a distance of 80 mm.
    """
    matrix = parameters.new_zeros(4, 4)
    scaled = parameters[3:] / _RADIUS_MM
    matrix[:3, 3] = parameters[:3]
    for number, (row, column) in enumerate(((2, 1), (0, 2), (1, 0))):
        matrix[row, column] = matrix[row, column] + scaled[number]
        matrix[column, row] = matrix[column, row] - scaled[number]
    if len(parameters) > 6:
        for axis in range(3):
            matrix[axis, axis] = matrix[axis, axis] + scaled[3 + axis]
        for number, (row, column) in enumerate(((2, 1), (0, 2), (1, 0))):
            matrix[row, column] = matrix[row, column] + scaled[6 + number]
            matrix[column, row] = matrix[column, row] + scaled[6 + number]
    return matrix


def rigid_square_root(matrix: np.ndarray) -> np.ndarray:
    """Return the rigid map (4, 4) that gives ``matrix`` when it is applied twice."""
    rotation = matrix[:3, :3]
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    angle = math.atan2(np.linalg.norm(axis) / 2, (np.trace(rotation) - 1) / 2)
    if np.linalg.norm(axis) < 1e-9:  # no rotation, or one by 180 degrees about the eigenvector of the eigenvalue 1
        axis = np.linalg.eigh((rotation + rotation.T) / 2)[1][:, -1] * (angle > 1)
    root = np.eye(4)
    root[:3, :3] = rotation_matrix(axis, angle / 2)
    root[:3, 3] = np.linalg.solve(root[:3, :3] + np.eye(3), matrix[:3, 3])
    return root


def rotation_matrix(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation (3, 3) by an angle in radians about an axis; a zero axis gives the identity."""
    length = float(np.linalg.norm(axis))
    if length == 0:
        return np.eye(3)
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def mutual_information(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Compute the mutual information of paired intensities from ``OUTSIDE`` to 1, in nats.

    The joint histogram has Parzen windows of quadratic B-splines along both axes, so that it treats both alike.

    Args:
        first: Intensities (n,).
        second: Intensities of the same points (n,).
        weights: Weights of the points (n,).

    Returns:
        A scalar with a gradient with respect to both intensities.
    """
    scale = (BINS - 3) / (1 - OUTSIDE)
    positions = [((values - OUTSIDE) * scale).clamp(0, BINS - 3) + 1 for values in (first, second)]
    joint = _JointHistogram.apply(*positions, weights)
    joint = joint / joint.sum().clamp_min(1e-12)
    least = 1e-12
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint.clamp_min(least) / independent.clamp_min(least**2)).log()).sum()


class _JointHistogram(torch.autograd.Function):
    """Sum over the points of weight w of ``w b(u - i) b(v - j)`` with the quadratic B-spline b, as (BINS, BINS)."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(first, second, weights)
        rows, columns = _splines(first), _splines(second)
        counts = first.new_zeros(BINS * BINS, dtype=torch.float64)
        for row, share in rows:
            weighted = share * weights
            for column, other in columns:
                counts += torch.bincount(row * BINS + column, (weighted * other).double(), BINS * BINS)
        return counts.view(BINS, BINS)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second, weights = ctx.saved_tensors
        flat = gradient.to(first.dtype).flatten()
        rows, columns = _splines(first, True), _splines(second, True)
        by_first, by_second = torch.zeros_like(first), torch.zeros_like(second)
        for row, share, slope in rows:
            for column, other, other_slope in columns:
                values = flat[row * BINS + column]
                by_first.addcmul_(slope * other, values)
                by_second.addcmul_(share * other_slope, values)
        return by_first * weights, by_second * weights, None


def _splines(positions: Tensor, derivative: bool = False) -> list[tuple[Tensor, ...]]:
    """Return bin and value, or bin, value and slope, of the three quadratic B-splines that are not zero."""
    nearest = (positions + 0.5).floor()
    t = positions - nearest
    index = nearest.long()
    values = [(0.5 - t).square() / 2, 0.75 - t.square(), (0.5 + t).square() / 2]
    if not derivative:
        return [(index + step, value) for step, value in zip((-1, 0, 1), values, strict=True)]
    slopes = [t - 0.5, -2 * t, t + 0.5]
    return [(index + step, value, slope) for step, value, slope in zip((-1, 0, 1), values, slopes, strict=True)]
