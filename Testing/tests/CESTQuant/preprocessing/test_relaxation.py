"""T1 and T2 fits: values and standard errors on signals of known relaxation, polarity, B1, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from CESTQuantLib.fitting.marquardt import Status
from CESTQuantLib.preprocessing.relaxation import (
    MODELS,
    RelaxationModel,
    fit_relaxation,
    flip_angle_model,
)

INVERSION = torch.tensor([0.05, 0.15, 0.4, 0.8, 1.2, 2.0, 3.5, 6.0], dtype=torch.float64)
RECOVERY = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
ECHOES = torch.tensor([0.01, 0.02, 0.04, 0.06, 0.09, 0.13, 0.2], dtype=torch.float64)
ANGLES = torch.deg2rad(torch.tensor([3.0, 6.0, 10.0, 15.0, 20.0, 25.0], dtype=torch.float64))
CASES = {
    "inversion-recovery": (MODELS["inversion-recovery"], INVERSION, (0.3, 3.0), (100.0, 190.0)),
    "saturation-recovery": (MODELS["saturation-recovery"], RECOVERY, (0.3, 3.0), (100.0, 95.0)),
    "multi-echo": (MODELS["multi-echo"], ECHOES, (0.03, 0.2), (100.0,)),
    "variable-flip-angle": (flip_angle_model(0.02), ANGLES, (0.3, 3.0), (1000.0,)),
}


def simulated(name: str, noise: float, count: int = 300) -> tuple[Tensor, Tensor, RelaxationModel, Tensor]:
    """Return relaxation times, magnitudes with noise relative to the largest signal, the model and its settings."""
    model, settings, (low, high), amplitudes = CASES[name]
    times = torch.linspace(low, high, count, dtype=torch.float64)
    signal = model.basis(settings.expand(count, -1), times) @ torch.tensor(amplitudes, dtype=torch.float64)
    random = torch.randn(signal.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return times, (signal + noise * signal.abs().max() * random).abs(), model, settings


@pytest.mark.parametrize("name", CASES)
def test_times_without_noise_are_exact(name: str) -> None:
    times, signal, model, settings = simulated(name, 0.0)
    fit = fit_relaxation(signal, settings, model)
    torch.testing.assert_close(fit.time_s, times, rtol=2e-5, atol=0)
    assert (fit.status == Status.CONVERGED).all()
    assert float(fit.rmse.max()) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_standard_errors_are_those_of_the_scatter(name: str) -> None:
    times, signal, model, settings = simulated(name, 0.005, count=1500)
    fit = fit_relaxation(signal, settings, model)
    deviation = (fit.time_s - times) / fit.error_s
    # Student's t with few degrees of freedom: the median of its magnitude is 0.71 to 0.77 standard errors.
    assert 0.6 < float(deviation.abs().median()) < 0.9
    assert abs(float(deviation.median())) < 0.1


def test_b1_scales_the_flip_angles_of_each_voxel() -> None:
    model = flip_angle_model(0.02)
    b1 = torch.linspace(0.7, 1.3, 20, dtype=torch.float64)
    angles = b1[:, None] * ANGLES
    t1 = torch.full((20,), 1.2, dtype=torch.float64)
    signal = 1000 * model.basis(angles, t1)[..., 0]
    torch.testing.assert_close(fit_relaxation(signal, angles, model).time_s, t1, rtol=1e-4, atol=0)
    wrong = fit_relaxation(signal, ANGLES, model).time_s
    assert float((wrong / (t1 * b1**2) - 1).abs().max()) < 0.05  # uncorrected, T1 is wrong by the square of B1


def test_measurements_may_come_in_any_order() -> None:
    times, signal, model, settings = simulated("inversion-recovery", 0.0)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    torch.testing.assert_close(
        fit_relaxation(signal[:, order], settings[order], model).time_s, times, rtol=2e-5, atol=0
    )


def test_voxels_without_a_solution_are_marked() -> None:
    _, signal, model, settings = simulated("multi-echo", 0.0, count=4)
    signal[0], signal[1, 2] = 0.0, torch.nan
    signal[2] = 5.0  # no decay at all: the time is beyond the longest
    fit = fit_relaxation(signal, settings, model)
    assert fit.status.tolist() == [Status.INVALID_DATA, Status.INVALID_DATA, Status.AT_BOUND, Status.CONVERGED]
    assert fit.time_s.isnan().tolist() == [True, True, False, False]
    assert bool(fit.error_s[2].isnan())


@pytest.mark.parametrize("name", CASES)
def test_noisy_signals_are_explained(name: str) -> None:
    _, signal, model, settings = simulated(name, 0.01)
    assert (fit_relaxation(signal, settings, model).status == Status.POOR_FIT).sum() == 0


@pytest.mark.parametrize("name", CASES)
def test_noise_alone_is_a_poor_fit(name: str) -> None:
    _, signal, model, settings = simulated(name, 0.0)
    noise = torch.randn(signal.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).abs()
    fit = fit_relaxation(noise, settings, model)
    assert int((fit.status == Status.CONVERGED).sum()) < 0.05 * len(noise)


@pytest.mark.parametrize("name", ["inversion-recovery", "saturation-recovery"])
def test_times_in_the_reverse_order_are_a_poor_fit(name: str) -> None:
    _, signal, model, settings = simulated(name, 0.005)
    fit = fit_relaxation(signal, settings.flip(0), model)
    assert int((fit.status == Status.CONVERGED).sum()) == 0


@pytest.mark.parametrize(
    ("times_s", "t1_s", "snr"),
    [((0.05, 0.2, 0.5, 1, 2, 3.5), 4.2, 50), ((0.05, 0.2, 0.5, 1, 2, 4), 2.8, 30), ((0.1, 0.4, 0.9, 2), 0.85, 30)],
)
def test_a_recovery_that_is_sampled_too_shortly_is_no_poor_fit(times_s: tuple, t1_s: float, snr: float) -> None:
    """Its start is uncertain, which tells nothing against it."""
    times = torch.tensor(times_s, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    real, imaginary = torch.randn(2, 500, len(times), generator=random, dtype=torch.float64) / snr
    magnitudes = torch.hypot(1 - 2 * torch.exp(-times / t1_s) + real, imaginary)
    fit = fit_relaxation(magnitudes, times, MODELS["inversion-recovery"])
    assert int((fit.status == Status.POOR_FIT).sum()) < 0.03 * len(magnitudes)


def test_times_in_another_unit_are_a_poor_fit() -> None:
    _, signal, model, settings = simulated("inversion-recovery", 0.005)
    fit = fit_relaxation(signal, settings / 1000, model)
    assert int((fit.status == Status.CONVERGED).sum()) == 0


def test_too_few_values_are_refused() -> None:
    _, signal, model, settings = simulated("inversion-recovery", 0.0)
    with pytest.raises(ValueError, match="needs at least 3 different values"):
        fit_relaxation(signal[:, :3], settings[[0, 0, 1]], model)
    with pytest.raises(ValueError, match="there are 8 values for 3 measurements"):
        fit_relaxation(signal[:, :3], settings, model)


def test_a_voxel_without_b1_does_not_stop_the_others() -> None:
    times, signal, model, angles = simulated("variable-flip-angle", 0.0, count=5)
    own = angles.repeat(5, 1)
    own[0] = 0
    fit = fit_relaxation(signal, own, model)
    torch.testing.assert_close(fit.time_s[1:], times[1:], rtol=2e-5, atol=0)
