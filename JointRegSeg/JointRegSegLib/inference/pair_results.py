"""Results of a run on two visits: transforms, warped images and volumes on the native grids."""

from __future__ import annotations

from collections.abc import Mapping

import SimpleITK as sitk
from torch import Tensor

from NeuroCESTLib.core.progress import Progress

from ..findings.coverage import (
    coverage_warnings,
    hidden_on,
    region_coverage,
    shares_seen,
    shown_by_both,
    shows_everything,
)
from ..findings.lesion_status import lesion_warnings
from ..findings.lesions import exchanged, lesion_changes
from ..findings.region_volumes import missing_compartments, region_volumes, unlike_regions, volume_changes
from ..findings.result import JointResult, LesionChange, RegionVolume
from ..images.preprocessing.resampling import labels_on_grid
from ..registration.deformation import Deformation
from ..registration.native_warp import NativeWarp
from ..registration.transforms import PairTransform, jacobian_image, pair_transform
from .checks import CheckedPair
from .coregistration import corrections
from .native import NativeSegmentation, on_native_grid
from .pair_preparation import PreparedPair
from .pair_refinement import refinement_settings
from .settings import InferenceSettings
from .summary import OfBoth, registration_summary


def pair_results(
    pair: CheckedPair,
    prepared: PreparedPair,
    segmented: tuple[NativeSegmentation, NativeSegmentation],
    tumors: OfBoth,
    deformation: Deformation,
    settings: InferenceSettings,
    progress: Progress,
) -> JointResult:
    """Everything that is known of the two visits, on their native grids, without verdicts."""
    progress(0.0, "bringing the results to the native grids")
    grid, affine = prepared.grid, prepared.alignment.transform
    transform = pair_transform(deformation, grid, affine)
    fixed, moving = segmented
    progress(0.3, "warping the moving images")
    native, moving_images = pair.fixed.study.reference, pair.moving.study.images
    warp = NativeWarp(native, transform)
    warped = warp.images({m: moving_images[m] for m in pair.moving.study.present})
    warped_labels: sitk.Image | None = None
    if moving.measured is not None:
        warped_labels = warp.labels(moving.measured)
    jacobian = jacobian_image(transform, native)
    progress(0.8, "measuring volumes")
    volumes, coverage, hidden, notes = _measured(pair, prepared, {"fixed": fixed, "moving": moving}, deformation)
    for study, other in (("fixed", "moving"), ("moving", "fixed")):
        notes += missing_compartments(study, volumes[study], volumes[other])
    changes = volume_changes(volumes["fixed"], volumes["moving"], fixed.labels, warped_labels, jacobian)
    lesions, of_lesions = _lesions(pair, segmented, volumes, hidden, transform, settings.moving_is_earlier)
    refined = settings.refine_iterations != 0
    similarity = refinement_settings(settings, grid.spacing_mm).similarity if refined else None
    summary = registration_summary(
        prepared.fixed,
        prepared.moving,
        deformation,
        transform,
        prepared.alignment,
        pair.driving,
        tumors[0],
        shown_by_both(prepared.fixed, prepared.moving, pair.driving, deformation.displacement),
    )
    probabilities = {"fixed": fixed.probabilities, "moving": moving.probabilities}
    return JointResult(
        fixed_labels=fixed.labels,
        moving_labels=moving.labels,
        fixed_uncertainty=fixed.uncertainty,
        moving_uncertainty=moving.uncertainty,
        fixed_mask=on_native_grid(pair.fixed.brain, native),
        moving_mask=on_native_grid(pair.moving.brain, pair.moving.study.reference),
        moving_to_fixed=transform.moving_to_fixed,
        fixed_to_moving=transform.fixed_to_moving,
        affine=affine,
        warped=warped,
        warped_labels=warped_labels,
        jacobian=jacobian,
        volumes=volumes["fixed"] + volumes["moving"],
        changes=changes,
        lesions=lesions,
        summary={
            **summary,
            "registration_modalities": list(pair.driving),
            "similarity": similarity,
            "brain_shown": coverage,
            "coregistration": {
                role: {modality: entry.to_dict() for modality, entry in checked.positions.items()}
                for role, checked in (("fixed", pair.fixed), ("moving", pair.moving))
            },
        },
        warnings=(*pair.warnings, *notes, *of_lesions),
        probabilities={study: images for study, images in probabilities.items() if images},
        positioned={"fixed": pair.fixed.study, "moving": pair.moving.study},
        positions={"fixed": corrections(pair.fixed.positions), "moving": corrections(pair.moving.positions)},
    )


