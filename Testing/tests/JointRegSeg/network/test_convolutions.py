"""Blocks by configuration: residual, separable and dynamic convolutions, attention, dropout and pooling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from JointRegSegLib.multitask.config import study_network
from JointRegSegLib.multitask.network import MultiTaskNetwork
from JointRegSegLib.network.blocks import Down, ResidualUnit
from JointRegSegLib.network.configuration import NetworkConfig, load_network_config
from JointRegSegLib.network.convolutions import ContextAttention, DynamicConv3d, SeparableConv3d
from JointRegSegLib.network.joint import build_network
from JointRegSegLib.network.precision import Precision, run_fast
from JointRegSegLib.tasks.regression import Regression
from JointRegSegLib.tasks.tissue import Tissue

SMALL = NetworkConfig.from_dict(
    {"channels": [4, 8, 8], "encoder_convolutions": [1, 2, 3], "decoder_convolutions": [2, 1], "auxiliary": 1}
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options",
    [
        {"residual_units": True, "down": "unit"},
        {"convolution": "separable", "residual_units": True},
        {"convolution": "dynamic"},
        {"context_attention": True, "normalisation": "brain"},
        {"dropout": 0.3, "down": "max", "normalisation": "none"},
        {"down": "average", "residual": True, "stem": True},
    ],
)
def test_every_block_trains_each_of_its_weights_and_works_in_bfloat16(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, **options, modalities=("t1",), registration=False, registration_level=0, stride=1)
    task = Tissue(classes={"a": 1, "b": 2}, class_weights=(1.0, 1.0, 1.0))
    network = MultiTaskNetwork(config, [task, Regression(column="age")]).train()
    study = drawn(2, 1, 16, 16, 16)
    found = network(study)
    (found["tissue"][0].square().mean() + found["tissue"][1].square().mean() + found["age"].square().sum()).backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert unused == []
    joint = build_network(replace(SMALL, **options, antisymmetric=False, stride=1)).eval()
    exact, rounded = (
        run_fast(joint, drawn(1, 4, 16, 16, 16), drawn(1, 4, 16, 16, 16) + 1, precision=p).fixed_logits
        for p in (Precision(), Precision("bfloat16", True))
    )
    assert exact is not None
    assert rounded is not None
    assert float((exact - rounded).abs().mean()) < 0.05 * float(exact.abs().mean())


def test_a_separable_convolution_is_a_full_one_with_fewer_numbers() -> None:
    separable = SeparableConv3d(6, 5, bias=False)
    assert sum(p.numel() for p in separable.parameters()) == 6 * 27 + 6 * 5
    full = torch.einsum("oi,idhw->oidhw", separable.pointwise.weight[:, :, 0, 0, 0], separable.depthwise.weight[:, 0])
    x = drawn(1, 6, 5, 6, 7)
    assert torch.allclose(separable(x), torch.nn.functional.conv3d(x, full, padding=1), atol=1e-5)


def test_a_dynamic_convolution_has_another_kernel_for_each_study() -> None:
    torch.manual_seed(0)
    dynamic = DynamicConv3d(3, 2, bias=True)
    torch.nn.init.normal_(dynamic.mix.weight, std=3)
    one, other = drawn(1, 3, 6, 6, 6), drawn(1, 3, 6, 6, 6) + 2
    together = dynamic(torch.cat([one, other]))
    assert torch.allclose(together, torch.cat([dynamic(one), dynamic(other)]), atol=1e-5)
    assert not torch.allclose(dynamic(2 * one), 2 * dynamic(one), atol=1e-3)  # as a fixed kernel would be


def test_attention_knows_the_context_far_away_and_keeps_the_scale() -> None:
    torch.manual_seed(0)
    attention = ContextAttention(4)
    x = drawn(1, 4, 8, 8, 8)
    far = x.clone()
    far[..., 7] += 5
    assert not torch.equal(attention(x)[..., 0], attention(far)[..., 0])
    assert bool((attention(x).abs() <= 2 * x.abs()).all())


def test_a_residual_unit_whose_convolutions_are_zero_hands_on_its_input() -> None:
    unit = ResidualUnit(replace(SMALL, normalisation="none", activation="relu"), 4, 4)
    for parameter in unit.parameters():
        torch.nn.init.zeros_(parameter)
    x = drawn(1, 4, 4, 4, 4)
    assert torch.equal(unit(x), x.relu())


def test_pooling_takes_the_maximum_or_the_mean_of_each_block() -> None:
    x = drawn(1, 1, 4, 4, 4)
    blocks = x.view(1, 1, 2, 2, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5)
    for down, expected in (("max", blocks.amax(5)), ("average", blocks.mean(5))):
        layer = Down(replace(SMALL, down=down, normalisation="none", activation="relu"), 1, 1)
        torch.nn.init.ones_(layer.unit.convolution.weight)
        torch.nn.init.zeros_(layer.unit.convolution.bias)
        assert torch.allclose(layer(x), expected.relu())


@pytest.mark.parametrize(("name", "millions"), [("resnet10", 14.3), ("resnet18", 33.1)])
def test_a_resnet_has_as_many_weights_as_the_published_one(name: str, millions: float) -> None:
    config = study_network({"base": name, "modalities": ["t1"]}, "test")
    with torch.device("meta"):
        encoder = MultiTaskNetwork(config, [Regression(column="age")]).encoder
    count = sum(p.numel() for p in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_configuration_names_what_it_does_not_know() -> None:
    assert load_network_config("residual_unet").residual_units
    for change, message in (
        ({"convolution": "sparse"}, "convolution is 'sparse' but must be one of full, separable, dynamic"),
        ({"down": "median"}, "down is 'median' but must be one of strided, average, max, unit"),
        ({"dropout": 1.0}, "dropout is 1.0 but must be a probability below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SMALL, **change)
