"""Volumes, sequences and segmentations through Slicer's storage nodes, and what bad files say."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import GRIDS, SHAPE, rotation, world_ramp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.image_files import node_name
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on, read_segmentation
from NeuroCESTLib.scene.sequences import (
    array_to_sequence,
    browse,
    index_values,
    read_sequence,
    sequence_to_array,
    set_index,
)
from NeuroCESTLib.scene.volumes import add_volume, array_on, mask_on, read_volume, volume_array
from NeuroCESTLib.scene.writing import write_node

RNG = np.random.default_rng(20)


def storable_nodes(slicer: ModuleType) -> list[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLStorableNode")
    return [node.GetName() for node in nodes if not node.IsA("vtkMRMLColorNode")]


def write_4d(path: Path, array: np.ndarray, geometry: Geometry) -> Path:
    sitk.WriteImage(sitk.JoinSeries([geometry.to_sitk(volume) for volume in array]), str(path))
    return path


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("t1.nii.gz", "t1"),
        ("Tumour.SEG.NRRD", "Tumour"),
        ("z.seq.nrrd", "z"),
        ("visit.1.nii", "visit.1"),
        ("roi.csv", "roi"),
        (".nii.gz", ".nii"),
    ],
)
def test_nodes_are_named_by_their_file_without_its_extension(file: str, name: str) -> None:
    assert node_name(f"folder/{file}") == name


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_of_a_volume_file_keeps_its_place_in_the_world(
    slicer: ModuleType, tmp_path: Path, name: str, extension: str
) -> None:
    array = world_ramp(GRIDS[name]).astype(np.float32)
    sitk.WriteImage(GRIDS[name].to_sitk(array), str(tmp_path / f"v{extension}"))
    node = read_volume(tmp_path / f"v{extension}")
    np.testing.assert_array_equal(array_on(node, GRIDS[name], strict=True), array)
    np.testing.assert_allclose(volume_array(node), world_ramp(Geometry.of(node)), atol=1e-3)


@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_of_a_4d_file_keeps_its_place_in_the_world(slicer: ModuleType, tmp_path: Path, name: str) -> None:
    array = np.stack([world_ramp(GRIDS[name]) * factor for factor in (1, 2, 3)]).astype(np.float32)
    node = read_sequence(write_4d(tmp_path / "z.nii.gz", array, GRIDS[name]))
    read, geometry, index = sequence_to_array(node)
    np.testing.assert_array_equal(index, [0, 1, 2])
    for measurement, expected in zip(read, array, strict=True):
        np.testing.assert_array_equal(GRIDS[name].reorder(measurement, geometry), expected)


@pytest.mark.parametrize("ending", ["mha", "mhd"])
def test_a_4d_metaimage_is_a_sequence(slicer: ModuleType, tmp_path: Path, ending: str) -> None:
    """Slicer's own reader of sequences knows no MetaImage."""
    array = np.stack([world_ramp(GRIDS["oblique"]) * factor for factor in (1, 2, 3)]).astype(np.float32)
    array[1, 2, 3, 4] = np.nan
    sitk.WriteImage(sitk.JoinSeries([GRIDS["oblique"].to_sitk(each) for each in array]), str(tmp_path / f"z.{ending}"))
    node = read_sequence(tmp_path / f"z.{ending}")
    assert node.GetName() == "z"
    assert node.GetStorageNode() is None  # that of the copy is gone
    read, geometry, index = sequence_to_array(node)
    assert geometry.matches(GRIDS["oblique"])
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(index, [0, 1, 2])


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.uint8, np.int16, np.float32, np.float64])
def test_arrays_of_any_type_become_volumes_without_loss(slicer: ModuleType, dtype: type) -> None:
    array = (RNG.random(SHAPE) * 2).astype(dtype)
    np.testing.assert_array_equal(volume_array(add_volume(array, GRIDS["oblique"], "v")), array)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("name", ["axial", "left-handed oblique"])
def test_nan_and_infinity_in_files_are_kept(slicer: ModuleType, tmp_path: Path, name: str, extension: str) -> None:
    array = RNG.normal(size=SHAPE).astype(np.float32)
    array[1, 2, 3], array[0, 0, 0], array[3, 4, 5] = np.nan, np.inf, -np.inf
    sitk.WriteImage(GRIDS[name].to_sitk(array), str(tmp_path / f"v{extension}"))
    node = read_volume(tmp_path / f"v{extension}")
    np.testing.assert_array_equal(array_on(node, GRIDS[name], strict=True), array)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.filterwarnings("ignore:.*does not name a space of the patient")
