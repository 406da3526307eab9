"""Signs of how well two visits were registered that need no truth, all measured on voxels of about 4 mm.

The most telling one compares the alignment with that of the mirrored moving study. Two scans of one brain share their
folds and are much more alike than a brain and its mirror image. For the brains of two patients it makes hardly any
difference, and a visit whose left and right were exchanged is more alike when it is mirrored.

Two images are compared only where both show the brain; what one of them does not show does not speak against the pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.modalities import MODALITIES
from ..images.preprocessing.prepared_study import PreparedStudy
from ..registration.affine import AffineResult
from ..registration.deformation import Deformation, jacobian_determinant, resize_displacement, warp
from ..registration.halfway import OUTSIDE, HalfwaySpace, Side, rotation_matrix
from ..registration.local_correlation import BoxFilter

_SPACING_MM = 4.0
_WINDOW = 5
"""Edge of the neighbourhoods of the local correlation, in voxels of 4 mm."""
_NOISE_SHARE = 0.01
"""Variance, as a share of that of the whole brain, that is added to the local ones."""
_TUMORS_ML = 3.0
"""Smallest volume of both tumours from which their places are compared, in ml."""
_FEWEST_VOXELS = 200
"""Smallest number of voxels of 4 mm over which a similarity is averaged."""
_SHOWN = 0.99
"""Share of a voxel of 4 mm that an image must show."""


@dataclass(frozen=True)
class PairQuality:
    """Signs of how well two visits were registered.

    Similarities are mean local correlation coefficients, from -1 to 1, of the modalities that drove the registration,
    where both visits show them; None where that is hardly anywhere.

    Attributes:
        brain_overlap: Dice coefficient of the brains after the linear alignment, where both visits show them.
        brain_shared: Share of each visit's brain that both visits show after the linear alignment; the smaller of the
            two.
        stretch: Singular values of the linear map, largest first.
        similarity_before: Similarity of the healthy brain after the linear alignment alone.
        similarity_after: The same after the deformation.
        tumor_similarity: Similarity within the tumours after the deformation; None without tumour.
        mirrored_similarity: Similarity with the mirrored moving study, aligned likewise; compare ``similarity_before``.
        symmetry: Similarity of the fixed study with its own mirror image; where it is high, mirroring proves nothing.
        log_jacobian_sd: Standard deviation of the logarithm of the Jacobian determinant in the healthy brain.
        tumor_overlap: Dice coefficient of the tumours after the deformation, with their cavities and given masks, as a
            cavity lies where the tumour was; None unless both are known and larger than 3 ml.
        exchanged: The two modalities of the moving study that fit each other's place better than their own, and by how
            much the sum of their similarities would rise; None if there are none.
    """

    brain_overlap: float
    brain_shared: float
    stretch: tuple[float, float, float]
    similarity_before: float | None
    similarity_after: float | None
    tumor_similarity: float | None
    mirrored_similarity: float | None
    symmetry: float | None
    log_jacobian_sd: float
    tumor_overlap: float | None
    exchanged: tuple[str, str, float] | None

    @property
    def advantage(self) -> float | None:
        """Share of the dissimilarity to the mirrored study that is gone without mirroring; 1 for identical images."""
        if self.similarity_before is None or self.mirrored_similarity is None:
            return None
        return (self.similarity_before - self.mirrored_similarity) / max(1 - self.mirrored_similarity, 1e-3)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``report.json``."""
        advantage = self.advantage
        return {**asdict(self), "advantage_over_mirrored": None if advantage is None else round(advantage, 4)}


def pair_quality(
    fixed: PreparedStudy,
    moving: PreparedStudy,
    deformation: Deformation,
    alignment: AffineResult,
    driving: Sequence[str],
    tumors: tuple[Tensor | None, Tensor | None],
) -> PairQuality:
    """Measure the signs of quality of a registration.

    Args:
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid, after the linear alignment.
        deformation: Deformation from the fixed to the moving study on that grid.
        alignment: Result of the linear alignment.
        driving: Modalities that drove the registration.
        tumors: Tumours (1, 1, D, H, W) of the fixed and the moving study on the working grid; None if not known.
    """
    known = all(t is not None and int(t.sum()) * fixed.grid.spacing_mm**3 >= 1000 * _TUMORS_ML for t in tumors)
    stretch = np.linalg.svd(np.array(alignment.transform.GetMatrix()).reshape(3, 3), compute_uv=False)
    with torch.inference_mode(False), torch.no_grad():  # the alignment of the mirror image needs gradients
        depth, height, width = (max(4, round(n * fixed.grid.spacing_mm / _SPACING_MM)) for n in fixed.grid.shape)
        shape = depth, height, width
        first, second = (_CoarseStudy.of(s, t, shape) for s, t in zip((fixed, moving), tumors, strict=True))
        displacement = resize_displacement(deformation.displacement, shape)
        warped = second.warped(displacement)
        channels = [MODALITIES.index(m) for m in driving]
        shown = (first.seen & second.seen)[channels].any(0)
        mirrored = first.aligned_mirror_image(second, channels)
        symmetric = first.aligned_mirror_image(first, channels)
        healthy = (first.brain & ~first.tumor)[None, None]
        jacobian = jacobian_determinant(displacement)[healthy if bool(healthy.any()) else first.brain[None, None]]
        both = first.tumor | warped.tumor
        return PairQuality(
            brain_overlap=_dice(first.brain & shown, second.brain & shown),
            brain_shared=min(_share(first.brain, shown), _share(second.brain, shown)),
            stretch=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
            similarity_before=first.similarity(second, channels),
            similarity_after=first.similarity(warped, channels),
            tumor_similarity=first.similarity(warped, channels, both),
            mirrored_similarity=first.similarity(mirrored, channels),
            symmetry=first.similarity(symmetric, channels),
            log_jacobian_sd=float(jacobian.clamp_min(1e-3).log().std()),
            tumor_overlap=_dice(first.tumor, warped.tumor) if known else None,
            exchanged=_exchanged(first, warped, [m for m in MODALITIES if m in fixed.present and m in moving.present]),
        )


