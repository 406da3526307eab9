"""Lorentzian fits: recovery, derivatives, agreement with scipy, presets and reference spectra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.optimize import least_squares

from CESTQuantLib.fitting.least_squares import Status
from CESTQuantLib.fitting.spatial.neighbors import Neighbors
from CESTQuantLib.fitting.statistics import reduced_chi_square
from CESTQuantLib.formats.offset_lists import read_offsets
from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.pools import Pool, Semisolid, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.preprocessing.fields import shift_spectra
from CESTQuantLib.tissue.contrasts import mtr_rex
from CESTQuantLib.tissue.lorentzian import fit_lorentzian
from CESTQuantLib.tissue.lorentzian_model import LorentzianModel, LorentzianPool, Range
from CESTQuantLib.tissue.lorentzian_two_step import TwoStepModel, fit_lorentzian_two_step
from CESTQuantLib.tissue.spectra import ZSpectra

SEVEN = LorentzianModel(
    (
        LorentzianPool("water", Range(0.02, 0.9, 1.0), Range(0.3, 1.4, 10.0), Range(-1.0, 0.0, 1.0)),
        LorentzianPool("amide", Range(0.0, 0.025, 0.2), Range(0.4, 0.5, 3.0), Range(3.0, 3.5, 4.0)),
        LorentzianPool("noe", Range(0.0, 0.02, 0.4), Range(1.0, 3.0, 5.0), Range(-4.5, -3.5, -2.0)),
        LorentzianPool("mt", Range(0.0, 0.1, 1.0), Range(10.0, 25.0, 100.0), Range(-4.0, -1.0, -1.0)),
        LorentzianPool("amine", Range(0.0, 0.01, 0.2), Range(1.0, 1.5, 3.5), Range(1.0, 2.2, 2.5)),
    )
)
"""Five lines with the bounds of CEST_EVAL, which are narrower than those of the preset."""
THREE = LorentzianModel.preset("lorentzian_3T")
WATER = {"name": "water", "amplitude": [0, 0.8, 1], "width_ppm": [1, 2, 3], "position_ppm": [-1, 0, 1]}
OFFSETS = torch.linspace(-8, 8, 50, dtype=torch.float64)
TISSUE = torch.tensor(
    [
        [0.93, 0.60, 0.03, 0.05, 0.05, 0.02, 1.0, 0.8, 2.0, 15, 1.2, -0.2, 3.3, -3.8, -3.0, 1.8],
        [0.99, 0.85, 0.10, 0.15, 0.20, 0.06, 2.0, 2.0, 4.0, 40, 2.5, 0.20, 3.7, -3.2, -1.5, 2.3],
    ],
    dtype=torch.float64,
)
"""Lowest and highest Zi, amplitudes, widths and positions of water, amide, NOE, semisolid and amine."""


def tissue(voxels, noise=0.0, seed=0):
    """Spectra (voxel, offset) and true parameters (p, voxel)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(voxels, 16, generator=generator, dtype=torch.float64)
    truth = (TISSUE[0] + (TISSUE[1] - TISSUE[0]) * uniform).T
    z = SEVEN.predict(truth, OFFSETS.unsqueeze(1))[0].T
    return z + noise * torch.randn(z.shape, generator=generator, dtype=torch.float64), truth


