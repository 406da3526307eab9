"""Class balance: patch centres drawn from chosen classes, studies drawn by the classes they contain, class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..images.labels import LABELS

ANYWHERE = "anywhere"
"""Instead of a class: any voxel of the brain, or any study."""


def check_proportions(proportions: Mapping[str, float], source: str = "patch_proportions") -> dict[str, float]:
    """Check proportions of classes and scale them to a sum of one.

    Args:
        proportions: Numbers of 0 or more by class name of ``LABELS`` or ``anywhere``.
        source: What the proportions are for; it opens the message of an error.

    Returns:
        The scaled proportions.

    Raises:
        ValueError: A class is unknown, a number is negative, or all are zero.
    """
    known = (*LABELS, ANYWHERE)
    unknown = [name for name in proportions if name not in known]
    if unknown:
        raise ValueError(f"{source}: unknown class {', '.join(map(repr, unknown))}; use {', '.join(known)}")
    if any(not value >= 0 for value in proportions.values()) or not 0 < sum(proportions.values()) < float("inf"):
        raise ValueError(f"{source}: proportions must be 0 or more and not all 0, got {dict(proportions)}")
    total = sum(proportions.values())
    return {name: value / total for name, value in proportions.items()}


def draw_center(
    labels: Tensor | None, mask: Tensor, proportions: Mapping[str, float], generator: torch.Generator
) -> tuple[int, int, int]:
    """Draw a voxel of a class that is drawn by its proportion.

    Classes that the study lacks leave their share to the others. Without labels, or without any of the wanted classes,
    the voxel lies anywhere in the brain; in an empty brain it lies anywhere on the grid.

    Args:
        labels: Classes (D, H, W), or None.
        mask: Brain (D, H, W) bool.
        proportions: Proportions by class name (``background`` is brain without tumour) or ``anywhere`` (whole brain).
        generator: Source of the random numbers.

    Returns:
        Indices of the voxel along (D, H, W).
    """
    candidates = _candidates(labels, mask, proportions, generator)
    voxels = candidates.reshape(-1).nonzero()[:, 0]
    count = len(voxels) or mask.numel()
    drawn = int(torch.randint(count, (1,), generator=generator))
    index = int(voxels[drawn]) if len(voxels) else drawn
    _, h, w = mask.shape
    return index // (h * w), index // w % h, index % w


def patch_corner(
    center: Sequence[int], patch: Sequence[int], shape: Sequence[int], name: str = "the study"
) -> tuple[int, int, int]:
    """Find the first voxel of the patch around a centre, moved inwards where the patch would leave the grid.

    Args:
        center: Voxel (D, H, W) around which the patch lies.
        patch: Size of the patch (D, H, W).
        shape: Size of the grid (D, H, W).
        name: Name of the study, for messages.

    Returns:
        Lowest indices of the patch along (D, H, W).

    Raises:
        ValueError: The patch is larger than the grid.
    """
    if any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ValueError(f"the patch {tuple(patch)} is larger than the grid {tuple(shape)} of {name}")
    d, h, w = (min(max(c - p // 2, 0), n - p) for c, p, n in zip(center, patch, shape, strict=True))
    return d, h, w


def class_counts(labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Count the voxels of each class; voxels without a label or of another class are not counted.

    Args:
        labels: Classes of any shape.
        mask: Voxels to count, bool, of the same shape; None for all.

    Returns:
        Counts (5,) float64.
    """
    values = labels if mask is None else labels[mask]
    return torch.bincount(values.reshape(-1), minlength=len(LABELS))[: len(LABELS)].double()


def class_frequencies(counts: Tensor) -> Tensor:
    """Compute the frequency of each class in the studies where it occurs.

    This is the definition for median-frequency weights (Eigen and Fergus 2015): the voxels of a class divided by all
    voxels of the studies that contain it.

    Args:
        counts: Voxels (study, 5) of each class.

    Returns:
        Frequencies (5,); 0 for a class that never occurs.
    """
    totals = counts.sum(1, keepdim=True)
    where = counts > 0
    return counts.sum(0) / (totals * where).sum(0).clamp(min=1)


