"""Growth of synthetic tumours in tissues of simple shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from JointRegSegLib.synthesis.random_fields import Draw, box_mean
from JointRegSegLib.synthesis.templates import load_templates
from JointRegSegLib.synthesis.tumor import KINDS, Tumor, TumorNoise, random_tumor, tumor_fields, without_tumor


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_tumor_has_its_compartments(kind: str) -> None:
    shape = (24, 24, 24)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1  # white matter everywhere
    tumor = Tumor(kind, torch.full((1, 3), 12.0), torch.tensor([18.0]), torch.eye(3)[None], 0.1, 10.0, 4.0, 0.0)
    labels = tumor_fields(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(3)), 2.0).labels()
    counts = torch.bincount(labels.flatten().long(), minlength=4)
    assert counts[2] > 0
    assert (counts[3] == 0) == (kind == "non_enhancing")
    if kind == "ring":  # enhancement surrounds the necrosis
        middle, outer = labels[12, 12, 12], labels[12, 12, 12:].tolist()
        assert middle == 1
        assert outer.index(3) > 0
        assert outer.index(3) < outer.index(2)


def test_a_tumor_without_edema_has_none() -> None:
    shape = (24, 24, 24)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1
    tumor = Tumor("ring", torch.full((1, 3), 12.0), torch.tensor([18.0]), torch.eye(3)[None], 0.1, 0.0, 4.0, 0.0)
    labels = tumor_fields(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(3)), 2.0).labels()
    counts = torch.bincount(labels.flatten().long(), minlength=4)
    assert counts[2] == 0
    assert min(counts[1], counts[3]) > 100


def test_edema_follows_white_matter_and_spares_fluid() -> None:
    shape = (32, 32, 32)
    tissues = torch.zeros(3, *shape)
    tissues[2, ..., :16] = 1
    tissues[1, ..., 16:24] = 1
    tissues[0, ..., 24:] = 1
    tumor = Tumor("solid", torch.full((1, 3), 16.0), torch.tensor([8.0]), torch.eye(3)[None], 0.0, 16.0, 4.0, 0.0)
    labels = tumor_fields(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(1)), 2.0).labels()
    edema = (labels == 2).sum((0, 1))
    assert int(edema[:16].sum()) > 1.5 * int(edema[16:24].sum())
    assert int(edema[25:].sum()) == 0


def test_a_resection_leaves_a_cavity_that_is_background_or_has_its_number() -> None:
    shape = (24, 24, 24)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1
    tumor = Tumor(
        "ring", torch.full((1, 3), 12.0), torch.tensor([16.0]), torch.eye(3)[None], 0.1, 8.0, 4.0, 0.0, True, 0.5
    )
    parts = tumor_fields(tumor, tissues, TumorNoise.of(shape, 2.0, Draw(3)), 2.0)
    assert parts.labels()[12, 12, 12] == 0
    assert parts.labels(cavity=True)[12, 12, 12] == 4
    assert torch.equal(parts.labels(cavity=True) % 4, parts.labels())
    assert parts.cavity[12, 12, 12] > 0.99


def test_what_surgery_left_of_a_tumor_keeps_its_compartments_beside_the_cavity() -> None:
    shape = (24, 24, 32)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1
    centers = torch.tensor([[12.0, 12.0, 9.0], [12.0, 12.0, 21.0]])
    whole = Tumor("ring", centers, torch.tensor([12.0, 12.0]), torch.eye(3).expand(2, 3, 3), 0.0, 4.0, 3.0, 0.0)
    noise = TumorNoise.of(shape, 2.0, Draw(3))
    before = tumor_fields(whole, tissues, noise, 2.0).labels(cavity=True)
    after = tumor_fields(replace(whole, resected=True, remaining=1), tissues, noise, 2.0).labels(cavity=True)
    assert after[12, 12, 9] == 4
    assert torch.equal(after[..., 18:], before[..., 18:])
    assert not bool((after[..., 18:] == 4).any())


def test_without_a_tumor_no_voxel_has_a_label() -> None:
    shape = (16, 16, 16)
    tissues = torch.zeros(3, *shape)
    tissues[2] = 1
    tumor = Tumor("solid", torch.full((1, 3), 8.0), torch.tensor([9.0]), torch.eye(3)[None], 0.4, 9.0, 3.0, 0.5)
    labels = tumor_fields(without_tumor(tumor), tissues, TumorNoise.of(shape, 2.0, Draw(1)), 2.0).labels()
    assert not bool(labels.any())


def test_tumors_are_centered_inside_the_head() -> None:
    pytest.importorskip("nilearn", reason="needs the template in the package nilearn")
    tissues = load_templates()[0].at(4.0).tissues
    for seed in range(20):
        tumor = random_tumor(tissues, 4.0, Draw(seed))
        d, h, w = (int(v) for v in tumor.centers[0])
        assert float(tissues[:, d, h, w].sum()) > 0.5


def test_box_mean_averages_over_cubes() -> None:
    field = torch.randn(2, 9, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for width in (3, 5):
        half = width // 2
        expected = torch.nn.functional.pad(field[None], (half,) * 6, mode="replicate")[0]
        for axis in (1, 2, 3):
            expected = expected.unfold(axis, width, 1).mean(-1)
        assert torch.allclose(box_mean(field, width), expected)
