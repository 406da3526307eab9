"""Both engines against the golden spectra, which are independent matrix exponentials of the same scenarios."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from paths import TESTS

from CESTQuantLib.formats.scenario import read_scenario
from CESTQuantLib.physics.simulation import simulate

GOLDEN = TESTS / "golden"
SCENARIOS = sorted(path.stem for path in GOLDEN.glob("*.json"))
R1RHO_AT_3T = {
    "G01_amide2pool_3T_2uT_2s",
    "G02_BMsim_case1_creatine_15s",
    "G07_WM6pool_3T_lorentzianMT",
    "G18_B0shift_p0p3ppm",
    "G20_initialMz_0p3",
}
"""CW at 3 T with pools that the analytic solution is meant for, saturated for much longer than T2."""

OTHER_ANALYTIC = ("G04", "G22", "G23")
"""A broad xyz pool, a schedule and a train: their analytic column is another approximation."""


@pytest.fixture
def scenario(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def spectrum(scenario: dict, engine: str, dtype: torch.dtype) -> np.ndarray:
    found = read_scenario(scenario, scenario["id"])
    fields = {"b0_shift_ppm": found.b0_shift_ppm, "b1_relative": found.b1_relative}
    z = simulate(found.tissue, found.protocol, engine=engine, **fields, dtype=dtype)
    assert z.dtype == dtype
    return z[0].double().numpy()


def largest_difference(z: np.ndarray, truth: list, where: np.ndarray | None = None) -> float:
    difference = np.abs(z - np.array(truth, dtype=float))
    return float(difference[... if where is None else where].max())


@pytest.mark.parametrize("name", SCENARIOS)
def test_bloch_mcconnell_in_float64_agrees_to_1e_9(scenario: dict) -> None:
    z = spectrum(scenario, "bloch-mcconnell", torch.float64)
    assert largest_difference(z, scenario["Z_expm_independent"]) <= 1e-9


@pytest.mark.parametrize("name", SCENARIOS)
def test_bloch_mcconnell_in_float32_agrees_to_1e_4(scenario: dict) -> None:
    z = spectrum(scenario, "bloch-mcconnell", torch.float32)
    assert largest_difference(z, scenario["Z_expm_independent"]) <= 1e-4


@pytest.mark.parametrize("name", [n for n in SCENARIOS if n in R1RHO_AT_3T] or SCENARIOS)
def test_r1rho_is_within_2e_3_beyond_1_ppm_at_3T(scenario: dict) -> None:
    z = spectrum(scenario, "r1rho", torch.float64)
    beyond = np.abs(np.array(scenario["offsets_ppm"]) - scenario["preparation"]["B0_shift_ppm"]) > 1
    assert largest_difference(z, scenario["Z_expm_independent"], beyond) <= 2e-3


@pytest.mark.parametrize("name", [n for n in SCENARIOS if not n.startswith(OTHER_ANALYTIC)])
def test_r1rho_agrees_with_the_independent_analytic_column(scenario: dict) -> None:
    scenario["preparation"]["post_delay_s"] = 0.0  # the column is taken at the end of the saturation
    z = spectrum(scenario, "r1rho", torch.float64)
    assert largest_difference(z, scenario["Z_analytic_R1rho_2x2MT"]) <= 1e-9


@pytest.mark.parametrize("name", [n for n in SCENARIOS if "xyzMT" in n] or SCENARIOS)
def test_r1rho_treats_a_broad_xyz_pool_as_semisolid_to_2e_3(scenario: dict) -> None:
    z = spectrum(scenario, "r1rho", torch.float64)
    beyond = np.abs(np.array(scenario["offsets_ppm"])) > 1
    assert largest_difference(z, scenario["Z_expm_independent"], beyond) <= 2e-3


def test_r1rho_follows_a_carried_over_schedule() -> None:
    path = GOLDEN / "G22_MRF_schedule_Larg_9p4T.json"
    scenario = json.loads(path.read_text(encoding="utf-8"))
    z = spectrum(scenario, "r1rho", torch.float64)
    assert largest_difference(z, scenario["Z_expm_independent"]) <= 2e-3
