"""Analytic derivatives of the R1rho signal along schedules against differences of the engine."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import TissueModel, tissue_model_from_dict
from CESTQuantLib.tissue.r1rho_jacobian import has_slopes, signal_slopes

POOLS = {
    "water": {"T1_s": 1.6, "T2_s": 0.06},
    "solutes": [
        {"name": "amide", "fraction": 1e-3, "k_Hz": 50, "T1_s": 1.0, "T2_s": 0.05, "dw_ppm": 3.5},
        {"name": "amine", "fraction": 2e-3, "k_Hz": 800, "T1_s": 1.0, "T2_s": 0.01, "dw_ppm": 2.0},
    ],
}
SEMISOLID = {"fraction": 0.08, "k_Hz": 30, "T1_s": 1.1, "T2_s": 1e-5, "dw_ppm": -2.6}
PATHS = ["water.T1_s", "water.T2_s", "amide.fraction", "amide.k_Hz", "amine.T2_s", "amine.dw_ppm", "b0_shift_ppm"]
OF_SEMISOLID = ["semisolid.fraction", "semisolid.k_Hz", "semisolid.T1_s"]


def schedule(**fields) -> Protocol:
    offsets = torch.tensor([3.5, -2.0, 1.5, 8.0, 0.7, 2.0], dtype=torch.float64)
    b1 = torch.tensor([0.5, 1.0, 2.0, 4.0, 0.0, 3.0], dtype=torch.float64)
    flip = torch.tensor([90.0, 60.0, 30.0, 90.0, 15.0, 70.0], dtype=torch.float64)
    given = {"recovery_time_s": torch.linspace(0.2, 1.0, 6), "readout_flip_angle_deg": flip}
    return Protocol(7.0, offsets, b1, 1.2, **(given | fields))


SCHEDULES = {
    "carried over": schedule(magnetisation_carried_over=True),
    "carried over, delay and plain signal": schedule(
        magnetisation_carried_over=True, post_delay_s=0.1, signal_normalisation="none"
    ),
    "carried over without excitation": schedule(magnetisation_carried_over=True, readout_flip_angle_deg=None),
    "independent": schedule(post_delay_s=0.1, signal_normalisation="none", recovery_time_s=0.0),
}


@pytest.mark.parametrize("pools", ["solutes", "semisolid"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_slopes_equal_differences_of_the_engine(name: str, pools: str) -> None:
    protocol = SCHEDULES[name]
    model = tissue_model_from_dict(POOLS | ({"semisolid": SEMISOLID} if pools == "semisolid" else {}))
    paths = [*PATHS, "b1_relative", *(OF_SEMISOLID if pools == "semisolid" else [])]
    assert has_slopes(model, protocol, paths, "r1rho")
    spread = torch.tensor([0.95, 1.0, 1.05], dtype=torch.float64)
    values = {path: value * spread for path, value in model.start_values().items()}
    values |= {"b0_shift_ppm": 0.05 * spread, "b1_relative": 0.9 * spread}
    signal, slopes = signal_slopes(model, protocol, values, paths, torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(signal, simulated(model, protocol, values), atol=1e-13, rtol=0)
    for slope, path in zip(slopes, paths, strict=True):
        step = 1e-5 * values[path]
        ahead, behind = (
            simulated(model, protocol, values | {path: values[path] + sign * step}) for sign in (1.0, -1.0)
        )
        expected = (ahead - behind) / (2 * step)
        torch.testing.assert_close(slope, expected, atol=2e-6 * float(expected.abs().max()), rtol=0, msg=path)


def simulated(model: TissueModel, protocol: Protocol, values: dict[str, torch.Tensor]) -> torch.Tensor:
    fields = {key: values[key] for key in ("b0_shift_ppm", "b1_relative")}
    return simulate(model.tissue(values), protocol, engine="r1rho", **fields).T


def test_what_has_no_slopes_is_told() -> None:
    model = tissue_model_from_dict(POOLS | {"semisolid": SEMISOLID})
    protocol = schedule(magnetisation_carried_over=True)
    assert not has_slopes(model, protocol, ["semisolid.T2_s"], "r1rho")
    assert not has_slopes(model, protocol, ["water.T1_s"], "bloch-mcconnell")
    with_echo = schedule(signal_normalisation="none", echo_time_s=0.01, recovery_time_s=0.5)
    assert not has_slopes(model, with_echo, ["water.T1_s"], "r1rho")
    model, path = tissue_model_from_dict(POOLS), "amide.T2_s"
    assert has_slopes(model, protocol, ["water.T1_s"], "r1rho")
    assert has_slopes(model, protocol, ["water.T1_s"], "r1rho", {path: (2e-3, 0.1)})
    assert not has_slopes(model, protocol, ["water.T1_s"], "r1rho", {path: (5e-4, 0.1)})
