"""QUESP, QUEST and the omega plot on data of the two-pool solution."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.units import GAMMA_RAD_PER_S_PER_UT
from CESTQuantLib.tissue.omega_plot import omega_plot
from CESTQuantLib.tissue.quesp import TwoPoolContrast, fit_quesp

POWERS = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
TIMES = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0], dtype=torch.float64)
R2 = 30.0


def labels_at(b1_uT, time_s):
    """Protocol of the labels."""
    return Protocol(7.0, torch.full_like(b1_uT, 2.0), b1_uT, time_s)


def pairs(voxels, b1_uT, time_s, noise=0.0, initial_z=1.0, seed=0):
    """Labels and references (voxel, m) of the closed two-pool solution, and the true fraction, rate and T1."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(3, voxels, generator=generator, dtype=torch.float64)
    fraction, k, t1 = 5e-4 + 1.5e-3 * uniform[0], 100 + 700 * uniform[1], 1.5 + 1.5 * uniform[2]
    w1 = GAMMA_RAD_PER_S_PER_UT * b1_uT[:, None]
    r1 = 1 / t1
    rex = fraction * k * w1**2 / (w1**2 + k * (k + R2))
    steady = r1 / (r1 + rex)
    label = (initial_z - steady) * torch.exp(-(r1 + rex) * time_s[:, None]) + steady
    reference = (initial_z - 1) * torch.exp(-r1 * time_s[:, None]) + 1
    disturbed = [
        z.T + noise * torch.randn(voxels, len(z), generator=generator, dtype=torch.float64) for z in (label, reference)
    ]
    return *disturbed, fraction, k, t1


@pytest.mark.parametrize("form", ["regular", "inverse"])
@pytest.mark.parametrize(
    ("b1", "time"),
    [(POWERS, torch.full_like(POWERS, 3.0)), (torch.full_like(TIMES, 2.0), TIMES)],
    ids=["QUESP", "QUEST"],
)
def test_fraction_and_rate_are_recovered(form, b1, time):
    label, reference, fraction, k, t1 = pairs(200, b1, time)
    fit = fit_quesp(label, reference, labels_at(b1, time), t1, form=form, r2_Hz=R2)
    if len(b1.unique()) > 1:
        torch.testing.assert_close(fit.fraction, fraction, rtol=1e-4, atol=0)
        torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)
    else:  # one power determines only the labelling rate
        w2 = (GAMMA_RAD_PER_S_PER_UT * 2.0) ** 2

        def rate(f, k):
            return f * k * w2 / (w2 + k * (k + R2))

        torch.testing.assert_close(rate(fit.fraction, fit.exchange_rate_Hz), rate(fraction, k), rtol=1e-4, atol=0)


def test_the_rate_may_have_a_lower_bound_of_zero():
    time = torch.full_like(POWERS, 3.0)
    label, reference, fraction, k, t1 = pairs(50, POWERS, time)
    fit = fit_quesp(label, reference, labels_at(POWERS, time), t1, r2_Hz=R2, exchange_rate_bounds_Hz=(0.0, 1500.0))
    torch.testing.assert_close(fit.fraction, fraction, rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)


def test_omega_plot_and_inverse_quesp_agree_in_the_steady_state():
    long = torch.full_like(POWERS, 100.0)
    label, reference, fraction, k, t1 = pairs(100, POWERS, long)
    line = omega_plot(label, reference, labels_at(POWERS, long), t1, r2_Hz=R2)
    curve = fit_quesp(label, reference, labels_at(POWERS, long), t1, r2_Hz=R2)
    for fit in (line, curve):
        torch.testing.assert_close(fit.fraction, fraction, rtol=1e-4, atol=0)
        torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)


def test_standard_errors_of_quesp_cover_the_true_values():
    time = torch.full_like(POWERS, 4.0)
    label, reference, fraction, k, t1 = pairs(8000, POWERS, time, noise=0.001)
    fit = fit_quesp(label, reference, labels_at(POWERS, time), t1, form="regular", r2_Hz=R2)
    known = fit.status == Status.CONVERGED
    assert known.double().mean() > 0.99
    for value, deviation, truth in (
        (fit.fraction, fit.fraction_sd, fraction),
        (fit.exchange_rate_Hz, fit.exchange_rate_Hz_sd, k),
    ):
        score = ((value - truth) / deviation)[known]
        assert (score.abs() < 2.447).double().mean().item() == pytest.approx(
            0.95, abs=0.02
        )  # Student t, 6 degrees of freedom


def test_standard_errors_of_the_omega_plot_have_the_right_size():
    long = torch.full_like(POWERS, 100.0)
    label, reference, _, k, t1 = pairs(4000, POWERS, long, noise=0.0005)
    fit = omega_plot(label, reference, labels_at(POWERS, long), t1, r2_Hz=R2)
    score = ((fit.exchange_rate_Hz - k) / fit.exchange_rate_Hz_sd)[fit.status == Status.CONVERGED]
    assert (score.abs() < 2.447).double().mean() > 0.9


def test_the_b1_map_is_used():
    time = torch.full_like(POWERS, 3.0)
    label, reference, fraction, k, t1 = pairs(50, 0.8 * POWERS, time)
    relative = torch.full((50,), 0.8, dtype=torch.float64)
    fit = fit_quesp(label, reference, labels_at(POWERS, time), t1, r2_Hz=R2, b1_relative=relative)
    torch.testing.assert_close(fit.exchange_rate_Hz, k, rtol=1e-4, atol=0)
    torch.testing.assert_close(fit.fraction, fraction, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", ["regular", "inverse"])
def test_the_analytic_jacobian_equals_finite_differences(form):
    model = TwoPoolContrast(GAMMA_RAD_PER_S_PER_UT * POWERS[:, None], POWERS[:, None], R2, form)
    parameters = torch.tensor([[1e-3, 2e-3], [300.0, 900.0]], dtype=torch.float64)
    r1, relative = torch.tensor([0.5, 0.7], dtype=torch.float64), torch.tensor([1.0, 0.9], dtype=torch.float64)
    start = torch.linspace(0.8, 1.0, len(POWERS), dtype=torch.float64)[:, None].expand(-1, 2)
    _, jacobian = model.predict(parameters, r1, relative, start)
    for row, step in enumerate((1e-8, 1e-3)):
        move = torch.zeros(2, 1, dtype=torch.float64)
        move[row] = step
        ahead, behind = (model.predict(parameters + sign * move, r1, relative, start)[0] for sign in (1, -1))
        torch.testing.assert_close((ahead - behind) / (2 * step), jacobian[row], rtol=1e-5, atol=1e-9)


def test_voxels_without_signal_or_t1_are_flagged():
    time = torch.full_like(POWERS, 3.0)
    label, reference, _, _, t1 = pairs(4, POWERS, time)
    label[0], t1[1] = 0, 0
    label[2] = torch.nan
    for method in (fit_quesp, omega_plot):
        fit = method(label, reference, labels_at(POWERS, time), t1)
        assert fit.status[:3].tolist() == [Status.INVALID_DATA] * 3
        assert fit.fraction[:3].isnan().all()
        assert fit.status[3] == Status.CONVERGED


def test_an_unknown_form_and_wrong_counts_are_refused():
    time = torch.full_like(POWERS, 3.0)
    label, reference, _, _, t1 = pairs(2, POWERS, time)
    with pytest.raises(ValueError, match="form 'other' is unknown; use one of"):
        fit_quesp(label, reference, labels_at(POWERS, time), t1, form="other")
    with pytest.raises(ValueError, match="8 labels"):
        fit_quesp(label, reference, labels_at(POWERS[:5], time[:5]), t1)