def _lesions(
    pair: CheckedPair,
    segmented: tuple[NativeSegmentation, NativeSegmentation],
    volumes: Mapping[str, tuple[RegionVolume, ...]],
    hidden: Mapping[str, Mapping[str, sitk.Image]],
    transform: PairTransform,
    moving_is_earlier: bool,
) -> tuple[tuple[LesionChange, ...], tuple[str, ...]]:
    """Lesions with what became of them in the order of time, and warnings about them."""
    order = [("fixed", pair.fixed, segmented[0].measured), ("moving", pair.moving, segmented[1].measured)]
    maps = [transform.moving_to_fixed, transform.fixed_to_moving]
    if moving_is_earlier:
        order, maps = order[::-1], maps[::-1]
    (first, earlier, before), (second, later, after) = order
    lesions = lesion_changes(
        before,
        after,
        maps[0],
        maps[1],
        pair.guessed | unlike_regions(volumes["fixed"], volumes["moving"]),
        (hidden[first], hidden[second]),
        (earlier.brain, later.brain),
        (earlier.given_labels is not None, later.given_labels is not None),
        (
            {row.region for row in volumes[first] if row.at_least},
            {row.region for row in volumes[second] if row.at_least},
        ),
    )
    warnings = lesion_warnings(lesions, moving_is_earlier)
    return exchanged(lesions, transform.fixed_to_moving) if moving_is_earlier else lesions, warnings


def _measured(
    pair: CheckedPair, prepared: PreparedPair, found: Mapping[str, NativeSegmentation], deformation: Deformation
) -> tuple[
    dict[str, tuple[RegionVolume, ...]], dict[str, dict[str, float]], dict[str, dict[str, sitk.Image]], list[str]
]:
    """Volumes, shares of the brain that each image shows, and what is hidden, by study; warnings about the latter."""
    brain = prepared.fixed.mask | prepared.moving.mask
    sides = {"fixed": (pair.fixed, prepared.fixed, None), "moving": (pair.moving, prepared.moving, prepared.alignment)}
    shares = {role: shares_seen(study, brain) for role, (_, study, _) in sides.items()}
    labels: dict[str, Tensor | None] = {"fixed": None, "moving": None}
    complete = all(shows_everything(study, brain) for study in (prepared.fixed, prepared.moving))
    for role, (_, study, _) in sides.items():
        native = found[role].measured
        if native is not None and not complete:  # where nothing is hidden, no region can be cut off
            labels[role] = labels_on_grid(native, study.grid, study.transform)
    given = {role: checked.given_labels is not None for role, (checked, _, _) in sides.items()}
    coverage = region_coverage(prepared.fixed, prepared.moving, labels, given, deformation)
    volumes: dict[str, tuple[RegionVolume, ...]] = {}
    unseen: dict[str, dict[str, sitk.Image]] = {"fixed": {}, "moving": {}}
    notes: list[str] = []
    for role, (checked, _, alignment) in sides.items():
        native = found[role].measured
        if native is None:
            volumes[role] = ()
        else:
            to_grid = None if alignment is None else alignment.transform.GetInverse()
            predicted = None if given[role] else native
            unseen[role] = hidden_on(coverage[role], prepared.grid, checked.brain, to_grid, predicted)
            side = found[role]
            guessed = {} if given[role] else unseen[role]
            known = checked.study.given_compartments
            volumes[role] = region_volumes(native, role, side.counts, coverage[role], guessed, side.uncertain_ml, known)
        notes += found[role].notes(checked)
        visit = checked.study
        notes += coverage_warnings(
            visit.name, shares[role], coverage[role], native is not None, given_mask=visit.mask_title
        )
    return volumes, shares, unseen, notes
