"""Synthetic gliomas: a core with necrosis and enhancement, and oedema that spreads along white matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.labels import CAVITY
from .random_fields import Draw, box_mean, grid_of, voxel_positions
from .templates import CSF, WM

KINDS = {"ring": 0.42, "solid": 0.13, "patchy": 0.2, "non_enhancing": 0.25}
"""Appearance of the core, with its frequency."""
RESECTED_SHARE = 0.25
"""Share of the patients whose tumour is resected between the visits."""
_PARTLY_RESECTED = 0.5
"""Share of the resections of several ellipsoids that take only the first one."""
_LEAST_EDEMA = 0.15
"""Share of oedema from which a voxel is labelled: experts include its faint margin."""
_LEAST_CYST_RING_MM = 5.0
"""Tumours without enhancement whose ring would be thicker than this are cysts, which are about a third of them."""
SURGERY = 1
"""Purpose of random numbers, see ``Draw.aside``."""


@dataclass(frozen=True)
class Tumor:
    """Parameters of a tumour at one visit; it consists of n overlapping ellipsoids.

    Attributes:
        kind: Appearance of the core, a key of ``KINDS``.
        centers: Centres (n, 3) in voxels.
        radii_mm: Radii (n,) in mm.
        stretch: Metric (n, 3, 3) of each ellipsoid.
        roughness: How far the border deviates from the ellipsoids, relative to the radius.
        edema_mm: Reach of the oedema along white matter in mm; 0 for none.
        ring_mm: Thickness of the enhancing ring in mm; without enhancement it decides whether there is a cyst.
        mass: Strength of the mass effect.
        resected: The core is a cavity filled with fluid.
        residual: Fraction of the border of the cavity that still enhances.
        remaining: Ellipsoids, the last ones, that surgery left; they keep their necrosis and enhancement.
    """

    kind: str
    centers: Tensor
    radii_mm: Tensor
    stretch: Tensor
    roughness: float
    edema_mm: float
    ring_mm: float
    mass: float
    resected: bool = False
    residual: float = 0.0
    remaining: int = 0

    def ellipsoids(self, which: slice) -> Tumor:
        """The tumour that consists of some of the ellipsoids only."""
        return replace(self, centers=self.centers[which], radii_mm=self.radii_mm[which], stretch=self.stretch[which])


@dataclass(frozen=True)
class TumorFields:
    """Soft fields (D, H, W) from 0 to 1 that say how much of each voxel belongs to a part of the tumour.

    Attributes:
        edema: Oedema, including the core.
        core: Tumour core.
        enhancing: Enhancing part of the core.
        necrosis: Necrotic part of the core, which is fluid.
        cavity: Resection cavity.
    """

    edema: Tensor
    core: Tensor
    enhancing: Tensor
    necrosis: Tensor
    cavity: Tensor

    def stack(self) -> Tensor:
        """Stack the fields into (5, D, H, W), as ``of`` takes them."""
        return torch.stack([self.edema, self.core, self.enhancing, self.necrosis, self.cavity])

    @classmethod
    def of(cls, stack: Tensor) -> TumorFields:
        """Take the fields from a stack (5, D, H, W)."""
        return cls(*stack.unbind(0))

    def labels(self, cavity: bool = False) -> Tensor:
        """Classify the voxels.

        Args:
            cavity: Whether a resection cavity has its own number, as in ``images.labels``; else it is background.

        Returns:
            Classes (D, H, W) uint8.
        """
        labels = torch.where(self.edema > _LEAST_EDEMA, 2, 0)
        labels = torch.where(self.core > 0.5, torch.where(self.enhancing > 0.5, 3, 1), labels)
        return torch.where(self.cavity > 0.5, CAVITY if cavity else 0, labels).to(torch.uint8)


@dataclass(frozen=True)
class TumorNoise:
    """Random fields (D, H, W) that shape the tumour of one patient, the same at both visits.

    Attributes:
        border: Coarse deviation of the border.
        fine: Fine deviation of the border.
        spread: Speed at which the oedema spreads.
        spots: Where the core enhances.
    """

    border: Tensor
    fine: Tensor
    spread: Tensor
    spots: Tensor

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing_mm: float, draw: Draw) -> TumorNoise:
        """Draw the fields on a grid (D, H, W)."""

        def smooth(scale_mm: float) -> Tensor:
            return draw.smooth(shape, scale_mm / spacing_mm)[0]

        return cls(smooth(draw.uniform(12, 25)), smooth(6), smooth(draw.uniform(8, 16)), smooth(draw.uniform(6, 13)))


def random_tumor(tissues: Tensor, spacing_mm: float, draw: Draw) -> Tumor:
    """Draw a tumour in the white matter of a head, sometimes with satellites.

    Args:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        spacing_mm: Voxel size in mm.
        draw: Source of the random numbers.
    """
    kind = draw.choice(KINDS)
    weight = _location_weights(tissues)
    count = 1 + int(draw.chance(0.5)) + int(draw.chance(0.25))
    first = int(torch.multinomial(weight, 1, generator=draw.generator))
    low_grade = kind in ("patchy", "non_enhancing")
    radius = draw.uniform(18, 36) if draw.chance(0.55 if low_grade else 0.3) else draw.uniform(5, 24)
    _, h, w = grid_of(tissues)
    center = torch.tensor([first // (h * w), first // w % h, first % w]).float()
    centers, radii, metrics = [center], [radius], [_metric(draw)]
    for _ in range(count - 1):
        offset = draw.white(3) * (radius * draw.uniform(0.5, 1.0) / spacing_mm)
        centers.append(center + offset)
        radii.append(radius * draw.uniform(0.35, 0.85))
        metrics.append(_metric(draw))
    return Tumor(
        kind=kind,
        centers=torch.stack(centers),
        radii_mm=torch.tensor(radii),
        stretch=torch.stack(metrics),
        roughness=draw.uniform(0.1, 0.4),
        edema_mm=_edema_mm(low_grade, draw),
        ring_mm=draw.uniform(1.5, 7.0),
        mass=draw.uniform(0.0, 0.65),
    )


def _edema_mm(low_grade: bool, draw: Draw) -> float:
    """Draw the reach of the oedema, of which tumours of low grade have less or none."""
    weights = {"none": 0.4, "some": 0.5, "much": 0.1} if low_grade else {"none": 0.1, "some": 0.45, "much": 0.45}
    kind = draw.choice(weights)
    return {"none": 0.0, "some": draw.uniform(1, 12), "much": draw.uniform(8, 28)}[kind]


def changed_tumor(tumor: Tumor, draw: Draw, resected_share: float = RESECTED_SHARE) -> Tumor:
    """Draw what became of a tumour at another visit: larger, smaller under treatment, or resected.

    Args:
        tumor: Tumour at the first visit.
        draw: Source of the random numbers.
        resected_share: Probability of a resection.
    """
    if draw.chance(resected_share):
        return replace(
            tumor,
            resected=True,
            residual=draw.uniform(0, 0.6),
            mass=tumor.mass * draw.uniform(-0.3, 0.3),
            edema_mm=tumor.edema_mm * draw.uniform(0.2, 0.9),
            remaining=(len(tumor.radii_mm) - 1) * draw.aside(SURGERY).chance(_PARTLY_RESECTED),
        )
    factor = draw.uniform(0.65, 1.5)
    return replace(
        tumor,
        radii_mm=(tumor.radii_mm * factor).clamp(4, 38),
        edema_mm=tumor.edema_mm * draw.uniform(0.5, 1.6),
        ring_mm=tumor.ring_mm * draw.uniform(0.7, 1.3),
        mass=min(0.7, tumor.mass * draw.uniform(0.6, 1.4)),
    )


def without_tumor(tumor: Tumor) -> Tumor:
    """Make a tumour of no ellipsoids, which has no voxel and pushes nothing aside."""
    return replace(tumor.ellipsoids(slice(0)), resected=False, remaining=0)


def tumor_fields(tumor: Tumor, tissues: Tensor, noise: TumorNoise, spacing_mm: float) -> TumorFields:
    """Let a tumour grow in a head.

    Args:
        tumor: Parameters of the tumour.
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        noise: Random fields of the patient.
        spacing_mm: Voxel size in mm.

    Returns:
        Parts of the tumour on the same grid.
    """
    brain = tissues.sum(0)
    depth = _depth_mm(tumor, noise, grid_of(tissues), spacing_mm)  # positive inside the core
    inside_brain = (brain > 0.5) & ~((tissues[CSF] > 0.7) & (depth < 2))
    sharpness = 1.0 / spacing_mm
    core = torch.sigmoid(depth * 2 * sharpness) * inside_brain
    reach = _reach_mm(core > 0.5, tissues, noise, spacing_mm, tumor.edema_mm + 6)
    edema = torch.sigmoid((tumor.edema_mm - reach) / 1.5) * inside_brain
    edema = edema * (1 - tissues[CSF]).clamp(0, 1) * (reach < 1e3)
    # Without oedema, the cube stays below the limit of its label where the core falls below its own.
    edema = torch.maximum(box_mean(edema[None], 3)[0] * inside_brain, core) if tumor.edema_mm > 0 else core**3
    enhancing, necrosis = _inner_parts(tumor, depth, noise, sharpness)
    cavity = torch.zeros_like(core)
    if tumor.resected:
        first_left = len(tumor.radii_mm) - tumor.remaining
        bed = _depth_mm(tumor.ellipsoids(slice(None, first_left)), noise, grid_of(tissues), spacing_mm)
        rest = _depth_mm(tumor.ellipsoids(slice(first_left, None)), noise, grid_of(tissues), spacing_mm)
        left = torch.sigmoid(rest * 2 * sharpness)
        cavity = torch.sigmoid((bed - 1.5) * 2 * sharpness) * inside_brain * (1 - left)
        rim = torch.sigmoid((noise.spots - _quantile_of_normal(1 - tumor.residual)) * 4)
        core = torch.maximum(core * (1 - cavity) * rim, left * inside_brain)
        enhancing = torch.where(left > 0.5, enhancing, (rim > 0.5).float())
        necrosis = torch.where(left > 0.5, necrosis, 0.0)
        edema = edema * (1 - cavity)
    return TumorFields(edema, core, enhancing * core, necrosis * core, cavity)


def _location_weights(tissues: Tensor) -> Tensor:
    """Weights (voxel,) of the tumour's centre: deep white matter, rarely in the lower part of the brain."""
    white_matter = box_mean(tissues[WM:], 5)[0]
    interior = box_mean((tissues.sum(0, keepdim=True) > 0.5).float(), 9)[0]
    weight = white_matter * (white_matter > 0.35) * (interior > 0.97)
    rows = (tissues.sum(0) > 0.5).any(-1).any(-1).nonzero()
    low, high = int(rows.min()), int(rows.max())
    weight[: low + (high - low) * 2 // 5] *= 0.15  # few gliomas grow below the tentorium
    return weight.flatten() + 1e-8


def _inner_parts(tumor: Tumor, depth: Tensor, noise: TumorNoise, sharpness: float) -> tuple[Tensor, Tensor]:
    """How much of the core enhances and how much is necrotic, (D, H, W) each."""
    if tumor.kind == "ring":
        thickness = tumor.ring_mm * torch.exp(0.45 * noise.spots + 0.1 * noise.fine)
        enhancing = torch.sigmoid((thickness - depth) * 2 * sharpness)
        return enhancing, 1 - enhancing
    if tumor.kind == "solid":
        hole = torch.sigmoid((noise.spots - 1.2) * 4) * torch.sigmoid((depth - 2) * sharpness)
        return 1 - hole, hole
    if tumor.kind == "patchy":
        share = 0.3 + 0.7 * torch.sigmoid(noise.border)  # 0.3 to 1: some tumours enhance in a few places only
        return torch.sigmoid((noise.spots + 0.3 * noise.fine - share) * 4), torch.zeros_like(depth)
    if tumor.kind == "non_enhancing":
        wall_mm = tumor.ring_mm - _LEAST_CYST_RING_MM
        if wall_mm > 0:  # a cyst
            wall = (1 + wall_mm) * torch.exp(0.45 * noise.spots + 0.1 * noise.fine)
            return torch.zeros_like(depth), torch.sigmoid((depth - wall) * 2 * sharpness)
        return torch.zeros_like(depth), torch.sigmoid((noise.spots - 1.5) * 4)
    raise ValueError(f"tumour kind '{tumor.kind}' is unknown; use {', '.join(KINDS)}")


def _depth_mm(tumor: Tumor, noise: TumorNoise, shape: tuple[int, int, int], spacing_mm: float) -> Tensor:
    """Distance (D, H, W) in mm from the border of the core, positive inside."""
    voxels = voxel_positions(shape)
    rough = 1 + tumor.roughness * (0.8 * noise.border + 0.15 * noise.fine)
    depth = torch.full(shape, -1e3)
    for center, radius, metric in zip(tumor.centers, tumor.radii_mm, tumor.stretch, strict=True):
        away = torch.einsum("ij,jdhw->idhw", metric, voxels - center.view(3, 1, 1, 1)) * spacing_mm
        depth = torch.maximum(depth, radius * rough - away.square().sum(0).sqrt())
    return depth


def _reach_mm(core: Tensor, tissues: Tensor, noise: TumorNoise, spacing_mm: float, limit_mm: float) -> Tensor:
    """Distance (D, H, W) from the core in mm of white matter; grey matter costs more, and CSF is hardly crossed."""
    csf, gm, wm = tissues
    cost = wm + 2.8 * gm + 12 * csf + 4 * (1 - tissues.sum(0)).clamp_min(0)
    cost = cost * torch.exp(0.45 * noise.spread + 0.1 * noise.fine) * spacing_mm
    distance = torch.where(core, 0.0, 1e4)
    for step in range(max(2, round(limit_mm / spacing_mm))):
        if step % 2:  # alternately across corners and faces, so that fronts are nearly round
            nearest = -_max3(_max3(_max3(-distance, 0), 1), 2)
            distance = torch.minimum(distance, nearest + 1.5 * cost)
        else:
            nearest = -torch.stack([_max3(-distance, axis) for axis in range(3)]).amax(0)
            distance = torch.minimum(distance, nearest + cost)
    return distance


def _max3(field: Tensor, axis: int) -> Tensor:
    """Largest of three neighbours along an axis of (D, H, W)."""
    kernel, pad = [1, 1, 1], [0, 0, 0]
    kernel[axis], pad[axis] = 3, 1
    return F.max_pool3d(field[None, None], kernel, 1, pad)[0, 0]


def _metric(draw: Draw) -> Tensor:
    """Symmetric matrix (3, 3) with determinant 1 whose unit ball is an ellipsoid, stretched by up to about 1.6."""
    basis, _ = torch.linalg.qr(draw.white(3, 3))
    scales = torch.tensor([draw.uniform(-0.4, 0.4) for _ in range(3)])
    return basis @ torch.diag((scales - scales.mean()).exp()) @ basis.T


def _quantile_of_normal(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(min(max(p, 1e-4), 1 - 1e-4))))
