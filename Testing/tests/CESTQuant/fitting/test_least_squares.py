"""The batched least-squares fit against scipy, simulations and unusable data."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.stats import t as student

from CESTQuantLib.fitting import workers
from CESTQuantLib.fitting.least_squares import Status, autograd_model, finite_difference_model, levenberg_marquardt

TIMES = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
LIMITS = {"start": torch.tensor([1e-3, 3e3]), "lower": torch.zeros(2), "upper": torch.tensor([3e-3, 2e4])}
NOISE = 2e-5


def decay(parameters, background):
    """An amplitude of 1e-3 that decays at 1e3 1/s: as badly scaled as a fit of fraction and exchange rate."""
    return parameters[0] * torch.exp(-parameters[1] * 1e-3 * TIMES.to(parameters)) + background


def decay_with_jacobian(parameters, background):
    fall = torch.exp(-parameters[1] * 1e-3 * TIMES.to(parameters))
    slope = -1e-3 * TIMES.to(parameters) * parameters[0] * fall
    return parameters[0] * fall + background, torch.stack((fall, slope))


def simulated(voxels, noise=NOISE, seed=0):
    """Data (voxel, m), true parameters (voxel, 2) and the background (voxel,)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(3, voxels, generator=generator, dtype=torch.float64)
    truth = torch.stack((5e-4 + 1e-3 * uniform[0], 1e3 + 5e3 * uniform[1]))
    clean = decay(truth, uniform[2] * 1e-3).T
    data = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return data, truth.T, uniform[2] * 1e-3


def test_fit_agrees_with_scipy_least_squares():
    data, _, background = simulated(20)
    ours = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    for voxel in range(20):

        def residual(p, voxel=voxel):
            return decay(torch.from_numpy(p)[:, None], background[voxel])[:, 0].numpy() - data[voxel].numpy()

        theirs = least_squares(residual, LIMITS["start"].numpy(), x_scale=[1e-3, 1e3], xtol=1e-12, ftol=1e-12)
        np.testing.assert_allclose(ours.parameters[voxel].numpy(), theirs.x, rtol=1e-4)
        assert 30 * ours.rmse[voxel].item() ** 2 == pytest.approx(2 * theirs.cost, rel=1e-6)


def test_standard_errors_cover_the_true_values_in_95_percent():
    data, truth, background = simulated(20_000)
    fit = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    score = (fit.parameters - truth) / fit.standard_errors
    covered = (score.abs() < student.ppf(0.975, 28)).double().mean(0)
    assert (fit.status == Status.CONVERGED).all()
    assert ((covered > 0.94) & (covered < 0.96)).all()
    assert (score.mean(0).abs() < 0.05).all()


