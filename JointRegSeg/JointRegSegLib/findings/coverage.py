"""What the images of two visits do not show: left out of the registration, and told for every tumour region."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.compartments import title_of
from ..images.grid import WorkingGrid, to_native
from ..images.labels import LABELS
from ..images.modalities import TITLES
from ..images.preprocessing.prepared_study import PreparedStudy
from ..registration.deformation import Deformation, warp
from .region_volumes import VISIBLE_IN, VOLUME_REGIONS, enumerated
from .result import RegionCoverage

COMPLETE = 0.98
"""Share of the brain from which on an image counts as complete in warnings; the lowest slices are often missing."""
_DOUBTFUL = 0.5
"""Share of a given brain mask below which, if no image shows more of it, the mask is doubted."""
_NEAR_MM = 2.0
"""Distance from an unseen part of the brain at which a region touches it."""
LEAST_HIDDEN_ML = 0.5
"""Smallest part of the brain, in ml, that counts as hidden; the brains of two visits never agree to the voxel."""
_LEAST_ML = 0.02
"""Smallest volume of a region, in ml, that touches an unseen part or lies in it."""


def unseen_brain(study: PreparedStudy, modalities: Iterable[str], brain: Tensor) -> Tensor:
    """Return the brain (D, H, W), boolean, that no image of these modalities shows.

    Args:
        study: Study on the working grid.
        modalities: Modalities, of which the study may lack some.
        brain: Brain (D, H, W) as far as it is known, from this and other visits.
    """
    return (brain | study.extent) & ~study.shown(modalities)


def shares_seen(study: PreparedStudy, brain: Tensor) -> dict[str, float]:
    """Return the share of the brain, 0 to 1, that each image of a study shows.

    Args:
        study: Study on the working grid.
        brain: Brain (D, H, W) as far as it is known, from this and other visits.
    """
    total = max(int(brain.sum()), 1)
    return {m: round(int((study.shown([m]) & brain).sum()) / total, 4) for m in study.present}


def left_out(study: PreparedStudy, modalities: Sequence[str], brain: Tensor, tumor: Tensor | None) -> Tensor | None:
    """Return the voxels of a study that do not take part in its registration.

    Args:
        study: Study on the working grid.
        modalities: Modalities that drive the registration.
        brain: Brain (D, H, W) of both visits.
        tumor: Tumour (1, 1, D, H, W), boolean; None if it is not known.

    Returns:
        Voxels (1, 1, D, H, W) to leave out of all modalities, or (1, modality, D, H, W) if an image does not show the
        whole brain; boolean. None if there are none.
    """
    if not any(bool(unseen_brain(study, [m], brain).any()) for m in modalities):
        return tumor
    hidden = torch.stack([~study.shown([m]) for m in modalities])[None]
    if bool((hidden == hidden[:, :1]).all()):
        hidden = hidden[:, :1]
    return hidden if tumor is None else hidden | tumor


def shown_by_both(
    fixed: PreparedStudy, moving: PreparedStudy, modalities: Sequence[str], displacement: Tensor
) -> Tensor | None:
    """Return the voxels that both visits show in at least one modality.

    Args:
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid, after the affine alignment.
        modalities: Modalities that drove the registration.
        displacement: Displacement (1, 3, D, H, W) from the fixed to the moving study, in voxels.

    Returns:
        Voxels (1, 1, D, H, W), boolean; None if that is the whole brain of both.
    """
    brain = fixed.mask | moving.mask
    if not any(bool(unseen_brain(study, modalities, brain).any()) for study in (fixed, moving)):
        return None
    return (fixed.shown(modalities) & _moved(moving.shown(modalities), displacement))[None, None]


def shows_everything(study: PreparedStudy, other_brain: Tensor | None = None) -> bool:
    """Return whether every image of a study shows the whole brain, as far as that is known.

    Args:
        study: Study on the working grid.
        other_brain: Brain (D, H, W) of another visit on that grid; None for a single visit.
    """
    brain = study.extent if other_brain is None else study.extent | other_brain
    return all(_ml(brain & ~study.shown([m]), study) < LEAST_HIDDEN_ML for m in study.present)


def region_coverage(
    fixed: PreparedStudy,
    moving: PreparedStudy,
    labels: Mapping[str, Tensor | None],
    given: Mapping[str, bool],
    deformation: Deformation,
) -> dict[str, dict[str, RegionCoverage]]:
    """Find out which regions each visit shows only in part.

    A region is cut off in a visit if it touches the part of the brain that no image shows in which the region is
    visible, or if the other visit has it there.

    Args:
        fixed: Fixed study on the working grid.
        moving: Moving study on the same grid, after the affine alignment.
        labels: Classes (D, H, W) on the working grid of 'fixed' and 'moving'; None without a segmentation.
        given: Whether a study came with its segmentation; its regions can be visible in any of the images.
        deformation: Deformation from the fixed to the moving study on the grid.

    Returns:
        Coverage by study ('fixed', 'moving') and region of `VOLUME_REGIONS`.
    """
    there = deformation.displacement
    back = -there if deformation.inverse is None else deformation.inverse
    sides = (
        ("fixed", fixed, moving.mask, labels["moving"], there),
        ("moving", moving, fixed.mask, labels["fixed"], back),
    )
    return {
        name: _coverage(study, labels[name], given[name], other_brain, other_labels, displacement)
        for name, study, other_brain, other_labels, displacement in sides
    }


def single_coverage(study: PreparedStudy, labels: Tensor | None, given: bool = False) -> dict[str, RegionCoverage]:
    """Find out which regions a single visit shows only in part; see `region_coverage`."""
    return _coverage(study, labels, given)


def hidden_on(
    coverage: Mapping[str, RegionCoverage],
    grid: WorkingGrid,
    native: sitk.Image,
    to_grid: sitk.Transform | None,
    predicted: sitk.Image | None = None,
) -> dict[str, sitk.Image]:
    """Bring the hidden part of every region that has one to a native grid.

    A voxel of a compartment that its own modality shows is not hidden in the unions with that compartment either, so
    that the whole tumour contains the core that T1ce shows where FLAIR ends.

    Args:
        coverage: Coverage by region.
        grid: The working grid.
        native: Image that has the native grid.
        to_grid: Maps native points to points of the working grid (LPS mm); None for the identity.
        predicted: Classes (uint8) that a network predicted, on the native grid; None for given ones or none.

    Returns:
        Masks (uint8) by region.
    """
    brought: dict[int, sitk.Image] = {}
    found = {}
    for region, entry in coverage.items():
        if entry.hidden is not None:
            if id(entry.hidden) not in brought:
                brought[id(entry.hidden)] = to_native(entry.hidden.float(), grid, native, to_grid) >= 0.5
            found[region] = brought[id(entry.hidden)]
    if predicted is None:
        return found
    shown: dict[int, sitk.Image] = {}
    for number, name in enumerate(LABELS):
        if number and coverage[name].share > 0:
            shown[number] = predicted == number
            if name in found:
                shown[number] &= found[name] == 0
    for region in found:
        for number in set(VOLUME_REGIONS[region]) & set(shown):
            found[region] = found[region] & (shown[number] == 0)
    return found


def coverage_warnings(
    name: str,
    shares: Mapping[str, float],
    coverage: Mapping[str, RegionCoverage],
    segmented: bool,
    compared: bool = True,
    given_mask: str | None = None,
) -> list[str]:
    """Return sentences about images that do not show the whole brain, and about regions that are cut off.

    Args:
        name: Name of the study.
        shares: Share of the brain that each image shows, see `shares_seen`.
        coverage: Coverage by region.
        segmented: Whether the study has a segmentation.
        compared: Whether there is another visit, and so changes that are left out.
        given_mask: Brain mask that came with the study, as messages name it; None for an estimated one.
    """
    sentences = [
        f"the {TITLES[modality]} image of the {name} study shows {100 * share:.0f} % of the brain; the rest is unknown "
        f"and was left out{' (a predicted segmentation rests on the other images there)' if segmented else ''}"
        for modality, share in shares.items()
        if share < COMPLETE
    ]
    if given_mask is not None and max(shares.values(), default=1.0) < _DOUBTFUL:
        sentences.append(
            f"no image shows as much as half of {given_mask}: check that it is the brain mask of this visit"
        )
    cut = [title_of(region).lower() for region, entry in coverage.items() if entry.cut_off]
    if segmented and cut:
        sentences.append(
            f"the images of the {name} study may not show all of its {enumerated(cut)}: the volumes are at least those "
            f"given{', and changes are left out' if compared else ''}"
        )
    return sentences


def _coverage(
    study: PreparedStudy,
    labels: Tensor | None,
    given: bool,
    other_brain: Tensor | None = None,
    other_labels: Tensor | None = None,
    displacement: Tensor | None = None,
) -> dict[str, RegionCoverage]:
    """Coverage by region; the brain and labels of the other visit are brought here by a displacement."""
    brain = study.extent if other_brain is None else study.extent | other_brain
    if displacement is not None and other_brain is not None:
        if shows_everything(study, other_brain):
            displacement = None  # nothing is hidden, wherever exactly the other brain lies
        else:
            other_brain = _moved(other_brain, displacement)
            brain = study.extent | other_brain
    known = study.mask if other_brain is None else study.mask | other_brain
    hidden: dict[tuple[str, ...], tuple[Tensor, Tensor] | None] = {}
    found = {}
    for region, classes in VOLUME_REGIONS.items():
        modalities = study.present if given else tuple(m for m in VISIBLE_IN[region] if m in study.present)
        if not modalities:  # a guess, of which the checks warn
            found[region] = RegionCoverage(0.0)
            continue
        if modalities not in hidden:
            part = unseen_brain(study, modalities, brain)
            enough = _ml(part, study) >= LEAST_HIDDEN_ML
            hidden[modalities] = (part, _grown(part, _NEAR_MM / study.grid.spacing_mm)) if enough else None
        parts = hidden[modalities]
        if parts is None:
            found[region] = RegionCoverage()
            continue
        part, near = parts
        cut_off = labels is not None and _ml(_members(labels, classes) & near, study) >= _LEAST_ML
        if other_labels is not None and displacement is not None and not cut_off:
            cut_off = _ml(_moved(_members(other_labels, classes), displacement) & part, study) >= _LEAST_ML
        share = 1 - int((part & known).sum()) / max(int(known.sum()), 1)
        found[region] = RegionCoverage(round(share, 4), cut_off, part)
    return found


def _members(labels: Tensor, classes: Sequence[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(classes, dtype=labels.dtype))


def _moved(mask: Tensor, displacement: Tensor) -> Tensor:
    """Bring a mask (D, H, W) to the other visit."""
    return warp(mask[None, None].float(), displacement)[0, 0] >= 0.5


def _grown(mask: Tensor, voxels: float) -> Tensor:
    steps = max(1, math.ceil(voxels))
    return F.max_pool3d(mask[None, None].float(), 2 * steps + 1, 1, steps)[0, 0] > 0


def _ml(mask: Tensor, study: PreparedStudy) -> float:
    return int(mask.sum()) * study.voxel_ml
