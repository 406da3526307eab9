"""Second stage of a segmentation: the classes of single voxels in and around the tumour that the network has found.

The network works on voxels of 2 mm, and what it learned from few patients is the place of a tumour more than the
brightness of its parts. The second stage sees the images on the working grid itself, at several scales, beside the
probabilities of the network, and corrects these voxel by voxel (stacked generalisation; Wolpert, Neural Networks
1992;5:241). It is so small that a handful of patients teaches it, and is trained on segmentations of patients that the
network had not learned from; see ``Testing/fine_stage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from NeuroCESTLib.core.checked_json import settings_from_json
from NeuroCESTLib.core.smoothing import gaussian_smooth
from NeuroCESTLib.core.stored_values import check_weights

from ..images.modalities import MODALITIES

_LEAST_PROBABILITY = 1e-3
"""Probabilities are raised to this before their logarithm is taken."""
_VOXELS_AT_ONCE = 200_000


@dataclass(frozen=True)
class FineStageConfig:
    """What determines the layers of the second stage.

    Attributes:
        modalities: Images that it sees, in this order.
        classes: Number of classes, including the background.
        image_scales_mm: Standard deviations of the Gaussians by which the images are smoothed; 0 for the image itself.
        tumor_scales_mm: The same for the probabilities of the network.
        hidden: Units of each of two hidden layers.
        least_tumor: Voxels are corrected where the probability of tumour, smoothed by the first of
            ``tumor_scales_mm``, exceeds this.
    """

    modalities: tuple[str, ...] = MODALITIES
    classes: int = 4
    image_scales_mm: tuple[float, ...] = (0.0, 1.0, 3.0)
    tumor_scales_mm: tuple[float, ...] = (3.0, 8.0)
    hidden: int = 32
    least_tumor: float = 0.05

    def __post_init__(self) -> None:
        for key in ("modalities", "image_scales_mm", "tumor_scales_mm"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        scales = (*self.image_scales_mm, *self.tumor_scales_mm)
        if not self.tumor_scales_mm or not all(0 <= s <= 50 for s in scales):
            raise ValueError("image_scales_mm and tumor_scales_mm must be distances from 0 to 50 mm")
        if unknown := [m for m in self.modalities if m not in MODALITIES]:
            raise ValueError(f"unknown modalities {', '.join(map(str, unknown))}; use {', '.join(MODALITIES)}")
        if not (2 <= self.classes <= 64 and 1 <= self.hidden <= 4096 and 0 <= self.least_tumor < 1):
            raise ValueError("classes, hidden or least_tumor is out of range")

    @property
    def inputs(self) -> int:
        """Number of features of a voxel."""
        images = len(self.modalities) * (len(self.image_scales_mm) + 1)
        return images + self.classes + (self.classes - 1) * len(self.tumor_scales_mm)


class FineStage(nn.Module):
    """Corrects the probabilities of a network in and around the tumour.

    Attributes:
        config: What determines the layers.
    """

    def __init__(self, config: FineStageConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(config.inputs, config.hidden),
            nn.LeakyReLU(0.01),
            nn.Linear(config.hidden, config.hidden),
            nn.LeakyReLU(0.01),
            nn.Linear(config.hidden, config.classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the corrections (voxel, classes) of the logarithms of the probabilities from features (voxel, n)."""
        return self.layers(features)

    def where(self, probabilities: Tensor, brain: Tensor, spacing_mm: float) -> Tensor:
        """Return the voxels (D, H, W), bool, that are corrected.

        Args:
            probabilities: Class probabilities (class, D, H, W) of the network.
            brain: Brain (D, H, W), bool.
            spacing_mm: Voxel size in mm.
        """
        scale = self.config.tumor_scales_mm[0] / spacing_mm
        tumor = gaussian_smooth(1 - probabilities[:1], scale, border="zero")[0]
        return (tumor > self.config.least_tumor) & brain

    def features(
        self,
        images: Tensor,
        present: Collection[str],
        brain: Tensor,
        probabilities: Tensor,
        spacing_mm: float,
        where: Tensor,
    ) -> Tensor:
        """Return the features (voxel, n) of the voxels in ``where``.

        Args:
            images: Normalised images (modality, D, H, W) in the order of the configuration.
            present: Modalities that the study has.
            brain: Brain (D, H, W), bool.
            probabilities: Class probabilities (class, D, H, W) of the network.
            spacing_mm: Voxel size in mm.
            where: Voxels (D, H, W), bool.
        """
        config = self.config
        share = brain[None].float()
        found = []
        for scale in config.image_scales_mm:
            weight = gaussian_smooth(share, scale / spacing_mm, border="zero")[0][where].clamp_min(1e-3)
            for image, modality in zip(images, config.modalities, strict=True):
                smooth = gaussian_smooth((image * brain)[None], scale / spacing_mm, border="zero")[0][where] / weight
                found.append(smooth if modality in present else torch.zeros_like(smooth))
        for modality in config.modalities:
            found.append(torch.full_like(found[0], float(modality in present)))
        found += [p[where].clamp_min(_LEAST_PROBABILITY).log() / 3 for p in probabilities]
        for scale in config.tumor_scales_mm:
            found += list(gaussian_smooth(probabilities[1:], scale / spacing_mm, border="zero")[:, where])
        return torch.stack(found, 1)

    @torch.inference_mode()
    def refined(
        self, images: Tensor, present: Collection[str], brain: Tensor, probabilities: Tensor, spacing_mm: float
    ) -> Tensor:
        """Return the corrected class probabilities (class, D, H, W); those far from the tumour stay as they are.

        Args:
            images: Normalised images (modality, D, H, W) in the order of the configuration.
            present: Modalities that the study has.
            brain: Brain (D, H, W), bool.
            probabilities: Class probabilities (class, D, H, W) of the network.
            spacing_mm: Voxel size in mm.
        """
        where = self.where(probabilities, brain, spacing_mm)
        if not bool(where.any()):
            return probabilities
        box = self._box(where, spacing_mm)
        features = self.features(
            _cut(images, box), present, brain[box], _cut(probabilities, box), spacing_mm, where[box]
        )
        before = probabilities[:, where].T.clamp_min(_LEAST_PROBABILITY).log()
        after = [
            (scores + self(some)).softmax(1)
            for some, scores in zip(features.split(_VOXELS_AT_ONCE), before.split(_VOXELS_AT_ONCE), strict=True)
        ]
        result = probabilities.clone()
        result[:, where] = torch.cat(after).T
        return result

    def _box(self, where: Tensor, spacing_mm: float) -> tuple[slice, ...]:
        """Return the box around voxels in which their features do not notice its border."""
        margin = math.ceil(3 * max(*self.config.image_scales_mm, *self.config.tumor_scales_mm) / spacing_mm)
        box = []
        for axis, size in enumerate(where.shape):
            used = torch.nonzero(where.any(dim=tuple(a for a in range(3) if a != axis))).flatten()
            box.append(slice(max(int(used[0]) - margin, 0), min(int(used[-1]) + 1 + margin, size)))
        return tuple(box)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of a weights file: plain settings and the weights."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        config = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.config).items()}
        return {"config": config, "state": state}


def _cut(values: Tensor, box: tuple[slice, ...]) -> Tensor:
    """Return the values (channel, d, h, w) in a box."""
    first, second, third = box
    return values[:, first, second, third]


def fine_stage_from(entry: Any, where: str) -> FineStage | None:
    """Build the second stage from the entry of a weights file.

    Args:
        entry: What ``FineStage.to_dict`` returned; None where a file has no second stage.
        where: File, with which the message of an error begins.

    Raises:
        ValueError: The entry is damaged.
    """
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("state"), dict):
        raise ValueError(f"{where}: its second stage has no weights")
    stage = FineStage(settings_from_json(FineStageConfig, entry.get("config"), f"{where}: second stage"))
    check_weights(entry["state"], stage.state_dict(), where)
    stage.load_state_dict(entry["state"])
    return stage.eval()
