"""The reconstruction network: units, whitening, uncertainties, dropout, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from CESTQuantLib.networks.architecture import Dropout, ReconstructionNetwork, normalize_input
from NeuroCESTLib.core.processes import Processes


def signals(count: int, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network() -> ReconstructionNetwork:
    torch.manual_seed(0)
    network = ReconstructionNetwork(4, 3, width=16, depth=3, dropout=0.1)
    network.set_targets(
        {"amide.fraction": (1e-4, 1e-2), "amide.k_Hz": (20, 300), "water.T1_s": (1, 2)}, ["amide.fraction"]
    )
    network.set_inputs(signals(100), 0.01)
    return network.eval()


def test_physical_and_normalised_units_are_inverse_and_span_the_ranges(network: ReconstructionNetwork) -> None:
    physical = torch.tensor([[1e-4, 20.0, 1.0], [1e-3, 160.0, 1.5], [1e-2, 300.0, 2.0]])
    normalized = network.to_normalized(physical)
    assert torch.allclose(normalized, torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 3), atol=1e-5)
    assert torch.allclose(network.to_physical(normalized), physical, rtol=1e-5)


def test_standard_deviations_of_logarithmic_outputs_are_relative(network: ReconstructionNetwork) -> None:
    prediction = network.predict(signals(5))
    sd = network.physical_sd(prediction)
    moved = network.to_physical(prediction.mean + 1e-3 * prediction.log_sd.exp())
    assert torch.allclose((moved - network.to_physical(prediction.mean)) / 1e-3, sd, rtol=0.02)
    assert torch.allclose(network.normalized_sd(network.to_physical(prediction.mean), sd), prediction.log_sd.exp())


def test_whitened_inputs_are_uncorrelated_with_unit_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(5000, 4, generator=generator) @ torch.randn(4, 4, generator=generator) * 0.01 + 0.7
    network = ReconstructionNetwork(4, 1)
    network.set_inputs(mixed)
    assert torch.allclose(torch.cov(network.whitened(mixed).T), torch.eye(4), atol=1e-3)


def test_l2_normalisation_removes_the_scale_of_the_scanner() -> None:
    signal = signals(3)
    assert torch.allclose(normalize_input(signal, "l2"), normalize_input(400 * signal, "l2"))
    assert torch.equal(normalize_input(signal, "m0"), signal)


def test_an_unknown_normalisation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="normalisation 'max' is unknown; use one of m0, l2, none"):
        normalize_input(signals(3), "max")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 21}, "depth"),
        ({"depth": 1}, "must be 2 to 20"),
        ({"dropout": 1.0}, "dropout"),
        ({"activation": "sine"}, "'sine' is unknown; use one of tanh, relu, gelu"),
        ({"width": 0}, "unit"),
    ],
)
def test_impossible_networks_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReconstructionNetwork(4, 2, **options)


def test_dropout_masks_belong_to_the_samples_of_the_whole_batch() -> None:
    layer, units = Dropout(0.4).train(), torch.ones(6, 50)
    torch.manual_seed(5)
    whole = layer(units)
    parts = []
    for rank in range(3):
        layer.processes = Processes(rank, 3)
        torch.manual_seed(5)
        parts.append(layer(units[:2]))
    assert torch.equal(torch.cat(parts), whole)
    assert float((whole == 0).float().mean()) == pytest.approx(0.4, abs=0.06)
    assert whole.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert torch.equal(layer.eval()(units), units)
