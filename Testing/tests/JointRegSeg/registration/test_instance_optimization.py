"""Instance optimisation finds known deformations, leaves out tumours, stays invertible, and can be stopped."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from registration_cases import QUICK, SHAPE, error, known_velocity, pair, radius, texture

from JointRegSegLib.registration.deformation import (
    Deformation,
    folded_fraction,
    integrate_velocity,
    inverse_error,
    jacobian_determinant,
    resize_displacement,
    warp,
)
from JointRegSegLib.registration.instance_optimization import refine
from JointRegSegLib.registration.local_correlation import LocalStatistics, lncc
from JointRegSegLib.registration.refinement_settings import RefinementLevel, RefinementSettings


def test_known_deformation_is_found_despite_inverted_contrast() -> None:
    fixed, moving, true = pair()
    start = error(torch.zeros_like(true), true)
    found = refine(fixed, torch.where(moving > -2.5, 2 - moving, moving), settings=QUICK)
    assert start > 0.9
    assert error(found.displacement, true) < 0.4 * start
    assert folded_fraction(found.displacement) == 0


@pytest.mark.parametrize("regulariser", ["diffusion", "curvature"])
def test_inverse_cancels_the_deformation(regulariser: str) -> None:
    fixed, moving, _ = pair()
    found = refine(fixed, moving, settings=RefinementSettings(QUICK.levels, regulariser=regulariser))
    inside = radius() < 0.7
    assert found.displacement.abs().max() > 1.5
    assert inverse_error(found.displacement, found.inverse)[inside].mean() < 0.1
    assert lncc(warp(fixed, found.inverse), moving) > 0.8
    assert folded_fraction(found.inverse) == 0


def test_every_iteration_counts_also_the_last_one() -> None:
    fixed, moving, true = pair()
    found = [refine(fixed, moving, settings=replace(QUICK, iterations=count)) for count in (0, 1, 2)]
    none, one, two = (error(each.displacement, true) for each in found)
    assert one < 0.7 * none
    assert two < 0.7 * one


def test_iterations_that_change_nothing_are_told() -> None:
    fixed, moving, _ = pair(size=1.0)
    told: list[str] = []
    found = refine(fixed, moving, settings=replace(QUICK, iterations=1), warn=told.append)
    assert found.displacement.abs().max() == 0
    assert len(told) == 1
    assert "number of iterations (1)" in told[0]


def test_result_is_the_flow_of_its_velocity() -> None:
    fixed, moving, _ = pair()
    found = refine(fixed, moving, settings=QUICK)
    fine = integrate_velocity(resize_displacement(found.velocity, SHAPE))
    assert (found.displacement - fine).abs().mean() < 0.05


def test_refinement_continues_from_the_velocity_of_a_network() -> None:
    fixed, moving, true = pair()
    velocity = resize_displacement(0.6 * known_velocity(), (16, 20, 12))
    displacement = resize_displacement(integrate_velocity(velocity), SHAPE)
    kept = refine(fixed, moving, Deformation(displacement, velocity=velocity), settings=no_iterations())
    assert error(kept.displacement, displacement) < 0.1
    better = refine(fixed, moving, Deformation(displacement, velocity=velocity), settings=QUICK)
    assert error(better.displacement, true) < 0.3
    assert lncc(fixed, warp(moving, better.displacement)) > lncc(fixed, warp(moving, displacement)) + 0.03


def test_a_velocity_that_makes_the_images_less_alike_is_not_started_from() -> None:
    fixed, moving, _ = pair()
    wrong = Deformation(integrate_velocity(-known_velocity()), velocity=-known_velocity())
    found, alone = refine(fixed, moving, wrong, settings=QUICK), refine(fixed, moving, settings=QUICK)
    assert error(found.displacement, alone.displacement) < 0.02


def test_displacement_without_a_velocity_is_refined_too() -> None:
    fixed, moving, true = pair()
    start = Deformation(0.5 * true)
    found = refine(fixed, moving, start, settings=QUICK)
    assert found.velocity is None
    assert error(found.displacement, true) < 0.7 * error(start.displacement, true)
    assert inverse_error(found.displacement, found.inverse)[radius() < 0.7].mean() < 0.1


def no_iterations() -> RefinementSettings:
    return RefinementSettings(levels=QUICK.levels, iterations=0)


def test_identical_images_are_not_deformed() -> None:
    image = texture()
    assert refine(image, image, settings=QUICK).displacement.abs().max() == 0


def test_an_exchange_of_the_images_gives_the_inverse_map() -> None:
    fixed, moving, _ = pair()
    tumors = [(radius(center=(0.3, z, 0.0), size=0.25) < 1).float() for z in (0.0, 0.1)]
    there = refine(fixed, moving, None, *tumors, settings=QUICK)
    back = refine(moving, fixed, None, *reversed(tumors), settings=QUICK)
    assert there.displacement.abs().max() > 1.5
    assert error(there.displacement, back.inverse) < 0.01
    assert error(there.inverse, back.displacement) < 0.01


def test_a_refinement_that_makes_the_images_less_alike_is_not_kept() -> None:
    """A regulariser of such weight removes a deformation whatever the images say."""
    fixed, moving, true = pair()
    start = Deformation(true, velocity=known_velocity())
    stiff = RefinementSettings(levels=QUICK.levels, regularisation=1e5, learning_rate=0.5)
    found = refine(fixed, moving, start, settings=stiff)
    assert error(found.displacement, true) < 0.1


def with_tumor(image: torch.Tensor, tumor: torch.Tensor, value: float) -> torch.Tensor:
    return torch.where(tumor, torch.full_like(image, value), image)


def mapped_volume(found: Deformation, tumor: torch.Tensor) -> float:
    """Return the volume of the fixed tumour after mapping to the moving study, relative to its volume before."""
    return float(jacobian_determinant(found.displacement)[tumor].mean())


def test_masks_prevent_tumour_growth_from_stretching_the_brain() -> None:
    image, center = texture(), (0.1, -0.1, 0.0)
    small, large = radius(center=center, size=0.25) < 1, radius(center=center, size=0.42) < 1
    fixed, moving = with_tumor(image, small, 4.0), with_tumor(image, large, 4.0)
    unmasked = refine(fixed, moving, settings=QUICK)
    masked = refine(fixed, moving, None, small.float(), large.float(), QUICK)
    assert mapped_volume(unmasked, small) > 1.5
    assert abs(mapped_volume(masked, small) - 1) < 0.15
    identity = torch.zeros_like(masked.displacement)
    assert error(masked.displacement, identity) < 0.5 * error(unmasked.displacement, identity)


def test_mass_effect_outside_the_mask_is_recovered() -> None:
    """The tumour displaces the surrounding tissue; its voxels have no counterpart in the other study."""
    image, center = texture(), (0.1, -0.1, 0.0)
    distance = radius(center=center)
    outward = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in SHAPE], indexing="ij"))[None]
    middle = torch.tensor([(n - 1) / 2 * (1 + c) for n, c in zip(SHAPE, center, strict=True)]).view(1, 3, 1, 1, 1)
    velocity = 0.7 * (outward - middle) * torch.exp(-((distance / 0.4) ** 2))
    tumor = distance < 0.25
    true = integrate_velocity(velocity)
    moving_tumor = warp(tumor.float(), integrate_velocity(-velocity)) > 0.5
    moving = with_tumor(warp(image, integrate_velocity(-velocity)), moving_tumor, 4.0)
    found = refine(with_tumor(image, tumor, -1.0), moving, None, tumor.float(), moving_tumor.float(), QUICK)
    around = (distance > 0.35) & (distance < 0.6)
    before = true.norm(dim=1, keepdim=True)[around].mean()
    assert before > 0.7
    assert (found.displacement - true).norm(dim=1, keepdim=True)[around].mean() < 0.5 * before


def test_moving_mask_is_warped_by_the_deformation(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, true = pair(3.0)
    tumor = radius(center=(0.3, 0.0, 0.0), size=0.25) < 1
    masks, original = [], LocalStatistics.of.__func__

    def record(cls, image, window, mask, stride):
        masks.append(mask)
        return original(cls, image, window, mask, stride)

    monkeypatch.setattr(LocalStatistics, "of", classmethod(record))
    start = Deformation(true, velocity=known_velocity(3.0))
    moving_tumor = (warp(tumor.float(), integrate_velocity(-known_velocity(3.0))) > 0.5).float()
    settings = RefinementSettings(levels=(RefinementLevel(1, 2, 5, 1),), mask_dilation=0)
    refine(fixed, moving, start, None, moving_tumor, settings)
    left_out = masks[0] == 0
    assert (left_out & tumor).sum() > 0.95 * tumor.sum()
    assert left_out.sum() < 1.5 * tumor.sum()


def test_channels_of_absent_modalities_are_ignored() -> None:
    fixed, moving, true = pair(channels=3)
    fixed, moving = fixed.clone(), moving.clone()
    fixed[:, 1] = -3
    moving[:, 2] = -3
    found = refine(fixed, moving, settings=QUICK)
    assert error(found.displacement, true) < 0.4 * error(torch.zeros_like(true), true)


def test_odd_grid_sizes_are_registered() -> None:
    shape = (21, 17, 13)
    fixed = texture(shape=shape)
    moving = warp(fixed, integrate_velocity(-known_velocity(3.0, shape=shape)))
    found = refine(fixed, moving, settings=QUICK)
    assert found.displacement.shape == found.inverse.shape == (1, 3, *shape)
    assert lncc(fixed, warp(moving, found.displacement)) > lncc(fixed, moving) + 0.05


def test_refinement_works_in_inference_mode() -> None:
    with torch.inference_mode():
        fixed, moving, true = pair()
        found = refine(fixed, moving, settings=QUICK)
        assert error(found.displacement, true) < 0.4
    assert not found.displacement.requires_grad


def test_progress_rises_to_one_and_can_cancel() -> None:
    fixed, moving, _ = pair()
    fractions: list[float] = []
    refine(fixed, moving, settings=QUICK, progress=lambda fraction, message: fractions.append(fraction))
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 20

    def cancel(fraction: float, message: str) -> None:
        if fraction > 0.2:
            raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt, match="level 1 of 2: lncc"):
        refine(fixed, moving, settings=QUICK, progress=cancel)


def test_time_limit_and_convergence_end_the_refinement() -> None:
    fixed, moving, _ = pair()
    fractions: list[float] = []
    told: list[str] = []
    limited = RefinementSettings(levels=QUICK.levels, time_limit_s=1e-9)
    found = refine(fixed, moving, settings=limited, progress=lambda f, m: fractions.append(f), warn=told.append)
    assert found.displacement.abs().max() == 0
    assert fractions == [1]
    assert len(told) == 1
    assert "time limit of 1e-09 s ended the refinement on level 1 of 2" in told[0]
    fractions.clear()
    endless = RefinementSettings(levels=(RefinementLevel(2, 4, 5, 100_000),), tolerance=1e-3)
    refine(fixed, moving, settings=endless, progress=lambda f, m: fractions.append(f), warn=told.append)
    assert len(fractions) < 400
    assert len(told) == 1


def test_velocity_that_folds_is_smoothed_until_it_does_not() -> None:
    fixed, moving, _ = pair()
    rough = 12 * torch.randn(1, 3, 16, 20, 12, generator=torch.Generator().manual_seed(0))
    displacement = resize_displacement(integrate_velocity(rough), SHAPE)
    assert folded_fraction(displacement) > 0.01
    found = refine(fixed, moving, Deformation(displacement, velocity=rough), settings=no_iterations())
    assert folded_fraction(found.displacement) == folded_fraction(found.inverse) == 0


def test_settings_are_restored_from_json() -> None:
    settings = RefinementSettings(levels=(RefinementLevel(1, 2, 3, 4, 2),), iterations=7, time_limit_s=5.0)
    assert RefinementSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert RefinementSettings.from_dict({"regularisation": 1}).levels == RefinementSettings().levels


def test_settings_are_scaled_to_the_voxel_spacing() -> None:
    coarse = RefinementSettings().for_spacing(2.0)
    assert [(level.image_stride, level.velocity_stride) for level in coarse.levels] == [(2, 4), (1, 4), (1, 2)]
    assert coarse.mask_dilation == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"regulariser": "elastic"}, "regulariser 'elastic' is unknown"),
        ({"regularisation": -1}, "regularisation of the refinement is -1"),
        ({"learning_rate": math.nan}, "learning_rate of the refinement is not finite"),
        ({"learning_rate": None}, "learning_rate of the refinement is None, which is not a number"),
        ({"time_limit_s": "60"}, "time_limit_s of the refinement is '60', which is not a number"),
        ({"iterations": "10"}, "iterations of the refinement is '10' but must be a whole number"),
        ({"iterations": 2.5}, "iterations of the refinement is 2.5 but must be a whole number of at least 0"),
        ({"integration_steps": "6"}, "integration_steps of the refinement is '6' but must be a whole number"),
        ({"mask_dilation": True}, "mask_dilation of the refinement is True but must be a whole number"),
        ({"levels": 5}, "refinement settings: a value has the wrong type .levels is 5."),
        (
            {"levels": [{"image_stride": "a", "velocity_stride": 8, "window": 5, "iterations": 5}]},
            "refinement settings: image_stride is 'a' but must be a whole number",
        ),
        ({"speed": 3}, "refinement settings: unknown keys speed; use levels"),
        ({"similarity": "ssd"}, "similarity 'ssd' is unknown; use one of lncc, mse"),
        ({"levels": []}, "at least one level"),
        ({"levels": [{"image_stride": 2}]}, "needs image_stride, velocity_stride"),
        (
            {"levels": [{"image_stride": 2, "velocity_stride": 1, "window": 5, "iterations": 3}]},
            "velocity_stride is 1",
        ),
        ({"levels": [{"image_stride": 2, "velocity_stride": 2, "window": 4, "iterations": 3}]}, "window is 4"),
    ],
)
def test_error_names_the_unusable_setting(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RefinementSettings.from_dict(values)


def test_error_names_the_unusable_image() -> None:
    image = texture()
    with pytest.raises(ValueError, match=r"moving has shape \(1, 1, 32, 40, 23\), not \(1, 1, 32, 40, 24\)"):
        refine(image, image[..., 1:])
    with pytest.raises(ValueError, match="fixed_mask has shape"):
        refine(image, image, fixed_mask=image[..., 1:])
    broken = image.clone()
    broken[0, 0, 3, 3, 3] = math.nan
    with pytest.raises(ValueError, match="moving has voxels that are not finite"):
        refine(image, broken)
    with pytest.raises(ValueError, match="deformation to start from"):
        refine(image, image, Deformation(torch.zeros(1, 3, 4, 4, 4)))