def test_a_2d_image_is_one_slice_and_keeps_nan(slicer: ModuleType, tmp_path: Path, extension: str) -> None:
    picture = RNG.normal(size=(5, 6)).astype(np.float32)
    picture[1, 2] = np.nan
    image = sitk.GetImageFromArray(picture)
    image.SetSpacing((2, 3))
    image.SetOrigin((5, 7))
    image.SetDirection((0, 1, -1, 0))
    sitk.WriteImage(image, str(tmp_path / f"slice{extension}"))
    node = read_volume(tmp_path / f"slice{extension}")
    np.testing.assert_array_equal(volume_array(node), picture[None])
    assert Geometry.of(node).matches(Geometry.from_sitk(image))


def test_nan_in_a_4d_file_stays_in_its_measurement(slicer: ModuleType, tmp_path: Path) -> None:
    array = RNG.normal(size=(3, *SHAPE)).astype(np.float32)
    array[2, 1, 2, 3] = np.nan
    read = sequence_to_array(read_sequence(write_4d(tmp_path / "z.nii.gz", array, GRIDS["LPS"])))
    np.testing.assert_array_equal(read[0], array)


@pytest.mark.parametrize(
    "offsets",
    [
        [-3.5, 0.0, 3.5, 100.0],
        [3.5, -3.5, 0.0, 2.0],
        [3.0, 3.0, 3.0, 3.0],
        [-300.0, 3.5, -300.0, 3.4999],
        [0.1, 0.1004, 0.1008, 1e-7],
    ],
    ids=["ascending", "interleaved", "repeated", "reference", "close"],
)
def test_offsets_and_order_survive_a_seq_nrrd_file(slicer: ModuleType, tmp_path: Path, offsets: list[float]) -> None:
    array = RNG.normal(size=(4, *SHAPE)).astype(np.float32)
    array[1, 0, 0, 0] = np.nan
    node = array_to_sequence(array, GRIDS["oblique"], "z", offsets)
    write_node(node, tmp_path / "z.seq.nrrd")
    restored = read_sequence(tmp_path / "z.seq.nrrd")
    read, geometry, index = sequence_to_array(restored)
    np.testing.assert_array_equal(index, offsets)
    np.testing.assert_array_equal(read, array)
    assert geometry.matches(GRIDS["oblique"])
    assert (restored.GetIndexName(), restored.GetIndexUnit()) == ("offset", "ppm")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.floats(-1000, 1000).map(lambda x: round(x, 4) + 0.0), min_size=1, max_size=7))
def test_any_schedule_of_offsets_can_be_an_index(slicer: ModuleType, offsets: list[float]) -> None:
    array = np.arange(len(offsets), dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    node = array_to_sequence(array, Geometry.from_spacing((1, 2, 2)), "z", range(len(offsets)))
    set_index(node, offsets)
    np.testing.assert_array_equal(index_values(node), offsets)
    np.testing.assert_array_equal(sequence_to_array(node)[0], array)
    slicer.mrmlScene.RemoveNode(node)


def test_an_ascending_index_is_numeric_and_others_are_text(slicer: ModuleType) -> None:
    array = np.zeros((3, *SHAPE))
    assert array_to_sequence(array, GRIDS["axial"], "z", [1, 2, 3]).GetIndexTypeAsString() == "numeric"
    assert array_to_sequence(array, GRIDS["axial"], "z", [1, 1, 3]).GetIndexTypeAsString() == "text"


def test_a_wrong_number_of_offsets_is_refused(slicer: ModuleType) -> None:
    node = array_to_sequence(np.zeros((3, *SHAPE)), GRIDS["axial"], "mz", [1, 2, 3])
    with pytest.raises(ValueError, match="4 index values are given, but 'mz' has 3 measurements"):
        set_index(node, [1, 2, 3, 4])


def test_several_3d_files_are_read_in_the_given_order(slicer: ModuleType, tmp_path: Path) -> None:
    paths = []
    for number in (2, 0, 1):
        paths.append(tmp_path / f"{number}.nii.gz")
        sitk.WriteImage(GRIDS["axial"].to_sitk(np.full(SHAPE, number, np.float32)), str(paths[-1]))
    read, _, _ = sequence_to_array(read_sequence(paths))
    np.testing.assert_array_equal(read[:, 0, 0, 0], [2, 0, 1])
    assert len(storable_nodes(slicer)) == 1


def test_3d_files_on_different_grids_are_refused(slicer: ModuleType, tmp_path: Path) -> None:
    for name in ("axial", "oblique"):
        sitk.WriteImage(GRIDS[name].to_sitk(np.ones(SHAPE)), str(tmp_path / f"{name}.nii.gz"))
    with pytest.raises(ValueError, match=r"oblique.nii.gz' has another geometry than '.*axial.nii.gz'"):
        read_sequence([tmp_path / "axial.nii.gz", tmp_path / "oblique.nii.gz"])
    assert storable_nodes(slicer) == []


def test_a_sequence_whose_file_did_not_come_with_the_scene_has_no_images(slicer: ModuleType, tmp_path: Path) -> None:
    array_to_sequence(np.ones((2, *SHAPE)), GRIDS["axial"], "z", [1, 2])
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))  # the description alone, without the files of the nodes
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrml"))
    with pytest.raises(ValueError, match="measurement 1 of the sequence 'z' has no image: load the file"):
        sequence_to_array(slicer.util.getNode("z"))


