"""Signal scale and noise floor as fitted values, and values that an acquisition does not determine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from CESTQuantLib.methods.base import Settings
from CESTQuantLib.methods.registry import quantify
from CESTQuantLib.physics.pools import Pool, Tissue, Water
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.physics.receiver import measured_signal, measured_signal_slopes
from CESTQuantLib.physics.simulation import simulate
from CESTQuantLib.tissue.model import tissue_model_from_dict
from CESTQuantLib.tissue.spectra import ZSpectra

OFFSETS = torch.cat((torch.tensor([-300.0]), torch.linspace(-5, 5, 31))).double()
PROTOCOL = Protocol(3.0, OFFSETS, 1.5, 3.0)
TISSUE = Tissue(Water(1.3, 0.08), (Pool("amide", 0.0015, 60.0, 1.0, 0.05, 3.5),))


def fit(start: float, low: float, high: float) -> dict[str, Any]:
    return {"fit": True, "start": start, "bounds": [low, high]}


def model(**changes: Any) -> Settings:
    amide = {"name": "amide", "dw_ppm": 3.5, "T1_s": 1.0, "T2_s": 0.05, "k_Hz": 60.0}
    amide |= {"fraction": fit(0.001, 1e-5, 0.02)}
    values = {"water": {"T1_s": 1.3, "T2_s": fit(0.06, 0.02, 0.3)}, "solutes": [amide], **changes}
    return Settings(model=tissue_model_from_dict(values))


@pytest.mark.parametrize("method", ["r1rho", "bloch-mcconnell"])
def test_scale_and_noise_floor_are_recovered(method: str) -> None:
    """Magnitudes with a floor of 0.06, of an M0 image that is 4 % too bright."""
    z = simulate(TISSUE, PROTOCOL, engine=method)
    spectra = ZSpectra(torch.sqrt((z / 1.04) ** 2 + 0.06**2), PROTOCOL)
    settings = model(signal_scale=fit(1.0, 0.8, 1.2), noise_floor=fit(0.03, 0.0, 0.2))
    found = quantify(spectra, method, settings)
    assert found.warnings == ()
    assert float(found.quantities["signal_scale"]) == pytest.approx(1 / 1.04, rel=1e-3)
    assert float(found.quantities["noise_floor"]) == pytest.approx(0.06, rel=1e-2)
    assert float(found.quantities["amide_fraction"]) == pytest.approx(0.0015, rel=1e-2)
    without = quantify(spectra, method, model())
    assert abs(float(without.quantities["amide_fraction"]) / 0.0015 - 1) > 0.1


@pytest.mark.parametrize("method", ["r1rho", "bloch-mcconnell"])
@pytest.mark.parametrize(("start", "floor"), [(0.0, 0.1), (1e-3, 0.01)], ids=["at the start", "on the way"])
def test_a_noise_floor_leaves_zero(method: str, start: float, floor: float) -> None:
    offsets = OFFSETS[1:][OFFSETS[1:].abs() > 1.9]
    protocol = Protocol(3.0, offsets.repeat(2), [1.0] * len(offsets) + [4.0] * len(offsets), 2.0)
    z = simulate(replace(TISSUE, water=Water(1.3, 0.03)), protocol, engine=method)
    generator = torch.Generator().manual_seed(1)
    noise = 0.002 * torch.randn(20, len(z.flatten()), generator=generator, dtype=torch.float64)
    spectra = ZSpectra(torch.sqrt(z.square() + floor**2) + noise, protocol)
    found = quantify(spectra, method, model(noise_floor=fit(start, 0.0, 0.2)))
    best = quantify(spectra, method, model(noise_floor=fit(0.15, 0.0, 0.2)))
    assert (found.quantities["rmse"] < 1.001 * best.quantities["rmse"]).all()
    assert float(found.quantities["noise_floor"].median()) == pytest.approx(floor, abs=0.005)
    without = quantify(ZSpectra(z, protocol), method, model(noise_floor=fit(start, 0.0, 0.2)))
    assert float(without.quantities["noise_floor"]) < 0.005


def test_slopes_of_the_measured_signal_are_its_derivatives() -> None:
    points = [torch.tensor([[0.02], [0.7]]).double(), torch.tensor([0.95]).double(), torch.tensor([0.04]).double()]
    for value in points:
        value.requires_grad_()
    measured, *slopes = measured_signal_slopes(*points)
    torch.testing.assert_close(measured, measured_signal(*points))
    for value, slope in zip(points, slopes, strict=True):
        (gradient,) = torch.autograd.grad(measured_signal(*points).sum(), value)
        torch.testing.assert_close(slope if value.ndim == 2 else slope.sum(0), gradient)


def noisy(protocol: Protocol, noise: float = 0.002) -> ZSpectra:
    z = simulate(TISSUE, protocol, engine="r1rho")
    noise_of = torch.randn(50, protocol.measurement_count, generator=torch.Generator().manual_seed(1)).double()
    return ZSpectra(z + noise * noise_of, protocol)


def test_a_value_that_hardly_acts_is_named_wherever_its_fit_ends() -> None:
    far = Protocol(3.0, torch.linspace(30, 60, 10), 0.2, 3.0)
    (amide, water) = sorted(quantify(noisy(far), "r1rho", model()).warnings)
    assert amide.startswith("this acquisition does not determine amide.fraction: in 100 % of the voxels")
    assert water.startswith("this acquisition does not determine water.T2_s: in 100 % of the voxels")
    assert quantify(noisy(PROTOCOL), "r1rho", model()).warnings == ()


def test_the_scale_of_normalised_vectors_is_refused() -> None:
    unit = replace(PROTOCOL, signal_normalisation="l2")
    z = simulate(TISSUE, unit, engine="r1rho")
    with pytest.raises(ValueError, match="has a signal_scale, but signals normalised to length one"):
        quantify(ZSpectra(z, unit), "r1rho", model(signal_scale=fit(1.0, 0.5, 2.0)))


def test_the_partner_of_an_undetermined_value_is_named() -> None:
    """Rate and fraction of slow exchange show as their product only."""
    protocol = Protocol(3.0, torch.tensor([-300.0, 3.0, 3.25, 3.5, 3.75, 4.0]).double(), 3.0, 3.0)
    amide = {"name": "amide", "dw_ppm": 3.5, "T1_s": 1.0, "T2_s": 0.05}
    amide |= {"k_Hz": fit(60, 5, 300), "fraction": fit(0.0015, 1e-5, 0.01)}
    values = {"water": {"T1_s": 1.3, "T2_s": 0.08}, "solutes": [amide]}
    found = quantify(noisy(protocol, 0.005), "r1rho", Settings(model=tissue_model_from_dict(values)))
    assert any("hardly told apart from amide." in warning for warning in found.warnings)
    amide["k_Hz"] = {**amide["k_Hz"], "prior": [60.0, 10.0]}
    found = quantify(noisy(protocol, 0.005), "r1rho", Settings(model=tissue_model_from_dict(values)))
    assert not found.warnings
