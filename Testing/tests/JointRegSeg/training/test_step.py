"""The loss of a batch, and its gradients in each number format."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from joint_training_cases import Shells, toy_config

from JointRegSegLib.images.labels import UNLABELED
from JointRegSegLib.network.precision import Precision
from JointRegSegLib.training.batches import collate
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.step import batch_loss
from JointRegSegLib.training.updates.precision import for_gradients


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs_labelled_or_not() -> None:
    config, source = toy_config(), Shells()
    pairs = [source[0], tuple(replace(study, labels=None) for study in source[1])]
    network = new_network(config).train()
    together, parts = batch_loss(network, collate(pairs, 2), config, True)
    single = [batch_loss(network, collate([pair], 2), config, True)[0] for pair in pairs]
    torch.testing.assert_close(together, sum(single) / 2)
    torch.testing.assert_close(parts["loss"], 2 * torch.tensor([float(together.detach()), 1.0]).double())
    assert bool((collate(pairs, 2).fixed_labels[1] == UNLABELED).all())


def test_the_segmentation_of_a_batch_is_the_mean_of_its_labelled_pairs() -> None:
    config, source = toy_config(), Shells()
    network = new_network(config).train()
    unlabelled = tuple(replace(study, labels=None) for study in source[1])
    alone, mixed = (
        batch_loss(network, collate(pairs, 2), config, True)[1] for pairs in ([source[0]], [source[0], unlabelled])
    )
    torch.testing.assert_close(mixed["segmentation"], alone["segmentation"])
    assert [float(mixed[name][1]) for name in ("loss", "registration", "segmentation")] == [2, 2, 1]


@pytest.mark.parametrize("size", [4, 8, 16])
def test_gradients_in_bfloat16_agree_with_float32(size: int) -> None:
    """Also where a level of the network is two voxels deep; oneDNN computes wrong gradients there in bfloat16."""
    config = toy_config({"precision": "bfloat16"})
    batch = collate([Shells(1, size)[0]], 2)
    gradients = []
    for precision in (
        Precision(),
        for_gradients(Precision("bfloat16", True), size, config.network, torch.device("cpu")),
    ):
        network = new_network(config)
        batch_loss(network, batch, config, False, precision)[0].backward()
        parts = [
            p.grad.flatten() for name, p in network.named_parameters() if "segmentation" in name or "encoder" in name
        ]
        gradients.append(torch.cat(parts))
    similarity = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert float(similarity) > 0.98
    assert float(gradients[1].norm() / gradients[0].norm()) == pytest.approx(1, abs=0.1)