@dataclass(frozen=True)
class _CoarseStudy:
    """A study on voxels of about 4 mm.

    Attributes:
        images: Images (modality, D, H, W).
        seen: Voxels that each image shows as a whole (modality, D, H, W), boolean.
        brain: Brain (D, H, W), boolean.
        tumor: Tumour (D, H, W), boolean.
    """

    images: Tensor
    seen: Tensor
    brain: Tensor
    tumor: Tensor

    @classmethod
    def of(cls, study: PreparedStudy, tumor: Tensor | None, shape: tuple[int, int, int]) -> _CoarseStudy:
        brain = F.adaptive_avg_pool3d(study.mask[None].float(), shape)[0]
        images = F.adaptive_avg_pool3d(study.images * study.mask, shape) / brain.clamp_min(0.25)
        where = F.adaptive_max_pool3d((study.mask * 0.0)[None] if tumor is None else tumor[0].float(), shape)[0] > 0
        seen = torch.stack([study.shown([modality]) for modality in MODALITIES]).float()
        return cls(images, F.adaptive_avg_pool3d(seen, shape) > _SHOWN, brain >= 0.5, where)

    def warped(self, displacement: Tensor) -> _CoarseStudy:
        """Return the study after a deformation (1, 3, D, H, W)."""
        images, seen = (warp(maps[None].float(), displacement)[0] for maps in (self.images, self.seen))
        brain, tumor = (warp(mask[None, None].float(), displacement)[0, 0] for mask in (self.brain, self.tumor))
        return _CoarseStudy(images, seen > _SHOWN, brain >= 0.5, tumor > 0.1)

    def similarity(self, other: _CoarseStudy, channels: Sequence[int], where: Tensor | None = None) -> float | None:
        """Return the mean local correlation of modalities with the same ones of the other study.

        Args:
            other: The other study.
            channels: Channels of the modalities.
            where: Voxels to average over (D, H, W); None for the brain that both have, without the tumours.

        Returns:
            A coefficient from -1 to 1; None if no modality is shown by both studies in enough of these voxels.
        """
        found = []
        for channel in channels:
            values = self.correlations(other, [channel], where)
            if values is not None:
                found.append(float(values))
        return sum(found) / len(found) if found else None

    def correlations(self, other: _CoarseStudy, channels: list[int], where: Tensor | None = None) -> Tensor | None:
        """Return the local correlation of each of some images with each of the same ones of the other study.

        All are averaged over the voxels that both studies show in all of these images.

        Returns:
            Coefficients (own, other); None if there are too few such voxels.
        """
        mask = self.brain & other.brain & (self.seen & other.seen)[channels].all(0)
        healthy = mask & ~self.tumor & ~other.tumor
        if where is not None:
            mask = mask & where
        elif int(healthy.sum()) >= _FEWEST_VOXELS:
            mask = healthy
        if int(mask.sum()) < _FEWEST_VOXELS:
            return None
        return local_correlations(self.images[channels], other.images[channels], mask)

    def aligned_mirror_image(self, other: _CoarseStudy, channels: Sequence[int]) -> _CoarseStudy:
        """Mirror the other study from left to right and align it with this one by an affine map."""
        mirrored = _CoarseStudy(*(maps.flip(-1) for maps in (other.images, other.seen, other.brain, other.tumor)))
        shown = [min(int((study.seen[c] & study.brain).sum()) for study in (self, mirrored)) for c in channels]
        if max(shown) < _FEWEST_VOXELS:
            return mirrored
        channel = channels[shown.index(max(shown))]
        sides = self._side(channel), mirrored._side(channel)
        spaces = []
        for turn in np.radians([-20.0, 0.0, 20.0]):
            for roll in np.radians([-20.0, 0.0, 20.0]):
                start = np.eye(4)
                axis = np.array([0.0, roll, turn])
                start[:3, :3] = rotation_matrix(axis, float(np.linalg.norm(axis)))
                spaces.append(HalfwaySpace(*sides, start, 1.5 * _SPACING_MM))
        best = max(spaces, key=lambda space: space.mutual_information([0.0] * 6))
        try:
            parameters, _ = best.optimize([0.0] * 6, 15, lambda _: None)
            parameters, _ = best.optimize([*parameters, *[0.0] * 6], 20, lambda _: None)
        except ValueError:  # no overlap
            return mirrored
        return mirrored._moved(best.map_at(parameters))

    def _side(self, channel: int) -> Side:
        """Return the study for an alignment, with its voxels (W, H, D) times 4 mm as points."""
        image, inside, seen = self.images[channel], self.brain, self.seen[channel]
        low, high = torch.quantile(image[inside & seen], torch.tensor([0.005, 0.995])).tolist()
        values = torch.where(inside, ((image - low) / max(high - low, 1e-6)).clamp(0, 1), OUTSIDE)
        near = F.max_pool3d(inside[None, None].float(), 3, 1, 1)[0, 0]
        maps = torch.stack([values, (~self.tumor & (seen | ~inside)).float(), near])
        points = torch.nonzero(inside).flip(1).double().numpy() * _SPACING_MM
        center = points.mean(axis=0)
        reach = np.abs(points - center).max(axis=0) + 2 * _SPACING_MM
        to_index = np.diag([1 / _SPACING_MM] * 3 + [1.0])
        return Side(maps[None].clone(), to_index, center, reach, np.eye(3))

    def _moved(self, to_self: np.ndarray) -> _CoarseStudy:
        """Sample the study at the images of the voxels under a map (4, 4) of points in mm along W, H and D."""
        depth, height, width = self.brain.shape
        axes = [torch.arange(n, dtype=torch.float32) for n in (depth, height, width)]
        k, j, i = torch.meshgrid(*axes, indexing="ij")
        matrix = torch.from_numpy(to_self).float()
        places = torch.stack([i, j, k], -1) @ matrix[:3, :3].t() + matrix[:3, 3] / _SPACING_MM
        last = torch.tensor([width - 1.0, height - 1.0, depth - 1.0])
        grid = (2 / last * places - 1)[None]
        maps = torch.cat([self.images, self.seen.float(), self.brain[None].float(), self.tumor[None].float()])[None]
        values = F.grid_sample(maps, grid, "bilinear", "zeros", align_corners=True)[0]
        images, seen = values[:-2].chunk(2)
        return _CoarseStudy(images, seen > _SHOWN, values[-2] >= 0.5, values[-1] > 0.1)


