"""Values of pure tissue: what a voxel would show that is full of one compartment.

A thick CEST voxel at the edge of a thin enhancing ring also holds necrosis and oedema, so that the mean over the ring
lies between them. Regression over many voxels with known shares gives the values of the compartments (Rousset et al.,
J Nucl Med 1998;39:904; Asllani et al., Magn Reson Med 2008;60:1362).

The value of a mixed voxel is not exactly the mean of its parts: signals mix, weighted by proton density, and a fit is
no linear function of them. What is missing is described by the interaction terms of experiments with mixtures (Scheffé,
J R Stat Soc B 1958;20:344). They are random effects around zero, whose size the voxels themselves tell by restricted
maximum likelihood (Patterson and Thompson, Biometrika 1971;58:545), so that a compartment is anchored by its pure
voxels where it has any, and its error grows where it has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np

from .anatomy.segment_names import COMPARTMENTS
from .resampling import LARGEST_BLOCK, blocks_of, correlations_of
from .sampling import linear
from .statistics import Sample

LEAST_FILLED = 0.95
"""Share of a voxel that the compartments have to fill together; what fills the rest is unknown."""
FEWEST_FULL_VOXELS = 3.0
"""Sum of the shares of a compartment, in voxels, below which nothing is said about it."""
INTERACTION_SIZES = (0.001, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Standard deviations of the interaction terms that are tried, relative to the range of the compartments' values."""
REST_SIZE = 3.0
"""Standard deviation, in the same unit, by which the unknown tissue in a voxel may differ from the compartments."""
_FEWEST_BLOCKS = 6
_LARGEST_LEVERAGE = 0.9


@dataclass(frozen=True)
class PureValue:
    """Value of a compartment without its neighbours.

    Attributes:
        value: The value.
        se: Standard error from noise and tissue, from the way in which tissues mix, and from the alignment; NaN where
            it is not known.
    """

    value: float
    se: float


class Mixture:
    """The shares of the compartments in every voxel, as aligned and with disturbed alignments.

    Args:
        shares: Partial volumes (K, J, I) of each compartment.
        shifts_ijk: Disturbances of the alignment (n, 3) in voxels, in the order (i, j, k).
    """

    def __init__(self, shares: Mapping[str, np.ndarray], shifts_ijk: np.ndarray) -> None:
        full = {name: float(share.sum()) for name, share in shares.items()}
        self.names = [name for name in COMPARTMENTS if full.get(name, 0.0) >= FEWEST_FULL_VOXELS]
        # Traces of other compartments leave their voxels out, because these are then not filled.
        self._shares = [np.stack([shares[name] for name in self.names], -1)] if self.names else []
        for shift in shifts_ijk if self.names else ():
            self._shares.append(_moved(self._shares[0], shift))

    def pure_values(self, array: np.ndarray) -> dict[str, PureValue]:
        """Return the value of each compartment in a map.

        The error of the alignment is the root mean square distance of the values with disturbed alignments from the
        value with the alignment as it is: a misplaced outline not only scatters the values, it also draws those of
        neighbours together.

        Args:
            array: Map (K, J, I); NaN where there is no value.

        Returns:
            Values by compartment; those that the voxels do not determine are left out.
        """
        if not self.names or (mixed := _voxels(array, self._shares[0])) is None:
            return {}
        size = _interaction_size(mixed)
        fit = _Regression(mixed, size)
        others = [_voxels(array, shares) for shares in self._shares[1:]]
        disturbed = [_Regression(voxels, size).values for voxels in others if voxels is not None]
        squares = np.square(np.array(disturbed) - fit.values).mean(0) if disturbed else np.zeros(len(fit.values))
        errors = np.sqrt(squares + np.square(fit.errors()))
        return {
            name: PureValue(float(value), float(error))
            for name, value, error in zip(self.names, fit.values, errors, strict=True)
        }


