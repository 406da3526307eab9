"""Synthetic gliomas: a core with necrosis and enhancement, and oedema that spreads along white matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .random_fields import Draw, box_mean

KINDS = {"ring": 0.5, "solid": 0.15, "patchy": 0.2, "non_enhancing": 0.15}
"""Appearance of the core, with its frequency."""

ANATOMY_CSF, ANATOMY_GM, ANATOMY_WM = range(3)


@dataclass(frozen=True)
class Tumor:
    """What a tumour is made of at one visit; lengths in mm.

    kind: key of ``KINDS``. centres: (n, 3) voxels. radii_mm: (n,). stretch: (n, 3, 3) metric of each ellipsoid.
    oedema_mm: reach along white matter. ring_mm: thickness of the enhancing ring. mass: strength of the mass effect.
    resected: the core is a cavity filled with fluid, of which ``residual`` of the border still enhances.
    """

    kind: str
    centres: Tensor
    radii_mm: Tensor
    stretch: Tensor
    roughness: float
    oedema_mm: float
    ring_mm: float
    mass: float
    resected: bool = False
    residual: float = 0.0


@dataclass(frozen=True)
class Compartments:
    """Soft fields (D, H, W) in [0, 1]: shares of oedema, core, enhancing, necrosis (fluid in the core) and cavity."""

    oedema: Tensor
    core: Tensor
    enhancing: Tensor
    necrosis: Tensor
    cavity: Tensor

    def stack(self) -> Tensor:
        return torch.stack([self.oedema, self.core, self.enhancing, self.necrosis, self.cavity])

    @classmethod
    def of(cls, stack: Tensor) -> Compartments:
        return cls(*stack.unbind(0))

    def labels(self) -> Tensor:
        """(D, H, W) uint8 classes; a resection cavity is background."""
        labels = torch.where(self.oedema > 0.3, 2, 0)
        labels = torch.where(self.core > 0.5, torch.where(self.enhancing > 0.5, 3, 1), labels)
        return torch.where(self.cavity > 0.5, 0, labels).to(torch.uint8)


def random_tumor(tissues: Tensor, spacing_mm: float, draw: Draw) -> Tumor:
    """A tumour centred in the white matter of a head (3, D, H, W), sometimes with satellites."""
    kind = draw.choice(KINDS)
    wm = box_mean(tissues[ANATOMY_WM:], 5)[0]
    interior = box_mean((tissues.sum(0, keepdim=True) > 0.5).float(), 9)[0]
    weight = wm * (wm > 0.35) * (interior > 0.97)
    rows = (tissues.sum(0) > 0.5).any(-1).any(-1).nonzero()
    low, high = int(rows.min()), int(rows.max())
    weight[: low + (high - low) * 2 // 5] *= 0.15  # few gliomas grow below the tentorium
    weight = weight.flatten() + 1e-8
    count = 1 + int(draw.chance(0.5)) + int(draw.chance(0.25))
    first = int(torch.multinomial(weight, 1, generator=draw.generator))
    radius = draw.uniform(5, 22) if draw.chance(0.8) else draw.uniform(18, 32)
    shape = tissues.shape[1:]
    centre = torch.tensor([first // (shape[1] * shape[2]), first // shape[2] % shape[1], first % shape[2]]).float()
    centres, radii, metrics = [centre], [radius], [_metric(draw)]
    for _ in range(count - 1):
        near = draw.white(3) * (radius * draw.uniform(0.5, 1.0) / spacing_mm)
        centres.append(centre + near)
        radii.append(radius * draw.uniform(0.35, 0.85))
        metrics.append(_metric(draw))
    low_grade = kind in ("patchy", "non_enhancing")
    return Tumor(
        kind=kind,
        centres=torch.stack(centres),
        radii_mm=torch.tensor(radii),
        stretch=torch.stack(metrics),
        roughness=draw.uniform(0.1, 0.4),
        oedema_mm=draw.uniform(1, 14) if low_grade or draw.chance(0.35) else draw.uniform(5, 32),
        ring_mm=draw.uniform(1.5, 7.0),
        mass=draw.uniform(0.0, 0.65),
    )


def grown(tumor: Tumor, draw: Draw) -> Tumor:
    """The same tumour at another visit: larger, smaller under treatment, or resected."""
    if draw.chance(0.25):
        return replace(
            tumor,
            resected=True,
            residual=draw.uniform(0, 0.6),
            mass=tumor.mass * draw.uniform(-0.3, 0.3),
            oedema_mm=tumor.oedema_mm * draw.uniform(0.2, 0.9),
        )
    factor = draw.uniform(0.65, 1.5)
    return replace(
        tumor,
        radii_mm=(tumor.radii_mm * factor).clamp(4, 34),
        oedema_mm=tumor.oedema_mm * draw.uniform(0.5, 1.6),
        ring_mm=tumor.ring_mm * draw.uniform(0.7, 1.3),
        mass=min(0.7, tumor.mass * draw.uniform(0.6, 1.4)),
    )


@dataclass(frozen=True)
class TumorNoise:
    """The random fields that shape one patient's tumour, the same at both visits."""

    border: Tensor
    fine: Tensor
    spread: Tensor
    spots: Tensor

    @classmethod
    def of(cls, shape: tuple[int, int, int], spacing_mm: float, draw: Draw) -> TumorNoise:
        def smooth(scale: float) -> Tensor:
            return draw.smooth(shape, scale / spacing_mm)[0]

        return cls(smooth(draw.uniform(12, 25)), smooth(6), smooth(draw.uniform(8, 16)), smooth(draw.uniform(6, 13)))


