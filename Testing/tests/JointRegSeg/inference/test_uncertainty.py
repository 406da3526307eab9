"""Segmentations averaged over variants of a study, and their entropy."""

from __future__ import annotations

import pytest
import torch

from JointRegSegLib.inference.uncertainty import (
    LEFT_RIGHT,
    MIRRORED,
    MeanSegmentation,
    Variant,
    entropy,
    variants_of,
)


def test_mirroring_is_undone_and_no_two_variants_are_alike() -> None:
    study = torch.randn(1, 4, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    shown = [variant.apply(study) for variant in MIRRORED]
    for variant, image in zip(MIRRORED, shown, strict=True):
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


@pytest.mark.parametrize(
    ("modalities", "hides", "hidden"),
    [
        (("t1", "t1ce", "t2", "flair"), True, [(), ("t1", "t2")]),
        (("t1ce", "t2", "flair"), True, [(), ("t2",)]),
        (("t1ce", "flair"), True, [()] * 4),
        (("t1", "t2", "flair"), True, [()] * 4),
        (("t1", "t1ce", "t2", "flair"), False, [()] * 4),
    ],
)
def test_images_are_hidden_only_beside_t1ce_and_flair_and_only_from_networks_that_do_without(
    modalities: tuple[str, ...], hides: bool, hidden: list[tuple[str, ...]]
) -> None:
    variants = variants_of(modalities, hides)
    assert [variant.hidden for variant in variants] == hidden
    assert variants[0] == Variant()
    assert len({variant.mirrored for variant in variants}) == len(variants)


def test_all_variants_say_where_tumor_is_and_those_with_all_images_what_its_compartments_are() -> None:
    def logits(*probabilities: float) -> torch.Tensor:
        return torch.tensor(probabilities).log().view(1, -1, 1, 1, 1).expand(1, -1, 2, 2, 2)

    mean = MeanSegmentation(torch.ones(2, 2, 2, dtype=torch.bool))
    mean.add(Variant(), logits(0.6, 0.1, 0.3, 0.0))
    mean.add(Variant(hidden=("t1",)), logits(0.2, 0.7, 0.1, 0.0))
    result = mean.result()
    assert torch.allclose(result.probabilities[:, 0, 0, 0], torch.tensor([0.4, 0.15, 0.45, 0.0]), atol=1e-3)
    assert result.counts.tolist() == [[8, 0, 0, 0], [0, 8, 0, 0]]