@pytest.mark.parametrize("model", [SEVEN, THREE, SEVEN.tied(), SEVEN.only("water")], ids=["7T", "3T", "tied", "water"])
def test_analytic_jacobian_passes_gradcheck(model):
    start, lower, upper = model.limits()
    inside = lower + (upper - lower) * torch.linspace(0.3, 0.6, 3, dtype=torch.float64)[:, None]
    parameters = (0.5 * inside + 0.5 * start).T.requires_grad_()
    column = OFFSETS[::7].unsqueeze(1)

    class Prediction(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            prediction, ctx.jacobian = model.predict(values, column)
            return prediction

        @staticmethod
        def backward(ctx, gradient):
            return (ctx.jacobian * gradient).sum(1)

    assert torch.autograd.gradcheck(Prediction.apply, parameters, atol=1e-7)


def test_fit_is_as_good_as_scipy_on_the_same_noisy_spectra():
    z, _ = tissue(25, noise=0.005)
    fit = fit_lorentzian(z, OFFSETS, SEVEN)
    start, lower, upper = (limit.numpy() for limit in SEVEN.limits())
    column = OFFSETS.unsqueeze(1)
    excess = []
    for voxel in range(25):

        def evaluate(p):
            return SEVEN.predict(torch.from_numpy(p)[:, None], column)

        scipys = least_squares(
            lambda p, voxel=voxel: evaluate(p)[0][:, 0].numpy() - z[voxel].numpy(),
            np.clip(start, lower + 1e-6, upper - 1e-6),
            lambda p: evaluate(p)[1][:, :, 0].numpy().T,
            bounds=(lower, upper),
            x_scale="jac",
        )
        excess.append(50 * fit.rmse[voxel].item() ** 2 / (2 * scipys.cost) - 1)
    assert np.median(excess) < 1e-5
    assert np.max(excess) < 5e-3


def test_noise_free_spectra_are_recovered():
    z, truth = tissue(200)
    fit = fit_lorentzian(z, OFFSETS, SEVEN, tolerance=1e-10, max_iterations=300)
    assert (fit.rmse < 1e-5).double().mean() > 0.98
    found = fit.rmse < 1e-6
    assert (fit.amplitude[found] - truth[1:6].T[found]).abs().median() < 1e-4
    assert (fit.position_ppm[found] - truth[11:].T[found]).abs().median() < 1e-3


def test_standard_errors_of_a_well_posed_model_cover_the_true_values():
    model = SEVEN.only("water", "amide", "noe")
    generator = torch.Generator().manual_seed(3)
    limits = TISSUE[:, [0, 1, 2, 3, 6, 7, 8, 11, 12, 13]]
    truth = limits[0] + (limits[1] - limits[0]) * torch.rand(4000, 10, generator=generator, dtype=torch.float64)
    z = model.predict(truth.T, OFFSETS.unsqueeze(1))[0].T
    z = z + 0.002 * torch.randn(z.shape, generator=generator, dtype=torch.float64)
    fit = fit_lorentzian(z, OFFSETS, model)
    good = fit.status == Status.CONVERGED
    assert good.double().mean() > 0.9
    for values, deviations, columns in (
        (fit.amplitude, fit.amplitude_sd, slice(1, 4)),
        (fit.width_ppm, fit.width_ppm_sd, slice(4, 7)),
        (fit.position_ppm, fit.position_ppm_sd, slice(7, 10)),
    ):
        score = ((values - truth[:, columns]) / deviations)[good]
        assert ((score.abs() < 2.021).double().mean(0) - 0.95).abs().max() < 0.02  # Student t, 40 degrees of freedom


def test_tied_positions_follow_the_water():
    start, _, _ = THREE.limits()
    parameters = start.unsqueeze(1).repeat(1, 3)
    parameters[2] = 0.05
    parameters[-1] = torch.tensor([-0.4, 0.0, 0.4])
    z = THREE.predict(parameters, OFFSETS.unsqueeze(1))[0].T
    fit = fit_lorentzian(z, OFFSETS, THREE, tolerance=1e-10)
    expected = parameters[-1].unsqueeze(1) + torch.tensor([0.0, 3.5, -3.5, -2.5])
    torch.testing.assert_close(fit.position_ppm, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(fit.position_ppm_sd[:, 1], fit.position_ppm_sd[:, 0])
    assert SEVEN.tied().pools[1].offset_from_water_ppm == 3.5


def test_offsets_may_differ_between_voxels_and_positions_are_relative_to_them():
    z, truth = tissue(40)
    common = fit_lorentzian(z, OFFSETS, SEVEN)
    moved = fit_lorentzian(z, OFFSETS - truth[11].unsqueeze(1), SEVEN)
    assert (moved.position_ppm[:, 0]).abs().max() < 0.01
    assert (common.position_ppm[:, 0] - truth[11]).abs().max() < 0.01


def test_a_reference_spectrum_leaves_out_its_pool():
    z, _ = tissue(30)
    fit = fit_lorentzian(z, OFFSETS, SEVEN)
    at = torch.tensor([3.5], dtype=torch.float64)
    label, reference = fit.spectrum(at), fit.spectrum(at, without=["amide"])
    torch.testing.assert_close(reference - label, fit.line("amide", at))
    torch.testing.assert_close(mtr_rex(label, reference), 1 / label - 1 / reference)
    residual = (fit.spectrum(OFFSETS) - z).square().mean(1).sqrt()
    torch.testing.assert_close(residual, fit.rmse, atol=1e-5, rtol=0.05)
    with pytest.raises(ValueError, match="no pool 'creatine'"):
        fit.line("creatine", at)


def test_a_two_step_fit_separates_background_and_residual():
    model = TwoStepModel.preset()
    offsets = torch.linspace(-12, 12, 97, dtype=torch.float64)
    start, _, _ = model.background.limits()
    z = model.background.predict(start.unsqueeze(1).repeat(1, 5), offsets.unsqueeze(1))[0].T
    amplitude = torch.linspace(0.02, 0.06, 5, dtype=torch.float64).unsqueeze(1)
    z = z - amplitude / (1 + ((offsets - 3.5) / 0.75) ** 2) - 0.05 / (1 + ((offsets + 3.5) / 1.25) ** 2)
    fit = fit_lorentzian_two_step(z, offsets, model)
    found = fit.residual.amplitude[:, fit.residual.index("amide")]
    assert (found - amplitude[:, 0]).abs().max() < 0.01
    assert (found.diff() > 0).all()
    assert (fit.background.position_ppm[:, 0]).abs().max() < 0.02


def test_both_steps_count_as_one_fit():
    model = TwoStepModel.preset()
    offsets = torch.linspace(-12, 12, 97, dtype=torch.float64)
    start, _, _ = model.background.limits()
    z = model.background.predict(start.unsqueeze(1).repeat(1, 3), (offsets - 0.1).unsqueeze(1))[0].T
    z = z - 0.04 / (1 + ((offsets - 3.6) / 0.75) ** 2) - 0.05 / (1 + ((offsets + 3.4) / 1.25) ** 2)
    z[2] = torch.nan
    fit = fit_lorentzian_two_step(z, offsets, model).combined()
    assert fit.model.names == ("water", "mt", "amide", "noe")
    assert fit.position_ppm[0].tolist() == pytest.approx([0.1, -0.9, 3.6, -3.4], abs=0.1)
    assert (fit.spectrum(offsets)[:2] - z[:2]).abs().max() < 0.02
    assert fit.status[2] == Status.INVALID_DATA


def two_step_spectra(voxels, noise):
    """Spectra (voxel, offset) of two lines over the background of the preset, and their offsets."""
    offsets = torch.linspace(-10, 10, 61, dtype=torch.float64)
    values = torch.tensor([[0.98, 0.8, 0.1, 0.02, 0.03, 2, 40, 2.5, 4, 0, -1, 3.5, -3.5]], dtype=torch.float64)
    z = two_step_lines().predict(values.T, offsets.unsqueeze(1))[0].T
    generator = torch.Generator().manual_seed(2)
    return z + noise * torch.randn(voxels, len(offsets), generator=generator, dtype=torch.float64), offsets


def two_step_lines():
    """All lines of the two-step preset as one model."""
    model = TwoStepModel.preset()
    return replace(model.background, pools=(*model.background.pools, *model.residual_pools))


def test_intervals_of_a_two_step_fit_hold():
    z, offsets = two_step_spectra(400, noise=0.005)
    lines = fit_lorentzian_two_step(z, offsets, TwoStepModel.preset()).residual
    score = (lines.amplitude - lines.amplitude.mean(0)) / lines.amplitude_sd
    inside = (score.abs() < 1.96).double().mean(0)
    assert ((inside > 0.91) & (inside < 0.98)).all()


def test_standard_errors_of_a_two_step_fit_follow_how_every_measurement_moves_it():
    z, offsets = two_step_spectra(1, noise=0.0)
    step = 2e-3 * torch.eye(len(offsets), dtype=torch.float64)
    model = TwoStepModel.preset()

    def lines(z):
        fit = fit_lorentzian_two_step(z, offsets, model).combined()
        return torch.cat((fit.amplitude, fit.position_ppm), 1)

    gain = (lines(z + step) - lines(z - step)) / 4e-3
    fit = fit_lorentzian_two_step(z, offsets, model)
    degrees = len(offsets) - int(fit.combined().fit.standard_errors.isfinite().sum())
    noise = fit.residual.rmse * (len(offsets) / degrees) ** 0.5
    expected = noise * gain.norm(dim=0)
    torch.testing.assert_close(fit.residual.amplitude_sd[0], expected[2:4], rtol=0.05, atol=0)
    # What the background does not explain bends the sum of squares, which no linearised fit knows of.
    torch.testing.assert_close(fit.combined().position_ppm_sd[0, 2:], expected[6:], rtol=0.25, atol=0)


def test_a_two_step_fit_has_the_degrees_of_freedom_that_both_steps_leave():
    z, offsets = two_step_spectra(400, noise=0.01)
    fit = fit_lorentzian_two_step(z, offsets, TwoStepModel.preset())
    lines = fit.combined()
    assert lines.model.parameter_names == two_step_lines().parameter_names
    assert lines.fit.parameters.shape == lines.fit.standard_errors.shape == (400, 13)
    free = lines.fit.standard_errors.isfinite().sum(1)
    steps = (fit.background.fit, fit.residual.fit)
    assert torch.equal(free, sum(step.standard_errors.isfinite().sum(1) for step in steps))
    assert reduced_chi_square(lines.fit, 0.01, None, len(offsets)).mean() == pytest.approx(1, abs=0.05)


def test_measurements_that_are_left_out_do_not_count_in_a_two_step_fit():
    z, offsets = two_step_spectra(20, noise=0.005)
    spoiled = torch.cat((z, z[:, ::7] + 1), 1)
    axis = torch.cat((offsets, offsets[::7]))
    valid = (torch.arange(len(axis)) < len(offsets)).expand_as(spoiled)
    known = fit_lorentzian_two_step(z, offsets, TwoStepModel.preset()).combined()
    fit = fit_lorentzian_two_step(spoiled, axis, TwoStepModel.preset(), valid=valid).combined()
    torch.testing.assert_close(fit.fit.standard_errors, known.fit.standard_errors, equal_nan=True, rtol=1e-3, atol=1e-6)


def test_a_two_step_fit_that_did_not_converge_is_not_excused_by_a_bound_of_the_other_step():
    z, offsets = two_step_spectra(4, noise=0.005)
    fit = fit_lorentzian_two_step(z, offsets, TwoStepModel.preset())
    bound, limit, converged = Status.AT_BOUND, Status.ITERATION_LIMIT, Status.CONVERGED

    def ended(step, *outcomes):
        return replace(step, fit=replace(step.fit, status=torch.tensor(outcomes, dtype=torch.uint8)))

    both = replace(
        fit,
        background=ended(fit.background, bound, limit, bound, converged),
        residual=ended(fit.residual, limit, bound, converged, bound),
    )
    assert both.combined().status.tolist() == [limit, limit, bound, bound]


AMIDE_AND_NOE = (
    {"name": "amide", "amplitude": [0, 0.01, 0.2], "width_ppm": [0.5, 2, 10], "offset_from_water_ppm": 3.5},
    {"name": "noe", "amplitude": [0, 0.1, 0.2], "width_ppm": [2, 4, 12.5], "offset_from_water_ppm": -3.5},
)
TWO_STEPS = {
    "baseline": [0.5, 1, 1],
    "excluded_from_background_ppm": [[-8.0, -1.5], [1.5, 5.5]],
    "pools": [
        {"name": "water", "amplitude": [0.4, 0.9, 1.0], "width_ppm": [1, 2.3, 6], "position_ppm": [-1, 0, 1]},
        {"name": "mt", "amplitude": [0.0025, 0.1, 0.3], "width_ppm": [30, 40, 60], "position_ppm": [-2.5, -1, 0]},
    ],
    "residual_pools": list(AMIDE_AND_NOE),
}


def test_tied_lines_of_the_residual_hang_on_the_water():
    model = TwoStepModel.from_dict(TWO_STEPS)
    z, offsets = two_step_spectra(3, noise=0.002)
    fit = fit_lorentzian_two_step(z, offsets + 0.3, model).combined()
    water, water_sd = fit.position_ppm[:, :1], fit.position_ppm_sd[:, :1]
    assert water[:, 0].tolist() == pytest.approx([0.3] * 3, abs=0.02)
    torch.testing.assert_close(fit.position_ppm[:, 2:], water + torch.tensor([3.5, -3.5], dtype=torch.float64))
    torch.testing.assert_close(fit.position_ppm_sd[:, 2:], water_sd.expand(-1, 2))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("excluded_from_background_ppm", [[5.5, 1.5]], r"x.json: .* \[5.5, 1.5\] must have its lower end first"),
        ("residual_pools", [{**AMIDE_AND_NOE[0], "name": "mt"}], "x.json: pools and residual_pools .* must differ"),
    ],
)
def test_a_two_step_description_that_cannot_be_fitted_is_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        TwoStepModel.from_dict({**TWO_STEPS, key: value}, "x.json")


