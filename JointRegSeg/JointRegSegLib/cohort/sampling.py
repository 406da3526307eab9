"""Class balance by sampling: patches centred on chosen classes, studies drawn by what they contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..images.labels import CLASSES


def check_proportions(proportions: Mapping[str, float], source: str = "patch_proportions") -> dict[str, float]:
    """Proportions by class name or 'anywhere', scaled to a sum of one.

    Raises:
        ValueError: unknown names, negative numbers, or a sum of zero.
    """
    known = (*CLASSES, "anywhere")
    unknown = [name for name in proportions if name not in known]
    if unknown:
        raise ValueError(f"{source}: unknown class {', '.join(map(repr, unknown))}; use {', '.join(known)}")
    if any(not value >= 0 for value in proportions.values()) or not 0 < sum(proportions.values()) < float("inf"):
        raise ValueError(f"{source}: proportions must be 0 or more and not all 0, got {dict(proportions)}")
    total = sum(proportions.values())
    return {name: value / total for name, value in proportions.items()}


def draw_centre(
    labels: Tensor | None, mask: Tensor, proportions: Mapping[str, float], generator: torch.Generator
) -> tuple[int, int, int]:
    """A voxel of a class drawn by ``proportions`` ('background' is brain without tumour, 'anywhere' the whole brain).

    Classes that the study lacks leave their share to the others; without labels or any of the wanted classes, the
    voxel lies anywhere in the brain, and in an empty brain anywhere on the grid.
    """
    wanted = {"anywhere": 1.0} if labels is None else dict(proportions)
    counts = None if labels is None else torch.bincount(labels.reshape(-1), minlength=len(CLASSES))
    present = [
        (name, share)
        for name, share in wanted.items()
        if share > 0 and (counts is None or name in ("anywhere", "background") or counts[CLASSES.index(name)] > 0)
    ]
    chosen = "anywhere"
    if present:
        shares = torch.tensor([share for _, share in present], dtype=torch.float64)
        chosen = present[int(torch.multinomial(shares, 1, generator=generator))][0]
    if chosen == "anywhere":
        candidates = mask
    elif chosen == "background":
        candidates = mask & (labels == 0)
    else:
        candidates = labels == CLASSES.index(chosen)
    voxels = candidates.reshape(-1).nonzero()[:, 0]
    count = len(voxels) or mask.numel()
    drawn = int(torch.randint(count, (1,), generator=generator))
    index = int(voxels[drawn]) if len(voxels) else drawn
    _, h, w = mask.shape
    return index // (h * w), index // w % h, index % w


def patch_corner(
    centre: Sequence[int], patch: Sequence[int], shape: Sequence[int], name: str = "the study"
) -> tuple[int, int, int]:
    """First voxel of the patch around a centre, moved inwards where it would leave the grid.

    Raises:
        ValueError: the patch is larger than the grid.
    """
    if any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ValueError(f"the patch {tuple(patch)} is larger than the grid {tuple(shape)} of {name}")
    return tuple(min(max(c - p // 2, 0), n - p) for c, p, n in zip(centre, patch, shape, strict=True))


def class_counts(labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """(4,) voxels of each class, within the mask where one is given."""
    values = labels if mask is None else labels[mask]
    return torch.bincount(values.reshape(-1), minlength=len(CLASSES)).double()


def class_frequencies(counts: Tensor) -> Tensor:
    """(4,) frequency of each class in the studies where it occurs, from counts (study, 4).

    The classical definition for median-frequency weights (Eigen and Fergus 2015): voxels of a class divided by
    all voxels of the studies that contain it; 0 for a class that never occurs.
    """
    totals = counts.sum(1, keepdim=True)
    where = counts > 0
    return counts.sum(0) / (totals * where).sum(0).clamp(min=1)


def median_frequency_weights(counts: Tensor) -> Tensor:
    """(4,) float32 weights of the classes in a loss: median frequency / frequency; 0 for a class that never occurs."""
    frequency = class_frequencies(counts)
    seen = frequency > 0
    if not seen.any():
        raise ValueError("the studies have no labelled voxel, so that classes cannot be weighted by their frequency")
    median = frequency[seen].quantile(0.5)
    return torch.where(seen, median / frequency.clamp(min=1e-12), 0.0).float()


def study_weights(counts: Tensor, proportions: Mapping[str, float]) -> Tensor:
    """Probability (study,) to draw each study so that classes are met in given proportions over many draws.

    Each proportion is shared out over the studies that contain the class ('background': studies without tumour,
    'anywhere': all studies): over-sampling where few do, under-sampling where many do. Shares of classes that no
    study contains go to the others.

    Args:
        counts: (study, 4) voxels of each class.
        proportions: by class name or 'anywhere'; see ``check_proportions``.
    """
    if len(counts) == 0:
        raise ValueError("there is no study to draw from")
    tumour = counts[:, 1:].sum(1) > 0
    weights = torch.zeros(len(counts), dtype=torch.float64)
    for name, share in check_proportions(proportions).items():
        if name == "anywhere":
            members = torch.ones_like(tumour)
        elif name == "background":
            members = ~tumour
        else:
            members = counts[:, CLASSES.index(name)] > 0
        if members.any():
            weights += share * members / members.sum()
    if not weights.sum() > 0:
        raise ValueError(f"no study contains any of the wanted classes {', '.join(proportions)}")
    return weights / weights.sum()


def draw_studies(weights: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """``count`` study numbers drawn by their weights with replacement, as evenly as the weights allow.

    Systematic sampling: a study of weight p comes floor(p·count) or ceil(p·count) times, in random order.
    """
    edges = weights.double().cumsum(0) / weights.double().sum()
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + start) / count
    chosen = torch.searchsorted(edges, points, right=True).clamp(max=len(weights) - 1)
    return chosen[torch.randperm(count, generator=generator)].tolist()