def test_correlation_matches_the_scatter_of_the_estimates():
    truth = torch.tensor([1e-3, 3e3], dtype=torch.float64).expand(20_000, 2)
    noise = NOISE * torch.randn(20_000, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    data = decay(truth.T, torch.zeros(20_000, dtype=torch.float64)).T + noise
    background = torch.zeros(20_000, dtype=torch.float64)
    fit = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    scatter = torch.corrcoef(fit.parameters.T)[0, 1]
    assert fit.correlation[:, 0, 1].mean().item() == pytest.approx(scatter.item(), abs=0.02)
    torch.testing.assert_close(fit.correlation[:, 0, 0], torch.ones(20_000, dtype=torch.float64))


@pytest.mark.parametrize(
    "model",
    [
        autograd_model(decay),
        finite_difference_model(decay, scale=torch.tensor([1e-3, 1e3])),
        finite_difference_model(decay, scale=torch.tensor([1e-3, 1e3]), central=True),
    ],
    ids=["autograd", "forward differences", "central differences"],
)
def test_numerical_jacobians_give_the_same_fit_as_analytic_ones(model):
    data, _, background = simulated(200)
    analytic = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    wrapped = levenberg_marquardt(model, data, **LIMITS, arguments=(background,))
    torch.testing.assert_close(wrapped.parameters, analytic.parameters, rtol=1e-5, atol=0)
    torch.testing.assert_close(wrapped.standard_errors, analytic.standard_errors, rtol=1e-4, atol=0)


def test_float32_agrees_with_float64_far_below_the_standard_error():
    data, _, background = simulated(500)
    double = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    single = levenberg_marquardt(decay_with_jacobian, data.float(), **LIMITS, arguments=(background.float(),))
    assert single.parameters.dtype == torch.float32
    assert ((single.parameters - double.parameters).abs() < 0.05 * double.standard_errors).all()


def test_parameter_at_its_bound_has_no_error_and_the_other_still_converges():
    data, _, background = simulated(300)
    limits = {**LIMITS, "upper": torch.tensor([8e-4, 2e4])}
    fit = levenberg_marquardt(decay_with_jacobian, data, **limits, arguments=(background,))
    held = fit.status == Status.AT_BOUND
    assert 100 < held.sum() < 300
    assert (fit.parameters[held, 0] == torch.tensor(8e-4)).all()
    assert fit.standard_errors[held, 0].isnan().all()

    def only_rate(parameters, background):
        prediction, jacobian = decay_with_jacobian(
            torch.stack((torch.full_like(parameters[0], torch.tensor(8e-4).item()), parameters[0])), background
        )
        return prediction, jacobian[1:]

    one = levenberg_marquardt(
        only_rate,
        data[held],
        LIMITS["start"][1:],
        LIMITS["lower"][1:],
        LIMITS["upper"][1:],
        arguments=(background[held],),
        tolerance=1e-12,
    )
    torch.testing.assert_close(fit.parameters[held, 1:], one.parameters, rtol=1e-3, atol=0)
    torch.testing.assert_close(fit.standard_errors[held, 1:], one.standard_errors, rtol=1e-2, atol=0)


def test_equal_bounds_fix_a_parameter():
    data, truth, background = simulated(50, noise=0.0)
    start = truth.clone()
    start[:, 1] = 3e3
    lower, upper = truth.clone(), truth.clone()
    lower[:, 1], upper[:, 1] = 0, 2e4
    fit = levenberg_marquardt(decay_with_jacobian, data, start, lower, upper, arguments=(background,))
    torch.testing.assert_close(fit.parameters, truth, rtol=1e-6, atol=0)


def test_noise_free_data_are_recovered_exactly():
    data, truth, background = simulated(100, noise=0.0)
    fit = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    torch.testing.assert_close(fit.parameters, truth, rtol=1e-7, atol=0)
    assert (fit.status == Status.CONVERGED).all()


def test_unusable_voxels_are_flagged_and_have_no_values():
    data, _, background = simulated(8)
    data[0, 3] = torch.nan
    data[1] = 0
    valid = torch.ones_like(data, dtype=torch.bool)
    valid[2, 1:] = False
    valid[3, 5:9] = False
    data[3, 6] = torch.nan
    background[4] = torch.nan
    fit = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,), valid=valid)
    assert fit.status.tolist() == [
        Status.INVALID_DATA,
        Status.INVALID_DATA,
        Status.NOT_ENOUGH_POINTS,
        Status.CONVERGED,
        Status.INVALID_DATA,
        *[Status.CONVERGED] * 3,
    ]
    assert fit.parameters[~fit.fitted].isnan().all()
    assert fit.standard_errors[~fit.fitted].isnan().all()
    assert fit.rmse[~fit.fitted].isnan().all()


def test_a_voxel_needs_as_many_different_measurements_as_free_parameters():
    data, truth, background = simulated(3, noise=0.0)
    valid = torch.zeros_like(data, dtype=torch.bool)
    valid[:, :2] = True
    settings = {"arguments": (background,), "valid": valid}
    repeats = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, **settings, different=torch.tensor([2, 2, 1]))
    assert repeats.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.NOT_ENOUGH_POINTS]
    valid[:, 0] = False
    lower, upper = truth * torch.tensor([1.0, 0.5]), truth * torch.tensor([1.0, 2.0])  # the amplitude is fixed
    rate = levenberg_marquardt(decay_with_jacobian, data, 0.7 * truth, lower, upper, **settings)
    torch.testing.assert_close(rate.parameters, truth, rtol=1e-4, atol=0)


