"""Nodes and scenes are written whole or not at all, and come back as they were."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import GRIDS, SHAPE, world_ramp

from NeuroCESTLib.core import whole_files
from NeuroCESTLib.scene import display, hierarchy, writing
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.volumes import add_volume, array_on, read_volume, volume_array
from NeuroCESTLib.scene.writing import write_node, write_scene, write_volume


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize("name", GRIDS)
def test_written_volumes_are_read_alike_by_itk(slicer: ModuleType, tmp_path: Path, name: str, extension: str) -> None:
    array = world_ramp(GRIDS[name])
    write_node(add_volume(array, GRIDS[name], "map"), tmp_path / f"map{extension}")
    image = sitk.ReadImage(str(tmp_path / f"map{extension}"))
    assert Geometry.from_sitk(image).matches(GRIDS[name])
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), array, atol=1e-9)
    assert os.listdir(tmp_path) == [f"map{extension}"]


def test_results_can_be_written_in_the_voxel_order_of_the_input(slicer: ModuleType, tmp_path: Path) -> None:
    array = world_ramp(GRIDS["left-handed"])
    sitk.WriteImage(GRIDS["left-handed"].to_sitk(array), str(tmp_path / "in.nii.gz"))
    volume = slicer.util.loadVolume(str(tmp_path / "in.nii.gz"))
    assert not np.array_equal(volume_array(volume), array)  # Slicer has reversed the slices
    write_volume(volume, tmp_path / "out.nii.gz", like=tmp_path / "in.nii.gz")
    out = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(out), array)
    assert Geometry.from_sitk(out).matches(GRIDS["left-handed"])


@pytest.mark.parametrize("name", ["axial", "left-handed"])
def test_volumes_of_signed_bytes_are_written_again(slicer: ModuleType, tmp_path: Path, name: str) -> None:
    """Slicer reads such NIfTI files but does not write them."""
    array = np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)
    sitk.WriteImage(GRIDS[name].to_sitk(array), str(tmp_path / "in.nii.gz"))
    node = read_volume(tmp_path / "in.nii.gz")
    for like in (None, tmp_path / "in.nii.gz"):
        written = sitk.ReadImage(str(write_volume(node, tmp_path / "out.nii.gz", like=like)))
        found = GRIDS[name].reorder(sitk.GetArrayFromImage(written), Geometry.from_sitk(written))
        np.testing.assert_array_equal(found, array)


def test_a_full_disk_is_named_and_keeps_the_earlier_file(
    slicer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = add_volume(world_ramp(GRIDS["axial"]), GRIDS["axial"], "map")
    path = write_node(volume, tmp_path / "map.nii.gz")
    before = path.read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "replace", full)
    with pytest.raises(ValueError, match=r"map.nii.gz': the disk is full"):
        write_node(volume, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["map.nii.gz"]


def test_an_incomplete_file_is_noticed_although_the_writer_reports_success(
    slicer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sequence writer does so on a full disk."""
    sequence = array_to_sequence(np.ones((2, *SHAPE)), GRIDS["axial"], "z", [1, 2])
    checked = writing._check_written

    def cut_short(temporary: Path, path: Path) -> None:
        temporary.write_bytes(temporary.read_bytes()[:-50])
        checked(temporary, path)

    monkeypatch.setattr(writing, "_check_written", cut_short)
    with pytest.raises(ValueError, match=r"cannot write '.*z.seq.nrrd'"):
        write_node(sequence, tmp_path / "z.seq.nrrd")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no/map.nii.gz", "does not exist"),
        ("file/map.nii.gz", "is not a folder"),
        ("folder.nii.gz", "it is a folder"),
        ("map.csv", "the name must end in .nii"),
    ],
)
def test_impossible_places_are_refused_in_one_sentence(
    slicer: ModuleType, tmp_path: Path, place: str, words: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nii.gz").mkdir()
    volume = add_volume(np.ones(SHAPE), GRIDS["axial"], "map")
    with pytest.raises(ValueError, match=words):
        write_node(volume, tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(slicer: ModuleType, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="the folder is read-only"):
        write_node(add_volume(np.ones(SHAPE), GRIDS["axial"], "map"), tmp_path / "map.nii.gz")


def test_a_scene_file_restores_maps_with_folder_unit_colours_and_window(slicer: ModuleType, tmp_path: Path) -> None:
    array = world_ramp(GRIDS["oblique"])
    array[0, 0, 0] = np.nan
    volume = add_volume(array, GRIDS["oblique"], "amide fraction")
    display.show_map(volume, "ppm", "inferno", (-20, 30))
    folder = hierarchy.make_folder("CEST")
    hierarchy.put([volume], folder)
    write_scene(tmp_path / "scene.mrb")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    restored = slicer.util.getNode("amide fraction")
    np.testing.assert_array_equal(array_on(restored, GRIDS["oblique"], strict=True), array)
    assert display.unit_of(restored) == "ppm"
    shown = restored.GetDisplayNode()
    assert (shown.GetWindowLevelMin(), shown.GetWindowLevelMax()) == (-20, 30)
    assert shown.GetColorNode().GetName() == "NeuroCEST inferno"
    assert hierarchy.nodes_in(hierarchy.folder_named("CEST")) == [restored]
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(restored)
    assert legend.GetTitleText() == "amide fraction (ppm)"


def test_a_sheared_volume_is_written_as_nrrd_and_refused_as_nifti(slicer: ModuleType, tmp_path: Path) -> None:
    volume = add_volume(world_ramp(GRIDS["oblique"]), GRIDS["oblique"], "map")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shear")
    matrix = np.eye(4)
    matrix[0, 1] = 0.3
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(ValueError, match=r"map.nii.gz': the axes of 'map' are not perpendicular.*\.nrrd"):
        write_volume(volume, tmp_path / "map.nii.gz")
    assert os.listdir(tmp_path) == []
    write_volume(volume, tmp_path / "map.nrrd")
    written = slicer.util.loadVolume(str(tmp_path / "map.nrrd"))
    assert Geometry.of(written).matches(Geometry.of(volume))
