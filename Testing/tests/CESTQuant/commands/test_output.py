"""What the commands read and write besides the maps: all forms of signal, report, table, picture and scene."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from studies import Acquisition, checksums, fit_arguments, read_image, write_image, write_json, write_series

from CESTQuantLib.batch import main
from CESTQuantLib.formats.protocol_json import protocol_to_dict
from NeuroCESTLib.scene import display, hierarchy
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import read_sequence, set_index
from NeuroCESTLib.scene.tables import table_columns
from NeuroCESTLib.scene.volumes import array_on
from NeuroCESTLib.scene.writing import write_node


def test_unsorted_spectra_give_the_same_maps(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(0).permutation(21)
    other = tmp_path / "shuffled"
    protocol = acquisition.protocol.select(torch.from_numpy(shuffled))
    replace(acquisition, protocol=protocol, signal=acquisition.signal[shuffled]).write(other)
    maps = {"mtrasym": "mtr_asym_3.5ppm", "lorentzian": "amide_amplitude", "mtr-rex": "mtr_rex_amide"}
    for method, name in maps.items():
        outputs = [quantified(folder, method, b0=folder / "b0.nii.gz") for folder in (good, other)]
        np.testing.assert_allclose(*(read_image(output / f"{name}.nii.gz") for output in outputs), atol=5e-4)


def test_repeated_measurements_are_averaged_in_contrasts_and_fitted_in_models(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    twice = torch.arange(21).repeat(2)
    other = tmp_path / "twice"
    signal = acquisition.signal[twice.numpy()]
    replace(acquisition, protocol=acquisition.protocol.select(twice), signal=signal).write(other)
    for method, name, model in (
        ("mtrasym", "mtr_asym_3.5ppm", {}),
        ("r1rho", "amine_fraction", {"model": good / "model.json", "t1": good / "t1.nii.gz"}),
    ):
        once, again = (
            read_image(quantified(folder, method, b0=good / "b0.nii.gz", **model) / f"{name}.nii.gz")
            for folder in (good, other)
        )
        np.testing.assert_allclose(once, again, rtol=1e-3)


def test_interleaved_references_correct_a_drift(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    drift = np.linspace(1.0, 0.8, 21)[:, None, None, None]
    grid = acquisition.geometry
    signal = write_series((acquisition.signal * drift).astype(np.float32), grid, tmp_path / "s.nii.gz")
    references = acquisition.m0 * np.array([1.0, 0.9, 0.8])[:, None, None, None]
    reference = write_series(references.astype(np.float32), grid, tmp_path / "m0.nii.gz")
    files = {"b0": good / "b0.nii.gz"}
    steady = quantified(good, "mtrasym", **files)
    drifting = quantified(good, "mtrasym", signal=signal, reference=reference, **files)
    maps = [read_image(folder / "mtr_asym_3.5ppm.nii.gz") for folder in (steady, drifting)]
    np.testing.assert_allclose(*maps, atol=1e-5)


def test_a_far_off_resonance_measurement_serves_as_m0(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    values = protocol_to_dict(acquisition.protocol)
    write_json(values | {"offsets_ppm": [-300.0, *values["offsets_ppm"]]}, tmp_path / "p.json")
    signal = np.concatenate([acquisition.m0[None], acquisition.signal])
    write_series(signal, acquisition.geometry, tmp_path / "s.nii.gz")
    files = {"b0": good / "b0.nii.gz"}
    given = quantified(good, "mtrasym", **files)
    files |= {"signal": tmp_path / "s.nii.gz", "protocol": tmp_path / "p.json", "reference": None}
    own = quantified(good, "mtrasym", **files)
    maps = [read_image(folder / "mtr_asym_3.5ppm.nii.gz") for folder in (given, own)]
    np.testing.assert_allclose(*maps, atol=1e-6)


def test_warnings_are_printed_and_reported(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    write_json(protocol_to_dict(acquisition.protocol) | {"te_ms": 3, "b1": 2}, tmp_path / "p.json")
    t1 = write_image(acquisition.maps["t1"] * 1000, acquisition.geometry, tmp_path / "t1.nii.gz")
    words = (
        "p.json: unknown keys are ignored: b1, te_ms",
        f"the T1 map '{t1}' has a median of 1995.8 and",
        "the B1 map is not used",
    )
    output = quantified(
        good, "mtr-rex", words, protocol=tmp_path / "p.json", t1=t1, b1=good / "b1.nii.gz", b0=good / "b0.nii.gz"
    )
    noted = json.loads((output / "report.json").read_text())["warnings"]
    assert all(word in line for word, line in zip(words, noted, strict=True))
    in_s = quantified(good, "mtr-rex", t1=good / "t1.nii.gz", b0=good / "b0.nii.gz")
    maps = [read_image(folder / "arex_amide.nii.gz") for folder in (output, in_s)]
    np.testing.assert_allclose(*maps, rtol=1e-4)


def test_the_report_has_inputs_settings_and_results(
    quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    mask = np.zeros(acquisition.geometry.shape, np.uint8)
    mask[1:3] = 1
    files = {
        "mask": write_image(mask, acquisition.geometry, tmp_path / "mask.nii.gz"),
        "b0": good / "b0.nii.gz",
        "t1": good / "t1.nii.gz",
        "model": good / "model.json",
    }
    output = quantified(good, "r1rho", **files)
    report = json.loads((output / "report.json").read_text())
    assert report["command"] == "cestquant fit"
    assert report["settings"]["method"] == "r1rho"
    assert report["settings"]["mask"] == str(tmp_path / "mask.nii.gz")
    recorded = {entry["role"]: entry for entry in report["inputs"]}
    assert recorded.keys() == {"signal", "protocol", "reference", *files}
    for entry in recorded.values():
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    assert report["versions"].keys() >= {"torch", "numpy", "slicer", "neurocest"}
    assert report["device"] == "cpu" or report["device"].startswith("cuda")
    assert report["timings_s"].keys() == {"reading", "computing", "writing", "total"}
    assert report["summary"]["voxels"] | {"masked": 60, "converged": 60} == report["summary"]["voxels"]
    fractions = read_image(output / "amine_fraction.nii.gz")
    assert report["summary"]["medians"]["amine_fraction"] == pytest.approx(float(np.nanmedian(fractions)), rel=0.02)
    np.testing.assert_array_equal(np.isnan(fractions), mask == 0)
    np.testing.assert_array_equal(read_image(output / "status.nii.gz") == 0, mask == 0)


def test_regions_of_a_label_volume(quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path) -> None:
    labels = np.zeros(acquisition.geometry.shape, np.int16)
    labels[:2], labels[3, 1] = 1, 4
    segmentation = write_image(labels, acquisition.geometry, tmp_path / "regions.nii.gz")
    output = quantified(good, "mtrasym", b0=good / "b0.nii.gz", segmentation=segmentation)
    with open(output / "roi.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["region"], row["quantity"], row["n"]) for row in rows] == [
        ("label 1", "mtr_asym_3.5ppm", "60"),
        ("label 4", "mtr_asym_3.5ppm", "6"),
    ]
    values = read_image(output / "mtr_asym_3.5ppm.nii.gz")
    for row, label in zip(rows, (1, 4), strict=True):
        inside = values[labels == label].astype(float)
        expected = {
            "mean": inside.mean(),
            "sd": inside.std(ddof=1),
            "median": np.median(inside),
            "q1": np.quantile(inside, 0.25),
            "q3": np.quantile(inside, 0.75),
        }
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-6)


def test_every_form_of_signal_gives_the_same_maps(
    slicer: ModuleType, quantified: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    parts = [
        write_image(volume, acquisition.geometry, tmp_path / f"z{number}.nii.gz")
        for number, volume in enumerate(acquisition.signal)
    ]
    shuffled = np.random.default_rng(0).permutation(21)
    node = read_sequence(
        [parts[number] for number in shuffled]
    )  # when the file is read again, Slicer sorts it by its index
    set_index(node, acquisition.protocol.offsets_ppm.numpy()[shuffled])
    write_node(node, tmp_path / "signal.seq.nrrd")
    files = {"b0": good / "b0.nii.gz", "mask": good / "mask.nii.gz"}
    expected, several, sequence = (
        quantified(good, "mtrasym", signal=signal, **files)
        for signal in (good / "signal.nii.gz", parts, tmp_path / "signal.seq.nrrd")
    )
    wanted = read_image(expected / "mtr_asym_3.5ppm.nii.gz")
    for output in (expected, several, sequence):
        image = sitk.ReadImage(str(output / "mtr_asym_3.5ppm.nii.gz"))
        own = acquisition.geometry.reorder(sitk.GetArrayFromImage(image), Geometry.from_sitk(image))
        np.testing.assert_allclose(own, wanted, atol=1e-7)
        if output is not sequence:
            assert Geometry.from_sitk(image).matches(acquisition.geometry)


def test_the_picture_is_a_png_of_maps_and_spectra(quantified: Callable, good: Path) -> None:
    from matplotlib.image import imread

    output = quantified(good, "lorentzian", b0=good / "b0.nii.gz")
    picture = imread(output / "report.png")
    assert min(picture.shape[:2]) > 600
    assert picture[..., :3].std() > 0.1


def test_the_scene_opens_with_maps_table_units_and_colours(
    slicer: ModuleType, quantified: Callable, good: Path, acquisition: Acquisition
) -> None:
    files = {name: good / f"{name}.nii.gz" for name in ("b0", "t1")}
    output = quantified(
        good, "r1rho", model=good / "model.json", segmentation=good / "mask.nii.gz", scene=True, **files
    )
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(output / "scene.mrb"))
    folder = hierarchy.folder_named("signal r1rho")
    nodes = {node.GetName(): node for node in hierarchy.nodes_in(folder, below=True)}
    assert nodes.keys() >= {"amine_fraction", "amine_fraction_sd", "rmse", "status", "regions"}
    rate = nodes["amine_exchange_rate_Hz"]
    assert display.unit_of(rate) == "Hz"
    assert rate.GetDisplayNode().GetColorNode().GetName() == "NeuroCEST inferno"
    low, high = rate.GetDisplayNode().GetWindowLevelMin(), rate.GetDisplayNode().GetWindowLevelMax()
    assert 80 < low < high < 450
    on_signal = array_on(rate, acquisition.geometry, strict=True)
    np.testing.assert_allclose(on_signal, read_image(output / "amine_exchange_rate_Hz.nii.gz"), rtol=1e-5)
    columns = table_columns(nodes["regions"])
    assert list(columns) == ["region", "quantity", "unit", "n", "mean", "sd", "median", "q1", "q3", "left_out"]
    assert "signal" not in nodes  # inputs are in the scene, but not among the results
    assert slicer.mrmlScene.GetFirstNodeByName("signal") is not None


def test_running_again_replaces_the_maps_and_keeps_other_files(good: Path, slicer: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(fit_arguments(good, out, "mtrasym", b0=good / "b0.nii.gz")) == 0
    (out / "notes.txt").write_text("the user's")
    first = checksums(out)
    slicer.mrmlScene.Clear(0)
    assert main(fit_arguments(good, out, "mtrasym", asymmetry_offset=3)) == 0
    second = checksums(out)
    assert second["notes.txt"] == first["notes.txt"]
    assert second["mtr_asym_3.5ppm.nii.gz"] == first["mtr_asym_3.5ppm.nii.gz"]
    assert second["report.json"] != first["report.json"]
    assert set(second) - set(first) == {"mtr_asym_3ppm.nii.gz", "b0_shift_ppm.nii.gz"}
    assert list(tmp_path.iterdir()) == [out]


def test_without_matplotlib_only_the_picture_is_missing(
    quantified: Callable, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = quantified(good, "mtrasym", warnings=("report.png is left out: pictures need matplotlib",))
    assert (output / "mtr_asym_3.5ppm.nii.gz").is_file()
    assert not (output / "report.png").exists()
    report = json.loads((output / "report.json").read_text())
    assert [warning.split(":")[0] for warning in report["warnings"]] == ["report.png is left out"]
