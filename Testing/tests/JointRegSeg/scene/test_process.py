"""Runs of the logic on two visits in the scene, on any grids and under any parents: all results or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from joint_studies import (
    HeadStudy,
    by_node,
    by_sitk,
    points_in_head,
    registration_error,
    scene_contents,
    small_weights,
    table_position,
)

from JointRegSegLib.logic import JointRegSegLogic
from NeuroCESTLib.batch.anonymity import anonymous
from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.core.whole_files import written_as
from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import add_volume, array_on, volume_array


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small untrained networks on 4 mm voxels: one segments and registers, one registers only."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        "joint": small_weights(folder / "joint.pt"),
        "registration": small_weights(folder / "registration.pt", segmentation=False),
    }


@pytest.fixture
def processed(slicer: ModuleType, weights: dict[str, Path]) -> Callable[..., object]:
    """Process studies (nodes by modality) quickly, with changes; ``network`` is one of ``weights``."""

    def run(fixed: dict, moving: dict, network: str = "registration", **changes: object) -> object:
        options = {"weights": weights[network], "affine": "none", "refine": 10, "flips": False, "device": "cpu"}
        return JointRegSegLogic().process(fixed, moving, **(options | changes))

    return run


@pytest.fixture
def visits() -> tuple[HeadStudy, HeadStudy]:
    return HeadStudy.of("left-handed oblique"), HeadStudy.of("LPS", second=True)


@pytest.mark.parametrize(
    ("fixed", "moving", "parents", "affine", "share"),
    [
        ("axial", "oblique", (False, False), "affine", 0.5),
        ("left-handed oblique", "sagittal", (True, True), "none", 0.8),
        ("LPS", "left-handed", (False, True), "none", 0.8),
    ],
)
def test_visits_are_registered_whatever_their_grids_and_parent_transforms(
    slicer: ModuleType, processed: Callable, fixed: str, moving: str, parents: tuple, affine: str, share: float
) -> None:
    """``share`` is the largest fraction of the initial distance between the visits that may remain."""
    studies = HeadStudy.of(fixed), HeadStudy.of(moving, second=True)
    nodes = [
        study.nodes(name, parent=table_position(slicer) if parent else None)
        for study, name, parent in zip(studies, ("fixed", "moving"), parents, strict=True)
    ]
    before = scene_contents(slicer)
    tumors = [add_segmentation_of(study, name) for study, name in zip(studies, ("a", "b"), strict=True)]
    result = processed(*nodes, affine=affine, fixedTumor=tumors[0], movingTumor=tumors[1])
    points = points_in_head()
    mapped = by_node(result.transform, points, to_parent=False)
    np.testing.assert_allclose(mapped, by_sitk(result.joint.moving_to_fixed, points), atol=0.05)
    np.testing.assert_allclose(by_node(result.transform, mapped, to_parent=True), points, atol=0.2)
    start = registration_error(points, points)
    assert registration_error(points, mapped) < share * start
    assert Geometry.of(result.jacobian).matches(studies[0].grid)
    masks = masks_on(result.warpedSegmentation, studies[0].grid)
    truth = studies[0].visit.labels > 0
    overlap = np.logical_or.reduce(list(masks.values()))
    assert 2 * (overlap & truth).sum() / (overlap.sum() + truth.sum()) > 0.6
    after = scene_contents(slicer)
    assert before.items() <= after.items()


def add_segmentation_of(study: HeadStudy, name: str) -> object:
    names = {1: "Necrotic core", 2: "Oedema", 3: "Enhancing tumour"}
    return add_segmentation({text: study.visit.labels == n for n, text in names.items()}, study.grid, name)


def test_given_segmentations_are_returned_unchanged_with_their_volumes(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    tumors = [add_segmentation_of(study, name) for study, name in zip(visits, ("a", "b"), strict=True)]
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    result = processed(*nodes, refine=0, fixedTumor=tumors[0], movingTumor=tumors[1])
    for node, study in zip((result.fixedSegmentation, result.movingSegmentation), visits, strict=True):
        for number, mask in enumerate(masks_on(node, study.grid).values(), start=1):
            np.testing.assert_array_equal(mask, study.visit.labels == number)
    columns = table_columns(result.volumes)
    rows = dict(zip(zip(columns["study"], columns["region"], strict=True), columns["volume_ml"], strict=True))
    for which, study in zip(("fixed", "moving"), visits, strict=True):
        whole = (study.visit.labels > 0).sum() * study.grid.voxel_volume_mm3 / 1000
        assert rows[which, "whole_tumor"] == pytest.approx(whole, rel=1e-6)


def test_one_modality_is_enough_to_register(slicer: ModuleType, processed: Callable, visits: tuple) -> None:
    nodes = [study.nodes(name, ("t2",)) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    as_list = processed([None, None, nodes[0]["t2"]], [None, None, nodes[1]["t2"], None], weights="none", refine=0)
    assert as_list.fixedSegmentation is as_list.movingSegmentation is as_list.volumes is None
    assert list(as_list.warped) == ["t2"]
    result = processed({"T2": nodes[0]["t2"]}, {"t2w": nodes[1]["t2"]})
    points = points_in_head(50)
    start = registration_error(points, points)
    assert registration_error(points, by_node(result.transform, points, False)) < 0.8 * start


def test_a_network_gives_segmentations_uncertainty_and_volumes(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    result = processed(*nodes, "joint", refine=0, flips=True, folderName="mine")
    for which, study in zip(("fixed", "moving"), visits, strict=True):
        values = volume_array(result.uncertainty[which])
        assert Geometry.of(result.uncertainty[which]).matches(study.grid)
        assert 0 <= values.min() < values.max() <= 1
    assert hierarchy.folder_named("mine") == result.folderItemID
    assert hierarchy.nodes_in(result.folderItemID) == result.nodes
    assert result.volumes is not None
    assert result.changes is not None


def test_cest_maps_and_segmentations_are_carried_along(slicer: ModuleType, processed: Callable, visits: tuple) -> None:
    fixed, moving = visits
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    grid = moving.grid
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    world = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ grid.ijk_to_ras.T
    amide = add_volume(world[..., 0].astype(np.float32), grid, "amide")  # the R coordinate of each voxel in mm
    display.show_map(amide, "mM", "viridis", (-50.0, 50.0))
    labels = add_volume(moving.visit.labels, grid, "labels", label=True)
    regions = add_segmentation({"tumour": moving.visit.labels > 0}, grid, "regions")
    result = processed(*nodes, carry=[amide, labels, regions])
    on_fixed = dict(zip(("amide", "labels", "regions"), result.carried, strict=True))
    assert [node.GetName() for node in result.carried] == [f"{name} on fixed" for name in on_fixed]
    assert display.unit_of(on_fixed["amide"]) == "mM"
    assert on_fixed["amide"].GetDisplayNode().GetColorNode().GetName() == "NeuroCEST viridis"
    centres = np.argwhere(fixed.visit.brain)[::211]
    points = np.column_stack([centres[:, ::-1], np.ones(len(centres))]) @ fixed.grid.ijk_to_ras.T
    found = volume_array(on_fixed["amide"])[tuple(centres.T)]
    mapped = by_sitk(result.joint.moving_to_fixed, points[:, :3])[:, 0]
    inside = np.isfinite(found)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(found[inside], mapped[inside], atol=1e-2)
    mask = masks_on(on_fixed["regions"], fixed.grid)["tumour"]
    label = volume_array(on_fixed["labels"]) > 0
    assert 2 * (mask & label).sum() / (mask.sum() + label.sum()) > 0.8


def test_carried_maps_move_with_the_image_on_whose_grid_they_lie(slicer: ModuleType, processed: Callable) -> None:
    """The patient moved by 12 mm before FLAIR of the second visit, and a map was made from it."""
    spacing_mm = (3.0, 3.0, 3.0)
    fixed, moving = (HeadStudy.of("axial", spacing_mm=spacing_mm) for _ in range(2))
    shift = np.eye(4)
    shift[0, 3] = 12.0
    apart = Geometry(moving.grid.shape, shift @ moving.grid.ijk_to_ras)
    nodes = moving.nodes("moving", ("t1",)) | {"flair": add_volume(moving.visit.images["flair"], apart, "moving flair")}
    labels = moving.visit.labels
    half = Geometry((labels.shape[0], labels.shape[1], labels.shape[2] - 1), apart.ijk_to_ras)
    carry = [
        add_volume(labels, apart, "of flair", label=True),
        add_volume(labels, moving.grid, "of t1", label=True),
        add_segmentation({"tumour": labels > 0}, apart, "segments of flair"),
        add_volume(labels[..., :-1], half, "of neither", label=True),
    ]
    with anonymous(["moving_flair.nii.gz"]):
        result = processed(fixed.nodes("fixed"), nodes, network="registration", refine=0, carry=carry)
        shown = [written_as.get()(text) for text in result.warnings]
    assert list(result.joint.positions["moving"]) == ["flair"]
    of_flair, of_t1, segments, _ = result.carried
    for found in (volume_array(of_flair), volume_array(of_t1), masks_on(segments, fixed.grid)["tumour"]):
        overlap = ((found > 0) & (labels > 0)).sum()
        assert 2 * overlap / ((found > 0).sum() + (labels > 0).sum()) > 0.8
    doubtful = [text for text in result.warnings if "is taken to lie with the T1 image of the moving study" in text]
    assert len(doubtful) == 1
    assert doubtful[0].startswith("'of neither' is taken to lie with")
    assert "put it first under the transform 'moving FLAIR position'" in doubtful[0]
    assert "or resample its file with moving_flair_position.tfm" in doubtful[0]
    assert doubtful[0] in shown  # with --anonymous, whatever the inputs are called
    # what is asked for brings it into the position of T1
    (position,) = result.positions
    assert position.GetName() == "moving FLAIR position"
    assert position in result.nodes
    carry[3].SetAndObserveTransformNodeID(position.GetID())
    at = Geometry.of(carry[3]).ijk_to_ras @ (100, 100, 100, 1) - moving.grid.ijk_to_ras @ (100, 100, 100, 1)
    assert np.linalg.norm(at) < 3
    image = half.to_sitk(labels[..., :-1])
    resampled = sitk.Resample(image, image, result.joint.positions["moving"]["flair"], sitk.sitkNearestNeighbor)
    found = sitk.GetArrayFromImage(sitk.Resample(resampled, moving.grid.to_sitk(labels))) > 0
    assert 2 * (found & (labels > 0)).sum() / (found.sum() + (labels > 0).sum()) > 0.8


def test_labels_on_the_grid_of_images_that_lay_apart_are_carried_as_the_tumor_is_which_is_told(
    slicer: ModuleType, processed: Callable
) -> None:
    """The patient moved by 12 mm between T1 and T1ce, which have the same voxels."""
    study = HeadStudy.of("axial", spacing_mm=(3.0, 3.0, 3.0))
    nodes, labels = study.nodes("moving", ("t1",)), study.visit.labels
    nodes["t1ce"] = add_volume(np.roll(study.visit.images["t1ce"], 4, 2), study.grid, "moving t1ce")
    drawn = np.roll(labels, 4, 2)  # on T1ce
    tumor = add_segmentation({"Oedema": drawn > 0}, study.grid, "tumour")
    noise = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    carry = [tumor, add_volume(drawn, study.grid, "numbers"), add_volume(noise, study.grid, "map")]
    result = processed(study.nodes("fixed"), nodes, movingTumor=tumor, refine=0, carry=carry)
    assert list(result.joint.positions["moving"]) == ["t1ce"]
    warped = np.any(list(masks_on(result.warpedSegmentation, study.grid).values()), axis=0)
    copies = masks_on(result.carried[0], study.grid)["Oedema"], volume_array(result.carried[1]) > 0
    for found in (warped, *copies):
        assert 2 * (found & (labels > 0)).sum() / (found.sum() + (labels > 0).sum()) > 0.8
    np.testing.assert_allclose(volume_array(result.carried[2])[3:-3, 3:-3, 3:-3], noise[3:-3, 3:-3, 3:-3], atol=0.1)
    for name, taken in (("tumour", "T1ce"), ("numbers", "T1ce"), ("map", "T1")):
        (told,) = [text for text in result.warnings if text.startswith(f"'{name}' has the voxels of")]
        assert told.startswith(
            f"'{name}' has the voxels of T1 and T1ce, which lay apart, so it is taken to lie on the {taken} image"
        )


def test_what_is_carried_along_is_taken_as_it_was_when_the_run_began(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    study = visits[0]
    nodes = [study.nodes(name, ("t1",)) for name in ("fixed", "moving")]
    values = study.visit.images["t2"].astype(np.float32) + 0.5
    shift = np.eye(4)
    shift[0, 3] = 20.0
    elsewhere = Geometry(study.grid.shape, np.linalg.inv(shift) @ study.grid.ijk_to_ras)
    parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
    amide = add_volume(values, elsewhere, "amide")
    display.show_map(amide, "mM", "viridis", (0.0, 1.0))
    regions = add_segmentation({"core": study.visit.labels > 0}, elsewhere, "regions")
    for node in (amide, regions):
        node.SetAndObserveTransformNodeID(parent.GetID())

    def remove(fraction: float, message: str) -> None:
        if fraction > 0.2 and amide.GetScene() is not None:
            regions.GetSegmentation().AddEmptySegment("late", "late")
            for node in (amide, regions, parent):
                slicer.mrmlScene.RemoveNode(node)

    result = processed(*nodes, refine=0, carry=[amide, regions], progress=remove)
    assert amide.GetScene() is None
    found = volume_array(result.carried[0])
    inside = np.isfinite(found)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(found[inside], values[inside], atol=0.05 * values.max())
    assert display.unit_of(result.carried[0]) == "mM"
    masks = masks_on(result.carried[1], study.grid)
    assert list(masks) == ["core"]
    np.testing.assert_array_equal(masks["core"], study.visit.labels > 0)


def test_what_a_carried_segmentation_has_beyond_the_fixed_image_is_told(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    study = visits[0]
    labels = study.visit.labels > 0
    first, last = np.flatnonzero(labels.any((1, 2)))[[0, -1]]
    middle = int(first + last) // 2
    slab = Geometry((middle, *study.grid.shape[1:]), study.grid.ijk_to_ras)
    fixed = {"t1": add_volume(study.visit.images["t1"][:middle], slab, "fixed t1")}
    tumor = add_segmentation({"Oedema": labels}, study.grid, "tumour")
    numbers = add_volume(study.visit.labels, study.grid, "numbers", label=True)
    result = processed(fixed, study.nodes("moving", ("t1",)), affine="none", refine=0, carry=[tumor, numbers])
    voxel_ml = study.grid.voxel_volume_mm3 / 1000
    lost_ml = labels[middle:].sum() * voxel_ml
    for name in ("tumour", "numbers"):
        (told,) = [text for text in result.warnings if text.startswith(f"'{name}' reaches beyond the fixed image: ")]
        lost, whole = (float(number) for number in re.findall(r"(\d+\.\d) (?:of|ml)", told))
        assert lost == pytest.approx(lost_ml, rel=0.1)
        assert whole == pytest.approx(labels.sum() * voxel_ml, abs=0.1)


def test_segmentations_keep_what_lies_beyond_the_first_image(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    study = visits[0]
    labels = study.visit.labels > 0
    first = int(np.flatnonzero(labels.any((1, 2)))[0])
    kept = slice(first - 7, first + 3)
    shift = np.eye(4)
    shift[2, 3] = kept.start
    slab = Geometry((10, *study.grid.shape[1:]), study.grid.ijk_to_ras @ shift)
    tumor = add_segmentation({"Oedema": labels}, study.grid, "tumour")
    moving = {"t1": add_volume(study.visit.images["t1"][kept], slab, "moving t1")}
    result = processed(study.nodes("fixed", ("t1",)), moving, movingTumor=tumor, carry=[tumor], affine="none")
    (carried,) = result.carried
    np.testing.assert_array_equal(masks_on(carried, study.grid)["Oedema"], labels)
    volume_ml = next(row.volume_ml for row in result.joint.volumes if (row.study, row.region) == ("moving", "edema"))
    assert volume_ml == pytest.approx(labels.sum() * study.grid.voxel_volume_mm3 / 1000)


def test_segmentations_serve_cestquant_as_regions_in_the_same_place(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    """The modules exchange data through the scene only: CEST values per tumour compartment."""
    from CESTQuantLib.logic import CESTQuantLogic
    from NeuroCESTLib.scene.sequences import array_to_sequence

    fixed = visits[0]
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    tumors = [add_segmentation_of(study, name) for study, name in zip(visits, ("a", "b"), strict=True)]
    result = processed(*nodes, fixedTumor=tumors[0], movingTumor=tumors[1])
    # an acquisition of one slice, whose asymmetry is 1 % in healthy tissue and 2, 3, 4 % in the compartments
    middle = int((fixed.visit.labels == 1).sum(axis=(1, 2)).argmax())
    labels = fixed.visit.labels[middle : middle + 1]
    matrix = fixed.grid.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * middle
    grid = Geometry(labels.shape, matrix)
    offsets = np.array([-3.5, -1.0, 0.0, 1.0, 3.5])
    signal = np.stack([np.full(labels.shape, z) for z in (0.9, 0.5, 0.1, 0.5, 0.9)])
    signal[-1] -= np.array([0.01, 0.02, 0.03, 0.04])[labels]
    sequence = array_to_sequence(signal.astype(np.float32), grid, "cest", offsets)
    fit = CESTQuantLogic().fit(
        sequence,
        {"field_strength_T": 3.0, "offsets_ppm": offsets.tolist(), "b1_uT": 1.0, "saturation_time_s": 2.0},
        method="mtrasym",
        b0=add_volume(np.zeros(grid.shape, np.float32), grid, "b0"),
        segmentation=result.fixedSegmentation,
        signalNormalisation="none",
        device="cpu",
    )
    table = table_columns(fit.table)
    rows = {
        region: mean
        for region, quantity, mean in zip(table["region"], table["quantity"], table["mean"], strict=True)
        if quantity == "mtr_asym_3.5ppm"
    }
    assert rows == pytest.approx({"Necrotic core": 0.02, "Oedema": 0.03, "Enhancing tumour": 0.04}, abs=1e-6)
    # and the map follows the transform to the other visit
    asymmetry = fit.nodes["mtr_asym_3.5ppm"]
    asymmetry.SetAndObserveTransformNodeID(result.transform.GetID())
    to_world = asymmetry.GetParentTransformNode()
    centre = grid.ijk_to_ras @ [grid.shape[2] / 2, grid.shape[1] / 2, 0, 1]
    mapped = by_sitk(result.joint.moving_to_fixed, centre[None, :3])
    np.testing.assert_allclose(by_node(to_world, mapped, True), centre[None, :3], atol=0.2)


@pytest.mark.parametrize("stop_at", [0.0, 0.2, 0.6, 0.92])
def test_a_cancel_at_any_time_leaves_the_scene_as_it_was(
    slicer: ModuleType, processed: Callable, visits: tuple, stop_at: float
) -> None:
    seen = []

    def progress(fraction: float, message: str = "") -> None:
        seen.append(fraction)
        if fraction >= stop_at:
            raise Cancelled

    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    before = scene_contents(slicer)
    with pytest.raises(Cancelled):
        processed(*nodes, progress=progress)
    assert scene_contents(slicer) == before
    assert seen == sorted(seen)


def test_progress_runs_from_0_to_1(slicer: ModuleType, processed: Callable, visits: tuple) -> None:
    seen = []
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    processed(*nodes, progress=lambda fraction, message="": seen.append(fraction))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert len(seen) > 8


def test_a_failure_while_results_are_written_leaves_the_scene_as_it_was(
    slicer: ModuleType, processed: Callable, visits: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    before = scene_contents(slicer)
    monkeypatch.setattr(hierarchy, "put", lambda nodes, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        processed(*nodes, refine=0)
    assert scene_contents(slicer) == before


def _constant(nodes: dict, slicer: ModuleType) -> None:
    slicer.util.arrayFromVolume(nodes["t1"])[:] = 3


def _bent(nodes: dict, slicer: ModuleType) -> None:
    from joint_studies import bent_transform

    nodes["t1"].SetAndObserveTransformNodeID(bent_transform(slicer).GetID())


def _sheared(nodes: dict, slicer: ModuleType) -> None:
    parent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shear")
    matrix = np.eye(4)
    matrix[0, 1] = 0.2
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    nodes["t1"].SetAndObserveTransformNodeID(parent.GetID())


def _elsewhere(nodes: dict, slicer: ModuleType) -> None:
    nodes["t1"].SetOrigin(900, 900, 900)


def _empty(nodes: dict, slicer: ModuleType) -> None:
    nodes["t1"] = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")


def _not_a_number(nodes: dict, slicer: ModuleType) -> None:
    slicer.util.arrayFromVolume(nodes["t1"])[:] = np.nan


def _twice(nodes: dict, slicer: ModuleType) -> None:
    nodes["flair"] = nodes["t1"]


def _no_image(nodes: dict, slicer: ModuleType) -> None:
    nodes.clear()


def _foreign_name(nodes: dict, slicer: ModuleType) -> None:
    nodes["dwi"] = nodes["t1"]


def _label_map(nodes: dict, slicer: ModuleType) -> None:
    nodes["t1"] = add_segmentation({"a": np.ones((4, 4, 4), bool)}, Geometry.from_spacing((4, 4, 4)), "segments")


def _name_of_node(nodes: dict, slicer: ModuleType) -> None:
    nodes["t1"] = "fixed t1"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            _constant,
            r"the t1 image 'fixed t1' of the fixed study is constant \(3 everywhere\) and shows no anatomy: "
            "choose another image or leave it out",
        ),
        (_bent, "'fixed t1' is under the non-linear transform 'bent': harden it first"),
        (_sheared, "the t1 image 'fixed t1' of the fixed study has axes that are not perpendicular"),
        (
            _elsewhere,
            "the flair image 'fixed flair' of the fixed study lies elsewhere in space than the t1 image 'fixed t1' of",
        ),
        (_empty, "'nothing' has no image"),
        (_not_a_number, "the t1 image 'fixed t1' of the fixed study is not finite in 100 %"),
        (_twice, "'fixed t1' is given for T1 and for FLAIR of the fixed study: give it for one of them"),
        (_no_image, "the fixed study has no image"),
        (_foreign_name, "modality 'dwi' is unknown"),
        (_label_map, "'segments' is not a scalar volume"),
        (_name_of_node, r"'fixed t1' is not a node of the scene: give .* slicer.util.getNode\('fixed t1'\)"),
    ],
)
def test_an_unusable_study_is_refused_in_one_sentence_and_leaves_the_scene_as_it_was(
    slicer: ModuleType, processed: Callable, visits: tuple, damage: Callable, words: str
) -> None:
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    damage(nodes[0], slicer)
    before = scene_contents(slicer)
    with pytest.raises(ValueError, match=words) as caught:
        processed(*nodes)
    assert "\n" not in str(caught.value)
    assert scene_contents(slicer) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "absent.pt"}, "absent.pt"),
        ({"carry": "amide"}, "'amide' is not a node of the scene"),
        ({"fixedMask": "brain"}, "'brain' is not a node of the scene"),
        ({"movingTumor": "segments"}, "'segments' is not a node of the scene"),
        ({"affine": "projective"}, "affine 'projective' is unknown"),
        ({"refine": -1}, "-1"),
        ({"similarity": "likeness"}, "similarity 'likeness' is unknown; use one of lncc, mse"),
        ({"device": "abacus"}, "device 'abacus' is unknown"),
    ],
)
def test_unusable_settings_are_refused(
    slicer: ModuleType, processed: Callable, visits: tuple, changes: dict, words: str
) -> None:
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    before = scene_contents(slicer)
    with pytest.raises(ValueError, match=words):
        processed(*nodes, **changes)
    assert scene_contents(slicer) == before


def test_a_node_or_name_in_place_of_the_nodes_of_a_study_is_told_what_to_give(
    processed: Callable, visits: tuple
) -> None:
    nodes = visits[0].nodes("fixed")
    for one, what in ((nodes["flair"], "node"), ("fixed flair", "name")):
        with pytest.raises(ValueError, match=rf"the moving study is given as one {what}: .* such as {{'t1': node}}"):
            processed(nodes, one)


def test_unusable_masks_and_segmentations_are_refused_by_name(
    slicer: ModuleType, processed: Callable, visits: tuple
) -> None:
    nodes = [study.nodes(name) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    grid = visits[0].grid
    empty = add_volume(np.zeros(grid.shape, np.uint8), grid, "empty", label=True)
    tumor = visits[0].visit.labels
    odd = add_volume(np.where(tumor > 1, 9, np.where(tumor > 0, 7, 0)).astype(np.uint8), grid, "odd labels", label=True)
    unnamed = add_segmentation({"Segment_1": tumor > 1, "Segment_2": tumor == 1}, grid, "drawn")
    shifted = grid.ijk_to_ras.copy()
    shifted[:3, 3] += 0.7 * grid.shape[2] * shifted[:3, 0]
    far = np.zeros(grid.shape, np.uint8)
    far[..., grid.shape[2] // 2 :] = 1  # beyond the images, which the box of the mask overlaps
    beyond = add_volume(far, Geometry(grid.shape, shifted), "beyond", label=True)
    undrawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "undrawn")
    before = scene_contents(slicer)
    for changes, words in (
        ({"fixedMask": empty}, "the brain mask 'empty' of the fixed study is empty: leave it out"),
        ({"fixedTumor": odd}, "tumour segmentation of the fixed study: the label map 'odd labels' has the values 7, 9"),
        (
            {"fixedTumor": unnamed},
            "tumour segmentation of the fixed study: the segment 'Segment_1' of 'drawn' is not a known",
        ),
        ({"carry": slicer.mrmlScene.GetSubjectHierarchyNode()}, "neither an image nor a segmentation"),
        ({"fixedMask": beyond}, "the brain mask 'beyond' of the fixed study has no voxel within the t1 image"),
        ({"carry": undrawn}, "'undrawn' has no segment"),
    ):
        with pytest.raises(ValueError, match=words):
            processed(*nodes, refine=0, **changes)
        assert scene_contents(slicer) == before


def test_the_sample_visits_are_two_folders_that_can_be_processed(slicer: ModuleType, processed: Callable) -> None:
    studies = JointRegSegLogic().addPhantom(spacing_mm=6.0)
    assert {node.GetName() for node in studies["moving"].values()} == {
        f"phantom visit 2 {name}" for name in ("T1", "T1ce", "T2", "FLAIR", "tumour")
    }
    for which, visit in (("fixed", 1), ("moving", 2)):
        assert len(hierarchy.nodes_in(hierarchy.folder_named(f"phantom visit {visit}"))) == 5
        tumor = studies[which].pop("tumor")
        grid = Geometry.of(studies[which]["t1"])
        brighter = array_on(studies[which]["flair"], grid)
        oedema = masks_on(tumor, grid)["Oedema"]
        assert brighter[oedema].mean() > 1.3 * brighter[brighter > 0].mean()
    points = points_in_head(50)
    result = processed(studies["fixed"], studies["moving"])
    start = registration_error(points, points)
    assert registration_error(points, by_node(result.transform, points, False)) < 0.8 * start


def test_images_of_any_number_type_are_accepted(slicer: ModuleType, processed: Callable, visits: tuple) -> None:
    nodes = [study.nodes(name, ("t1",)) for study, name in zip(visits, ("fixed", "moving"), strict=True)]
    other = visits[0].visit.images["t1"]
    for dtype in (np.int16, np.uint8, np.float64):
        node = add_volume(other.astype(dtype), visits[0].grid, "typed")
        result = processed({"t1": node}, nodes[1], refine=0)
        assert result.joint.jacobian.GetPixelID() == sitk.sitkFloat32
