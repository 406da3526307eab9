"""Tumours of any convention given as nodes: how they are understood, carried through a run, and told."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import HeadStudy

from JointRegSegLib.images.compartments import COMPARTMENTS
from JointRegSegLib.images.study import checked_study
from JointRegSegLib.logic import JointRegSegLogic
from JointRegSegLib.scene.carrying import holds_labels
from JointRegSegLib.scene.study import misplaced_images, study_of
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import add_volume, volume_array

CAVITY = 4


@pytest.fixture
def study() -> HeadStudy:
    return HeadStudy.of("left-handed oblique")


def with_cavity(study: HeadStudy) -> np.ndarray:
    """Labels of the study after its core was taken out."""
    return np.where(study.visit.labels == 1, CAVITY, study.visit.labels).astype(np.uint8)


def run(study: HeadStudy, **options: object) -> object:
    """Register a study to its FLAIR, taken for a T1, without a network."""
    nodes = [study.nodes("fixed", ("t1",)), {"t1": study.nodes("moving", ("flair",))["flair"]}]
    return JointRegSegLogic().process(*nodes, weights="none", affine="none", refine=0, device="cpu", **options)


def test_label_maps_are_understood_by_the_declared_convention(slicer: ModuleType, study: HeadStudy) -> None:
    msd = np.array([0, 2, 1, 3], np.uint8)[study.visit.labels]
    node = add_volume(msd, study.grid, "somewhere", label=True)
    images, _ = study_of(study.nodes("visit"), None, node, "fixed", labels="msd")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(images.tumor_labels), study.visit.labels)
    assert images.label_reading.convention == "msd"
    with pytest.raises(ValueError, match="--labels is 'mds', which is no known convention"):
        study_of(study.nodes("visit"), None, node, "fixed", labels="mds")


def test_segmentations_under_a_transform_that_shears_are_read_on_the_voxels_of_the_study(
    slicer: ModuleType, study: HeadStudy
) -> None:
    """An affine registration may have brought them onto the study; their own grid is then not rectangular."""
    shear = np.eye(4)
    shear[0, 1], shear[0, 3] = 0.01, 3.0
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "affine")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shear))
    nodes, grid = study.nodes("visit"), Geometry(study.grid.shape, np.linalg.inv(shear) @ study.grid.ijk_to_ras)
    drawn = {name: add_segmentation({"Oedema": mask}, study.grid, name) for name, mask in masks_of(study).items()}
    expected = {name: masks_on(node, grid)["Oedema"] for name, node in drawn.items()}
    for node in drawn.values():
        node.SetAndObserveTransformNodeID(transform.GetID())
    images, _ = study_of(nodes, drawn["brain"], drawn["tumour"], "fixed")
    checked, _ = checked_study(images)
    for image, mask in ((checked.brain_mask, expected["brain"]), (checked.tumor_labels, expected["tumour"])):
        on_study = sitk.Resample(image, images.images["t1"], sitk.Transform(), sitk.sitkNearestNeighbor)
        found = sitk.GetArrayFromImage(on_study) > 0
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.99


def masks_of(study: HeadStudy) -> dict[str, np.ndarray]:
    return {"brain": study.visit.brain, "tumour": study.visit.labels > 0}


def test_the_name_of_the_node_may_tell_the_convention(slicer: ModuleType, study: HeadStudy) -> None:
    node = add_volume(with_cavity(study), study.grid, "BraTS-GLI-00005-100-seg", label=True)
    images, _ = study_of(study.nodes("visit"), None, node, "fixed")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(images.tumor_labels), with_cavity(study))
    assert images.label_reading.how == "file name"


def test_segments_with_the_official_names_of_brats_are_understood(slicer: ModuleType, study: HeadStudy) -> None:
    names = (
        "Nonenhancing tumor core (NETC)",
        "Surrounding non-enhancing FLAIR hyperintensity (SNFH)",
        "Enhancing tissue (ET)",
        "Resection cavity (RC)",
    )
    labels = with_cavity(study)
    node = add_segmentation({name: labels == n for n, name in enumerate(names, 1)}, study.grid, "reader 1")
    images, _ = study_of(study.nodes("visit"), None, node, "fixed")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(images.tumor_labels), labels)
    assert images.label_reading.meaning[names[1]] == "edema"


def test_a_cavity_is_carried_through_named_measured_and_left_out(slicer: ModuleType, study: HeadStudy) -> None:
    labels = with_cavity(study)
    nodes = [add_volume(labels, study.grid, name, label=True) for name in ("before", "after")]
    result = run(study, fixedTumor=nodes[0], movingTumor=nodes[1], labels="brats2024")
    for node in (result.fixedSegmentation, result.warpedSegmentation):
        segments = masks_on(node, study.grid)
        assert list(segments) == [each.name for each in COMPARTMENTS.values()]
        np.testing.assert_array_equal(segments["Resection cavity"], labels == CAVITY)
    columns = table_columns(result.volumes)
    rows = dict(zip(columns["region"], columns["volume_ml"], strict=True))
    ml = study.grid.voxel_volume_mm3 / 1000
    assert rows["resection_cavity"] == pytest.approx((labels == CAVITY).sum() * ml)
    assert rows["whole_tumor"] == pytest.approx(((labels > 0) & (labels != CAVITY)).sum() * ml)
    assert "resection_cavity" in table_columns(result.changes)["region"]
    assert result.report["labels"]["fixed"] == {
        "source": "before",
        "convention": "brats2024",
        "found_by": "declared",
        "meaning": {"1": "necrotic_core", "2": "edema", "3": "enhancing_tumor", "4": "resection_cavity"},
    }


def test_a_plain_mask_is_left_out_of_the_registration_and_is_no_segmentation(
    slicer: ModuleType, study: HeadStudy
) -> None:
    tumor = study.visit.labels > 0
    mask = add_volume(tumor.astype(np.uint8), study.grid, "mask", label=True)
    segment = add_segmentation({"Tumour": tumor}, study.grid, "segment")
    images, _ = study_of(study.nodes("visit"), None, mask, "fixed")
    assert images.tumor_labels is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(images.left_out), tumor)
    result = run(study, fixedTumor=mask, movingTumor=segment)
    assert result.fixedSegmentation is None
    node = add_volume(study.visit.labels, study.grid, "classes", label=True)
    with_classes = run(study, fixedTumor=node, movingTumor=node, labels="brats2023")
    without = run(study)
    compared = [each.report["local_correlation_before"] for each in (result, with_classes, without)]
    assert compared[0] == compared[1] != compared[2]  # the same voxels are compared, fewer than all
    assert any("'mask' has the single number 1" in text for text in result.warnings)
    assert any("'segment' is a plain mask" in text for text in result.warnings)


def test_a_label_map_that_was_cropped_to_a_lesion_is_taken_as_the_whole_one(
    slicer: ModuleType, study: HeadStudy
) -> None:
    lesion = np.where(study.visit.labels == 1, 1, 0).astype(np.uint8)
    corners = np.argwhere(lesion)
    first, last = corners.min(0), corners.max(0) + 1
    cropped = lesion[tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))]
    assert min(cropped.shape) < 8
    shift = np.eye(4)
    shift[:3, 3] = first[::-1]
    crop = Geometry(cropped.shape, study.grid.ijk_to_ras @ shift)
    nodes = add_volume(lesion, study.grid, "whole", label=True), add_volume(cropped, crop, "cropped", label=True)
    whole, small = (run(study, fixedTumor=node, movingTumor=node, labels="brats2023") for node in nodes)
    for of_whole, of_small in zip(whole.joint.volumes, small.joint.volumes, strict=True):
        assert of_small == of_whole
    for result in (whole, small):
        np.testing.assert_array_equal(masks_on(result.fixedSegmentation, study.grid)["Necrotic core"], lesion > 0)


def test_a_soft_brain_mask_reaches_the_checks_with_its_values(slicer: ModuleType, study: HeadStudy) -> None:
    soft = np.where(study.visit.brain, np.float32(1), np.float32(1e-4))
    soft[0, 0, 0] = np.nan
    images, _ = study_of(study.nodes("visit"), add_volume(soft, study.grid, "soft"), None, "fixed")
    checked, notes = checked_study(images)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(checked.brain_mask) > 0, study.visit.brain)
    assert len(notes) == 2  # of the values, and of the voxel that is not finite


def test_volumes_of_labels_are_carried_by_the_nearest_voxel_and_images_are_not(
    slicer: ModuleType, study: HeadStudy
) -> None:
    parcels = (study.visit.labels * 7).astype(np.int16)
    as_float = add_volume(parcels.astype(np.float32), study.grid, "parcels as numbers")
    whole = np.rint(study.visit.images["t1"]).astype(np.int16)
    image = add_volume(whole, study.grid, "T1 in whole numbers")
    assert holds_labels(as_float)
    assert not holds_labels(image)
    other = HeadStudy.of("axial", second=True)
    nodes = other.nodes("fixed", ("t1",)), study.nodes("moving", ("t1",))
    result = JointRegSegLogic().process(
        *nodes, weights="none", refine=0, device="cpu", affine="none", carry=[as_float, image]
    )
    carried, interpolated = (volume_array(node) for node in result.carried)
    assert set(np.unique(carried)) <= set(np.unique(parcels))
    assert not set(np.unique(interpolated)) <= set(np.unique(whole))
    assert [text for text in result.warnings if "nearest voxel" in text] == [
        "'parcels as numbers' holds labels, so it is brought onto the fixed study by the nearest voxel"
    ]


def test_an_image_whose_name_says_otherwise_is_told(slicer: ModuleType, study: HeadStudy) -> None:
    nodes = study.nodes("visit", ("t1", "flair"))
    assert misplaced_images(nodes, "fixed") == []
    nodes["t1"].SetName("patients/P7_t1ce.nii.gz")
    nodes["flair"].SetName("P7_seg")
    assert misplaced_images(nodes, "fixed") == [
        "'patients/P7_t1ce.nii.gz' is given as the T1 of the fixed study, but its name says T1ce: check the order T1, "
        "T1ce, T2, FLAIR",
        "'P7_seg' is given as the FLAIR of the fixed study, but its name says segmentation: check the order T1, T1ce, "
        "T2, FLAIR",
    ]
