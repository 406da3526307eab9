"""Few patients made into many: tumours of some patients in the brains of others, healed brains, other contrasts.

All functions work on studies whose images are normalised in the brain, and return new studies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys, settings_from_json
from NeuroCESTLib.core.smoothing import gaussian_smooth

from ..cohort.sample import StudySample
from ..images.labels import CLASSES
from .config import SpatialRanges
from .geometry import draw_geometry, moved
from .resection import resected

_SEAM_VOXELS = 1.0
"""Standard deviation of the transition between a transplanted tumour and the brain around it."""
_LEAST_SHARE = 0.03
"""A tumour is taken along with the brain around it in which its smoothed labels exceed this, about two voxels wide."""
_COUNTED_VOXELS = 10_000
"""Voxels, evenly spread over the brain, from which median and spread of normal tissue are taken."""


def _donor_geometry() -> SpatialRanges:
    return SpatialRanges(
        flip=(0.0, 0.2, 0.5),
        probability=1.0,
        rotation_deg=25.0,
        scaling=0.25,
        shear=0.05,
        translation_voxels=8.0,
        deformation_voxels=4.0,
    )


@dataclass(frozen=True)
class TransplantConfig:
    """How tumours are exchanged between the patients of a training.

    Attributes:
        healing_probability: Probability that a study loses its own tumour, which is covered by the mirrored other
            hemisphere. Where both hemispheres are affected, the tumour stays.
        probability: Probability that a study receives the tumour of another patient, in addition to what it has.
        contrast_probability: Probability that the compartments of the tumour change their intensities.
        contrast_sd: Standard deviation of the shift of each compartment on each modality, in standard deviations of the
            brain.
        texture: The deviations from the mean of the compartment are multiplied by exp(± this).
        resection_probability: Probability that a cavity takes the place of most of the core, see ``resection``; for
            networks with a class for it.
        geometry: Random geometric changes of the transplanted tumour.
    """

    healing_probability: float = 0.3
    probability: float = 0.5
    contrast_probability: float = 0.5
    contrast_sd: float = 0.4
    texture: float = 0.3
    resection_probability: float = 0.0
    geometry: SpatialRanges = field(default_factory=_donor_geometry)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name == "geometry":
                continue
            value = getattr(self, name)
            most = 1.0 if name.endswith("probability") else 10.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"{name} is {value!r} but must be a number from 0 to {most:g}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "transplants") -> TransplantConfig:
        """Build the settings from an object as read from JSON.

        Raises:
            ValueError: A key is unknown or a value cannot be used; the message begins with ``where``.
        """
        values = check_keys(values, list(cls.__dataclass_fields__), where)
        if "geometry" in values:
            values["geometry"] = settings_from_json(SpatialRanges, values["geometry"], f"{where}: geometry")
        return settings_from_json(cls, values, where)


class Transplanter:
    """Changes a study at random, with tumours from a list of donors."""

    def __init__(self, config: TransplantConfig, donors: Sequence[int]) -> None:
        """Set up.

        Args:
            config: Probabilities and ranges.
            donors: Numbers of the studies with a tumour.
        """
        self.config, self.donors = config, list(donors)

    def __call__(self, sample: StudySample, studies: Any, generator: torch.Generator) -> StudySample:
        """Change a study.

        Args:
            sample: Study with labels; one without is returned unchanged.
            studies: Source of the donors by their number.
            generator: Source of all random numbers.
        """
        config = self.config
        chance = torch.rand(3, generator=generator).tolist()
        if sample.labels is None:
            return sample
        if chance[0] < config.healing_probability:
            sample = healed(sample)
        if self.donors and chance[1] < config.probability:
            number = self.donors[int(torch.randint(len(self.donors), (1,), generator=generator))]
            donor = studies[number]
            if donor.shape == sample.shape:
                donor = moved(donor, (draw_geometry(config.geometry, donor.shape, generator),))
                sample = transplanted(sample, donor)
        if chance[2] < config.contrast_probability:
            sample = recolored(sample, config.contrast_sd, config.texture, generator)
        if config.resection_probability and float(torch.rand((), generator=generator)) < config.resection_probability:
            sample = resected(sample, generator)
        return sample


def transplanted(recipient: StudySample, donor: StudySample) -> StudySample:
    """Put the tumour of one study into another.

    The intensities of the donor are mapped so that the median and the spread of brain without tumour agree. What would
    lie outside the brain of the recipient is left out. Where normal brain of the donor covers a tumour that the
    recipient has, the labels are those of normal brain.

    A recipient with a modality that the donor lacks is returned unchanged, because that image would show no tumour.

    Args:
        recipient: Labelled study, which may have a tumour of its own.
        donor: Labelled study on a grid of the same size.
    """
    if recipient.labels is None or donor.labels is None:
        raise ValueError(f"'{recipient.name}' and '{donor.name}' need labels for a transplant")
    inside = recipient.mask & donor.mask
    tumor = (donor.labels > 0) & inside
    if not bool(tumor.any()) or bool((recipient.present & ~donor.present).any()):
        return recipient
    share = _soft(tumor) * inside
    images = recipient.images.clone()
    for channel in torch.nonzero(recipient.present)[:, 0].tolist():
        mapped = _mapped(donor, recipient, channel)
        images[channel] = images[channel] * (1 - share) + mapped * share
    labels = torch.where(tumor, donor.labels, recipient.labels.masked_fill(share > 0.5, 0))
    return replace(recipient, images=images, labels=labels, name=f"{recipient.name} with tumour of {donor.name}")


def healed(sample: StudySample) -> StudySample:
    """Cover the tumour of a study by the mirrored other hemisphere; unchanged where this one is affected as well.

    The brain is mirrored at the plane through its centre, across the last axis of the grid.
    """
    if sample.labels is None:
        raise ValueError(f"'{sample.name}' needs labels to be healed")
    tumor = sample.labels > 0
    if not bool(tumor.any()):
        return sample
    width = sample.shape[2]
    columns = torch.arange(width, device=sample.mask.device)
    per_column = sample.mask.sum((0, 1))
    twice_center = int((2 * (per_column * columns).sum() / per_column.sum().clamp(min=1)).round())
    opposite = twice_center - columns
    source = opposite.clamp(0, width - 1)
    beyond = (opposite < 0) | (opposite >= width)
    affected = tumor[:, :, source] & ~beyond
    share = _soft(tumor)
    covered = (share > 0.5) & sample.mask
    donated = sample.mask[:, :, source] & ~beyond & ~affected
    if float((covered & donated).sum()) < 0.95 * float(covered.sum()):
        return sample
    share = share * sample.mask * donated
    outside = sample.outside[:, None, None, None]
    mirrored = torch.where(beyond, outside, sample.images[:, :, :, source])
    images = torch.where(
        sample.present[:, None, None, None], sample.images * (1 - share) + mirrored * share, sample.images
    )
    return replace(sample, images=images, labels=torch.zeros_like(sample.labels), name=f"{sample.name} healed")


def recolored(sample: StudySample, shift_sd: float, texture: float, generator: torch.Generator) -> StudySample:
    """Change the intensities of each compartment of the tumour on each modality.

    Args:
        sample: Labelled study.
        shift_sd: Standard deviation of the shift, in standard deviations of the brain.
        texture: Deviations from the mean of a compartment are multiplied by exp(± this).
        generator: Source of the random numbers.
    """
    channels = len(sample.images)
    shifts = torch.randn(len(CLASSES), channels, generator=generator) * shift_sd
    factors = ((2 * torch.rand(len(CLASSES), channels, generator=generator) - 1) * texture).exp()
    if sample.labels is None:
        return sample
    images = sample.images.clone()
    present, spread = sample.present.tolist(), sample.spread.tolist()
    for value in range(1, len(CLASSES)):
        members = sample.labels == value
        if int(members.sum()) < 8:
            continue
        share = gaussian_smooth(members[None].float(), 0.6, border="zero", truncate=3)[0] * sample.mask
        for channel in range(channels):
            if present[channel]:
                image = sample.images[channel]
                mean = float(image[members].mean())
                shift = float(shifts[value, channel]) * spread[channel]
                change = (image - mean) * float(factors[value, channel] - 1) + shift
                images[channel] += share * change
    return replace(sample, images=images)


def _soft(tumor: Tensor) -> Tensor:
    """Share (D, H, W) of the tumour in each voxel: 1 within it, and falling to 0 beyond a margin around it."""
    wide = (gaussian_smooth(tumor[None].float(), _SEAM_VOXELS, border="zero", truncate=2) > _LEAST_SHARE).float()
    return torch.maximum(gaussian_smooth(wide, _SEAM_VOXELS, border="zero", truncate=2)[0], tumor.float())


def _mapped(donor: StudySample, recipient: StudySample, channel: int) -> Tensor:
    """Image (D, H, W) of the donor with the median and the spread of the recipient in brain without tumour."""
    (low, spread), (target, wanted) = (_normal_tissue(sample, channel) for sample in (donor, recipient))
    return (donor.images[channel] - low) * (wanted / max(spread, 1e-6)) + target


def _normal_tissue(sample: StudySample, channel: int) -> tuple[float, float]:
    """Median and interquartile range of an image in brain without tumour."""
    normal = sample.mask if sample.labels is None else sample.mask & (sample.labels == 0)
    values = sample.images[channel][normal]
    if not len(values):
        return 0.0, 1.0
    values = values[:: max(1, len(values) // _COUNTED_VOXELS)]
    first, median, last = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75])).tolist()
    return median, last - first
