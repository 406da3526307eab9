"""The cases of a cohort, and what the evaluation of one case gives."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import SimpleITK as sitk

from NeuroCESTLib.core.messages.input_errors import naming
from NeuroCESTLib.core.progress import Progress

from ..cohort.preparation import read_study
from ..cohort.studies import Cohort, StudyRecord
from ..findings.result import JointResult
from ..images.labels import REGIONS
from ..images.modalities import TITLES
from ..images.study import TUMOR, StudyImages, same_grid
from ..inference.coregistration import mask_doubts, moved_with_its_image
from ..inference.pipeline import process_pair
from ..inference.settings import InferenceSettings
from ..inference.single_study import process_study
from ..metrics.landmarks import Landmarks, landmark_errors, points_outside, read_landmarks
from ..network.weights import LoadedWeights
from ..pictures.cases import CasePicture
from ..registration.transforms import warp_label_image
from .picture import pair_picture, study_picture
from .scores import landmark_scores, map_scores, segmentation_scores, warp_scores

_IMPLAUSIBLE_MM = 20.0
"""Median error of landmarks after a registration from which on the points of the two files are hardly the same."""
_VERDICTS = ("registration_verdict", "segmentation_verdict")
Row = dict[str, Any]
"""Numbers and names of one case by column; columns without a value are left out."""


@dataclass(frozen=True)
class Case:
    """Two visits of a subject, or its single visit.

    Attributes:
        fixed: The first visit.
        moving: A later visit; None for a subject with one visit.
    """

    fixed: StudyRecord
    moving: StudyRecord | None = None

    @property
    def name(self) -> str:
        """Subject and visits, for messages and file names."""
        parts = [self.fixed.subject, self.fixed.visit, self.moving.visit if self.moving is not None else ""]
        return " ".join(part for part in parts if part)

    @property
    def identity(self) -> Row:
        """The columns that say which case a row belongs to."""
        return {
            "case": self.name,
            "subject": self.fixed.subject,
            "fixed_visit": self.fixed.visit,
            "moving_visit": self.moving.visit if self.moving is not None else "",
        }


def cases_of(cohort: Cohort) -> list[Case]:
    """List the cases of a cohort.

    Args:
        cohort: Studies to evaluate.

    Returns:
        A case for every later visit, with the subject's first visit as the fixed study, and a case of its own for each
        subject with a single visit.
    """
    cases = []
    for visits in cohort.visits().values():
        cases += [Case(visits[0], later) for later in visits[1:]] or [Case(visits[0])]
    return cases


def evaluate_case(
    case: Case,
    weights: LoadedWeights | None,
    settings: InferenceSettings | None = None,
    progress: Progress | None = None,
    with_picture: bool = True,
) -> tuple[Row, CasePicture | None]:
    """Process a case and compare the result with its labels and landmarks.

    Segmentations are scored where a study has labels, on the study's native grid. Labels on the grid of an image that
    lay apart from the others are moved with it. Landmarks are those of the image with which the others are aligned,
    which is told where one was moved, as are landmarks that cannot lie there. Neither the network nor the registration
    sees the labels. What a run tells the user becomes a Python warning. The columns of a study begin with
    ``fixed_`` or ``moving_``:

    - ``labels``: how the numbers of the label file were understood.
    - ``dice_<region>``, ``hd95_mm_<region>``, ``volume_ml_<region>`` and ``expected_volume_ml_<region>``.

    The columns of a pair are:

    - ``change_ml_<region>``, ``expected_change_ml_<region>``: volume in the moving minus volume in the fixed study.
    - ``warped_dice_<region>``: overlap of the warped moving labels with the fixed ones; ``affine_dice_<region>`` is
      the overlap after the affine alignment alone.
    - ``volume_ratio_<region>``: volume of the moving labels after the warp relative to their volume before it.
    - ``landmark_error_mm_<mean|median|max>_<before|affine|after>``, and ``landmark_improved``, the fraction of
      landmarks whose error is smaller after the registration than before.
    - ``folded_fraction``, ``sd_log_jacobian`` and ``inverse_error_<mean|max>_mm`` of the whole map, in the fixed brain.
    - ``local_correlation_before``, ``local_correlation_after``: see ``inference.summary``.
    - ``registration_verdict``, ``segmentation_verdict``: 'good', 'check' or 'failed', see ``quality.verdict``.

    Args:
        case: What to evaluate.
        weights: Network; None to register without one.
        settings: How to process the case; None for the defaults.
        progress: Called with the fraction that is done; may raise to cancel.
        with_picture: Whether to prepare a picture.

    Returns:
        The row of the case and what its picture shows (None without a picture).

    Raises:
        ValueError: A study or file cannot be used; the message names it.
    """
    settings = settings or InferenceSettings()
    start = time.perf_counter()
    fixed, own_labels = _read(case.fixed)
    identity = case.identity | _conventions(fixed=fixed)
    if case.moving is None:
        if weights is None or weights.network.segmentation is None:
            raise ValueError(f"'{case.name}' has one visit, which needs weights that segment it (--weights)")
        with _naming(case):
            found = process_study(fixed, weights, settings, progress)
            predicted, shown = found.labels, found.positioned or fixed
        _tell(found.warnings)
        fixed_labels = _on_native_grid(own_labels, fixed, shown)
        row = identity | {"seconds": round(time.perf_counter() - start, 2)}
        row |= _prefixed("fixed", segmentation_scores(predicted, fixed_labels))
        return row, study_picture(case.fixed.name, shown, fixed_labels, predicted) if with_picture else None
    moving, own_moving_labels = _read(case.moving)
    marks = _landmarks(case.fixed, case.moving)
    identity |= _conventions(moving=moving)
    with _naming(case):
        result = process_pair(fixed, moving, weights, settings, progress)
    _tell(result.warnings)
    fixed_labels = _on_native_grid(own_labels, fixed, result.positioned["fixed"])
    moving_labels = _on_native_grid(own_moving_labels, moving, result.positioned["moving"])
    fixed, moving = result.positioned["fixed"], result.positioned["moving"]
    row = identity | {"seconds": round(time.perf_counter() - start, 2)}
    row |= _prefixed("fixed", segmentation_scores(result.fixed_labels, fixed_labels))
    row |= _prefixed("moving", segmentation_scores(result.moving_labels, moving_labels))
    row |= _volume_changes(row) | warp_scores(fixed.reference, fixed_labels, moving_labels, result)
    row |= {name: result.summary[name]["verdict"] for name in _VERDICTS if name in result.summary}
    if marks is not None:
        row |= landmark_scores(*marks, result)
        _tell(_doubts_on_landmarks(*marks, result, row["landmark_error_mm_median_after"]))
    row |= map_scores(fixed.reference, result)
    if not with_picture:
        return row, None
    names = case.fixed.name, f"{case.moving.name}, affine only"
    return row, pair_picture(names, fixed, moving, fixed_labels, result)


def _naming(case: Case) -> AbstractContextManager[None]:
    """Put the first image of a study in front of messages about it."""
    records = [case.fixed] if case.moving is None else [case.fixed, case.moving]
    files = {record.name: f"'{next(iter(record.images.values()))}'" for record in records}
    last = files[records[-1].name]
    return naming({**files, "fixed": files[case.fixed.name], "moving": last}, last)


def _read(record: StudyRecord) -> tuple[StudyImages, sitk.Image | None]:
    """The study without its labels, and the labels on their own grid."""
    study, mask = read_study(record)
    return replace(study, brain_mask=mask, tumor_labels=None), study.tumor_labels


def _on_native_grid(labels: sitk.Image | None, given: StudyImages, positioned: StudyImages) -> sitk.Image | None:
    """Labels of a study on its native grid, moved with the image on whose grid they lie."""
    if labels is None:
        return None
    if any(not same_grid(given.images[modality], image) for modality, image in positioned.images.items()):
        _tell(mask_doubts(labels, TUMOR, given, positioned))
    labels = moved_with_its_image(labels, TUMOR, given, positioned)
    if same_grid(labels, positioned.reference):
        return labels
    return warp_label_image(labels, positioned.reference, sitk.Transform(3, sitk.sitkIdentity))


def _landmarks(fixed: StudyRecord, moving: StudyRecord) -> tuple[Landmarks, Landmarks] | None:
    """Landmarks that have points in common; None where a study has none."""
    if fixed.landmarks is None or moving.landmarks is None:
        return None
    marks = read_landmarks(fixed.landmarks), read_landmarks(moving.landmarks)
    landmark_errors(*marks, None)
    return marks


def _doubts_on_landmarks(fixed: Landmarks, moving: Landmarks, result: JointResult, error_mm: float) -> list[str]:
    """Tell which landmarks cannot be right, and on which of images that lay apart they are taken to lie.

    Args:
        fixed: Landmarks of the fixed study.
        moving: Landmarks of the moving study.
        result: The registration.
        error_mm: Median error of the landmarks after it.
    """
    found, misplaced = [], []
    for role, marks in (("fixed", fixed), ("moving", moving)):
        study = result.positioned[role]
        reference = TITLES[study.reference_modality]
        if outside := points_outside(marks, study.reference):
            misplaced.append(
                f"{outside} of {len(marks.points)} landmarks of '{marks.path}' lie outside of the {reference} image of "
                f"the {study.name} study"
            )
        if positions := result.positions.get(role):
            images = " and ".join(TITLES[modality] for modality in positions)
            found.append(
                f"the landmarks '{marks.path}' are taken to lie on the {reference} image, with which {images} "
                f"had to be aligned: if they were set on {images}, give them in the position of {reference} instead"
            )
    if not misplaced and error_mm > _IMPLAUSIBLE_MM:
        misplaced.append(
            f"half of the landmarks of '{fixed.path}' and '{moving.path}' lie {error_mm:.0f} mm or more apart "
            "after the registration"
        )
    return found + [
        f"{sentence}: check that the coordinates are in mm, and that those in columns x, y, z are LPS; those of RAS "
        "belong in columns r, a, s"
        for sentence in misplaced
    ]


def _tell(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=3)


def _conventions(**studies: StudyImages) -> Row:
    """How the label file of each study was understood, where there is one."""
    readings = {which: study.label_reading for which, study in studies.items()}
    return {f"{which}_labels": f"{r.convention} ({r.how})" for which, r in readings.items() if r is not None}


def _prefixed(prefix: str, scores: Mapping[str, float]) -> Row:
    return {f"{prefix}_{name}": value for name, value in scores.items()}


def _volume_changes(row: Row) -> Row:
    """Volume in the moving minus volume in the fixed study (ml), where both are known."""
    changes: Row = {}
    for prefix in ("", "expected_"):
        for name in REGIONS:
            before, after = (row.get(f"{side}_{prefix}volume_ml_{name}") for side in ("fixed", "moving"))
            if before is not None and after is not None:
                changes[f"{prefix}change_ml_{name}"] = after - before
    return changes