def test_a_line_without_amplitude_and_a_full_baseline_are_natural_but_a_position_at_its_bound_is_not():
    model = SEVEN.only("water", "amide")
    column = OFFSETS.unsqueeze(1)
    parameters = torch.tensor(
        [[1.0, 1.0], [0.8, 0.8], [0.0, 0.1], [1.4, 1.4], [1.0, 1.0], [0.0, 0.0], [3.5, 4.6]], dtype=torch.float64
    )
    z = model.predict(parameters, column)[0].T
    z[0] += 0.03 / (1 + (2 * (OFFSETS - 3.5)) ** 2)  # the opposite of a line
    fit = fit_lorentzian(z, OFFSETS, model, start_from_mean=False)
    assert fit.amplitude[0, 1] == 0
    assert fit.status.tolist() == [Status.AT_NATURAL_LIMIT, Status.AT_BOUND]


def test_a_width_that_is_fixed_by_equal_bounds_is_not_at_a_bound():
    amide = {"name": "amide", "amplitude": [0, 0.02, 0.2], "width_ppm": [1.5, 1.5, 1.5], "offset_from_water_ppm": 3.5}
    fixed = LorentzianModel.from_dict({"baseline": [1, 1, 1], "pools": [WATER, amide]})
    column = OFFSETS.unsqueeze(1)
    start, lower, upper = fixed.limits()
    z = fixed.predict((start + 0.01 * (upper - lower)).double().unsqueeze(1), column)[0].T
    fit = fit_lorentzian(z, OFFSETS, fixed, start_from_mean=False)
    assert fit.status.tolist() == [Status.CONVERGED]
    assert fit.width_ppm[0, 1] == 1.5


