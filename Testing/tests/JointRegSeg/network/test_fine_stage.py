"""The second stage: it corrects voxels near the tumour only, lies in the weights file, and learns from few patients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fine_stage import trained
from torch import Tensor

from JointRegSegLib.images.labels import EDEMA, ENHANCING
from JointRegSegLib.inference.uncertainty import Segmentation
from JointRegSegLib.network.configuration import NetworkConfig
from JointRegSegLib.network.fine_stage import FineStage, FineStageConfig, fine_stage_from
from JointRegSegLib.network.joint import build_network
from JointRegSegLib.network.weights import load_weights, save_weights

ALL = ("t1", "t1ce", "t2", "flair")


def head(seed: int, size: int = 48) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images, brain, probabilities and classes of a head whose enhancing rim the network has not seen."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(size) - size / 2 + 0.5
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    brain, tumor = radius < size / 2 - 2, radius < size / 4
    classes = torch.where(tumor, EDEMA, 0)
    classes[(radius > size / 8) & (radius < size / 6)] = ENHANCING
    images = 0.3 * torch.randn(4, size, size, size, generator=generator)
    images[1] += 2.0 * (classes == ENHANCING)
    images[3] += 1.5 * tumor
    images = torch.where(brain, images, -3.0)
    probabilities = torch.zeros(4, size, size, size)
    probabilities[EDEMA] = 0.9 * tumor
    probabilities[ENHANCING] = 0.1 * tumor
    probabilities[0] = 1 - probabilities[1:].sum(0)
    return images, brain, probabilities, classes


def stage(seed: int = 0) -> FineStage:
    torch.manual_seed(seed)
    return FineStage(FineStageConfig(hidden=8)).eval()


def test_a_few_heads_teach_it_what_the_network_has_missed() -> None:
    config, parts = FineStageConfig(hidden=8), []
    for seed in (1, 2):
        images, brain, probabilities, classes = head(seed)
        where = FineStage(config).where(probabilities, brain, 1.0)
        features = FineStage(config).features(images, ALL, brain, probabilities, 1.0, where)
        parts.append((features, probabilities[:, where].T.clamp_min(1e-3).log(), classes[where].long()))
    images, brain, probabilities, classes = head(3)
    found = trained(parts, config, steps=150).refined(images, ALL, brain, probabilities, 1.0).argmax(0)
    rim = classes == ENHANCING
    assert int((probabilities.argmax(0) == ENHANCING).sum()) == 0
    assert float(((found == ENHANCING) & rim).sum() / rim.sum()) > 0.9
    assert float((found[~rim] == ENHANCING).float().mean()) < 0.01


def test_voxels_far_from_the_tumour_stay_as_they_are() -> None:
    images, brain, probabilities, _ = head(1)
    found = stage().refined(images, ALL, brain, probabilities, 1.0)
    changed = (found - probabilities).abs().amax(0) > 1e-3
    where = stage().where(probabilities, brain, 1.0)
    assert bool(changed.any())
    assert not bool(changed[~where].any())
    assert torch.allclose(found.sum(0), torch.ones(()))


def test_a_study_without_tumour_is_not_changed() -> None:
    images, brain, probabilities, _ = head(1)
    nothing = torch.zeros_like(probabilities)
    nothing[0] = 1
    assert torch.equal(stage().refined(images, ALL, brain, nothing, 1.0), nothing)


def test_an_absent_image_has_no_influence() -> None:
    images, brain, probabilities, _ = head(1)
    other = images.clone()
    other[2] = torch.where(brain, 5.0, -3.0)
    present = ("t1", "t1ce", "flair")
    first, second = (stage().refined(each, present, brain, probabilities, 1.0) for each in (images, other))
    assert torch.equal(first, second)


def test_the_box_around_the_tumour_does_not_change_the_result() -> None:
    images, brain, probabilities, _ = head(1, 64)
    where = stage().where(probabilities, brain, 1.0)
    features = stage().features(images, ALL, brain, probabilities, 1.0, where)
    scores = probabilities[:, where].T.clamp_min(1e-3).log() + stage()(features)
    found = stage().refined(images, ALL, brain, probabilities, 1.0)
    assert torch.allclose(found[:, where].T, scores.softmax(1), atol=1e-4)


def test_volumes_keep_their_spread_over_the_variants() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.2, 0.2], [0.1, 0.8, 0.8, 0.8]]).view(2, 1, 2, 2)
    found = Segmentation(torch.zeros(2, 1, 2, 2), torch.tensor([[2, 2], [4, 0]]))
    counts = found.with_probabilities(probabilities).counts
    assert counts.tolist() == [[1, 6], [1, 0]]


def test_it_lies_in_the_weights_file(tmp_path: Path) -> None:
    small = {"channels": (4, 6), "encoder_convolutions": (1, 1), "decoder_convolutions": (1,), "auxiliary": 0}
    network = build_network(NetworkConfig(**small, registration_level=0))
    path = save_weights(tmp_path / "weights.pt", network, {}, fine_stage=stage())
    loaded = load_weights(path).fine_stage
    assert loaded is not None
    assert loaded.config == stage().config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), stage().parameters(), strict=True))
    assert load_weights(save_weights(path, network, {})).fine_stage is None


@pytest.mark.parametrize(
    "change", [{"state": None}, {"state": {}}, {"config": {"hidden": 0}}, {"config": {"modalities": ["pet"]}}]
)
def test_a_damaged_one_is_refused_by_the_name_of_the_file(change: dict) -> None:
    with pytest.raises(ValueError, match=r"^'w\.pt' is damaged"):
        fine_stage_from(stage().to_dict() | change, "'w.pt' is damaged")
