"""Blocks too large for the network: overlapping tiles, and two visits whose common grid would be too large."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from joint_studies import HeadStudy, small_weights

from JointRegSegLib.images.grid import WorkingGrid
from JointRegSegLib.inference import pair_preparation, pipeline
from JointRegSegLib.inference.settings import InferenceSettings
from JointRegSegLib.network import precision
from JointRegSegLib.network.brain_norm import TileStatistics
from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.network.joint import JointNetwork, build_network
from JointRegSegLib.network.tiles import segment_block, tile_starts, tiles_note
from JointRegSegLib.network.weights import load_weights


@pytest.mark.parametrize(
    ("size", "edge", "overlap", "multiple"), [(320, 128, 32, 16), (96, 128, 32, 16), (48, 32, 8, 8)]
)
def test_tiles_cover_an_axis_and_overlap_enough(size: int, edge: int, overlap: int, multiple: int) -> None:
    starts = tile_starts(size, edge, overlap, multiple)
    assert starts[0] == 0
    assert starts[-1] + edge >= size
    assert all(start % multiple == 0 for start in starts)
    assert all(first + edge - second >= overlap for first, second in itertools.pairwise(starts))


def small_network(normalisation: str) -> JointNetwork:
    torch.manual_seed(3)
    return build_network(
        NetworkConfig(
            channels=(4, 8),
            encoder_convolutions=(1, 1),
            decoder_convolutions=(1,),
            normalisation=normalisation,
            registration=False,
            registration_level=0,
            auxiliary=0,
        )
    ).eval()


@pytest.mark.parametrize("normalisation", ["none", "brain"])
def test_tiles_say_nearly_the_same_as_the_whole_block(normalisation: str) -> None:
    network = small_network(normalisation)
    images = torch.full((1, 4, 32, 48, 32), -3.0)
    smooth = F.interpolate(torch.randn(1, 4, 6, 10, 6, generator=torch.Generator().manual_seed(1)), (24, 40, 24))
    # brighter to one end, so that the statistics of a tile are not those of the brain
    images[..., 4:28, 4:44, 4:28] = smooth + torch.linspace(-1, 1, 40)[:, None]
    whole = segment_block(network, images, -3.0).softmax(1)
    tiled = segment_block(network, images, -3.0, largest=0, tile=24).softmax(1)
    assert torch.allclose(tiled.sum(1), torch.ones(()), atol=1e-4)
    difference = (whole - tiled).abs()[..., 4:28, 4:44, 4:28]
    assert float(difference.mean()) < (0.06 if normalisation == "brain" else 1e-2)


def test_tiles_that_overflow_in_float16_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("brain")
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    first.weight.data *= 6e4  # too much for the tiles, but not for their coarse copy, which varies less
    images = torch.randn((1, 4, 16, 24, 16), generator=torch.Generator().manual_seed(2))

    def tiled(dtype: str) -> torch.Tensor:
        monkeypatch.setattr(precision, "fastest_precision", lambda _: precision.Precision(dtype))
        return segment_block(network, images, -3.0, largest=0, tile=16)

    assert torch.allclose(tiled("float16"), tiled("float32"), atol=0.02)


def test_what_no_tile_shows_is_background() -> None:
    images = torch.full((1, 4, 48, 16, 16), -3.0)
    images[:, :, :10] = torch.randn(4, 10, 16, 16)
    tiled = segment_block(small_network("none"), images, -3.0, largest=0, tile=16).softmax(1)
    assert torch.equal(tiled[0, 0, 32:], torch.ones(16, 16, 16))


def test_a_tile_is_normalised_like_the_whole_of_which_it_is_a_part() -> None:
    """Where a coarse copy and the tiles have the same features, the correction restores the whole's statistics."""
    features = torch.randn(1, 3, 8, 8, 16, generator=torch.Generator().manual_seed(0))
    features[..., 8:] = 2 * features[..., 8:] + 1
    brain, weight, bias = torch.ones(1, 1, 8, 8, 16), torch.ones(3), torch.zeros(3)
    statistics = TileStatistics([((0, 1), (0, 1), (0, 0.5)), ((0, 1), (0, 1), (0.5, 1))])
    whole = statistics.normalize(features, brain, weight, bias, 1e-5)
    for number, part in enumerate((slice(0, 8), slice(8, 16))):
        statistics.begin_tile(number)
        tile = statistics.normalize(features[..., part].contiguous(), brain[..., part], weight, bias, 1e-5)
        assert torch.allclose(tile, whole[..., part], atol=1e-4)


def test_the_user_is_told_of_tiles() -> None:
    assert tiles_note("fixed", WorkingGrid((200, 200, 200), 1.0, (0, 0, 0))) == ()
    (sentence,) = tiles_note("fixed", WorkingGrid((400, 400, 400), 0.5, (0, 0, 0)))
    assert "fixed study has 400 x 400 x 400 voxels of 0.5 mm" in sentence


def test_visits_whose_grid_would_be_too_large_are_segmented_finely_and_registered_coarsely(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fixed, moving = HeadStudy.of("oblique").images("fixed"), HeadStudy.of("left-handed", second=True).images("moving")
    weights = load_weights(small_weights(tmp_path / "small.pt", spacing_mm=4.0))
    settings = InferenceSettings(affine="none", refine_iterations=0, test_time_flips=False, coregister=False)
    usual = pipeline.process_pair(fixed, moving, weights, settings)
    voxels = usual.summary["working_grid"]["voxels"]
    monkeypatch.setattr(pair_preparation, "LARGEST_GRID", voxels[0] * voxels[1] * voxels[2] - 1)
    result = pipeline.process_pair(fixed, moving, weights, settings)
    assert result.summary["working_grid"]["spacing_mm"] == 8.0
    assert any("were registered on voxels of 8 mm" in warning for warning in result.warnings)
    assert result.fixed_labels is not None
    assert usual.fixed_labels is not None
    assert result.fixed_labels.GetSize() == fixed.reference.GetSize()
    same = sitk.GetArrayViewFromImage(result.fixed_labels) == sitk.GetArrayViewFromImage(usual.fixed_labels)
    assert same.mean() > 0.95


def test_a_network_that_only_registers_is_not_shown_voxels_coarser_than_those_of_its_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fixed, moving = HeadStudy.of("oblique").images("fixed"), HeadStudy.of("left-handed", second=True).images("moving")
    weights = load_weights(small_weights(tmp_path / "small.pt", spacing_mm=4.0, segmentation=False))
    settings = InferenceSettings(affine="none", refine_iterations=0, coregister=False)
    voxels = pipeline.process_pair(fixed, moving, weights, settings).summary["working_grid"]["voxels"]
    monkeypatch.setattr(pair_preparation, "LARGEST_GRID", voxels[0] * voxels[1] * voxels[2] - 1)
    monkeypatch.setattr(pipeline, "run_network", lambda *_: pytest.fail("the network was shown coarse voxels"))
    result = pipeline.process_pair(fixed, moving, weights, settings)
    assert any("without the network's deformation" in warning for warning in result.warnings)
    assert result.summary["displacement_mm_max"] == 0
