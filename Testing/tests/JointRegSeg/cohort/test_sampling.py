"""Class balance by sampling: patches meet the wanted proportions, studies are drawn by the classes they contain."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from JointRegSegLib.augmentation.config import AugmentationConfig
from JointRegSegLib.augmentation.pipeline import Augmentation
from JointRegSegLib.cohort.sample import OUTSIDE, StudySample
from JointRegSegLib.cohort.sampling import (
    check_proportions,
    class_counts,
    class_frequencies,
    draw_center,
    draw_studies,
    median_frequency_weights,
    patch_corner,
    study_weights,
)
from JointRegSegLib.images.labels import CLASSES

SHAPE = (20, 24, 16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labelled() -> tuple[Tensor, Tensor]:
    """Labels with one necrotic voxel, 27 oedema voxels and 8 enhancing ones, in a box of brain."""
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    labels[4:7, 5:8, 6:9] = 2
    labels[10:12, 12:14, 4:6] = 3
    labels[15, 20, 12] = 1
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[2:18, 2:22, 2:14] = True
    return labels, mask


def test_patch_centers_meet_the_wanted_proportions() -> None:
    labels, mask = labelled()
    wanted = {"background": 0.1, "necrotic_core": 0.4, "edema": 0.3, "enhancing_tumor": 0.2}
    draw = generator()
    count = 3000
    found = Counter(CLASSES[int(labels[draw_center(labels, mask, wanted, draw)])] for _ in range(count))
    for name, share in wanted.items():
        assert found[name] / count == pytest.approx(share, abs=0.03)  # more than three standard deviations


def test_voxels_of_a_class_are_equally_likely() -> None:
    labels, mask = labelled()
    draw = generator()
    found = Counter(draw_center(labels, mask, {"enhancing_tumor": 1.0}, draw) for _ in range(1600))
    assert len(found) == 8
    assert all(abs(count - 200) < 60 for count in found.values())


def test_anywhere_is_the_whole_brain_and_background_is_brain_without_tumor() -> None:
    labels, mask = labelled()
    draw = generator()
    for name, allowed in (("anywhere", mask), ("background", mask & (labels == 0))):
        assert all(bool(allowed[draw_center(labels, mask, {name: 1.0}, draw)]) for _ in range(200))


def test_classes_that_a_study_lacks_leave_their_share_to_the_others() -> None:
    labels, mask = labelled()
    labels[labels == 1] = 0
    wanted = {"necrotic_core": 0.8, "edema": 0.1, "enhancing_tumor": 0.1}
    draw = generator()
    found = Counter(int(labels[draw_center(labels, mask, wanted, draw)]) for _ in range(1000))
    assert found[2] / 1000 == pytest.approx(0.5, abs=0.06)
    assert found[2] + found[3] == 1000


def test_studies_without_labels_tumor_or_brain_still_give_a_center() -> None:
    labels, mask = labelled()
    tumor_only = {"enhancing_tumor": 1.0}
    assert bool(mask[draw_center(None, mask, tumor_only, generator())])
    assert bool(mask[draw_center(torch.zeros_like(labels), mask, tumor_only, generator())])
    empty = torch.zeros_like(mask)
    center = draw_center(None, empty, tumor_only, generator())
    assert all(0 <= c < n for c, n in zip(center, SHAPE, strict=True))


def test_patches_lie_inside_the_grid_and_contain_their_center() -> None:
    for center in ((0, 0, 0), (19, 23, 15), (10, 3, 8)):
        corner = patch_corner(center, (8, 10, 16), SHAPE)
        for start, size, n, c in zip(corner, (8, 10, 16), SHAPE, center, strict=True):
            assert 0 <= start <= c < start + size <= n
    with pytest.raises(ValueError, match=r"patch \(21, 8, 8\) is larger than the grid \(20, 24, 16\) of the study"):
        patch_corner((0, 0, 0), (21, 8, 8), SHAPE)


def test_patches_of_the_augmentation_meet_the_proportions() -> None:
    """In a patch of a single voxel, the class of that voxel is the one that was drawn."""
    labels, mask = labelled()
    images = torch.where(mask, torch.rand(4, *SHAPE, generator=generator()), OUTSIDE)
    study = StudySample(images, labels, mask, "study")
    values = AugmentationConfig.none().to_dict() | {
        "patch": [1, 1, 1],
        "patch_proportions": {"necrotic_core": 3, "edema": 1},
    }
    augment = Augmentation(AugmentationConfig.from_dict(values))
    draw = generator()
    found = Counter(int(augment((study, study), draw)[0].labels) for _ in range(400))
    assert found[1] / 400 == pytest.approx(0.75, abs=0.07)
    assert found[1] + found[2] == 400


def test_class_frequencies_count_only_the_studies_where_a_class_occurs() -> None:
    counts = torch.tensor([[90.0, 10.0, 0.0, 0.0], [60.0, 0.0, 20.0, 20.0]])
    assert class_frequencies(counts).tolist() == pytest.approx([0.75, 0.1, 0.2, 0.2])
    assert median_frequency_weights(counts).tolist() == pytest.approx([0.2 / 0.75, 2.0, 1.0, 1.0])


def test_weights_of_classes_that_never_occur_are_zero() -> None:
    counts = torch.tensor([[90.0, 10.0, 0.0, 0.0]])
    assert median_frequency_weights(counts)[2:].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="no labelled voxel"):
        median_frequency_weights(torch.zeros(3, 4))


def test_voxels_are_counted_inside_the_mask() -> None:
    labels, mask = labelled()
    assert class_counts(labels)[1:].tolist() == [1, 27, 8, 0]
    assert class_counts(labels, mask).sum() == mask.sum()
    assert class_counts(labels, labels == 2).tolist() == [0, 0, 27, 0, 0]


def counts_of_ten() -> Tensor:
    """Six studies without tumour, three with oedema only, one with oedema and enhancing tumour."""
    return torch.tensor([[9.0, 0, 0, 0]] * 6 + [[9.0, 0, 5, 0]] * 3 + [[9.0, 0, 5, 5]])


def test_rare_classes_are_over_sampled_and_common_ones_under_sampled() -> None:
    weights = study_weights(counts_of_ten(), {"enhancing_tumor": 0.4, "edema": 0.4, "background": 0.2})
    assert weights.tolist() == pytest.approx([0.2 / 6] * 6 + [0.1] * 3 + [0.5])


def test_proportions_of_absent_classes_go_to_the_other_classes() -> None:
    weights = study_weights(counts_of_ten(), {"necrotic_core": 0.5, "anywhere": 0.5})
    assert weights.tolist() == pytest.approx([0.1] * 10)
    with pytest.raises(
        ValueError, match="no study that can be paired contains any of the wanted classes necrotic_core"
    ):
        study_weights(counts_of_ten(), {"necrotic_core": 1.0})
    with pytest.raises(ValueError, match="no study to draw from"):
        study_weights(torch.zeros(0, 4), {"edema": 1.0})


def test_studies_without_labels_are_not_taken_for_studies_without_a_tumor() -> None:
    counts = torch.tensor([[0, 0, 0, 0, 0], [9, 0, 0, 0, 0], [9, 1, 0, 0, 0]], dtype=torch.float64)
    assert study_weights(counts, {"background": 1.0}).tolist() == [0, 1, 0]


def test_draws_follow_the_weights_as_evenly_as_they_can() -> None:
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2])
    for seed in range(10):
        found = Counter(draw_studies(weights, 10, generator(seed)))
        assert found == {0: 5, 2: 3, 3: 2}
        few = Counter(draw_studies(weights, 3, generator(seed)))
        assert few[1] == 0
        assert few[0] in (1, 2)
    orders = {tuple(draw_studies(weights, 10, generator(seed))) for seed in range(10)}
    assert len(orders) == 10


@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ({"oedema": 1}, "unknown class 'oedema'; use background, .*enhancing_tumor, resection_cavity, anywhere"),
        ({"edema": -1, "anywhere": 2}, "proportions must be 0 or more"),
        ({"edema": 0}, "not all 0"),
        ({}, "not all 0"),
        ({"edema": float("nan")}, "proportions must be 0 or more"),
    ],
)
def test_unusable_proportions_are_refused(proportions: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_proportions(proportions)


def test_proportions_are_scaled_to_one() -> None:
    assert check_proportions({"edema": 3, "anywhere": 1}) == {"edema": 0.75, "anywhere": 0.25}
