"""Statistics of maps over regions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from CESTQuantLib.scene.regions import region_columns, region_statistics


def test_statistics_are_of_the_finite_values() -> None:
    found = region_statistics(np.array([1.0, 2.0, 3.0, 4.0, 5.0, math.nan, math.inf]))
    assert found == {"n": 5, "mean": 3.0, "sd": pytest.approx(math.sqrt(2.5)), "median": 3.0, "q1": 2.0, "q3": 4.0}
    assert math.isnan(region_statistics(np.array([math.nan]))["mean"])
    assert region_statistics(np.array([2.0]))["sd"] == 0.0


def test_statistics_of_a_large_region() -> None:
    values = np.arange(2**24 + 3, dtype=np.float32)
    assert region_statistics(values)["median"] == pytest.approx(2**23 + 1)


def test_the_table_has_a_row_per_region_and_quantity_with_its_unit() -> None:
    maps = {"amide_exchange_rate_Hz": np.array([1.0, 2.0, 3.0]), "amide_exchange_rate_Hz_sd": np.ones(3)}
    regions = {"tumour": np.array([True, True, False]), "brain": np.array([True, True, True])}
    columns = region_columns(maps, regions)
    assert columns["region"] == ["tumour", "brain"]
    assert columns["quantity"] == ["amide_exchange_rate_Hz"] * 2  # standard errors are left out
    assert columns["unit"] == ["Hz", "Hz"]
    assert columns["mean"] == [1.5, 2.0]


def test_values_that_are_no_estimates_stay_out_of_the_means_and_are_counted() -> None:
    maps = {"amide_fraction": np.array([1.0, 2.0, 90.0, math.nan])}
    usable = np.array([True, True, False, False])
    columns = region_columns(maps, {"brain": np.ones(4, bool)}, usable)
    assert (columns["mean"], columns["n"], columns["left_out"]) == ([1.5], [2], [1])
