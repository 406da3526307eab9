"""CESTQuantLogic as in the Python console: what a run adds to the scene, and that a failed one changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from studies import Acquisition, amine_model, write_json

from CESTQuantLib.logic import CESTQuantLogic
from CESTQuantLib.physics.protocol import Protocol
from NeuroCESTLib.core.progress import Cancelled
from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.segmentations import add_segmentation, masks_on
from NeuroCESTLib.scene.sequences import array_to_sequence, sequence_to_array
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import add_volume, volume_array


@pytest.fixture
def nodes(slicer: ModuleType, acquisition: Acquisition) -> dict[str, object]:
    """Add the acquisition to the scene: signal, reference, b0, b1, t1, segmentation."""
    grid = acquisition.geometry
    offsets = acquisition.protocol.offsets_ppm.numpy()
    half = np.zeros(grid.shape, bool)
    half[:2] = True
    return {
        "signal": array_to_sequence(acquisition.signal, grid, "cest", offsets),
        "reference": add_volume(acquisition.m0, grid, "m0"),
        **{name: add_volume(values, grid, name) for name, values in acquisition.maps.items()},
        "segmentation": add_segmentation({"half": half}, grid, "regions"),
    }


@pytest.fixture
def fitted(nodes: dict, acquisition: Acquisition) -> Callable[..., object]:
    """Return a function that runs the logic on the nodes, with changes; inputs given as None are left out."""

    def run(method: str = "r1rho", **changes: object) -> object:
        inputs = {name: node for name, node in nodes.items() if name != "b1"}
        options = {"protocol": acquisition.protocol, "model": amine_model(), **inputs, "device": "cpu", **changes}
        signal, protocol = options.pop("signal"), options.pop("protocol")
        return CESTQuantLogic().fit(signal, protocol, method=method, **options)

    return run


def contents(slicer: ModuleType) -> dict[str, str]:
    """Return a description of every node of the scene by its ID, and the items of the subject hierarchy."""
    import vtk

    subjects, items = slicer.mrmlScene.GetSubjectHierarchyNode(), vtk.vtkIdList()
    found = {}
    for i in range(slicer.mrmlScene.GetNumberOfNodes()):
        node = slicer.mrmlScene.GetNthNode(i)
        text = f"{node.GetName()} {node.GetNumberOfNodeReferences('display')}"
        if node.IsA("vtkMRMLScalarVolumeNode") and node.GetImageData() is not None:
            text += str(volume_array(node).tobytes())
        if node.IsA("vtkMRMLSequenceNode"):
            text += str(sequence_to_array(node)[0].tobytes())
        found[node.GetID()] = text
    subjects.GetItemChildren(subjects.GetSceneItemID(), items, True)
    for item in (items.GetId(i) for i in range(items.GetNumberOfIds())):
        found[f"item {item}"] = subjects.GetItemName(item)
    return found


def test_a_fit_adds_maps_with_units_colours_and_windows_in_one_folder(slicer: ModuleType, fitted: Callable) -> None:
    before = contents(slicer)
    result = fitted()
    expected = {
        "amine_fraction": ("", "viridis"),
        "amine_fraction_sd": ("", "inferno"),
        "amine_exchange_rate_Hz": ("Hz", "inferno"),
        "amine_exchange_rate_Hz_sd": ("Hz", "inferno"),
        "amine_concentration_mM": ("mM", "viridis"),
        "amine_concentration_mM_sd": ("mM", "inferno"),
        "rmse": ("", "inferno"),
    }
    assert result.nodes.keys() == {*expected, "status"}
    for name, (unit, colours) in expected.items():
        node = result.nodes[name]
        assert node.GetName() == name
        assert display.unit_of(node) == unit
        shown = node.GetDisplayNode()
        assert shown.GetColorNode().GetName() == f"NeuroCEST {colours}"
        assert not shown.GetAutoWindowLevel()
        values = volume_array(node)
        low, high = np.percentile(values[np.isfinite(values)], (2, 98))
        assert shown.GetWindowLevelMin() == pytest.approx(low, rel=1e-3)
        assert shown.GetWindowLevelMax() == pytest.approx(high, rel=1e-3)
    assert result.nodes["status"].IsA("vtkMRMLLabelMapVolumeNode")
    shown = {node.GetName() for node in hierarchy.nodes_in(result.folderItemID)}
    assert shown == {"amine_fraction", "amine_exchange_rate_Hz", "amine_concentration_mM", "regions"}
    below = hierarchy.nodes_in(result.folderItemID, below=True)
    assert set(below) == {*result.nodes.values(), result.table}
    assert result.mainMap is result.nodes["amine_concentration_mM"]
    assert hierarchy.folder_named("cest r1rho") == result.folderItemID
    after = contents(slicer)
    assert before.items() <= after.items()  # no input has changed
    assert set(table_columns(result.table)["region"]) == {"half"}
    assert result.report["medians"]["amine_fraction"] == pytest.approx(0.0025, rel=0.1)


@pytest.mark.parametrize(("method", "preset"), [("lorentzian", "3T"), ("plof", "plof_3T")])
def test_the_report_says_which_pools_a_method_takes_by_default(fitted: Callable, method: str, preset: str) -> None:
    assert fitted(method, model=None).report["lorentzian"] == preset
    assert "lorentzian" not in fitted(method, model=None, lorentzianPreset=preset).report  # a setting of the user


def test_signed_contrasts_have_a_window_about_zero(slicer: ModuleType, fitted: Callable) -> None:
    result = fitted("mtrasym", b0=None)
    for name in ("mtr_asym_3.5ppm", "b0_shift_ppm"):
        shown = result.nodes[name].GetDisplayNode()
        assert shown.GetWindowLevelMin() == -shown.GetWindowLevelMax() < 0
        assert shown.GetColorNode().GetName() == "NeuroCEST diverging"
    assert display.unit_of(result.nodes["b0_shift_ppm"]) == "ppm"


def test_each_run_has_its_own_folder_and_runs_share_colour_tables(slicer: ModuleType, fitted: Callable) -> None:
    first, second = fitted(), fitted()
    assert first.folderItemID != second.folderItemID
    assert {node.GetID() for node in first.nodes.values()}.isdisjoint(node.GetID() for node in second.nodes.values())
    tables = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode")]
    assert tables.count("NeuroCEST viridis") == 1


def test_the_same_run_again_gives_the_same_maps(fitted: Callable) -> None:
    first, second = (fitted("lorentzian").nodes["amide_amplitude"] for _ in range(2))
    np.testing.assert_array_equal(volume_array(first), volume_array(second))


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("r1rho", {"model": None}, "needs a tissue model"),
        ("r1rho", {"t1": None}, "the model refers to the map 't1', which is not given"),
        ("r1rho", {"model": amine_model() | {"water": {"T1_s": {"map": "x.nii.gz"}, "T2_s": 0.1}}}, "x.nii.gz"),
        ("lorentzian", {"lorentzianPreset": "9T"}, "preset '9T' is unknown"),
        ("mtrasym", {"asymmetryOffset_ppm": 40.0}, "±40 ppm"),
        ("quesp", {"b0": None}, "needs at least two pairs"),
        ("magic", {}, "method 'magic' is unknown"),
        ("mtrasym", {"protocol": "absent.json"}, "absent.json"),
        ("mtrasym", {"reference": None}, "no M0 reference for 'cest'"),
        ("mtrasym", {"signal": None}, "no signal is chosen"),
        ("mtrasym", {"device": "abacus"}, "device 'abacus' is unknown"),
    ],
)
def test_an_error_leaves_the_scene_as_it_was(
    slicer: ModuleType, fitted: Callable, method: str, changes: dict, words: str
) -> None:
    before = contents(slicer)
    with pytest.raises(ValueError, match=words):
        fitted(method, **changes)
    assert contents(slicer) == before


def test_a_single_volume_is_refused_as_signal(slicer: ModuleType, fitted: Callable, nodes: dict) -> None:
    with pytest.raises(
        ValueError, match="'m0' is one volume; the signal must be a sequence with one volume per measurement"
    ):
        fitted(signal=nodes["reference"])


def test_a_damaged_map_of_the_model_leaves_no_node(slicer: ModuleType, fitted: Callable, tmp_path: Path) -> None:
    (tmp_path / "t1.nii.gz").write_text("hello")
    model = amine_model() | {"water": {"T1_s": {"map": "t1.nii.gz"}, "T2_s": 0.1}}
    before = contents(slicer)
    with pytest.raises(ValueError, match=r"'.*t1\.nii\.gz' is not an image"):
        fitted(model=write_json(model, tmp_path / "model.json"))
    assert contents(slicer) == before


def test_a_failure_while_the_maps_are_written_leaves_the_scene_as_it_was(
    slicer: ModuleType, fitted: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(slicer)
    monkeypatch.setattr(hierarchy, "make_folder", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fitted()
    assert contents(slicer) == before


@pytest.mark.parametrize("stop_at", [0.0, 0.05, 0.5, 0.95])
def test_a_cancel_at_any_time_leaves_the_scene_as_it_was(slicer: ModuleType, fitted: Callable, stop_at: float) -> None:
    seen = []

    def progress(fraction: float, message: str = "") -> None:
        seen.append(fraction)
        if fraction >= stop_at:
            raise Cancelled

    before = contents(slicer)
    with pytest.raises(Cancelled):
        fitted("bloch-mcconnell", progress=progress)
    assert contents(slicer) == before
    assert seen == sorted(seen)


def test_any_exception_at_random_moments_leaves_nodes_attributes_selection_and_threads_as_before(
    slicer: ModuleType, fitted: Callable
) -> None:
    calls: list[float] = []
    fitted("mtrasym", progress=lambda fraction, message="": calls.append(fraction))

    def state() -> tuple:
        names = [node.GetAttributeNames() for node in slicer.util.getNodesByClass("vtkMRMLNode")]
        nodes = slicer.util.getNodesByClass("vtkMRMLSelectionNode")
        selection = [(node.GetActiveVolumeID(), node.GetActiveLabelVolumeID()) for node in nodes]
        return contents(slicer), names, selection, threading.active_count()

    before = state()
    random = np.random.default_rng(5)
    for error in (Cancelled, KeyboardInterrupt, SystemExit, ZeroDivisionError, StopIteration, GeneratorExit):
        left = int(random.integers(1, len(calls) + 1))

        def progress(fraction: float, message: str = "", error: type[BaseException] = error) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise error

        with pytest.raises(error):
            fitted("mtrasym", progress=progress)
        assert state() == before


@pytest.mark.parametrize("method", ["mtrasym", "lorentzian", "r1rho", "bloch-mcconnell"])
def test_progress_runs_from_begin_to_end(fitted: Callable, method: str) -> None:
    seen = []
    fitted(method, progress=lambda fraction, message="": seen.append((fraction, message)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_m0_may_be_a_sequence(slicer: ModuleType, fitted: Callable, acquisition: Acquisition) -> None:
    grid = acquisition.geometry
    double = array_to_sequence(np.stack([acquisition.m0] * 2), grid, "m0s", [0, 1], "measurement", "")
    by_volume, by_sequence = (
        volume_array(fitted("mtrasym", **changes).nodes["mtr_asym_3.5ppm"]) for changes in ({}, {"reference": double})
    )
    np.testing.assert_allclose(by_volume, by_sequence, atol=1e-6)
    far = array_to_sequence(np.ones((2, 2, 2, 2)), type(grid)((2, 2, 2), np.eye(4)), "far", [0, 1])
    with pytest.raises(ValueError, match="the reference 'far' has another geometry"):
        fitted("mtrasym", reference=far)


def test_t1_in_ms_and_b1_in_percent_are_noticed(
    slicer: ModuleType, fitted: Callable, nodes: dict, acquisition: Acquisition
) -> None:
    grid = acquisition.geometry
    t1 = add_volume(acquisition.maps["t1"] * 1000, grid, "t1 in ms")
    b1 = add_volume(acquisition.maps["b1"] * 100, grid, "b1 in percent")
    plain, scaled = fitted(b1=nodes["b1"]), fitted(t1=t1, b1=b1)
    assert plain.report["warnings"] == []
    assert [line.split(" has a median")[0] for line in scaled.report["warnings"]] == [
        "the B1 map 'b1 in percent'",
        "the T1 map 't1 in ms'",
    ]
    maps = [volume_array(result.nodes["amine_fraction"]) for result in (plain, scaled)]
    np.testing.assert_allclose(*maps, rtol=1e-4)


def test_analytic_solution_near_water_is_warned_about(fitted: Callable, acquisition: Acquisition) -> None:
    from dataclasses import replace

    short = replace(acquisition.protocol, saturation_time_s=0.2)
    regime, error, undetermined = fitted(protocol=short).report["warnings"]
    assert "does not determine amine.fraction" in undetermined  # such a misfit hides it
    assert "the saturation is short against T2 of water" in regime
    assert "at the fitted values r1rho is off by up to" in error
    for warning in (regime, error):
        assert "prefer bloch-mcconnell" in warning
    assert fitted("lorentzian", protocol=short).report["warnings"] == []


def test_offsets_can_come_from_the_sequence(slicer: ModuleType, fitted: Callable, acquisition: Acquisition) -> None:
    by_protocol, by_index = (
        volume_array(fitted("mtrasym", **changes).nodes["mtr_asym_3.5ppm"]) for changes in ({}, {"protocol": None})
    )
    np.testing.assert_array_equal(by_protocol, by_index)
    counted = array_to_sequence(acquisition.signal, acquisition.geometry, "plain", range(21), "measurement", "")
    with pytest.raises(ValueError, match="'plain' does not say its offsets in ppm; give a protocol"):
        fitted("mtrasym", signal=counted, protocol=None)


def test_unusable_voxels_are_nan_with_a_status(slicer: ModuleType, fitted: Callable, acquisition: Acquisition) -> None:
    signal = acquisition.signal.copy()
    signal[:, 0, 0, 0], signal[3, 0, 0, 1] = 0, np.nan
    node = array_to_sequence(signal, acquisition.geometry, "holes", acquisition.protocol.offsets_ppm.numpy())
    maps = {"mtrasym": "mtr_asym_3.5ppm", "lorentzian": "water_amplitude", "r1rho": "amine_fraction"}
    for method, name in maps.items():
        result = fitted(method, signal=node)
        bad = np.zeros(acquisition.geometry.shape, bool)
        bad[0, 0, :2] = True
        if method == "mtrasym":
            bad[0, 0, 1] = np.isnan(volume_array(result.nodes[name])[0, 0, 1])  # the missing offset may be far away
        np.testing.assert_array_equal(np.isnan(volume_array(result.nodes[name])), bad)
        np.testing.assert_array_equal(volume_array(result.nodes["status"]) == 5, bad)


def test_regions_leave_no_trace_in_the_scene(slicer: ModuleType, nodes: dict, acquisition: Acquisition) -> None:
    """Nor does making them: what slicer.util leaves of its temporary label maps is cleared away."""
    assert slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeDisplayNode") == []
    before = contents(slicer)
    assert masks_on(nodes["segmentation"], acquisition.geometry)["half"].sum() == 60
    assert contents(slicer) == before


def test_messages_name_the_node_or_the_file_that_they_are_about(fitted: Callable, tmp_path: Path) -> None:
    offsets = {"protocol": None}  # those of the sequence, which does not say its saturation
    with pytest.raises(ValueError, match=r"^'cest': the protocol gives no saturation time and B1; r1rho needs"):
        fitted(**offsets)
    water = write_json({"water": {"T1_s": 1.5, "T2_s": 0.1}}, tmp_path / "water.json")
    with pytest.raises(ValueError, match=rf"^'{water}': the model has no fitted value"):
        fitted(model=str(water))
    with pytest.raises(ValueError, match=r"^'b0': pairs of single offsets cannot be shifted by a B0 map"):
        fitted("quesp")
    with pytest.raises(ValueError, match=r"^the noise of a normalised signal must be a positive number, not -1"):
        fitted(noise_sd=-1.0)


def test_repeats_give_dim_voxels_a_larger_error_than_bright_ones(slicer: ModuleType) -> None:
    """The noise is that of the image over M0, which differs tenfold between the two halves."""
    grid = Geometry((1, 20, 20), np.eye(4))
    offsets = np.repeat([-4.0, -3.5, -3.0, 0.0, 3.0, 3.5, 4.0], 4)
    m0 = np.full(grid.shape, 1000.0)
    m0[:, :10] = 100.0
    noise = np.random.default_rng(1).normal(0, 5, (len(offsets), *grid.shape))
    signal = array_to_sequence(np.where(offsets == 0, 0.1, 0.8)[:, None, None, None] * m0 + noise, grid, "z", offsets)
    protocol = Protocol(3.0, offsets, 2.0, 2.0)
    result = CESTQuantLogic().fit(signal, protocol, method="mtr", reference=add_volume(m0, grid, "m0"))
    error = volume_array(result.nodes["mtr_3.5ppm_sd"])
    assert np.median(error[:, :10]) / np.median(error[:, 10:]) == pytest.approx(10, rel=0.1)


def test_images_of_noise_give_a_warning_and_not_a_map_without_a_word(slicer: ModuleType) -> None:
    grid = Geometry((1, 20, 20), np.eye(4))
    offsets = np.linspace(-6, 6, 25)
    images = np.abs(np.random.default_rng(1).normal(0, 50, (26, *grid.shape)))
    signal, protocol = array_to_sequence(images[:25], grid, "noise", offsets), Protocol(3.0, offsets, 2.0, 2.0)
    result = CESTQuantLogic().fit(signal, protocol, method="aptw", reference=add_volume(images[25] + 50, grid, "m0"))
    assert sum("the spectra show no water line: their mean" in sentence for sentence in result.report["warnings"]) == 1
