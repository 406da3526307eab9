"""Cramér-Rao bound: closed forms, agreement with the scatter of fits, derivatives, and use as an objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.schedules.cramer_rao import covariance_bound, design_loss, parameter_sd_bound, signal_and_jacobian
from CESTQuantLib.schedules.trainable import TrainableSchedule
from CESTQuantLib.tissue.model import tissue_model_from_dict

MODEL = tissue_model_from_dict(
    {
        "water": {"T1_s": 2.8, "T2_s": 0.8},
        "solutes": [{"name": "amine", "dw_ppm": 3.0, "T1_s": 2.8, "T2_s": 0.04, "fraction": 1e-3, "k_Hz": 300}],
    }
)
PRIOR_SD = {"amine.fraction": 1e-3, "amine.k_Hz": 400.0, "water.T1_s": 0.3, "b0_shift_ppm": 0.1, "b1_relative": 0.1}


def values(voxels: int = 5) -> dict:
    spread = torch.linspace(0.2, 1, voxels, dtype=torch.float64)
    return {
        **MODEL.entries,
        "amine.fraction": 2e-3 * spread,
        "amine.k_Hz": 900 * spread.flip(0),
        "b0_shift_ppm": 0.1 * spread,
        "b1_relative": 1.0,
    }


def schedule(normalisation: str = "l2") -> Protocol:
    spread = torch.linspace(0, 1, 10, dtype=torch.float64)
    return Protocol(
        9.4,
        3 + torch.sin(9 * spread),
        0.5 + 4 * spread,
        1.0,
        recovery_time_s=0.5,
        readout_flip_angle_deg=60.0,
        magnetisation_carried_over=True,
        signal_normalisation=normalisation,
    )


def test_a_linear_model_has_the_covariance_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(2, 6, 1, generator=generator, dtype=torch.float64) * 100
    bound = covariance_bound(torch.ones(6, 1, dtype=torch.float64), jacobian, 0.5, "none")[0]
    design = jacobian[:, :, 0].T
    expected = torch.linalg.inv(design.T @ design / 0.25 + torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(bound, expected)


def test_without_any_signal_the_prior_is_what_is_known() -> None:
    nothing = torch.zeros(3, 4, 2, dtype=torch.float64)
    bound = covariance_bound(nothing[0], nothing, 0.01, "none")
    torch.testing.assert_close(bound, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    assert float(design_loss(bound, [0, 1], "crlb-a")) == 1.0
    assert float(design_loss(bound, [0, 1], "crlb-sd")) == 1.0
    assert float(design_loss(bound, [0, 1], "crlb-d")) == 0.0


def test_the_jacobian_is_that_of_automatic_differentiation() -> None:
    _, jacobian = signal_and_jacobian(MODEL.tissue, values(), PRIOR_SD, schedule())

    def signal(*parameters: torch.Tensor) -> torch.Tensor:
        now = values() | dict(zip(PRIOR_SD, parameters, strict=True))
        fields = {name: now.pop(name) for name in ("b0_shift_ppm", "b1_relative")}
        return simulate(MODEL.tissue(now), schedule("none"), engine="r1rho", **fields).sum(0)

    point = tuple(torch.as_tensor(values()[name], dtype=torch.float64).expand(5).clone() for name in PRIOR_SD)
    exact = torch.autograd.functional.jacobian(signal, point)  # (measurement, voxel) for every parameter
    for column, derivative, sd in zip(jacobian, exact, PRIOR_SD.values(), strict=True):
        torch.testing.assert_close(column, derivative * sd, rtol=1e-6, atol=1e-9)


def test_an_unknown_scale_costs_information() -> None:
    signal, jacobian = signal_and_jacobian(MODEL.tissue, values(), PRIOR_SD, schedule())
    known, unknown = (
        torch.diagonal(covariance_bound(signal, jacobian, 0.004, n), dim1=1, dim2=2) for n in ("none", "l2")
    )
    assert bool((unknown > known).all())


@pytest.mark.parametrize("normalisation", ["none", "m0"])
def test_maximum_likelihood_estimates_scatter_by_the_bound(normalisation: str) -> None:
    """Gauss-Newton estimates from many noisy copies of one voxel, priors wide enough not to matter.

    The noise is added to the signal that the protocol gives, as in data sets and trainings: relative to M0, it is that
    of z, of whatever flip angle.
    """
    one = {n: v[2:3] if isinstance(v, torch.Tensor) else v for n, v in values().items()}
    wide = {"amine.fraction": 0.1, "amine.k_Hz": 4e4}
    protocol, noise = replace(schedule(normalisation), readout_flip_angle_deg=30.0), 5e-4
    expected = parameter_sd_bound(MODEL.tissue, one, wide, protocol, noise)
    copies = 2000
    _, jacobian = signal_and_jacobian(MODEL.tissue, one, wide, protocol)
    entries = {name: value for name, value in one.items() if name not in ("b0_shift_ppm", "b1_relative")}
    fields = {name: one[name] for name in ("b0_shift_ppm", "b1_relative")}
    truth = simulate(MODEL.tissue(entries), protocol, engine="r1rho", **fields).T
    generator = torch.Generator().manual_seed(1)
    data = truth + noise * torch.randn(10, copies, generator=generator, dtype=torch.float64)
    design = jacobian[:, :, 0].T
    now = {n: one[n].expand(copies).clone() for n in wide}
    for _ in range(4):
        guess = signal_and_jacobian(MODEL.tissue, one | now, wide, protocol)[0]
        step = torch.linalg.lstsq(design, data - guess).solution
        now = {n: now[n] + sd * step[p] for p, (n, sd) in enumerate(wide.items())}
    for name in wide:
        assert float(now[name].std()) == pytest.approx(float(expected[name]), rel=0.1)


@pytest.mark.parametrize("objective", ["crlb-a", "crlb-d", "crlb-sd"])
def test_the_objective_is_differentiable_in_every_acquisition_parameter(objective: str) -> None:
    base = schedule()
    names = ("offsets_ppm", "b1_uT", "saturation_time_s", "recovery_time_s", "readout_flip_angle_deg")

    def loss(protocol: Protocol) -> torch.Tensor:
        signal, jacobian = signal_and_jacobian(MODEL.tissue, values(), PRIOR_SD, protocol)
        return design_loss(covariance_bound(signal, jacobian, 0.004, "l2"), [0, 1], objective)

    for name in names:
        value = getattr(base, name).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(replace(base, **{name: value})), value)
        for m in (0, 4, 9):
            move = torch.zeros(10, dtype=torch.float64)
            move[m] = 1e-4
            up, down = (float(loss(replace(base, **{name: value.detach() + s * move}))) for s in (1, -1))
            assert float(gradient[m]) == pytest.approx((up - down) / 2e-4, rel=2e-3, abs=1e-6), name


def test_a_few_steps_on_the_bound_halve_it() -> None:
    trained = TrainableSchedule(schedule(), ["offsets_ppm", "b1_uT", "saturation_time_s"], {"total_time_s": 16})
    optimizer = torch.optim.Adam(trained.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        signal, jacobian = signal_and_jacobian(MODEL.tissue, values(), PRIOR_SD, trained.protocol())
        loss = design_loss(covariance_bound(signal, jacobian, 0.004, "l2"), [0, 1], "crlb-a")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(ValueError, match="objective 'best' is unknown"):
        design_loss(torch.eye(2)[None], [0], "best")


def test_targets_count_by_their_weights() -> None:
    covariance = torch.diag_embed(torch.tensor([[0.04, 0.16, 9.0], [0.36, 0.64, 9.0]], dtype=torch.float64))
    assert float(design_loss(covariance, [0, 1], "crlb-a")) == pytest.approx((0.2 + 0.4) / 2)
    assert float(design_loss(covariance, [0, 1], "crlb-sd")) == pytest.approx((0.4 + 0.6) / 2)
    assert float(design_loss(covariance, [0, 1], "crlb-a", (1.0, 0.25))) == pytest.approx((0.2 + 0.1) / 1.25)
    assert float(design_loss(covariance, [0, 1], "crlb-sd", (0.0, 2.0))) == pytest.approx(0.6)
