"""Fraction and exchange rate by the analytic R1rho model: the batched fit against scipy least_squares."""

from __future__ import annotations

import argparse

import fit_problem
import numpy as np
from benchmarking import Table, seconds
from scipy.optimize import least_squares

from CESTQuantLib.tissue.fit import fit_tissue_model
from CESTQuantLib.tissue.spectra import ZSpectra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000, help="voxels of our fit")
    parser.add_argument("--peer-voxels", type=int, default=60, help="voxels of scipy's fit")
    arguments = parser.parse_args()
    protocol, model = fit_problem.protocol(), fit_problem.model()
    data, truth = fit_problem.simulated(arguments.voxels, "r1rho")
    settings = protocol.offsets_ppm.numpy(), protocol.b1_uT.numpy()
    some = slice(arguments.peer_voxels)

    def peer() -> list:
        bounds = (fit_problem.LOWER, fit_problem.UPPER)
        return [
            least_squares(
                lambda p, row=row: fit_problem.analytic_spectrum(p, *settings) - row,
                fit_problem.START,
                bounds=bounds,
                x_scale=fit_problem.START,
            )
            for row in data[some].numpy()
        ]

    table = Table("R1rho fit of fraction and exchange rate, 30 measurements", "voxel")
    peer_seconds, fits = seconds(peer)
    fit_tissue_model(ZSpectra(data[:4000], protocol), model, engine="r1rho")  # warm-up
    our_seconds, fit = seconds(lambda: fit_tissue_model(ZSpectra(data, protocol), model, engine="r1rho"), 3)
    accuracy = fit_problem.comparison(
        fit.result.parameters[some].double().numpy(),
        np.array([f.x for f in fits]),
        truth[some].numpy(),
        30 * fit.result.rmse[some].double().numpy() ** 2,
        np.array([2 * f.cost for f in fits]),
    )
    ours = our_seconds / arguments.voxels
    table.row("scipy least_squares, same model", peer_seconds / arguments.peer_voxels, ours, 100, accuracy)


if __name__ == "__main__":
    main()
