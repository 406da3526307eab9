"""Values of pure tissue from voxels that hold several compartments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from CESTQuantLib.compartments.change import changes_between
from CESTQuantLib.compartments.inputs import Settings
from CESTQuantLib.compartments.results.statistics import Statistics
from CESTQuantLib.compartments.results.visit import Visit
from CESTQuantLib.compartments.statistics import Sample, weighted_mean
from CESTQuantLib.compartments.unmixing import Mixture

TRUE = {"necrotic_core": 0.6, "enhancing_tumor": 1.8, "edema": 0.7}
NONE = np.zeros((0, 3))


def ring(shape: tuple[int, int, int] = (3, 24, 24), thickness: float = 1.2) -> dict[str, np.ndarray]:
    """Shares of a core with a thin enhancing ring in oedema, in voxels as large as the ring is thick."""
    fine = 6
    k, j, i = (np.indices((shape[0], shape[1] * fine, shape[2] * fine)) + 0.5).astype(float)
    radius = np.hypot(j / fine - shape[1] / 2, i / fine - shape[2] / 2)
    edges = {"necrotic_core": (0, 4), "enhancing_tumor": (4, 4 + thickness), "edema": (4 + thickness, 11)}
    del k
    return {
        name: ((radius >= low) & (radius < high)).reshape(shape[0], shape[1], fine, shape[2], fine).mean((2, 4))
        for name, (low, high) in edges.items()
    }


def measured(shares: dict[str, np.ndarray], noise: float, seed: int = 1) -> np.ndarray:
    values = sum(TRUE[name] * share for name, share in shares.items()) + 1.2 * (1 - sum(shares.values()))
    return values + noise * np.random.default_rng(seed).standard_normal(values.shape)


def test_pure_values_are_right_where_means_are_mixed() -> None:
    shares = ring()
    array = measured(shares, 0.0)
    found = Mixture(shares, NONE).pure_values(array)
    # Up to 5 % of a voxel may be other tissue.
    assert {name: pure.value for name, pure in found.items()} == pytest.approx(TRUE, rel=2e-3)
    sample = Sample.of(array, shares["enhancing_tumor"])
    assert weighted_mean(sample.values, sample.weights) < 0.93 * TRUE["enhancing_tumor"]


def test_voxels_with_unknown_tissue_do_not_count() -> None:
    shares = ring()
    array = measured(shares, 0.0)
    array[sum(shares.values()) < 0.94] = 1e6
    found = Mixture(shares, NONE).pure_values(array)
    assert found["edema"].value == pytest.approx(TRUE["edema"], rel=2e-3)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    shares = ring()
    mixture = Mixture(shares, NONE)
    covered = [
        abs(pure.value - TRUE[name]) <= 1.96 * pure.se
        for seed in range(80)
        for name, pure in mixture.pure_values(measured(shares, 0.1, seed)).items()
    ]
    assert 0.90 <= np.mean(covered) <= 0.98


def measured_nonlinearly(shares: dict[str, np.ndarray], noise: float, seed: int = 1) -> np.ndarray:
    """Values of voxels whose parts count with unequal weights and through a curved function, as those of a fit do."""
    density = {"necrotic_core": 1.1, "enhancing_tumor": 0.9, "edema": 1.0}
    weighted = {name: density[name] * share for name, share in shares.items()}
    total = np.maximum(sum(weighted.values()), 1e-6)
    values = np.sqrt(sum(TRUE[name] ** 2 * weight / total for name, weight in weighted.items()))
    return values + noise * np.random.default_rng(seed).standard_normal(values.shape)


def test_pure_values_are_right_where_tissues_do_not_mix_linearly() -> None:
    shares = ring(thickness=1.8)
    found = Mixture(shares, NONE).pure_values(measured_nonlinearly(shares, 0.0))
    assert {name: pure.value for name, pure in found.items()} == pytest.approx(TRUE, rel=0.01)
    parts = np.stack([shares[name] for name in TRUE], -1)
    filled = parts.sum(-1) >= 0.95
    straight = np.linalg.lstsq(parts[filled], measured_nonlinearly(shares, 0.0)[filled], rcond=None)[0]
    assert np.abs(straight / list(TRUE.values()) - 1).max() > 0.025  # what a linear mixture makes of it


def test_intervals_cover_the_truth_where_tissues_do_not_mix_linearly() -> None:
    shares = ring()
    mixture = Mixture(shares, NONE)
    covered = [
        abs(pure.value - TRUE[name]) <= 1.96 * pure.se
        for seed in range(60)
        for name, pure in mixture.pure_values(measured_nonlinearly(shares, 0.1, seed)).items()
    ]
    assert 0.90 <= np.mean(covered) <= 1.0


def test_a_compartment_without_pure_voxels_is_uncertain() -> None:
    thin, thick = ring(thickness=0.5), ring(thickness=3.0)
    errors = [
        Mixture(shares, NONE).pure_values(measured_nonlinearly(shares, 0.02))["enhancing_tumor"].se
        for shares in (thin, thick)
    ]
    assert errors[0] > 5 * errors[1]


def test_the_alignment_adds_to_the_error() -> None:
    shares = ring()
    array = measured(shares, 0.01)
    shifts = np.random.default_rng(1).normal(0, 0.4, (12, 3))
    alone = Mixture(shares, NONE).pure_values(array)["enhancing_tumor"]
    disturbed = Mixture(shares, shifts).pure_values(array)["enhancing_tumor"]
    assert disturbed.value == alone.value
    assert disturbed.se > 3 * alone.se


def test_nothing_is_said_of_compartments_that_the_voxels_do_not_determine() -> None:
    shares = ring()
    shares["resection_cavity"] = np.zeros_like(shares["edema"])
    array = measured(ring(), 0.0)
    assert set(Mixture(shares, NONE).pure_values(array)) == set(TRUE)
    array[shares["necrotic_core"] > 0.2] = np.nan
    assert Mixture(shares, NONE).pure_values(array) == {}
    assert Mixture({}, NONE).pure_values(array) == {}


def test_the_change_of_pure_values_has_its_own_interval() -> None:
    def visit(pure: float, error: float) -> Visit:
        row = Statistics("v", "edema", "q", "", 20, 1.0, 1.0, mean_se=0.1, blocks=20, pure=pure, pure_se=error)
        return Visit("v", None, {}, {}, (), statistics=(row,))

    (change,) = changes_between(visit(1.0, 0.3), visit(1.5, 0.4), Settings())
    assert change.pure_change == pytest.approx(0.5)
    assert change.pure_upper - change.pure_change == pytest.approx(1.96 * 0.5, rel=1e-3)
    approximate = replace(visit(1.0, 0.5).statistics[0], engine_error=0.3)  # 0.4 of the error is random
    (shared,) = changes_between(replace(visit(1.0, 0.5), statistics=(approximate,)), visit(1.5, 0.3), Settings())
    assert shared.pure_upper - shared.pure_change == pytest.approx(1.96 * 0.5, rel=1e-3)
    (unknown,) = changes_between(visit(np.nan, np.nan), visit(1.5, 0.4), Settings())
    assert np.isnan(unknown.pure_change)
