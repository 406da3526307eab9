"""Fraction and exchange rate by the analytic R1rho model: the batched fit against scipy least_squares."""

from __future__ import annotations

import fit_problem

CASE = fit_problem.Case(
    title="R1rho fit of fraction and exchange rate, 30 measurements",
    peer="scipy least_squares, same model",
    engine="r1rho",
    spectrum=fit_problem.analytic_spectrum,
    voxels=20_000,
    peer_voxels=60,
    warm_up_voxels=4000,
    repeats=3,
    target=500,
)

if __name__ == "__main__":
    fit_problem.main(CASE, __doc__)
