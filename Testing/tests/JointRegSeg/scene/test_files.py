"""Files of segmentations in the voxel order of the images that they belong to."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import SimpleITK as sitk
from geometries import GRIDS, SHAPE

from JointRegSegLib.scene.files import write_positions, write_segmentation
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on, read_segmentation


def test_a_segmentation_that_a_transform_brings_onto_the_image_is_written_there(
    slicer: ModuleType, tmp_path: Path
) -> None:
    image = GRIDS["anisotropic"]
    sitk.WriteImage(image.to_sitk(np.zeros(SHAPE, np.uint8)), str(tmp_path / "image.nii.gz"))
    motion = np.eye(4)
    motion[:3, 3] = 20.0, 0.0, -4.0
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2:4, :2] = True
    node = add_segmentation({"core": mask}, Geometry(SHAPE, np.linalg.inv(motion) @ image.ijk_to_ras), "tumour")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "motion")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(motion))
    node.SetAndObserveTransformNodeID(transform.GetID())
    write_segmentation(node, tmp_path / "tumour.seg.nrrd", str(tmp_path / "image.nii.gz"))
    written = read_segmentation(tmp_path / "tumour.seg.nrrd")
    np.testing.assert_array_equal(masks_on(written, image)["core"], mask)


def test_positions_of_images_are_files_named_by_visit_and_image(tmp_path: Path) -> None:
    turned = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.0, -0.05, (4.0, 0.0, 2.0))
    write_positions({"flair": turned}, tmp_path, "moving")
    write_positions({"t2": turned}, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"moving_flair_position.tfm", "t2_position.tfm"}
    for file in tmp_path.iterdir():
        point = (10.0, -20.0, 30.0)
        found = sitk.ReadTransform(str(file)).TransformPoint(point)
        np.testing.assert_allclose(found, turned.TransformPoint(point), atol=1e-6)
