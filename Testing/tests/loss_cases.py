"""Labels, class scores and displacements for tests of losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def labels(seed: int = 0, batch: int = 2, size: int = 4) -> Tensor:
    """Random classes (batch, size, size, size)."""
    torch.manual_seed(seed)
    return torch.randint(0, 4, (batch, size, size, size), dtype=torch.uint8)


def certain(classes: Tensor, score: float = 30.0) -> Tensor:
    """Logits that are sure of the classes (B, D, H, W)."""
    return score * F.one_hot(classes.long(), 4).movedim(-1, 1).float()


def shifted(voxels: float, axis: int = 2, size: int = 8) -> Tensor:
    """Displacement (1, 3, size, size, size) of so many voxels along one axis."""
    displacement = torch.zeros(1, 3, size, size, size)
    displacement[:, axis] = voxels
    return displacement