def test_most_voxels_of_a_brain_at_seven_tesla_keep_off_the_bounds_of_the_preset(shared_data):
    folder = shared_data("data/cest/brain_7T_zspectrum")
    mz, m0, b0 = (
        torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz"))).astype(np.float64))
        for name in ("mz", "m0", "b0_shift_ppm")
    )
    offsets = read_offsets(folder / "offsets_ppm.txt")
    inside = b0 != 0
    z = (mz / m0)[:, inside].T[::10]
    z = shift_spectra(z, offsets, b0[inside][::10])
    fit = fit_lorentzian(z.float(), offsets.float(), LorentzianModel.preset("lorentzian_7T"), valid=z.isfinite())
    assert (fit.status == Status.AT_BOUND).double().mean() < 0.35  # with the published bounds 0.95
    assert float(fit.rmse.nanmedian()) < 0.0095


def test_strongly_saturated_noisy_spectra_keep_off_the_bounds_of_the_preclinical_preset():
    """3.5 uT for 6 s at 7 T: most of the signal near water is gone, and brain presets ask for more than is there."""
    offsets = torch.cat((torch.tensor([-100.0]), torch.arange(-10, 10.5, 0.5))).double()
    fractions = torch.linspace(0.04, 0.12, 40).double()
    tissue = Tissue(
        Water(1.8, 0.04), (Pool("amide", 1e-3, 50.0, 1.0, 0.1, 3.5),), Semisolid(fractions, 30.0, 1.0, 1e-5, -1.0)
    )
    z = simulate(tissue, Protocol(7.0, offsets, b1_uT=torch.full_like(offsets, 3.5), saturation_time_s=6.0))
    z = z + 0.015 * torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    share = {
        name: (fit_lorentzian(z, offsets, LorentzianModel.preset(name)).status == Status.AT_BOUND).double().mean()
        for name in ("lorentzian_7T", "lorentzian_preclinical")
    }
    assert share["lorentzian_preclinical"] < 0.1
    assert share["lorentzian_7T"] > 0.5


