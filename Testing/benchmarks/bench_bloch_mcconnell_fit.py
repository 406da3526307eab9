"""Fraction and exchange rate by numerical Bloch-McConnell: the batched fit against scipy least_squares and expm."""

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
    parser.add_argument("--voxels", type=int, default=4_000, help="voxels of our fit")
    parser.add_argument("--peer-voxels", type=int, default=40, help="voxels of scipy's fit")
    arguments = parser.parse_args()
    protocol, model = fit_problem.protocol(), fit_problem.model()
    data, truth = fit_problem.simulated(arguments.voxels, "bloch-mcconnell")
    settings = protocol.offsets_ppm.numpy(), protocol.b1_uT.numpy()
    some = slice(arguments.peer_voxels)

    def peer() -> list:
        bounds = (fit_problem.LOWER, fit_problem.UPPER)
        return [
            least_squares(
                lambda p, row=row: fit_problem.numerical_spectrum(p, *settings) - row,
                fit_problem.START,
                bounds=bounds,
                x_scale=fit_problem.START,
            )
            for row in data[some].numpy()
        ]

    table = Table("Numerical Bloch-McConnell fit of fraction and exchange rate, 30 measurements", "voxel")
    peer_seconds, fits = seconds(peer)
    fit_tissue_model(ZSpectra(data[:200], protocol), model, engine="bloch-mcconnell")  # warm-up
    our_seconds, fit = seconds(lambda: fit_tissue_model(ZSpectra(data, protocol), model, engine="bloch-mcconnell"))
    accuracy = fit_problem.comparison(
        fit.result.parameters[some].numpy(),
        np.array([f.x for f in fits]),
        truth[some].numpy(),
        30 * fit.result.rmse[some].numpy() ** 2,
        np.array([2 * f.cost for f in fits]),
    )
    ours = our_seconds / arguments.voxels
    table.row("scipy least_squares with expm", peer_seconds / arguments.peer_voxels, ours, 25, accuracy)


if __name__ == "__main__":
    main()