def test_any_volume_of_a_sequence_that_is_played_along_with_a_shorter_one_can_be_shown(slicer: ModuleType) -> None:
    values = np.arange(5.0)[:, None, None, None] * np.ones((1, *SHAPE))
    node = array_to_sequence(values, GRIDS["axial"], "cest", [1, 2, 3, 4, 5])
    shorter = array_to_sequence(values[:2], GRIDS["axial"], "wasabi", [1, 2])
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(shorter.GetID())
    browser.AddSynchronizedSequenceNodeID(node.GetID())
    for number in (3, 1):
        assert volume_array(browse(node, number)).max() == number


def test_a_volume_of_a_sequence_is_shown_at_the_place_of_its_spectra(slicer: ModuleType) -> None:
    """The volume of its own browser gets the transform of the one that plays along, and both then follow the former."""
    node = array_to_sequence(np.ones((2, *SHAPE)), GRIDS["axial"], "cest", [1, 2])
    other = array_to_sequence(np.ones((2, *SHAPE)), GRIDS["axial"], "wasabi", [1, 2])
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(other.GetID())
    browser.AddSynchronizedSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 50, 0, 0
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    browser.GetProxyNode(node).SetAndObserveTransformNodeID(transform.GetID())
    before = sequence_to_array(node)[1]
    shown = browse(node, 1)
    assert shown is not browser.GetProxyNode(node)
    assert Geometry.of(shown).matches(before)
    shown.SetAndObserveTransformNodeID(None)
    assert browse(node, 0) is shown
    assert Geometry.of(shown).matches(sequence_to_array(node)[1])


def test_a_transformed_sequence_proxy_moves_the_spectra(slicer: ModuleType) -> None:
    node = array_to_sequence(np.ones((2, *SHAPE)), GRIDS["axial"], "z", [1, 2])
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 0, 20)), (5, 6, 7)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    browser.GetProxyNode(node).SetAndObserveTransformNodeID(transform.GetID())
    assert sequence_to_array(node)[1].matches(Geometry(SHAPE, matrix @ GRIDS["axial"].ijk_to_ras))


def test_another_grid_is_resampled_in_the_world_under_its_parent_transform(slicer: ModuleType) -> None:
    big = Geometry.from_spacing((60, 60, 60), (2, 2, 2), (-80, -50, -50))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((8, 0, 15)), (2, -3, 1)
    moved = Geometry(big.shape, matrix @ big.ijk_to_ras)
    node = add_volume(world_ramp(moved), big, "b0")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    values = array_on(node, GRIDS["oblique"])
    np.testing.assert_allclose(values, world_ramp(GRIDS["oblique"]), atol=1e-6)


def test_masks_of_another_geometry_are_refused(slicer: ModuleType) -> None:
    mask = add_volume(np.ones(SHAPE, bool), GRIDS["anisotropic"], "brain")
    with pytest.raises(ValueError, match=r"'brain' has another geometry than the signal \(voxels of"):
        mask_on(mask, GRIDS["axial"])
    with pytest.raises(ValueError, match="the mask 'none' is empty"):
        mask_on(add_volume(np.zeros(SHAPE), GRIDS["axial"], "none"), GRIDS["axial"])


@pytest.mark.parametrize("name", ["axial", "oblique", "LPS", "sagittal"])
def test_segments_survive_a_file_and_a_transform(slicer: ModuleType, tmp_path: Path, name: str) -> None:
    geometry = GRIDS[name]
    masks = {"core": RNG.random(SHAPE) > 0.6, "rim": RNG.random(SHAPE) > 0.4, "empty": np.zeros(SHAPE, bool)}
    write_node(add_segmentation(masks, geometry, "tumour"), tmp_path / "t.seg.nrrd")
    node = read_segmentation(tmp_path / "t.seg.nrrd")
    for segment, mask in masks_on(node, geometry).items():
        np.testing.assert_array_equal(mask, masks[segment])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 0, 90)), (1, 2, 3)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    for segment, mask in masks_on(node, Geometry(SHAPE, matrix @ geometry.ijk_to_ras)).items():
        np.testing.assert_array_equal(mask, masks[segment])


