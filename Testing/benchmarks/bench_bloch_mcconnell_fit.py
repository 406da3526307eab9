"""Fraction and exchange rate by numerical Bloch-McConnell: the batched fit against scipy least_squares and expm."""

from __future__ import annotations

import fit_problem

CASE = fit_problem.Case(
    title="Numerical Bloch-McConnell fit of fraction and exchange rate, 30 measurements",
    peer="scipy least_squares with expm",
    engine="bloch-mcconnell",
    spectrum=fit_problem.numerical_spectrum,
    voxels=4_000,
    peer_voxels=40,
    warm_up_voxels=200,
    repeats=1,
    target=60,
)

if __name__ == "__main__":
    fit_problem.main(CASE, __doc__)
