"""The change of volumes between two visits, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_brains import grid_around

from CESTQuantLib.compartments.change import changes_between, volume_error_ml
from CESTQuantLib.compartments.grid import Grid
from CESTQuantLib.compartments.inputs import Settings
from CESTQuantLib.compartments.results.change import Change
from CESTQuantLib.compartments.results.regions import Region
from CESTQuantLib.compartments.results.visit import Visit
from NeuroCESTLib.core.messages.input_errors import InputError

FINE = grid_around((60, 60, 60), (1.0, 1.0, 1.0))
THICK = grid_around((14, 60, 60), (1.0, 1.0, 4.0))


def ball(radius_mm: float, grid: Grid = FINE) -> np.ndarray:
    return (np.linalg.norm(grid.points(), axis=1) < radius_mm).reshape(grid.shape)


def visit_of(mask: np.ndarray, name: str) -> Visit:
    volume = float(mask.sum()) * FINE.voxel_ml
    region = Region("enhancing_tumor", "tumor", np.zeros((0, 0, 0), np.float32), mask, volume, 0.0)
    return Visit(name, None, {}, {}, (region,), FINE)


def change_between(first_mm: float, second_mm: float, settings: Settings) -> Change:
    (found,) = changes_between(visit_of(ball(first_mm), "before"), visit_of(ball(second_mm), "after"), settings)
    return found


@pytest.mark.parametrize("grid", [FINE, THICK])
def test_the_error_of_a_volume_is_its_surface_times_the_error_of_the_outline(grid: Grid) -> None:
    error = volume_error_ml(ball(20.0, grid), grid, Settings(segmentation_error_mm=0.4))
    assert error == pytest.approx(4 * np.pi * 20.0**2 * 0.4 / 1000, rel=0.03)


def test_a_region_that_reaches_the_border_of_the_grid_has_a_surface_there() -> None:
    assert volume_error_ml(np.ones((2, 2, 2), bool), grid_around((2, 2, 2), (1.0, 1.0, 1.0)), Settings()) > 0
    assert volume_error_ml(np.zeros((2, 2, 2), bool), FINE, Settings()) == 0.0


def test_the_interval_of_a_volume_change_is_that_of_two_wrong_outlines() -> None:
    settings = Settings(segmentation_error_mm=0.8)
    found = change_between(12.0, 13.0, settings)
    wrong_outlines = [visit_of(ball(r + 0.4), "").regions[0].volume_ml for r in (12.0, 13.0)]
    right_less = [visit_of(ball(r - 0.4), "").regions[0].volume_ml for r in (12.0, 13.0)]
    assert found.se == pytest.approx(np.hypot(*np.subtract(wrong_outlines, right_less)), rel=0.05)
    assert (found.lower, found.upper) == pytest.approx(
        (found.change - 1.96 * found.se, found.change + 1.96 * found.se), rel=1e-3
    )


def test_a_change_larger_than_the_error_of_the_outlines_is_told_from_none() -> None:
    assert change_between(12.0, 12.0, Settings()).lower < 0 < change_between(12.0, 12.0, Settings()).upper
    assert change_between(10.0, 16.0, Settings()).lower > 0


@pytest.mark.parametrize("error_mm", [-0.1, 51.0, float("nan"), float("inf")])
def test_an_impossible_error_of_the_alignment_is_refused(error_mm: float) -> None:
    with pytest.raises(InputError, match=r"the error of the alignment is .* but must be between 0 and 50") as caught:
        Settings(alignment_error_mm=error_mm)
    assert caught.value.role == "alignment-error"


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="must not be negative, as -1 is") as caught:
        Settings(seed=-1)
    assert caught.value.role == "seed"


@pytest.mark.parametrize("error_mm", [0.0, -1.0, 6.0])
def test_an_impossible_error_of_the_segmentation_is_refused(error_mm: float) -> None:
    with pytest.raises(ValueError, match="error of the segmentation"):
        Settings(segmentation_error_mm=error_mm)