def test_labels_are_sampled_at_the_nearest_voxel(slicer: ModuleType, tmp_path: Path) -> None:
    labels = np.zeros((8, 10, 12), np.int16)
    labels[:4], labels[4:, :5] = 1, 4
    fine = Geometry.from_spacing((8, 10, 12), (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
    sitk.WriteImage(fine.to_sitk(labels), str(tmp_path / "l.nii.gz"))
    masks = masks_on(read_segmentation(tmp_path / "l.nii.gz"), GRIDS["axial"])
    assert set(masks) == {"label 1", "label 4"}
    assert masks["label 1"].sum() == 2 * 5 * 6
    with pytest.raises(ValueError, match="has no label"):
        masks_on(add_volume(np.zeros(SHAPE, np.uint8), GRIDS["axial"], "l", label=True), GRIDS["axial"])


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / {"nrrd": "z.nrrd", "raw nifti": "z.nii"}.get(kind, "z.nii.gz")
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("offset,z\n" * 100)
    elif kind == "gzipped text":
        path.write_bytes(gzip.compress(b"offset,z\n" * 100))
    elif kind == "3-D":
        sitk.WriteImage(GRIDS["axial"].to_sitk(np.ones(SHAPE)), str(path))
    else:
        whole = path.with_name("whole" + "".join(path.suffixes))
        if kind == "nrrd":
            sitk.WriteImage(GRIDS["axial"].to_sitk(RNG.normal(size=SHAPE)), str(whole), True)
        else:
            write_4d(whole, RNG.normal(size=(3, *SHAPE)), GRIDS["axial"])
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "file not found"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "is not an image"),
        ("gzipped text", "is not an image"),
        ("3-D", "is 3-D, one measurement: give a 4-D file"),
        ("truncated", "is truncated"),
        ("raw nifti", "is truncated"),
        ("nrrd", "is truncated"),
    ],
)
def test_bad_files_are_refused_in_one_sentence_and_leave_nothing(
    slicer: ModuleType, tmp_path: Path, kind: str, words: str, capfd: pytest.CaptureFixture
) -> None:
    path = bad_file(kind, tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        read_sequence(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert storable_nodes(slicer) == []
    assert capfd.readouterr().err == ""


def test_a_4d_file_is_no_volume(slicer: ModuleType, tmp_path: Path) -> None:
    path = write_4d(tmp_path / "z.nii.gz", np.ones((3, *SHAPE)), GRIDS["axial"])
    with pytest.raises(ValueError, match="holds 3 volumes, but one 3-D volume is needed"):
        read_volume(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999), extension=st.sampled_from([".nii", ".nii.gz", ".seq.nrrd"]))
def test_a_file_cut_anywhere_is_never_read(slicer: ModuleType, tmp_path: Path, cut: float, extension: str) -> None:
    whole = tmp_path / f"whole{extension}"
    if not whole.exists():
        array = RNG.normal(size=(3, *SHAPE)).astype(np.float32)
        if extension == ".seq.nrrd":
            write_node(array_to_sequence(array, GRIDS["oblique"], "z", [1, 1, 2]), whole)
        else:
            write_4d(whole, array, GRIDS["oblique"])
    part = tmp_path / f"part{extension}"
    part.write_bytes(whole.read_bytes()[: int(cut * whole.stat().st_size)])
    with pytest.raises(ValueError, match="part"):
        read_sequence(part)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=0, max_size=600), extension=st.sampled_from([".nii", ".nii.gz", ".nrrd"]))
def test_random_bytes_are_never_an_image(slicer: ModuleType, tmp_path: Path, content: bytes, extension: str) -> None:
    path = tmp_path / f"noise{extension}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="noise"):
        read_volume(path)


def test_shared_spectra_are_read_with_their_orientation(slicer: ModuleType, shared_data) -> None:
    path = shared_data("data/cest/brain_7T_zspectrum/mz.nii.gz")
    array, geometry, _ = sequence_to_array(read_sequence(path))
    image = sitk.ReadImage(str(path))
    expected = sitk.GetArrayFromImage(image)
    assert array.shape == expected.shape == (57, 1, 108, 128)
    in_file = Geometry.from_sitk(image[:, :, :, 0])
    np.testing.assert_array_equal(in_file.reorder(array[10], geometry), expected[10])