def test_unusable_voxels_are_flagged():
    z, _ = tissue(5, noise=0.002)
    z[1], z[3, 7] = 0, torch.nan
    fit = fit_lorentzian(z, OFFSETS, SEVEN)
    assert fit.status[[1, 3]].tolist() == [Status.INVALID_DATA] * 2
    assert fit.amplitude[[1, 3]].isnan().all()
    assert fit.position_ppm[[1, 3]].isnan().all()
    assert fit.amplitude[[0, 2, 4]].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lines": []}, "p.json: unknown keys lines; use pools, baseline"),
        ({"residual_pools": []}, "p.json: unknown keys residual_pools; use pools, baseline"),
        ({"pools": [{**WATER, "width": 1}]}, "p.json: pool 1: unknown keys width; use name, amplitude, width_ppm"),
        ({"pools": [{**WATER, "amplitude": [0, "a", 1]}]}, "p.json: pool 'water': amplitude: the start is 'a'"),
        ({"pools": [{**WATER, "width_ppm": [0, 1, 2]}]}, "p.json: pool 'water': width_ppm must be above 0"),
        ({"pools": [WATER, {**WATER, "position_ppm": None, "name": "mt"}]}, "p.json: pool 'mt' needs either"),
        ({"baseline": [1, 0, 1]}, "p.json: baseline: the start 0.0 must lie within"),
    ],
)
def test_unusable_descriptions_are_refused_by_name(changes, said):
    description = {"pools": [WATER], "baseline": [0.5, 1, 1]}
    assert LorentzianModel.from_dict(description).names == ("water",)
    with pytest.raises(ValueError, match=r"^p\.json: ") as caught:
        LorentzianModel.from_dict({**description, **changes}, "p.json")
    assert str(caught.value).startswith(said)


