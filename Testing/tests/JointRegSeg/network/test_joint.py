"""The joint network: published size, symmetry, untrained state, precisions, and refusal of unusable input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from JointRegSegLib.losses.config import LossConfig
from JointRegSegLib.network.blocks import InstanceNorm, convolution_unit
from JointRegSegLib.network.configuration import NetworkConfig, load_network_config, network_config_names
from JointRegSegLib.network.joint import JointNetwork, JointOutput, build_network
from JointRegSegLib.network.precision import (
    FLOAT32,
    Precision,
    candidate_precisions,
    fastest_precision,
    register_fast,
    run_fast,
    segment_fast,
)
from JointRegSegLib.registration.deformation import (
    integrate_velocity,
    inverse_error,
    jacobian_determinant,
    resize_displacement,
)

PUBLISHED = load_network_config("estienne2020")
SMALL = replace(
    load_network_config("neurocest"),
    channels=(4, 6, 8),
    encoder_convolutions=(1, 1, 1),
    decoder_convolutions=(1, 1),
    auxiliary=1,
    stride=1,
)


def network(config: NetworkConfig, seed: int = 0, moving: float = 0.0) -> JointNetwork:
    """Build a seeded network; ``moving`` is the standard deviation of the output weights of the registration."""
    torch.manual_seed(seed)
    result = build_network(config)
    if moving:
        torch.nn.init.normal_(result.registration.output.weight, std=moving)
    return result.eval()


def studies(size: tuple[int, int, int] = (16, 16, 32), channels: int = 4, batch: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, channels, *size), torch.randn(batch, channels, *size)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 3_174_751),
        ({"merge": "add"}, 3_174_751),
        ({"modalities": ("t1",)}, 3_174_727),
        ({"merge": "concatenate"}, 3_387_167),
        ({"registration": False}, 2_510_084),
        ({"registration": False, "channels": (16, 32, 64, 128, 256)}, 10_037_380),
    ],
)
def test_published_networks_have_the_published_number_of_parameters(changes: dict, count: int) -> None:
    assert build_network(replace(PUBLISHED, **changes)).parameter_count == count


def test_published_training_settings_are_the_defaults_of_its_configuration() -> None:
    expected = {
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "learning_rate_factor": 0.2,
        "learning_rate_patience": 30,
        "patience": 50,
        "batch_size": 2,
        "validate_every_batches": 100,
    }
    assert dict(PUBLISHED.training) == expected
    loss = PUBLISHED.loss
    assert (loss.similarity, loss.phi_weight, loss.registration_weight) == ("mse", 1e-10, 1.0)
    assert loss.relaxed
    assert not loss.mask_labels


@pytest.mark.parametrize("name", network_config_names())
def test_every_named_configuration_segments_and_registers_on_the_input_grid(name: str) -> None:
    config = load_network_config(name)
    assert config.name == name
    assert config.classes == (5 if name == "neurocest_cavity" else 4)  # with the resection cavity
    output = network(config)(*studies((32, 32, 32)))
    if config.segmentation:
        assert output.fixed_logits.shape == output.moving_logits.shape == (1, config.classes, 32, 32, 32)
    else:
        assert output.fixed_logits is output.moving_logits is None
    assert (output.deformation is not None) == config.registration
    if config.registration:
        assert output.deformation.displacement.shape == (1, 3, 32, 32, 32)
        assert (output.deformation.inverse is not None) == (config.deformation == "velocity")
        assert (output.deformation.gradients is not None) == (config.deformation == "cumulative")


def test_encoder_and_segmentation_head_are_shared_by_both_studies() -> None:
    net, (fixed, moving) = network(PUBLISHED), studies((16, 16, 16))
    forward, backward = net(fixed, moving), net(moving, fixed)
    assert torch.allclose(forward.fixed_logits, backward.moving_logits, atol=1e-5)
    assert torch.allclose(forward.fixed_logits, net.segment(fixed), atol=1e-5)
    assert not torch.allclose(forward.fixed_logits, forward.moving_logits, atol=1e-2)


def test_published_registration_of_neutral_gradients_is_the_identity() -> None:
    net = network(PUBLISHED)
    torch.nn.init.zeros_(net.registration.output.weight)
    deformation = net(*studies((16, 16, 16))).deformation
    assert torch.equal(deformation.gradients, torch.full_like(deformation.gradients, 0.5))
    assert torch.equal(deformation.displacement, torch.zeros_like(deformation.displacement))


def test_published_map_is_monotone_along_each_axis() -> None:
    net = network(PUBLISHED)
    torch.nn.init.normal_(net.registration.output.weight, std=1.0)
    displacement = net(*studies((16, 16, 16))).deformation.displacement
    assert displacement.abs().max() > 1
    for axis in range(3):
        assert (displacement[:, axis].diff(dim=axis + 1) > -1).all()


def test_default_network_starts_as_the_identity() -> None:
    deformation = network(SMALL)(*studies()).deformation
    assert torch.equal(deformation.displacement, torch.zeros_like(deformation.displacement))
    assert torch.equal(deformation.inverse, torch.zeros_like(deformation.inverse))


@pytest.mark.parametrize("merge", ["subtract", "concatenate"])
def test_exchanging_the_studies_gives_exactly_the_inverse(merge: str) -> None:
    net, (fixed, moving) = network(replace(SMALL, merge=merge), moving=0.3), studies()
    forward, backward = net(fixed, moving).deformation, net(moving, fixed).deformation
    assert forward.displacement.abs().max() > 0.3
    assert torch.allclose(forward.displacement, backward.inverse, atol=1e-5)
    assert torch.allclose(forward.inverse, backward.displacement, atol=1e-5)


def test_equal_studies_are_not_deformed() -> None:
    fixed, _ = studies()
    for merge in ("subtract", "concatenate"):
        displacement = network(replace(SMALL, merge=merge), moving=1.0)(fixed, fixed).deformation.displacement
        assert displacement.abs().max() < 1e-5


@pytest.mark.parametrize(("size", "shift", "tolerance"), [(0.02, 0.5, 0.1), (0.15, 3.0, 1.5)])
def test_map_and_inverse_undo_each_other_without_folding(size: float, shift: float, tolerance: float) -> None:
    """This holds even for the velocity of an untrained network, which differs by up to twice the voxel distance."""
    torch.manual_seed(3)
    coarse = torch.randn(2, 4, 4, 4, 4)
    fixed, moving = torch.nn.functional.interpolate(coarse, size=(32, 32, 32), mode="trilinear").split(1)
    deformation = network(SMALL, moving=size)(fixed, moving).deformation
    inner = (..., *[slice(6, -6)] * 3)
    assert deformation.displacement[inner].abs().max() > shift
    assert jacobian_determinant(deformation.displacement)[inner].min() > 0
    assert inverse_error(deformation.displacement, deformation.inverse)[inner].max() < tolerance


def test_stride_averages_the_input_and_output_is_on_the_input_grid() -> None:
    net, (fixed, moving) = network(SMALL, moving=0.3), studies((16, 16, 16))
    fine = [torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest") for x in (fixed, moving)]
    coarse, double = net(fixed, moving, stride=1), net(*fine, stride=2)
    assert double.fixed_logits.shape == (1, 4, 32, 32, 32)
    expected = torch.nn.functional.interpolate(coarse.fixed_logits, scale_factor=2.0, mode="trilinear")
    assert torch.allclose(double.fixed_logits, expected, atol=1e-5)
    expected = resize_displacement(integrate_velocity(coarse.deformation.velocity), (32, 32, 32))
    assert torch.allclose(double.deformation.displacement, expected, atol=1e-5)  # in voxels of half the size
    assert expected.abs().max() > 0.5
    assert torch.allclose(double.deformation.velocity, coarse.deformation.velocity, atol=1e-5)


def test_coarser_levels_have_outputs_in_training_only() -> None:
    net, (fixed, moving) = network(load_network_config()), studies((32, 32, 32))
    assert net(fixed, moving, stride=1).fixed_auxiliary == ()
    output = net.train()(fixed, moving, stride=1)
    assert [tuple(x.shape[2:]) for x in output.fixed_auxiliary] == [(16, 16, 16), (8, 8, 8)]
    assert [tuple(x.shape[2:]) for x in net.segment_levels(moving, 1)[1]] == [(16, 16, 16), (8, 8, 8)]


def test_every_weight_has_a_gradient() -> None:
    for config in (replace(SMALL, zero_output=False), PUBLISHED):
        net = network(config).train()
        output = net(*studies((16, 16, 16)))
        logits = (output.fixed_logits, output.moving_logits, *output.fixed_auxiliary, output.deformation.displacement)
        sum(x.square().sum() for x in logits).backward()
        idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert idle == []


@pytest.mark.parametrize(
    ("down", "up"), [("average", "trilinear"), ("strided", "trilinear"), ("average", "transposed")]
)
def test_other_steps_between_levels(down: str, up: str) -> None:
    output = network(replace(SMALL, down=down, up=up))(*studies())
    assert output.fixed_logits.shape == (1, 4, 16, 16, 32)


def test_gradients_agree_with_finite_differences() -> None:
    config = replace(
        SMALL,
        channels=(2, 2),
        encoder_convolutions=(1, 1),
        decoder_convolutions=(1,),
        registration_level=0,
        modalities=("t1",),
        auxiliary=0,
        integration_steps=2,
    )
    net = network(config, moving=0.1).double()
    torch.manual_seed(5)
    fixed, moving = (torch.randn(1, 1, 4, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def outputs(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        output = net(a, b)
        return output.fixed_logits, output.deformation.displacement, output.deformation.inverse

    assert torch.autograd.gradcheck(outputs, (fixed, moving), eps=1e-6, atol=1e-5, fast_mode=True)


def test_instance_norm_agrees_with_torch() -> None:
    norm, reference = InstanceNorm(3), torch.nn.InstanceNorm3d(3, affine=True)
    with torch.no_grad():
        for module in (norm, reference):
            module.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
            module.bias.copy_(torch.tensor([0.0, -1.0, 1.0]))
    x = torch.randn(2, 3, 4, 5, 6) * 3 + 7
    assert torch.allclose(norm(x), reference(x), atol=1e-5)
    channels_last = norm(x.contiguous(memory_format=torch.channels_last_3d))
    assert channels_last.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(channels_last, reference(x), atol=1e-5)
    assert norm(torch.ones(1, 3, 1, 1, 1)).flatten().tolist() == [0.0, -1.0, 1.0]


@pytest.mark.parametrize("normalisation", ["none", "instance"])
def test_convolution_in_two_parts_agrees_with_that_of_the_concatenation(normalisation: str) -> None:
    torch.manual_seed(0)
    unit = convolution_unit(replace(SMALL, normalisation=normalisation), 5, 3)
    code, x = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 3, 4, 4, 4)
    assert torch.allclose(unit(code, x), unit(torch.cat([code, x], dim=1)), atol=1e-5)


def test_every_precision_gives_the_same_output() -> None:
    config = replace(SMALL, channels=(8, 16, 16))
    net, (fixed, moving) = network(config, moving=0.1), studies((16, 16, 16))
    exact = net(fixed, moving)
    spread = exact.fixed_logits.std()
    for precision in candidate_precisions("cpu"):
        output = run_fast(net, fixed, moving, precision=precision)
        tolerance = 1e-4 if precision.dtype == "float32" else 0.05
        assert output.fixed_logits.dtype == output.deformation.displacement.dtype == torch.float32
        assert output.fixed_logits.is_contiguous()
        assert (output.moving_logits - exact.moving_logits).abs().max() < 4 * tolerance * spread
        assert (output.deformation.displacement - exact.deformation.displacement).abs().max() < tolerance
        assert torch.equal(segment_fast(net, fixed, precision=precision), output.fixed_logits)
        alone = register_fast(net, fixed, moving, precision=precision)
        assert torch.equal(alone.displacement, output.deformation.displacement)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())  # the original is untouched


def overflowing(factor: float) -> JointNetwork:
    """Build a network without normalisation whose features are large."""
    net = network(replace(SMALL, channels=(8, 16, 16), normalisation="none", activation="relu"), moving=0.1)
    for parameter in net.parameters():
        parameter.data *= factor
    return net


def test_a_network_that_overflows_in_float16_computes_in_float32() -> None:
    net, (fixed, moving) = overflowing(20.0), studies((16, 16, 16))
    half, exact = Precision("float16", True), Precision("float32", True)
    assert not bool(run_fast(net, fixed, moving, precision=half).fixed_logits.isfinite().all())
    found, expected = (segment_fast(net, fixed, precision=p) for p in (half, exact))
    assert torch.allclose(found, expected, rtol=1e-3)
    found, expected = (register_fast(net, fixed, moving, precision=p).displacement for p in (half, exact))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_network_whose_output_is_not_finite_is_refused() -> None:
    net, (fixed, moving) = overflowing(1e15), studies((16, 16, 16))
    message = "the network 'neurocest' computes numbers that are not finite from these images: use other weights"
    with pytest.raises(ValueError, match=message):
        segment_fast(net, fixed)
    with pytest.raises(ValueError, match=message):
        register_fast(net, fixed, moving)


def test_fast_run_computes_no_gradients_but_its_result_can_be_refined() -> None:
    output = run_fast(network(SMALL, moving=0.1).train(), *studies(), precision=FLOAT32)
    displacement = output.deformation.displacement
    assert not displacement.requires_grad
    start = displacement.requires_grad_()
    start.square().sum().backward()
    assert start.grad is not None


def test_the_fastest_precision_follows_from_the_processor_and_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest_precision("cpu") in candidate_precisions("cpu")
    for amx, avx, dtype in ((True, True, "bfloat16"), (False, True, "bfloat16"), (False, False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert fastest_precision(torch.device("cpu")) == Precision(dtype, channels_last=True)


def test_a_precision_converts_volumes_and_weights() -> None:
    precision = Precision("bfloat16", channels_last=True)
    volume = torch.randn(1, 4, 2, 3, 5)
    assert str(precision) == "bfloat16 channels last"
    assert precision.arrange(volume).dtype == torch.float32
    assert precision.convert(volume).dtype == torch.bfloat16
    convolution = torch.nn.Conv3d(4, 4, 3)
    precision.arrange_weights(convolution)
    for tensor in (precision.arrange(volume), precision.convert(volume), convolution.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last_3d)
    assert FLOAT32.convert(volume) is volume


def test_an_unknown_number_format_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="number format 'int8' is unknown; use one of float32, bfloat16, float16"):
        Precision("int8")


def test_selecting_a_pair_of_a_batch_selects_all_outputs_of_it() -> None:
    net, (fixed, moving) = network(SMALL, moving=0.1).train(), studies((16, 16, 16), batch=2)
    output = net(fixed, moving)
    second = output.select(1)
    assert torch.equal(second.moving_logits, output.moving_logits[1:])
    assert torch.equal(second.deformation.inverse, output.deformation.inverse[1:])
    assert torch.equal(second.deformation.velocity, output.deformation.velocity[1:])
    assert second.deformation.gradients is None
    assert [level.shape[0] for level in second.fixed_auxiliary] == [1]
    assert JointOutput().select(0) == JointOutput()


@pytest.mark.parametrize(
    ("fixed", "moving", "stride", "words"),
    [
        (
            (1, 4, 16, 16, 24),
            (1, 4, 16, 16, 24),
            1,
            "16 x 16 x 24 voxels but the network 'estienne2020' needs",
        ),
        ((1, 4, 16, 16, 16), (1, 4, 16, 16, 16), 2, "needs multiples of 32; pad or crop it"),
        ((1, 4, 16, 16, 16), (1, 4, 16, 16, 32), 1, "the moving one (1, 4, 16, 16, 32); resample both to one grid"),
        ((1, 3, 16, 16, 16), (1, 3, 16, 16, 16), 1, "channels t1, t1ce, t2, flair; this study has the shape (1, 3, 16"),
        ((4, 16, 16, 16), (4, 16, 16, 16), 1, "takes studies of shape (B, 4, D, H, W)"),
        ((1, 4, 16, 16, 16), (1, 4, 16, 16, 16), 0, "stride is 0"),
    ],
)
def test_unusable_studies_are_refused(fixed: tuple, moving: tuple, stride: int, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        network(PUBLISHED)(torch.zeros(fixed), torch.zeros(moving), stride)
    assert words in str(caught.value)


def test_registration_alone_does_not_segment() -> None:
    with pytest.raises(ValueError, match="'voxelmorph' has no segmentation head"):
        network(load_network_config("voxelmorph")).segment(torch.zeros(1, 4, 16, 16, 16))


def test_segmentation_alone_does_not_register() -> None:
    with pytest.raises(ValueError, match="has no registration head"):
        network(replace(SMALL, registration=False)).register(*studies())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"colour": 1}, "unknown keys colour"),
        ({"merge": "multiply"}, "merge is 'multiply' but must be one of subtract, add, concatenate"),
        ({"channels": [8, 16]}, "encoder_convolutions has 5 numbers but 2 levels need 2"),
        ({"channels": [8, 16, 0, 1, 1]}, "channels is [8, 16, 0, 1, 1]"),
        ({"channels": 8}, "wrong type"),
        ({"modalities": ["t1", "pd"]}, "modalities are ['t1', 'pd']"),
        ({"modalities": ["t1", "t1"]}, "must be different ones"),
        ({"stride": 2.5}, "stride is 2.5"),
        ({"segmentation": False, "registration": False}, "needs at least one head"),
        ({"merge": "add"}, "antisymmetric needs"),
        ({"deformation": "cumulative", "antisymmetric": False}, "set registration_level to 0"),
        ({"registration": "yes"}, "must be true or false"),
        ({"loss": {"similarity": "ssd"}}, "loss: similarity 'ssd' is unknown; use one of lncc, mse"),
        ({"loss": {"weight": 1}}, "loss: unknown keys weight"),
        ({"loss": {"smoothness_weight": -1}}, "smoothness_weight is -1"),
    ],
)
def test_unusable_configurations_are_refused_with_file_and_key(values: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r".") as caught:
        load_network_config(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_missing_and_broken_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unet: no such file; give a JSON file or one of estienne2020, .*neurocest"):
        load_network_config("unet")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not valid JSON"):
        load_network_config(tmp_path / "broken.json")


def test_configurations_can_be_stored_as_json() -> None:
    for name in network_config_names():
        config = load_network_config(name)
        assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert LossConfig.from_dict(json.loads(json.dumps(LossConfig(class_weights=(1, 2, 3, 4)).to_dict()))) == LossConfig(
        class_weights=(1, 2, 3, 4)
    )
