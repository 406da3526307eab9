"""Whether a network's single compartments can be believed: signs that need no truth.

The whole tumour may be right where one compartment is missed or invented. Four signs tell, each on its own:

- the overlap that the network's own probabilities let expect of a compartment, ``2 sum(p m) / (sum(p) + sum(m))`` for
  its probabilities p and its mask m (1 where it is certain everywhere);
- how much brighter than on T1 the enhancing tumour is on T1 with contrast agent, compared with healthy brain;
- the volume in and around the tumour that enhances in this sense and is not called enhancing;
- the volume that would enhance if T1 and T1 with contrast agent were exchanged.

The images are compared on voxels of about 2 mm, as the bundled network sees them. The limits were chosen on one half of
78 visits of known truth and judged on the other half; the page on the method has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.labels import CAVITY, ENHANCING, LABELS, classes_of_probabilities
from ..images.modalities import MODALITIES
from ..images.normalization import robust_center_and_deviation
from ..images.preprocessing.prepared_study import PreparedStudy
from .verdict import CHECK, Sign

NAMES = {1: "necrotic core", 2: "oedema", 3: "enhancing tumour", 4: "resection cavity"}
"""Name of each compartment in sentences."""
LEAST_ML = 1.0
"""Volume of a compartment, called or expected, from which on it is judged."""
LEAST_OVERLAP = {1: 0.68, 2: 0.6, 3: 0.55, 4: 0.6}
"""Expected overlap with the truth below which each compartment should be checked."""
LEAST_ENHANCEMENT = 2.0
"""Mean enhancement, in robust standard deviations of healthy brain, below which enhancing tumour should be checked."""
ENHANCES = 2.5
"""Enhancement of a voxel, in the same unit, from which on it should be called enhancing."""
LEAST_EMPTY_ML = 3.0
"""Expected volume from which on a compartment should be checked of which no voxel was found."""
MISSED_SHARE = 1.2
"""Volume that enhances and is not called so, relative to what is, from which on enhancing tumour should be checked."""
EXCHANGED_SHARE = 3.0
"""Volume that would enhance if T1 and T1 with contrast agent were exchanged, relative to what enhances, from which on
these images should be checked."""
_SPACING_MM = 2.0
_AROUND = 3
"""Distance from the tumour, in voxels of 2 mm, within which brain is not taken for healthy."""
_FEWEST_HEALTHY = 500
_SAMPLES = 50_000


@dataclass(frozen=True)
class CompartmentQuality:
    """Signs of one compartment of a predicted segmentation.

    Attributes:
        number: Number of its class.
        volume_ml: Volume of the voxels that are called so.
        probable_ml: Sum of its probabilities.
        expected_overlap: Dice coefficient with the truth that the probabilities let expect.
        enhancement: Mean enhancement of the enhancing tumour in robust standard deviations of healthy brain; None for
            other compartments, and without both T1 and T1 with contrast agent.
        enhances_ml: Volume in and around the tumour that enhances; None likewise.
        missed_ml: Volume there that enhances and is not called so; None likewise.
        bright_on_t1_ml: Volume there that would enhance if the two images were exchanged; None likewise.
    """

    number: int
    volume_ml: float
    probable_ml: float
    expected_overlap: float
    enhancement: float | None = None
    enhances_ml: float | None = None
    missed_ml: float | None = None
    bright_on_t1_ml: float | None = None

    def signs(self, study: str) -> Iterator[Sign]:
        """Return the level and the reason of everything that speaks against the compartment of a study."""
        if self.volume_ml == 0:
            if self.probable_ml >= LEAST_EMPTY_ML and self.number != CAVITY:  # most patients have none
                yield (
                    CHECK,
                    f"the network found no {NAMES[self.number]} in the {study} study, but by its own probabilities "
                    f"{self.probable_ml:.1f} ml of it are to be expected: look at the images",
                )
        elif max(self.volume_ml, self.probable_ml) >= LEAST_ML and self.expected_overlap < LEAST_OVERLAP[self.number]:
            yield (
                CHECK,
                f"the network is unsure of the {NAMES[self.number]} of the {study} study: it calls "
                f"{self.volume_ml:.1f} ml so, and by its own probabilities they overlap with the truth by "
                f"{self.expected_overlap:.2f} (Dice)",
            )
        if self.enhancement is not None and self.volume_ml >= LEAST_ML and self.enhancement < LEAST_ENHANCEMENT:
            yield (
                CHECK,
                f"the enhancing tumour of the {study} study ({self.volume_ml:.1f} ml) is hardly brighter on T1ce than "
                "on T1",
            )
        if self.missed_ml is not None and self.missed_ml >= max(LEAST_ML, MISSED_SHARE * self.volume_ml):
            yield (
                CHECK,
                f"in and around the tumour of the {study} study {self.missed_ml:.1f} ml are bright on T1ce and not "
                f"called enhancing tumour ({self.volume_ml:.1f} ml are)",
            )
        if self.bright_on_t1_ml is not None and self.bright_on_t1_ml >= max(
            LEAST_ML, EXCHANGED_SHARE * (self.enhances_ml or 0)
        ):
            yield (
                CHECK,
                f"in and around the tumour of the {study} study {self.bright_on_t1_ml:.1f} ml are brighter on T1 than "
                "on T1ce lets expect: check whether the two images were exchanged (blood and bias fields can look like "
                "it)",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``report.json``."""
        values = asdict(self)
        values.pop("number")
        return {name: None if value is None else round(value, 3) for name, value in values.items()}