def test_impossible_models_are_refused():
    with pytest.raises(ValueError, match="preset 'lorentzian_1T' is unknown; use one of"):
        LorentzianModel.preset("lorentzian_1T")
    with pytest.raises(ValueError, match="start"):
        Range(1.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="either position_ppm or"):
        LorentzianPool("amide", Range(0, 0, 1), Range(1, 1, 2))
    with pytest.raises(ValueError, match="50 values but the signal has 49"):
        fit_lorentzian(tissue(2)[0][:, :49], OFFSETS, SEVEN)


def test_standard_errors_of_lines_contain_the_noise_of_m0() -> None:
    """All amplitudes scatter with M0, those of large lines most; widths do not."""
    noise, count = 0.01, 1500
    random = torch.Generator().manual_seed(5)
    model = LorentzianModel.from_dict({"baseline": [0.5, 0.9, 1.5], "pools": [WATER]}, "one line")
    z = 0.95 - 0.8 * 1.0 / (1.0 + OFFSETS.square())
    z = z + noise * torch.randn(count, len(OFFSETS), generator=random).double()
    z = z / (1 + noise * torch.randn(count, 1, generator=random).double())
    protocol = Protocol(3.0, OFFSETS, 1.0, 2.0)
    settings = Settings(lorentzian=model)
    found, alone = (
        quantify(ZSpectra(z, protocol, reference_noise=share), "lorentzian", settings).quantities
        for share in (1.0, 0.0)
    )
    for name in ("baseline", "water_amplitude", "water_width_ppm"):
        expected = float(found[f"{name}_sd"].median())
        assert float(found[name].std()) == pytest.approx(expected, rel=0.06), name
        larger = expected / float(alone[f"{name}_sd"].median())
        assert larger > 1.3 if name == "water_amplitude" or name == "baseline" else larger == pytest.approx(1, abs=1e-3)


