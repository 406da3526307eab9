"""Maps lie on the voxels of the signal, in the scene and in files, on every grid."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import GRIDS, rotation, world_ramp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import M0, fit_arguments, write_image, write_json, write_series

from CESTQuantLib.batch import main
from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.physics.protocol import Protocol
from CESTQuantLib.scene.study import Study, acquisition_order
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import add_volume, array_on, volume_array

OFFSETS = np.array([-3.5, -1.0, 0.0, 1.0, 3.5])
PROTOCOL = {"field_strength_T": 3.0, "offsets_ppm": OFFSETS.tolist(), "b1_uT": 1.0, "saturation_time_s": 2.0}


def in_world(grid: Geometry) -> np.ndarray:
    """Return a contrast (K, J, I) between 0.02 and 0.2 that depends on the position in the world only."""
    return 0.11 + world_ramp(grid) / 4000


def asymmetric(grid: Geometry) -> np.ndarray:
    """Return signals (measurement, K, J, I) whose MTRasym at 3.5 ppm is :func:`in_world`."""
    z = np.stack([np.full(grid.shape, value) for value in (0.9, 0.5, 0.1, 0.5, 0.9)])
    z[-1] -= in_world(grid)
    return (M0 * z).astype(np.float32)


def mtr_asym(node: object, **changes: object) -> object:
    options = {"method": "mtrasym", "signalNormalisation": "none", "asymmetryOffset_ppm": 3.5, "device": "cpu"}
    return CESTQuantLogic().fit(node, changes.pop("protocol", PROTOCOL), **(options | changes))


def sequence(grid: Geometry, signal: np.ndarray | None = None) -> object:
    return array_to_sequence((asymmetric(grid) if signal is None else signal) / M0, grid, "cest", OFFSETS)


def zero_b0(grid: Geometry) -> object:
    return add_volume(np.zeros(grid.shape, np.float32), grid, "b0")


@pytest.mark.parametrize("name", GRIDS)
def test_files_keep_the_voxels_and_the_affine_of_the_input(slicer: ModuleType, tmp_path: Path, name: str) -> None:
    grid = GRIDS[name]
    write_series(asymmetric(grid), grid, tmp_path / "signal.nii.gz")
    write_image(np.full(grid.shape, M0, np.float32), grid, tmp_path / "m0.nii.gz")
    write_image(np.zeros(grid.shape, np.float32), grid, tmp_path / "b0.nii.gz")
    write_json(PROTOCOL, tmp_path / "protocol.json")
    assert main(fit_arguments(tmp_path, tmp_path / "out", "mtrasym", b0=tmp_path / "b0.nii.gz")) == 0
    given_image, made = (sitk.ReadImage(str(tmp_path / p)) for p in ("m0.nii.gz", "out/mtr_asym_3.5ppm.nii.gz"))
    assert made.GetSize() == given_image.GetSize()
    for field in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(made, field)(), getattr(given_image, field)(), atol=1e-5)
    np.testing.assert_allclose(sitk.GetArrayFromImage(made), in_world(grid), atol=1e-6)
    status = sitk.ReadImage(str(tmp_path / "out/status.nii.gz"))
    assert status.GetDirection() == made.GetDirection()


@pytest.mark.parametrize("name", GRIDS)
def test_nodes_lie_on_the_signal_voxel_by_voxel(slicer: ModuleType, name: str) -> None:
    grid = GRIDS[name]
    node = mtr_asym(sequence(grid), b0=zero_b0(grid)).nodes["mtr_asym_3.5ppm"]
    assert Geometry.of(node).matches(grid)
    np.testing.assert_allclose(volume_array(node), in_world(grid), atol=1e-6)


def larger(grid: Geometry, turned: np.ndarray) -> Geometry:
    """Return a rotated grid of 2 mm that contains another one."""
    ends = [grid.ijk_to_ras @ [i, j, k, 1] for i in (0, 5) for j in (0, 4) for k in (0, 3)]
    centre = np.mean(ends, axis=0)[:3]
    count = int(np.ceil(max(np.linalg.norm(end[:3] - centre) for end in ends))) + 2
    matrix = np.eye(4)
    matrix[:3, :3] = 2.0 * turned
    matrix[:3, 3] = centre - matrix[:3, :3] @ np.full(3, (count - 1) / 2)
    return Geometry((count,) * 3, matrix)


@pytest.mark.parametrize("name", ["anisotropic", "oblique", "left-handed oblique"])
def test_maps_on_another_grid_are_resampled_in_the_world(slicer: ModuleType, name: str) -> None:
    """B0 is linear in the world, so that resampling is exact; the spectrum is a water line shifted by it."""
    grid = GRIDS[name]
    other = larger(grid, rotation((20, 30, -10)))
    offsets = np.linspace(-4, 4, 41)

    def shift(of: Geometry) -> np.ndarray:
        return world_ramp(of) / 500

    z = (
        1
        - 0.8 / (1 + (offsets[:, None, None, None] - shift(grid)) ** 2)
        - 0.1 / (1 + (offsets[:, None, None, None] - shift(grid) - 2.0) ** 2 / 0.25)
    )
    node = array_to_sequence(z.astype(np.float32), grid, "cest", offsets)
    b0 = add_volume(shift(other).astype(np.float32), other, "b0")
    options = {"protocol": None, "asymmetryOffset_ppm": 2.0}
    corrected, uncorrected = (
        volume_array(mtr_asym(node, b0=field, **options).nodes["mtr_asym_2ppm"]) for field in (b0, zero_b0(grid))
    )
    np.testing.assert_allclose(corrected, 0.1 - 0.1 / (1 + 4**2 / 0.25), atol=2e-3)
    assert np.abs(uncorrected - corrected).max() > 0.01


def under_transform(slicer: ModuleType, node: object) -> np.ndarray:
    """Put a node under a rotation and translation, and return their matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((10, -20, 30)), (5.0, -7.0, 11.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return matrix


def test_parent_transforms_of_maps_and_masks_are_respected(slicer: ModuleType) -> None:
    """A mask that its parent transform moves off the signal is refused; one that it moves back is used."""
    grid = GRIDS["oblique"]
    chosen = np.zeros(grid.shape, np.uint8)
    chosen[1:3, 2:4, 1:5] = 1
    mask = add_volume(chosen, grid, "mask", label=True)
    matrix = under_transform(slicer, mask)
    with pytest.raises(ValueError, match="'mask' has another geometry than the signal"):
        mtr_asym(sequence(grid), b0=zero_b0(grid), mask=mask)
    Geometry(grid.shape, np.linalg.inv(matrix) @ grid.ijk_to_ras).apply_to(mask)
    values = volume_array(mtr_asym(sequence(grid), b0=zero_b0(grid), mask=mask).nodes["mtr_asym_3.5ppm"])
    np.testing.assert_array_equal(np.isfinite(values), chosen > 0)


def test_a_signal_under_a_transform_gives_maps_that_align_in_the_world(slicer: ModuleType) -> None:
    grid = GRIDS["left-handed oblique"]
    node = sequence(grid)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(node.GetID())
    slicer.modules.sequences.logic().UpdateAllProxyNodes()
    proxy = browser.GetProxyNode(node)
    matrix = under_transform(slicer, proxy)
    moved = Geometry(grid.shape, matrix @ grid.ijk_to_ras)
    # the field map lies where the signal is shown; anywhere else, voxels would have no value
    result = mtr_asym(node, b0=zero_b0(moved)).nodes["mtr_asym_3.5ppm"]
    assert Geometry.of(result).matches(moved)
    assert Geometry.of(result).matches(Geometry.of(proxy))
    np.testing.assert_allclose(volume_array(result), in_world(grid), atol=1e-6)


def test_regions_of_a_segmentation_on_another_grid(slicer: ModuleType) -> None:
    grid = GRIDS["anisotropic"]
    finer = Geometry(tuple(2 * n for n in grid.shape), grid.ijk_to_ras @ half_voxels())
    coarse = np.zeros(grid.shape, bool)
    coarse[1:3, 1:4, 2:5] = True
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    segmentation = add_segmentation({"tumour": fine, "nothing": np.zeros_like(fine)}, finer, "regions")
    result = mtr_asym(sequence(grid), b0=zero_b0(grid), segmentation=segmentation)
    columns = table_columns(result.table)
    assert columns["region"] == ["tumour", "nothing"]
    assert columns["n"] == [coarse.sum(), 0]
    assert columns["mean"][0] == pytest.approx(in_world(grid)[coarse].mean(), rel=1e-5)
    assert np.isnan(columns["mean"][1])
    (told,) = [w for w in result.report["warnings"] if "region" in w]
    assert told.startswith("the region 'nothing' has no voxel in ")
    assert "lies outside" not in told


def test_a_region_outside_of_the_mask_is_told(slicer: ModuleType) -> None:
    grid = GRIDS["LPS"]
    inside, outside = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    inside[0, 1:3], outside[2:, 3] = True, True
    mask = add_segmentation({"brain": inside}, grid, "mask")
    regions = add_segmentation({"brain": inside, "tumour": outside}, grid, "regions")
    result = mtr_asym(sequence(grid), b0=zero_b0(grid), mask=mask, segmentation=regions)
    (told,) = [w for w in result.report["warnings"] if "region" in w]
    assert "the region 'tumour' has no voxel in" in told
    assert "(it lies outside of the mask)" in told


def half_voxels() -> np.ndarray:
    """Return the matrix from indices of a grid with half the voxel size to indices of the grid."""
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    matrix[:3, 3] = -0.25
    return matrix


def test_a_segmentation_serves_as_mask(slicer: ModuleType) -> None:
    grid = GRIDS["LPS"]
    one, two = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    one[0, 1:3], two[2:, 3] = True, True
    segmentation = add_segmentation({"a": one, "b": two}, grid, "mask")
    values = volume_array(mtr_asym(sequence(grid), b0=zero_b0(grid), mask=segmentation).nodes["mtr_asym_3.5ppm"])
    np.testing.assert_array_equal(np.isfinite(values), one | two)


def numeric_sequence(slicer: ModuleType, signal: np.ndarray, grid: Geometry, offsets: np.ndarray) -> object:
    """Add a sequence as Slicer makes it, with a numeric index, which Slicer keeps sorted."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cest")
    node.SetIndexName("offset")
    node.SetIndexUnit("ppm")
    node.SetIndexType(node.NumericIndex)
    for value, array in zip(offsets, signal, strict=True):
        volume = add_volume(array, grid, "z")
        node.SetDataNodeAtValue(volume, str(value))
        slicer.mrmlScene.RemoveNode(volume)
    return node


def test_a_sequence_sorted_by_its_index_is_matched_with_the_protocol_by_offset(slicer: ModuleType) -> None:
    grid, acquired = GRIDS["axial"], [3, 0, 4, 1, 2]
    node = numeric_sequence(slicer, asymmetric(grid)[acquired] / M0, grid, OFFSETS[acquired])
    protocol = PROTOCOL | {"offsets_ppm": OFFSETS[acquired].tolist()}
    values = volume_array(mtr_asym(node, protocol=protocol, b0=zero_b0(grid)).nodes["mtr_asym_3.5ppm"])
    np.testing.assert_allclose(values, in_world(grid), atol=1e-6)


def test_a_sequence_with_other_offsets_than_the_protocol_is_refused(slicer: ModuleType) -> None:
    other = PROTOCOL | {"offsets_ppm": [-3.0, -1.0, 0.0, 1.0, 3.0]}
    with pytest.raises(ValueError, match=r"the offsets of 'cest' \(-3\.5, -1, …\) are not those of the protocol"):
        mtr_asym(sequence(GRIDS["axial"]), protocol=other)


def test_a_single_measurement_with_another_offset_than_the_protocol_is_refused(slicer: ModuleType) -> None:
    grid = GRIDS["axial"]
    node = numeric_sequence(slicer, asymmetric(grid)[:1] / M0, grid, OFFSETS[:1])
    with pytest.raises(ValueError, match=r"the offsets of 'cest' \(-3\.5\) are not those of the protocol"):
        mtr_asym(node, protocol=PROTOCOL | {"offsets_ppm": [3.0]})


@pytest.mark.parametrize("hz_per_ppm_of_index", [1.0, 127.73])
def test_offsets_in_hertz_are_put_into_their_order_by_an_index_in_hertz_or_in_ppm(
    slicer: ModuleType, hz_per_ppm_of_index: float
) -> None:
    grid = GRIDS["axial"]
    hertz = np.array([-40000.0, 640, -640, 480, -480, 320, -320, 160, -160, 0])
    signal = np.arange(1.0, 11.0)[:, None, None, None] * np.ones((1, *grid.shape))
    order = np.argsort(hertz)
    node = numeric_sequence(slicer, signal[order], grid, (hertz / hz_per_ppm_of_index)[order])
    protocol = {"field_strength_T": 3.0, "offsets_ppm": hertz.tolist(), "b1_uT": 1.0, "saturation_time_s": 1.0}
    study = Study.of(node, protocol, None, None, None)
    np.testing.assert_array_equal(study.raw[:, 0, 0, 0], np.arange(1, 11))
    np.testing.assert_allclose(study.protocol.offsets_ppm.numpy(), hertz / 127.73, rtol=1e-3)
    assert "are taken to be in Hz" in study.warnings[0]


class Index:
    """What ``acquisition_order`` needs of a sequence node."""

    def __init__(self, unit: str = "ppm") -> None:
        self._unit = unit

    def GetIndexUnit(self) -> str:
        return self._unit

    def GetName(self) -> str:
        return "z"


offsets_lists = st.lists(st.integers(-2000, 2000), min_size=2, max_size=30, unique=True)


@given(offsets_lists, st.randoms())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shuffled_index_is_put_into_the_order_of_the_protocol(values: list[int], random: object) -> None:
    offsets = np.array(values) / 100
    protocol = Protocol(3.0, offsets, 1.0, 1.0)
    index = offsets.copy()
    random.shuffle(index)
    np.testing.assert_array_equal(index[acquisition_order(Index(), index, protocol)], offsets)
    # an index without the unit ppm does not contain offsets
    np.testing.assert_array_equal(acquisition_order(Index(""), index, protocol), np.arange(len(index)))


@given(offsets_lists, st.data())
@settings(max_examples=40, deadline=None)
def test_repeated_offsets_are_never_guessed(values: list[int], data: st.DataObject) -> None:
    """With repeated offsets, measurements are used in the stored order if it is the protocol's, else refused."""
    repeated = np.array([*values, data.draw(st.sampled_from(values))]) / 100
    protocol = Protocol(3.0, repeated, 1.0, 1.0)
    np.testing.assert_array_equal(acquisition_order(Index(), repeated, protocol), np.arange(len(repeated)))
    shuffled = repeated[data.draw(st.permutations(range(len(repeated))))]
    if not np.array_equal(shuffled, repeated):
        with pytest.raises(ValueError, match="repeated offsets leave the order open"):
            acquisition_order(Index(), shuffled, protocol)


def test_array_on_of_a_map_agrees_with_itk(slicer: ModuleType) -> None:
    """Compare the resampling of a field map with SimpleITK's, which uses another convention (LPS)."""
    grid, other = GRIDS["left-handed oblique"], larger(GRIDS["left-handed oblique"], rotation((0, 15, 40)))
    field = np.random.default_rng(1).normal(size=other.shape).astype(np.float32)
    ours = array_on(add_volume(field, other, "b0"), grid)
    reference = sitk.Image(grid.shape[::-1], sitk.sitkFloat32)
    reference.CopyInformation(grid.to_sitk(np.zeros(grid.shape, np.float32)))
    theirs = sitk.Resample(other.to_sitk(field), reference, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear)
    np.testing.assert_allclose(ours, sitk.GetArrayFromImage(theirs), atol=1e-4)