def median_frequency_weights(counts: Tensor, further: Tensor | None = None) -> Tensor:
    """Compute weights of the classes in a loss: the median frequency divided by the frequency of the class.

    Args:
        counts: Voxels (study, 5) of each class.
        further: Voxels (study, 5) in other studies, which count for the classes that none of the first has; or None.

    Returns:
        Weights (5,) float32; 0 for a class that never occurs.

    Raises:
        ValueError: The studies have no labelled voxel.
    """
    frequency = class_frequencies(counts)
    if further is not None:
        frequency = torch.where(frequency > 0, frequency, class_frequencies(further))
    seen = frequency > 0
    if not seen.any():
        raise ValueError("the studies have no labelled voxel, so that classes cannot be weighted by their frequency")
    median = frequency[seen].quantile(0.5)
    return torch.where(seen, median / frequency.clamp(min=1e-12), 0.0).float()


def study_weights(counts: Tensor, proportions: Mapping[str, float]) -> Tensor:
    """Compute the probabilities with which studies are drawn so that classes are met in given proportions.

    Each proportion is shared equally by the studies that contain the class, which over-samples them where they are few
    and under-samples them where they are many. Proportions of classes that no study contains go to the others.

    Args:
        counts: Voxels (study, 5) of each class; zeros for studies without labels.
        proportions: Proportions by class name (``background`` means labelled studies without tumour) or ``anywhere``
            (all studies).

    Returns:
        Probabilities (study,) float64, with a sum of one.

    Raises:
        ValueError: There is no study, or none with any of the wanted classes.
    """
    if len(counts) == 0:
        raise ValueError("there is no study to draw from")
    tumor = counts[:, 1:].sum(1) > 0
    weights = torch.zeros(len(counts), dtype=torch.float64)
    for name, share in check_proportions(proportions).items():
        if name == ANYWHERE:
            members = torch.ones_like(tumor)
        elif name == "background":
            members = (counts[:, 0] > 0) & ~tumor  # without labels, nobody knows
        else:
            members = counts[:, LABELS.index(name)] > 0
        if members.any():
            weights += share * members / members.sum()
    if not weights.sum() > 0:
        raise ValueError(f"no study that can be paired contains any of the wanted classes {', '.join(proportions)}")
    return weights / weights.sum()


def draw_studies(weights: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """Draw studies by their weights with replacement, as evenly as the weights allow (systematic sampling).

    Args:
        weights: Weights (study,).
        count: How many to draw.
        generator: Source of the random numbers.

    Returns:
        Study numbers in random order; a study of probability p is drawn floor(p·count) or ceil(p·count) times.
    """
    edges = weights.double().cumsum(0) / weights.double().sum()
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + start) / count
    chosen = torch.searchsorted(edges, points, right=True).clamp(max=int(weights.nonzero()[-1]))
    return chosen[torch.randperm(count, generator=generator)].tolist()


def _candidates(
    labels: Tensor | None, mask: Tensor, proportions: Mapping[str, float], generator: torch.Generator
) -> Tensor:
    """Voxels (D, H, W) bool of a class that is drawn among the wanted classes that the study has."""
    wanted = {ANYWHERE: 1.0} if labels is None else dict(proportions)
    counts = None if labels is None else torch.bincount(labels.reshape(-1), minlength=len(LABELS))
    present = [
        (name, share)
        for name, share in wanted.items()
        if share > 0 and (counts is None or name in (ANYWHERE, "background") or counts[LABELS.index(name)] > 0)
    ]
    chosen = ANYWHERE
    if present:
        shares = torch.tensor([share for _, share in present], dtype=torch.float64)
        chosen = present[int(torch.multinomial(shares, 1, generator=generator))][0]
    if labels is None or chosen == ANYWHERE:
        return mask
    return mask & (labels == 0) if chosen == "background" else labels == LABELS.index(chosen)
