"""Unusable input to the commands: exit status 2, one sentence that says what is wrong, no file written or changed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from geometries import GRIDS
from studies import (
    Acquisition,
    amine_model,
    checksums,
    fit_arguments,
    messages,
    read_image,
    spectrum_protocol,
    write_image,
    write_json,
    write_series,
)

from CESTQuantLib.batch import main
from CESTQuantLib.formats.protocol_json import protocol_to_dict
from CESTQuantLib.logic import CESTQuantLogic
from NeuroCESTLib.scene.geometry import Geometry
from NeuroCESTLib.scene.sequences import array_to_sequence
from NeuroCESTLib.scene.writing import write_node


@pytest.mark.parametrize("option", ["signal", "protocol", "reference", "mask", "b0", "b1", "t1", "segmentation"])
def test_missing_files_and_folders_are_named(refused: Callable, tmp_path: Path, option: str) -> None:
    assert refused(**{option: tmp_path / "absent.nii.gz"}).startswith("error: file not found: '")
    assert f"'{tmp_path}' is a folder, not a file" in refused(**{option: tmp_path})


@pytest.mark.parametrize("command", ["fit", "relaxation"])
def test_a_sheared_acquisition_is_refused_before_anything_is_computed(
    slicer: ModuleType,
    good: Path,
    acquisition: Acquisition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    command: str,
) -> None:
    """Its maps could not be written: NIfTI files cannot hold the grid."""
    matrix = acquisition.geometry.ijk_to_ras.copy()
    matrix[:3, 1] += 0.3 * matrix[:3, 0]
    sheared = Geometry(acquisition.geometry.shape, matrix)
    offsets = acquisition.protocol.offsets_ppm.numpy()
    path = write_node(array_to_sequence(acquisition.signal, sheared, "signal", offsets), tmp_path / "signal.seq.nrrd")
    for run in ("fit", "relaxation"):
        monkeypatch.setattr(CESTQuantLogic, run, lambda *arguments, **options: pytest.fail("something is computed"))
    arguments = {
        "fit": ["--protocol", str(good / "protocol.json"), "--method", "mtrasym", "--normalisation", "none"],
        "relaxation": ["--kind", "inversion-recovery", "--times-ms", *map(str, range(100, 100 + len(offsets)))],
    }[command]
    assert main([command, "--signal", str(path), *arguments, "--output", str(tmp_path / "maps")]) == 2
    (message,) = messages(capfd.readouterr().err)
    assert f"'{path}': the axes of its voxels are not perpendicular" in message
    assert message.endswith("resample it to a rectangular grid first")
    assert not (tmp_path / "maps").exists()


def test_a_model_file_must_exist_even_if_the_method_does_not_use_it(refused: Callable) -> None:
    assert refused(model="absent.json") == "error: file not found: 'absent.json'"


@pytest.mark.parametrize(("option", "value"), [("b0", 3e4), ("b1", 60.0 * 17), ("t1", 1e6)])
def test_maps_in_no_known_unit_are_named_by_their_files(
    refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path, option: str, value: float
) -> None:
    path = write_image(np.full(acquisition.geometry.shape, value, np.float32), acquisition.geometry, tmp_path / "m.nii")
    method = {"method": "r1rho", "model": write_json(amine_model(), tmp_path / "model.json")}
    assert f"'{path}'" in refused(**{"t1": good / "t1.nii.gz", option: path}, **method)


def test_images_in_which_no_motion_can_be_seen_are_named_by_their_file(refused: Callable, good: Path) -> None:
    assert f"'{good / 'signal.nii.gz'}': motion correction" in refused(motion_correct=True)


def test_the_model_that_refers_to_a_missing_map_is_named(refused: Callable, tmp_path: Path) -> None:
    model = write_json({"water": {"T1_s": {"map": "t1"}, "T2_s": 0.05}}, tmp_path / "model.json")
    assert f"'{model}' refers to the map 't1'" in refused(method="r1rho", model=model)


@pytest.mark.parametrize("option", ["signal", "reference", "mask", "b0", "segmentation"])
@pytest.mark.parametrize("kind", ["truncated.nii.gz", "text.nii.gz", "text.nii", "text.png", "empty.nii", "cut.nii"])
def test_files_that_are_not_images_are_named(
    refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path, option: str, kind: str
) -> None:
    path = tmp_path / kind
    if kind == "truncated.nii.gz":
        whole = (good / "m0.nii.gz").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "cut.nii":
        write_image(acquisition.m0, acquisition.geometry, path)
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_text("" if kind == "empty.nii" else "hello")
    assert f"'{path}'" in refused(**{option: path})


@pytest.mark.parametrize("name", ["signal.seq.nrrd", "segmentation.seg.nrrd"])
@pytest.mark.parametrize("length", [0, 12, 200])
def test_damaged_nrrd_files_are_named(refused: Callable, tmp_path: Path, name: str, length: int) -> None:
    header = b"NRRD0005\ntype: short\ndimension: 4\nsizes: 3 4 5 6\nencoding: gzip\n\n" + b"\x1f\x8b" + b"\0" * 200
    (tmp_path / name).write_bytes(header[:length])
    assert f"'{tmp_path / name}'" in refused(**{name.split(".")[0]: tmp_path / name})


def test_a_single_volume_is_refused_as_signal_and_a_series_as_map(refused: Callable, good: Path) -> None:
    assert "is 3-D, one measurement: give a 4-D file or one 3-D file" in refused(signal=good / "m0.nii.gz")
    for option in ("mask", "b0", "b1", "t1", "segmentation"):
        assert "holds 21 volumes, but one 3-D volume is needed" in refused(**{option: good / "signal.nii.gz"})


def test_masks_of_another_geometry_or_without_voxels(
    refused: Callable, acquisition: Acquisition, tmp_path: Path
) -> None:
    grid, mask = acquisition.geometry, tmp_path / "brain.nii.gz"
    write_image(np.ones(GRIDS["axial"].shape, np.uint8), GRIDS["axial"], mask)
    assert f"'{mask}' has another geometry than the signal (voxels of 1 x 1 x 1 mm" in refused(mask=mask)
    fewer = Geometry((3, 5, 6), grid.ijk_to_ras)
    write_image(np.ones(fewer.shape, np.uint8), fewer, mask)
    assert "(6 x 5 x 3 voxels instead of 6 x 5 x 4): resample it" in refused(mask=mask)
    write_image(np.zeros(grid.shape, np.uint8), grid, mask)
    assert f"the mask '{mask}' is empty" in refused(mask=mask)
    assert f"'{mask}' has no label where the signal is" in refused(segmentation=mask)


def test_a_signal_without_reference_is_refused_with_three_remedies(refused: Callable) -> None:
    line = refused(reference=None)
    assert "give an M0 image" in line
    assert "20 ppm off" in line
    assert "signal_normalisation to 'none'" in line


@pytest.mark.parametrize("value", [0.0, np.nan])
@pytest.mark.parametrize("method", ["mtrasym", "lorentzian", "r1rho"])
def test_an_acquisition_without_usable_voxels(
    refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path, value: float, method: str
) -> None:
    empty = np.full_like(acquisition.signal, value)
    write_series(empty, acquisition.geometry, tmp_path / "empty.nii.gz")
    write_image(empty[0], acquisition.geometry, tmp_path / "m0.nii.gz")
    model = {"model": good / "model.json", "t1": good / "t1.nii.gz"}
    line = refused(method, signal=tmp_path / "empty.nii.gz", **model)
    unusable = "has no voxel with a usable signal and M0"
    assert line == f"error: '{tmp_path / 'empty.nii.gz'}' {unusable}: check the reference and mask"
    assert unusable in refused(method, reference=tmp_path / "m0.nii.gz", **model)


def test_maps_that_do_not_reach_the_signal(refused: Callable, good: Path, tmp_path: Path) -> None:
    far = Geometry.from_spacing((4, 5, 6), (1, 1, 1), (500, 500, 500))
    write_image(np.ones(far.shape, np.float32), far, tmp_path / "far.nii.gz")
    line = refused("r1rho", model=good / "model.json", t1=tmp_path / "far.nii.gz")
    signal = good / "signal.nii.gz"
    assert line.startswith(f"error: no voxel of '{signal}' could be quantified (120 with unusable signal, M0 or maps)")
    assert f"no voxel of '{signal}'" in refused("lorentzian", b0=tmp_path / "far.nii.gz")


@pytest.mark.parametrize("method", ["mtrasym", "aptw"])
def test_a_field_map_without_values_is_the_reason_and_not_the_offsets(
    refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path, method: str
) -> None:
    write_image(np.full(acquisition.m0.shape, np.nan, np.float32), acquisition.geometry, tmp_path / "nan.nii.gz")
    line = refused(method, b0=tmp_path / "nan.nii.gz")
    assert "with unusable signal, M0 or maps): check the maps, mask and protocol" in line
    assert "both sides" not in line


def test_measurements_in_files_of_different_grids(
    refused: Callable, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    write_image(acquisition.m0, GRIDS["rotated"], tmp_path / "second.nii.gz")
    line = refused(signal=[good / "m0.nii.gz", tmp_path / "second.nii.gz"])
    assert f"'{tmp_path / 'second.nii.gz'}' has another geometry than '{good / 'm0.nii.gz'}'" in line


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("offsets.txt", "the protocol gives no saturation time and B1; wasabi needs a protocol.json or .seq"),
        ("two.json", "WASABI needs a protocol with one B1 and one pulse duration for all measurements"),
    ],
)
def test_wasabi_needs_its_pulse(
    slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture, protocol: str, words: str
) -> None:
    spectrum = spectrum_protocol(count=21)
    (tmp_path / "offsets.txt").write_text("\n".join(map(str, spectrum.offsets_ppm.tolist())))
    write_json(protocol_to_dict(spectrum) | {"b1_uT": [1.0, 2.0] * 10 + [1.0]}, tmp_path / "two.json")
    arguments = ["wasabi", *fit_arguments(good, tmp_path / "out", "")[1:], "--protocol", str(tmp_path / protocol)]
    place = arguments.index("--method")
    assert main(arguments[:place] + arguments[place + 2 :]) == 2
    assert messages(capfd.readouterr().err) == [f"error: '{tmp_path / protocol}': {words}"]
    assert not (tmp_path / "out").exists()


def test_limits_of_a_field_map_that_do_not_ascend(
    slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    arguments = fit_arguments(good, tmp_path / "out", "")[1:]
    place = arguments.index("--method")
    arguments = ["wassr", *arguments[:place], *arguments[place + 2 :], "--b0-limits", "1", "-1"]
    assert main(arguments) == 2
    words = "error: --b0-limits: the limits of B0 must be two ascending numbers, not 1, -1"
    assert messages(capfd.readouterr().err) == [words]


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_an_output_folder_that_is_a_file(
    slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture, place: str
) -> None:
    (tmp_path / "file").write_text("the user's")
    assert main(fit_arguments(good, tmp_path / place, "mtrasym")) == 2
    assert str(tmp_path / "file") in messages(capfd.readouterr().err)[0]
    assert checksums(tmp_path).keys() == {"file"}
    assert (tmp_path / "file").read_text() == "the user's"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    """Mount a file system of 64 KiB; the test is skipped where this is not possible."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_the_earlier_result_kept(
    slicer: ModuleType, good: Path, tiny_disk: Path, capfd: pytest.CaptureFixture
) -> None:
    (tiny_disk / "earlier.txt").write_text("earlier")
    for output in (tiny_disk / "out", tiny_disk):
        assert main(fit_arguments(good, output, "mtrasym", scene=True)) == 2
        assert "the disk is full" in messages(capfd.readouterr().err)[0]
        assert checksums(tiny_disk).keys() == {"earlier.txt"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder_is_named(
    slicer: ModuleType, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    for output in (tmp_path / "out", tmp_path / "out" / "deeper"):
        assert main(fit_arguments(good, output, "mtrasym")) == 2
        assert "the folder is read-only, choose another one" in messages(capfd.readouterr().err)[0]


def test_unusable_voxels_are_flagged_and_never_filled(
    slicer: ModuleType, good: Path, acquisition: Acquisition, tmp_path: Path
) -> None:
    signal, m0 = acquisition.signal.copy(), acquisition.m0.copy()
    fields = {name: values.copy() for name, values in acquisition.maps.items()}
    signal[:, 0, 0, 0], signal[:, 0, 0, 1], signal[4, 0, 0, 2], signal[4, 0, 0, 3] = 0, np.nan, np.nan, np.inf
    m0[0, 1, 0], m0[0, 1, 1], m0[0, 1, 2] = 0, np.nan, -5
    fields["b0"][0, 2, 0] = np.nan
    fields["t1"][0, 3, 0:3] = np.nan, 0, -1
    fields["b1"][0, 4, 0:3] = np.nan, 0, -1
    bad = np.zeros(m0.shape, bool)
    bad[0, 0, :4] = bad[0, 1, :3] = bad[0, 2, 0] = True
    bad_for_models = bad.copy()
    bad_for_models[0, 3:5, :3] = True
    files = {"signal": write_series(signal, acquisition.geometry, tmp_path / "s.nii.gz")}
    for name, values in {"reference": m0, **fields}.items():
        files[name] = write_image(values, acquisition.geometry, tmp_path / f"{name}.nii.gz")
    for method, name, expected in (
        ("mtrasym", "mtr_asym_3ppm", bad),
        ("lorentzian", "amide_amplitude", bad),
        ("r1rho", "amine_fraction", bad_for_models),
        ("bloch-mcconnell", "amine_fraction", bad_for_models),
    ):
        model = {"model": good / "model.json"} if "amine" in name else {}
        status = main(fit_arguments(good, tmp_path / method, method, **files, asymmetry_offset=3, **model))
        assert status == 0
        np.testing.assert_array_equal(np.isnan(read_image(tmp_path / method / f"{name}.nii.gz")), expected)
        np.testing.assert_array_equal(read_image(tmp_path / method / "status.nii.gz") == 5, expected)
        report = json.loads((tmp_path / method / "report.json").read_text())
        assert report["summary"]["voxels"]["invalid_data"] == expected.sum()