def test_standard_errors_of_both_steps_contain_the_noise_of_m0() -> None:
    noise, count = 0.01, 1500
    random = torch.Generator().manual_seed(6)
    amide = {"name": "amide", "amplitude": [0, 0.1, 0.5], "width_ppm": [1, 1, 1], "position_ppm": [3.5, 3.5, 3.5]}
    description = {
        "baseline": [0.5, 0.9, 1.5],
        "pools": [WATER],
        "residual_pools": [amide],
        "excluded_from_background_ppm": [[2.0, 5.0]],
    }
    z = 0.95 - 0.8 / (1.0 + OFFSETS.square()) - 0.1 / (1 + ((OFFSETS - 3.5) / 0.5).square())
    z = z + noise * torch.randn(count, len(OFFSETS), generator=random).double()
    z = z / (1 + noise * torch.randn(count, 1, generator=random).double())
    settings = Settings(lorentzian=TwoStepModel.from_dict(description, "two steps"))
    found, alone = (
        quantify(
            ZSpectra(z, Protocol(3.0, OFFSETS, 1.0, 2.0), reference_noise=share), "lorentzian", settings
        ).quantities
        for share in (1.0, 0.0)
    )
    expected = float(found["water_amplitude_sd"].median())
    assert float(found["water_amplitude"].std()) == pytest.approx(expected, rel=0.1)
    assert expected > 1.2 * float(alone["water_amplitude_sd"].median())
    ratio = found["amide_amplitude_sd"] / alone["amide_amplitude_sd"]  # a small line scatters little with M0
    assert 1 < float(ratio.median()) < 1.05


def test_a_line_of_which_the_offsets_show_only_the_top_is_told() -> None:
    semisolid = {"name": "mt", "amplitude": [0, 0.1, 1], "width_ppm": [10, 25, 100], "position_ppm": [-4, -1, 0]}
    model = LorentzianModel.from_dict({"baseline": [0.5, 0.9, 1.0], "pools": [WATER, semisolid]}, "two lines")
    z = 0.95 - 0.7 / (1 + OFFSETS.square()) - 0.15 / (1 + ((OFFSETS + 1) / 20).square())
    noise = torch.randn(40, len(OFFSETS), generator=torch.Generator().manual_seed(5)).double()
    exact, noisy = (ZSpectra(z + sd * noise, Protocol(3.0, OFFSETS, 1.0, 2.0)) for sd in (1e-5, 5e-3))
    assert quantify(exact, "lorentzian", Settings(lorentzian=model)).warnings == ()
    (warning,) = quantify(noisy, "lorentzian", Settings(lorentzian=model)).warnings
    assert warning.startswith("the offsets show only the top of the line mt, whose half width lies beyond them in")


def test_the_spatial_prior_tells_a_wide_line_of_which_a_voxel_says_little() -> None:
    """Neighbours average the noise of such a line, not its bias."""
    offsets = torch.cat((torch.tensor([-50.0, -25, -12, 12, 25, 50]).double(), torch.linspace(-6, 6, 25).double()))
    semisolid = {"name": "mt", "amplitude": [0, 0.1, 0.5], "width_ppm": [10, 40, 150], "position_ppm": [-4, -1, 0]}
    model = LorentzianModel.from_dict({"baseline": [0.5, 0.9, 1.2], "pools": [WATER, semisolid]}, "two lines")
    z = 0.98 - 0.7 / (1 + offsets.square()) - 0.1 / (1 + ((offsets + 1) / 25).square())
    noise = torch.randn(64, len(offsets), generator=torch.Generator().manual_seed(5)).double()
    grid = Neighbors.of_mask(np.arange(64), (8, 8), (2.0, 2.0))
    settings = Settings(lorentzian=model, neighbors=grid, noise_sd=0.02)
    study = ZSpectra(z + 0.02 * noise, Protocol(3.0, offsets, 1.0, 2.0))
    (warning,) = quantify(study, "lorentzian", settings).warnings
    assert warning.startswith("the spectrum of a voxel hardly determines the width of the line mt: the spatial prior")
    assert quantify(study, "lorentzian", replace(settings, neighbors=None)).warnings == ()