def compartments(tumor: Tumor, tissues: Tensor, noise: TumorNoise, spacing_mm: float) -> Compartments:
    """Grow the tumour in the tissues (3, D, H, W) around it."""
    brain = tissues.sum(0)
    depth = _depth_mm(tumor, noise, tissues.shape[1:], spacing_mm)  # positive inside the core
    inside_brain = (brain > 0.5) & ~((tissues[ANATOMY_CSF] > 0.7) & (depth < 2))
    soft = 1.0 / spacing_mm
    core = torch.sigmoid(depth * 2 * soft) * inside_brain
    reach = _reach_mm(core > 0.5, tissues, noise, spacing_mm, tumor.oedema_mm + 6)
    oedema = torch.sigmoid((tumor.oedema_mm - reach) / 1.5) * inside_brain
    oedema = oedema * (1 - tissues[ANATOMY_CSF]).clamp(0, 1) * (reach < 1e3)
    oedema = torch.maximum(box_mean(oedema[None], 3)[0] * inside_brain, core)
    enhancing, necrosis = _inner(tumor, depth, noise, soft)
    cavity = torch.zeros_like(core)
    if tumor.resected:
        cavity = torch.sigmoid((depth - 1.5) * 2 * soft) * inside_brain
        rim = torch.sigmoid((noise.spots - _quantile_of_normal(1 - tumor.residual)) * 4)
        core = core * (1 - cavity) * rim
        enhancing, necrosis = (rim > 0.5).float(), torch.zeros_like(core)
        oedema = oedema * (1 - cavity)
    return Compartments(oedema, core, enhancing * core, necrosis * core, cavity)


def _inner(tumor: Tumor, depth: Tensor, noise: TumorNoise, soft: float) -> tuple[Tensor, Tensor]:
    if tumor.kind == "ring":
        thickness = tumor.ring_mm * torch.exp(0.45 * noise.spots + 0.1 * noise.fine)
        enhancing = torch.sigmoid((thickness - depth) * 2 * soft)
        return enhancing, 1 - enhancing
    if tumor.kind == "solid":
        hole = torch.sigmoid((noise.spots - 1.2) * 4) * torch.sigmoid((depth - 2) * soft)
        return 1 - hole, hole
    if tumor.kind == "patchy":
        share = 0.3 + 0.7 * torch.sigmoid(noise.border)  # 0.3 to 1: some tumours enhance in a few places only
        return torch.sigmoid((noise.spots + 0.3 * noise.fine - share) * 4), torch.zeros_like(depth)
    return torch.zeros_like(depth), torch.sigmoid((noise.spots - 1.5) * 4)


def _depth_mm(tumor: Tumor, noise: TumorNoise, shape: torch.Size, spacing_mm: float) -> Tensor:
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    rough = 1 + tumor.roughness * (0.8 * noise.border + 0.15 * noise.fine)
    depth = torch.full(tuple(shape), -1e3)
    for centre, radius, metric in zip(tumor.centres, tumor.radii_mm, tumor.stretch, strict=True):
        away = torch.einsum("ij,jdhw->idhw", metric, voxels - centre.view(3, 1, 1, 1)) * spacing_mm
        depth = torch.maximum(depth, radius * rough - away.square().sum(0).sqrt())
    return depth


def _reach_mm(core: Tensor, tissues: Tensor, noise: TumorNoise, spacing_mm: float, limit_mm: float) -> Tensor:
    """Distance from the core in mm of white matter; other tissue costs more, CSF stops it."""
    csf, gm, wm = tissues
    cost = wm + 2.8 * gm + 12 * csf + 4 * (1 - tissues.sum(0)).clamp_min(0)
    cost = cost * torch.exp(0.45 * noise.spread + 0.1 * noise.fine) * spacing_mm
    distance = torch.where(core, 0.0, 1e4)
    for step in range(max(2, round(limit_mm / spacing_mm))):
        if step % 2:  # alternately over corners and faces, so that fronts are nearly round
            nearest = -_max3(_max3(_max3(-distance, 0), 1), 2)
            distance = torch.minimum(distance, nearest + 1.5 * cost)
        else:
            nearest = -torch.stack([_max3(-distance, axis) for axis in range(3)]).amax(0)
            distance = torch.minimum(distance, nearest + cost)
    return distance


def _max3(field: Tensor, axis: int) -> Tensor:
    kernel, pad = [1, 1, 1], [0, 0, 0]
    kernel[axis], pad[axis] = 3, 1
    return F.max_pool3d(field[None, None], kernel, 1, pad)[0, 0]


def _metric(draw: Draw) -> Tensor:
    """Symmetric matrix with determinant 1 whose unit ball is an ellipsoid, stretched by up to about 1.6."""
    basis, _ = torch.linalg.qr(draw.white(3, 3))
    scales = torch.tensor([draw.uniform(-0.4, 0.4) for _ in range(3)])
    return basis @ torch.diag((scales - scales.mean()).exp()) @ basis.T


def _quantile_of_normal(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(min(max(p, 1e-4), 1 - 1e-4))))
