"""Values of pure tissue: what a voxel would show that is full of one compartment.

A thick CEST voxel at the edge of a thin enhancing ring also holds necrosis and oedema, so that the mean over the ring
lies between them. Where the compartments fill a voxel together, its value is the mean of theirs, weighted by their
shares; least squares over many voxels with known shares give the values of the compartments (Rousset et al., J Nucl Med
1998;39:904; Asllani et al., Magn Reson Med 2008;60:1362).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .anatomy.segment_names import COMPARTMENTS
from .resampling import LARGEST_BLOCK, blocks_of, correlations_of
from .results import NAN
from .sampling import linear
from .statistics import Sample

LEAST_FILLED = 0.95
"""Share of a voxel that the compartments have to fill together; what fills the rest is unknown."""
FEWEST_FULL_VOXELS = 3.0
"""Sum of the shares of a compartment, in voxels, below which nothing is said about it."""
_FEWEST_BLOCKS = 6


@dataclass(frozen=True)
class PureValue:
    """Value of a compartment without its neighbours.

    Attributes:
        value: The value.
        se: Standard error from noise and tissue (block bootstrap) and from the alignment; NaN where it is not known.
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

    def pure_values(self, array: np.ndarray, draws: int = 500, seed: int = 1) -> dict[str, PureValue]:
        """Return the value of each compartment in a map.

        Args:
            array: Map (K, J, I); NaN where there is no value.
            draws: Number of bootstrap samples.
            seed: Seed of the draws.

        Returns:
            Values by compartment; those that the voxels do not determine are left out.
        """
        if not self.names:
            return {}
        values, residual = _solve(array, self._shares[0])
        if values is None or residual is None:
            return {}
        disturbed = [found for shares in self._shares[1:] if (found := _solve(array, shares)[0]) is not None]
        alignment = np.std(disturbed, axis=0, ddof=1) if len(disturbed) > 1 else np.zeros(len(values))
        spatial = _bootstrap(residual, array, self._shares[0], draws, seed)
        errors = np.hypot(spatial, alignment)
        return {
            name: PureValue(float(value), float(error))
            for name, value, error in zip(self.names, values, errors, strict=True)
        }


def _moved(shares: np.ndarray, shift_ijk: np.ndarray) -> np.ndarray:
    """Shares (K, J, I, compartment) at places moved by a shift; the outermost slices are continued."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shares.shape[:3]), indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1) + shift_ijk
    places = np.clip(index, 0, np.array(shares.shape[2::-1]) - 1)
    parts = [linear(shares[..., n], places).reshape(shares.shape[:3]) for n in range(shares.shape[3])]
    return np.stack(parts, -1)


def _usable(array: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.isfinite(array) & (shares.sum(-1) >= LEAST_FILLED)


def _solve(array: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray | None, Sample | None]:
    """Least squares over the voxels that the compartments fill; also the residuals, as a sample."""
    usable = _usable(array, shares)
    parts = shares[usable].astype(np.float64)
    if len(parts) <= parts.shape[1] or np.linalg.matrix_rank(parts, tol=1.0) < parts.shape[1]:
        return None, None
    measured = array[usable].astype(np.float64)
    values = np.linalg.lstsq(parts, measured, rcond=None)[0]
    return values, Sample(measured - parts @ values, np.ones(len(measured)), np.argwhere(usable))


def _bootstrap(residual: Sample, array: np.ndarray, shares: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Standard errors from drawing blocks of voxels; NaN where there are too few blocks."""
    edge = min(max(1, 2 * len(correlations_of(residual))), LARGEST_BLOCK)
    labels = blocks_of(residual.index, edge)
    while labels.max() + 1 < _FEWEST_BLOCKS and edge > 1:
        edge -= 1
        labels = blocks_of(residual.index, edge)
    count = int(labels.max()) + 1
    usable = _usable(array, shares)
    parts, measured = shares[usable].astype(np.float64), array[usable].astype(np.float64)
    size = parts.shape[1]
    if count < _FEWEST_BLOCKS:
        return np.full(size, NAN)
    squares = np.zeros((count, size, size))
    products = np.zeros((count, size))
    np.add.at(squares, labels, parts[:, :, None] * parts[:, None, :])
    np.add.at(products, labels, parts * measured[:, None])
    chosen = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = np.einsum("db,bij->dij", chosen, squares)
    # A draw that misses a compartment says nothing about it: its value is drawn towards the fitted one by a trace.
    fitted = np.linalg.solve(squares.sum(0), products.sum(0))
    trace = 1e-3 * np.diag(np.diag(squares.sum(0)))
    found = np.linalg.solve(drawn + trace, (chosen @ products + trace @ fitted)[..., None])[..., 0]
    return found.std(axis=0, ddof=1) * np.sqrt(count / (count - 1))
