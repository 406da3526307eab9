"""Distributions of tissues: samples are distributed as configured, and impossible distributions are refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from CESTQuantLib.tissue.distributions import Distribution, TissueDistribution

TISSUE = {
    "water": {"T1_s": {"uniform": [1.0, 2.0]}, "T2_s": {"normal": [0.06, 0.01]}},
    "solutes": [
        {
            "name": "amine",
            "protons": 3,
            "fraction": {"log_uniform": [1e-4, 1e-2]},
            "k_Hz": {"uniform": [100, 900]},
            "T1_s": 1.0,
            "T2_s": 0.02,
            "dw_ppm": 3.0,
        }
    ],
    "b0_shift_ppm": {"uniform": [-0.2, 0.2]},
}


def sample(count: int = 20_000, seed: int = 1) -> dict[str, torch.Tensor]:
    return TissueDistribution.from_dict(TISSUE).sample(count, torch.Generator().manual_seed(seed))


def test_samples_have_the_moments_of_their_distributions() -> None:
    values = sample()
    assert float(values["water.T1_s"].mean()) == pytest.approx(1.5, abs=0.01)
    assert float(values["water.T1_s"].std()) == pytest.approx(1 / math.sqrt(12), abs=0.005)
    assert float(values["water.T2_s"].mean()) == pytest.approx(0.06, abs=5e-4)
    assert float(values["water.T2_s"].std()) == pytest.approx(0.00987, abs=2e-4)  # cut at three standard deviations
    assert float(values["amine.fraction"].log10().mean()) == pytest.approx(-3.0, abs=0.02)


def test_samples_stay_inside_their_ranges() -> None:
    ranges = TissueDistribution.from_dict(TISSUE).ranges()
    for path, values in sample().items():
        low, high = ranges[path]
        assert float(values.min()) >= low - 1e-12, path
        assert float(values.max()) <= high + 1e-12, path


def test_every_entry_is_sampled_and_fixed_ones_do_not_vary() -> None:
    values = sample(10)
    assert values["amine.dw_ppm"].tolist() == [3.0] * 10
    assert values["b1_relative"].tolist() == [1.0] * 10
    assert all(value.shape == (10,) and value.dtype == torch.float64 for value in values.values())
    assert TissueDistribution.from_dict(TISSUE).tissue(values).solutes[0].protons == 3


def test_the_seed_determines_the_sample() -> None:
    assert all(torch.equal(a, b) for a, b in zip(sample().values(), sample().values(), strict=True))
    assert not torch.equal(sample()["water.T1_s"], sample(seed=2)["water.T1_s"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("water", "T1_s"), {"uniform": [2.0, 1.0]}, "empty"),
        (("water", "T1_s"), {"uniform": [-1.0, 1.0]}, "physically possible"),
        (("water", "T2_s"), {"normal": [0.06, 0.03]}, "physically possible"),
        (("water", "T2_s"), {"normal": [0.06, 0.0]}, "standard deviation"),
        (("water", "T1_s"), {"triangle": [1.0, 2.0]}, "uniform"),
        (("water", "T1_s"), {"uniform": [1.0]}, "two numbers"),
        (("water", "T1_s"), {"fit": True, "start": 1.0, "bounds": [0.5, 2.0]}, "no place"),
        (("water", "T1_s"), 0.0, "T1_s"),
        (("b1_relative",), {"uniform": [0.0, 1.0]}, "physically possible"),
        (("water", "T1_s"), {"uniform": [1.0, "long"]}, "a number of uniform is 'long'"),
        (("water", "T2"), 0.1, "water: unknown keys T2; use T1_s, T2_s"),
        (("lipid",), {}, "unknown keys lipid; use water, solutes, semisolid"),
        (("water",), 3, "water: must be an object with the keys T1_s, T2_s"),
    ],
)
def test_impossible_distributions_are_refused_by_name(path: tuple, value: object, said: str) -> None:
    tissue = copy.deepcopy(TISSUE)
    node = tissue
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValueError, match=said) as error:
        TissueDistribution.from_dict(tissue, "config.json: tissue")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("config.json: tissue")


def test_an_unknown_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="'triangle' is unknown; use one of uniform, log_uniform, normal"):
        Distribution("triangle", 0.0, 1.0)