def test_left_out_measurements_have_no_influence():
    data, _, background = simulated(40)
    valid = torch.ones_like(data, dtype=torch.bool)
    valid[:, 10:15] = False
    spoiled = data.clone()
    spoiled[:, 10:15] = 7
    settings = {**LIMITS, "arguments": (background,), "valid": valid}
    fit = levenberg_marquardt(decay_with_jacobian, data, **settings)
    other = levenberg_marquardt(decay_with_jacobian, spoiled, **settings)
    torch.testing.assert_close(fit.parameters, other.parameters, rtol=1e-12, atol=0)
    torch.testing.assert_close(fit.standard_errors, other.standard_errors, rtol=1e-12, atol=0)


def test_a_prediction_that_is_not_finite_fails_its_voxel_alone():
    data, _, background = simulated(10)

    def broken(parameters, background, sick):
        prediction, jacobian = decay_with_jacobian(parameters, background)
        return prediction / (1 - sick), jacobian

    sick = torch.zeros(10, dtype=torch.float64)
    sick[4] = 1
    fit = levenberg_marquardt(broken, data, **LIMITS, arguments=(background, sick))
    assert fit.status[4] == Status.FAILED
    assert fit.parameters[4].isnan().all()
    assert fit.fitted.sum() == 9


def test_a_narrow_prior_overrules_the_data_and_a_wide_one_does_not_matter():
    data, _, background = simulated(50)
    settings = {**LIMITS, "arguments": (background,), "prior_mean": torch.tensor([1e-3, 3e3])}
    free = levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background,))
    narrow = levenberg_marquardt(decay_with_jacobian, data, **settings, prior_sd=torch.tensor([torch.inf, 1e-2]))
    wide = levenberg_marquardt(decay_with_jacobian, data, **settings, prior_sd=torch.tensor([10.0, 1e9]))
    assert narrow.parameters[:, 1].numpy() == pytest.approx(3e3, rel=1e-5)
    assert narrow.standard_errors[:, 1].numpy() == pytest.approx(1e-2, rel=1e-3)
    torch.testing.assert_close(wide.parameters, free.parameters, rtol=1e-4, atol=0)


def test_a_voxel_without_more_measurements_than_parameters_takes_the_noise_of_the_others():
    data, _, background = simulated(50)
    valid = torch.ones_like(data, dtype=torch.bool)
    valid[0, 2:] = False
    prior = {"prior_mean": torch.tensor([1e-3, 3e3]), "prior_sd": torch.tensor([1e-4, 300.0])}
    settings = {**LIMITS, **prior, "arguments": (background,), "valid": valid}
    fit = levenberg_marquardt(decay_with_jacobian, data, **settings)
    free = levenberg_marquardt(decay_with_jacobian, data[1:], **LIMITS, arguments=(background[1:],))
    noise = (free.rmse * (data.shape[1] / (data.shape[1] - 2)) ** 0.5).median()
    known = levenberg_marquardt(decay_with_jacobian, data, **settings, noise_sd=noise)
    assert fit.fitted.all()
    torch.testing.assert_close(fit.parameters[0], known.parameters[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.standard_errors[0], known.standard_errors[0], rtol=1e-4, atol=0)


def test_prior_and_data_are_weighted_with_their_precisions():
    """For a linear model and known noise the posterior has a closed form."""
    data = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)

    def constant(parameters):
        return parameters.expand(4, -1), torch.ones(1, 4, parameters.shape[1], dtype=parameters.dtype)

    bounds = (torch.tensor([0.0]), torch.tensor([-9.0]), torch.tensor([9.0]))
    fit = levenberg_marquardt(
        constant, data, *bounds, prior_mean=torch.tensor([1.0]), prior_sd=torch.tensor([0.5]), noise_sd=2.0
    )
    precision = 4 / 2.0**2 + 1 / 0.5**2
    assert fit.parameters.item() == pytest.approx((10 / 2.0**2 + 1.0 / 0.5**2) / precision)
    assert fit.standard_errors.item() == pytest.approx(precision**-0.5)


def test_chunks_and_threads_do_not_change_the_result():
    data, _, background = simulated(700)
    data[5] = 0
    settings = {**LIMITS, "arguments": (background,)}
    whole = levenberg_marquardt(decay_with_jacobian, data, **settings, chunk_voxels=10_000, threads=1)
    pieces = levenberg_marquardt(decay_with_jacobian, data, **settings, chunk_voxels=64, threads=3)
    torch.testing.assert_close(pieces.parameters, whole.parameters, rtol=1e-10, atol=0, equal_nan=True)
    torch.testing.assert_close(pieces.standard_errors, whole.standard_errors, rtol=1e-8, atol=0, equal_nan=True)
    assert (pieces.status == whole.status).all()
    assert (pieces.iterations == whole.iterations).all()


