"""Segmentations on the native grids, and their volumes where they were given on other voxels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy

from JointRegSegLib.findings.result import JointResult
from JointRegSegLib.images.study import StudyImages
from JointRegSegLib.inference.pipeline import process_pair
from JointRegSegLib.inference.settings import InferenceSettings

UNMOVED = InferenceSettings(spacing_mm=4.0, affine="none", refine_iterations=0, coregister=False)


@pytest.fixture(scope="module")
def head() -> HeadStudy:
    return HeadStudy.of("axial")


def whole_tumor_ml(result: JointResult) -> list[float]:
    return [row.volume_ml for row in result.volumes if row.region == "whole_tumor"]


def ml_of(labels: sitk.Image) -> float:
    return np.count_nonzero(sitk.GetArrayViewFromImage(labels)) * float(np.prod(labels.GetSpacing())) / 1000


def planes_of_tumor(head: HeadStudy, count: int) -> slice:
    """The lowest planes that show the tumour, and some below."""
    first = int(np.flatnonzero(head.visit.labels.any((1, 2)))[0])
    return slice(first + count - 10, first + count)


def test_a_slab_as_first_image_does_not_cut_a_given_segmentation(head: HeadStudy) -> None:
    slab = head.image("t1")[:, :, planes_of_tumor(head, 3)]
    study = StudyImages({"t1": slab, "flair": head.image("flair")}, tumor_labels=head.labels, name="first")
    found = process_pair(study, study, None, UNMOVED)
    assert whole_tumor_ml(found) == pytest.approx([ml_of(head.labels)] * 2)
    assert not any(row.at_least for row in found.volumes)
    assert ml_of(found.fixed_labels) == pytest.approx(ml_of(head.labels))
    shown = found.summary["brain_shown"]["fixed"]
    assert shown["flair"] == 1.0
    assert shown["t1"] < 0.6
    assert "results lie on the voxels of the FLAIR image" in " ".join(found.warnings)


def test_a_given_segmentation_beyond_the_native_grid_is_measured_and_told(head: HeadStudy) -> None:
    slab = head.image("t1")[:, :, planes_of_tumor(head, 3)]
    study = StudyImages({"t1": slab}, tumor_labels=head.labels, name="first")
    found = process_pair(study, study, None, UNMOVED)
    assert whole_tumor_ml(found) == pytest.approx([ml_of(head.labels)] * 2)
    assert ml_of(found.fixed_labels) < ml_of(head.labels)
    assert sum("ml of the tumour of the first study lie beyond its T1 image" in w for w in found.warnings) == 2


def test_beyond_a_given_segmentation_that_was_cropped_a_lesion_of_the_other_visit_is_new(head: HeadStudy) -> None:
    """Otherwise the box around the tumour would be taken for all that the visit shows."""
    second = head.visit.labels.copy()
    low = np.argwhere(second > 0).min(0)
    free = head.visit.brain & (second == 0)
    free[:, :, low[2] - 4 :] = False
    at = np.argwhere(free).mean(0).astype(int)
    second[tuple(slice(n - 1, n + 2) for n in at)] = 3
    cropped = head.labels[int(low[2]) - 2 :, :, :]
    first = head.images("first", ("t1",), tumor_labels=cropped)
    later = head.images("second", ("t1",), tumor_labels=head.grid.to_sitk(second))
    found = process_pair(first, later, None, UNMOVED)
    assert "new" in {row.status for row in found.lesions}
    assert "not covered" not in {row.status for row in found.lesions}


def test_lesions_and_volumes_agree_on_a_given_segmentation_beyond_the_images(head: HeadStudy) -> None:
    slab = head.image("t1")[:, :, planes_of_tumor(head, 3)]
    study = StudyImages({"t1": slab}, tumor_labels=head.labels, name="first")
    found = process_pair(study, head.images("second", ("t1",), tumor_labels=head.labels), None, UNMOVED)
    lesions = [row for row in found.lesions if row.region == "whole_tumor"]
    assert {row.status for row in lesions} == {"stable"}
    assert sum(row.fixed_ml for row in lesions) == pytest.approx(whole_tumor_ml(found)[0], rel=0.02)


def test_a_segmentation_on_finer_voxels_keeps_its_volumes(head: HeadStudy) -> None:
    t1 = sitk.BinShrink(head.image("t1"), [2, 2, 2])
    study = StudyImages({"t1": t1}, sitk.BinShrink(head.brain, [2, 2, 2]), head.labels)
    found = process_pair(study, study, None, UNMOVED)
    assert whole_tumor_ml(found) == pytest.approx([ml_of(head.labels)] * 2)
    assert found.fixed_labels.GetSize() == t1.GetSize()


def test_a_segmentation_on_the_native_grid_stays_as_it_is(head: HeadStudy) -> None:
    study = head.images("first", ("t1",), tumor_labels=head.labels)
    found = process_pair(study, study, None, UNMOVED)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.fixed_labels), head.visit.labels)