def compartment_qualities(study: PreparedStudy, probabilities: Tensor) -> dict[str, CompartmentQuality]:
    """Measure the signs of every compartment that a network predicted.

    Args:
        study: Study on the working grid.
        probabilities: Class probabilities (class, D, H, W) on that grid.

    Returns:
        Signs by the compartment's name in ``images.labels.LABELS``.
    """
    classes = classes_of_probabilities(probabilities)
    voxel_ml = study.voxel_ml
    images_say = _enhancement(study, classes)
    found = {}
    for number in range(1, len(probabilities)):
        mask, share = classes == number, probabilities[number]
        voxels, probable = float(mask.sum()), float(share.double().sum())
        found[LABELS[number]] = CompartmentQuality(
            number,
            voxels * voxel_ml,
            probable * voxel_ml,
            2 * float(share[mask].double().sum()) / max(voxels + probable, 1e-6),
            *(images_say if number == ENHANCING else ()),
        )
    return found


def _enhancement(study: PreparedStudy, classes: Tensor) -> tuple[float | None, ...]:
    """Enhancement and the three volumes in ml that `CompartmentQuality` lists after it."""
    tumor = classes > 0
    if not {"t1", "t1ce"} <= set(study.present) or not bool(tumor.any()):
        return ()
    factor = max(1, round(_SPACING_MM / study.grid.spacing_mm))
    channels = [MODALITIES.index(m) for m in ("t1", "t1ce")]
    shown = study.shown(["t1"]) & study.shown(["t1ce"]) & study.mask

    def pooled(values: Tensor) -> Tensor:
        return F.avg_pool3d(values.float()[None], factor)[0]

    brain = pooled(shown[None])[0] > 0.99
    t1, t1ce = pooled(study.images[channels])
    called = pooled((classes == ENHANCING)[None])[0] >= 0.5
    where = pooled(tumor[None])[0] >= 0.5
    healthy = torch.nonzero((brain & ~_grown(where, _AROUND)).flatten()).flatten()
    if len(healthy) < _FEWEST_HEALTHY:
        return ()
    healthy = healthy[:: max(1, len(healthy) // _SAMPLES)]
    plain, contrast = (_standardized(image, image.flatten()[healthy]) for image in (t1, t1ce))
    gain = _gain(contrast, plain, healthy)
    near = brain & _grown(pooled(((classes > 0) & (classes != CAVITY))[None])[0] >= 0.5, 1)
    near &= pooled((classes == CAVITY)[None])[0] < 0.5  # where blood is bright on both
    bright = near & (gain > ENHANCES) & (contrast > 1)
    reverse = near & (_gain(plain, contrast, healthy) > ENHANCES) & (plain > 1)
    voxel_ml = factor**3 * study.voxel_ml
    mean = float(gain[called & brain].mean()) if bool((called & brain).any()) else None
    return mean, *(float(part.sum()) * voxel_ml for part in (bright, bright & ~called, reverse))


def _gain(image: Tensor, other: Tensor, healthy: Tensor) -> Tensor:
    """Image (D, H, W) beyond what another one lets expect, in robust standard deviations of the healthy voxels."""
    x, y = other.flatten()[healthy], image.flatten()[healthy]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp_min(1e-6)
    gain = image - slope * other
    return _standardized(gain, gain.flatten()[healthy])


def _standardized(image: Tensor, sample: Tensor) -> Tensor:
    """Image (D, H, W) relative to the median of a sample (value), in its robust standard deviations."""
    center, deviation = robust_center_and_deviation(sample)
    return (image - center) / deviation


def _grown(mask: Tensor, voxels: int) -> Tensor:
    """Mask (D, H, W) with a margin of some voxels."""
    grown = mask[None].float()
    for axis in range(3):  # one axis after the other takes a fraction of the time
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 2 * voxels + 1, voxels
        grown = F.max_pool3d(grown, size, 1, pad)
    return grown[0] > 0