def local_correlations(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean local correlation coefficient of every pair of images.

    Args:
        first: Images (C, D, H, W).
        second: Images (K, D, H, W) on the same grid.
        mask: Voxels that count (D, H, W), bool.

    Returns:
        Coefficients (C, K) from -1 to 1; 0 for constant images and for an empty mask.
    """
    weights = mask.float()[None, None]
    if not bool(mask.any()):
        return first.new_zeros(len(first), len(second))
    first, second = (_standardized(images, mask) for images in (first, second))
    box = BoxFilter.of(first[None], _WINDOW)
    share = box(weights).clamp_min(1e-3)

    def mean(values: Tensor) -> Tensor:
        return (box(values[None] * weights) / share)[0]

    means = mean(first), mean(second)
    spreads = [
        (mean(images.square()) - average.square()).clamp_min(0) + _NOISE_SHARE
        for images, average in zip((first, second), means, strict=True)
    ]
    rows = []
    for image, average, spread in zip(first, means[0], spreads[0], strict=True):
        covariance = mean(image * second) - average * means[1]
        rows.append((covariance / (spread * spreads[1]).sqrt())[:, mask].mean(1))
    return torch.stack(rows)


def _standardized(images: Tensor, mask: Tensor) -> Tensor:
    """Return images with zero mean and unit variance in a mask; constant ones become 0."""
    values = images[:, mask]
    mean, spread = values.mean(1), values.std(1, correction=0)
    return (
        (images - mean.view(-1, 1, 1, 1)) / spread.clamp_min(1e-6).view(-1, 1, 1, 1) * (spread > 1e-6).view(-1, 1, 1, 1)
    )


def _exchanged(first: _CoarseStudy, second: _CoarseStudy, present: Sequence[str]) -> tuple[str, str, float] | None:
    """Return the pair of modalities whose exchange would raise the sum of their similarities most, if any does."""
    best: tuple[str, str, float] | None = None
    for number, one in enumerate(present):
        for other in present[number + 1 :]:
            found = first.correlations(second, [MODALITIES.index(one), MODALITIES.index(other)])
            if found is None:
                continue
            gain = float(found[0, 1] + found[1, 0] - found[0, 0] - found[1, 1])
            if gain > (0 if best is None else best[2]):
                best = one, other, gain
    return best


def _share(brain: Tensor, shown: Tensor) -> float:
    return int((brain & shown).sum()) / max(int(brain.sum()), 1)


def _dice(first: Tensor, second: Tensor) -> float:
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0