def _moved(shares: np.ndarray, shift_ijk: np.ndarray) -> np.ndarray:
    """Shares (K, J, I, compartment) at places moved by a shift; the outermost slices are continued."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shares.shape[:3]), indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1) + shift_ijk
    places = np.clip(index, 0, np.array(shares.shape[2::-1]) - 1)
    parts = [linear(shares[..., n], places).reshape(shares.shape[:3]) for n in range(shares.shape[3])]
    return np.stack(parts, -1)


@dataclass(frozen=True)
class _Voxels:
    """The voxels that the compartments fill.

    Attributes:
        parts: Share of each compartment in the part of a voxel that they fill, (n, compartment), sum 1.
        effects: Products of the shares, and the share of unknown tissue, (n, effect).
        measured: Values, shape (n,).
        index: Position (k, j, i) of each voxel, shape (n, 3).
        noise: Standard deviation of the values around the regression with all effects.
        scale: Range of the values of the compartments without effects.
    """

    parts: np.ndarray
    effects: np.ndarray
    measured: np.ndarray
    index: np.ndarray
    noise: float
    scale: float

    @property
    def design(self) -> np.ndarray:
        """Columns of the regression, (n, compartment + effect)."""
        return np.concatenate([self.parts, self.effects], axis=1)

    def penalties(self, size: float) -> np.ndarray:
        """Weights, shape (compartment + effect,), with which the columns are drawn towards zero."""
        interactions = self.effects.shape[1] - 1
        spread = self.scale * np.array([size] * interactions + [REST_SIZE])
        return np.concatenate([np.zeros(self.parts.shape[1]), (self.noise / spread) ** 2])


def _voxels(array: np.ndarray, shares: np.ndarray) -> _Voxels | None:
    """Collect the voxels that the compartments fill; None where they do not determine every compartment."""
    filled = shares.sum(-1)
    usable = np.isfinite(array) & (filled >= LEAST_FILLED)
    absolute = shares[usable].astype(np.float64)
    if len(absolute) <= absolute.shape[1] or np.linalg.matrix_rank(absolute, tol=1.0) < absolute.shape[1]:
        return None
    measured = array[usable].astype(np.float64)
    parts = absolute / absolute.sum(1, keepdims=True)
    pairs = [(parts[:, a], parts[:, b]) for a, b in itertools.combinations(range(parts.shape[1]), 2)]
    effects = [a * b for a, b in pairs] + [a * b * (a - b) for a, b in pairs] + [1 - np.minimum(absolute.sum(1), 1)]
    linear_values = np.linalg.lstsq(parts, measured, rcond=None)[0]
    design = np.concatenate([parts, np.stack(effects, 1)], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, measured, rcond=None)
    squares = float(np.square(measured - design @ solution).sum())
    noise = np.sqrt(squares / max(len(measured) - int(rank), 1))
    scale = max(float(np.ptp(linear_values)), float(measured.std()), 1e-12)
    return _Voxels(parts, np.stack(effects, 1), measured, np.argwhere(usable), max(float(noise), 1e-6 * scale), scale)


def _interaction_size(voxels: _Voxels) -> float:
    """Return the size of the interaction terms with the largest restricted likelihood."""
    if voxels.effects.shape[1] == 1:
        return INTERACTION_SIZES[0]
    return max(INTERACTION_SIZES, key=lambda size: _restricted_likelihood(voxels, size))


def _restricted_likelihood(voxels: _Voxels, size: float) -> float:
    """Logarithm of the restricted likelihood, up to a constant, with the noise at its best value."""
    design, penalties = voxels.design, voxels.penalties(size)
    normal = design.T @ design + np.diag(penalties)
    solution = np.linalg.solve(normal, design.T @ voxels.measured)
    squares = float(voxels.measured @ (voxels.measured - design @ solution))
    freedom = len(voxels.measured) - voxels.parts.shape[1]
    logarithms = np.log(penalties[penalties > 0]).sum() - np.linalg.slogdet(normal)[1]
    return float(0.5 * (logarithms - freedom * np.log(max(squares, 1e-300))))


class _Regression:
    """Values of the compartments with random effects of a given size.

    Attributes:
        values: Value of each compartment.
    """

    def __init__(self, voxels: _Voxels, size: float) -> None:
        self._voxels = voxels
        self._design, self._penalties = voxels.design, voxels.penalties(size)
        self._inverse = np.linalg.inv(self._design.T @ self._design + np.diag(self._penalties))
        self._solution = self._inverse @ (self._design.T @ voxels.measured)
        self.values = self._solution[: voxels.parts.shape[1]]

    def errors(self) -> np.ndarray:
        """Return the standard errors from noise and tissue and from the effects; NaN where there are too few blocks.

        Noise and tissue come from the residuals of blocks of voxels, so that errors that neighbours share count once,
        each residual enlarged by the leverage of its voxel (the estimator HC3 of MacKinnon and White, J Econometrics
        1985;29:305). What the effects may still hide is their part of the covariance of the estimates.
        """
        residual = self._voxels.measured - self._design @ self._solution
        labels = _blocks(residual, self._voxels.index)
        count = int(labels.max()) + 1
        size = len(self.values)
        if count < _FEWEST_BLOCKS:
            return np.full(size, nan)
        leverage = np.einsum("ni,ij,nj->n", self._design, self._inverse, self._design)
        enlarged = residual / (1 - np.minimum(leverage, _LARGEST_LEVERAGE))
        scores = np.zeros((count, self._design.shape[1]))
        np.add.at(scores, labels, self._design * enlarged[:, None])
        random = self._inverse @ (scores.T @ scores) @ self._inverse * count / (count - 1)
        hidden = self._voxels.noise**2 * (self._inverse * self._penalties) @ self._inverse
        return np.sqrt(np.diag(random + hidden)[:size])


def _blocks(residual: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the number of the block of each voxel; the edge follows from the correlation of the residuals."""
    sample = Sample(residual, np.ones(len(residual)), index)
    edge = min(max(1, 2 * len(correlations_of(sample))), LARGEST_BLOCK)
    labels = blocks_of(index, edge)
    while labels.max() + 1 < _FEWEST_BLOCKS and edge > 1:
        edge -= 1
        labels = blocks_of(index, edge)
    return labels
