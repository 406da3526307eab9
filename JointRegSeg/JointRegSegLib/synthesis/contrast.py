"""Appearance of tissues and tumours on T1, contrast-enhanced T1, T2 and FLAIR: means, texture, artefacts, acquisition.

Intensities are in arbitrary units in which white matter on T1 is about 0.85; all means vary from patient to patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..images.modalities import MODALITIES
from .random_fields import Draw, box_mean, grid_of
from .surgery import Surgery
from .templates import CSF, GM, WM
from .tumor import SURGERY, TumorFields

_TISSUE = {
    "t1": ((0.28, 0.06), (0.65, 0.06), (0.83, 0.05)),
    "t1ce": ((0.28, 0.06), (0.67, 0.06), (0.80, 0.06)),
    "t2": ((1.05, 0.12), (0.50, 0.05), (0.38, 0.05)),
    "flair": ((0.20, 0.08), (0.55, 0.05), (0.47, 0.05)),
}
"""Mean and standard deviation between patients of CSF, grey and white matter."""
_LESION = {
    "t1": ((0.48, 0.78), (0.42, 0.78), (0.25, 0.68), (0.48, 0.88)),
    "t1ce": ((0.48, 0.76), (0.42, 0.75), (0.22, 0.66), (0.95, 1.90)),
    "t2": ((0.50, 0.95), (0.55, 1.15), (0.60, 1.30), (0.48, 0.95)),
    "flair": ((0.54, 1.15), (0.52, 1.25), (0.20, 1.20), (0.52, 1.15)),
}
"""Range of the mean of oedema, non-enhancing tumour, necrosis and enhancing tumour."""
_NECROSIS, _ENHANCING = 2, 3
_FLOW = 3
"""Purpose of random numbers, see ``Draw.aside``."""
_SMALLEST_SIGMA = 0.2
"""A Gaussian narrower than this, in voxels, is left out, because it would change nothing."""


def random_images(
    tissues: Tensor,
    tumor: TumorFields,
    mask: Tensor,
    spacing_mm: float,
    draw: Draw,
    modalities: Sequence[str] = MODALITIES,
) -> Tensor:
    """Make the images of a head with a tumour.

    Args:
        tissues: Probabilities (3, D, H, W) of CSF, grey and white matter.
        tumor: Parts of the tumour on the same grid.
        mask: Brain (D, H, W) bool.
        spacing_mm: Voxel size in mm.
        draw: Source of the random numbers.
        modalities: Channels, in this order.

    Returns:
        Images (C, D, H, W), zero outside the mask.
    """
    levels = _Levels(draw)
    surgery = Surgery(draw.aside(SURGERY)) if bool((tumor.cavity > 0.5).any()) else None
    structures = _Structures(tissues, mask, spacing_mm, draw)
    images = []
    for name in modalities:
        image = _tissue_image(name, tissues, levels, structures, spacing_mm, draw)
        image = _with_distractors(name, image, tissues, structures, draw)
        image = _with_tumor(name, image, tumor, levels, spacing_mm, draw)
        if surgery is not None:
            image = surgery.added(name, image, tumor.cavity, spacing_mm)
        image = _with_surface(name, image, structures, draw)
        images.append(_acquired(image, mask, spacing_mm, draw))
    return torch.stack(images)


class _Levels:
    """Mean intensities of one patient; what looks like fluid on one modality does so on the others.

    Attributes:
        tissue: Means of CSF, grey and white matter by modality.
        lesion: Means of oedema, non-enhancing tumour, necrosis and enhancing tumour by modality.
    """

    def __init__(self, draw: Draw) -> None:
        self._wetness = [draw.uniform(0, 1) for _ in range(4)]
        self.tissue = {m: [draw.normal(*v) for v in _TISSUE[m]] for m in MODALITIES}
        self.lesion = {m: [self._mean(m, part, draw) for part in range(4)] for m in MODALITIES}
        if draw.chance(0.3):  # hardly any uptake of contrast agent
            self.lesion["t1ce"][_ENHANCING] = draw.uniform(0.8, 1.05)

    def _mean(self, modality: str, part: int, draw: Draw) -> float:
        low, high = _LESION[modality][part]
        wet = self._wetness[part]
        mix = wet if modality in ("t2", "flair") else 1 - wet
        if part == _NECROSIS and modality == "flair":
            mix = draw.uniform(0, 1)  # fluid may be suppressed, protein is not
        if part == _ENHANCING and modality == "t1ce":
            mix = draw.uniform(0, 1)
        return low + (high - low) * min(max(0.6 * mix + 0.4 * draw.uniform(0, 1), 0), 1)


class _Structures:
    """Structures of one visit that show at the same place on several modalities; fields (D, H, W) from 0 to 1.

    Attributes:
        rim: Surface of the brain.
        caps: Bright white matter around the ventricles.
        spots: White-matter lesions.
        vessels: Vessels at the surface and in CSF.
        falx: Dura between the hemispheres.
        plexus: Choroid plexus in the ventricles.
        below: Cerebellum and brain stem.
        texture: Fine texture of unit standard deviation.
        regional: Coarse texture of unit standard deviation.
    """

    def __init__(self, tissues: Tensor, mask: Tensor, spacing_mm: float, draw: Draw) -> None:
        shape = grid_of(mask)

        def smooth(scale_mm: float) -> Tensor:
            return draw.smooth(shape, scale_mm / spacing_mm)[0]

        inside = mask.float()[None]
        deep = box_mean(inside, 2 * round(12 / spacing_mm) + 1)[0]
        self.rim = torch.sigmoid((1 - box_mean(inside, 2 * round(3 / spacing_mm) + 1)[0] - 0.25) * 12) * mask
        ventricles = tissues[CSF] * (deep > 0.995)
        near = box_mean(ventricles[None], 2 * round(draw.uniform(2, 6) / spacing_mm) + 1)[0]
        caps = torch.sigmoid((smooth(12) - draw.uniform(-0.5, 1.5)) * 3)
        self.caps = (near * 2.5).clamp(0, 1) * tissues[WM] * caps * draw.chance(0.6)
        spots = torch.sigmoid((smooth(draw.uniform(4, 7)) - draw.uniform(2.2, 3.5)) * 6)
        self.spots = spots * tissues[WM] * draw.chance(0.5)
        self.vessels = torch.sigmoid((smooth(3.5) - draw.uniform(1.4, 2.4)) * 6) * (
            self.rim + 0.8 * tissues[CSF] * (deep < 0.999)
        ).clamp(0, 1)
        from_midline = torch.arange(shape[2]) - (mask.any(0).any(0).nonzero().float().mean() + draw.normal(0, 1))
        falx = torch.exp(-((from_midline * spacing_mm) ** 2) / (2 * draw.uniform(0.7, 1.6) ** 2)).expand(shape)
        self.falx = falx * (tissues[CSF] > 0.3) * (smooth(20) > -0.3)
        self.plexus = ventricles * torch.sigmoid((smooth(6) - draw.uniform(0.6, 1.6)) * 5)
        self.below = _below(mask)
        self.texture = smooth(5)
        self.regional = smooth(25)


def _below(mask: Tensor) -> Tensor:
    """Lower part of the brain, which reaches further up at its back (D, H, W)."""
    shape = grid_of(mask)
    rows = mask.any(-1).any(-1).nonzero().flatten()
    low, high = (int(rows.min()), int(rows.max())) if len(rows) else (0, 1)
    height = (torch.arange(shape[0]) - low) / max(high - low, 1)
    back = torch.linspace(-1, 1, shape[1]).view(1, -1, 1)
    return torch.sigmoid((0.33 - height.view(-1, 1, 1) - 0.1 * back) * 25).expand(shape)


def _tissue_image(
    name: str, tissues: Tensor, levels: _Levels, structures: _Structures, spacing_mm: float, draw: Draw
) -> Tensor:
    """The healthy brain with its texture."""
    csf, gm, wm = levels.tissue[name]
    image = csf * tissues[CSF] + gm * tissues[GM] + wm * tissues[WM]
    if draw.chance(0.6):  # cerebellum and brain stem are a little brighter or darker
        image = image * (1 + draw.uniform(-0.15, 0.25) * structures.below)
    regional = draw.smooth(grid_of(tissues), 20 / spacing_mm)[0] * 0.5 + structures.regional * 0.5
    image = image * (1 + draw.uniform(0.01, 0.06) * regional * (tissues[GM] + 0.4 * tissues[WM]))
    return image + draw.uniform(0.0, 0.03) * structures.texture * (1 - tissues[CSF])


def _with_distractors(name: str, image: Tensor, tissues: Tensor, structures: _Structures, draw: Draw) -> Tensor:
    """Add what looks like tumour on one modality but is none."""
    if name in ("t2", "flair"):
        strength = draw.uniform(0.1, 0.5)
        image = image + strength * structures.caps + draw.uniform(0.1, 0.5) * structures.spots
        if name == "flair" and draw.chance(0.4):  # pulsating fluid is not suppressed everywhere
            flow = torch.sigmoid((structures.regional - draw.uniform(0.5, 1.5)) * 4) * tissues[CSF]
            image = image + draw.uniform(0.1, 0.6) * flow
    else:
        image = image - draw.uniform(0.0, 0.15) * (structures.caps + structures.spots)
    if name == "t1ce":
        image = image + draw.uniform(0.3, 1.2) * (draw.chance(0.7) * structures.plexus)
    return image


def _with_tumor(name: str, image: Tensor, tumor: TumorFields, levels: _Levels, spacing_mm: float, draw: Draw) -> Tensor:
    """Add the parts of the tumour, each with its texture, and the resection cavity."""
    edema, solid, necrosis, enhancing = levels.lesion[name]

    def texture(amplitude: float) -> Tensor:
        scale = draw.uniform(4, 12) / spacing_mm
        return 1 + draw.uniform(0.2, 1.0) * amplitude * draw.smooth(grid_of(image), scale)[0]

    share = tumor.edema * draw.uniform(0.75, 1.0)
    image = image * (1 - share) + share * (edema * texture(0.1) + 0.25 * (image - image.mean()))
    core = tumor.core
    inner = (core - tumor.enhancing - tumor.necrosis).clamp(0, 1)
    mixed = inner * solid * texture(0.18) + tumor.necrosis * necrosis * texture(0.22)
    mixed = mixed + tumor.enhancing * enhancing * texture(0.22)
    image = image * (1 - core) + mixed
    fluid = levels.tissue[name][CSF] * draw.uniform(0.9, 1.3)
    return image * (1 - tumor.cavity) + fluid * tumor.cavity


def _with_surface(name: str, image: Tensor, structures: _Structures, draw: Draw) -> Tensor:
    """Add vessels, and dura that skull stripping left; they lie over everything else."""
    if name == "t1ce":
        image = image + draw.uniform(0.3, 2.0) * structures.vessels
        return image + (draw.uniform(0.2, 0.9) * structures.falx if draw.chance(0.7) else 0)
    if draw.chance(0.3):
        image = image + draw.uniform(-0.3, 0.3) * structures.vessels
    if name == "t2":  # flowing blood gives no signal, and the surface of the brain mixes with bone
        more = draw.aside(_FLOW)
        image = image * (1 - more.uniform(0, 0.9) * structures.vessels) * (1 - more.uniform(0, 0.6) * structures.rim)
    return image


def _acquired(image: Tensor, mask: Tensor, spacing_mm: float, draw: Draw) -> Tensor:
    """Apply bias field, slice profile, noise and a display gamma."""
    image = image * mask
    shape = grid_of(image)
    image = image * torch.exp(draw.uniform(0.0, 0.2) * draw.smooth(shape, draw.uniform(50, 90) / spacing_mm)[0])
    widths_mm = [draw.uniform(0.0, 0.6)] * 3
    if draw.chance(0.5):
        widths_mm[int(draw.uniform(0, 2.999))] = draw.uniform(0.5, 2.2)  # a slice is 2.35 times as thick
    sigmas = [width / spacing_mm for width in widths_mm]
    sigmas = [sigma if sigma >= _SMALLEST_SIGMA else 0.0 for sigma in sigmas]
    image = gaussian_smooth(image, sigmas, border="replicate", truncate=3)
    level = float(image[mask].mean()) if bool(mask.any()) else 1.0
    image = image + draw.uniform(0.0, 0.03) * level * draw.white(*shape)
    image = image.clamp_min(0)
    top = float(image.max()) + 1e-6
    return (image / top) ** math.exp(draw.uniform(-0.2, 0.2)) * top * mask