def test_a_fit_has_the_same_bits_with_any_number_of_threads_and_whenever_they_run(monkeypatch):
    """Which voxels are computed together decides on the last bits, and must not depend on which thread is ahead."""
    monkeypatch.setattr(workers, "CHUNKS_IN_A_ROW", 3)
    data, _, background = simulated(1500)
    delays = iter(np.random.default_rng(0).uniform(0, 2e-3, 100_000))

    def delayed(parameters, background):
        time.sleep(next(delays))
        return decay_with_jacobian(parameters, background)

    fits = [
        levenberg_marquardt(model, data, **LIMITS, arguments=(background,), threads=threads, chunk_voxels=101)
        for threads, model in ((1, decay_with_jacobian), (4, delayed), (4, delayed), (3, delayed))
    ]
    for fit in fits[1:]:
        for name in ("parameters", "standard_errors", "rmse", "status", "iterations"):
            torch.testing.assert_close(getattr(fit, name), getattr(fits[0], name), rtol=0, atol=0, equal_nan=True)


def test_progress_reaches_one_and_can_cancel_the_fit():
    data, _, background = simulated(600)
    seen = []
    settings = {**LIMITS, "arguments": (background,), "chunk_voxels": 50}
    levenberg_marquardt(decay_with_jacobian, data, **settings, progress=lambda part, text: seen.append(part))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)

    class CancelledError(Exception):
        pass

    def cancel(part, text):
        raise CancelledError

    threads = torch.get_num_threads()
    with pytest.raises(CancelledError):
        levenberg_marquardt(decay_with_jacobian, data, **settings, progress=cancel)
    assert torch.get_num_threads() == threads


def test_a_cancelled_fit_starts_no_further_chunk():
    data, _, background = simulated(600)
    evaluated, cancelled = [], []

    def counted(parameters, background):
        evaluated.append(bool(cancelled))
        return decay_with_jacobian(parameters, background)

    def cancel(part, text):
        cancelled.append(part)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        levenberg_marquardt(
            counted, data, **LIMITS, arguments=(background,), chunk_voxels=10, threads=1, progress=cancel
        )
    assert evaluated.count(True) <= 2  # the iteration that the worker was in, of 60 chunks with several each


def test_errors_of_the_model_reach_the_caller():
    data, _, background = simulated(10)

    def faulty(parameters, background):
        raise RuntimeError("no such pool")

    with pytest.raises(RuntimeError, match="no such pool"):
        levenberg_marquardt(faulty, data, **LIMITS, arguments=(background,))


def test_shapes_and_bounds_that_do_not_fit_together_are_refused():
    data, _, background = simulated(4)
    with pytest.raises(ValueError, match="lower"):
        levenberg_marquardt(decay_with_jacobian, data, LIMITS["start"], torch.zeros(3), LIMITS["upper"])
    with pytest.raises(ValueError, match="above its upper"):
        levenberg_marquardt(decay_with_jacobian, data, LIMITS["start"], LIMITS["upper"], LIMITS["lower"])
    with pytest.raises(ValueError, match="argument"):
        levenberg_marquardt(decay_with_jacobian, data, **LIMITS, arguments=(background[:2],))
    with pytest.raises(ValueError, match="priors need both prior_mean and prior_sd"):
        levenberg_marquardt(decay_with_jacobian, data, **LIMITS, prior_mean=torch.zeros(2))
    with pytest.raises(ValueError, match="prior_sd must be"):
        levenberg_marquardt(decay_with_jacobian, data, **LIMITS, prior_mean=torch.zeros(2), prior_sd=torch.ones(3))
    with pytest.raises(ValueError, match="valid is"):
        levenberg_marquardt(decay_with_jacobian, data, **LIMITS, valid=torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="data must be a floating-point"):
        levenberg_marquardt(decay_with_jacobian, data[0], **LIMITS)
