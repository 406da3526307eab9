"""How tissues and tumours look on T1, T1 with contrast agent, T2 and FLAIR: means, texture, artefacts, acquisition.

Intensities are in arbitrary units in which white matter on T1 is about 0.85; all means vary from patient to patient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..images.modalities import MODALITIES
from .random_fields import Draw, box_mean
from .tumor import ANATOMY_CSF, ANATOMY_GM, ANATOMY_WM, Compartments

# CSF, grey, white matter: mean and standard deviation between patients
_TISSUE = {
    "t1": ((0.28, 0.06), (0.65, 0.06), (0.83, 0.05)),
    "t1ce": ((0.28, 0.06), (0.67, 0.06), (0.80, 0.06)),
    "t2": ((1.05, 0.12), (0.50, 0.05), (0.38, 0.05)),
    "flair": ((0.20, 0.08), (0.55, 0.05), (0.47, 0.05)),
}
# mean ranges of oedema, non-enhancing tumour, necrosis, enhancing tumour
_LESION = {
    "t1": ((0.48, 0.78), (0.42, 0.72), (0.25, 0.62), (0.45, 0.85)),
    "t1ce": ((0.48, 0.76), (0.42, 0.72), (0.22, 0.62), (0.95, 1.90)),
    "t2": ((0.50, 0.95), (0.60, 1.05), (0.60, 1.20), (0.48, 0.95)),
    "flair": ((0.60, 1.15), (0.66, 1.25), (0.20, 1.20), (0.60, 1.10)),
}


def random_images(
    tissues: Tensor, tumor: Compartments, mask: Tensor, spacing_mm: float, draw: Draw, modalities=MODALITIES
) -> Tensor:
    """Images (C, D, H, W) of a head (3, D, H, W) with a tumour, zero outside of the mask (D, H, W)."""
    shape = tuple(mask.shape)
    levels = _Levels(draw)
    shared = _Shared(tissues, mask, spacing_mm, draw)
    images = []
    for name in modalities:
        image = _tissue_image(name, tissues, levels, shared, spacing_mm, draw)
        image = _with_distractors(name, image, tissues, shared, draw)
        image = _with_tumor(name, image, tumor, levels, spacing_mm, draw)
        image = _with_surface(name, image, shared, draw)
        images.append(_acquired(image, mask, shape, spacing_mm, draw))
    return torch.stack(images)


class _Levels:
    """Means of one patient. What is fluid-like on one modality is so on the others."""

    def __init__(self, draw: Draw) -> None:
        self.wetness = [draw.uniform(0, 1) for _ in range(4)]
        self.tissue = {m: [draw.normal(*v) for v in _TISSUE[m]] for m in MODALITIES}
        self.lesion = {m: [self._mean(m, k, draw) for k in range(4)] for m in MODALITIES}
        if draw.chance(0.3):  # hardly any uptake
            self.lesion["t1ce"][3] = draw.uniform(0.8, 1.05)

    def _mean(self, modality: str, part: int, draw: Draw) -> float:
        low, high = _LESION[modality][part]
        wet = self.wetness[part]
        mix = {"t1": 1 - wet, "t1ce": 1 - wet, "t2": wet, "flair": wet}[modality]
        if part == 2 and modality == "flair":
            mix = draw.uniform(0, 1)  # fluid may be suppressed, protein is not
        if part == 3 and modality == "t1ce":
            mix = draw.uniform(0, 1)
        return low + (high - low) * min(max(0.6 * mix + 0.4 * draw.uniform(0, 1), 0), 1)


class _Shared:
    """Structures that show on several modalities at the same place."""

    def __init__(self, tissues: Tensor, mask: Tensor, spacing_mm: float, draw: Draw) -> None:
        shape = tuple(mask.shape)

        def smooth(scale: float) -> Tensor:
            return draw.smooth(shape, scale / spacing_mm)[0]

        inside = mask.float()[None]
        deep = box_mean(inside, 2 * round(12 / spacing_mm) + 1)[0]
        self.rim = torch.sigmoid((1 - box_mean(inside, 2 * round(3 / spacing_mm) + 1)[0] - 0.25) * 12) * mask
        ventricles = tissues[ANATOMY_CSF] * (deep > 0.995)
        self.ventricles = ventricles
        near = box_mean(ventricles[None], 2 * round(draw.uniform(2, 6) / spacing_mm) + 1)[0]
        caps = torch.sigmoid((smooth(12) - draw.uniform(-0.5, 1.5)) * 3)
        self.caps = (near * 2.5).clamp(0, 1) * tissues[ANATOMY_WM] * caps * draw.chance(0.6)
        spots = torch.sigmoid((smooth(draw.uniform(4, 7)) - draw.uniform(2.2, 3.5)) * 6)
        self.spots = spots * tissues[ANATOMY_WM] * draw.chance(0.5)
        self.vessels = torch.sigmoid((smooth(3.5) - draw.uniform(1.4, 2.4)) * 6) * (
            self.rim + 0.8 * tissues[ANATOMY_CSF] * (deep < 0.999)
        ).clamp(0, 1)
        middle = torch.arange(shape[2]) - (mask.any(0).any(0).nonzero().float().mean() + draw.normal(0, 1))
        falx = torch.exp(-((middle * spacing_mm) ** 2) / (2 * draw.uniform(0.7, 1.6) ** 2)).expand(shape)
        self.falx = falx * (tissues[ANATOMY_CSF] > 0.3) * (smooth(20) > -0.3)
        self.plexus = ventricles * torch.sigmoid((smooth(6) - draw.uniform(0.6, 1.6)) * 5)
        rows = mask.any(-1).any(-1).nonzero().flatten()
        low, high = (int(rows.min()), int(rows.max())) if len(rows) else (0, 1)
        height = (torch.arange(shape[0]) - low) / max(high - low, 1)
        back = torch.linspace(-1, 1, shape[1]).view(1, -1, 1)
        self.below = torch.sigmoid((0.33 - height.view(-1, 1, 1) - 0.1 * back) * 25).expand(shape)
        self.texture = smooth(5)
        self.regional = smooth(25)


def _tissue_image(
    name: str, tissues: Tensor, levels: _Levels, shared: _Shared, spacing_mm: float, draw: Draw
) -> Tensor:
    means = levels.tissue[name]
    shape = tuple(tissues.shape[1:])
    image = sum(mean * share for mean, share in zip(means, tissues, strict=True))
    if draw.chance(0.6):  # cerebellum and brain stem are a little brighter or darker
        image = image * (1 + draw.uniform(-0.15, 0.25) * shared.below)
    regional = draw.smooth(shape, 20 / spacing_mm)[0] * 0.5 + shared.regional * 0.5
    image = image * (1 + draw.uniform(0.01, 0.06) * regional * (tissues[ANATOMY_GM] + 0.4 * tissues[ANATOMY_WM]))
    return image + draw.uniform(0.0, 0.03) * shared.texture * (1 - tissues[ANATOMY_CSF])


def _with_distractors(name: str, image: Tensor, tissues: Tensor, shared: _Shared, draw: Draw) -> Tensor:
    """What looks like tumour on one modality and is none."""
    if name in ("t2", "flair"):
        strength = draw.uniform(0.1, 0.5)
        image = image + strength * shared.caps + draw.uniform(0.1, 0.5) * shared.spots
        if name == "flair" and draw.chance(0.4):  # pulsating fluid is not suppressed everywhere
            flow = torch.sigmoid((shared.regional - draw.uniform(0.5, 1.5)) * 4) * tissues[ANATOMY_CSF]
            image = image + draw.uniform(0.1, 0.6) * flow
    else:
        image = image - draw.uniform(0.0, 0.15) * (shared.caps + shared.spots)
    if name == "t1ce":
        image = image + draw.uniform(0.3, 1.2) * (draw.chance(0.7) * shared.plexus)
    return image


def _with_tumor(
    name: str, image: Tensor, tumor: Compartments, levels: _Levels, spacing_mm: float, draw: Draw
) -> Tensor:
    shape = tuple(image.shape)
    oedema, solid, necrosis, enhancing = levels.lesion[name]

    def texture(amplitude: float) -> Tensor:
        scale = draw.uniform(4, 12) / spacing_mm
        return 1 + draw.uniform(0.2, 1.0) * amplitude * draw.smooth(shape, scale)[0]

    share = tumor.oedema * draw.uniform(0.75, 1.0)
    image = image * (1 - share) + share * (oedema * texture(0.1) + 0.25 * (image - image.mean()))
    core = tumor.core
    inner = (core - tumor.enhancing - tumor.necrosis).clamp(0, 1)
    mixed = inner * solid * texture(0.12) + tumor.necrosis * necrosis * texture(0.15)
    mixed = mixed + tumor.enhancing * enhancing * texture(0.22)
    image = image * (1 - core) + mixed
    fluid = levels.tissue[name][0] * draw.uniform(0.9, 1.3)
    return image * (1 - tumor.cavity) + fluid * tumor.cavity


def _with_surface(name: str, image: Tensor, shared: _Shared, draw: Draw) -> Tensor:
    """Vessels, dura and what skull stripping left; they lie over everything else."""
    if name == "t1ce":
        image = image + draw.uniform(0.3, 1.3) * shared.vessels
        return image + (draw.uniform(0.2, 0.9) * shared.falx if draw.chance(0.7) else 0)
    if draw.chance(0.3):
        image = image + draw.uniform(-0.3, 0.3) * shared.vessels
    return image


def _acquired(image: Tensor, mask: Tensor, shape: tuple[int, int, int], spacing_mm: float, draw: Draw) -> Tensor:
    """Bias field, slice profile, noise and display gamma."""
    image = image * mask
    image = image * torch.exp(draw.uniform(0.0, 0.2) * draw.smooth(shape, draw.uniform(50, 90) / spacing_mm)[0])
    widths = [draw.uniform(0.0, 0.6)] * 3
    if draw.chance(0.5):
        widths[int(draw.uniform(0, 2.999))] = draw.uniform(0.5, 2.2)  # 2.35 times this is a slice's thickness in mm
    sigmas = (width / spacing_mm for width in widths)
    # Less than 0.2 voxels changes nothing.
    image = gaussian_smooth(image, [s if s >= 0.2 else 0.0 for s in sigmas], border="replicate", truncate=3)
    level = float(image[mask].mean()) if bool(mask.any()) else 1.0
    image = image + draw.uniform(0.0, 0.03) * level * draw.white(*shape)
    image = image.clamp_min(0)
    top = float(image.max()) + 1e-6
    return (image / top) ** math.exp(draw.uniform(-0.2, 0.2)) * top * mask
