"""Spatial prior: less noise, edges where they are, standard deviations that hold, and no pull between what is apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from CESTQuantLib.fitting.least_squares import levenberg_marquardt
from CESTQuantLib.fitting.problem import GaussianPrior, LeastSquaresProblem
from CESTQuantLib.fitting.spatial.neighbors import Neighbors
from CESTQuantLib.fitting.spatial.prior import SpatialFit, fit_with_neighbors

SIDE, CORE = 24, slice(8, 16)
TIMES = torch.linspace(0.0, 3.0, 12, dtype=torch.float64).unsqueeze(1)
LOWER, UPPER = torch.zeros(2).double(), torch.tensor([10.0, 5.0]).double()
NOISE = 0.1


def decay(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and rate of an exponential decay."""
    shape = torch.exp(-TIMES * parameters[1])
    return parameters[0] * shape, torch.stack((shape, -parameters[0] * TIMES * shape))


def with_core(inside: float, outside: float) -> Tensor:
    """Return a map (voxel,) with a square core."""
    values = torch.full((SIDE, SIDE), outside, dtype=torch.float64)
    values[CORE, CORE] = inside
    return values.flatten()


def noisy_problem(truth: Tensor, noise_sd: float = NOISE, **more: object) -> LeastSquaresProblem:
    """Return the fit of noisy decays with the parameters ``truth`` (voxel, p)."""
    noise = torch.randn(len(truth), len(TIMES), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    data = decay(truth.T)[0].T + noise_sd * noise
    return LeastSquaresProblem(decay, data, torch.ones(2).double(), LOWER, UPPER, **more)


def own_and_joint(problem: LeastSquaresProblem, neighbors: Neighbors | None = None) -> tuple[Tensor, SpatialFit]:
    """Return the parameters of the voxels' own fits, and the joint fit."""
    own = levenberg_marquardt(decay, problem.data, problem.start, LOWER, UPPER, valid=problem.valid)
    grid = Neighbors.of_mask(np.arange(SIDE**2), (SIDE, SIDE), (2.0, 2.0)) if neighbors is None else neighbors
    return own.parameters, fit_with_neighbors(own, problem, grid)


def error(values: Tensor, truth: Tensor) -> Tensor:
    return (values - truth).square().mean(0).sqrt()


@pytest.fixture(scope="module")
def tumor() -> tuple[Tensor, Tensor, SpatialFit]:
    truth = torch.stack((with_core(2.0, 1.0), with_core(0.6, 1.0)), 1)
    return truth, *own_and_joint(noisy_problem(truth))


def test_errors_of_all_parameters_fall_below_half(tumor: tuple[Tensor, Tensor, SpatialFit]) -> None:
    truth, own, joint = tumor
    assert (error(joint.result.parameters, truth) < 0.5 * error(own, truth)).all()


def test_an_edge_stays_within_one_voxel(tumor: tuple[Tensor, Tensor, SpatialFit]) -> None:
    amplitude = tumor[2].result.parameters[:, 0].reshape(SIDE, SIDE)
    across = amplitude[10:14].mean(0)  # a profile through both edges
    assert (across[CORE][[0, -1]] > 1.9).all()
    assert (across[[CORE.start - 1, CORE.stop]] < 1.1).all()
    assert 0.01 < tumor[2].edges < 0.1


def test_standard_deviations_of_the_posterior_hold(tumor: tuple[Tensor, Tensor, SpatialFit]) -> None:
    truth, _, joint = tumor
    deviation = joint.result.standard_errors
    inside = ((joint.result.parameters - truth).abs() < 1.96 * deviation).double().mean(0)
    assert (inside > 0.92).all()
    assert (joint.error_ratio < 0.7).all()
    assert joint.noise_sd == pytest.approx(NOISE, rel=0.1)


def test_true_scatter_between_voxels_is_not_smoothed_away() -> None:
    scatter = torch.randn(SIDE**2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    truth = torch.tensor([3.0, 1.0]).double() + torch.tensor([0.3, 0.15]).double() * scatter
    own, joint = own_and_joint(noisy_problem(truth))
    assert (error(joint.result.parameters, truth) < 1.02 * error(own, truth)).all()
    inside = (joint.result.parameters - truth).abs() < 1.96 * joint.result.standard_errors
    assert float(inside.double().mean()) > 0.88


def test_nearly_noise_free_maps_stay_as_they_are() -> None:
    truth = torch.stack((with_core(2.0, 1.0), with_core(0.6, 1.0)), 1)
    _, joint = own_and_joint(noisy_problem(truth, 1e-4))
    torch.testing.assert_close(joint.result.parameters, truth, atol=1e-3, rtol=0)


def test_voxels_that_cannot_be_fitted_take_no_part() -> None:
    truth = torch.stack((with_core(2.0, 1.0), with_core(0.6, 1.0)), 1)
    problem = noisy_problem(truth)
    problem.data[100] = torch.nan
    _, joint = own_and_joint(problem)
    assert joint.result.parameters[100].isnan().all()
    assert joint.result.parameters[[99, 101]].isfinite().all()


def test_parts_of_a_mask_that_do_not_touch_are_not_neighbors() -> None:
    voxels = np.array([0, 1, 3, 4])
    assert len(Neighbors.of_mask(voxels, (1, 5), (2.0, 2.0))) == 2
    assert len(Neighbors.of_mask(voxels, (5, 1), (2.0, 2.0))) == 2


def test_neighbors_across_thick_slices_count_less() -> None:
    neighbors = Neighbors.of_mask(np.arange(4), (2, 1, 2), (5.0, 2.0, 2.0))
    assert sorted(neighbors.closeness.tolist()) == pytest.approx([0.16, 0.16, 1.0, 1.0])


def test_priors_of_the_model_still_count() -> None:
    truth = torch.stack((with_core(1.0, 1.0), with_core(1.0, 1.0)), 1)
    prior = GaussianPrior(torch.tensor([0.0, 2.0]).double(), torch.tensor([torch.inf, 1e-3]).double())
    _, joint = own_and_joint(noisy_problem(truth, prior=prior))
    torch.testing.assert_close(joint.result.parameters[:, 1], torch.full((SIDE**2,), 2.0).double(), atol=0.02, rtol=0)


def test_a_single_voxel_keeps_its_own_fit() -> None:
    truth = torch.ones(1, 2).double()
    own, joint = own_and_joint(noisy_problem(truth), Neighbors.of_mask(np.arange(1), (1, 1), (1.0, 1.0)))
    torch.testing.assert_close(joint.result.parameters, own)
