"""Segmentations averaged over mirrored copies, and their entropy."""

from __future__ import annotations

import torch

from JointRegSegLib.inference.uncertainty import LEFT_RIGHT, VARIANTS, MeanSegmentation, Variant, entropy


def test_mirroring_is_undone_and_no_two_variants_are_alike() -> None:
    study = torch.randn(1, 4, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    shown = [variant.apply(study) for variant in VARIANTS]
    for variant, image in zip(VARIANTS, shown, strict=True):
        assert torch.equal(variant.undo(image), study)
    assert all(not torch.equal(a, b) for n, a in enumerate(shown) for b in shown[:n])


def test_the_mean_segmentation_counts_every_variant() -> None:
    logits = torch.full((1, 4, 2, 2, 2), -20.0)
    brain = torch.ones(2, 2, 2, dtype=torch.bool)
    mean, outside = MeanSegmentation(brain), MeanSegmentation(~brain)
    for variant, winner in ((Variant(), 0), (Variant(mirrored=(LEFT_RIGHT,)), 2)):
        mean.add(variant, logits.clone().index_fill_(1, torch.tensor([winner]), 20.0))
        outside.add(variant, logits.clone().index_fill_(1, torch.tensor([winner]), 20.0))
    result = mean.result()
    assert result.counts.tolist() == [[8, 0, 0, 0], [0, 0, 8, 0]]
    assert not outside.result().labels.any()
    assert outside.result().counts.tolist() == [[8, 0, 0, 0], [8, 0, 0, 0]]
    assert torch.allclose(result.probabilities[[0, 2]], torch.full((2, 2, 2, 2), 0.5), atol=1e-6)
    assert torch.allclose(entropy(result.probabilities), torch.full((2, 2, 2), 0.5), atol=1e-5)
    assert torch.allclose(entropy(torch.full((4, 1, 1, 1), 0.25)), torch.ones(1, 1, 1))
